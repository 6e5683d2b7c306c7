//! A session's owner without sockets and log: does what effects say, and notes what the client gets.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    model::{
        Access, AppId, ChannelName, ClassName, ClientInfo, ConnectClaims, History, JoinLeave, Position, Rule,
        Rules, SubOptions, SubscribeClaims, TokenError, TokenFacts,
    },
    protocol::{DisconnectCode, ErrorCode, Present, Push, Reply, ServerSubscription, Token, centrifuge},
    session::*,
};

/// What leaves the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Message(String),
    Left(ChannelName),
    Close(DisconnectCode),
    CloseWith(u16, String),
}

pub(super) struct Owner {
    pub(super) session: Session,
    pub(super) now: Now,
    /// Joins that have been ordered and not been done.
    pub(super) joins: Vec<SubscribeOrder>,
    /// The joins of the connect.
    pub(super) server_joins: Vec<SubscribeOrder>,
    pub(super) tails: Vec<(ChannelName, Generation)>,
    pub(super) publishes: VecDeque<PublishOrder>,
    pub(super) histories: VecDeque<HistoryOrder>,
    /// Verifications of tokens that say `slow`.
    pub(super) verifications: VecDeque<Effect>,
    /// Messages of the client that the session does not take yet.
    pub(super) input: String,
    pub(super) events: VecDeque<Event>,
}

pub(super) const CLIENT: &str = "c1";
pub(super) const UNIX_S: i64 = 1_700_000_000;

pub(super) fn limits() -> Limits {
    Limits {
        connect_timeout_ms: 10_000,
        ping_interval_ms: 25_000,
        pong_timeout_ms: 8_000,
        max_channels: 4,
        max_in_flight: 2,
        max_history: 3,
        has_handler: false,
    }
}

/// An app with a namespace for each kind of rule.
pub(super) fn app(anonymous: bool) -> AppView {
    let class = || History::Class(ClassName::new("day").unwrap());
    let open = Rule {
        history: class(),
        recovery: true,
        subscribe: Access::Anyone,
        publish: Access::Anyone,
        read_history: Access::Anyone,
        presence: false,
        read_presence: Access::Subscriber,
        join_leave: JoinLeave::None,
        user_limited: false,
        max_size: 64,
        rate: 0,
        overflow: crate::model::Overflow::Reject,
        schema_compatibility: crate::model::Compatibility::None,
        schemas: Vec::new(),
    };
    let all = |access| Rule {
        subscribe: access,
        publish: access,
        read_history: access,
        ..open.clone()
    };
    let rules = Rules::from_iter(
        [
            ("public", open.clone()),
            (
                "live",
                Rule {
                    history: History::None,
                    recovery: false,
                    ..open.clone()
                },
            ),
            (
                "norec",
                Rule {
                    recovery: false,
                    ..open.clone()
                },
            ),
            ("auth", all(Access::Authenticated)),
            ("chat", all(Access::Token)),
            (
                "club",
                Rule {
                    subscribe: Access::Anyone,
                    ..all(Access::Subscriber)
                },
            ),
            ("closed", all(Access::Nobody)),
            ("odd", all(Access::Subscriber)),
            (
                "here",
                Rule {
                    presence: true,
                    join_leave: JoinLeave::Wanted,
                    ..open.clone()
                },
            ),
            (
                "user",
                Rule {
                    user_limited: true,
                    ..all(Access::Token)
                },
            ),
        ]
        .map(|(name, rule)| (name.to_owned(), rule)),
    );
    AppView {
        id: AppId::new("dev").unwrap(),
        anonymous,
        personal: None,
        max_channels: usize::MAX,
        rules,
    }
}

impl Owner {
    pub(super) fn new(anonymous: bool) -> Self {
        let now = Now {
            mono_ms: 0,
            unix_s: UNIX_S,
        };
        Self {
            session: Session::new(
                Arc::new(app(anonymous)),
                Arc::new(limits()),
                CLIENT.to_owned(),
                now,
            ),
            now,
            joins: Vec::new(),
            server_joins: Vec::new(),
            tails: Vec::new(),
            publishes: VecDeque::new(),
            histories: VecDeque::new(),
            verifications: VecDeque::new(),
            input: String::new(),
            events: VecDeque::new(),
        }
    }

    /// A connected one.
    pub(super) fn connected(connect: &str) -> Self {
        let mut owner = Self::new(true);
        owner.receive(connect);
        assert!(owner.session.is_connected());
        owner.events.clear();
        owner
    }

    pub(super) fn receive(&mut self, message: &str) {
        assert!(self.input.is_empty(), "backpressure: the socket is not read");
        self.input = message.to_owned();
        self.read();
    }

    /// Reads what the session takes of the message at hand.
    fn read(&mut self) {
        let message = std::mem::take(&mut self.input);
        let mut commands = centrifuge::decode(&message);
        while self.session.accepts_commands() {
            let Some(command) = commands.next() else { return };
            let mut effects = Vec::new();
            match command {
                Ok(command) => self.session.on_command(command, self.now, &mut effects),
                Err(centrifuge::NotACommand) => self.session.close(DisconnectCode::BadRequest, &mut effects),
            }
            self.perform(effects);
        }
        self.input = commands.rest().unwrap_or_default().to_owned();
    }

    /// Gives the session an input, and does what it says.
    pub(super) fn give<R>(&mut self, input: impl FnOnce(&mut Session, Now, &mut Vec<Effect>) -> R) -> R {
        let mut effects = Vec::new();
        let result = input(&mut self.session, self.now, &mut effects);
        self.perform(effects);
        if self.session.accepts_commands() && !self.input.is_empty() {
            self.read();
        }
        result
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_s = UNIX_S + i64::try_from(self.now.mono_ms / 1_000).unwrap();
        self.give(|session, now, out| session.on_tick(now, out));
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(
                !matches!(self.events.back(), Some(Event::Close(_) | Event::CloseWith(..))),
                "an effect after the last: {effect:?}"
            );
            self.perform_one(effect);
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send(reply) => {
                let mut message = Vec::new();
                centrifuge::encode(&reply, &mut message);
                self.message(message);
            }
            Effect::Ping => self.message(centrifuge::PING.to_vec()),
            Effect::Subscribe(order) | Effect::SubscribeLater(order) => self.joins.push(*order),
            Effect::SubscribeAll(orders) => self.server_joins = orders,
            Effect::Unsubscribe {
                channel,
                generation,
                unanswered,
            } => {
                self.tails.retain(|tail| *tail != (channel.clone(), generation));
                let waiting = self.joins.len();
                self.joins.retain(|order| order.generation != generation);
                self.server_joins.retain(|order| order.generation != generation);
                // The owner knows best whether the reply has been queued.
                if waiting > self.joins.len() {
                    // Nobody waits for what a backend has subscribed.
                    if let Some((id, code)) = unanswered {
                        self.perform_one(Effect::Send(Reply::Error { id, code }));
                    }
                }
                self.events.push_back(Event::Left(channel));
            }
            Effect::Publish(order) => self.publishes.push_back(order),
            Effect::History(order) => self.histories.push_back(*order),
            Effect::Update { id, state, .. } => self.give(|session, _, out| {
                session.on_rpc(id, Ok(state.unwrap_or_else(|| "{}".into())), out);
            }),
            Effect::Show { .. } => {}
            Effect::Rpc { .. } | Effect::Message(_) => panic!("there is no application"),
            // What presence knows is not the session's business: always the same is there.
            Effect::Presence(PresenceOrder { id, count, .. }) => {
                let answer = if count {
                    PresenceAnswer::Counts { clients: 2, users: 1 }
                } else {
                    let info = ClientInfo {
                        client: "c1".to_owned(),
                        user: "ann".to_owned(),
                        chan_info: Some("{}".into()),
                        ..ClientInfo::default()
                    };
                    let state = Some("{\"typing\":true}".into());
                    PresenceAnswer::Members(vec![Present { info, state }])
                };
                self.give(|session, _, out| session.on_presence(id, Ok(answer), out));
            }
            Effect::CloseWith { code, reason } => {
                self.joins.clear();
                self.server_joins.clear();
                self.tails.clear();
                self.events.push_back(Event::CloseWith(code, reason.into()));
            }
            Effect::Close(code) => {
                self.joins.clear();
                self.server_joins.clear();
                self.tails.clear();
                self.events.push_back(Event::Close(code));
            }
            Effect::VerifyConnect { ref token }
            | Effect::VerifyRefresh { ref token, .. }
            | Effect::VerifySubscribe { ref token, .. }
            | Effect::VerifySubRefresh { ref token, .. } => {
                if token.as_str().ends_with(";slow") {
                    self.verifications.push_back(effect);
                } else {
                    self.verify(effect);
                }
            }
        }
    }

    pub(super) fn verify(&mut self, effect: Effect) {
        match effect {
            Effect::VerifyConnect { token } => {
                self.give(|session, now, out| session.on_connect_verified(claims(&token), now, out));
            }
            Effect::VerifyRefresh { id, token } => {
                self.give(|session, now, out| session.on_refresh_verified(id, claims(&token), now, out));
            }
            Effect::VerifySubscribe {
                channel,
                generation,
                token,
            } => self.give(|session, now, out| {
                session.on_subscribe_verified(&channel, generation, claims(&token), now, out);
            }),
            Effect::VerifySubRefresh {
                id,
                channel,
                generation,
                token,
            } => self.give(|session, now, out| {
                session.on_sub_refresh_verified(id, &channel, generation, claims(&token), now, out);
            }),
            other => panic!("no verification: {other:?}"),
        }
    }

    /// Does a join that was ordered, and tells the session.
    pub(super) fn join(
        &mut self,
        at: usize,
        position: Option<Position>,
        recovered: bool,
        bodies: &[Vec<u8>],
    ) {
        let order = self.joins.remove(at);
        let mut reply = Vec::new();
        let result = order.result(position, recovered);
        if order.server_side {
            let channel = order.channel.clone();
            centrifuge::encode(&Reply::Push(Push::Subscribe { channel, result }), &mut reply);
            self.message(reply);
            for body in bodies {
                let mut push = Vec::new();
                centrifuge::encode_push_prefix(&order.channel, &mut push);
                push.extend_from_slice(body);
                push.extend_from_slice(centrifuge::PUSH_SUFFIX);
                self.message(push);
            }
        } else {
            let bodies = bodies.iter().map(|body| &body[..]);
            centrifuge::encode_subscribe_reply(order.id, &result, bodies, &mut reply);
            self.message(reply);
        }
        self.tails.push((order.channel.clone(), order.generation));
        self.give(|session, _, out| session.on_subscribed(&order.channel, order.generation, Ok(()), out));
    }

    pub(super) fn fail_join(&mut self, at: usize, code: ErrorCode) {
        let order = self.joins.remove(at);
        self.give(|session, _, out| session.on_subscribed(&order.channel, order.generation, Err(code), out));
    }

    /// Does the joins of the connect, at this position each.
    pub(super) fn join_all(&mut self, result: Result<Option<Position>, ErrorCode>) {
        let orders = std::mem::take(&mut self.server_joins);
        let result = result.map(|position| {
            let joined = orders
                .iter()
                .map(|order| (order.channel.clone(), order.generation));
            self.tails.extend(joined);
            let joined = orders.iter().map(|order| ServerSubscription {
                channel: order.channel.clone(),
                result: order.result(position.clone(), true),
                bodies: Vec::new(),
            });
            joined.collect()
        });
        self.give(|session, now, out| session.on_server_subscribed(result, now, out));
    }

    pub(super) fn message(&mut self, message: Vec<u8>) {
        self.events
            .push_back(Event::Message(String::from_utf8(message).unwrap()));
    }
}

/// Tokens that say what they claim: `user=ann;exp=60;sub=chat:a`. `expired`, `forged` and `no-keys`
/// are what they say.
trait FromToken: Sized {
    fn from_token(fields: &dyn Fn(&str) -> Option<String>, subs: Vec<String>) -> Self;
}

fn claims<C: FromToken>(token: &Token<'_>) -> Result<C, TokenError> {
    let text = token.as_str();
    match text.trim_end_matches(";slow") {
        "expired" => return Err(TokenError::Expired),
        "forged" => return Err(TokenError::Invalid("signature")),
        "no-keys" => return Err(TokenError::Unavailable),
        _ => {}
    }
    let pairs = || text.split(';').filter_map(|pair| pair.split_once('='));
    let field = |name: &str| {
        pairs()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let subs = pairs()
        .filter(|(key, _)| *key == "sub")
        .map(|(_, value)| value.to_owned());
    Ok(C::from_token(&field, subs.collect()))
}

fn expires_at(seconds: Option<String>) -> Option<i64> {
    seconds.map(|seconds| UNIX_S + seconds.parse::<i64>().unwrap())
}

impl FromToken for ConnectClaims {
    fn from_token(field: &dyn Fn(&str) -> Option<String>, subs: Vec<String>) -> Self {
        Self {
            user: field("user").unwrap_or_default(),
            expires_at: expires_at(field("exp")),
            info: field("info").map(Into::into),
            subs: subs
                .into_iter()
                .map(|channel| {
                    (
                        channel,
                        SubOptions {
                            info: None,
                            data: Some("{\"w\":1}".into()),
                        },
                    )
                })
                .collect(),
            facts: TokenFacts::default(),
        }
    }
}

impl FromToken for SubscribeClaims {
    fn from_token(field: &dyn Fn(&str) -> Option<String>, _: Vec<String>) -> Self {
        Self {
            user: field("user").unwrap_or_default(),
            channel: field("channel").unwrap_or_default(),
            client: field("client"),
            expires_at: expires_at(field("exp")),
            info: field("info").map(Into::into),
            data: field("data").map(Into::into),
            facts: TokenFacts::default(),
        }
    }
}
