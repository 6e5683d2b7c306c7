//! A publication as rings keep it: encoded once, shared by all who read it.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    log::{Body, Stored},
    model::{Offset, Publication},
};

/// One publication, ready for the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its offset.
    pub offset: Offset,
    /// When the log stored it, ms since 1970.
    pub time_ms: i64,
    /// The whole push, transport header included.
    frame: Bytes,
    /// Where in `frame` the publication's own object stands, for lists of publications.
    body: Range<u32>,
}

impl Entry {
    /// An entry from its encoded push. `body` is the range of the publication object in `frame`.
    pub fn new(offset: Offset, time_ms: i64, frame: Bytes, body: Range<u32>) -> Arc<Self> {
        Arc::new(Self {
            offset,
            time_ms,
            frame,
            body,
        })
    }

    /// The push as it goes to the socket.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The publication object alone.
    pub fn body(&self) -> Bytes {
        self.frame.slice(self.body.start as usize..self.body.end as usize)
    }

    /// What it costs to keep, in bytes.
    pub fn cost(&self) -> usize {
        self.frame.len() + size_of::<Self>() + 32
    }
}

/// A message of a channel in the order of the log, as far as its readers care. `P` is the form in
/// which a reader wants publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<P = Arc<Entry>> {
    /// A publication.
    Publication(P),
    /// The history below this offset was removed (L15).
    Tombstone(Offset),
    /// No program could read it: passed over, counted (L3).
    Malformed(Offset),
    /// Written by a newer program: a gap that cannot be closed (L3).
    Opaque(Offset),
}

/// What stands at an offset.
pub trait Placed {
    /// The offset.
    fn offset(&self) -> Offset;

    /// When the log stored it, ms since 1970.
    fn time_ms(&self) -> i64;
}

impl Placed for Arc<Entry> {
    fn offset(&self) -> Offset {
        self.offset
    }

    fn time_ms(&self) -> i64 {
        self.time_ms
    }
}

impl Placed for Publication {
    fn offset(&self) -> Offset {
        self.offset
    }

    fn time_ms(&self) -> i64 {
        self.time_ms
    }
}

impl<P: Placed> Message<P> {
    /// The message's sequence.
    pub fn offset(&self) -> Offset {
        match self {
            Self::Publication(publication) => publication.offset(),
            Self::Tombstone(offset) | Self::Malformed(offset) | Self::Opaque(offset) => *offset,
        }
    }

    /// A stored message, its publication brought into the reader's form.
    pub fn of(stored: Stored, form: impl FnOnce(Publication) -> P) -> Self {
        let Stored { seq, time_ms, body } = stored;
        match body {
            Body::Publication(record) => Self::Publication(form(Publication {
                offset: seq,
                time_ms,
                record,
            })),
            Body::Tombstone => Self::Tombstone(seq),
            Body::Unreadable { malformed: true } => Self::Malformed(seq),
            Body::Unreadable { malformed: false } => Self::Opaque(seq),
        }
    }
}

impl Message {
    /// What it costs to keep while a gap is read, in bytes.
    pub fn cost(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Publication(entry) => entry.cost(),
                _ => 0,
            }
    }
}

#[cfg(test)]
pub(crate) fn test_entry(offset: Offset) -> Arc<Entry> {
    let body = format!("{{\"offset\":{offset}}}");
    let len = body.len() as u32;
    Entry::new(offset, 0, Bytes::from(body), 0..len)
}
