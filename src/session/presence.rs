use super::{Effect, PresenceAnswer, PresenceOrder, Session, fail};
use crate::protocol::{ErrorCode, Reply};

impl Session {
    /// Who is on a channel, or (`count`) how many.
    pub(super) fn presence(&mut self, id: u32, channel: &str, count: bool, out: &mut Vec<Effect>) {
        match self.check_presence(id, channel, count) {
            Ok(order) => {
                if self.admit(id, out) {
                    out.push(Effect::Presence(order));
                }
            }
            Err(code) => fail(id, code, out),
        }
    }

    fn check_presence(&self, id: u32, channel: &str, count: bool) -> Result<PresenceOrder, ErrorCode> {
        let (channel, rule) = self.known_channel(channel)?;
        if !rule.presence {
            return Err(ErrorCode::NotAvailable);
        }
        if !self.may(rule.read_presence, &channel) {
            return Err(ErrorCode::PermissionDenied);
        }
        Ok(PresenceOrder { id, channel, count })
    }

    /// The result of [`Effect::Presence`].
    pub fn on_presence(&mut self, id: u32, result: Result<PresenceAnswer, ErrorCode>, out: &mut Vec<Effect>) {
        self.landed();
        if !self.is_connected() {
            return;
        }
        match result {
            Ok(PresenceAnswer::Members(clients)) => out.push(Effect::Send(Reply::Presence { id, clients })),
            Ok(PresenceAnswer::Counts { clients, users }) => {
                out.push(Effect::Send(Reply::PresenceStats { id, clients, users }));
            }
            Err(code) => fail(id, code, out),
        }
    }
}
