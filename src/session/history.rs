use super::{Effect, HistoryOrder, Session, fail};
use crate::{
    model::History,
    protocol::{ErrorCode, HistoryPage, HistoryQuery, Reply},
};

impl Session {
    pub(super) fn history(&mut self, id: u32, channel: &str, query: HistoryQuery, out: &mut Vec<Effect>) {
        match self.check_history(id, channel, query) {
            Ok(order) => {
                if self.admit(id, out) {
                    out.push(Effect::History(Box::new(order)));
                }
            }
            Err(code) => fail(id, code, out),
        }
    }

    fn check_history(
        &self,
        id: u32,
        channel: &str,
        mut query: HistoryQuery,
    ) -> Result<HistoryOrder, ErrorCode> {
        let (channel, rule) = self.known_channel(channel)?;
        if rule.history == History::None {
            return Err(ErrorCode::NotAvailable);
        }
        if !self.may(rule.read_history, &channel) {
            return Err(ErrorCode::PermissionDenied);
        }
        let backwards =
            matches!((query.since_time, query.until_time), (Some(since), Some(until)) if since > until);
        if query.limit < -1 || (query.reverse && query.since == Some(0)) || backwards {
            return Err(ErrorCode::BadRequest);
        }
        let most = i32::try_from(self.limits.max_history).unwrap_or(i32::MAX);
        query.limit = if query.limit == -1 {
            most
        } else {
            query.limit.min(most)
        };
        Ok(HistoryOrder {
            id,
            channel,
            rule,
            query,
        })
    }

    /// The result of [`Effect::History`]. An epoch that is not the channel's is error 112.
    pub fn on_history(&mut self, id: u32, result: Result<HistoryPage, ErrorCode>, out: &mut Vec<Effect>) {
        self.landed();
        if !self.is_connected() {
            return;
        }
        match result {
            Ok(page) => out.push(Effect::Send(Reply::History {
                id,
                page: Box::new(page),
            })),
            Err(code) => fail(id, code, out),
        }
    }
}
