//! One connection's protocol state, as a pure machine: inputs in, [`Effect`]s out.
//!
//! A [`Session`] does no I/O, reads no clock and starts no task. Its owner (the connection's task)
//! gives it commands, the results of the effects it ordered and the time, and carries out the
//! effects in their order before it gives the next input. Knows nothing of any dialect's wire form.
//!
//! # What the owner must do
//!
//! * **Backpressure.** While [`Session::accepts_commands`] is false (a connect is being verified or
//!   joined), commands that the client has pipelined stay where they are: undecoded, in the frame or
//!   in the socket.
//! * **The subscribe reply.** [`Effect::Subscribe`] is answered in the step that joins the tail: the
//!   owner queues the reply itself ([`SubscribeOrder::result`] has its fields), so that nothing of
//!   the channel can be queued before it, and then calls [`Session::on_subscribed`]. If the join
//!   fails it queues nothing and calls it with the error.
//! * **Unsubscribe.** After [`Effect::Unsubscribe`] nothing of that channel and generation is queued
//!   any more, and a join that is still under way never happens. Whether the reply to it has been
//!   queued only the owner knows: see the effect.
//! * **The end.** After [`Effect::Close`] the session is deaf; the owner leaves all tails.

mod connect;
mod effect;
mod failure;
mod heartbeat;
mod history;
mod orders;
mod presence;
mod publish;
mod refresh;
mod rpc;
mod settings;
mod subscribe;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use self::{
    connect::PendingConnect,
    heartbeat::Heartbeat,
    subscriptions::{State, Subscriptions},
};
use crate::{
    model::{ChannelName, ClientInfo},
    protocol::{Command, DisconnectCode, ErrorCode, Push, Reply, Request, UnsubscribeCode, json},
};

pub use effect::{
    Effect, Generation, HistoryOrder, PresenceAnswer, PresenceOrder, PublishOrder, SubscribeOrder,
};
pub use failure::publish_failure;
pub use rpc::{PRESENCE_UPDATE, Refusal};
pub use settings::{AppView, Limits, Now};

/// A deadline that never comes.
const NEVER: u64 = u64::MAX;

/// How long after `ttl` a refresh may still come, ms. Not a setting: it is part of the protocol, and
/// SDKs count on it.
const REFRESH_GRACE_MS: u64 = 25_000;

/// How long a client whose connect was answered with an error has to go away, ms. Not a setting: SDKs
/// go at once, and others have no reason to stay.
const REFUSED_MS: u64 = 5_000;

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Session {
    app: Arc<AppView>,
    limits: Arc<Limits>,
    /// Who this is; `chan_info` is never set here.
    identity: ClientInfo,
    stage: Stage,
    /// Until when the stage may last: before the connect that is done by, afterwards the expiry of
    /// the connection including the grace, or [`NEVER`].
    until: u64,
    heartbeat: Heartbeat,
    subscriptions: Subscriptions,
    /// Publishes, history reads and refreshes that have no result yet.
    in_flight: u32,
}

#[derive(Debug)]
enum Stage {
    /// Nothing has come yet.
    Fresh,
    /// The connection token is being verified.
    Verifying(Box<PendingConnect>),
    /// The server-side subscriptions are being joined.
    Joining(Box<PendingConnect>),
    /// Commands are served.
    Connected,
    /// The connect was answered with an error; the client is expected to go.
    Refused,
    /// [`Effect::Close`] was given out.
    Closed,
}

impl Session {
    /// The session of a connection that has just been opened. `client` is its id: unique, random.
    pub fn new(app: Arc<AppView>, limits: Arc<Limits>, client: String, now: Now) -> Self {
        Self {
            until: now.mono_ms.saturating_add(limits.connect_timeout_ms),
            app,
            limits,
            identity: ClientInfo {
                client,
                ..ClientInfo::default()
            },
            stage: Stage::Fresh,
            heartbeat: Heartbeat::default(),
            subscriptions: Subscriptions::default(),
            in_flight: 0,
        }
    }

    /// The connection's id.
    pub fn client(&self) -> &str {
        &self.identity.client
    }

    /// The user; empty if anonymous or not known yet.
    pub fn user(&self) -> &str {
        &self.identity.user
    }

    /// The app this connection belongs to.
    pub fn app(&self) -> &Arc<AppView> {
        &self.app
    }

    /// The connection belongs to another app than it began with: its token says so, whose
    /// verification has been ordered and has not begun. Ignored at any other time.
    pub fn adopt(&mut self, app: Arc<AppView>) {
        if matches!(self.stage, Stage::Verifying(_)) {
            self.app = app;
        }
    }

    /// The app of this connection as it is now: rules and limits that have changed hold from the next
    /// command on. Subscriptions stay.
    pub fn renew_app(&mut self, app: Arc<AppView>) {
        self.app = app;
    }

    /// Whether the connect has been answered with success and the connection not been closed.
    pub fn is_connected(&self) -> bool {
        matches!(self.stage, Stage::Connected)
    }

    /// Whether [`Session::on_command`] may be called now. If not, what the client sends stays where
    /// it is until it may.
    pub fn accepts_commands(&self) -> bool {
        !matches!(self.stage, Stage::Verifying(_) | Stage::Joining(_))
    }

    /// The channels this connection is subscribed to or about to be.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.subscriptions
            .iter()
            .map(|subscription| &subscription.channel)
    }

    fn max_channels(&self) -> usize {
        self.limits.max_channels.min(self.app.max_channels)
    }

    /// When [`Session::on_tick`] must be called at the latest, by the monotonic clock in ms; `None` =
    /// never.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadline = match self.stage {
            Stage::Closed => NEVER,
            Stage::Connected => self
                .until
                .min(self.heartbeat.deadline(&self.limits))
                .min(self.subscriptions.next_expiry()),
            _ => self.until,
        };
        (deadline != NEVER).then_some(deadline)
    }

    /// A command of the client. Not to be called while [`Session::accepts_commands`] is false.
    pub fn on_command(&mut self, command: Command<'_>, now: Now, out: &mut Vec<Effect>) {
        let Command { id, request } = command;
        match (&self.stage, request) {
            (Stage::Closed, _) => {}
            (Stage::Fresh, Request::Connect(request)) => self.connect(id, *request, now, out),
            (Stage::Connected, request) => self.serve(id, request, out),
            _ => self.close(DisconnectCode::BadRequest, out),
        }
    }

    /// A command that the owner refuses for the connection's rate: answered as such, if it can be. Ignored
    /// while the session is not connected.
    pub fn on_refused(&mut self, id: u32, out: &mut Vec<Effect>) {
        if id > 0 && self.is_connected() {
            fail(id, ErrorCode::TooManyRequests, out);
        }
    }

    fn serve(&mut self, id: u32, request: Request<'_>, out: &mut Vec<Effect>) {
        match request {
            Request::Connect(_) => self.close(DisconnectCode::BadRequest, out),
            Request::Pong => {
                if !self.heartbeat.on_pong() {
                    self.close(DisconnectCode::BadRequest, out);
                }
            }
            Request::Subscribe(request) => self.subscribe(id, request, out),
            Request::Unsubscribe { channel } => self.unsubscribe(id, &channel, out),
            Request::Publish {
                channel,
                payload,
                idempotency_key,
            } => {
                self.publish(id, &channel, payload, idempotency_key, out);
            }
            Request::History { channel, query } => self.history(id, &channel, query, out),
            Request::Refresh { token } => self.refresh(id, token, out),
            Request::SubRefresh { channel, token } => self.sub_refresh(id, &channel, token, out),
            Request::Presence { channel } => self.presence(id, &channel, false, out),
            Request::PresenceStats { channel } => self.presence(id, &channel, true, out),
            Request::Rpc { method, data } => self.rpc(id, &method, &data, out),
            Request::Ping => fail(id, ErrorCode::NotAvailable, out),
            Request::Send { data } => self.message(&data, out),
            Request::Unknown => fail(id, ErrorCode::MethodNotFound, out),
            Request::Malformed => fail(id, ErrorCode::BadRequest, out),
        }
    }

    /// Time has passed. May be called at any time; does nothing before [`Session::next_deadline`].
    pub fn on_tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        match &self.stage {
            Stage::Closed => {}
            Stage::Connected => self.tick_connected(now, out),
            _ if now.mono_ms < self.until => {}
            Stage::Fresh | Stage::Refused => self.close(DisconnectCode::Stale, out),
            // The client has done its part: it may try again.
            Stage::Verifying(pending) | Stage::Joining(pending) => {
                let id = pending.id;
                self.refuse_joined(id, ErrorCode::Internal, now, out);
            }
        }
    }

    fn tick_connected(&mut self, now: Now, out: &mut Vec<Effect>) {
        if now.mono_ms >= self.until {
            return self.close(DisconnectCode::Expired, out);
        }
        while let Some((channel, generation)) = self.subscriptions.expired(now.mono_ms) {
            self.on_unsubscribed_by_server(&channel, generation, UnsubscribeCode::Expired, out);
            if matches!(self.stage, Stage::Closed) {
                return;
            }
        }
        match self.heartbeat.on_tick(now, &self.limits) {
            heartbeat::Beat::Nothing => {}
            heartbeat::Beat::Ping => out.push(Effect::Ping),
            heartbeat::Beat::Dead => self.close(DisconnectCode::NoPong, out),
        }
    }

    /// The client has taken bytes while more were on their way to it: a client that is behind is not
    /// dead because its pong is, too.
    pub fn on_send_progress(&mut self, now: Now) {
        self.heartbeat.on_progress(now);
    }

    /// The subscription ends without the client having asked: its cursor has a gap that cannot be
    /// closed, or a backend wants it. Ignored if the subscription is not that of `generation`. Not to
    /// be called before the session knows of the join.
    ///
    /// A server-side subscription cannot be made again by the client alone, so its connection is
    /// closed instead, except when a backend wanted just this.
    pub fn on_unsubscribed_by_server(
        &mut self,
        channel: &ChannelName,
        generation: Generation,
        code: UnsubscribeCode,
        out: &mut Vec<Effect>,
    ) {
        if !self.is_connected() {
            return;
        }
        let Some(subscription) = self.subscriptions.get(channel.as_str(), generation) else {
            return;
        };
        if subscription.server_side {
            match code {
                UnsubscribeCode::InsufficientState => {
                    return self.close(DisconnectCode::InsufficientState, out);
                }
                UnsubscribeCode::Expired => return self.close(DisconnectCode::SubscriptionExpired, out),
                UnsubscribeCode::StateInvalidated => {
                    return self.close(DisconnectCode::StateInvalidated, out);
                }
                UnsubscribeCode::Client | UnsubscribeCode::Disconnect | UnsubscribeCode::Server => {}
            }
        }
        self.leave(channel.as_str(), out);
        let channel = channel.clone();
        out.push(Effect::Send(Reply::Push(Push::Unsubscribe { channel, code })));
    }

    /// Ends the session: for what the owner decides, such as a frame that is no command
    /// ([`DisconnectCode::BadRequest`]), a drain or a full mailbox.
    pub fn close(&mut self, code: DisconnectCode, out: &mut Vec<Effect>) {
        if !matches!(self.stage, Stage::Closed) {
            self.stage = Stage::Closed;
            out.push(Effect::Close(code));
        }
    }

    /// Ends the subscription to `channel`, if there is one, in whatever state it is.
    fn leave(&mut self, channel: &str, out: &mut Vec<Effect>) {
        let Some(subscription) = self.subscriptions.remove(channel) else {
            return;
        };
        let (channel, generation) = (subscription.channel, subscription.generation);
        match subscription.state {
            // No join has been ordered, so nobody else can answer the subscribe.
            State::Verifying(pending) => fail(pending.id, ABANDONED, out),
            State::Joining { id } => {
                out.push(Effect::Unsubscribe {
                    channel,
                    generation,
                    unanswered: (id != 0).then_some((id, ABANDONED)),
                });
            }
            State::Active => out.push(Effect::Unsubscribe {
                channel,
                generation,
                unanswered: None,
            }),
        }
    }

    /// Takes a place in flight, or answers that there is none.
    fn admit(&mut self, id: u32, out: &mut Vec<Effect>) -> bool {
        let free = self.in_flight < self.limits.max_in_flight;
        if free {
            self.in_flight += 1;
        } else {
            fail(id, ErrorCode::TooManyRequests, out);
        }
        free
    }

    fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// What a subscribe is answered with when the client unsubscribes before it is done. Temporary: an
/// SDK that has meanwhile subscribed again takes a final error, or a success, for its second try's.
const ABANDONED: ErrorCode = ErrorCode::Internal;

fn fail(id: u32, code: ErrorCode, out: &mut Vec<Effect>) {
    out.push(Effect::Send(Reply::Error { id, code }));
}

/// Raw JSON that is not the client's, safe to embed in a line.
pub fn one_line(raw: Bytes) -> Bytes {
    if json::is_one_line(&raw) {
        return raw;
    }
    let mut clean = Vec::with_capacity(raw.len());
    json::push_raw(&mut clean, &raw);
    clean.into()
}
