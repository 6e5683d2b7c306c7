//! Drives sweeps (L12): those who wait for a read of their channel while others are being served
//! are picked up by one sweep over their shard instead. What it has read is kept for those who come
//! a little later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep, timeout_at},
};

use tracing::warn;

use crate::{
    log::{ReadError, Route, ShardId},
    model::Offset,
    telemetry::CatchupSource,
};

use super::{
    hub::Hub,
    keeper::Keeper,
    planner::{Answer, Proof, Served, Window, alone_cost, sweep_count},
    reader::Proven,
    recovery::{Target, floor_holds},
    shard::Fresh,
};

/// Messages in a page of a sweep: more of them make the server scan longer before it answers.
const PAGE_MESSAGES: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MOST: Duration = Duration::from_millis(500);
/// Pages in a row that may move nothing: the replicas lag or do not answer.
const MAX_IDLE_PAGES: u32 = 20;
/// What was read alone longer ago than this does not speak for a sweep any more.
const LATELY: Duration = Duration::from_secs(2);

/// Who waits on one shard, and what its sweeps have read.
pub(super) struct Sweeper {
    /// Bounded by `catchup.max_waiting`: everyone here waits at the reader's gate, too.
    waiting: Mutex<Vec<Waiting>>,
    window: Mutex<Option<Kept>>,
    wake: Notify,
    last_ticket: AtomicU64,
    /// What reads alone have cost the server since the last sweep, and when the last one was.
    spent: Mutex<(f64, Instant)>,
    /// A sweep is under way, or wanted: who comes waits for it rather than making the server scan.
    sweeping: watch::Sender<bool>,
}

struct Kept {
    window: Window,
    incarnation: u64,
    used: Instant,
}

struct Waiting {
    ticket: u64,
    route: Route,
    position: Offset,
    target: Target,
    answer: oneshot::Sender<Option<Proven>>,
}

/// A place among those who wait. Dropping it gives the place up.
pub(super) struct Ticket<'a> {
    sweeper: &'a Sweeper,
    number: u64,
    answer: oneshot::Receiver<Option<Proven>>,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            window: Mutex::new(None),
            wake: Notify::new(),
            last_ticket: AtomicU64::new(0),
            spent: Mutex::new((0.0, Instant::now())),
            sweeping: watch::Sender::new(false),
        }
    }

    /// Waits to be picked up by a sweep. `worth` = how many must wait before one is thought of.
    pub(super) fn wait(&self, route: &Route, position: Offset, target: Target, worth: usize) -> Ticket<'_> {
        let number = self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.push(Waiting {
            ticket: number,
            route: route.clone(),
            position,
            target,
            answer: sender,
        });
        // Those whom the window can serve need no sweep.
        if waiting.len() >= worth || *self.sweeping.borrow() || self.window.lock().is_some() {
            self.wake.notify_one();
        }
        Ticket {
            sweeper: self,
            number,
            answer,
        }
    }

    /// Waits until no sweep is under way.
    pub(super) async fn rest(&self) {
        // The sender lives as long as the sweeper.
        let _ = self.sweeping.subscribe().wait_for(|sweeping| !sweeping).await;
    }

    /// Whether a reader should wait for a sweep: one is under way, or it is time for one.
    pub(super) fn is_due(
        &self,
        position: Offset,
        last_seq: Offset,
        at_least: usize,
        incarnation: u64,
    ) -> bool {
        if *self.sweeping.borrow() {
            return true;
        }
        let due = sweep_count(
            &mut [position],
            last_seq,
            at_least,
            self.span(incarnation),
            self.spent(),
        ) > 0;
        if due {
            self.sweeping.send_replace(true);
        }
        due
    }

    /// A reader goes alone.
    pub(super) fn spend(&self, position: Offset, last_seq: Offset) {
        let lately = self.spent();
        *self.spent.lock() = (
            lately + alone_cost(last_seq.saturating_sub(position)),
            Instant::now(),
        );
    }

    /// What reads alone have cost lately.
    fn spent(&self) -> f64 {
        let (spent, at) = *self.spent.lock();
        if at.elapsed() < LATELY { spent } else { 0.0 }
    }

    /// What a kept window of this incarnation has.
    fn span(&self, incarnation: u64) -> Option<(Offset, Offset)> {
        let window = self.window.lock();
        let kept = window.as_ref().filter(|kept| kept.incarnation == incarnation);
        kept.map(|kept| kept.window.span())
    }

    /// What a kept window has, if it is whole for the reader.
    fn look_up(&self, route: &Route, position: Offset, target: Target, incarnation: u64) -> Answer {
        let mut window = self.window.lock();
        let Some(kept) = window.as_mut().filter(|kept| kept.incarnation == incarnation) else {
            return Answer::Alone;
        };
        kept.used = Instant::now();
        kept.window.serve(route.address(), position, target)
    }

    /// Takes those who are to be served by one sweep now; none if that is not worth it.
    fn pick(&self, last_seq: Offset, at_least: usize, incarnation: u64) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let mut positions: Vec<_> = waiting.iter().map(|waiter| waiter.position).collect();
        let count = sweep_count(
            &mut positions,
            last_seq,
            at_least,
            self.span(incarnation),
            self.spent(),
        );
        if count == 0 {
            return Vec::new();
        }
        waiting.sort_by_key(|waiter| std::cmp::Reverse(waiter.position));
        waiting.drain(..count).collect()
    }

    /// Takes all who wait for what a kept window has. The others never leave the queue: whoever is
    /// not in it counts on an answer.
    fn take_kept(&self, incarnation: u64) -> Vec<(Waiting, Served)> {
        let mut waiting = self.waiting.lock();
        let mut served = Vec::new();
        let mut left = Vec::new();
        for waiter in waiting.drain(..) {
            match self.look_up(&waiter.route, waiter.position, waiter.target, incarnation) {
                Answer::Served(found) => served.push((waiter, found)),
                Answer::Later | Answer::Alone => left.push(waiter),
            }
        }
        *waiting = left;
        served
    }

    /// Takes all who wait and can be served by a sweep that began here.
    fn take_covered(&self, window: &Window) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let (covered, left) = waiting
            .drain(..)
            .partition(|waiter| window.reaches_back_to(waiter.position));
        *waiting = left;
        covered
    }
}

impl Ticket<'_> {
    /// What a sweep brought; `None` = read it alone. Pending as long as no sweep has come by.
    pub(super) async fn answered(&mut self) -> Option<Proven> {
        (&mut self.answer).await.unwrap_or_default()
    }

    /// Gives the place up; false if a sweep has picked it up already, and will answer.
    pub(super) fn withdraw(&self) -> bool {
        let mut waiting = self.sweeper.waiting.lock();
        let at = waiting.iter().position(|waiter| waiter.ticket == self.number);
        at.map(|at| waiting.swap_remove(at)).is_some()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Sweeps a shard whenever that is worth it, until the node stops.
pub(super) async fn run(hub: Arc<Hub>, shard: ShardId) {
    let Some((keeper, sweeper)) = hub.keeper(shard).zip(hub.sweeper(shard)) else {
        return;
    };
    let linger = hub.reader.sweep_linger();
    loop {
        let until = sweeper.window.lock().as_ref().map(|kept| kept.used + linger);
        match until {
            None => sweeper.wake.notified().await,
            Some(until) => {
                if timeout_at(until, sweeper.wake.notified()).await.is_err() {
                    let mut window = sweeper.window.lock();
                    if window.as_ref().is_some_and(|kept| kept.used.elapsed() >= linger) {
                        *window = None;
                    }
                    continue;
                }
            }
        }
        let incarnation = keeper.incarnation();
        serve_from_window(&hub, keeper, sweeper, incarnation).await;
        let picked = sweeper.pick(keeper.seen(), hub.reader.sweep_from(), incarnation);
        if !picked.is_empty() {
            sweeper.sweeping.send_replace(true);
            sweep(&hub, shard, keeper, sweeper, incarnation, picked).await;
            *sweeper.spent.lock() = (0.0, Instant::now());
            // Those who came meanwhile, before they are let go on alone.
            serve_from_window(&hub, keeper, sweeper, incarnation).await;
            sweeper.wake.notify_one();
        }
        sweeper.sweeping.send_replace(false);
    }
}

/// Serves those who wait for what earlier sweeps have read.
async fn serve_from_window(hub: &Hub, keeper: &Keeper, sweeper: &Sweeper, incarnation: u64) {
    let served = sweeper.take_kept(incarnation);
    answer(hub, keeper, incarnation, served).await;
}

async fn sweep(
    hub: &Hub,
    shard: ShardId,
    keeper: &Keeper,
    sweeper: &Sweeper,
    incarnation: u64,
    mut riders: Vec<Waiting>,
) {
    let farthest = riders.iter().map(|rider| rider.position).min().unwrap_or(0);
    let kept = sweeper.window.lock().take();
    let mut window = match kept {
        Some(kept) if kept.incarnation == incarnation && kept.window.reaches_back_to(farthest) => kept.window,
        _ => {
            // In a storm many more come, and some of them left a little earlier.
            let from = farthest.saturating_sub(PAGE_MESSAGES.into()).max(1);
            Window::new(from, hub.reader.sweep_bytes())
        }
    };
    let mut idle = 0;
    let mut pause = PAUSE;
    loop {
        let mut served = Vec::new();
        let mut waiting = Vec::new();
        let full = window.is_full(hub.reader.sweep_page_bytes() as usize);
        // Who has given up meanwhile needs no answer.
        riders.retain(|rider| !rider.answer.is_closed());
        for rider in riders {
            let address = rider.route.address();
            let answer = match window.serve(address, rider.position, rider.target) {
                // Before it is pushed out: the rest is asked for again.
                Answer::Later if full => window.serve_part(address, rider.position),
                answer => answer,
            };
            match answer {
                Answer::Served(found) => served.push((rider, found)),
                Answer::Later => waiting.push(rider),
                Answer::Alone => drop(rider.answer.send(None)),
            }
        }
        riders = waiting;
        riders.extend(sweeper.take_covered(&window));
        if riders.is_empty() || idle >= MAX_IDLE_PAGES || keeper.incarnation() != incarnation {
            answer(hub, keeper, incarnation, served).await;
            break;
        }
        // The next page is on its way while those are answered who need no more.
        let (page, ()) = tokio::join!(
            hub.reader.sweep(shard, window.next(), PAGE_MESSAGES),
            answer(hub, keeper, incarnation, served)
        );
        if let Some((_, last)) = page.as_ref().ok().and_then(|page| page.messages.last()) {
            // A leader that does not know of it has been deposed: its floor proves nothing (L5).
            keeper.saw(last.seq, incarnation);
        }
        match page.map(|page| window.on_page(page.messages)) {
            Ok(true) => (idle, pause) = (0, PAUSE),
            Ok(false) => {
                idle += 1;
                sleep(PAUSE).await;
            }
            // To let each of them ask instead would help nobody.
            Err(ReadError::NoAnswer | ReadError::NotNow(_)) => {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
            Err(error @ ReadError::Failed(_)) => {
                warn!(shard = %keeper.spec().stream, %error, "a sweep failed");
                idle = MAX_IDLE_PAGES;
            }
        }
    }
    for rider in riders {
        drop(rider.answer.send(None));
    }
    if window.was_trimmed() {
        hub.metrics.catchup_windows_trimmed.inc();
    }
    *sweeper.window.lock() = Some(Kept {
        window,
        incarnation,
        used: Instant::now(),
    });
}

async fn answer(hub: &Hub, keeper: &Keeper, incarnation: u64, served: Vec<(Waiting, Served)>) {
    // One question serves all.
    let fresh = if served.iter().any(|(_, served)| asks(keeper, served)) {
        Some(keeper.fresh().await)
    } else {
        None
    };
    for (waiter, served) in served {
        let proven = hub.prove(
            keeper,
            incarnation,
            fresh.as_ref(),
            &waiter.route,
            waiter.position,
            served,
        );
        // Who has given up meanwhile needs no answer.
        let _ = waiter.answer.send(proven);
    }
}

/// Whether the leader has to be asked before this proves anything.
fn asks(keeper: &Keeper, served: &Served) -> bool {
    keeper.spec().max_per_channel.is_some() || matches!(served.proof, Proof::Floor(_))
}

impl Hub {
    /// What an earlier sweep has read, if it is everything that is wanted.
    pub(super) async fn swept_before(
        &self,
        keeper: &Keeper,
        incarnation: u64,
        route: &Route,
        position: Offset,
        target: Target,
    ) -> Option<Proven> {
        let sweeper = self.sweeper(keeper.spec().id)?;
        let Answer::Served(served) = sweeper.look_up(route, position, target, incarnation) else {
            return None;
        };
        let fresh = if asks(keeper, &served) {
            Some(keeper.fresh().await)
        } else {
            None
        };
        self.prove(keeper, incarnation, fresh.as_ref(), route, position, served)
    }

    fn prove(
        &self,
        keeper: &Keeper,
        incarnation: u64,
        fresh: Option<&Fresh>,
        route: &Route,
        position: Offset,
        served: Served,
    ) -> Option<Proven> {
        let Served {
            messages,
            covered_to,
            proof,
        } = served;
        let retained = match (proof, fresh) {
            (Proof::Passed, _) => true,
            (Proof::Floor(position), Some(fresh)) => floor_holds(position, fresh.floor),
            (Proof::Floor(_), None) => false,
        };
        // A channel cannot have had more messages since the position than its whole shard.
        let untrimmed = match (keeper.spec().max_per_channel, fresh) {
            (None, _) => true,
            (Some(limit), Some(fresh)) => fresh.last_seq.saturating_sub(position) < limit,
            (Some(_), None) => false,
        };
        let proven = keeper.incarnation() == incarnation && retained && untrimmed;
        proven.then(|| {
            let messages = messages
                .iter()
                .map(|stored| self.message(route, (**stored).clone()))
                .collect();
            Proven {
                messages,
                covered_to,
                source: CatchupSource::Sweep,
            }
        })
    }
}
