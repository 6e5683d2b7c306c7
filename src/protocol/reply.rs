use bytes::Bytes;

use super::{DisconnectCode, ErrorCode, UnsubscribeCode};
use crate::model::{ChannelName, ClientInfo, Offset, Position, Publication};

/// Something the server says, except publications (written once per dialect, not per connection),
/// the reply to a subscribe (written in the step that joins the tail) and pings (which overtake).
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The command was not done.
    Error {
        /// The command's number.
        id: u32,
        /// Why.
        code: ErrorCode,
    },
    /// The command was not done, and it takes more than a code to tell why.
    Refusal {
        /// The command's number.
        id: u32,
        /// The application's own code: 400 to 1999; or an [`ErrorCode`].
        code: u32,
        /// In these words.
        message: Box<str>,
        /// Whether the same may succeed later.
        temporary: bool,
    },
    /// The connection is established.
    Connect {
        /// The command's number.
        id: u32,
        /// What the client needs to know.
        result: Box<ConnectResult>,
    },
    /// The subscription has ended, or there was none.
    Unsubscribe {
        /// The command's number.
        id: u32,
    },
    /// The publication is stored (or, on an ephemeral channel, sent).
    Publish {
        /// The command's number.
        id: u32,
        /// Where.
        result: PublishResult,
    },
    /// A page of history.
    History {
        /// The command's number.
        id: u32,
        /// The page.
        page: Box<HistoryPage>,
    },
    /// Who is on the channel.
    Presence {
        /// The command's number.
        id: u32,
        /// One entry per connection.
        clients: Vec<Present>,
    },
    /// How many are on the channel.
    PresenceStats {
        /// The command's number.
        id: u32,
        /// Connections.
        clients: u32,
        /// Users.
        users: u32,
    },
    /// What the application answered.
    Rpc {
        /// The command's number.
        id: u32,
        /// Raw JSON.
        data: Bytes,
    },
    /// The connection is prolonged.
    Refresh {
        /// The command's number.
        id: u32,
        /// The connection's id.
        client: Box<str>,
        /// Seconds until the next refresh is due; `None` = none is.
        ttl: Option<u32>,
    },
    /// The subscription is prolonged.
    SubRefresh {
        /// The command's number.
        id: u32,
        /// Seconds until the next refresh is due; `None` = none is.
        ttl: Option<u32>,
    },
    /// Something the client did not ask for.
    Push(Push),
}

/// What the server says unasked.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// A subscription has ended.
    Unsubscribe {
        /// Its channel.
        channel: ChannelName,
        /// Why.
        code: UnsubscribeCode,
    },
    /// The connection ends: for transports without a close frame.
    Disconnect {
        /// Why.
        code: DisconnectCode,
    },
    /// The server has subscribed the connection to a channel.
    Subscribe {
        /// The channel.
        channel: ChannelName,
        /// As in a reply.
        result: SubscribeResult,
    },
    /// Somebody came to a channel.
    Join {
        /// The channel.
        channel: ChannelName,
        /// Who.
        info: Present,
    },
    /// Somebody left a channel.
    Leave {
        /// The channel.
        channel: ChannelName,
        /// Who.
        info: Present,
    },
    /// Somebody on a channel shows something else. Extension: SDKs that do not know it pass it over.
    Update {
        /// The channel.
        channel: ChannelName,
        /// Who, as it is now.
        info: Present,
    },
    /// A message to this connection, outside of channels.
    Message {
        /// Raw JSON.
        data: Bytes,
    },
    /// The server has prolonged the connection.
    Refresh {
        /// Seconds until the next refresh is due; `None` = none is.
        ttl: Option<u32>,
    },
}

/// A member of a channel, as clients see it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Present {
    /// Who it is.
    pub info: ClientInfo,
    /// Extension: raw JSON that it has set itself.
    pub state: Option<Bytes>,
}

/// The result of a `connect`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ConnectResult {
    /// The connection's id.
    pub client: Box<str>,
    /// Seconds until a refresh is due; `None` = none is.
    pub ttl: Option<u32>,
    /// The server-side subscriptions.
    pub subs: Vec<ServerSubscription>,
    /// Seconds between pings; 0 = no pings.
    pub ping: u32,
    /// Whether the client must answer pings.
    pub pong: bool,
}

/// A server-side subscription in the result of a `connect`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSubscription {
    /// Its channel.
    pub channel: ChannelName,
    /// As in a reply to a subscribe.
    pub result: SubscribeResult,
    /// The missed publications, ascending, as the dialect's publication bodies.
    pub bodies: Vec<Bytes>,
}

/// What a subscriber is told when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SubscribeResult {
    /// Seconds until the subscription must be refreshed; `None` = it need not be.
    pub ttl: Option<u32>,
    /// The client may come back with its position.
    pub recoverable: bool,
    /// The server guards the position while subscribed.
    pub positioned: bool,
    /// The cursor's place (rule L9); `None` on an ephemeral channel.
    pub position: Option<Position>,
    /// The client has, or gets, everything after the position it came with.
    pub recovered: bool,
    /// The client came with a position.
    pub was_recovering: bool,
    /// Raw JSON from the subscription token.
    pub data: Option<Bytes>,
}

/// The result of a `publish`. On the wire all of it is an extension.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PublishResult {
    /// Where the publication is stored; `None` on an ephemeral channel.
    pub position: Option<Position>,
    /// It was stored by an earlier publish with the same idempotency key.
    pub duplicate: bool,
}

/// The result of a `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// In the order asked for.
    pub publications: Vec<Publication>,
    /// The channel's top, whatever the page holds.
    pub top: Position,
}

impl HistoryPage {
    /// A page that only says where the channel's top is.
    pub fn empty(epoch: crate::model::Epoch, offset: Offset) -> Self {
        Self {
            publications: Vec::new(),
            top: Position { offset, epoch },
        }
    }
}
