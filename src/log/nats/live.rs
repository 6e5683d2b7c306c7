//! Live copies: what the streams republish, as it comes (L7).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use async_nats::{Message, Subscriber};
use futures_util::Stream;

use super::{envelope, headers::Headers, stamp};
use crate::log::{Copies, Copy, Stored};

/// The copies of one channel.
///
/// The payload of a copy is a slice of the connection's read buffer (64 KiB or so), without a copy
/// of the bytes. Who keeps it for long keeps the buffer: the ring copies.
#[derive(Debug)]
pub(super) struct LiveCopies {
    subscriber: Subscriber,
    stored: bool,
}

impl LiveCopies {
    /// Copies of a durable channel, or (`stored` is false) the messages of an ephemeral one.
    pub(super) fn new(subscriber: Subscriber, stored: bool) -> Self {
        Self { subscriber, stored }
    }
}

impl Copies for LiveCopies {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Copy>> {
        loop {
            let Some(message) = std::task::ready!(Pin::new(&mut self.subscriber).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let copy = if self.stored {
                copy(message)
            } else {
                Some(ephemeral(message))
            };
            if let Some(copy) = copy {
                return Poll::Ready(Some(copy));
            }
        }
    }
}

/// A republished message; `None` if no stream has republished it (somebody wrote to the live
/// subject).
fn copy(message: Message) -> Option<Copy> {
    let headers = Headers::of(message.headers.as_ref());
    Some(Copy {
        prev: headers.last_sequence()?,
        stored: Stored {
            seq: headers.sequence()?,
            time_ms: headers.time_ms()?,
            body: envelope::body(&headers, message.payload),
        },
    })
}

/// A message of an ephemeral channel: without an offset, at the time it came (L16).
fn ephemeral(message: Message) -> Copy {
    let headers = Headers::of(message.headers.as_ref());
    Copy {
        prev: 0,
        stored: Stored {
            seq: 0,
            time_ms: stamp::now_ms(),
            body: envelope::body(&headers, message.payload),
        },
    }
}
