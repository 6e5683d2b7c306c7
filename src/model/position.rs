use std::{fmt, sync::Arc};

/// A publication's JetStream sequence: ascending within a channel, *with holes*. 0 = nothing yet.
pub type Offset = u64;

/// The largest offset that every client can hold: JavaScript's safe integers end at 2^53 - 1.
pub const MAX_OFFSET: Offset = (1 << 53) - 1;

/// The identity of a shard's incarnation: offsets of different epochs are not comparable.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// An epoch by its token. Empty means that a client named none, and equals no shard's epoch.
    pub fn new(token: &str) -> Self {
        Self(token.into())
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the client named no epoch.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// How far a client has everything of a channel: a *watermark*, not necessarily the offset of a
/// publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Everything up to and including this offset is known to the client.
    pub offset: Offset,
    /// The incarnation that `offset` belongs to.
    pub epoch: Epoch,
}
