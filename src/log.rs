//! The log: where publications are stored, and what the tails read.
//!
//! [`Log`] is the seam between the decisions (`channel/`, pure) and the broker. `nats/` is the
//! product's implementation and the only user of async-nats; `memory/` serves unit tests and can
//! misbehave on purpose. One conformance suite runs over both.
//!
//! The trait offers *answers with known strength*, never conclusions: which answer is the leader's,
//! which may be stale, which may repeat. What follows from them is decided in `channel/`
//! (DESIGN.md section 3, rules L1-L16).

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use crate::model::{AppId, ChannelKey, ClassName, Epoch, History, NodeId, Offset, Publication, Record};

pub mod memory;
pub mod nats;
mod work;

pub use self::work::{ConsumeOptions, Consumer, Counts, StreamName, Waiting, WorkMessage, WorkStream};

/// A boxed future: the log is used as `Arc<dyn Log>`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A shard by its index in [`Log::shards`]: the same on every node of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// What never changes about a shard while the process runs.
#[derive(Clone, Debug)]
pub struct ShardSpec {
    /// Its index.
    pub id: ShardId,
    /// The stream's name, for metrics and messages.
    pub stream: String,
    /// Its retention class.
    pub class: ClassName,
    /// How long a publication is kept.
    pub max_age: Duration,
    /// How many publications of one channel are kept, if the class limits that.
    pub max_per_channel: Option<u64>,
    /// How many bytes it may store before the oldest go early.
    pub max_bytes: u64,
}

/// Where a channel lives, found once by [`Log::route`] and then kept with it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Route(Arc<RouteParts>);

#[derive(PartialEq, Eq, Hash)]
struct RouteParts {
    key: ChannelKey,
    shard: Option<ShardId>,
    address: String,
}

impl Route {
    /// For implementations of [`Log`] only. `address` is their own encoding of the channel.
    pub fn new(key: ChannelKey, shard: Option<ShardId>, address: String) -> Self {
        Self(Arc::new(RouteParts { key, shard, address }))
    }

    /// The channel.
    pub fn key(&self) -> &ChannelKey {
        &self.0.key
    }

    /// Its shard; `None` if the channel is ephemeral.
    pub fn shard(&self) -> Option<ShardId> {
        self.0.shard
    }

    /// The implementation's own encoding of the channel (with NATS: the part of the subject behind
    /// `h.` and `l.`). Unique per channel and class.
    pub fn address(&self) -> &str {
        &self.0.address
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({})", self.0.address)
    }
}

/// One message as a shard stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence in the shard.
    pub seq: Offset,
    /// When it was stored, ms since 1970, by the leader's clock.
    pub time_ms: i64,
    /// What it is.
    pub body: Body,
}

/// What a stored message is to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A publication.
    Publication(Record),
    /// The channel's history below this message was removed (L15).
    Tombstone,
    /// Not to be understood: `malformed` ones are skipped and counted, others (a version newer
    /// than this program) are a gap (L3).
    Unreadable {
        /// True if no program could read it.
        malformed: bool,
    },
}

impl Stored {
    /// Whether it is a publication.
    pub fn is_publication(&self) -> bool {
        matches!(self.body, Body::Publication(_))
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let data = match &self.body {
            Body::Publication(record) => record.data.len(),
            Body::Tombstone | Body::Unreadable { .. } => 0,
        };
        size_of::<Self>() + data
    }

    /// The publication, if it is one.
    pub fn into_publication(self) -> Option<Publication> {
        match self.body {
            Body::Publication(record) => Some(Publication {
                offset: self.seq,
                time_ms: self.time_ms,
                record,
            }),
            _ => None,
        }
    }
}

/// A live copy of a stored message: at most once, may repeat (L7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The message.
    pub stored: Stored,
    /// The sequence that was the last *still stored* of this channel when it was stored; 0 = none.
    pub prev: Offset,
}

/// What a publish is acknowledged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The sequence: of the first publish with this id, if `duplicate`.
    pub seq: Offset,
    /// A publish with the same id was stored before; nothing was stored or sent out now.
    pub duplicate: bool,
}

/// Resolves when the shard's leader has answered, or the time for it is over.
pub type AckFuture = BoxFuture<'static, Result<Ack, PublishError>>;

/// Why a publish has no acknowledgement.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Nothing was sent: no connection, too many in flight. Safe to try again.
    #[error("the log takes no publications now: {0}")]
    Unavailable(&'static str),
    /// The log refused it; nothing is stored. Trying again is useless.
    #[error("the log refused the publication: {0}")]
    Refused(String),
    /// The stream holds as many bytes as it may, and keeps them; nothing is stored.
    #[error("the stream is full")]
    Full,
    /// Sent, but no answer: it may be stored or not (L14).
    #[error("the outcome of the publication is unknown")]
    Unknown,
}

/// Why a read, a check or a registry call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// No answer in time, or no connection. Try again.
    #[error("the log did not answer")]
    NoAnswer,
    /// The answer cannot be used now (no leader, busy, an old replica). Try again.
    #[error("the log cannot answer now: {0}")]
    NotNow(String),
    /// An answer that says something is wrong for good.
    #[error("the log answered with an error: {0}")]
    Failed(String),
}

/// The leader's view of a shard (L5: never a leaderless replica's).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// When the stream was created, exactly as INFO gives it.
    pub created: String,
    /// The first sequence still stored (last + 1 if empty).
    pub first_seq: Offset,
    /// The last sequence ever stored.
    pub last_seq: Offset,
    /// The time stamp of the first stored message, ms since 1970; 0 if empty.
    pub first_time_ms: i64,
    /// The time stamp of the last stored message, ms since 1970; 0 if there never was one.
    pub last_time_ms: i64,
    /// Bytes stored.
    pub bytes: u64,
}

/// One read of a channel, ascending, from *any* replica: its end proves nothing (L10).
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages found, at or after the sequence asked for.
    pub messages: Vec<Stored>,
    /// How many more of this channel the replica has behind the last one returned
    /// (`Nats-Num-Pending`).
    pub pending: u64,
}

/// One read of everything in a shard, ascending, from any replica.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The messages with the address of their channel ([`Route::address`]).
    pub messages: Vec<(String, Stored)>,
    /// How many more the replica has behind the last one returned.
    pub pending: u64,
}

/// The answer to "what is the last message of each of these channels".
#[derive(Clone, Debug, Default)]
pub struct LastOf {
    /// The replica had everything up to this sequence.
    pub up_to: Offset,
    /// For each channel asked, in order: its last stored sequence, or `None`.
    pub last: Vec<Option<Offset>>,
}

/// What the deployment knows about a shard's incarnation: one KV entry per stream (L4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The stream's `created` that the token belongs to.
    pub created: String,
    /// The random token clients see.
    pub token: Epoch,
    /// A sequence known to have been stored in this incarnation.
    pub mark_seq: Offset,
    /// The time stamp of the message at the mark, ms since 1970 (0 if `mark_seq` is 0).
    pub mark_time_ms: i64,
}

/// Something the log's connection noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// Connected, the first time or again: live copies may have been lost before.
    Connected,
    /// Disconnected: no live copies come.
    Disconnected,
    /// Copies were dropped because a subscription's buffer was full.
    SlowConsumer,
    /// A shard has a new leader.
    LeaderElected(ShardId),
    /// The epoch entry of a shard changed, here or on another node.
    Epoch(ShardId, EpochEntry),
}

/// A message of a node.
#[derive(Clone, Debug)]
pub struct NodeMessage {
    /// Who sent it. Proven: nobody but a node of the deployment can have.
    pub from: NodeId,
    /// The payload.
    pub data: Bytes,
    /// Where an answer goes, if one is wanted: for [`Log::answer`].
    pub reply: Option<String>,
}

/// A live subscription. Dropping it ends it.
pub trait Copies: Send {
    /// The next copy, `None` when the subscription has ended. A copy that was dropped on the way
    /// leaves no trace here: the next one's `prev` tells.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Copy>>;
}

/// Messages of other nodes on one topic. Dropping it ends it.
pub trait NodeMessages: Send {
    /// The next message, `None` when the subscription has ended.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<NodeMessage>>;
}

/// Why a message that should be another node's was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It has not the form of one.
    Malformed,
    /// Its signature is not that of this deployment.
    Forged,
    /// It has been heard before, or later ones have.
    Repeated,
}

/// How many messages were not accepted, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedMessages {
    /// [`Refused::Malformed`].
    pub malformed: u64,
    /// [`Refused::Forged`].
    pub forged: u64,
    /// [`Refused::Repeated`].
    pub repeated: u64,
}

/// The small buckets that nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BucketName {
    /// The leases of nodes.
    Nodes,
    /// Tokens, users and keys that are no longer good.
    Revocations,
    /// Apps of the control plane.
    Apps,
    /// What apps have published in a month.
    Months,
    /// The bytes of apps' histories.
    History,
}

impl BucketName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Nodes,
        Self::Revocations,
        Self::Apps,
        Self::Months,
        Self::History,
    ];

    /// As it stands in the names of streams.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Revocations => "revocations",
            Self::Apps => "apps",
            Self::Months => "months",
            Self::History => "history",
        }
    }
}

/// A value of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEntry {
    /// The value, JSON; `None` = removed, or never written.
    pub value: Option<Bytes>,
    /// What a write must name that is to follow this one; 0 = never written.
    pub revision: u64,
}

/// What a watch of a bucket tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All entries follow, those that have been told before included: the watch has begun, or begun
    /// again after a cut.
    Begin,
    /// A key has this value, or (`None`) was removed.
    Entry {
        /// The key.
        key: String,
        /// What it holds.
        entry: BucketEntry,
    },
    /// All entries have been told: a key that was not among them since [`Change::Begin`] holds nothing.
    Current,
}

/// What changes in a bucket. Dropping it ends the watch.
pub trait Changes: Send {
    /// The next change; `None` = the node is stopping.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>>;
}

/// Few, small values that all nodes see, replicated and on disk. Keys are of `A-Z a-z 0-9 - _ .`, and
/// values are JSON.
pub trait Bucket: Send + Sync {
    /// What a key holds, by the leader.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<BucketEntry, ReadError>>;

    /// Writes `value` if `revision` is still the key's last one; its new revision, or `None` if it was
    /// not. With a `ttl` it goes by itself after that time.
    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Option<u64>, ReadError>>;

    /// Removes the key's value if `revision` is still its last one; false if it was not.
    fn remove<'a>(&'a self, key: &'a str, revision: u64) -> BoxFuture<'a, Result<bool, ReadError>>;

    /// Watches all keys. A cut of the connection is made up for by telling everything again.
    fn watch(&self) -> Box<dyn Changes>;
}

/// The broker as the rest of the program sees it. All methods may be called from many tasks.
pub trait Log: Send + Sync + 'static {
    /// All shards of all classes; `shards()[i].id == ShardId(i)`.
    fn shards(&self) -> &[ShardSpec];

    /// Where `key` lives in `class`; `None` for the class means ephemeral. `None` is returned if
    /// there is no such class.
    fn route(&self, key: &ChannelKey, class: Option<&ClassName>) -> Option<Route>;

    /// The bytes that a shard's `max_bytes` is charged with if `record` is stored at `route`: payload,
    /// headers, address and what the store itself adds. `dedup_id_bytes` is the length of the id that
    /// it will be published with. Exact; an ephemeral record is counted as if it were stored.
    fn stored_bytes(&self, route: &Route, record: &Record, dedup_id_bytes: Option<usize>) -> u64;

    /// Publishes. Returns at once: the message has its place in the order of this log's publishes
    /// when this returns `Ok`, and the future tells what became of it. `dedup_id` becomes
    /// `Nats-Msg-Id` (the caller has hashed app and channel into it, L14). On an ephemeral route
    /// the acknowledgement has `seq` 0.
    fn publish(
        &self,
        route: &Route,
        record: &Record,
        dedup_id: Option<&str>,
    ) -> Result<AckFuture, PublishError>;

    /// Subscribes to the live copies of a channel. When this resolves, the server has the
    /// subscription before any later request of [`Log::info`].
    fn subscribe<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Box<dyn Copies>, ReadError>>;

    /// The leader's view of a shard. One request each time: joining of requests is the caller's.
    fn info(&self, shard: ShardId) -> BoxFuture<'_, Result<ShardInfo, ReadError>>;

    /// Reads a channel from `from` (inclusive), at most `max_messages` and about `max_bytes`
    /// (at least one message). Any replica.
    fn read<'a>(
        &'a self,
        route: &'a Route,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> BoxFuture<'a, Result<Page, ReadError>>;

    /// The first message of a channel at or after `from`, from the leader.
    fn read_leader<'a>(
        &'a self,
        route: &'a Route,
        from: Offset,
    ) -> BoxFuture<'a, Result<Option<Stored>, ReadError>>;

    /// The id that the last message of a channel was published with, and when it was stored (ms), from the
    /// leader; `None` if there is no message, or it has no id.
    fn last_id<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Option<(String, i64)>, ReadError>>;

    /// The time stamp (ms) of the message at `seq`, from the leader; `None` if none is stored there.
    fn time_at(&self, shard: ShardId, seq: Offset) -> BoxFuture<'_, Result<Option<i64>, ReadError>>;

    /// The first message of the shard that was stored at or after `time_ms`, from the leader;
    /// `None` if there is none yet.
    fn first_since(&self, shard: ShardId, time_ms: i64) -> BoxFuture<'_, Result<Option<Offset>, ReadError>>;

    /// The last sequence of each of these channels (all of one shard, at most 1,000), any replica.
    fn last_of<'a>(&'a self, shard: ShardId, routes: &'a [Route])
    -> BoxFuture<'a, Result<LastOf, ReadError>>;

    /// Reads everything of a shard from `from` (inclusive). Any replica.
    fn sweep(
        &self,
        shard: ShardId,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> BoxFuture<'_, Result<Sweep, ReadError>>;

    /// Stores a tombstone on the channel (acknowledged), then purges what is below it (L15).
    /// Answers the tombstone's sequence.
    fn remove<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<Offset, PublishError>>;

    /// Writes the shard's anchor (L4, L11) and answers with its acknowledgement.
    fn write_anchor(&self, shard: ShardId) -> AckFuture;

    /// The shard's epoch entry and its revision, from the leader of the registry.
    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Option<(EpochEntry, u64)>, ReadError>>;

    /// Writes the epoch entry if its revision is still `revision` (0 = there is none yet). `Ok(false)`
    /// if another node was faster.
    fn set_epoch<'a>(
        &'a self,
        shard: ShardId,
        entry: &'a EpochEntry,
        revision: u64,
    ) -> BoxFuture<'a, Result<bool, ReadError>>;

    /// Claims namespaces of an app for where their history is kept (L2), for good. Answers with those that
    /// are claimed for somewhere else, and claims none then.
    fn claim<'a>(
        &'a self,
        app: &'a AppId,
        namespaces: &'a [(String, History)],
    ) -> BoxFuture<'a, Result<Vec<String>, ReadError>>;

    /// What the connection notices from now on. Bounded: a reader that lags misses events, and is
    /// told so by the channel.
    fn events(&self) -> tokio::sync::broadcast::Receiver<LogEvent>;

    /// Whether there is a connection now.
    fn connected(&self) -> bool;

    /// The name of this node among those that share the log.
    fn node(&self) -> NodeId;

    /// A bucket that all nodes share.
    fn bucket(&self, name: BucketName) -> Arc<dyn Bucket>;

    /// One of the deployment's own streams.
    fn work_stream(&self, name: StreamName) -> Arc<dyn WorkStream>;

    /// How many messages for this node were not accepted.
    fn refused_messages(&self) -> RefusedMessages;

    /// Sends to all nodes that listen on `topic` (tokens with dots between them), this one included. At
    /// most once.
    fn tell(&self, topic: &str, data: Bytes);

    /// Listens for messages of other nodes on `topic`.
    fn listen<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<Box<dyn NodeMessages>, ReadError>>;

    /// Asks all nodes that listen on `topic` and collects what they answer within `wait`; ends
    /// early once `enough` says so.
    fn ask<'a>(
        &'a self,
        topic: &'a str,
        data: Bytes,
        wait: Duration,
        enough: &'a (dyn Fn(&[NodeMessage]) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Vec<NodeMessage>>;

    /// Answers a [`NodeMessage`] that wants one.
    fn answer(&self, reply: &str, data: Bytes);

    /// Sends what is buffered and waits until it is written; for drain.
    fn flush(&self) -> BoxFuture<'_, ()>;

    /// The time that the time stamps of messages are compared with, ms since 1970: this machine's,
    /// unless the log has a clock of its own.
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Between two attempts to listen.
const LISTEN_AGAIN: Duration = Duration::from_millis(200);

/// Hears what nodes say on a topic ([`Log::listen`]), for as long as it is polled: once the connection to the
/// broker has ended, it listens again.
pub async fn hear(log: &dyn Log, topic: &str, mut act: impl FnMut(&NodeMessage)) {
    loop {
        if let Ok(mut messages) = log.listen(topic).await {
            while let Some(message) = poll_fn(|cx| messages.poll_next(cx)).await {
                act(&message);
            }
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}
