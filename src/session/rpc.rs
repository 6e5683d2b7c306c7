use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Effect, Session, fail, subscriptions::State};
use crate::protocol::{DisconnectCode, ErrorCode, Reply};

/// The method by which a member shows another state: `{"channel": "..", "state": any}`; `null` or nothing
/// shows none. An extension that stock SDKs can use, as it is an ordinary call.
pub const PRESENCE_UPDATE: &str = "slipstream.presence.update";

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// For a reason of the protocol.
    Code(ErrorCode),
    /// For one of the application.
    Own {
        /// 400 to 1999.
        code: u32,
        /// Its words.
        message: Box<str>,
        /// Whether the same may succeed later.
        temporary: bool,
    },
}

impl Session {
    pub(super) fn rpc(&mut self, id: u32, method: &str, data: &str, out: &mut Vec<Effect>) {
        if method == PRESENCE_UPDATE {
            match self.check_update(id, data) {
                Ok(effect) => out.push(effect),
                Err(code) => fail(id, code, out),
            }
        } else if !self.limits.has_handler {
            fail(id, ErrorCode::NotAvailable, out);
        } else if self.admit(id, out) {
            out.push(Effect::Rpc {
                id,
                method: method.into(),
                data: Bytes::copy_from_slice(data.as_bytes()),
            });
        }
    }

    /// A message to the application, which gets no reply: if there are too many, the connection ends.
    pub(super) fn message(&mut self, data: &str, out: &mut Vec<Effect>) {
        if !self.limits.has_handler {
            return self.close(DisconnectCode::NotAvailable, out);
        }
        if self.in_flight >= self.limits.max_in_flight {
            return self.close(DisconnectCode::TooManyRequests, out);
        }
        self.in_flight += 1;
        out.push(Effect::Message(Bytes::copy_from_slice(data.as_bytes())));
    }

    /// The result of [`Effect::Rpc`] or [`Effect::Update`]: raw JSON.
    pub fn on_rpc(&mut self, id: u32, result: Result<Bytes, Refusal>, out: &mut Vec<Effect>) {
        if !self.is_connected() {
            return;
        }
        match result {
            Ok(data) => out.push(Effect::Send(Reply::Rpc { id, data })),
            Err(Refusal::Code(code)) => fail(id, code, out),
            Err(Refusal::Own {
                code,
                message,
                temporary,
            }) => out.push(Effect::Send(Reply::Refusal {
                id,
                code,
                message,
                temporary,
            })),
        }
    }

    /// An [`Effect::Rpc`] or an [`Effect::Message`] is over.
    pub fn on_handled(&mut self) {
        self.landed();
    }

    fn check_update(&self, id: u32, data: &str) -> Result<Effect, ErrorCode> {
        #[derive(Deserialize)]
        struct Update<'a> {
            channel: std::borrow::Cow<'a, str>,
            #[serde(borrow)]
            state: Option<&'a RawValue>,
        }
        let update: Update<'_> = serde_json::from_str(data).map_err(|_| ErrorCode::BadRequest)?;
        let (_, rule) = self.known_channel(&update.channel)?;
        if !rule.presence {
            return Err(ErrorCode::NotAvailable);
        }
        let subscription = self.subscriptions.find(&update.channel);
        let subscription = subscription.filter(|known| matches!(known.state, State::Active));
        let state = update.state.map(RawValue::get);
        Ok(Effect::Update {
            id,
            generation: subscription.ok_or(ErrorCode::PermissionDenied)?.generation,
            state: state.map(|state| Bytes::copy_from_slice(state.as_bytes())),
        })
    }
}
