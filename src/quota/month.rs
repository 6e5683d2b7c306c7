//! A month's count of an app: what this node knows of it, and how it is added up. Pure.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    ledger::{Amount, Ledger, Marks, enter},
    meter::{Allowance, Over},
};
use crate::{model::NodeId, telemetry::Limit};

const DAY_MS: i64 = 86_400_000;

/// A month of the calendar, UTC. Shown as `2026-11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MonthOf {
    year: i64,
    /// From 0.
    month: u8,
}

/// The count as it is stored, for all nodes: the value under the app's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Which month it is of.
    pub month: MonthOf,
    /// Publications.
    pub messages: u64,
    /// Up to which of its additions each node's are in it.
    #[serde(default)]
    pub marks: Marks,
    /// Of which quota it was warned that it is nearly used up; 0 = of none.
    #[serde(default)]
    pub warned: u64,
}

/// What a node is about to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// To which month.
    pub month: MonthOf,
    /// Which one of this node's.
    pub number: u64,
    /// Publications.
    pub messages: u64,
}

/// What this node knows of the month of an app.
#[derive(Clone, Debug)]
pub struct Month {
    limit: u64,
    /// Which it is, and when it ends. `None` until somebody has looked at the calendar.
    now: Option<(MonthOf, Instant)>,
    /// All that is stored.
    stored: u64,
    /// What is not.
    ledger: Ledger<u64>,
    warned: u64,
}

// === impl MonthOf ===

impl MonthOf {
    /// The month of a time, ms since 1970, and how long it still lasts then.
    pub fn at(ms: i64) -> (Self, Duration) {
        let today = ms.div_euclid(DAY_MS);
        let (year, month, day) = civil(today);
        let this = Self { year, month };
        let next = match month {
            11 => days(year + 1, 0),
            month => days(year, month + 1),
        };
        debug_assert!(day >= 1);
        let left = next * DAY_MS - ms;
        (this, Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }
}

/// Year, month from 0 and day from 1 of a day, counted from 1970-01-01: by years of 400, which begin in March
/// so that the odd day is the last one.
fn civil(day: i64) -> (i64, u8, i64) {
    let shifted = day + 719_468;
    let (cycle, of_cycle) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = u8::try_from((from_march + 2) % 12).unwrap_or(0);
    let turned = i64::from(month < 2);
    (
        cycle * 400 + year + turned,
        month,
        of_year - (153 * from_march + 2) / 5 + 1,
    )
}

/// The first day of a month, counted from 1970-01-01.
fn days(year: i64, month: u8) -> i64 {
    let from_march = (i64::from(month) + 10) % 12;
    let year = year - i64::from(month < 2);
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * from_march + 2) / 5;
    cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468
}

impl fmt::Display for MonthOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month + 1)
    }
}

impl From<MonthOf> for String {
    fn from(month: MonthOf) -> Self {
        month.to_string()
    }
}

impl TryFrom<String> for MonthOf {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bad = "not a month like 2026-11";
        let (year, month) = text.split_once('-').ok_or(bad)?;
        match (year.parse(), month.parse::<u8>()) {
            (Ok(year), Ok(month @ 1..=12)) => Ok(Self {
                year,
                month: month - 1,
            }),
            _ => Err(bad),
        }
    }
}

// === impl Stored ===

impl Stored {
    /// What is to be stored instead of `before`, so that `addition` of the node `me` is in it; `None` if it is
    /// already, or the month is over. `lives` tells which nodes there are: marks of others are let go.
    pub fn with(
        before: Option<&Self>,
        me: NodeId,
        addition: &Addition,
        lives: impl Fn(NodeId) -> bool,
    ) -> Option<Self> {
        let mut stored = match before {
            Some(before) if before.month > addition.month => return None,
            Some(before) if before.month == addition.month => before.clone(),
            _ => Self {
                month: addition.month,
                messages: 0,
                marks: Marks::new(),
                warned: 0,
            },
        };
        if !enter(&mut stored.marks, me, addition.number, lives) {
            return None;
        }
        stored.messages = stored.messages.saturating_add(addition.messages);
        Some(stored)
    }
}

// === impl Month ===

impl Month {
    /// Of which nothing is known.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            now: None,
            stored: 0,
            ledger: Ledger::default(),
            warned: 0,
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

    /// It is this month, which ends then. What was admitted in another and not stored is of no use any more.
    pub fn turn(&mut self, month: MonthOf, ends: Instant) {
        if self.now.is_some_and(|(now, _)| now != month) {
            self.ledger.begin_anew();
            (self.stored, self.warned) = (0, 0);
        }
        self.now = Some((month, ends));
    }

    /// Whether so many more may be admitted.
    pub fn peek(&self, count: u64, now: Instant) -> Result<(), Over> {
        if self.used().saturating_add(count) <= self.limit {
            return Ok(());
        }
        Err(Over {
            limit: Limit::QuotaMonth,
            retry_after: self.left(now),
        })
    }

    /// So many have been admitted.
    pub fn charge(&mut self, count: u64) {
        self.ledger.own_mut().add(&count);
    }

    /// All that is known to be used.
    pub fn used(&self) -> u64 {
        self.stored.saturating_add(*self.ledger.own())
    }

    /// What may still come, and when the month ends.
    pub fn allowance(&self, now: Instant) -> Allowance {
        Allowance {
            limit: self.limit,
            remaining: self.limit.saturating_sub(self.used()),
            reset: self.left(now),
        }
    }

    /// What is to be stored now: what could not be before, or else all that is not.
    pub fn addition(&mut self) -> Option<Addition> {
        let (month, _) = self.now?;
        let addition = self.ledger.addition()?;
        Some(Addition {
            month,
            number: addition.number,
            messages: addition.amount,
        })
    }

    /// What the leader has stored now. Later than all that was heard, unless the store was lost.
    pub fn on_read(&mut self, stored: &Stored, revision: u64, me: NodeId) {
        self.ledger.on_read();
        self.on_stored(stored, revision, me);
        // Also that it is of another month.
        self.ledger.on_known();
    }

    /// This is stored, by whichever node. It may be told late, and again.
    pub fn on_stored(&mut self, stored: &Stored, revision: u64, me: NodeId) {
        let this_month = self.now.is_some_and(|(month, _)| month == stored.month);
        if this_month && self.ledger.on_stored(&stored.marks, revision, me) {
            self.stored = stored.messages;
            self.warned = stored.warned;
        }
    }

    /// Nothing is stored yet.
    pub fn on_nothing(&mut self) {
        self.ledger.on_nothing();
    }

    /// Whether somebody has looked what is stored.
    pub fn is_known(&self) -> bool {
        self.ledger.is_known()
    }

    /// What was to be added is of a month that is over.
    pub fn give_up(&mut self, addition: &Addition) {
        self.ledger.give_up(addition.number);
    }

    /// Which month it is.
    pub fn current(&self) -> Option<MonthOf> {
        self.now.map(|(month, _)| month)
    }

    /// Whether it was warned of this quota in this month.
    pub fn is_warned(&self) -> bool {
        self.warned == self.limit
    }

    fn left(&self, now: Instant) -> Duration {
        let left = self.now.map(|(_, ends)| ends.saturating_duration_since(now));
        left.unwrap_or(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests;
