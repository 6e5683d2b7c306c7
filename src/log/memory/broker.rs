//! What the nodes of a log in memory share: shards, registry, subscriptions, and the script of what
//! goes wrong. All of it behind one lock that is never held across an await.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::broadcast;

use super::{
    ClassSpec, NodeIndex, Request,
    buckets::Buckets,
    faults::{Gate, Gates, PublishFault, RequestFault, Script},
    live::Live,
    shard::{Appended, Shard},
    store::{Limits, Store},
    topics::Topics,
    work::Works,
};
use crate::{
    log::{
        Ack, AckFuture, Body, Copy, EpochEntry, LogEvent, PublishError, ReadError, Route, ShardId, ShardSpec,
        Stored,
    },
    model::{AppId, ChannelKey, ClassName, History},
};

/// The time a log in memory starts at, ms since 1970.
const START_MS: i64 = 1_700_000_000_000;

/// Events a node may lag behind.
const EVENT_CAPACITY: usize = 1_024;

/// A copy of a shard's leader, to be put back later.
#[derive(Clone, Debug)]
pub struct Snapshot(pub(super) Store);

pub(super) struct Broker {
    classes: Vec<(ClassSpec, u16)>,
    specs: Vec<ShardSpec>,
    state: Mutex<State>,
}

/// Everything that changes.
pub(super) struct State {
    pub(super) now_ms: i64,
    pub(super) nodes: Nodes,
    pub(super) live: Live,
    pub(super) topics: Topics,
    pub(super) buckets: Buckets,
    pub(super) works: Works,
    pub(super) gates: Gates,
    pub(super) requests: Script<RequestFault>,
    pub(super) publishes: Script<PublishFault>,
    shards: Vec<Shard>,
    incarnations: u64,
    epochs: HashMap<ShardId, (EpochEntry, u64)>,
    revision: u64,
    namespaces: HashMap<(AppId, String), History>,
}

/// What becomes of a publish.
pub(super) enum PublishFate {
    /// Nothing is stored.
    Refused(PublishError),
    /// It is stored, and acknowledged once the gate is open.
    Stored {
        gate: Gate,
        /// Its copies are not sent out.
        crash: bool,
    },
}

/// The nodes' connections.
#[derive(Default)]
pub(super) struct Nodes(Vec<Node>);

struct Node {
    connected: bool,
    events: broadcast::Sender<LogEvent>,
    /// The registry's revision up to which this node has been told of changes.
    revision: u64,
}

// === impl Broker ===

impl Broker {
    pub(super) fn new(classes: Vec<ClassSpec>) -> Self {
        let mut specs: Vec<ShardSpec> = Vec::new();
        let mut shards = Vec::new();
        let mut placed = Vec::new();
        let mut next_id = 0_u16;
        for mut class in classes {
            class.shards = class.shards.max(1);
            placed.push((class.clone(), next_id));
            let limits = Limits {
                max_age_ms: millis(class.max_age),
                max_bytes: class.max_bytes,
                max_per_channel: class.max_per_channel,
                window_ms: millis(class.duplicate_window),
            };
            for index in 0..class.shards {
                specs.push(ShardSpec {
                    id: ShardId(next_id + index),
                    stream: format!("{}-{index}", class.name),
                    class: class.name.clone(),
                    max_age: class.max_age,
                    max_per_channel: class.max_per_channel,
                    max_bytes: class.max_bytes,
                });
                shards.push(Shard::new(limits, created(START_MS, 0), class.replicas));
            }
            next_id += class.shards;
        }
        Self {
            classes: placed,
            specs,
            state: Mutex::new(State {
                now_ms: START_MS,
                nodes: Nodes::default(),
                live: Live::default(),
                topics: Topics::default(),
                buckets: Buckets::default(),
                works: Works::default(),
                gates: Gates::default(),
                requests: Script::default(),
                publishes: Script::default(),
                shards,
                incarnations: 0,
                epochs: HashMap::new(),
                namespaces: HashMap::new(),
                revision: 0,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn shards(&self) -> &[ShardSpec] {
        &self.specs
    }

    /// An address is `class/shard/app/name`. Only the name may hold a `/`, and it comes last, so
    /// no two channels share an address. Ephemeral channels have `-` for class and shard.
    pub(super) fn route(&self, key: &ChannelKey, class: Option<&ClassName>) -> Option<Route> {
        let Some(name) = class else {
            let address = format!("-/-/{}/{}", key.app, key.name);
            return Some(Route::new(key.clone(), None, address));
        };
        let (class, first) = self.classes.iter().find(|(class, _)| class.name == *name)?;
        let index = hash(key) % class.shards;
        let address = format!("{name}/{index}/{}/{}", key.app, key.name);
        Some(Route::new(key.clone(), Some(ShardId(first + index)), address))
    }

    /// The address of a shard's anchor: no channel's, since no class has a `-` in its name.
    pub(super) fn anchor(&self, shard: ShardId) -> Result<String, PublishError> {
        let spec = self.specs.get(usize::from(shard.0));
        spec.map(|spec| format!("{}//anchor", spec.stream))
            .ok_or_else(|| PublishError::Refused("no such shard".into()))
    }
}

// === impl State ===

impl State {
    pub(super) fn add_node(&mut self) -> NodeIndex {
        self.nodes.0.push(Node {
            connected: true,
            events: broadcast::Sender::new(EVENT_CAPACITY),
            revision: self.revision,
        });
        self.nodes.0.len() - 1
    }

    /// The shard, and what time it is.
    pub(super) fn shard(&mut self, shard: ShardId) -> Result<(&mut Shard, i64), ReadError> {
        let found = self.shards.get_mut(usize::from(shard.0));
        let shard = found.ok_or_else(|| ReadError::Failed("no such shard".into()))?;
        Ok((shard, self.now_ms))
    }

    /// Lets a request pass, through a gate that may be closed, or makes it fail.
    pub(super) fn admit(
        &mut self,
        node: NodeIndex,
        request: Request,
        key: Option<&ChannelKey>,
    ) -> Result<Gate, ReadError> {
        if !self.nodes.connected(node) {
            return Err(ReadError::NoAnswer);
        }
        match self.requests.next(node, key, |fault| fault.request() == request) {
            None => Ok(Gate::open()),
            Some(RequestFault::Fail(_, error)) => Err(error),
            Some(RequestFault::Hold(_)) => Ok(self.gates.close(node)),
        }
    }

    /// Publishes, as [`crate::log::Log::publish`] says; the key is `None` for an anchor.
    pub(super) fn publish(
        &mut self,
        node: NodeIndex,
        shard: Option<ShardId>,
        address: &str,
        key: Option<&ChannelKey>,
        body: Body,
        dedup_id: Option<&str>,
    ) -> Result<AckFuture, PublishError> {
        let (gate, crash) = match self.fate_of_publish(node, key)? {
            PublishFate::Refused(error) => return Ok(Box::pin(std::future::ready(Err(error)))),
            PublishFate::Stored { gate, crash } => (gate, crash),
        };
        let (ack, copy) = self.append(shard, address, body, dedup_id)?;
        if let Some(copy) = copy
            && !crash
        {
            self.live.fan_out(&self.nodes, address, &copy);
        }
        Ok(Box::pin(async move {
            gate.opened().await.map(|()| ack).ok_or(PublishError::Unknown)
        }))
    }

    /// What becomes of a publish: whether it is stored, and what its acknowledgement waits for.
    pub(super) fn fate_of_publish(
        &mut self,
        node: NodeIndex,
        key: Option<&ChannelKey>,
    ) -> Result<PublishFate, PublishError> {
        if !self.nodes.connected(node) {
            return Err(PublishError::Unavailable("not connected"));
        }
        let fault = self.publishes.next(node, key, |_| true);
        let crash = matches!(fault, Some(PublishFault::Crash));
        let gate = match fault {
            Some(PublishFault::Refuse(error @ PublishError::Unavailable(_))) => return Err(error),
            Some(PublishFault::Refuse(error)) => return Ok(PublishFate::Refused(error)),
            Some(PublishFault::Hold) => self.gates.close(node),
            Some(_) => Gate::lost(),
            None => Gate::open(),
        };
        Ok(PublishFate::Stored { gate, crash })
    }

    /// Stores a message, and answers its copy if it is to be sent out.
    pub(super) fn append(
        &mut self,
        shard: Option<ShardId>,
        address: &str,
        body: Body,
        dedup_id: Option<&str>,
    ) -> Result<(Ack, Option<Copy>), PublishError> {
        let Some(shard) = shard else {
            let (seq, time_ms) = (0, self.now_ms);
            let stored = Stored { seq, time_ms, body };
            let duplicate = false;
            return Ok((Ack { seq, duplicate }, Some(Copy { stored, prev: 0 })));
        };
        let found = self.shard(shard);
        let (shard, now_ms) = found.map_err(|error| PublishError::Refused(error.to_string()))?;
        Ok(match shard.append(address, body, dedup_id, now_ms) {
            Appended::Stored(message) => (ack(message.seq, false), Some(message.copy())),
            Appended::Duplicate(seq) => (ack(seq, true), None),
        })
    }

    pub(super) fn recreate(&mut self, shard: ShardId) {
        self.now_ms += 1;
        self.incarnations += 1;
        let created = created(self.now_ms, self.incarnations);
        if let Ok((shard, _)) = self.shard(shard) {
            shard.recreate(created);
        }
    }

    pub(super) fn claim(&mut self, app: &AppId, namespaces: &[(String, History)]) -> Vec<String> {
        let key = |namespace: &String| (app.clone(), namespace.clone());
        let differs = |(namespace, history): &&(String, History)| {
            let claimed = self.namespaces.get(&key(namespace));
            claimed.is_some_and(|claimed| claimed != history)
        };
        let different: Vec<_> = namespaces.iter().filter(differs).collect();
        if different.is_empty() {
            let claims = namespaces.iter();
            self.namespaces
                .extend(claims.map(|(namespace, history)| (key(namespace), history.clone())));
        }
        different
            .into_iter()
            .map(|(namespace, _)| namespace.clone())
            .collect()
    }

    pub(super) fn epoch(&self, shard: ShardId) -> Option<(EpochEntry, u64)> {
        self.epochs.get(&shard).cloned()
    }

    pub(super) fn set_epoch(&mut self, shard: ShardId, entry: &EpochEntry, revision: u64) -> bool {
        let current = self.epochs.get(&shard).map_or(0, |(_, revision)| *revision);
        if current != revision {
            return false;
        }
        self.revision += 1;
        self.epochs.insert(shard, (entry.clone(), self.revision));
        for node in 0..self.nodes.0.len() {
            self.tell_epochs(node);
        }
        true
    }

    pub(super) fn disconnect(&mut self, node: NodeIndex) {
        let Some(connection) = self.nodes.0.get_mut(node).filter(|node| node.connected) else {
            return;
        };
        connection.connected = false;
        self.buckets.wake();
        self.works.wake();
        self.gates.lose(node);
        self.live.lose(node);
        self.nodes.emit(node, LogEvent::Disconnected);
    }

    pub(super) fn reconnect(&mut self, node: NodeIndex) {
        let Some(connection) = self.nodes.0.get_mut(node).filter(|node| !node.connected) else {
            return;
        };
        connection.connected = true;
        self.buckets.wake();
        self.works.wake();
        self.nodes.emit(node, LogEvent::Connected);
        self.tell_epochs(node);
    }

    /// Ends all faults but those that hold something.
    pub(super) fn heal(&mut self) {
        self.live.faults = Script::default();
        self.requests = Script::default();
        self.publishes = Script::default();
        self.topics.losses = Script::default();
        for shard in &mut self.shards {
            shard.heal();
        }
        for node in 0..self.nodes.0.len() {
            self.reconnect(node);
        }
    }

    /// Sends to all listeners of a topic.
    pub(super) fn tell(&mut self, node: NodeIndex, topic: &str, data: &Bytes, reply: Option<&str>) {
        if self.nodes.connected(node) {
            self.topics.tell(&self.nodes, node, topic, data, reply);
        }
    }

    pub(super) fn answer(&mut self, node: NodeIndex, reply: &str, data: Bytes) {
        if self.nodes.connected(node) {
            self.topics.answer(&self.nodes, node, reply, data);
        }
    }

    /// Tells a node what has changed in the registry; one that is away hears it when it is back.
    fn tell_epochs(&mut self, node: NodeIndex) {
        let Some(connection) = self.nodes.0.get_mut(node).filter(|node| node.connected) else {
            return;
        };
        let told = std::mem::replace(&mut connection.revision, self.revision);
        let mut news: Vec<_> = self.epochs.iter().filter(|(_, (_, at))| *at > told).collect();
        news.sort_by_key(|(_, (_, at))| *at);
        for (shard, (entry, _)) in news {
            self.nodes.emit(node, LogEvent::Epoch(*shard, entry.clone()));
        }
    }
}

// === impl Nodes ===

impl Nodes {
    pub(super) fn connected(&self, node: NodeIndex) -> bool {
        self.0.get(node).is_some_and(|node| node.connected)
    }

    pub(super) fn events(&self, node: NodeIndex) -> broadcast::Receiver<LogEvent> {
        match self.0.get(node) {
            Some(node) => node.events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    /// Tells a node; nobody may be listening.
    pub(super) fn emit(&self, node: NodeIndex, event: LogEvent) {
        if let Some(node) = self.0.get(node) {
            let _ = node.events.send(event);
        }
    }

    /// Tells all connected nodes.
    pub(super) fn emit_all(&self, event: &LogEvent) {
        for node in self.0.iter().filter(|node| node.connected) {
            let _ = node.events.send(event.clone());
        }
    }
}

fn ack(seq: u64, duplicate: bool) -> Ack {
    Ack { seq, duplicate }
}

/// Opaque to readers, and different for each incarnation.
fn created(now_ms: i64, incarnation: u64) -> String {
    format!("{now_ms}ms#{incarnation}")
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// FNV-1a over app and name, folded to 16 bits: the same on every run, so that a failing case of
/// a property test fails again.
fn hash(key: &ChannelKey) -> u16 {
    let bytes = key
        .app
        .as_str()
        .bytes()
        .chain([0])
        .chain(key.name.as_str().bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = hash.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}
