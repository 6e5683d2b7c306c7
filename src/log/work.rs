//! The deployment's own streams: what nodes leave for others to do, each a stream with durable consumers.
//!
//! Delivery is *at least once*: a message comes again until it is settled. A message that was appended twice
//! within the stream's window under one id is stored once.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{AckFuture, BoxFuture, PublishError, ReadError};
use crate::model::Offset;

/// The deployment's own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamName {
    /// What apps have used, for the workers that add it up. A work queue: what is settled is gone.
    Usage,
    /// Publications that wait for their app's rate. A work queue.
    Overflow,
    /// What has happened, for whoever wants to know. Kept until it is too old or the stream too large.
    Events,
}

impl StreamName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Usage, Self::Overflow, Self::Events];

    /// As it stands in the names of streams and subjects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Overflow => "overflow",
            Self::Events => "events",
        }
    }

    /// Whether a settled message is removed, and one that does not fit is refused. Of the others the oldest
    /// go.
    pub const fn is_work_queue(self) -> bool {
        matches!(self, Self::Usage | Self::Overflow)
    }
}

/// One of the deployment's own streams.
///
/// A *key* is a list of parts, none of them left out: the first is the app, where a message is an app's. Parts
/// may hold anything; no two keys meet, and no part can be mistaken for a pattern or for two parts.
pub trait WorkStream: Send + Sync {
    /// Appends `data` under `key` (1 to 16 parts). Returns at once, with its place in the order of this
    /// node's appends; the future tells what became of it. `dedup_id` is one for the whole stream: who makes
    /// one for an app has the app in it.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; [`PublishError::Full`] by a work queue that holds as many bytes as it may.
    fn append(&self, key: &[&str], dedup_id: Option<&str>, data: Bytes) -> Result<AckFuture, PublishError>;

    /// Takes part in a durable consumer, which is created if it is not there, and set to `options` if it is.
    /// All that take part share its messages. Filters of a work queue's consumers must not overlap.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`] if the filter overlaps with another consumer's.
    fn consume(&self, options: ConsumeOptions) -> BoxFuture<'_, Result<Box<dyn Consumer>, ReadError>>;

    /// What is stored under keys that begin with `prefix` and go on behind it; no parts = everything. It may
    /// be as old as a replica lags. Of a work queue it is what is not settled.
    fn waiting<'a>(&'a self, prefix: &'a [&'a str]) -> BoxFuture<'a, Result<Waiting, ReadError>>;

    /// How many messages are stored under each key that begins with `prefix` and goes on behind it, as the
    /// leader had them at one moment: nothing that was acknowledged before is missing, and what was settled just
    /// before may be in it. No parts = everything. It costs the leader and the answer's way as much as
    /// there are keys, so it is not for every publication.
    fn counts<'a>(&'a self, prefix: &'a [&'a str]) -> BoxFuture<'a, Result<Counts, ReadError>>;
}

/// What a stream holds, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys that have messages, and how many; in no order.
    pub keys: Vec<(Vec<String>, u64)>,
    /// Whether these are all keys. An answer has at most 100,000.
    pub is_whole: bool,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many messages.
    pub messages: u64,
    /// When the oldest of them was appended, ms since 1970.
    pub oldest_ms: Option<i64>,
    /// The place of the oldest.
    pub oldest_seq: Option<Offset>,
}

/// How a durable consumer delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// Its name, one for the stream. Whatever it holds.
    pub durable: String,
    /// Only keys that begin with these parts and go on behind them; none = everything.
    pub prefix: Vec<String>,
    /// How many messages may be delivered and not settled, by all that take part.
    pub max_ack_pending: u32,
    /// After this time without being settled a message is delivered again.
    pub ack_wait: Duration,
    /// The consumer is forgotten when nobody has pulled for so long; what is stored stays. `None` = never.
    pub forget_after: Option<Duration>,
}

/// Takes part in a durable consumer. Dropping it settles nothing: what it has pulled comes again, to whoever
/// pulls.
pub trait Consumer: Send {
    /// Up to `max` messages: those that are there now, or the first to come within `wait` (and some hundredths
    /// of a second, however short it is); none if none comes.
    /// A pull that is dropped may have taken messages with it, which come again after `ack_wait`.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; the next pull tries anew, and creates the consumer if it is gone.
    fn pull(&mut self, max: u32, wait: Duration) -> BoxFuture<'_, Result<Vec<WorkMessage>, ReadError>>;
}

/// A message that was delivered and waits to be settled. Dropping it settles nothing.
pub struct WorkMessage {
    /// Its sequence in the stream.
    pub seq: Offset,
    /// How often it has been delivered, this time included.
    pub delivered: u64,
    /// When it was appended, ms since 1970, by the leader's clock.
    pub time_ms: i64,
    /// Its key.
    pub key: Vec<String>,
    /// What was appended.
    pub data: Bytes,
    pub(super) settle: Arc<dyn Settle>,
}

/// What becomes of a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Done.
    Ack,
    /// Again, after so long.
    Nak(Duration),
    /// Never again.
    Term,
}

/// A delivery, as the implementation knows it.
pub(super) trait Settle: Send + Sync {
    fn settle(&self, verdict: Verdict) -> BoxFuture<'_, Result<(), ReadError>>;
}

impl WorkMessage {
    /// It is done: it is not delivered to this consumer again, and a work queue removes it. `Ok` is the
    /// stream's word; after an error it may come again.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn ack(&self) -> Result<(), ReadError> {
        self.settle.settle(Verdict::Ack).await
    }

    /// It could not be done now: it is delivered again after `delay`.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; it comes again after `ack_wait` then.
    pub async fn nak(&self, delay: Duration) -> Result<(), ReadError> {
        self.settle.settle(Verdict::Nak(delay)).await
    }

    /// It can never be done: like [`WorkMessage::ack`].
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn term(&self) -> Result<(), ReadError> {
        self.settle.settle(Verdict::Term).await
    }
}

impl fmt::Debug for WorkMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the payload: it may be a tenant's.
        let mut message = f.debug_struct("WorkMessage");
        message
            .field("seq", &self.seq)
            .field("delivered", &self.delivered);
        message.finish_non_exhaustive()
    }
}

/// The most parts of a key.
pub(super) const MAX_PARTS: usize = 16;
/// The most bytes of a key's parts: as subjects have them escaped, threefold at worst, NATS takes them.
pub(super) const MAX_KEY_BYTES: usize = 1_024;

/// Refuses a key that no stream takes.
pub(super) fn check_key(key: &[&str]) -> Result<(), PublishError> {
    let bytes = key.iter().map(|part| part.len()).sum::<usize>();
    if !(1..=MAX_PARTS).contains(&key.len()) || bytes > MAX_KEY_BYTES {
        return Err(PublishError::Refused(format!(
            "a key has 1 to {MAX_PARTS} parts and at most {MAX_KEY_BYTES} bytes"
        )));
    }
    Ok(())
}
