//! Live copies: what the streams republish, as it comes (L7).

use std::task::{Context, Poll};

use super::{
    envelope,
    headers::Headers,
    link::{Inflow, Raw},
    stamp,
};
use crate::log::{Copies, Copy, Stored};

/// The copies of one channel.
///
/// The payload of a copy is a slice of the connection's read buffer (32 KiB or so), without a copy
/// of the bytes. Who keeps it for long keeps the buffer: the ring copies.
#[derive(Debug)]
pub(super) struct LiveCopies {
    inflow: Inflow,
    stored: bool,
}

impl LiveCopies {
    /// Copies of a durable channel, or (`stored` is false) the messages of an ephemeral one.
    pub(super) fn new(inflow: Inflow, stored: bool) -> Self {
        Self { inflow, stored }
    }
}

impl Copies for LiveCopies {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Copy>> {
        loop {
            let raw = std::task::ready!(self.inflow.poll_next(cx));
            let copy = if self.stored {
                copy(&raw)
            } else {
                Some(ephemeral(&raw))
            };
            if copy.is_some() {
                return Poll::Ready(copy);
            }
        }
    }
}

/// A republished message; `None` if no stream has republished it (somebody wrote to the live
/// subject).
fn copy(raw: &Raw) -> Option<Copy> {
    let headers = Headers::parse(raw.headers());
    Some(Copy {
        prev: headers.last_sequence()?,
        stored: Stored {
            seq: headers.sequence()?,
            time_ms: headers.time_ms()?,
            body: envelope::body(&headers, raw.payload()),
        },
    })
}

/// A message of an ephemeral channel: without an offset, at the time it came (L16).
fn ephemeral(raw: &Raw) -> Copy {
    let headers = Headers::parse(raw.headers());
    Copy {
        prev: 0,
        stored: Stored {
            seq: 0,
            time_ms: stamp::now_ms(),
            body: envelope::body(&headers, raw.payload()),
        },
    }
}
