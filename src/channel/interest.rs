//! A tail's task: it sets up the interest, begins the tail, and hands live copies to it (L7).

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    log::{Copies, Copy, Route, Stored},
    telemetry::{CatchupKind, DropReason, GapOutcome, RingEviction},
};

use super::{
    checks::Due,
    cursor::Batch,
    entry::Message,
    hub::{Body, Channel, Durable, Ephemeral, Hub},
    mailbox::{Offer, Pace},
    outlet::Outlet,
    tail::{Arrival, Effects, Need},
};

/// Copies that are handed to the tail in one go.
const BATCH: usize = 256;
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_secs(1);

/// Why a subscription to live copies is left.
enum Left {
    /// The channel has been closed.
    Closed,
    /// The shard has another epoch, or the subscription has ended: begin again.
    Again,
}

/// Runs until the channel is closed.
pub(super) async fn pump(hub: Arc<Hub>, channel: Arc<Channel>) {
    loop {
        // Boxed, since it is large and soon over: there are as many pumps as there are tails.
        let Some(copies) = Box::pin(set_up(&hub, &channel)).await else {
            return;
        };
        if matches!(follow(&hub, &channel, copies).await, Left::Closed) {
            return;
        }
        hub.reset(&channel);
    }
}

/// Sets up the interest and begins the tail; `None` if the channel has been closed.
async fn set_up(hub: &Arc<Hub>, channel: &Arc<Channel>) -> Option<Box<dyn Copies>> {
    let mut pause = RETRY_FIRST;
    while !channel.is_closed() {
        let incarnation = channel.unless_closed(channel.known_incarnation()).await?;
        let subscribed = channel.unless_closed(hub.log.subscribe(&channel.route)).await?;
        let Ok(copies) = subscribed else {
            channel.unless_closed(sleep(pause)).await;
            pause = (pause * 2).min(RETRY_MOST);
            continue;
        };
        pause = RETRY_FIRST;
        if begin(hub, channel, incarnation).await {
            return Some(copies);
        }
        hub.reset(channel);
    }
    None
}

/// Learns where the tail begins: what is stored from here on arrives, or leaves a trace. False if
/// the channel was closed meanwhile, or the shard's incarnation is no longer that in which the
/// subscription was made: it may hold copies of the old one.
async fn begin(hub: &Arc<Hub>, channel: &Arc<Channel>, incarnation: u64) -> bool {
    if let Some(keeper) = &channel.keeper {
        let Some(fresh) = channel.unless_closed(keeper.fresh()).await else {
            return false;
        };
        if fresh.incarnation != incarnation {
            return false;
        }
        let mut body = channel.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return false;
        };
        durable.epoch = fresh.epoch;
        durable.life.incarnation = fresh.incarnation;
        durable.life.begun += 1;
        durable.tail.begin(fresh.last_seq);
        drop(body);
        // Before it had begun nobody told it of a new epoch.
        if channel.is_outdated() {
            return false;
        }
        if let Some(checks) = channel.route.shard().and_then(|shard| hub.checks(shard)) {
            checks.want(Due::Young(
                channel.clone(),
                Instant::now() + hub.config.check_after_interest,
            ));
        }
    } else if let Body::Ephemeral(ephemeral) = &mut *channel.body.lock() {
        ephemeral.begun = true;
    }
    channel.begun.notify_waiters();
    true
}

async fn follow(hub: &Arc<Hub>, channel: &Arc<Channel>, mut copies: Box<dyn Copies>) -> Left {
    let mut rhythm = Rhythm::new();
    loop {
        // A channel at rest keeps no buffer.
        let mut batch = Vec::new();
        let alive = tokio::select! {
            biased;
            () = channel.control.notified() => {
                if channel.is_closed() {
                    return Left::Closed;
                }
                if channel.is_outdated() {
                    return Left::Again;
                }
                continue;
            }
            alive = poll_fn(|cx| fill(&mut copies, &mut batch, cx)) => alive,
        };
        hub.on_copies(channel, &mut batch, &mut rhythm);
        if !alive {
            return Left::Again;
        }
    }
}

/// Takes all copies that are ready. Ready(false) when the subscription has ended.
fn fill(copies: &mut Box<dyn Copies>, batch: &mut Vec<Copy>, cx: &mut Context<'_>) -> Poll<bool> {
    while batch.len() < BATCH {
        match copies.poll_next(cx) {
            Poll::Ready(Some(copy)) => batch.push(copy),
            Poll::Ready(None) => return Poll::Ready(false),
            Poll::Pending if batch.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(true)
}

/// How busy the fan-out of a channel is.
#[derive(Debug)]
struct Rhythm {
    ended: Instant,
    took: Duration,
}

impl Rhythm {
    fn new() -> Self {
        Self {
            ended: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// Eager for a single publication to few readers, if the last fan-out was longer ago than it
    /// took: then more of them cannot be gathered by waiting. Otherwise what comes meanwhile goes out
    /// in one write per socket.
    fn pace(&self, publications: usize, few: bool, now: Instant) -> Pace {
        let calm = now.saturating_duration_since(self.ended) > self.took;
        if publications == 1 && few && calm {
            Pace::Eager
        } else {
            Pace::Queued
        }
    }

    fn ended(&mut self, began: Instant) -> Duration {
        self.ended = Instant::now();
        self.took = self.ended.saturating_duration_since(began);
        self.took
    }
}

impl Channel {
    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.body.lock(), Body::Closed)
    }

    /// Whether the tail belongs to an older epoch of its shard.
    pub(super) fn is_outdated(&self) -> bool {
        match &*self.body.lock() {
            Body::Durable(durable) => durable.tail.has_begun() && self.is_of_old(durable),
            Body::Ephemeral(_) | Body::Closed => false,
        }
    }

    /// Whether a tail that has begun belongs to an older epoch.
    pub(super) fn is_of_old(&self, durable: &Durable) -> bool {
        let keeper = self.keeper.as_ref();
        keeper.is_some_and(|keeper| durable.life.incarnation != keeper.incarnation())
    }

    /// The incarnation of the shard, asked for if this node does not know any.
    async fn known_incarnation(&self) -> u64 {
        match &self.keeper {
            Some(keeper) if keeper.incarnation() == 0 => keeper.fresh().await.incarnation,
            Some(keeper) => keeper.incarnation(),
            None => 0,
        }
    }

    /// Waits for something, or until the channel is closed.
    async fn unless_closed<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let closed = async {
            while !self.is_closed() {
                self.control.notified().await;
            }
        };
        tokio::select! {
            result = future => Some(result),
            () = closed => None,
        }
    }
}

impl Hub {
    /// A stored message in the form of tails.
    pub(super) fn message(&self, route: &Route, stored: Stored) -> Message {
        Message::of(stored, |publication| {
            (self.encoder.publication)(&route.key().name, &publication)
        })
    }

    fn on_copies(self: &Arc<Self>, channel: &Arc<Channel>, copies: &mut Vec<Copy>, rhythm: &mut Rhythm) {
        if copies.is_empty() {
            return;
        }
        let arrived = Instant::now();
        let highest = copies.iter().map(|copy| copy.stored.seq).max().unwrap_or(0);
        let arrivals: Vec<_> = copies
            .drain(..)
            .map(|copy| Arrival {
                message: self.message(&channel.route, copy.stored),
                prev: copy.prev,
            })
            .collect();
        let readers = |count: usize| count <= self.config.eager_subscribers;
        let mut body = channel.body.lock();
        match &mut *body {
            Body::Durable(durable) => {
                if let Some(keeper) = &channel.keeper {
                    keeper.saw(highest, durable.life.incarnation);
                }
                let few = readers(durable.tail.cursors().count());
                durable
                    .tail
                    .on_copies(rhythm.pace(arrivals.len(), few, arrived), arrivals);
                durable.ring_used = arrived;
                self.charge_ring(channel, durable);
                let effects = durable.tail.take_effects();
                let gap = durable.tail.need() != Need::Nothing && !durable.closing_gap;
                durable.closing_gap |= gap;
                drop(body);
                self.settle(channel, effects);
                if gap {
                    self.tasks.spawn(super::gap::close(self.clone(), channel.clone()));
                }
            }
            Body::Ephemeral(Ephemeral { cursors, .. }) => {
                let few = readers(cursors.count());
                let mut batch = Batch::new(rhythm.pace(arrivals.len(), few, arrived));
                for arrival in arrivals {
                    if let Message::Publication(entry) = arrival.message {
                        batch.push(entry);
                    }
                }
                let mut slow = Vec::new();
                let mut delivered = 0;
                for (key, cursor) in cursors.iter_mut() {
                    match batch.offer_all(&cursor.outlet) {
                        Offer::Taken => delivered += batch.len() as u64,
                        Offer::Full => slow.push(key),
                        Offer::Closed => {}
                    }
                }
                // A slow reader of an ephemeral channel loses messages by rule, and is told: its
                // subscription ends with 2500, and its client subscribes anew.
                let slow: Vec<_> = slow.into_iter().filter_map(|key| cursors.remove(key)).collect();
                drop(body);
                // All of it was taken, or nothing.
                let takers = delivered / batch.len().max(1) as u64;
                channel.delivered(delivered, takers * batch.bytes() as u64);
                for cursor in slow {
                    self.metrics
                        .drops
                        .of(DropReason::SlowEphemeral)
                        .inc_by(batch.len() as u64);
                    cursor.outlet.end();
                }
            }
            Body::Closed => return,
        }
        let took = rhythm.ended(arrived);
        self.metrics.fanout_seconds.observe(took.as_secs_f64());
    }

    /// Does for cursors what the tail asks for.
    pub(super) fn settle(self: &Arc<Self>, channel: &Arc<Channel>, effects: Effects<Outlet>) {
        channel.delivered(effects.delivered, effects.delivered_bytes);
        if effects.malformed > 0 {
            self.metrics
                .drops
                .of(DropReason::Malformed)
                .inc_by(effects.malformed);
        }
        for (evicted, why) in [
            (effects.evicted, RingEviction::Size),
            (effects.removed, RingEviction::Tombstone),
        ] {
            if evicted > 0 {
                self.metrics.ring_evictions.of(why).inc_by(evicted);
            }
        }
        if effects.overflowed > 0 {
            let drops = &self.metrics.drops;
            drops.of(DropReason::GapBuffer).inc_by(effects.overflowed);
        }
        if effects.lost > 0 {
            self.metrics.gaps.of(GapOutcome::Open).inc_by(effects.lost);
        }
        for outlet in effects.ended {
            outlet.end();
        }
        for key in effects.behind {
            let kind = CatchupKind::SlowReader;
            self.tasks
                .spawn(super::feeder::feed(self.clone(), channel.clone(), key, kind));
        }
    }

    /// The tail has to begin anew; whoever is on it ends.
    fn reset(self: &Arc<Self>, channel: &Arc<Channel>) {
        let mut body = channel.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return;
        };
        if durable.tail.has_begun() {
            durable.tail.reset();
            self.charge_ring(channel, durable);
            let effects = durable.tail.take_effects();
            drop(body);
            self.settle(channel, effects);
        }
    }
}
