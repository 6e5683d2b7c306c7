//! Rate limits as pure values: the caller brings the time.
//!
//! The algorithm is GCRA (the "virtual scheduling" form of ITU-T I.371): of all that was admitted,
//! only the instant is kept at which it would have been due at the exact rate.

use std::time::{Duration, Instant};

mod keyed;

pub use keyed::Keyed;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// How much may come: a rate a second, and how much of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    rate: u64,
    burst: u64,
}

impl Quota {
    /// `rate` units a second, of which `burst` (at least 1) may come at once. A rate of 0 is
    /// unlimited.
    pub fn new(rate: u64, burst: u64) -> Self {
        Self {
            rate,
            burst: burst.max(1),
        }
    }

    /// How long `units` take at the rate. The rate is not 0 here. Rounded down: the times of all that
    /// may come at once then never add up to more than the time of the burst, whatever its parts, and
    /// what is admitted too much is less than a nanosecond's worth each time.
    fn time_of(&self, units: u64) -> Duration {
        let nanos = u128::from(units) * NANOS_PER_SECOND / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// If `units` may come at `now`, when everything admitted is due with them; or else how long to
    /// wait. `due` is what the last call returned. More units than the burst are admitted once the
    /// whole burst is free, and are paid off afterwards: a large item is delayed, never locked out.
    fn admit(&self, due: Option<Instant>, now: Instant, units: u64) -> Result<Option<Instant>, Duration> {
        if self.rate == 0 || units == 0 {
            return Ok(due);
        }
        let start = due.map_or(now, |due| due.max(now));
        let ahead = start.saturating_duration_since(now) + self.time_of(units.min(self.burst));
        match ahead.checked_sub(self.time_of(self.burst)) {
            None | Some(Duration::ZERO) => Ok(Some(start.checked_add(self.time_of(units)).unwrap_or(start))),
            Some(wait) => Err(wait),
        }
    }
}

/// A rate limit on one thing.
#[derive(Clone, Debug)]
pub struct Gcra {
    quota: Quota,
    due: Option<Instant>,
}

impl Gcra {
    /// Nothing has come yet.
    pub fn new(quota: Quota) -> Self {
        Self { quota, due: None }
    }

    /// Whether [`Gcra::check`] would admit `units` now.
    ///
    /// # Errors
    ///
    /// How long to wait until it would, if nothing else comes.
    pub fn peek(&self, now: Instant, units: u64) -> Result<(), Duration> {
        self.quota.admit(self.due, now, units).map(|_| ())
    }

    /// Admits `units`, all or none.
    ///
    /// # Errors
    ///
    /// How long to wait until they are admitted, if nothing else comes. Refused units cost nothing.
    pub fn check(&mut self, now: Instant, units: u64) -> Result<(), Duration> {
        self.due = self.quota.admit(self.due, now, units)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
