use super::{
    Effect, Generation, Now, Session, SubscribeOrder,
    connect::Expiry,
    fail, one_line,
    subscriptions::{PendingSubscribe, State},
};
use bytes::Bytes;

use crate::{
    model::{Access, ChannelName, ClientInfo, Epoch, JoinLeave, Position, Rule, SubscribeClaims, TokenError},
    protocol::{DisconnectCode, ErrorCode, Reply, Subscribe, SubscribeFeature},
};

impl Session {
    pub(super) fn subscribe(&mut self, id: u32, request: Subscribe<'_>, out: &mut Vec<Effect>) {
        if let Err(code) = self.try_subscribe(id, request, out) {
            fail(id, code, out);
        }
    }

    fn try_subscribe(
        &mut self,
        id: u32,
        request: Subscribe<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), ErrorCode> {
        match request.unsupported {
            Some(SubscribeFeature::TagsFilter) => return Err(ErrorCode::BadRequest),
            Some(SubscribeFeature::OtherType) => return Err(ErrorCode::NotAvailable),
            None => {}
        }
        let channel = ChannelName::new(&request.channel).map_err(|_| ErrorCode::BadRequest)?;
        let rule = self
            .app
            .rules
            .rule(&channel)
            .ok_or(ErrorCode::UnknownChannel)?
            .clone();
        let token = request.token.filter(|token| !token.is_empty());
        if let Some(mut users) = rule.users_of(channel.as_str())
            && !users.any(|user| *user == *self.identity.user)
        {
            return Err(ErrorCode::PermissionDenied);
        }
        let limited = rule.users_of(channel.as_str()).is_some();
        let allowed = match rule.subscribe {
            // Its users have been found to be.
            _ if limited => true,
            Access::Anyone => true,
            Access::Authenticated => token.is_some() || !self.identity.user.is_empty(),
            Access::Token => token.is_some(),
            // To have a subscription in order to get one would be to have none.
            Access::Subscriber | Access::Nobody => false,
        };
        if !allowed {
            return Err(ErrorCode::PermissionDenied);
        }
        let pending = PendingSubscribe {
            id,
            recover: request.recover.map(|from| Position {
                offset: from.offset,
                epoch: Epoch::new(&from.epoch),
            }),
            reject_unrecovered: request.reject_unrecovered,
            join_leave: request.join_leave,
        };
        if pending.reject_unrecovered && pending.recover.is_some() && !rule.recovery {
            return Err(ErrorCode::UnrecoverablePosition);
        }
        match token {
            // A token that is given is verified also where none is needed: it carries info and expiry.
            Some(token) => {
                let state = State::Verifying(Box::new(pending));
                let added = self
                    .subscriptions
                    .add(channel.clone(), state, self.max_channels())?;
                added.by_token = true;
                let generation = added.generation;
                out.push(Effect::VerifySubscribe {
                    channel,
                    generation,
                    token: token.into_owned(),
                });
            }
            None => {
                let state = State::Joining { id };
                let added = self
                    .subscriptions
                    .add(channel.clone(), state, self.max_channels())?;
                let generation = added.generation;
                out.push(Effect::Subscribe(Box::new(SubscribeOrder {
                    id,
                    generation,
                    member: self.member(&rule, None),
                    listens: listens(&rule, pending.join_leave),
                    channel,
                    was_recovering: pending.recover.is_some(),
                    recover: pending.recover.filter(|_| rule.recovery),
                    reject_unrecovered: pending.reject_unrecovered,
                    rule,
                    server_side: false,
                    ttl: None,
                    data: None,
                })));
            }
        }
        Ok(())
    }

    /// The result of [`Effect::VerifySubscribe`].
    pub fn on_subscribe_verified(
        &mut self,
        channel: &ChannelName,
        generation: Generation,
        result: Result<SubscribeClaims, TokenError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if !self.is_connected() {
            return;
        }
        let Some(subscription) = self.subscriptions.get(channel.as_str(), generation) else {
            return;
        };
        let State::Verifying(pending) = &mut subscription.state else {
            return;
        };
        let id = pending.id;
        let position = pending.recover.take();
        let reject_unrecovered = pending.reject_unrecovered;
        let join_leave = pending.join_leave;
        let verified = match result {
            Ok(claims) if !self.identity_matches(channel, &claims) => {
                return self.close(DisconnectCode::InvalidToken, out);
            }
            Ok(claims) => Expiry::new(claims.expires_at, now)
                .map(|expiry| (claims, expiry))
                .ok_or(ErrorCode::TokenExpired),
            Err(TokenError::Expired) => Err(ErrorCode::TokenExpired),
            Err(TokenError::Invalid(_)) => Err(ErrorCode::PermissionDenied),
            Err(TokenError::Unavailable) => Err(ErrorCode::Internal),
        };
        // The rules may have been replaced since the command came.
        let rule = self
            .app
            .rules
            .rule(channel)
            .cloned()
            .ok_or(ErrorCode::UnknownChannel);
        match verified.and_then(|verified| rule.map(|rule| (verified, rule))) {
            Ok(((claims, expiry), rule)) => {
                self.subscriptions.set_expiry(channel.as_str(), expiry.until);
                let info = claims.info.map(one_line);
                let member = self.member(&rule, info.as_ref());
                if let Some(subscription) = self.subscriptions.get(channel.as_str(), generation) {
                    subscription.state = State::Joining { id };
                    subscription.info = info.map(Box::new);
                }
                out.push(Effect::Subscribe(Box::new(SubscribeOrder {
                    id,
                    generation,
                    member,
                    listens: listens(&rule, join_leave),
                    channel: channel.clone(),
                    was_recovering: position.is_some(),
                    recover: position.filter(|_| rule.recovery),
                    reject_unrecovered,
                    rule,
                    server_side: false,
                    ttl: expiry.ttl,
                    data: claims.data.map(one_line),
                })));
            }
            Err(code) => {
                self.subscriptions.remove(channel.as_str());
                fail(id, code, out);
            }
        }
    }

    /// As whom this connection is a member of a channel with `rule`.
    pub(super) fn member(&self, rule: &Rule, chan_info: Option<&Bytes>) -> Option<Box<ClientInfo>> {
        rule.presence.then(|| {
            Box::new(ClientInfo {
                chan_info: chan_info.cloned(),
                ..self.identity.clone()
            })
        })
    }

    /// Whether a valid subscription token is for this connection and this channel.
    pub(super) fn identity_matches(&self, channel: &ChannelName, claims: &SubscribeClaims) -> bool {
        claims.user == self.identity.user
            && claims.channel == channel.as_str()
            && claims
                .client
                .as_ref()
                .is_none_or(|client| *client == self.identity.client)
    }

    /// The result of [`Effect::Subscribe`]: `Ok` after the reply has been queued in the step of the
    /// join, `Err` if there was no join, and nothing has been queued.
    pub fn on_subscribed(
        &mut self,
        channel: &ChannelName,
        generation: Generation,
        result: Result<(), ErrorCode>,
        out: &mut Vec<Effect>,
    ) {
        if !self.is_connected() {
            return;
        }
        let Some(subscription) = self.subscriptions.get(channel.as_str(), generation) else {
            return;
        };
        let State::Joining { id } = subscription.state else {
            return;
        };
        match result {
            Ok(()) => subscription.state = State::Active,
            Err(code) => {
                self.subscriptions.remove(channel.as_str());
                // Nobody has asked for what a backend makes.
                if id != 0 {
                    fail(id, code, out);
                }
            }
        }
    }

    /// Ends a subscription for the client. Success also if there is none, as the protocol has it.
    pub(super) fn unsubscribe(&mut self, id: u32, channel: &str, out: &mut Vec<Effect>) {
        if ChannelName::new(channel).is_err() {
            return fail(id, ErrorCode::BadRequest, out);
        }
        self.leave(channel, out);
        out.push(Effect::Send(Reply::Unsubscribe { id }));
    }
}

/// Whether a subscriber of a channel with `rule` is told of joins and leaves.
pub(super) fn listens(rule: &Rule, wanted: bool) -> bool {
    match rule.join_leave {
        JoinLeave::None => false,
        JoinLeave::Wanted => wanted,
        JoinLeave::All => true,
    }
}
