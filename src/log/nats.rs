//! The log on NATS JetStream: the only user of async-nats.
//!
//! ```text
//! format subject envelope headers stamp   the stored format, pure (docs/log-format.md)
//! start error                             from a configuration to a log that works
//! connect inbox api events                connections, requests, what they notice
//! link patience                           the connections of copies, publications and reads
//! streams registry                        what all nodes agree on
//! publish live read info remove anchor    the log itself
//! nodes seal                              messages between nodes, signed
//! bucket                                  small values that all nodes share
//! maintain                                what only an operator does
//! ```

mod anchor;
mod api;
mod bucket;
mod connect;
mod envelope;
mod error;
mod events;
mod format;
mod headers;
mod inbox;
mod info;
mod link;
mod live;
mod maintain;
mod nodes;
mod patience;
mod publish;
mod read;
mod registry;
mod remove;
mod seal;
mod stamp;
mod start;
mod streams;
mod subject;
mod work;

use std::{future::ready, sync::Arc, time::Duration};

use async_nats::{Client, connection::State};
use bytes::Bytes;
use tokio::{sync::broadcast, time::timeout};

use self::{
    api::{Api, ApiError},
    bucket::NatsBucket,
    events::Events,
    format::{Names, join},
    inbox::Inbox,
    info::StreamInfo,
    link::Link,
    live::LiveCopies,
    nodes::Peers,
    publish::Publisher,
    read::Reads,
    registry::Registry,
    work::NatsWorkStream,
};
pub use self::{
    error::{Difference, StartError},
    maintain::{new_epochs, resize},
};
use super::{
    Ack, AckFuture, BoxFuture, Bucket, BucketName, Copies, EpochEntry, LastOf, Log, LogEvent, NodeMessage,
    NodeMessages, Page, PublishError, ReadError, RefusedMessages, Route, ShardId, ShardInfo, ShardSpec,
    Stored, StreamName, Sweep, WorkStream,
};
use crate::{
    model::{AppId, ChannelKey, ClassName, History, NodeId, Offset, Record},
    task::Tasks,
};

/// What JetStream's file store writes for each message with headers besides subject, headers and body:
/// four lengths, sequence, time stamp and checksum.
const STORE_OVERHEAD_BYTES: usize = 34;

/// The log on a NATS server or cluster.
#[derive(Debug)]
pub struct NatsLog {
    names: Names,
    shards: Vec<ShardSpec>,
    /// A handful: searched, not hashed.
    classes: Vec<Class>,
    control: Client,
    watches: Client,
    link: Link,
    api: Api,
    registry: Registry,
    peers: Arc<Peers>,
    tasks: Tasks,
    publisher: Arc<Publisher>,
    /// Of the deployment's own streams: what one app has queued must not stand in the way of what others publish,
    /// nor take their places in flight.
    work_publisher: Arc<Publisher>,
    inbox: Arc<Inbox>,
    reads: Reads,
    events: Events,
    request_timeout: Duration,
}

/// A retention class and its place among the shards.
#[derive(Debug)]
struct Class {
    name: ClassName,
    first: u16,
    shards: u16,
}

impl NatsLog {
    /// Publications on their way, without an acknowledgement yet.
    pub fn in_flight(&self) -> usize {
        self.publisher.in_flight() + self.work_publisher.in_flight()
    }

    /// The channel whose messages stand at a durable route's address; `None` at an anchor's, and at
    /// any other that no route has.
    pub fn channel_at(address: &str) -> Option<ChannelKey> {
        let (_class, tokens) = address.split_once('.')?;
        let (_shard, tokens) = tokens.split_once('.')?;
        subject::channel(tokens)
    }

    /// Sends what is buffered, and asks nothing more: the log is of no use afterwards. Copies and
    /// acknowledgements may still come until the node's tasks are stopped, which ends the links.
    pub async fn close(&self) {
        self.flush().await;
        // It fails if the connection is closed already.
        for client in [&self.control, &self.watches] {
            let _ = timeout(self.request_timeout, client.drain()).await;
        }
    }

    /// When a shard's anchor was written, by the leader.
    async fn anchor_time(&self, shard: ShardId) -> Result<Option<i64>, ReadError> {
        let spec = self.spec(shard)?;
        self.reads
            .last_time(&spec.stream, &self.anchor_subject(spec))
            .await
    }

    fn anchor_subject(&self, spec: &ShardSpec) -> String {
        let class = self.classes.iter().find(|class| class.name == spec.class);
        let shard = spec.id.0 - class.map_or(0, |class| class.first);
        join(&self.names.history, &subject::anchor(spec.class.as_str(), shard))
    }

    fn spec(&self, shard: ShardId) -> Result<&ShardSpec, ReadError> {
        let unknown = || ReadError::Failed("there is no such shard".to_owned());
        self.shards.get(usize::from(shard.0)).ok_or_else(unknown)
    }

    /// The shard of a durable route.
    fn spec_of(&self, route: &Route) -> Result<&ShardSpec, ReadError> {
        let ephemeral = || ReadError::Failed("an ephemeral channel has no history".to_owned());
        self.spec(route.shard().ok_or_else(ephemeral)?)
    }

    fn stored_subject(&self, route: &Route) -> String {
        join(&self.names.history, route.address())
    }

    async fn subscribe_to(&self, subject: String) -> Result<async_nats::Subscriber, ReadError> {
        timeout(self.request_timeout, self.control.subscribe(subject))
            .await
            .map_err(|_| ReadError::NoAnswer)?
            .map_err(|error| ReadError::Failed(error.to_string()))
    }
}

impl Log for NatsLog {
    fn shards(&self) -> &[ShardSpec] {
        &self.shards
    }

    fn route(&self, key: &ChannelKey, class: Option<&ClassName>) -> Option<Route> {
        let Some(class) = class else {
            return Some(Route::new(key.clone(), None, subject::ephemeral(key)));
        };
        let class = self.classes.iter().find(|known| known.name == *class)?;
        let (shard, address) = subject::durable(class.name.as_str(), class.shards, key);
        Some(Route::new(
            key.clone(),
            Some(ShardId(class.first + shard)),
            address,
        ))
    }

    fn stored_bytes(&self, route: &Route, record: &Record, dedup_id_bytes: Option<usize>) -> u64 {
        let subject = self.names.history.len() + 1 + route.address().len();
        let headers = envelope::headers_bytes(record, dedup_id_bytes);
        (STORE_OVERHEAD_BYTES + subject + headers + record.data.len()) as u64
    }

    fn publish(
        &self,
        route: &Route,
        record: &Record,
        dedup_id: Option<&str>,
    ) -> Result<AckFuture, PublishError> {
        let mut headers = envelope::publication(record);
        if route.shard().is_none() {
            let subject = join(&self.names.ephemeral, route.address());
            self.publisher.send(&subject, &headers, &record.data)?;
            return Ok(Box::pin(ready(Ok(Ack {
                seq: 0,
                duplicate: false,
            }))));
        }
        if let Some(id) = dedup_id {
            let id = id.parse::<async_nats::HeaderValue>();
            let id = id.map_err(|_| PublishError::Refused("the id holds a line break".to_owned()))?;
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        }
        let subject = self.stored_subject(route);
        Ok(Box::pin(self.publisher.publish(
            &subject,
            &headers,
            &record.data,
        )?))
    }

    fn subscribe<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Box<dyn Copies>, ReadError>> {
        Box::pin(async move {
            // One connection carries the subscription and `info`, so it comes first on the wire.
            let inflow = timeout(self.request_timeout, self.link.subscribe(route))
                .await
                .map_err(|_| ReadError::NoAnswer)?;
            let stored = route.shard().is_some();
            if !stored {
                // Nothing will be asked that the server would answer behind the subscription, and
                // what it misses is lost for good: so it must be there.
                let back = self.link.round_trip(self.request_timeout).await;
                back.map_err(ApiError::from)?;
            }
            Ok(Box::new(LiveCopies::new(inflow, stored)) as Box<dyn Copies>)
        })
    }

    fn info(&self, shard: ShardId) -> BoxFuture<'_, Result<ShardInfo, ReadError>> {
        Box::pin(async move {
            let subject = format!("$JS.API.STREAM.INFO.{}", self.spec(shard)?.stream);
            let answer = self.link.request(&subject, b"{}").await;
            let answer = answer.map_err(ApiError::from)?;
            api::read::<StreamInfo>(&answer.payload())?.accept()
        })
    }

    fn read<'a>(
        &'a self,
        route: &'a Route,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> BoxFuture<'a, Result<Page, ReadError>> {
        Box::pin(async move {
            let stream = &self.spec_of(route)?.stream;
            let subject = self.stored_subject(route);
            self.reads
                .page(stream, &subject, from, max_messages, max_bytes)
                .await
        })
    }

    fn read_leader<'a>(
        &'a self,
        route: &'a Route,
        from: Offset,
    ) -> BoxFuture<'a, Result<Option<Stored>, ReadError>> {
        Box::pin(async move {
            let stream = &self.spec_of(route)?.stream;
            self.reads
                .leader_next(stream, &self.stored_subject(route), from)
                .await
        })
    }

    fn last_id<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Option<(String, i64)>, ReadError>> {
        Box::pin(async move {
            let stream = &self.spec_of(route)?.stream;
            self.reads.last_id(stream, &self.stored_subject(route)).await
        })
    }

    fn time_at(&self, shard: ShardId, seq: Offset) -> BoxFuture<'_, Result<Option<i64>, ReadError>> {
        Box::pin(async move { self.reads.time_at(&self.spec(shard)?.stream, seq).await })
    }

    fn first_since(&self, shard: ShardId, time_ms: i64) -> BoxFuture<'_, Result<Option<Offset>, ReadError>> {
        Box::pin(async move { self.reads.first_since(&self.spec(shard)?.stream, time_ms).await })
    }

    fn last_of<'a>(
        &'a self,
        shard: ShardId,
        routes: &'a [Route],
    ) -> BoxFuture<'a, Result<LastOf, ReadError>> {
        Box::pin(async move {
            let spec = self.spec(shard)?;
            let subjects: Vec<_> = routes.iter().map(|route| self.stored_subject(route)).collect();
            self.reads
                .last_of(&spec.stream, &subjects, &self.anchor_subject(spec))
                .await
        })
    }

    fn sweep(
        &self,
        shard: ShardId,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> BoxFuture<'_, Result<Sweep, ReadError>> {
        Box::pin(async move {
            let stream = &self.spec(shard)?.stream;
            self.reads
                .sweep(stream, &self.names.history, from, max_messages, max_bytes)
                .await
        })
    }

    fn remove<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Offset, PublishError>> {
        Box::pin(async move {
            let spec = self
                .spec_of(route)
                .map_err(|error| PublishError::Refused(error.to_string()))?;
            remove::remove(
                &self.publisher,
                &self.api,
                &spec.stream,
                self.stored_subject(route),
            )
            .await
        })
    }

    fn write_anchor(&self, shard: ShardId) -> AckFuture {
        let written = self
            .spec(shard)
            .map_err(|error| PublishError::Refused(error.to_string()))
            .and_then(|spec| {
                let subject = self.anchor_subject(spec);
                self.publisher.publish(&subject, &envelope::anchor(), b"")
            });
        match written {
            Ok(acknowledged) => Box::pin(acknowledged),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Option<(EpochEntry, u64)>, ReadError>> {
        Box::pin(async move { self.registry.epoch(&self.spec(shard)?.stream).await })
    }

    fn set_epoch<'a>(
        &'a self,
        shard: ShardId,
        entry: &'a EpochEntry,
        revision: u64,
    ) -> BoxFuture<'a, Result<bool, ReadError>> {
        Box::pin(async move {
            self.registry
                .set_epoch(&self.spec(shard)?.stream, entry, revision)
                .await
        })
    }

    fn claim<'a>(
        &'a self,
        app: &'a AppId,
        namespaces: &'a [(String, History)],
    ) -> BoxFuture<'a, Result<Vec<String>, ReadError>> {
        Box::pin(async move { Ok(self.registry.claim(app, namespaces).await?) })
    }

    fn events(&self) -> broadcast::Receiver<LogEvent> {
        self.events.subscribe()
    }

    fn connected(&self) -> bool {
        self.link.is_connected()
            && self.publisher.is_connected()
            && self.work_publisher.is_connected()
            && self.reads.is_connected()
            && self.control.connection_state() == State::Connected
    }

    fn node(&self) -> NodeId {
        self.peers.node()
    }

    fn bucket(&self, name: BucketName) -> Arc<dyn Bucket> {
        let name = self.names.shared_bucket(name);
        Arc::new(NatsBucket {
            values: Registry::new(self.api.clone(), &name),
            name,
            client: self.watches.clone(),
            tasks: self.tasks.clone(),
        })
    }

    fn work_stream(&self, name: StreamName) -> Arc<dyn WorkStream> {
        Arc::new(NatsWorkStream {
            stream: self.names.work_stream(name),
            root: self.names.work_root(name),
            publisher: self.work_publisher.clone(),
            reads: self.reads.clone(),
            client: self.control.clone(),
            api: self.api.clone(),
            inbox: self.inbox.clone(),
            patience: self.request_timeout,
        })
    }

    fn refused_messages(&self) -> RefusedMessages {
        self.peers.refused()
    }

    fn tell(&self, topic: &str, data: Bytes) {
        self.peers.send(self.names.node(topic), &data);
    }

    fn listen<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<Box<dyn NodeMessages>, ReadError>> {
        Box::pin(async move {
            let subscriber = self.subscribe_to(self.names.node(topic)).await?;
            // Who listens can be asked: the subscription must be at the server.
            self.api.round_trip().await?;
            Ok(Box::new(self.peers.topic(subscriber)) as Box<dyn NodeMessages>)
        })
    }

    fn ask<'a>(
        &'a self,
        topic: &'a str,
        data: Bytes,
        wait: Duration,
        enough: &'a (dyn Fn(&[NodeMessage]) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Vec<NodeMessage>> {
        Box::pin(self.peers.ask(self.names.node(topic), data, wait, enough))
    }

    fn answer(&self, reply: &str, data: Bytes) {
        self.peers.send(reply.to_owned(), &data);
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Without a connection there is nothing to wait for.
            let _ = timeout(self.request_timeout, self.control.flush()).await;
            self.publisher.flush(self.request_timeout).await;
            self.work_publisher.flush(self.request_timeout).await;
        })
    }
}
