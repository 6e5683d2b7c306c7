//! Rate limits as pure values: the caller brings the time.
//!
//! The algorithm is GCRA (the "virtual scheduling" form of ITU-T I.371): of all that was admitted,
//! only the instant is kept at which it would have been due at the exact rate.

use std::time::{Duration, Instant};

mod address;
mod conduct;
mod delay;
mod keyed;
mod places;

pub use address::{Address, Proxies};
pub use conduct::{Conduct, ConductRules, Verdict};
pub use delay::DelayGate;
pub use keyed::Keyed;
pub use places::Places;

/// How much may come: so much in a period, and how much of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    rate: u64,
    burst: u64,
    period: u64,
}

impl Quota {
    /// `rate` units a second, of which `burst` (at least 1) may come at once. A rate of 0 is
    /// unlimited.
    pub fn new(rate: u64, burst: u64) -> Self {
        Self::within(rate, burst, Duration::from_secs(1))
    }

    /// The same, `count` units in `period`.
    pub fn within(count: u64, burst: u64, period: Duration) -> Self {
        Self {
            rate: count,
            burst: burst.max(1),
            period: u64::try_from(period.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// `rate` units a second, and what comes in a second may come at once: whoever sends in batches
    /// is held to the same rate as who does not.
    pub fn a_second_at_once(rate: u64) -> Self {
        Self::new(rate, rate)
    }

    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        self.rate == 0
    }

    /// How much may come at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Whether more may come in the same period.
    pub fn is_above(&self, other: &Self) -> bool {
        self.rate > other.rate
    }

    /// How long `units` take at the rate. The rate is not 0 here. Rounded down: the times of all that
    /// may come at once then never add up to more than the time of the burst, whatever its parts, and
    /// what is admitted too much is less than a nanosecond's worth each time.
    fn time_of(&self, units: u64) -> u64 {
        let rate = self.rate.max(1);
        match units.checked_mul(self.period) {
            Some(product) => product / rate,
            None => {
                let exact = u128::from(units) * u128::from(self.period) / u128::from(rate);
                u64::try_from(exact).unwrap_or(u64::MAX)
            }
        }
    }

    /// If `units` may come when all that was admitted is due in `ahead` nanoseconds: when it is due with
    /// them. Or else how many nanoseconds to wait. More units than the burst are admitted once the whole
    /// burst is free, and are paid off afterwards: a large item is delayed, never locked out.
    fn ahead(&self, ahead: u64, units: u64) -> Result<u64, u64> {
        if self.rate == 0 || units == 0 {
            return Ok(ahead);
        }
        let full = ahead.saturating_add(self.time_of(units.min(self.burst)));
        match full.saturating_sub(self.time_of(self.burst)) {
            0 => Ok(ahead.saturating_add(self.time_of(units))),
            wait => Err(wait),
        }
    }

    /// If `units` may come at `now`, when everything admitted is due with them; or else how long to
    /// wait. `due` is what the last call returned.
    fn admit(&self, due: Option<Instant>, now: Instant, units: u64) -> Result<Option<Instant>, Duration> {
        if self.rate == 0 || units == 0 {
            return Ok(due);
        }
        let ahead = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        let ahead = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
        let ahead = self.ahead(ahead, units).map_err(Duration::from_nanos)?;
        Ok(Some(now.checked_add(Duration::from_nanos(ahead)).unwrap_or(now)))
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

    /// What it holds to.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Whether [`Gcra::check`] would admit `units` now.
    ///
    /// # Errors
    ///
    /// How long to wait until it would, if nothing else comes.
    pub fn peek(&self, now: Instant, units: u64) -> Result<(), Duration> {
        self.quota.admit(self.due, now, units).map(|_| ())
    }

    /// Admits `units` whatever was admitted before: what comes next waits the longer.
    pub fn charge(&mut self, now: Instant, units: u64) {
        if self.quota.rate == 0 || units == 0 {
            return;
        }
        let due = self.due.map_or(now, |due| due.max(now));
        let time = Duration::from_nanos(self.quota.time_of(units));
        self.due = due.checked_add(time).or(self.due);
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

    /// Holds to `quota` from now on, whose period is that of the one before. What may come at once stays as
    /// much as it was, or becomes what the new quota allows if that is less, and what is owed is still
    /// owed: whoever is given one rate and then another, and so on, has at no time more at once than the
    /// rates themselves add up to. Between limited and unlimited nothing is kept.
    pub fn retune(&mut self, quota: Quota, now: Instant) {
        let before = std::mem::replace(&mut self.quota, quota);
        if before == quota {
            return;
        }
        if before.rate == 0 || quota.rate == 0 {
            self.due = None;
            return;
        }
        let free = i128::from(before.time_of(before.burst)) - i128::from(self.ahead(now));
        let (old, new) = (i128::from(before.rate), i128::from(quota.rate));
        // The same units at the new rate, rounded to the disadvantage of who wants more.
        let free = free.saturating_mul(old).div_euclid(new);
        let whole = i128::from(quota.time_of(quota.burst));
        let ahead = u64::try_from(whole - free.min(whole)).unwrap_or(u64::MAX);
        self.due = now.checked_add(Duration::from_nanos(ahead));
    }

    /// How many units may come now, and when all that may ever come at once may come again.
    pub fn room(&self, now: Instant) -> (u64, Duration) {
        let quota = &self.quota;
        if quota.rate == 0 {
            return (u64::MAX, Duration::ZERO);
        }
        let ahead = self.ahead(now);
        let free = quota.time_of(quota.burst).saturating_sub(ahead);
        let units = u128::from(free) * u128::from(quota.rate) / u128::from(quota.period.max(1));
        let mut units = u64::try_from(units).unwrap_or(u64::MAX).min(quota.burst);
        // The time of a unit is rounded down.
        if units < quota.burst && quota.ahead(ahead, units + 1).is_ok() {
            units += 1;
        }
        (units, Duration::from_nanos(ahead))
    }

    /// How far beyond `now` all that was admitted is due, nanoseconds.
    fn ahead(&self, now: Instant) -> u64 {
        let ahead = self
            .due
            .map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
