use super::{Limits, NEVER, Now};

/// Pings and pongs of one connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// When the next ping is due, unless one is unanswered.
    next_ping: u64,
    /// While a ping is unanswered: when the client last showed life.
    life: u64,
    unanswered: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    Ping,
    Dead,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            next_ping: NEVER,
            life: 0,
            unanswered: false,
        }
    }
}

impl Heartbeat {
    /// Starts with the connection `client`. The first ping comes in the second half of the first
    /// interval, at a point that the random id decides, so that clients who connect together are not
    /// pinged together.
    pub(super) fn start(&mut self, client: &str, now: Now, limits: &Limits) {
        if limits.ping_interval_ms == 0 {
            return;
        }
        let half = limits.ping_interval_ms / 2;
        let hash = client.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of this hash are weak.
        let spread = (hash >> 32) % (limits.ping_interval_ms - half);
        self.next_ping = now.mono_ms + half + spread;
    }

    pub(super) fn deadline(&self, limits: &Limits) -> u64 {
        if self.unanswered {
            self.life.saturating_add(limits.pong_timeout_ms)
        } else {
            self.next_ping
        }
    }

    pub(super) fn on_tick(&mut self, now: Now, limits: &Limits) -> Beat {
        if now.mono_ms < self.deadline(limits) {
            return Beat::Nothing;
        }
        if self.unanswered {
            return Beat::Dead;
        }
        self.unanswered = true;
        self.life = now.mono_ms;
        // A tick that comes late does not make the next ping come early.
        self.next_ping = self
            .next_ping
            .saturating_add(limits.ping_interval_ms)
            .max(now.mono_ms + limits.ping_interval_ms / 2);
        Beat::Ping
    }

    /// Whether there was a ping to answer.
    pub(super) fn on_pong(&mut self) -> bool {
        std::mem::take(&mut self.unanswered)
    }

    pub(super) fn on_progress(&mut self, now: Now) {
        self.life = self.life.max(now.mono_ms);
    }
}
