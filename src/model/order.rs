use bytes::Bytes;

use super::{ChannelName, Position};

/// What a backend wants done to a connection.
#[derive(Clone, PartialEq, Eq)]
pub enum BackendOrder {
    /// Close it.
    Disconnect {
        /// With this close code: 3000 to 4999.
        code: u16,
        /// And this reason: at most 123 bytes.
        reason: Box<str>,
    },
    /// End its subscription to this channel.
    Unsubscribe(ChannelName),
    /// Subscribe it to a channel.
    Subscribe(Box<BackendSubscribe>),
    /// It expired just now (3005).
    Expire,
    /// It expires at another time.
    Refresh {
        /// Seconds since 1970; `None` = never.
        expires_at: Option<i64>,
        /// What subscribers see with what it publishes from now on, raw JSON; `None` = as before.
        info: Option<Bytes>,
    },
    /// Send it a message: raw JSON.
    Message(Bytes),
}

/// A subscription that a backend makes.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendSubscribe {
    /// The channel.
    pub channel: ChannelName,
    /// Raw JSON that others see of it there.
    pub info: Option<Bytes>,
    /// Raw JSON that the client is told with it.
    pub data: Option<Bytes>,
    /// From where publications are wanted.
    pub recover: Option<Position>,
    /// Until when, seconds since 1970; `None` = as long as the connection.
    pub expires_at: Option<i64>,
}

// What backends send to users is not for logs.
impl std::fmt::Debug for BackendOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disconnect { .. } => "Disconnect",
            Self::Unsubscribe(_) => "Unsubscribe",
            Self::Subscribe(_) => "Subscribe",
            Self::Expire => "Expire",
            Self::Refresh { .. } => "Refresh",
            Self::Message(_) => "Message",
        })
    }
}
