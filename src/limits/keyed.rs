use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use super::Quota;

/// How often at most all keys are looked through for idle ones.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Below so many keys nothing is swept. How many there may be is for the configuration to say.
const FEW: usize = 64;

/// The same rate limit on each of many things, in bounded memory: a key that has been quiet long
/// enough to have its whole burst again is forgotten, which changes nothing for it. While more keys
/// than the capacity are busy, those beyond it share one limit: never more than each may, and no
/// key can get a fresh burst by crowding others out.
#[derive(Clone, Debug)]
pub struct Keyed<K> {
    quota: Quota,
    capacity: usize,
    due: HashMap<K, Instant>,
    overflow: Option<Instant>,
    swept: Option<Instant>,
    pub(super) sweep_at: usize,
}

impl<K: Eq + Hash> Keyed<K> {
    /// Limits each key to `quota` and tells at most `capacity` (at least 1) apart at once.
    pub fn new(quota: Quota, capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            quota,
            capacity,
            due: HashMap::new(),
            overflow: None,
            swept: None,
            sweep_at: FEW.min(capacity),
        }
    }

    /// Whether [`Keyed::check`] would admit `units` for `key` now.
    ///
    /// # Errors
    ///
    /// How long to wait until it would, if nothing else comes.
    pub fn peek<Q>(&self, key: &Q, now: Instant, units: u64) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let due = if self.shares(key) {
            self.overflow
        } else {
            self.due.get(key).copied()
        };
        self.quota.admit(due, now, units).map(|_| ())
    }

    /// Whether `key` is one of those beyond the capacity, which share one limit.
    pub fn shares<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.due.len() >= self.capacity && !self.due.contains_key(key)
    }

    /// Admits `units` for `key`, all or none.
    ///
    /// # Errors
    ///
    /// How long to wait until they are admitted, if nothing else comes. Refused units cost nothing.
    pub fn check<Q>(&mut self, key: &Q, now: Instant, units: u64) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(due) = self.due.get_mut(key) {
            *due = self.quota.admit(Some(*due), now, units)?.unwrap_or(*due);
        } else if self.has_room(now) {
            if let Some(due) = self.quota.admit(None, now, units)? {
                self.due.insert(key.to_owned(), due);
            }
        } else {
            self.overflow = self.quota.admit(self.overflow, now, units)?;
        }
        Ok(())
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Whether one more key can be remembered. Idle keys are forgotten when their number has doubled
    /// since the last time, and no more often than the interval: constant cost per key on average.
    fn has_room(&mut self, now: Instant) -> bool {
        let rested = self
            .swept
            .is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
        if self.due.len() >= self.sweep_at && rested {
            self.due.retain(|_, due| *due > now);
            self.swept = Some(now);
            self.sweep_at = (2 * self.due.len()).max(FEW).min(self.capacity);
        }
        self.due.len() < self.capacity
    }
}
