//! Drives sweeps (L12): those who wait for a read of their channel while others are being served
//! may be picked up by one sweep over their shard instead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::sleep,
};

use crate::{
    log::{Route, ShardId},
    model::Offset,
    telemetry::CatchupSource,
};

use super::{
    entry::Message,
    hub::Hub,
    keeper::Keeper,
    planner::{Arrived, Proof, Rider, Sweep, SweepLimits, sweep_count},
    reader::Proven,
    recovery::{Target, floor_holds},
};

/// Messages in a page of a sweep: more of them make the server scan longer before it answers.
const PAGE_MESSAGES: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(5);
/// Pages in a row that may move nothing: the replicas lag or do not answer.
const MAX_IDLE_PAGES: u32 = 20;

/// Who waits on one shard.
pub(super) struct Sweeper {
    /// Bounded by `catchup.max_waiting`: everyone here waits at the reader's gate, too.
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
    last_ticket: AtomicU64,
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

/// What a sweep knows of a rider: enough to answer it.
#[derive(Clone)]
struct Seat(Arc<Mutex<Option<Waiting>>>);

impl Sweeper {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            last_ticket: AtomicU64::new(0),
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
        if waiting.len() >= worth {
            self.wake.notify_one();
        }
        Ticket {
            sweeper: self,
            number,
            answer,
        }
    }

    /// Takes those who are to be served by one sweep now; none if that is not worth it.
    fn pick(&self, last_seq: Offset, at_least: usize) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let mut positions: Vec<_> = waiting.iter().map(|waiter| waiter.position).collect();
        let count = sweep_count(&mut positions, last_seq, at_least);
        if count == 0 {
            return Vec::new();
        }
        waiting.sort_by_key(|waiter| std::cmp::Reverse(waiter.position));
        waiting.drain(..count).collect()
    }

    /// Takes those whom a sweep that stands at `next` can still pick up.
    fn pick_up(&self, next: Offset) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let (on, left) = waiting.drain(..).partition(|waiter| waiter.position >= next);
        *waiting = left;
        on
    }
}

impl Ticket<'_> {
    /// What the sweep brought; `None` = read it alone. Pending as long as no sweep has come by.
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
    loop {
        sweeper.wake.notified().await;
        loop {
            let picked = sweeper.pick(keeper.seen(), hub.reader.sweep_from());
            if picked.is_empty() {
                break;
            }
            sweep(&hub, shard, keeper, sweeper, picked).await;
        }
    }
}

async fn sweep(hub: &Arc<Hub>, shard: ShardId, keeper: &Keeper, sweeper: &Sweeper, picked: Vec<Waiting>) {
    let incarnation = keeper.incarnation();
    let from = picked
        .iter()
        .map(|waiter| waiter.position)
        .min()
        .unwrap_or(0)
        .max(1);
    let mut sweep = Sweep::new(from, hub.reader.sweep_limits());
    board(&mut sweep, picked);
    let mut idle = 0;
    while sweep.riders() > 0 && idle < MAX_IDLE_PAGES {
        let before = sweep.next();
        let arrived = match hub.reader.sweep(shard, before, PAGE_MESSAGES).await {
            Ok(page) => sweep.on_page(page.messages),
            Err(_) => Vec::new(),
        };
        if sweep.next() > before || !arrived.is_empty() {
            idle = 0;
        } else {
            idle += 1;
            sleep(PAUSE).await;
        }
        answer(hub, keeper, incarnation, arrived).await;
        let next = sweep.next() + 1;
        board(&mut sweep, sweeper.pick_up(next));
    }
    answer(hub, keeper, incarnation, sweep.finish()).await;
}

fn board(sweep: &mut Sweep<Seat>, waiting: Vec<Waiting>) {
    for waiter in waiting {
        let (position, target) = (waiter.position, waiter.target);
        let address = waiter.route.address().to_owned();
        let ticket = Seat(Arc::new(Mutex::new(Some(waiter))));
        // One that it has passed already finds its answer gone, and reads alone.
        sweep.board(
            &address,
            Rider {
                ticket,
                position,
                target,
            },
        );
    }
}

async fn answer(hub: &Hub, keeper: &Keeper, incarnation: u64, arrived: Vec<Arrived<Seat>>) {
    let limit = keeper.spec().max_per_channel;
    let asks = |arrived: &Arrived<Seat>| limit.is_some() || matches!(arrived.proof, Proof::Floor(_));
    // One question serves all who arrive together.
    let fresh = if arrived.iter().any(asks) {
        Some(keeper.fresh().await)
    } else {
        None
    };
    let same = keeper.incarnation() == incarnation;
    for Arrived {
        ticket,
        messages,
        covered_to,
        proof,
    } in arrived
    {
        let Some(waiter) = ticket.0.lock().take() else {
            continue;
        };
        let retained = match (proof, &fresh) {
            (Proof::Passed, _) => true,
            (Proof::Floor(position), Some(fresh)) => floor_holds(position, fresh.floor),
            (Proof::Floor(_), None) | (Proof::Alone, _) => false,
        };
        // A channel cannot have had more messages since the position than its whole shard.
        let untrimmed = match (limit, &fresh) {
            (None, _) => true,
            (Some(limit), Some(fresh)) => fresh.last_seq.saturating_sub(waiter.position) < limit,
            (Some(_), None) => false,
        };
        let proven = (same && retained && untrimmed).then(|| {
            hub.metrics
                .catchup_publications
                .of(CatchupSource::Sweep)
                .inc_by(messages.len() as u64);
            let messages: Vec<Message> = messages
                .into_iter()
                .map(|stored| hub.message(&waiter.route, Arc::unwrap_or_clone(stored)))
                .collect();
            Proven { messages, covered_to }
        });
        // Who has given up meanwhile needs no answer.
        let _ = waiter.answer.send(proven);
    }
}

impl super::reader::Reader {
    pub(super) fn sweep_limits(&self) -> SweepLimits {
        SweepLimits {
            page_bytes: self.page_size().1 as usize,
            total_bytes: self.sweep_bytes(),
        }
    }
}
