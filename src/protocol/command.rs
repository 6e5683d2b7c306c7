use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::value::RawValue;

use super::json;
use crate::model::{Kind, Offset};

/// One thing a client asks for. Texts and payloads are borrowed from the frame where they stand
/// there as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// The client's number for it, which the reply repeats; 0 = no reply is wanted.
    pub id: u32,
    /// What is asked.
    pub request: Request<'a>,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first command of a connection.
    Connect(Box<Connect<'a>>),
    /// Subscribe to a channel.
    Subscribe(Subscribe<'a>),
    /// End a subscription.
    Unsubscribe {
        /// The channel.
        channel: Cow<'a, str>,
    },
    /// Publish to a channel.
    Publish {
        /// The channel.
        channel: Cow<'a, str>,
        /// What is published; `None` if the client left it out.
        payload: Option<Payload<'a>>,
        /// Extension: a repeat of the publish with the same key stores nothing.
        idempotency_key: Option<Cow<'a, str>>,
    },
    /// Read a channel's history.
    History {
        /// The channel.
        channel: Cow<'a, str>,
        /// What of it.
        query: HistoryQuery,
    },
    /// Who is on a channel.
    Presence {
        /// The channel.
        channel: Cow<'a, str>,
    },
    /// How many are on a channel.
    PresenceStats {
        /// The channel.
        channel: Cow<'a, str>,
    },
    /// Call the application.
    Rpc {
        /// The method.
        method: Cow<'a, str>,
        /// Raw JSON; `null` if the client left it out.
        data: Cow<'a, str>,
    },
    /// Tell the application, without a reply.
    Send {
        /// Raw JSON; `null` if the client left it out.
        data: Cow<'a, str>,
    },
    /// Prolong the connection.
    Refresh {
        /// A new connection token; empty if the client left it out.
        token: Token<'a>,
    },
    /// Prolong a subscription.
    SubRefresh {
        /// The channel.
        channel: Cow<'a, str>,
        /// A new subscription token; empty if the client left it out.
        token: Token<'a>,
    },
    /// The `ping` command, which no SDK sends.
    Ping,
    /// The answer to the server's ping.
    Pong,
    /// A request that this server does not know.
    Unknown,
    /// A request that is wrong in itself, with an id that can be answered.
    Malformed,
}

/// The request of a `connect`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Connect<'a> {
    /// The connection token; `None` or empty = none.
    pub token: Option<Token<'a>>,
    /// From where *server-side* subscriptions go on. Asks for no subscription.
    pub recover: Vec<(Cow<'a, str>, RecoverFrom<'a>)>,
}

/// The position a client has, as it says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RecoverFrom<'a> {
    /// Its offset; 0 = it has nothing.
    pub offset: Offset,
    /// Its epoch; empty = it knows none.
    pub epoch: Cow<'a, str>,
}

/// The request of a `subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Subscribe<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// A subscription token; `None` or empty = none.
    pub token: Option<Token<'a>>,
    /// Where the client was; `None` = it subscribes anew.
    pub recover: Option<RecoverFrom<'a>>,
    /// The client wants error 112 instead of an answer `recovered: false`.
    pub reject_unrecovered: bool,
    /// The client wants to be told of joins and leaves.
    pub join_leave: bool,
    /// A feature asked for that this server does not have.
    pub unsupported: Option<SubscribeFeature>,
}

/// What a subscribe may ask for beyond this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeFeature {
    /// A filter by tags. It cannot be ignored, since the client would get what it does not want.
    TagsFilter,
    /// A map or shared-poll subscription.
    OtherType,
}

/// What a history request wants of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// At most how many publications: 0 = none (only the position), -1 = as many as allowed.
    pub limit: i32,
    /// Strictly after this offset (before it, if `reverse`).
    pub since: Option<Offset>,
    /// The epoch of `since`; empty = not checked.
    pub epoch: String,
    /// Newest first.
    pub reverse: bool,
    /// Extension: not older than this, ms since 1970.
    pub since_time: Option<u64>,
    /// Extension: older than this, ms since 1970.
    pub until_time: Option<u64>,
}

/// A payload as a client sent it.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// One valid JSON value, free of newlines.
    Json(Cow<'a, str>),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// Why two fields are no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// `data` and `b64data`: which one counts?
    #[error("both data and b64data")]
    Both,
    /// `b64data` is not the standard alphabet with padding (RFC 4648, section 4).
    #[error("b64data is not base64")]
    NotBase64,
}

impl<'a> Payload<'a> {
    /// The payload that the fields `data` (any JSON value) and `b64data` hold; `None` if both are
    /// absent. JSON is copied only if it has raw newlines, which are taken out.
    ///
    /// # Errors
    ///
    /// [`PayloadError`].
    pub fn read(data: Option<&'a RawValue>, b64data: Option<&str>) -> Result<Option<Self>, PayloadError> {
        match (data, b64data) {
            (Some(_), Some(_)) => Err(PayloadError::Both),
            (Some(data), None) => Ok(Some(Self::Json(match json::without_newlines(data.get()) {
                Some(clean) => Cow::Owned(clean),
                None => Cow::Borrowed(data.get()),
            }))),
            (None, Some(text)) => match STANDARD.decode(text) {
                Ok(bytes) => Ok(Some(Self::Bytes(bytes))),
                Err(_) => Err(PayloadError::NotBase64),
            },
            (None, None) => Ok(None),
        }
    }
}

impl Payload<'_> {
    /// Its size in bytes, as it will be stored.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether it has no bytes. JSON never has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Json(_) => Kind::Json,
            Self::Bytes(_) => Kind::Bytes,
        }
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} bytes)", self.kind(), self.len())
    }
}

/// A token as a client sent it: unverified, and never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token<'a>(pub Cow<'a, str>);

impl Token<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the client sent none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, not borrowed from the frame.
    pub fn into_owned(self) -> Token<'static> {
        Token(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
