//! Checks of a shard's tails (L11): the last copy before a silence can be lost unseen, so each tail
//! is compared with the log now and then. The same question, asked at once, tells a new tail the
//! last message of its channel.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    log::{ReadError, Route, ShardId},
    model::Offset,
    random,
    telemetry::CheckOutcome,
};

use super::{
    hub::{Body, Channel, Hub},
    shard::Fresh,
    tail::Need,
};

/// Channels asked for in one request: the server answers at most 1,024 subjects.
const CHUNK: usize = 900;
/// The least time between two looks: in a storm many come within it, and share one request.
const GATHER: Duration = Duration::from_millis(5);
/// New tails whose time comes within this are checked together.
const GATHER_YOUNG: Duration = Duration::from_millis(200);
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MOST: Duration = Duration::from_millis(500);

/// What is to be checked.
pub(super) enum Due {
    /// All tails, now.
    All,
    /// All tails, in one to two seconds: all nodes hear of a new leader at once.
    AllSpread,
    /// A tail whose interest is new, then.
    Young(Arc<Channel>, Instant),
    /// A tail someone waits for, now.
    Look(Arc<Channel>, oneshot::Sender<()>),
}

/// What waits to be checked on one shard.
pub(super) struct Checks {
    queue: Arc<Mutex<Queue>>,
    wake: Arc<Notify>,
}

/// Where a shard stood when all its tails had been compared with it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Checked {
    incarnation: u64,
    last_seq: Offset,
}

/// The other end of [`Checks`].
pub(super) struct DueQueue {
    queue: Arc<Mutex<Queue>>,
    wake: Arc<Notify>,
}

/// Bounded by the tails there can be: each stands in it as young while it lives, and once for the
/// join that looks; see [`make_room`].
#[derive(Default)]
struct Queue {
    all_at: Option<Instant>,
    young: Vec<(Instant, Arc<Channel>)>,
    looks: Vec<(Arc<Channel>, oneshot::Sender<()>)>,
}

impl Checks {
    pub(super) fn new() -> (Self, DueQueue) {
        let queue: Arc<Mutex<Queue>> = Arc::default();
        let wake = Arc::new(Notify::new());
        (
            Self {
                queue: queue.clone(),
                wake: wake.clone(),
            },
            DueQueue { queue, wake },
        )
    }

    pub(super) fn want(&self, due: Due) {
        let mut queue = self.queue.lock();
        match due {
            Due::All => queue.all_by(Instant::now()),
            Due::AllSpread => {
                queue.all_by(Instant::now() + Duration::from_millis(1_000 + random::below(1_000)));
            }
            Due::Young(channel, at) => {
                make_room(&mut queue.young, |(_, channel)| !channel.is_closed());
                queue.young.push((at, channel));
            }
            Due::Look(channel, done) => {
                make_room(&mut queue.looks, |(_, done)| !done.is_closed());
                queue.looks.push((channel, done));
            }
        }
        drop(queue);
        self.wake.notify_one();
    }
}

/// Before a queue grows, lets go what nobody wants any more: while the log does not answer, channels
/// come and go and joins give up.
fn make_room<T>(queue: &mut Vec<T>, wanted: impl Fn(&T) -> bool) {
    if queue.len() == queue.capacity() {
        queue.retain(wanted);
    }
}

impl Queue {
    fn all_by(&mut self, at: Instant) {
        self.all_at = Some(self.all_at.map_or(at, |known| known.min(at)));
    }

    /// Those whose time has come. `asking`: others are being checked anyway.
    fn take_young(&mut self, now: Instant, asking: bool) -> Vec<Arc<Channel>> {
        let due = self
            .young
            .first()
            .is_some_and(|(at, _)| *at + GATHER_YOUNG <= now);
        if !due && !asking {
            return Vec::new();
        }
        let ripe = self.young.partition_point(|(at, _)| *at <= now);
        self.young.drain(..ripe).map(|(_, channel)| channel).collect()
    }

    fn next(&self) -> Option<Instant> {
        // Young ones are queued in the order of their times.
        let young = self.young.first().map(|(at, _)| *at + GATHER_YOUNG);
        self.all_at.into_iter().chain(young).min()
    }
}

/// Checks the tails of a shard until the node stops.
pub(super) async fn run(hub: Arc<Hub>, shard: ShardId, due: DueQueue) {
    let interval = hub.config.check_interval;
    let mut checked = None;
    let jitter = Duration::from_millis(random::below(u64::try_from(interval.as_millis()).unwrap_or(0)));
    let mut periodic = Instant::now() + interval + jitter / 4;
    let mut next_look = Instant::now();
    loop {
        let next = due.queue.lock().next().map_or(periodic, |at| at.min(periodic));
        if due.queue.lock().looks.is_empty() {
            tokio::select! {
                () = sleep_until(next) => {}
                () = due.wake.notified() => {}
            }
        } else {
            sleep_until(next_look).await;
            next_look = Instant::now() + GATHER;
        }
        let now = Instant::now();
        let (looks, young, all) = {
            let mut queue = due.queue.lock();
            let all = queue.all_at.is_some_and(|at| at <= now);
            if all {
                queue.all_at = None;
            }
            let looks = std::mem::take(&mut queue.looks);
            let young = queue.take_young(now, !looks.is_empty());
            (looks, young, all)
        };
        if !looks.is_empty() || !young.is_empty() {
            let (looked, done): (Vec<_>, Vec<_>) = looks.into_iter().unzip();
            let channels = looked.into_iter().chain(young).collect();
            hub.check(shard, channels, None).await;
            for waiter in done {
                // One that has given up needs no answer.
                let _ = waiter.send(());
            }
        }
        let due_now = now >= periodic;
        if due_now {
            periodic = now + interval;
        }
        if all || due_now {
            let unmoved = checked.filter(|_| !all);
            checked = hub.check(shard, hub.channels_of(shard), unmoved).await;
        }
    }
}

impl Hub {
    /// Compares tails with the log. `unmoved`: skip if the shard still stands there. Answers where
    /// it stands, if all tails have been compared with that.
    async fn check(
        self: &Arc<Self>,
        shard: ShardId,
        channels: Vec<Arc<Channel>>,
        unmoved: Option<Checked>,
    ) -> Option<Checked> {
        if channels.is_empty() {
            return None;
        }
        let keeper = self.keeper(shard)?;
        let fresh = keeper.fresh().await;
        let checked = Checked {
            incarnation: fresh.incarnation,
            last_seq: fresh.last_seq,
        };
        if unmoved == Some(checked) {
            self.metrics.checks.of(CheckOutcome::Unmoved).inc();
            return unmoved;
        }
        let (mut missed, mut all) = (false, true);
        for chunk in channels.chunks(CHUNK) {
            let routes: Vec<Route> = chunk.iter().map(|channel| channel.route.clone()).collect();
            let Some(last) = self.last_of(shard, &routes, &fresh).await else {
                self.metrics.checks.of(CheckOutcome::Failed).inc();
                return None;
            };
            for seq in last.iter().flatten() {
                keeper.saw(*seq, fresh.incarnation);
            }
            // That nothing is stored of a channel proves something only with a floor learnt since.
            let floor = if last.contains(&None) {
                let later = keeper.fresh().await;
                if later.incarnation != fresh.incarnation {
                    return None;
                }
                later.floor
            } else {
                fresh.floor
            };
            for (channel, last) in chunk.iter().zip(last) {
                match self.on_check(channel, &fresh, floor, last) {
                    Some(found) => missed |= found,
                    None => all = false,
                }
            }
        }
        let outcome = if missed {
            CheckOutcome::Missed
        } else {
            CheckOutcome::Whole
        };
        self.metrics.checks.of(outcome).inc();
        all.then_some(checked)
    }

    /// The last message of each channel, from a copy that had everything up to `fresh.last_seq`.
    /// `None` if the epoch has changed meanwhile.
    pub(super) async fn last_of(
        &self,
        shard: ShardId,
        routes: &[Route],
        fresh: &Fresh,
    ) -> Option<Vec<Option<Offset>>> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.log.last_of(shard, routes).await {
                Ok(answer) if answer.up_to >= fresh.last_seq => return Some(answer.last),
                Ok(_) | Err(ReadError::NoAnswer | ReadError::NotNow(_)) => {}
                Err(ReadError::Failed(_)) => return None,
            }
            // Asked, since a stream that was created anew never comes to where the old one stood.
            if self.keeper(shard)?.fresh().await.incarnation != fresh.incarnation {
                return None;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    /// True if the tail had missed something, `None` if it could not be compared now.
    fn on_check(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        fresh: &Fresh,
        floor: Offset,
        last: Option<Offset>,
    ) -> Option<bool> {
        let mut body = channel.body.lock();
        let durable = match &mut *body {
            Body::Durable(durable) => durable,
            Body::Ephemeral(_) | Body::Closed => return Some(false),
        };
        if durable.life.incarnation != fresh.incarnation || !durable.tail.is_whole() {
            return None;
        }
        durable.tail.on_check(fresh.last_seq, floor, last);
        let gap = durable.tail.need() != Need::Nothing && !durable.closing_gap;
        durable.closing_gap |= gap;
        drop(body);
        if gap {
            self.tasks.spawn(super::gap::close(self.clone(), channel.clone()));
        }
        Some(gap)
    }

    /// Has the tail compared with the log now.
    pub(super) async fn look(&self, channel: &Arc<Channel>) {
        let Some(checks) = channel.route.shard().and_then(|shard| self.checks(shard)) else {
            return;
        };
        let (done, looked) = oneshot::channel();
        checks.want(Due::Look(channel.clone(), done));
        // The queue answers everyone, or ends with the node.
        let _ = looked.await;
    }
}

impl Channel {
    /// Whether the tail knows the last message of its channel.
    pub(super) fn has_looked(&self) -> bool {
        match &*self.body.lock() {
            Body::Durable(durable) => durable.tail.has_looked(),
            Body::Ephemeral(_) | Body::Closed => true,
        }
    }
}
