use std::{fmt, sync::Arc};

use bytes::Bytes;

/// What a token says of itself: what it can be revoked by. Small, since a connection keeps it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// A hash of its claim `jti`, which may be as long as the token allows.
    pub id: Option<[u8; 16]>,
    /// Its claim `iat`, seconds since 1970; without it the token counts as older than any time.
    pub issued_at: Option<i64>,
    /// The key that verified it: the `kid` of a key of a JWK set, the fingerprint of a configured one.
    pub key: Option<Arc<str>>,
}

/// What a valid connection token says. Times are seconds since 1970.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectClaims {
    /// The user; empty = anonymous.
    pub user: String,
    /// When the connection must have been refreshed; `None` = never.
    pub expires_at: Option<i64>,
    /// Raw JSON that subscribers see with what this connection publishes.
    pub info: Option<Bytes>,
    /// Server-side subscriptions: the texts of the channels' names as the token has them.
    pub subs: Vec<(String, SubOptions)>,
    /// What the token can be revoked by.
    pub facts: TokenFacts,
}

/// The options of one server-side subscription.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SubOptions {
    /// Raw JSON that subscribers see with what is published on this channel.
    pub info: Option<Bytes>,
    /// Raw JSON handed to the client with the subscription.
    pub data: Option<Bytes>,
}

/// What a valid subscription token says. Whether it fits the connection and the channel is for the
/// session to check.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SubscribeClaims {
    /// Must be the connection's user.
    pub user: String,
    /// Must be the channel asked for.
    pub channel: String,
    /// If present, must be the connection's id.
    pub client: Option<String>,
    /// When the subscription must have been refreshed; `None` = never.
    pub expires_at: Option<i64>,
    /// Raw JSON that subscribers see with what is published on this channel.
    pub info: Option<Bytes>,
    /// Raw JSON handed to the client with the subscription.
    pub data: Option<Bytes>,
    /// What the token can be revoked by.
    pub facts: TokenFacts,
}

/// Why a token proves nothing. Holds no part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was valid once, or will be later.
    #[error("token expired")]
    Expired,
    /// It is not, and never will be.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// The keys to judge it cannot be had now.
    #[error("token keys are unavailable")]
    Unavailable,
}

impl TokenError {
    /// It was taken back before it expired.
    pub const REVOKED: Self = Self::Invalid("revoked");
}

// Claims hold what users put into tokens, so `Debug` names only what is safe in a log.
impl fmt::Debug for TokenFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFacts")
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectClaims")
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .field("subs", &self.subs.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubOptions").finish_non_exhaustive()
    }
}

impl fmt::Debug for SubscribeClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribeClaims")
            .field("user", &self.user)
            .field("channel", &self.channel)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
