use std::time::Duration;

use super::Quota;

/// What a connection may do, shared by those of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConductRules {
    /// Commands.
    pub commands: Quota,
    /// Bytes of commands.
    pub bytes: Quota,
    /// Commands over either of them: beyond it the connection is closed. Unlimited = never.
    pub refusals: Quota,
}

/// What one connection has done: three instants, and no more, since every connection has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conduct {
    commands: u64,
    bytes: u64,
    refusals: u64,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is within the limits.
    Good,
    /// One command too many.
    Commands,
    /// Too many bytes.
    Bytes,
    /// Too many, once more after having been told too often.
    Abuse,
}

impl ConductRules {
    /// `commands` and `bytes` a second, of which one second's worth may come at once, and `refusals` a
    /// minute, all of which may; 0 = unlimited.
    pub fn new(commands: u64, bytes: u64, refusals: u64) -> Self {
        Self {
            commands: Quota::a_second_at_once(commands),
            bytes: Quota::a_second_at_once(bytes),
            refusals: Quota::within(refusals, refusals, Duration::from_secs(60)),
        }
    }

    /// Whether there is anything to judge by.
    pub fn is_unlimited(&self) -> bool {
        self.commands.is_unlimited() && self.bytes.is_unlimited()
    }
}

impl Conduct {
    /// Judges a command of `bytes` bytes that came at `now`, a time since any start that stays the same.
    /// What is refused costs nothing but a refusal.
    pub fn judge(&mut self, rules: &ConductRules, now: Duration, bytes: u64) -> Verdict {
        if rules.is_unlimited() {
            return Verdict::Good;
        }
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let ask = |quota: &Quota, due: u64, units| {
            let ahead = quota.ahead(due.saturating_sub(now), units);
            ahead.map(|ahead| now.saturating_add(ahead)).ok()
        };
        let (commands, of_bytes) = (
            ask(&rules.commands, self.commands, 1),
            ask(&rules.bytes, self.bytes, bytes),
        );
        if let (Some(commands), Some(of_bytes)) = (commands, of_bytes) {
            self.commands = commands;
            self.bytes = of_bytes;
            return Verdict::Good;
        }
        match ask(&rules.refusals, self.refusals, 1) {
            None => Verdict::Abuse,
            Some(refusals) => {
                self.refusals = refusals;
                if commands.is_none() {
                    Verdict::Commands
                } else {
                    Verdict::Bytes
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::Gcra;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_connection_keeps_little() {
        assert!(size_of::<Conduct>() <= 24);
    }

    #[test]
    fn who_goes_on_is_closed_and_who_waits_is_not() {
        use Verdict::{Abuse, Bytes, Commands, Good};
        let rules = ConductRules::new(2, 100, 3);
        let mut conduct = Conduct::default();
        for (at, bytes, verdict) in [
            (0, 10, Good),
            (0, 10, Good),
            (0, 10, Commands),
            (500, 10, Good),
            // What is more than comes in a second is paid off afterwards.
            (1500, 101, Good),
            (1500, 1, Bytes),
            (2600, 400, Good),
            (3600, 1, Bytes),
            (3600, 1, Abuse),
            // A refusal is forgiven every twenty seconds.
            (20_000, 1, Good),
            (20_000, 1, Good),
            (20_000, 1, Commands),
            (20_000, 1, Abuse),
        ] {
            assert_eq!(conduct.judge(&rules, ms(at), bytes), verdict, "at {at} ms");
        }
    }

    #[test]
    fn nothing_is_limited_unless_it_is_said() {
        let mut conduct = Conduct::default();
        let rules = ConductRules::new(0, 0, 1);
        for _ in 0..1000 {
            assert_eq!(conduct.judge(&rules, ms(0), u64::MAX), Verdict::Good);
        }
        assert_eq!(conduct, Conduct::default());
        // Never closed, however often it is told.
        let rules = ConductRules::new(1, 0, 0);
        let told = (0..1000).map(|_| conduct.judge(&rules, ms(0), 1));
        assert_eq!(told.filter(|verdict| *verdict == Verdict::Commands).count(), 999);
    }

    proptest! {
        /// It is the limits of [`Gcra`], all or none, in less memory.
        #[test]
        fn it_judges_as_the_limits_do(
            commands in 0_u64..20,
            bytes in 0_u64..500,
            events in prop::collection::vec((0_u64..400, 0_u64..200), 1..100),
        ) {
            let rules = ConductRules::new(commands, bytes, 0);
            let mut conduct = Conduct::default();
            let mut of_commands = Gcra::new(rules.commands);
            let mut of_bytes = Gcra::new(rules.bytes);
            let start = std::time::Instant::now();
            let mut at = 0;
            for (gap, bytes) in events {
                at += gap;
                let now = start + ms(at);
                let expected = match (of_commands.peek(now, 1), of_bytes.peek(now, bytes)) {
                    (Ok(()), Ok(())) => {
                        of_commands.check(now, 1).unwrap();
                        of_bytes.check(now, bytes).unwrap();
                        Verdict::Good
                    }
                    (Err(_), _) => Verdict::Commands,
                    (Ok(()), Err(_)) => Verdict::Bytes,
                };
                prop_assert_eq!(conduct.judge(&rules, ms(at), bytes), expected);
            }
        }
    }
}
