use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::{Effect, PublishOrder, Session, fail, subscriptions::State};
use crate::{
    model::{Access, ChannelName, MAX_IDEMPOTENCY_KEY_BYTES, Record, Rule},
    protocol::{ErrorCode, Payload, PublishResult, Reply},
};

impl Session {
    pub(super) fn publish(
        &mut self,
        id: u32,
        channel: &str,
        payload: Option<Payload<'_>>,
        idempotency_key: Option<Cow<'_, str>>,
        out: &mut Vec<Effect>,
    ) {
        let checked = self.check_publish(channel, payload, idempotency_key.as_deref());
        let (channel, rule, payload) = match checked {
            Ok(checked) => checked,
            Err(code) => return fail(id, code, out),
        };
        if !self.admit(id, out) {
            return;
        }
        let mut info = self.identity.clone();
        info.chan_info = self
            .subscriptions
            .find(channel.as_str())
            .and_then(|subscription| subscription.info.as_deref().cloned());
        let kind = payload.kind();
        let data = match payload {
            Payload::Json(Cow::Borrowed(text)) => Bytes::copy_from_slice(text.as_bytes()),
            Payload::Json(Cow::Owned(text)) => text.into(),
            Payload::Bytes(bytes) => bytes.into(),
        };
        out.push(Effect::Publish(PublishOrder {
            id,
            channel,
            rule,
            record: Record {
                kind,
                data,
                info: Some(info),
                tags: Vec::new(),
            },
            idempotency_key: idempotency_key.map(Box::from),
        }));
    }

    fn check_publish<'a>(
        &self,
        channel: &str,
        payload: Option<Payload<'a>>,
        idempotency_key: Option<&str>,
    ) -> Result<(ChannelName, Arc<Rule>, Payload<'a>), ErrorCode> {
        let (channel, rule) = self.known_channel(channel)?;
        let payload = payload.ok_or(ErrorCode::BadRequest)?;
        if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES) {
            return Err(ErrorCode::BadRequest);
        }
        if !self.may(rule.publish, &channel) {
            return Err(ErrorCode::PermissionDenied);
        }
        if payload.len() > rule.max_size {
            return Err(ErrorCode::LimitExceeded);
        }
        Ok((channel, rule, payload))
    }

    /// The result of [`Effect::Publish`].
    pub fn on_published(&mut self, id: u32, result: Result<PublishResult, ErrorCode>, out: &mut Vec<Effect>) {
        self.landed();
        if !self.is_connected() {
            return;
        }
        match result {
            Ok(result) => out.push(Effect::Send(Reply::Publish { id, result })),
            Err(code) => fail(id, code, out),
        }
    }

    /// The result of [`Effect::Publish`], if it takes words of its own to tell what is wrong.
    pub fn on_not_published(&mut self, id: u32, code: ErrorCode, message: Box<str>, out: &mut Vec<Effect>) {
        self.landed();
        if !self.is_connected() {
            return;
        }
        out.push(Effect::Send(Reply::Refusal {
            id,
            code: code.code().into(),
            message,
            temporary: code.temporary(),
        }));
    }

    /// The channel of that name and its rule.
    pub(super) fn known_channel(&self, name: &str) -> Result<(ChannelName, Arc<Rule>), ErrorCode> {
        // A channel that the connection is subscribed to needs no new copy of its name.
        let channel = match self.subscriptions.find(name) {
            Some(subscription) => subscription.channel.clone(),
            None => ChannelName::new(name).map_err(|_| ErrorCode::BadRequest)?,
        };
        let rule = self
            .app
            .rules
            .rule(&channel)
            .ok_or(ErrorCode::UnknownChannel)?
            .clone();
        Ok((channel, rule))
    }

    /// Whether this connection may do to `channel` what `access` guards (all but subscribing).
    pub(super) fn may(&self, access: Access, channel: &ChannelName) -> bool {
        let active = || {
            self.subscriptions
                .find(channel.as_str())
                .filter(|subscription| matches!(subscription.state, State::Active))
        };
        match access {
            Access::Anyone => true,
            Access::Authenticated => !self.identity.user.is_empty(),
            Access::Token => active().is_some_and(|subscription| subscription.by_token),
            Access::Subscriber => active().is_some(),
            Access::Nobody => false,
        }
    }
}
