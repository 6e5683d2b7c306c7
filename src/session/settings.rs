use crate::{
    config::{CatchupConfig, EdgeConfig},
    model::{AppId, Rules},
};

/// The time of an input, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds on a clock that only goes forward, from any start that stays the same.
    pub mono_ms: u64,
    /// Seconds since 1970: only what is in tokens is measured by it.
    pub unix_s: i64,
}

/// What a session needs to know of its app. Shared by the app's sessions.
#[derive(Clone, Debug)]
pub struct AppView {
    /// The app.
    pub id: AppId,
    /// Whether a connection may come without a token.
    pub anonymous: bool,
    /// The namespace of each user's own channel, if there is one.
    pub personal: Option<String>,
    /// Subscriptions, where that is less than [`Limits::max_channels`].
    pub max_channels: usize,
    /// Its namespaces.
    pub rules: Rules,
}

/// The bounds of a session. Shared by the node's sessions.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the opening to a valid connect, ms.
    pub connect_timeout_ms: u64,
    /// Between pings, ms; 0 = no pings.
    pub ping_interval_ms: u64,
    /// From a ping to its pong, ms, while the client takes nothing.
    pub pong_timeout_ms: u64,
    /// Subscriptions.
    pub max_channels: usize,
    /// Publishes, history reads and refreshes without a result yet.
    pub max_in_flight: u32,
    /// Whether the application takes calls and messages of clients.
    pub has_handler: bool,
    /// Publications in a page of history; more are not an error, but not given.
    pub max_history: u32,
}

impl Limits {
    /// The bounds that the configuration sets.
    pub fn new(edge: &EdgeConfig, catchup: &CatchupConfig, has_handler: bool) -> Self {
        let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            connect_timeout_ms: ms(edge.connect_timeout),
            ping_interval_ms: ms(edge.ping_interval),
            pong_timeout_ms: ms(edge.pong_timeout),
            max_channels: edge.max_channels,
            max_in_flight: u32::try_from(edge.max_in_flight).unwrap_or(u32::MAX),
            has_handler,
            max_history: catchup.page_messages,
        }
    }
}
