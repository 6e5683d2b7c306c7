//! The log in memory: for unit tests, and for everything that goes wrong between a node and NATS.
//!
//! [`MemoryLog`] gives the answers JetStream gives (`store`, `shard`: pure models) and passes the
//! same conformance suite. It answers at once, unless a test has asked for trouble through
//! [`Faults`]. Several nodes can share one log ([`MemoryLog::cluster`]), each with a connection of
//! its own. Time stands still until a test moves it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::broadcast;

use super::{
    AckFuture, Body, BoxFuture, Bucket, BucketName, Copies, EpochEntry, LastOf, Log, LogEvent, NodeMessage,
    NodeMessages, Page, PublishError, ReadError, RefusedMessages, Route, ShardId, ShardInfo, ShardSpec,
    Stored, StreamName, Sweep, WorkStream,
};
use crate::model::{AppId, ChannelKey, ClassName, History, Kind, NodeId, Offset, Record};

mod broker;
mod buckets;
mod faults;
mod live;
mod shard;
mod store;
mod topics;
mod work;

#[cfg(test)]
mod tests;

pub use broker::Snapshot;
use broker::{Broker, State};
use buckets::MemoryBucket;
pub use faults::{Faults, NodeIndex, Request, Target};
use work::MemoryWorkStream;

/// A retention class of a log in memory.
#[derive(Clone, Debug)]
pub struct ClassSpec {
    /// Its name.
    pub name: ClassName,
    /// How many shards it has; at least one, and 65,535 in all classes.
    pub shards: u16,
    /// How long a message is kept.
    pub max_age: Duration,
    /// How many messages of one channel are kept.
    pub max_per_channel: Option<u64>,
    /// How many bytes a shard keeps.
    pub max_bytes: u64,
    /// How long a dedup id is remembered.
    pub duplicate_window: Duration,
    /// How many replicas a shard has, its leader (replica 0) included.
    pub replicas: usize,
}

impl ClassSpec {
    /// A class of one replica that keeps everything for a day.
    pub fn new(name: ClassName, shards: u16) -> Self {
        Self {
            name,
            shards,
            max_age: Duration::from_hours(24),
            max_per_channel: None,
            max_bytes: u64::MAX,
            duplicate_window: Duration::from_mins(2),
            replicas: 1,
        }
    }
}

/// One log that several nodes of a test share. Cheap to clone.
#[derive(Clone)]
pub struct MemoryCluster {
    broker: Arc<Broker>,
}

impl MemoryCluster {
    /// A new node, connected.
    pub fn node(&self) -> MemoryLog {
        MemoryLog {
            node: self.broker.state().add_node(),
            broker: self.broker.clone(),
        }
    }

    /// What can be made to go wrong.
    pub fn faults(&self) -> Faults {
        Faults::new(self.broker.clone())
    }
}

/// The name of a node: its index, which begins at 0.
fn id_of(node: NodeIndex) -> NodeId {
    NodeId::new(node as u64 + 1)
}

/// A node's view of a log in memory.
pub struct MemoryLog {
    broker: Arc<Broker>,
    node: NodeIndex,
}

impl MemoryLog {
    /// A log of its own with one node.
    pub fn new(classes: Vec<ClassSpec>) -> Self {
        Self::cluster(classes).node()
    }

    /// A log for several nodes.
    pub fn cluster(classes: Vec<ClassSpec>) -> MemoryCluster {
        MemoryCluster {
            broker: Arc::new(Broker::new(classes)),
        }
    }

    /// What can be made to go wrong.
    pub fn faults(&self) -> Faults {
        Faults::new(self.broker.clone())
    }

    /// Which node this is.
    pub fn node_index(&self) -> NodeIndex {
        self.node
    }

    /// Asks when first polled: finds the answer then, and gives it when no fault holds it back.
    fn request<'a, T: Send + 'a>(
        &'a self,
        request: Request,
        key: Option<&'a ChannelKey>,
        answer: impl FnOnce(&mut State) -> Result<T, ReadError> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, ReadError>> {
        Box::pin(async move {
            let (gate, answer) = {
                let mut state = self.broker.state();
                let gate = state.admit(self.node, request, key)?;
                (gate, answer(&mut state))
            };
            gate.opened().await.ok_or(ReadError::NoAnswer)?;
            answer
        })
    }
}

/// The shard of a route, where a request needs one.
fn durable(route: &Route) -> Result<ShardId, ReadError> {
    route
        .shard()
        .ok_or_else(|| ReadError::Failed("an ephemeral channel has no history".into()))
}

impl Log for MemoryLog {
    fn shards(&self) -> &[ShardSpec] {
        self.broker.shards()
    }

    fn route(&self, key: &ChannelKey, class: Option<&ClassName>) -> Option<Route> {
        self.broker.route(key, class)
    }

    fn stored_bytes(&self, route: &Route, record: &Record, dedup_id_bytes: Option<usize>) -> u64 {
        store::size_of_message(route.address(), Some(record), dedup_id_bytes)
    }

    fn publish(
        &self,
        route: &Route,
        record: &Record,
        dedup_id: Option<&str>,
    ) -> Result<AckFuture, PublishError> {
        let body = Body::Publication(record.clone());
        let mut state = self.broker.state();
        state.publish(
            self.node,
            route.shard(),
            route.address(),
            Some(route.key()),
            body,
            dedup_id,
        )
    }

    fn subscribe<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Box<dyn Copies>, ReadError>> {
        self.request(Request::Subscribe, Some(route.key()), move |state| {
            let subscription = state.live.subscribe(&self.broker, self.node, route);
            Ok(Box::new(subscription) as Box<dyn Copies>)
        })
    }

    fn info(&self, shard: ShardId) -> BoxFuture<'_, Result<ShardInfo, ReadError>> {
        self.request(Request::Info, None, move |state| {
            let (shard, now_ms) = state.shard(shard)?;
            Ok(shard.info(now_ms))
        })
    }

    fn read<'a>(
        &'a self,
        route: &'a Route,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> BoxFuture<'a, Result<Page, ReadError>> {
        self.request(Request::Read, Some(route.key()), move |state| {
            let (shard, now_ms) = state.shard(durable(route)?)?;
            Ok(shard.read(route.address(), from, max_messages, max_bytes, now_ms))
        })
    }

    fn read_leader<'a>(
        &'a self,
        route: &'a Route,
        from: Offset,
    ) -> BoxFuture<'a, Result<Option<Stored>, ReadError>> {
        self.request(Request::ReadLeader, Some(route.key()), move |state| {
            let (shard, now_ms) = state.shard(durable(route)?)?;
            let next = shard.leader(now_ms).next_of(route.address(), from);
            Ok(next.map(store::Message::stored))
        })
    }

    fn last_id<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Option<(String, i64)>, ReadError>> {
        self.request(Request::ReadLeader, Some(route.key()), move |state| {
            let (shard, now_ms) = state.shard(durable(route)?)?;
            let leader = shard.leader(now_ms);
            let last = leader.last_of(route.address()).and_then(|seq| leader.at(seq));
            Ok(last.and_then(|message| Some((message.dedup_id.as_deref()?.to_owned(), message.time_ms))))
        })
    }

    fn time_at(&self, shard: ShardId, seq: Offset) -> BoxFuture<'_, Result<Option<i64>, ReadError>> {
        self.request(Request::TimeAt, None, move |state| {
            let (shard, now_ms) = state.shard(shard)?;
            Ok(shard.leader(now_ms).at(seq).map(|message| message.time_ms))
        })
    }

    fn first_since(&self, shard: ShardId, time_ms: i64) -> BoxFuture<'_, Result<Option<Offset>, ReadError>> {
        self.request(Request::TimeAt, None, move |state| {
            let (shard, now_ms) = state.shard(shard)?;
            Ok(shard.leader(now_ms).first_since(time_ms))
        })
    }

    fn last_of<'a>(
        &'a self,
        shard: ShardId,
        routes: &'a [Route],
    ) -> BoxFuture<'a, Result<LastOf, ReadError>> {
        self.request(Request::LastOf, None, move |state| {
            let (shard, now_ms) = state.shard(shard)?;
            let store = shard.any(now_ms);
            Ok(LastOf {
                up_to: store.last_seq(),
                last: routes
                    .iter()
                    .map(|route| store.last_of(route.address()))
                    .collect(),
            })
        })
    }

    fn sweep(
        &self,
        shard: ShardId,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> BoxFuture<'_, Result<Sweep, ReadError>> {
        self.request(Request::Sweep, None, move |state| {
            let (shard, now_ms) = state.shard(shard)?;
            Ok(shard.sweep(from, max_messages, max_bytes, now_ms))
        })
    }

    fn remove<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Offset, PublishError>> {
        Box::pin(async move {
            let (Some(shard), address) = (route.shard(), route.address()) else {
                return Err(PublishError::Refused(
                    "an ephemeral channel has no history".into(),
                ));
            };
            let tombstone = self.broker.state().publish(
                self.node,
                Some(shard),
                address,
                Some(route.key()),
                Body::Tombstone,
                None,
            )?;
            let Ok(ack) = tombstone.await else {
                return Err(PublishError::Unknown);
            };
            let mut state = self.broker.state();
            let (shard, _) = state.shard(shard).map_err(|_| PublishError::Unknown)?;
            shard.purge(address, ack.seq);
            Ok(ack.seq)
        })
    }

    fn write_anchor(&self, shard: ShardId) -> AckFuture {
        let published = self.broker.anchor(shard).and_then(|address| {
            // A publication without content, as with NATS: its address is no channel's.
            let body = Body::Publication(Record {
                kind: Kind::Bytes,
                data: Bytes::new(),
                info: None,
                tags: Vec::new(),
            });
            let mut state = self.broker.state();
            state.publish(self.node, Some(shard), &address, None, body, None)
        });
        published.unwrap_or_else(|error| Box::pin(std::future::ready(Err(error))))
    }

    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Option<(EpochEntry, u64)>, ReadError>> {
        self.request(Request::Epoch, None, move |state| Ok(state.epoch(shard)))
    }

    fn set_epoch<'a>(
        &'a self,
        shard: ShardId,
        entry: &'a EpochEntry,
        revision: u64,
    ) -> BoxFuture<'a, Result<bool, ReadError>> {
        self.request(Request::SetEpoch, None, move |state| {
            Ok(state.set_epoch(shard, entry, revision))
        })
    }

    fn claim<'a>(
        &'a self,
        app: &'a AppId,
        namespaces: &'a [(String, History)],
    ) -> BoxFuture<'a, Result<Vec<String>, ReadError>> {
        self.request(Request::SetEpoch, None, move |state| {
            Ok(state.claim(app, namespaces))
        })
    }

    fn events(&self) -> broadcast::Receiver<LogEvent> {
        self.broker.state().nodes.events(self.node)
    }

    fn connected(&self) -> bool {
        self.broker.state().nodes.connected(self.node)
    }

    fn node(&self) -> NodeId {
        id_of(self.node)
    }

    fn bucket(&self, name: BucketName) -> Arc<dyn Bucket> {
        Arc::new(MemoryBucket {
            broker: self.broker.clone(),
            node: self.node,
            name,
        })
    }

    fn work_stream(&self, name: StreamName) -> Arc<dyn WorkStream> {
        Arc::new(MemoryWorkStream {
            broker: self.broker.clone(),
            node: self.node,
            name,
        })
    }

    fn refused_messages(&self) -> RefusedMessages {
        // Nobody but nodes can send here.
        RefusedMessages::default()
    }

    fn tell(&self, topic: &str, data: Bytes) {
        self.broker.state().tell(self.node, topic, &data, None);
    }

    fn listen<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<Box<dyn NodeMessages>, ReadError>> {
        self.request(Request::Listen, None, move |state| {
            let listener = state.topics.listen(&self.broker, self.node, topic);
            Ok(Box::new(listener) as Box<dyn NodeMessages>)
        })
    }

    fn ask<'a>(
        &'a self,
        topic: &'a str,
        data: Bytes,
        wait: Duration,
        enough: &'a (dyn Fn(&[NodeMessage]) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Vec<NodeMessage>> {
        Box::pin(async move {
            let mut inbox = {
                let mut state = self.broker.state();
                let inbox = state.topics.open_inbox(&self.broker, self.node);
                state.tell(self.node, topic, &data, Some(inbox.address()));
                inbox
            };
            let mut answers = Vec::new();
            let collecting = async {
                while let Some(answer) = inbox.next().await {
                    answers.push(answer);
                    if enough(&answers) {
                        break;
                    }
                }
            };
            // When the time is over, what has come is the answer.
            let _ = tokio::time::timeout(wait, collecting).await;
            answers
        })
    }

    fn answer(&self, reply: &str, data: Bytes) {
        self.broker.state().answer(self.node, reply, data);
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn now_ms(&self) -> i64 {
        self.broker.state().now_ms
    }
}
