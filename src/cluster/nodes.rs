//! This node among the others: renews its lease, watches theirs, asks them.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    lease::{Clock, Leases, NodeEvent, OwnLease},
    node::{Load, NodeInfo, NodeState},
};
use crate::{
    config::ClusterConfig,
    log::{Bucket, BucketEntry, BucketName, Change, Changes, Log, NodeMessage, ReadError},
    model::{Incarnation, NodeId},
    task::Tasks,
    telemetry::{self, Label, Metrics},
};

/// Events that a listener may lag behind. One that lags more reads [`Nodes::live`] again.
const EVENTS: usize = 1_024;
/// Renewals may be so many half intervals apart to count as one stretch of time.
const MAX_GAP_HALVES: u32 = 5;

/// All nodes of a deployment as this one sees them. One per node.
pub struct Nodes {
    log: Arc<dyn Log>,
    bucket: Arc<dyn Bucket>,
    config: ClusterConfig,
    about: About,
    load: Mutex<Option<LoadSource>>,
    /// Never held while something else is locked or awaited.
    state: Mutex<State>,
    events: broadcast::Sender<NodeEvent>,
    renew: Notify,
    current: tokio::sync::watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

type LoadSource = Box<dyn Fn() -> Load + Send + Sync>;

/// What a node says of itself that does not change.
#[derive(Clone, Debug)]
pub struct About {
    /// What its operator calls it.
    pub name: String,
    /// Where it can be reached.
    pub address: String,
}

struct State {
    own: OwnLease,
    clock: Clock,
    leases: Leases,
    does: NodeState,
    started_ms: i64,
    /// It has given its lease back.
    closed: bool,
}

/// What the other nodes answered.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Who answered what.
    pub answers: Vec<(NodeId, Bytes)>,
    /// Who holds a lease and did not.
    pub missing: Vec<NodeId>,
}

impl Nodes {
    /// Takes a lease and begins to watch the others'. Waits for both for at most `patience`; what is not
    /// there by then comes later.
    pub async fn start(
        log: Arc<dyn Log>,
        config: &ClusterConfig,
        about: About,
        patience: Duration,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let me = log.node();
        let nodes = Arc::new(Self {
            bucket: log.bucket(BucketName::Nodes),
            log,
            about,
            load: Mutex::default(),
            state: Mutex::new(State {
                own: OwnLease::new(),
                clock: Clock::new(config.renew_interval * MAX_GAP_HALVES / 2),
                leases: Leases::new(me, config.lease),
                does: NodeState::Starting,
                started_ms: unix_ms(),
                closed: false,
            }),
            config: config.clone(),
            events: broadcast::channel(EVENTS).0,
            renew: Notify::new(),
            current: tokio::sync::watch::Sender::new(false),
            metrics,
        });
        let changes = nodes.bucket.watch();
        tasks.spawn(nodes.clone().watch(changes));
        let begun = timeout(patience, async {
            nodes.renew_lease().await;
            let mut current = nodes.current.subscribe();
            // It fails only if the sender is dropped.
            let _ = current.wait_for(|current| *current).await;
        });
        if begun.await.is_err() {
            warn!("the other nodes are not known yet; going on without");
        }
        tasks.spawn(nodes.clone().keep_renewing());
        nodes
    }

    /// This node, as others must see it to believe what it says.
    pub fn me(&self) -> (NodeId, Incarnation) {
        (self.log.node(), self.state.lock().own.incarnation)
    }

    /// All nodes that hold a lease, this one first.
    pub fn live(&self) -> Vec<Arc<NodeInfo>> {
        let me = Arc::new(self.describe());
        let state = self.state.lock();
        let mut others: Vec<_> = state.leases.live().cloned().collect();
        drop(state);
        others.sort_by_key(|node| node.id);
        others.insert(0, me);
        others
    }

    /// The others that hold a lease.
    pub fn others(&self) -> Vec<(NodeId, Incarnation)> {
        let state = self.state.lock();
        let others = state.leases.live();
        others.map(|node| (node.id, node.incarnation)).collect()
    }

    /// Whether this incarnation of a node is there. What others say does not count.
    pub fn is_live(&self, id: NodeId, incarnation: Incarnation) -> bool {
        let state = self.state.lock();
        if id == self.log.node() {
            state.own.incarnation == incarnation
        } else {
            state.leases.is_live(id, incarnation)
        }
    }

    /// Whether all leases have been told since this node started: before, there may be nodes that it
    /// does not know of.
    pub fn is_current(&self) -> bool {
        *self.current.borrow()
    }

    /// What happens from now on. Who lags reads [`Nodes::live`] again.
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.events.subscribe()
    }

    /// What this node does from now on; told to the others at once.
    pub fn set_state(&self, does: NodeState) {
        self.state.lock().does = does;
        self.count();
        self.renew.notify_one();
    }

    /// Where the load that others see comes from. It is asked once for each renewal.
    pub fn set_load(&self, load: impl Fn() -> Load + Send + Sync + 'static) {
        *self.load.lock() = Some(Box::new(load));
    }

    /// Asks all other nodes, and waits until all have answered or `wait` is over. To be heard a node
    /// listens on `topic`, and answers nobody but others ([`NodeMessage::from`]).
    pub async fn ask_all(&self, topic: &str, data: Bytes, wait: Duration) -> Answers {
        let expected = self.others();
        if expected.is_empty() {
            return Answers::default();
        }
        let has_answered =
            |answers: &[NodeMessage], id: NodeId| answers.iter().any(|answer| answer.from == id);
        let enough = |answers: &[NodeMessage]| {
            answers.len() >= expected.len() && expected.iter().all(|(id, _)| has_answered(answers, *id))
        };
        let mut messages = self.log.ask(topic, data, wait, &enough).await;
        messages.retain(|answer| expected.iter().any(|(id, _)| *id == answer.from));
        let missing = expected.iter().map(|(id, _)| *id);
        Answers {
            missing: missing.filter(|id| !has_answered(&messages, *id)).collect(),
            answers: messages
                .into_iter()
                .map(|answer| (answer.from, answer.data))
                .collect(),
        }
    }

    /// Asks one node by name: it listens on `<topic>.<id>`. Collects its messages until `wait` is over
    /// or `enough` is true of them.
    pub async fn ask_node(
        &self,
        id: NodeId,
        topic: &str,
        data: Bytes,
        wait: Duration,
        enough: &(dyn Fn(&[NodeMessage]) -> bool + Send + Sync),
    ) -> Vec<NodeMessage> {
        let topic = format!("{topic}.{id}");
        let mut messages = self.log.ask(&topic, data, wait, enough).await;
        messages.retain(|answer| answer.from == id);
        messages
    }

    /// How long an answer to [`Nodes::ask_all`] is waited for, unless the caller knows better.
    pub fn ask_timeout(&self) -> Duration {
        self.config.ask_timeout
    }

    /// Gives the lease back: for the others this node is gone at once.
    pub async fn close(&self) {
        self.state.lock().closed = true;
        let key = self.log.node().to_string();
        // A renewal may be under way: its revision is found, and removed as well.
        for _ in 0..3 {
            let revision = self.state.lock().own.revision;
            match self.bucket.remove(&key, revision).await {
                Ok(true) => return,
                Ok(false) => {
                    let Ok(entry) = self.bucket.get(&key).await else {
                        return;
                    };
                    if entry.value.is_none() {
                        return;
                    }
                    self.state.lock().own.revision = entry.revision;
                }
                // The lease ends by itself.
                Err(_) => return,
            }
        }
    }

    async fn keep_renewing(self: Arc<Self>) {
        let mut ticks = interval(self.config.renew_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Time is known to have passed only by a renewal: one more when a lease runs out, so that it
            // ends then and not up to an interval later.
            let due = {
                let (state, now) = (self.state.lock(), Instant::now());
                let due = state.leases.next_due(state.clock.at(now));
                due.filter(|due| *due < self.config.renew_interval && state.clock.runs(now))
            };
            tokio::select! {
                _ = ticks.tick() => {}
                () = sleep(due.unwrap_or_default()), if due.is_some() => {}
                () = self.renew.notified() => {}
            }
            if self.state.lock().closed {
                return;
            }
            self.renew_lease().await;
            self.end_overdue().await;
        }
    }

    /// Writes this node's entry once; if that fails since the lease has ended, as a new incarnation.
    async fn renew_lease(&self) {
        let key = self.log.node().to_string();
        for _ in 0..2 {
            let info = self.describe();
            let Ok(value) = serde_json::to_vec(&info) else {
                return;
            };
            let revision = self.state.lock().own.revision;
            let begun = Instant::now();
            match self.bucket.set(&key, value.into(), revision, None).await {
                Ok(Some(revision)) => {
                    let first = {
                        let mut state = self.state.lock();
                        state.clock.acknowledged(begun);
                        state.own.on_renewed(revision)
                    };
                    if first {
                        self.count();
                    }
                    if first && info.incarnation != Incarnation::FIRST {
                        warn!(incarnation = %info.incarnation, "the lease of this node had ended; beginning anew");
                        self.emit(vec![NodeEvent::Me(info.incarnation)]);
                    }
                    return;
                }
                Ok(None) => {
                    let Ok(entry) = self.bucket.get(&key).await else {
                        break;
                    };
                    let held = read(&entry).filter(|info| info.state != NodeState::Gone);
                    let held = held.map(|info| info.incarnation);
                    let mut state = self.state.lock();
                    if state.closed {
                        // Given back, not lost: it is not taken again.
                        return;
                    }
                    state.own.on_lost_race(held, entry.revision);
                }
                Err(_) => {
                    self.state.lock().own.on_unanswered();
                    break;
                }
            }
        }
        self.metrics.lease_renewals_failed.inc();
    }

    /// Ends the leases that have run out, if they are still what this node knows of them.
    async fn end_overdue(&self) {
        let overdue = {
            let state = self.state.lock();
            state.leases.overdue(state.clock.now())
        };
        for (info, revision) in overdue {
            // What has no answer is tried again with the next renewal.
            let _ = self.end(&info, revision).await;
        }
    }

    async fn end(&self, info: &NodeInfo, revision: u64) -> Result<(), ReadError> {
        let (id, key) = (info.id, info.id.to_string());
        if self.write_gone(&key, info, revision).await? {
            self.metrics.leases_ended.inc();
            info!(node = %id, "a node has not renewed its lease and counts as gone");
            // A later entry would have another revision, and counts.
            self.apply(|leases, _, events| leases.on_removed(id, revision + 1, events));
        } else {
            let entry = self.bucket.get(&key).await?;
            self.on_change(&key, &entry);
        }
        Ok(())
    }

    /// Writes that a node is gone, for those who look later; whether its entry was still at `revision`.
    async fn write_gone(&self, key: &str, info: &NodeInfo, revision: u64) -> Result<bool, ReadError> {
        let gone = NodeInfo {
            state: NodeState::Gone,
            ..info.clone()
        };
        match serde_json::to_vec(&gone) {
            Ok(value) if !self.config.show_gone.is_zero() => {
                let shown = Some(self.config.show_gone);
                let written = self.bucket.set(key, value.into(), revision, shown).await?;
                Ok(written.is_some())
            }
            _ => self.bucket.remove(key, revision).await,
        }
    }

    async fn watch(self: Arc<Self>, mut changes: Box<dyn Changes>) {
        while let Some(change) = poll_fn(|cx| changes.poll_next(cx)).await {
            match change {
                Change::Begin => self.apply(|leases, _, _| leases.on_begin()),
                Change::Entry { key, entry } => self.on_change(&key, &entry),
                Change::Current => {
                    self.apply(|leases, _, events| leases.on_current(events));
                    self.current.send_replace(true);
                }
            }
        }
    }

    fn on_change(&self, key: &str, entry: &BucketEntry) {
        let Ok(id) = NodeId::parse(key) else { return };
        match (&entry.value, read(entry)) {
            (_, Some(info)) if info.id == id => {
                self.apply(|leases, now, events| leases.on_entry(info, entry.revision, now, events));
            }
            (None, _) => self.apply(|leases, _, events| leases.on_removed(id, entry.revision, events)),
            // Not to be read: nobody can believe what that node says.
            _ => warn!(node = %id, "the lease of a node cannot be read"),
        }
    }

    fn apply(&self, change: impl FnOnce(&mut Leases, Duration, &mut Vec<NodeEvent>)) {
        let mut events = Vec::new();
        {
            let mut state = self.state.lock();
            let now = state.clock.at(Instant::now());
            change(&mut state.leases, now, &mut events);
        }
        self.count();
        self.emit(events);
    }

    /// Sets the metrics of who is there.
    fn count(&self) {
        let state = self.state.lock();
        let mut counts = [0; telemetry::NodeState::ALL.len()];
        let mine = std::iter::once(state.does);
        let all = state.leases.live().map(|node| node.state).chain(mine);
        for does in all.filter_map(label) {
            counts[does.index()] += 1;
        }
        for (state, count) in telemetry::NodeState::ALL.iter().zip(counts) {
            self.metrics.nodes.of(*state).set(count);
        }
        let incarnation = state.own.incarnation.number();
        self.metrics.incarnation.set(incarnation.into());
    }

    fn emit(&self, events: Vec<NodeEvent>) {
        for event in events {
            // Nobody may be listening.
            let _ = self.events.send(event);
        }
    }

    fn describe(&self) -> NodeInfo {
        let load = self.load.lock().as_ref().map(|load| load()).unwrap_or_default();
        let state = self.state.lock();
        NodeInfo {
            id: self.log.node(),
            incarnation: state.own.incarnation,
            name: self.about.name.clone(),
            address: self.about.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.does,
            started_ms: state.started_ms,
            renewed_ms: unix_ms(),
            load,
        }
    }
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes")
            .field("me", &self.log.node())
            .finish_non_exhaustive()
    }
}

fn read(entry: &BucketEntry) -> Option<NodeInfo> {
    serde_json::from_slice(entry.value.as_ref()?).ok()
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// `None`: it holds no lease.
fn label(does: NodeState) -> Option<telemetry::NodeState> {
    match does {
        NodeState::Starting => Some(telemetry::NodeState::Starting),
        NodeState::Ready => Some(telemetry::NodeState::Ready),
        NodeState::Draining => Some(telemetry::NodeState::Draining),
        NodeState::Gone => None,
    }
}
