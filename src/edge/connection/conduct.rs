//! Whether the client asks too much.

use std::time::Duration;

use super::Connection;
use crate::{
    limits::Verdict,
    protocol::{Command, DisconnectCode, Request},
    session::Now,
    telemetry::Limit,
};

impl Connection {
    /// Whether a command of `bytes` bytes is not to be done. It is answered then, or the connection closed.
    pub(super) fn is_too_much(&mut self, command: &Command<'_>, bytes: usize, now: Now) -> bool {
        // The connect is of no app yet, and the pong is wanted.
        if !self.session.is_connected() || matches!(command.request, Request::Pong) {
            return false;
        }
        match self.judge(bytes, now) {
            Verdict::Good => false,
            Verdict::Abuse => true,
            // SDKs take an unsubscribe that fails for a broken connection and make another, which would
            // cost more than to do it.
            _ if matches!(command.request, Request::Unsubscribe { .. }) => false,
            _ => {
                self.session.on_refused(command.id, &mut self.effects);
                true
            }
        }
    }

    /// Whether a ping of WebSocket, which counts as a command, is not to be answered.
    pub(super) fn is_flooded(&mut self, bytes: usize) -> bool {
        self.session.is_connected() && self.judge(bytes, self.gateway.now()) != Verdict::Good
    }

    /// Counts, and closes on abuse.
    fn judge(&mut self, bytes: usize, now: Now) -> Verdict {
        let rules = &self.admission.app().conduct;
        let at = Duration::from_millis(now.mono_ms);
        let verdict = self.conduct.judge(rules, at, bytes as u64);
        let limit = match verdict {
            Verdict::Good => return verdict,
            Verdict::Commands => Limit::CommandRate,
            Verdict::Bytes => Limit::CommandBytes,
            Verdict::Abuse => Limit::Refusals,
        };
        self.metrics.limits_hit.of(limit).inc();
        if verdict == Verdict::Abuse {
            self.session
                .close(DisconnectCode::TooManyErrors, &mut self.effects);
        }
        verdict
    }
}
