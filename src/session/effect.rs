use std::sync::Arc;

use bytes::Bytes;

use crate::{
    model::{ChannelName, ClientInfo, Position, Record, Rule},
    protocol::{DisconnectCode, ErrorCode, HistoryQuery, Present, Reply, SubscribeResult, Token},
};

/// Tells subscriptions of one connection to the same channel apart: results that come late name the
/// one they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// Something the owner of a session must do. To be done in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Queue this for the client.
    Send(Reply),
    /// Send a ping: ahead of queued publications.
    Ping,
    /// Verify a connection token; then [`on_connect_verified`](super::Session::on_connect_verified).
    VerifyConnect {
        /// The token.
        token: Token<'static>,
    },
    /// Verify a connection token; then [`on_refresh_verified`](super::Session::on_refresh_verified).
    VerifyRefresh {
        /// The command's number.
        id: u32,
        /// The token.
        token: Token<'static>,
    },
    /// Verify a subscription token; then
    /// [`on_subscribe_verified`](super::Session::on_subscribe_verified).
    VerifySubscribe {
        /// The subscription's channel.
        channel: ChannelName,
        /// The subscription.
        generation: Generation,
        /// The token.
        token: Token<'static>,
    },
    /// Verify a subscription token; then
    /// [`on_sub_refresh_verified`](super::Session::on_sub_refresh_verified).
    VerifySubRefresh {
        /// The command's number.
        id: u32,
        /// The subscription's channel.
        channel: ChannelName,
        /// The subscription.
        generation: Generation,
        /// The token.
        token: Token<'static>,
    },
    /// Join a tail and queue the reply in the same step; then
    /// [`on_subscribed`](super::Session::on_subscribed).
    Subscribe(Box<SubscribeOrder>),
    /// Join these tails, all or none, and queue nothing of them; then
    /// [`on_server_subscribed`](super::Session::on_server_subscribed), which sends the connect reply
    /// with all of them. Publications may be queued from then on.
    SubscribeAll(Vec<SubscribeOrder>),
    /// Join a tail, and in the same step queue the push that tells of it and what was missed; then
    /// [`on_subscribed`](super::Session::on_subscribed).
    SubscribeLater(Box<SubscribeOrder>),
    /// Leave a tail. A join under way must not happen any more, nor may its result be reported.
    Unsubscribe {
        /// The subscription's channel.
        channel: ChannelName,
        /// The subscription.
        generation: Generation,
        /// Set if the join was still under way as far as the session knows: the subscribe command
        /// with this number must be answered with this error, *unless the owner has queued its
        /// reply already*.
        unanswered: Option<(u32, ErrorCode)>,
    },
    /// Publish, in order with the connection's other publishes; then
    /// [`on_published`](super::Session::on_published).
    Publish(PublishOrder),
    /// Read history; then [`on_history`](super::Session::on_history).
    History(Box<HistoryOrder>),
    /// Ask who is on a channel; then [`on_presence`](super::Session::on_presence).
    Presence(PresenceOrder),
    /// Call the application; then [`on_handled`](super::Session::on_handled) and
    /// [`on_rpc`](super::Session::on_rpc).
    Rpc {
        /// The command to answer.
        id: u32,
        /// The method.
        method: Box<str>,
        /// Raw JSON.
        data: Bytes,
    },
    /// Tell the application, raw JSON; then [`on_handled`](super::Session::on_handled).
    Message(Bytes),
    /// Show another state as a member; then [`on_rpc`](super::Session::on_rpc).
    Update {
        /// The command to answer.
        id: u32,
        /// The subscription.
        generation: Generation,
        /// Raw JSON; `None` = nothing.
        state: Option<Bytes>,
    },
    /// Others see another info from now on: of the connection, or of one of its subscriptions. Raw JSON.
    Show {
        /// The subscription; `None` = the connection.
        generation: Option<Generation>,
        /// `None` = nothing.
        info: Option<Bytes>,
    },
    /// Flush what is queued, then close with this code. The session's last effect.
    Close(DisconnectCode),
    /// The same with a code and a reason that a backend has chosen.
    CloseWith {
        /// The code.
        code: u16,
        /// The reason.
        reason: Box<str>,
    },
}

/// A subscription to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscribeOrder {
    /// The command to answer; 0 if server-side.
    pub id: u32,
    /// Names the subscription in what follows.
    pub generation: Generation,
    /// The channel.
    pub channel: ChannelName,
    /// Its rule.
    pub rule: Arc<Rule>,
    /// The position to go on from; `None` = a fresh subscription, or one that cannot recover.
    pub recover: Option<Position>,
    /// The client asked to recover (also if the rule does not allow it).
    pub was_recovering: bool,
    /// If the position cannot be proven: fail with error 112, do not join.
    pub reject_unrecovered: bool,
    /// The server subscribes the connection: its result goes into the connect reply.
    pub server_side: bool,
    /// Seconds until a refresh is due.
    pub ttl: Option<u32>,
    /// Raw JSON for the client.
    pub data: Option<Bytes>,
    /// If its rule has presence: as whom the connection is a member.
    pub member: Option<Box<ClientInfo>>,
    /// Whether it is told of joins and leaves.
    pub listens: bool,
}

impl SubscribeOrder {
    /// The result for the reply, given the cursor's place (`None` on an ephemeral channel) and
    /// whether everything after [`SubscribeOrder::recover`] is given or will follow.
    pub fn result(&self, position: Option<Position>, recovered: bool) -> SubscribeResult {
        let recoverable = self.rule.recovery && position.is_some();
        SubscribeResult {
            ttl: self.ttl,
            recoverable,
            positioned: recoverable,
            position,
            recovered: recovered && self.was_recovering,
            was_recovering: self.was_recovering,
            data: self.data.clone(),
        }
    }
}

/// A publication to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishOrder {
    /// The command to answer.
    pub id: u32,
    /// The channel.
    pub channel: ChannelName,
    /// Its rule.
    pub rule: Arc<Rule>,
    /// What to store.
    pub record: Record,
    /// The client's idempotency key, to be hashed with app and channel (rule L14).
    pub idempotency_key: Option<Box<str>>,
}

/// A question for who is on a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct PresenceOrder {
    /// The command to answer.
    pub id: u32,
    /// The channel.
    pub channel: ChannelName,
    /// How many, not who.
    pub count: bool,
}

/// The answer to a [`PresenceOrder`].
#[derive(Clone, Debug, PartialEq)]
pub enum PresenceAnswer {
    /// Who is there.
    Members(Vec<Present>),
    /// How many are there.
    Counts {
        /// Connections.
        clients: u32,
        /// Users.
        users: u32,
    },
}

/// History to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryOrder {
    /// The command to answer.
    pub id: u32,
    /// The channel.
    pub channel: ChannelName,
    /// Its rule.
    pub rule: Arc<Rule>,
    /// What to read. `limit` is within what is allowed, and never negative.
    pub query: HistoryQuery,
}
