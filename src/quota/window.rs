//! The bytes of an app's history: what nodes have stored, each until it is too old to be kept. Pure.
//!
//! When a byte goes is known in steps of a part of its class's `max_age` ([`SLOTS`]), rounded up: all nodes round
//! alike, so what goes together is one number, whoever has stored it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    counts::Count,
    ledger::{self, Amount, Ledger, Marks, enter},
    meter::{Meter, Over},
};
use crate::{log::BucketName, model::NodeId, telemetry::Limit};

/// Into how many steps a class's `max_age` is divided: so many numbers of each class are stored, and one more.
const SLOTS: i64 = 24;
/// If it is not known when something goes.
const SOON: Duration = Duration::from_secs(1);
/// How long a count stays that has nothing in it any more: clocks differ.
const STAYS: Duration = Duration::from_hours(1);
/// No longer wait is told: another node's clock may be wrong.
const LONGEST_WAIT: Duration = Duration::from_hours(24 * 31);

/// Bytes by the time at which they are too old to be kept, ms since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<i64, u64>", into = "BTreeMap<i64, u64>")]
pub struct Expiring {
    until: BTreeMap<i64, u64>,
    sum: u64,
}

/// What a node is about to add.
pub type Addition = ledger::Addition<Expiring>;

/// The count as it is stored, for all nodes: the value under the app's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// What is kept.
    pub bytes: Expiring,
    /// Up to which of its additions each node's are in it.
    #[serde(default)]
    pub marks: Marks,
}

/// What this node knows of an app's history.
#[derive(Clone, Debug)]
pub struct Window {
    limit: u64,
    /// The time then, ms since 1970. `None` until somebody has looked.
    clock: Option<(Instant, i64)>,
    /// All that is stored.
    stored: Expiring,
    /// What is not.
    ledger: Ledger<Expiring>,
    /// Admitted here, and not known yet to be in the log.
    held: u64,
    /// In the log since before it was known what time it is, by how long it is kept.
    early: BTreeMap<Duration, u64>,
}

// === impl Expiring ===

impl Expiring {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// These go then.
    fn put(&mut self, until: i64, bytes: u64) {
        let known = self.until.entry(until).or_default();
        *known = known.saturating_add(bytes);
        self.sum = self.sum.saturating_add(bytes);
    }

    /// Lets go what is too old at this time.
    fn expire(&mut self, ms: i64) {
        while let Some(first) = self.until.first_entry().filter(|first| *first.key() <= ms) {
            self.sum = self.sum.saturating_sub(first.remove());
        }
    }

    /// When the next go.
    fn next(&self) -> Option<i64> {
        self.until.first_key_value().map(|(until, _)| *until)
    }

    /// When the last go.
    fn last(&self) -> Option<i64> {
        self.until.last_key_value().map(|(until, _)| *until)
    }
}

impl Amount for Expiring {
    fn is_nothing(&self) -> bool {
        self.until.is_empty()
    }

    fn add(&mut self, more: &Self) {
        for (until, bytes) in &more.until {
            self.put(*until, *bytes);
        }
    }

    fn subtract(&mut self, less: &Self) {
        for (until, bytes) in &less.until {
            // What has gone meanwhile is subtracted already.
            let Some(known) = self.until.get_mut(until) else {
                continue;
            };
            let taken = (*known).min(*bytes);
            *known -= taken;
            self.sum = self.sum.saturating_sub(taken);
            if *known == 0 {
                self.until.remove(until);
            }
        }
    }
}

impl From<BTreeMap<i64, u64>> for Expiring {
    fn from(until: BTreeMap<i64, u64>) -> Self {
        let sum = until
            .values()
            .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        Self { until, sum }
    }
}

impl From<Expiring> for BTreeMap<i64, u64> {
    fn from(expiring: Expiring) -> Self {
        expiring.until
    }
}

/// When what is stored at a time (ms since 1970), and is kept so long, goes: at that time or a step later.
fn expiry(ms: i64, kept: Duration) -> i64 {
    let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    let step = (kept / SLOTS).max(1);
    let end = ms.div_euclid(step).saturating_add(1).saturating_mul(step);
    end.saturating_add(kept)
}

// === impl Stored ===

impl Stored {
    /// How long there is anything in it, from this time on (ms since 1970).
    fn lasts(&self, ms: i64) -> Duration {
        let last = self.bytes.last().unwrap_or(ms);
        Duration::from_millis(u64::try_from(last.saturating_sub(ms)).unwrap_or(0))
    }
}

// === impl Window ===

impl Window {
    /// Of which nothing is known.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            clock: None,
            stored: Expiring::default(),
            ledger: Ledger::default(),
            held: 0,
            early: BTreeMap::new(),
        }
    }

    /// Another quota.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The quota.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// It is this time, ms since 1970.
    pub fn turn(&mut self, ms: i64, now: Instant) {
        self.clock = Some((now, ms));
        for (kept, bytes) in std::mem::take(&mut self.early) {
            self.ledger.own_mut().put(expiry(ms, kept), bytes);
        }
        self.expire(now);
    }

    /// Whether so many bytes more may be admitted.
    pub fn peek(&mut self, bytes: u64, now: Instant) -> Result<(), Over> {
        let fits = |used: u64, limit| used.saturating_add(bytes) <= limit;
        // What is too old is looked for only if it matters.
        if fits(self.known(), self.limit) || fits(self.used(now), self.limit) {
            return Ok(());
        }
        Err(Over {
            limit: Limit::QuotaHistoryBytes,
            retry_after: self.next(now),
        })
    }

    /// So many bytes have been admitted.
    pub fn hold(&mut self, bytes: u64) {
        self.held = self.held.saturating_add(bytes);
    }

    /// What was admitted is in the log, and kept so long; or it is not (`None`).
    pub fn settle(&mut self, bytes: u64, kept: Option<Duration>, now: Instant) {
        self.held = self.held.saturating_sub(bytes);
        let Some(kept) = kept else { return };
        match self.ms(now) {
            Some(ms) => self.ledger.own_mut().put(expiry(ms, kept), bytes),
            None => self.early.entry(kept).or_default().add(&bytes),
        }
    }

    /// All that is known to be used.
    pub fn used(&mut self, now: Instant) -> u64 {
        self.expire(now);
        self.known()
    }

    /// What is used, or was a moment ago.
    fn known(&self) -> u64 {
        let early = self
            .early
            .values()
            .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        let own = self.ledger.own().sum().saturating_add(early);
        self.stored.sum().saturating_add(own).saturating_add(self.held)
    }

    fn expire(&mut self, now: Instant) {
        if let Some(ms) = self.ms(now) {
            self.stored.expire(ms);
            self.ledger.own_mut().expire(ms);
        }
    }

    fn ms(&self, now: Instant) -> Option<i64> {
        let (then, ms) = self.clock?;
        let passed = now.saturating_duration_since(then).as_millis();
        Some(ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX)))
    }

    /// Until the next of what is counted goes.
    fn next(&self, now: Instant) -> Duration {
        let firsts = [self.stored.next(), self.ledger.own().next()];
        let (Some(first), Some(ms)) = (firsts.into_iter().flatten().min(), self.ms(now)) else {
            return SOON;
        };
        let left = u64::try_from(first.saturating_sub(ms)).unwrap_or(0);
        Duration::from_millis(left).min(LONGEST_WAIT)
    }
}

impl Count for Window {
    type Stored = Stored;
    type Addition = Addition;

    const BUCKET: BucketName = BucketName::History;

    fn of<T>(meter: &Meter, with: impl FnOnce(&mut Self) -> T) -> Option<T> {
        meter.history(with)
    }

    fn addition(&mut self) -> Option<Addition> {
        self.ledger.addition().cloned()
    }

    fn with(
        before: Option<&Stored>,
        me: NodeId,
        addition: &Addition,
        ms: i64,
        lives: impl Fn(NodeId) -> bool,
    ) -> Option<Stored> {
        let mut stored = before.cloned().unwrap_or_default();
        if !enter(&mut stored.marks, me, addition.number, lives) {
            return None;
        }
        stored.bytes.add(&addition.amount);
        stored.bytes.expire(ms);
        Some(stored)
    }

    fn stays(stored: &Stored, ms: i64) -> Duration {
        stored.lasts(ms).saturating_add(STAYS)
    }

    fn on_read(&mut self, stored: &Stored, revision: u64, me: NodeId) {
        self.ledger.on_read();
        self.on_stored(stored, revision, me);
    }

    fn on_stored(&mut self, stored: &Stored, revision: u64, me: NodeId) {
        if self.ledger.on_stored(&stored.marks, revision, me) {
            self.stored.clone_from(&stored.bytes);
        }
    }

    fn on_nothing(&mut self) {
        self.ledger.on_nothing();
    }

    fn is_known(&self) -> bool {
        self.ledger.is_known()
    }

    fn give_up(&mut self, addition: &Addition) {
        self.ledger.give_up(addition.number);
    }
}

#[cfg(test)]
mod tests;
