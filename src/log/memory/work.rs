//! The deployment's own streams. Age and windows go by the log's clock; the times of deliveries by tokio's,
//! which a test can pause.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    NodeIndex,
    broker::{Broker, PublishFate, State},
};
use crate::{
    log::{
        Ack, AckFuture, BoxFuture, ConsumeOptions, Consumer, Counts, PublishError, ReadError, StreamName,
        Waiting, WorkMessage, WorkStream,
        work::{Settle, Verdict, check_key},
    },
    model::Offset,
};

/// What a message costs besides its key, data and id.
const OVERHEAD_BYTES: u64 = 34;
/// The keys of one answer.
const MAX_COUNTS: usize = 100_000;
/// How long the id of an append is remembered.
const WINDOW_MS: i64 = 120_000;

/// All streams.
#[derive(Default)]
pub(super) struct Works(HashMap<StreamName, Work>);

/// One stream.
#[derive(Default)]
pub(super) struct Work {
    messages: BTreeMap<Offset, Message>,
    last_seq: Offset,
    bytes: u64,
    max_bytes: Option<u64>,
    ids: HashMap<String, (Offset, i64)>,
    consumers: HashMap<String, Durable>,
    changed: Arc<Notify>,
}

struct Message {
    key: Vec<String>,
    data: Bytes,
    time_ms: i64,
    bytes: u64,
}

/// What a consumer is given.
#[derive(Default)]
struct Taken {
    /// Sequences, and how often each has been delivered.
    messages: Vec<(Offset, u64)>,
    /// When more may be due.
    next: Option<Instant>,
}

struct Durable {
    options: ConsumeOptions,
    /// Delivered and not settled: how often, and when it is delivered again.
    open: BTreeMap<Offset, (u64, Instant)>,
    /// Settled, but still stored: of a stream that is no work queue.
    done: BTreeSet<Offset>,
}

impl Works {
    pub(super) fn of(&mut self, name: StreamName) -> &mut Work {
        self.0.entry(name).or_default()
    }

    /// Whoever pulls looks again: a connection is gone or back.
    pub(super) fn wake(&self) {
        self.0.values().for_each(|work| work.changed.notify_waiters());
    }
}

impl Work {
    /// Sets how many bytes it holds.
    pub(super) fn limit(&mut self, max_bytes: Option<u64>) {
        self.max_bytes = max_bytes;
    }

    fn append(
        &mut self,
        name: StreamName,
        key: &[&str],
        dedup_id: Option<&str>,
        data: Bytes,
        time_ms: i64,
    ) -> Result<Ack, PublishError> {
        self.ids.retain(|_, (_, at)| time_ms - *at < WINDOW_MS);
        if let Some((seq, _)) = dedup_id.and_then(|id| self.ids.get(id)) {
            let (seq, duplicate) = (*seq, true);
            return Ok(Ack { seq, duplicate });
        }
        let key: Vec<_> = key.iter().map(|part| (*part).to_owned()).collect();
        let parts = key.iter().map(|part| part.len() + 1).sum::<usize>();
        let bytes = OVERHEAD_BYTES + (parts + data.len() + dedup_id.map_or(0, str::len)) as u64;
        while self.max_bytes.is_some_and(|most| self.bytes + bytes > most) {
            let oldest = self.messages.keys().next().copied();
            match oldest {
                Some(oldest) if !name.is_work_queue() => self.remove(oldest),
                _ => return Err(PublishError::Full),
            }
        }
        self.last_seq += 1;
        let (seq, duplicate) = (self.last_seq, false);
        if let Some(id) = dedup_id {
            self.ids.insert(id.to_owned(), (seq, time_ms));
        }
        self.bytes += bytes;
        let message = Message {
            key,
            data,
            time_ms,
            bytes,
        };
        self.messages.insert(seq, message);
        self.changed.notify_waiters();
        Ok(Ack { seq, duplicate })
    }

    fn remove(&mut self, seq: Offset) {
        if let Some(message) = self.messages.remove(&seq) {
            self.bytes -= message.bytes;
        }
        for consumer in self.consumers.values_mut() {
            consumer.open.remove(&seq);
            consumer.done.remove(&seq);
        }
    }

    fn consume(&mut self, name: StreamName, options: &ConsumeOptions) -> Result<(), ReadError> {
        let overlaps = |other: &ConsumeOptions| {
            let common = other.prefix.len().min(options.prefix.len());
            other.durable != options.durable && other.prefix[..common] == options.prefix[..common]
        };
        let mut others = self.consumers.values();
        if name.is_work_queue() && others.any(|other| overlaps(&other.options)) {
            return Err(ReadError::Failed("filters of consumers overlap".to_owned()));
        }
        let consumer = self.consumers.entry(options.durable.clone());
        let consumer = consumer.or_insert_with(|| Durable {
            options: options.clone(),
            open: BTreeMap::new(),
            done: BTreeSet::new(),
        });
        consumer.options = options.clone();
        Ok(())
    }

    /// What a consumer is given now, and when more may be due.
    fn take(&mut self, durable: &str, max: u32) -> Option<Taken> {
        let consumer = self.consumers.get_mut(durable)?;
        let now = Instant::now();
        let mut taken = Vec::new();
        let again = consumer.open.iter().filter(|(_, (_, at))| *at <= now);
        let again: Vec<_> = again.map(|(seq, _)| *seq).collect();
        let new = self.messages.iter().filter(|(seq, message)| {
            !consumer.open.contains_key(seq)
                && !consumer.done.contains(seq)
                && begins_with(&message.key, &consumer.options.prefix)
        });
        let room = (consumer.options.max_ack_pending as usize).saturating_sub(consumer.open.len());
        let new: Vec<_> = new.map(|(seq, _)| *seq).take(room).collect();
        for seq in again.into_iter().chain(new).take(max as usize) {
            let open = consumer.open.entry(seq).or_insert((0, now));
            *open = (open.0 + 1, now + consumer.options.ack_wait);
            taken.push((seq, open.0));
        }
        let next = consumer.open.values().map(|(_, at)| *at).min();
        Some(Taken {
            messages: taken,
            next,
        })
    }

    fn settle(&mut self, name: StreamName, durable: &str, seq: Offset, verdict: Verdict) {
        let Some(consumer) = self.consumers.get_mut(durable) else {
            return;
        };
        match verdict {
            Verdict::Nak(delay) => {
                if let Some((_, at)) = consumer.open.get_mut(&seq) {
                    *at = Instant::now() + delay;
                }
            }
            Verdict::Ack | Verdict::Term => {
                if consumer.open.remove(&seq).is_some() && !name.is_work_queue() {
                    consumer.done.insert(seq);
                }
                if name.is_work_queue() {
                    self.remove(seq);
                }
            }
        }
        self.changed.notify_waiters();
    }
}

/// Whether `key` begins with `prefix` and goes on behind it.
fn begins_with<P: AsRef<str>>(key: &[String], prefix: &[P]) -> bool {
    let mut pairs = key.iter().zip(prefix);
    key.len() > prefix.len() && pairs.all(|(part, wanted)| part == wanted.as_ref())
}

/// A node's view of a stream.
#[derive(Clone)]
pub(super) struct MemoryWorkStream {
    pub(super) broker: Arc<Broker>,
    pub(super) node: NodeIndex,
    pub(super) name: StreamName,
}

impl MemoryWorkStream {
    fn with<T>(&self, act: impl FnOnce(&mut Work) -> T) -> Result<T, ReadError> {
        let mut state = self.broker.state();
        if !state.nodes.connected(self.node) {
            return Err(ReadError::NoAnswer);
        }
        Ok(act(state.works.of(self.name)))
    }
}

impl WorkStream for MemoryWorkStream {
    fn append(&self, key: &[&str], dedup_id: Option<&str>, data: Bytes) -> Result<AckFuture, PublishError> {
        check_key(key)?;
        let state: &mut State = &mut self.broker.state();
        let fate = state.fate_of_publish(self.node, None)?;
        let ack = match fate {
            PublishFate::Refused(error) => return Ok(Box::pin(std::future::ready(Err(error)))),
            PublishFate::Stored { gate, .. } => {
                let now_ms = state.now_ms;
                let work = state.works.of(self.name);
                let ack = work.append(self.name, key, dedup_id, data, now_ms);
                (ack, gate)
            }
        };
        Ok(Box::pin(async move {
            let (ack, gate) = ack;
            gate.opened().await.ok_or(PublishError::Unknown)?;
            ack
        }))
    }

    fn consume(&self, options: ConsumeOptions) -> BoxFuture<'_, Result<Box<dyn Consumer>, ReadError>> {
        Box::pin(async move {
            self.with(|work| work.consume(self.name, &options))??;
            Ok(Box::new(MemoryConsumer {
                of: self.clone(),
                options,
            }) as Box<dyn Consumer>)
        })
    }

    fn waiting<'a>(&'a self, prefix: &'a [&'a str]) -> BoxFuture<'a, Result<Waiting, ReadError>> {
        Box::pin(async move {
            self.with(|work| {
                let messages = work.messages.iter();
                let found = messages.filter(|(_, message)| begins_with(&message.key, prefix));
                found.fold(Waiting::default(), |waiting, (seq, message)| Waiting {
                    messages: waiting.messages + 1,
                    oldest_ms: waiting.oldest_ms.or(Some(message.time_ms)),
                    oldest_seq: waiting.oldest_seq.or(Some(*seq)),
                })
            })
        })
    }

    fn counts<'a>(&'a self, prefix: &'a [&'a str]) -> BoxFuture<'a, Result<Counts, ReadError>> {
        Box::pin(async move {
            self.with(|work| {
                let messages = work.messages.values();
                let mut counts = BTreeMap::<_, u64>::new();
                for message in messages.filter(|message| begins_with(&message.key, prefix)) {
                    *counts.entry(message.key.clone()).or_default() += 1;
                }
                Counts {
                    is_whole: counts.len() <= MAX_COUNTS,
                    keys: counts.into_iter().take(MAX_COUNTS).collect(),
                }
            })
        })
    }
}

struct MemoryConsumer {
    of: MemoryWorkStream,
    options: ConsumeOptions,
}

impl MemoryConsumer {
    /// What is there now, and when more may be due.
    fn take(&self, max: u32) -> Result<(Vec<WorkMessage>, Option<Instant>), ReadError> {
        let (of, durable) = (&self.of, &self.options.durable);
        of.with(|work| {
            work.consume(of.name, &self.options)?;
            let Taken { messages, next } = work.take(durable, max).unwrap_or_default();
            let messages = messages.into_iter().filter_map(|(seq, delivered)| {
                let message = work.messages.get(&seq)?;
                Some(WorkMessage {
                    seq,
                    delivered,
                    time_ms: message.time_ms,
                    key: message.key.clone(),
                    data: message.data.clone(),
                    settle: Arc::new(Delivery {
                        of: of.clone(),
                        durable: durable.clone(),
                        seq,
                    }),
                })
            });
            Ok((messages.collect(), next))
        })?
    }
}

impl Consumer for MemoryConsumer {
    fn pull(&mut self, max: u32, wait: Duration) -> BoxFuture<'_, Result<Vec<WorkMessage>, ReadError>> {
        Box::pin(async move {
            let until = Instant::now() + wait;
            loop {
                let changed = self.of.with(|work| work.changed.clone())?;
                let changed = changed.notified();
                tokio::pin!(changed);
                // From here on no change is missed.
                changed.as_mut().enable();
                let (messages, next) = self.take(max.max(1))?;
                if !messages.is_empty() || Instant::now() >= until {
                    return Ok(messages);
                }
                let look_again = next.map_or(until, |next| next.min(until));
                // Either way it looks again.
                let _ = timeout_at(look_again, changed).await;
            }
        })
    }
}

struct Delivery {
    of: MemoryWorkStream,
    durable: String,
    seq: Offset,
}

impl Settle for Delivery {
    fn settle(&self, verdict: Verdict) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            let of = &self.of;
            of.with(|work| work.settle(of.name, &self.durable, self.seq, verdict))
        })
    }
}
