use bytes::Bytes;

/// What a verified connection token says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ConnectClaims {
    /// The user id; empty if anonymous.
    pub user: String,
    /// When the connection must have been refreshed, in seconds since 1970; `None` = never.
    pub expires_at: Option<i64>,
    /// Raw JSON that others see about the connection (`conn_info`).
    pub info: Option<Bytes>,
    /// Server-side subscriptions, by the channel's name as the token has it (not yet validated).
    pub subs: Vec<(String, SubOptions)>,
}

/// What a connection token says about one server-side subscription.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SubOptions {
    /// Raw JSON that others see about the subscription (`chan_info`).
    pub info: Option<Bytes>,
    /// Raw JSON handed to the client with the subscription.
    pub data: Option<Bytes>,
}

/// What a verified subscription token says. Whether user, channel and connection match is for the
/// session to check.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SubscribeClaims {
    /// The user id the token was made for; empty if anonymous.
    pub user: String,
    /// The channel it was made for.
    pub channel: String,
    /// The connection it was made for, if it names one.
    pub client: Option<String>,
    /// When the subscription must have been refreshed, in seconds since 1970; `None` = never.
    pub expires_at: Option<i64>,
    /// Raw JSON that others see about the subscription (`chan_info`).
    pub info: Option<Bytes>,
    /// Raw JSON handed to the client with the subscription.
    pub data: Option<Bytes>,
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is genuine, but its time has passed or has not come.
    #[error("token expired or not yet valid")]
    Expired,
    /// It is not a token for this app. The text says why without quoting anything of it.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// The keys to judge it could not be fetched. The client may come again.
    #[error("the keys to verify the token are not available")]
    Unavailable,
}
