use bytes::Bytes;

use super::Offset;

/// The longest idempotency key, in bytes: as long as a channel name. None is empty.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One JSON value, validated and free of newlines: a JSON dialect embeds it as it is.
    Json,
    /// Any bytes: a JSON dialect never embeds them raw.
    Bytes,
}

/// Who published, as subscribers see it. `user` may be empty (anonymous).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClientInfo {
    /// The connection id.
    pub client: String,
    /// The user id; empty if anonymous.
    pub user: String,
    /// Raw JSON from the connection token (`info`).
    pub conn_info: Option<Bytes>,
    /// Raw JSON from the subscription token (`info`).
    pub chan_info: Option<Bytes>,
}

/// What a publisher hands to the log: a publication before it has an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What `data` is.
    pub kind: Kind,
    /// The payload as it is.
    pub data: Bytes,
    /// The publishing client; `None` if published by a backend.
    pub info: Option<ClientInfo>,
    /// Free tags of the publisher, in the order given.
    pub tags: Vec<(String, String)>,
}

/// One message of a channel, as the log stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its JetStream sequence; 0 on an ephemeral channel.
    pub offset: Offset,
    /// When the log stored it, in milliseconds since 1970.
    pub time_ms: i64,
    /// What was published.
    pub record: Record,
}
