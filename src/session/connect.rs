use std::mem;

use super::{
    Effect, NEVER, Now, REFRESH_GRACE_MS, REFUSED_MS, Session, Stage, SubscribeOrder, fail, one_line,
    subscribe::listens,
    subscriptions::{State, Subscriptions},
};
use crate::{
    model::{ChannelName, ConnectClaims, Epoch, Position, SubOptions, TokenError},
    protocol::{Connect, ConnectResult, DisconnectCode, ErrorCode, Reply, ServerSubscription},
};

/// A connect that has not been answered.
#[derive(Debug, Default)]
pub(super) struct PendingConnect {
    pub(super) id: u32,
    /// Where the client was on server-side subscriptions, as it says.
    recover: Vec<(Box<str>, Position)>,
    ttl: Option<u32>,
    /// When the connection expires, once it is established.
    until: u64,
}

impl Session {
    pub(super) fn connect(&mut self, id: u32, request: Connect<'_>, now: Now, out: &mut Vec<Effect>) {
        let recover = request.recover.into_iter().map(|(channel, from)| {
            let position = Position {
                offset: from.offset,
                epoch: Epoch::new(&from.epoch),
            };
            (channel.into(), position)
        });
        let pending = PendingConnect {
            id,
            recover: recover.collect(),
            ttl: None,
            until: NEVER,
        };
        match request.token.filter(|token| !token.is_empty()) {
            Some(token) => {
                self.stage = Stage::Verifying(Box::new(pending));
                out.push(Effect::VerifyConnect {
                    token: token.into_owned(),
                });
            }
            None if self.app.anonymous => self.establish(pending, ConnectClaims::default(), now, out),
            None => self.close(DisconnectCode::BadRequest, out),
        }
    }

    /// The result of [`Effect::VerifyConnect`].
    pub fn on_connect_verified(
        &mut self,
        result: Result<ConnectClaims, TokenError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        // In any other stage the connect has been answered or the connection closed meanwhile.
        let Stage::Verifying(pending) = &mut self.stage else {
            return;
        };
        let pending = mem::take(&mut **pending);
        match result {
            Ok(claims) => self.establish(pending, claims, now, out),
            Err(TokenError::Expired) => self.refuse(pending.id, ErrorCode::TokenExpired, now, out),
            Err(TokenError::Invalid(_)) => self.close(DisconnectCode::InvalidToken, out),
            Err(TokenError::Unavailable) => self.refuse(pending.id, ErrorCode::Internal, now, out),
        }
    }

    fn establish(
        &mut self,
        mut pending: PendingConnect,
        claims: ConnectClaims,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(expiry) = Expiry::new(claims.expires_at, now) else {
            return self.refuse(pending.id, ErrorCode::TokenExpired, now, out);
        };
        self.identity.user = claims.user;
        self.identity.conn_info = claims.info.map(one_line);
        (pending.ttl, pending.until) = (expiry.ttl, expiry.until);
        let personal = self.app.personal.as_ref();
        // In the name of a channel these divide users: it would be others' as well.
        let user = self.identity.user.as_str();
        let personal = personal.filter(|_| !user.is_empty() && !user.contains(['#', ',']));
        let personal = personal.map(|namespace| format!("{namespace}:#{}", self.identity.user));
        let more = usize::from(personal.is_some());
        if claims.subs.len() + more > self.max_channels() {
            return self.close(DisconnectCode::ChannelLimit, out);
        }
        let mut orders = Vec::with_capacity(claims.subs.len());
        let personal = personal.map(|channel| (channel, SubOptions::default()));
        for (channel, options) in claims.subs.into_iter().chain(personal) {
            match self.order_server_side(&channel, options, &pending) {
                Ok(order) => orders.extend(order),
                Err(code) => {
                    // No join has been ordered yet.
                    self.subscriptions = Subscriptions::default();
                    return self.refuse(pending.id, code, now, out);
                }
            }
        }
        if orders.is_empty() {
            self.welcome(&pending, Vec::new(), now, out);
        } else {
            // Until it has been answered, the connect's own deadline holds.
            self.stage = Stage::Joining(Box::new(pending));
            out.push(Effect::SubscribeAll(orders));
        }
    }

    /// `Ok(None)` if the token names the channel a second time.
    fn order_server_side(
        &mut self,
        channel: &str,
        options: SubOptions,
        pending: &PendingConnect,
    ) -> Result<Option<SubscribeOrder>, ErrorCode> {
        let channel = ChannelName::new(channel).map_err(|_| ErrorCode::BadRequest)?;
        let rule = self
            .app
            .rules
            .rule(&channel)
            .ok_or(ErrorCode::UnknownChannel)?
            .clone();
        let state = State::Joining { id: 0 };
        let Ok(subscription) = self
            .subscriptions
            .add(channel.clone(), state, self.max_channels())
        else {
            return Ok(None);
        };
        subscription.server_side = true;
        subscription.by_token = true;
        let info = options.info.map(one_line);
        subscription.info = info.clone().map(Box::new);
        let generation = subscription.generation;
        let member = self.member(&rule, info.as_ref());
        let recover = pending
            .recover
            .iter()
            .find(|(name, _)| **name == *channel.as_str());
        Ok(Some(SubscribeOrder {
            id: 0,
            generation,
            member,
            // Nobody asks for a subscription that the server makes.
            listens: listens(&rule, false),
            channel,
            recover: recover
                .map(|(_, position)| position.clone())
                .filter(|_| rule.recovery),
            was_recovering: recover.is_some(),
            rule,
            reject_unrecovered: false,
            server_side: true,
            ttl: None,
            data: options.data.map(one_line),
        }))
    }

    /// Whether the result of [`Effect::SubscribeAll`] is waited for. If not, the connect has been answered
    /// meanwhile, and nothing that was joined may stay.
    pub fn awaits_server_subscriptions(&self) -> bool {
        matches!(self.stage, Stage::Joining(_))
    }

    /// The result of [`Effect::SubscribeAll`]: every one of them, or why not all could be joined. In
    /// that case the client is told so, and [`Effect::Unsubscribe`] undoes those that were.
    pub fn on_server_subscribed(
        &mut self,
        result: Result<Vec<ServerSubscription>, ErrorCode>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Stage::Joining(pending) = &mut self.stage else {
            return;
        };
        let pending = mem::take(&mut **pending);
        match result {
            Ok(subs) => {
                for subscription in self.subscriptions.iter_mut() {
                    subscription.state = State::Active;
                }
                self.welcome(&pending, subs, now, out);
            }
            Err(code) => self.refuse_joined(pending.id, code, now, out),
        }
    }

    /// Answers the connect with an error after joins have been ordered.
    pub(super) fn refuse_joined(&mut self, id: u32, code: ErrorCode, now: Now, out: &mut Vec<Effect>) {
        for subscription in mem::take(&mut self.subscriptions).into_iter() {
            let (channel, generation) = (subscription.channel, subscription.generation);
            out.push(Effect::Unsubscribe {
                channel,
                generation,
                unanswered: None,
            });
        }
        self.refuse(id, code, now, out);
    }

    fn welcome(
        &mut self,
        pending: &PendingConnect,
        subs: Vec<ServerSubscription>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.stage = Stage::Connected;
        self.until = pending.until;
        self.heartbeat.start(&self.identity.client, now, &self.limits);
        let ping = u32::try_from(self.limits.ping_interval_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
        let result = Box::new(ConnectResult {
            client: self.identity.client.as_str().into(),
            ttl: pending.ttl,
            subs,
            ping,
            pong: ping > 0,
        });
        out.push(Effect::Send(Reply::Connect {
            id: pending.id,
            result,
        }));
    }

    /// Answers the connect with an error. The client goes by itself; if not, it is closed.
    pub(super) fn refuse(&mut self, id: u32, code: ErrorCode, now: Now, out: &mut Vec<Effect>) {
        self.stage = Stage::Refused;
        self.until = now.mono_ms.saturating_add(REFUSED_MS);
        fail(id, code, out);
    }
}

/// When something that a token vouches for must have been refreshed.
pub(super) struct Expiry {
    /// What the client is told, seconds; `None` = never.
    pub(super) ttl: Option<u32>,
    /// When the grace is over, by the monotonic clock; [`NEVER`] if there is no expiry.
    pub(super) until: u64,
}

impl Expiry {
    /// `None` if even the grace is over. A token that is accepted within the verifier's leeway is to
    /// be refreshed at once.
    pub(super) fn new(expires_at: Option<i64>, now: Now) -> Option<Self> {
        let Some(expires_at) = expires_at else {
            return Some(Self {
                ttl: None,
                until: NEVER,
            });
        };
        let left = expires_at.saturating_sub(now.unix_s);
        if left
            .saturating_mul(1_000)
            .saturating_add_unsigned(REFRESH_GRACE_MS)
            <= 0
        {
            return None;
        }
        let ttl = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
        let until = now
            .mono_ms
            .saturating_add(u64::from(ttl) * 1_000 + REFRESH_GRACE_MS);
        Some(Self {
            ttl: Some(ttl),
            until,
        })
    }
}
