//! What one app has of its quotas on this node: asked by whoever admits, set by who shares.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    fair::Wish,
    kind::Kind,
    month::Month,
    reservation::{Reservation, Size},
    window::Window,
};
use crate::{
    limits::{Gcra, Quota},
    model::Quotas,
    telemetry::Limit,
};

/// In which the parts of a rate are counted: a thousandth of one a second is one in so long.
const PERIOD: Duration = Duration::from_secs(1_000);
/// A node whose part is small is given more within a few rounds: no longer wait is worth telling.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Refused by a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub limit: Limit,
    /// When it may be tried again.
    pub retry_after: Duration,
}

/// What may come of something in a second, or in a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So much in all.
    pub limit: u64,
    /// So much at once, now.
    pub remaining: u64,
    /// When all of it may come again.
    pub reset: Duration,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Meter {
    /// Whether publications and calls need not be counted: nothing limits them.
    counts_messages: AtomicBool,
    counts_calls: AtomicBool,
    messages: Mutex<Messages>,
    calls: Mutex<Rated>,
    connections: Mutex<Counted>,
    channels: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Messages {
    rated: Rated,
    month: Option<Month>,
    history: Option<Window>,
}

/// Something that comes so often in a second.
#[derive(Debug, Default)]
struct Rated {
    rate: Option<Gcra>,
    /// How many were wanted since [`Rated::take_wish`].
    wanted: u64,
    wish: Smooth,
}

/// Something of which there are so many at once.
#[derive(Debug, Default)]
struct Counted {
    most: Option<u64>,
    held: u64,
    /// How many were refused since the last look.
    refused: u64,
    wish: Smooth,
}

/// What is wanted, from one round to the next: it rises at once and falls slowly, so that parts do not go back
/// and forth with every pause of a client.
#[derive(Clone, Copy, Debug, Default)]
struct Smooth(u64);

/// One of the connections or channels that an app may have. It is given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    meter: Arc<Meter>,
    kind: Kind,
}

// === impl Meter ===

impl Meter {
    /// Holds to these quotas from now on. What was counted stays counted.
    pub fn set_quotas(&self, quotas: &Quotas, first: impl Fn(Kind) -> u64) {
        let mut messages = self.messages.lock();
        let part = |kind: Kind| kind.limit(quotas).map(|limit| first(kind).min(limit));
        let now = Instant::now();
        messages.rated.limit(part(Kind::Messages), now);
        match (quotas.messages_per_month, &mut messages.month) {
            (Some(limit), Some(month)) => month.set_limit(limit),
            (Some(limit), none) => *none = Some(Month::new(limit)),
            (None, month) => *month = None,
        }
        match (quotas.history_bytes, &mut messages.history) {
            (Some(limit), Some(history)) => history.set_limit(limit),
            (Some(limit), none) => *none = Some(Window::new(limit)),
            (None, history) => *history = None,
        }
        let lasting = messages.month.is_some() || messages.history.is_some();
        let counts = messages.rated.rate.is_some() || lasting;
        self.counts_messages.store(counts, Ordering::Release);
        drop(messages);
        let mut calls = self.calls.lock();
        calls.limit(part(Kind::Calls), now);
        self.counts_calls.store(calls.rate.is_some(), Ordering::Release);
        drop(calls);
        self.connections.lock().limit(part(Kind::Connections));
        self.channels.lock().limit(part(Kind::Channels));
    }

    /// Admits `count` publications of `size` together by the rate, the month and the history, if `also` admits
    /// them: all or none. Answers with their room in the history.
    ///
    /// # Errors
    ///
    /// Which quota, as `E`, or why `also` did not.
    pub fn publish<E: From<Over>>(
        self: &Arc<Self>,
        count: u64,
        size: Size,
        now: Instant,
        also: impl FnOnce() -> Result<(), E>,
    ) -> Result<Reservation, E> {
        self.admit((count, size), true, now, also)
    }

    /// Admits a publication that was queued because of a rate, if `also` admits it. Once it has `waited` for the
    /// rate it is admitted, and what comes next waits the longer; month and history hold all the same.
    ///
    /// # Errors
    ///
    /// As [`Meter::publish`].
    pub fn publish_late<E: From<Over>>(
        self: &Arc<Self>,
        size: Size,
        waited: bool,
        now: Instant,
        also: impl FnOnce() -> Result<(), E>,
    ) -> Result<Reservation, E> {
        self.admit((1, size), !waited, now, also)
    }

    /// All or none: by the month, the history, by the rate if that is `rated`, and if `also` admits them. What is
    /// charged to the rate without having been looked at makes what comes next wait the longer.
    fn admit<E: From<Over>>(
        self: &Arc<Self>,
        (count, size): (u64, Size),
        rated: bool,
        now: Instant,
        also: impl FnOnce() -> Result<(), E>,
    ) -> Result<Reservation, E> {
        if !self.counts_messages.load(Ordering::Acquire) {
            return also().map(|()| Reservation::of(None, size));
        }
        let mut messages = self.messages.lock();
        messages.peek(count, size, now)?;
        if rated {
            messages.rated.peek(count, now, Limit::QuotaMessages)?;
        }
        also()?;
        messages.rated.charge(count, now);
        if let Some(month) = &mut messages.month {
            month.charge(count);
        }
        let meter = messages.history_for(size).map(|history| {
            history.hold(size.bytes);
            self.clone()
        });
        Ok(Reservation::of(meter, size))
    }

    /// Whether so many publications of `size` together may come as far as waiting does not cure it: in this month,
    /// and into the history.
    ///
    /// # Errors
    ///
    /// They may not.
    pub fn allows_queued(&self, count: u64, size: Size, now: Instant) -> Result<(), Over> {
        if !self.counts_messages.load(Ordering::Acquire) {
            return Ok(());
        }
        self.messages.lock().peek(count, size, now)
    }

    /// Room in the history is used for so long, or is not (`None`).
    pub(super) fn settle(&self, bytes: u64, kept: Option<Duration>, now: Instant) {
        self.history(|history| history.settle(bytes, kept, now));
    }

    /// Admits one request of a backend.
    ///
    /// # Errors
    ///
    /// It is one too many.
    pub fn call(&self, now: Instant) -> Result<(), Over> {
        if !self.counts_calls.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut calls = self.calls.lock();
        calls.peek(1, now, Limit::QuotaApiCalls)?;
        calls.charge(1, now);
        Ok(())
    }

    /// Takes a place for a connection or a channel; `None` if there is none.
    pub fn take(self: &Arc<Self>, kind: Kind) -> Option<Place> {
        self.counted(kind)?.lock().take().then(|| Place {
            meter: self.clone(),
            kind,
        })
    }

    /// What may be published now, where a quota limits that.
    pub fn messages_allowed(&self, now: Instant) -> Option<Allowance> {
        if !self.counts_messages.load(Ordering::Acquire) {
            return None;
        }
        let messages = self.messages.lock();
        let month = messages.month.as_ref().map(|month| month.allowance(now));
        tighter(messages.rated.allowance(now), month)
    }

    /// What may be asked by backends now, where a quota limits that.
    pub fn calls_allowed(&self, now: Instant) -> Option<Allowance> {
        if !self.counts_calls.load(Ordering::Acquire) {
            return None;
        }
        self.calls.lock().allowance(now)
    }

    /// What this node has and wants of a quota, for the round after `interval`.
    pub fn wish(&self, kind: Kind, limit: u64, interval: Duration) -> Wish {
        match kind {
            Kind::Messages => self.messages.lock().rated.take_wish(limit, interval),
            Kind::Calls => self.calls.lock().take_wish(limit, interval),
            Kind::Connections => self.connections.lock().take_wish(limit),
            Kind::Channels => self.channels.lock().take_wish(limit),
        }
    }

    /// This node's part of a quota from now on. Answers how much it holds, which may be more.
    pub fn set_part(&self, kind: Kind, part: u64, now: Instant) -> u64 {
        match kind {
            Kind::Messages => self.messages.lock().rated.set_part(part, now),
            Kind::Calls => self.calls.lock().set_part(part, now),
            Kind::Connections => return self.connections.lock().set_part(part),
            Kind::Channels => return self.channels.lock().set_part(part),
        }
        0
    }

    /// The month's count, if there is a quota for it.
    pub fn month<T>(&self, with: impl FnOnce(&mut Month) -> T) -> Option<T> {
        self.messages.lock().month.as_mut().map(with)
    }

    /// The count of what the history has, if there is a quota for it.
    pub fn history<T>(&self, with: impl FnOnce(&mut Window) -> T) -> Option<T> {
        self.messages.lock().history.as_mut().map(with)
    }

    /// Whether nobody has a place.
    pub fn is_idle(&self) -> bool {
        self.connections.lock().held == 0 && self.channels.lock().held == 0
    }

    fn counted(&self, kind: Kind) -> Option<&Mutex<Counted>> {
        match kind {
            Kind::Connections => Some(&self.connections),
            Kind::Channels => Some(&self.channels),
            Kind::Messages | Kind::Calls => None,
        }
    }
}

/// The one of which less is left.
pub fn tighter(one: Option<Allowance>, other: Option<Allowance>) -> Option<Allowance> {
    match (one, other) {
        (Some(one), Some(other)) if other.remaining < one.remaining => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// The rate that a part of so many thousandths a second is. Nothing at all would be no limit: the least is
/// one in the period.
fn rate(part: u64) -> Quota {
    Quota::within(part.max(1), part / Kind::Messages.parts(), PERIOD)
}

// === impl Messages ===

impl Messages {
    /// By the quotas that do not come back within a moment.
    fn peek(&mut self, count: u64, size: Size, now: Instant) -> Result<(), Over> {
        if let Some(month) = &self.month {
            month.peek(count, now)?;
        }
        match self.history_for(size) {
            Some(history) => history.peek(size.bytes, now),
            None => Ok(()),
        }
    }

    /// The history, if it counts what is of this size.
    fn history_for(&mut self, size: Size) -> Option<&mut Window> {
        self.history.as_mut().filter(|_| size.kept.is_some())
    }
}

// === impl Rated ===

impl Rated {
    /// `part` is for the beginning.
    fn limit(&mut self, part: Option<u64>, now: Instant) {
        match (part, &mut self.rate) {
            (None, rate) => *rate = None,
            (Some(part), none @ None) => *none = Some(Gcra::new(rate(part))),
            // More comes by sharing; less holds at once.
            (Some(most), Some(known)) => {
                if known.quota().is_above(&rate(most)) {
                    known.retune(rate(most), now);
                }
            }
        }
    }

    fn peek(&mut self, count: u64, now: Instant, limit: Limit) -> Result<(), Over> {
        let Some(rate) = &self.rate else { return Ok(()) };
        self.wanted = self.wanted.saturating_add(count);
        rate.peek(now, count).map_err(|wait| Over {
            limit,
            retry_after: wait.min(LONGEST_WAIT),
        })
    }

    /// What was admitted, also where the rate was not asked.
    fn charge(&mut self, count: u64, now: Instant) {
        if let Some(rate) = &mut self.rate {
            rate.charge(now, count);
        }
    }

    fn set_part(&mut self, part: u64, now: Instant) {
        if let Some(known) = &mut self.rate {
            known.retune(rate(part), now);
        }
    }

    fn take_wish(&mut self, limit: u64, interval: Duration) -> Wish {
        let wanted = u128::from(std::mem::take(&mut self.wanted)) * u128::from(Kind::Messages.parts());
        let in_a_second = wanted * 1_000 / interval.as_millis().max(1);
        let now = u64::try_from(in_a_second).unwrap_or(u64::MAX);
        Wish {
            held: 0,
            wanted: self.wish.follow(now, limit),
        }
    }

    fn allowance(&self, now: Instant) -> Option<Allowance> {
        let rate = self.rate.as_ref()?;
        let (remaining, reset) = rate.room(now);
        Some(Allowance {
            limit: rate.quota().burst(),
            remaining,
            reset: reset.min(LONGEST_WAIT),
        })
    }
}

// === impl Counted ===

impl Counted {
    fn limit(&mut self, part: Option<u64>) {
        self.most = match (part, self.most) {
            (Some(most), Some(known)) => Some(known.min(most)),
            (part, _) => part,
        };
    }

    fn take(&mut self) -> bool {
        let free = self.most.is_none_or(|most| self.held < most);
        if free {
            self.held += 1;
        } else {
            self.refused = self.refused.saturating_add(1);
        }
        free
    }

    fn set_part(&mut self, part: u64) -> u64 {
        if self.most.is_some() {
            self.most = Some(part);
        }
        self.held
    }

    fn take_wish(&mut self, limit: u64) -> Wish {
        let wanted = self.held.saturating_add(std::mem::take(&mut self.refused));
        Wish {
            held: self.held,
            wanted: self.wish.follow(wanted, limit),
        }
    }
}

impl Smooth {
    /// In steps of a sixty-fourth of the quota: what changes is told to all nodes.
    fn follow(&mut self, now: u64, limit: u64) -> u64 {
        let step = (limit / 64).max(1);
        let now = now.div_ceil(step).saturating_mul(step);
        let before = self.0 - self.0.div_ceil(4);
        self.0 = if now >= before { now } else { before / step * step };
        self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(counted) = self.meter.counted(self.kind) {
            let mut counted = counted.lock();
            counted.held = counted.held.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
