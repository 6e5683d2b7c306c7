//! How long somebody who fails has to wait, in bounded memory.

use std::{collections::HashMap, hash::Hash, time::Duration};

use super::clock::ms;

/// When to wait, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Failures without a wait.
    pub free: u32,
    /// The first wait; it doubles.
    pub first: Duration,
    /// The longest.
    pub max: Duration,
    /// How long after the last failure all are forgotten.
    pub forget: Duration,
    /// Keys that are known at once.
    pub entries: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    last_ms: i64,
}

/// Failures by key. A try is counted as failed when it begins, so that many at once are as many as one after
/// another; who succeeds takes it back.
#[derive(Debug)]
pub struct Lockout<K> {
    rules: Rules,
    entries: HashMap<K, Entry>,
}

impl<K: Eq + Hash + Clone> Lockout<K> {
    /// Nobody has failed.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: HashMap::new(),
        }
    }

    /// How long `key` has to wait before it may try.
    ///
    /// # Errors
    ///
    /// The rest of the wait.
    pub fn check(&self, key: &K, now_ms: i64) -> Result<(), Duration> {
        let Some(entry) = self.entries.get(key).filter(|entry| self.counts(entry, now_ms)) else {
            return Ok(());
        };
        let until = entry.last_ms.saturating_add(ms(self.wait(entry.failures)));
        match u64::try_from(until.saturating_sub(now_ms)) {
            Ok(rest) if rest > 0 => Err(Duration::from_millis(rest)),
            _ => Ok(()),
        }
    }

    /// A try of `key`, which may try, begins.
    pub fn begin(&mut self, key: &K, now_ms: i64) {
        let failures = match self.entries.get(key) {
            Some(entry) if self.counts(entry, now_ms) => entry.failures,
            Some(_) => 0,
            None => {
                self.make_room(now_ms);
                0
            }
        };
        let entry = Entry {
            failures: failures.saturating_add(1),
            last_ms: now_ms,
        };
        self.entries.insert(key.clone(), entry);
    }

    /// A try was no failure.
    pub fn take_back(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = entry.failures.saturating_sub(1);
            if entry.failures == 0 {
                self.entries.remove(key);
            }
        }
    }

    /// It has proven who it is.
    pub fn forgive(&mut self, key: &K) {
        self.entries.remove(key);
    }

    fn counts(&self, entry: &Entry, now_ms: i64) -> bool {
        now_ms.saturating_sub(entry.last_ms) < ms(self.rules.forget)
    }

    /// What follows after so many failures.
    fn wait(&self, failures: u32) -> Duration {
        match failures.checked_sub(self.rules.free) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
                self.rules.first.saturating_mul(factor).min(self.rules.max)
            }
        }
    }

    /// If it is full, forgets what no longer counts; if that is nothing, an eighth of all: those with the
    /// fewest failures. Who tries to push out another needs as many failures for each of very many keys.
    fn make_room(&mut self, now_ms: i64) {
        if self.entries.len() < self.rules.entries.max(1) {
            return;
        }
        let forget = ms(self.rules.forget);
        self.entries
            .retain(|_, entry| now_ms.saturating_sub(entry.last_ms) < forget);
        if self.entries.len() < self.rules.entries.max(1) {
            return;
        }
        let mut ranks: Vec<(u32, i64)> = self
            .entries
            .values()
            .map(|entry| (entry.failures, entry.last_ms))
            .collect();
        let eighth = ranks.len() / 8;
        let (_, most, _) = ranks.select_nth_unstable(eighth);
        let most = *most;
        let mut left = eighth + 1;
        self.entries.retain(|_, entry| {
            let goes = left > 0 && (entry.failures, entry.last_ms) <= most;
            left -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Rules {
        Rules {
            free: 3,
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
            forget: Duration::from_secs(600),
            entries: 16,
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut lockout = Lockout::new(rules());
        let mut now = 0;
        for wait in [0, 0, 1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(lockout.check(&"a", now), Ok(()));
            lockout.begin(&"a", now);
            if wait > 0 {
                assert_eq!(lockout.check(&"a", now), Err(Duration::from_secs(wait)));
                assert_eq!(
                    lockout.check(&"a", now + 1),
                    Err(Duration::from_millis(wait * 1000 - 1))
                );
            }
            assert_eq!(lockout.check(&"b", now), Ok(()));
            now += i64::try_from(wait).unwrap() * 1000;
        }
        assert_eq!(lockout.check(&"a", now + 600_000), Ok(()));
        lockout.begin(&"a", now + 600_000);
        assert_eq!(lockout.check(&"a", now + 600_000), Ok(()), "all was forgotten");
    }

    #[test]
    fn success_forgives_and_takes_back() {
        let mut lockout = Lockout::new(rules());
        for _ in 0..3 {
            lockout.begin(&"a", 0);
        }
        assert!(lockout.check(&"a", 0).is_err());
        lockout.take_back(&"a");
        assert!(lockout.check(&"a", 0).is_ok());
        lockout.begin(&"a", 0);
        assert!(lockout.check(&"a", 0).is_err());
        lockout.forgive(&"a");
        assert!(lockout.entries.is_empty());
        lockout.begin(&"a", 0);
        lockout.take_back(&"a");
        assert!(lockout.entries.is_empty());
    }

    proptest! {
        /// However many others fail a few times, who has failed more often stays known, and the table small.
        #[test]
        fn nobody_is_pushed_out_by_those_who_failed_less(others in prop::collection::vec(0_u32..200, 0..400)) {
            let mut lockout = Lockout::new(rules());
            for _ in 0..500 {
                lockout.begin(&u32::MAX, 0);
            }
            for (other, now) in others.into_iter().zip(1..) {
                lockout.begin(&other, now);
                prop_assert!(lockout.entries.len() <= 16);
            }
            prop_assert!(lockout.check(&u32::MAX, 1).is_err());
        }
    }
}
