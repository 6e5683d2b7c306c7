//! One replica's copy of a shard: what a stream keeps and how it answers, without clock or tasks.
//!
//! Every replica applies the same [`Op`]s in the same order; only age is judged by each replica's
//! own clock, which is why two replicas that applied the same may still differ.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    log::{Body, Copy, Page, Stored, Sweep},
    model::{Offset, Record},
};

#[cfg(test)]
mod tests;

/// What a message costs besides its address, payload, tags, info and id.
const OVERHEAD_BYTES: u64 = 32;

/// What a shard keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A message of this age (ms) is gone.
    pub(super) max_age_ms: i64,
    /// Above this many bytes the oldest messages of the shard go.
    pub(super) max_bytes: u64,
    /// Above this many messages of one channel its oldest go.
    pub(super) max_per_channel: Option<u64>,
    /// How long (ms) a dedup id is remembered.
    pub(super) window_ms: i64,
}

/// One stored message with what the answers need of it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) seq: Offset,
    pub(super) time_ms: i64,
    pub(super) address: Arc<str>,
    pub(super) body: Body,
    pub(super) dedup_id: Option<Arc<str>>,
    /// The last sequence of this channel that was still stored when this one came; 0 = none.
    pub(super) prev: Offset,
}

/// One change of a shard.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Store a message, and trim what it pushes out.
    Store(Arc<Message>),
    /// Remove a channel's messages below a sequence.
    Purge { address: Arc<str>, below: Offset },
    /// Remove everything below a sequence.
    Trim { below: Offset },
}

/// The messages of a shard, in order, with an index per channel.
///
/// Within a channel messages go oldest first, whatever removes them, so its index is a queue and
/// both the place of a sequence and the number behind it are found without scanning.
#[derive(Clone, Debug)]
pub(super) struct Store {
    limits: Limits,
    messages: BTreeMap<Offset, Arc<Message>>,
    channels: HashMap<Arc<str>, VecDeque<Offset>>,
    last_seq: Offset,
    bytes: u64,
    ids: HashMap<Arc<str>, Offset>,
    ids_by_age: VecDeque<(i64, Arc<str>, Offset)>,
}

// === impl Message ===

impl Message {
    pub(super) fn stored(&self) -> Stored {
        Stored {
            seq: self.seq,
            time_ms: self.time_ms,
            body: self.body.clone(),
        }
    }

    pub(super) fn copy(&self) -> Copy {
        Copy {
            stored: self.stored(),
            prev: self.prev,
        }
    }

    fn size(&self) -> u64 {
        let record = match &self.body {
            Body::Publication(record) => Some(record),
            Body::Tombstone | Body::Unreadable { .. } => None,
        };
        let id = self.dedup_id.as_ref().map(|id| id.len());
        size_of_message(&self.address, record, id)
    }
}

/// What a message costs of a shard's bytes.
pub(super) fn size_of_message(address: &str, record: Option<&Record>, dedup_id_bytes: Option<usize>) -> u64 {
    let record = record.map_or(0, |record| {
        let tags = record.tags.iter().map(|(name, value)| name.len() + value.len());
        let info = record.info.as_ref().map_or(0, |info| {
            let raw = [&info.conn_info, &info.chan_info];
            let raw: usize = raw.into_iter().flatten().map(|json| json.len()).sum();
            info.client.len() + info.user.len() + raw
        });
        record.data.len() + tags.sum::<usize>() + info
    });
    OVERHEAD_BYTES + (address.len() + record + dedup_id_bytes.unwrap_or(0)) as u64
}

// === impl Store ===

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            messages: BTreeMap::new(),
            channels: HashMap::new(),
            last_seq: 0,
            bytes: 0,
            ids: HashMap::new(),
            ids_by_age: VecDeque::new(),
        }
    }

    /// The last sequence ever stored; 0 = none.
    pub(super) fn last_seq(&self) -> Offset {
        self.last_seq
    }

    /// The first sequence still stored; last + 1 if nothing is.
    pub(super) fn first_seq(&self) -> Offset {
        self.messages.keys().next().map_or(self.last_seq + 1, |seq| *seq)
    }

    /// The time stamp of the first message still stored; 0 if nothing is.
    pub(super) fn first_time_ms(&self) -> i64 {
        self.messages.values().next().map_or(0, |message| message.time_ms)
    }

    /// The time stamp of the last message still stored; 0 if nothing is.
    pub(super) fn last_time_ms(&self) -> i64 {
        self.messages
            .values()
            .next_back()
            .map_or(0, |message| message.time_ms)
    }

    /// The first message still stored that is not older than `time_ms`.
    pub(super) fn first_since(&self, time_ms: i64) -> Option<Offset> {
        let young = self.messages.values().find(|message| message.time_ms >= time_ms);
        young.map(|message| message.seq)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first sequence stored with this id, if the window still holds it.
    pub(super) fn first_with(&self, dedup_id: &str) -> Option<Offset> {
        self.ids.get(dedup_id).copied()
    }

    /// The message at exactly this sequence.
    pub(super) fn at(&self, seq: Offset) -> Option<&Message> {
        self.messages.get(&seq).map(|message| &**message)
    }

    /// The last stored sequence of a channel.
    pub(super) fn last_of(&self, address: &str) -> Option<Offset> {
        self.channels.get(address)?.back().copied()
    }

    /// The first message of a channel at or after `from`.
    pub(super) fn next_of(&self, address: &str, from: Offset) -> Option<&Message> {
        let sequences = self.channels.get(address)?;
        let at = sequences.partition_point(|seq| *seq < from);
        self.at(*sequences.get(at)?)
    }

    /// Reads a channel; see [`crate::log::Log::read`].
    pub(super) fn read(&self, address: &str, from: Offset, max_messages: u32, max_bytes: u32) -> Page {
        let Some(sequences) = self.channels.get(address) else {
            return Page::default();
        };
        let start = sequences.partition_point(|seq| *seq < from);
        let found = sequences.range(start..).filter_map(|seq| self.at(*seq));
        let messages: Vec<_> = page(found, max_messages, max_bytes)
            .map(Message::stored)
            .collect();
        Page {
            pending: (sequences.len() - start - messages.len()) as u64,
            messages,
        }
    }

    /// Reads all channels; see [`crate::log::Log::sweep`]. Counting what is left is linear, as it
    /// is in the server.
    pub(super) fn sweep(&self, from: Offset, max_messages: u32, max_bytes: u32) -> Sweep {
        let found = self.messages.range(from..).map(|(_, message)| &**message);
        let messages: Vec<_> = page(found.clone(), max_messages, max_bytes)
            .map(|message| (String::from(&*message.address), message.stored()))
            .collect();
        Sweep {
            pending: (found.count() - messages.len()) as u64,
            messages,
        }
    }

    /// Applies one change. Sequences ascend from one [`Op::Store`] to the next.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Store(message) => self.store(Arc::clone(message)),
            Op::Purge { address, below } => {
                while let Some(first) = self.first_of(address).filter(|first| first < below) {
                    self.remove(first);
                }
            }
            Op::Trim { below } => {
                while self.first_seq() < *below && !self.messages.is_empty() {
                    self.remove(self.first_seq());
                }
            }
        }
    }

    /// Removes what is too old at `now_ms`, and forgets ids whose window is over.
    pub(super) fn expire(&mut self, now_ms: i64) {
        let oldest = now_ms.saturating_sub(self.limits.max_age_ms);
        while let Some(first) = self
            .messages
            .values()
            .next()
            .filter(|first| first.time_ms <= oldest)
        {
            let seq = first.seq;
            self.remove(seq);
        }
        let oldest = now_ms.saturating_sub(self.limits.window_ms);
        while let Some((_, id, seq)) = self.ids_by_age.pop_front_if(|(time_ms, ..)| *time_ms <= oldest) {
            if self.ids.get(&id) == Some(&seq) {
                self.ids.remove(&id);
            }
        }
    }

    /// Forgets everything above `last_seq`, as if it had never been stored.
    pub(super) fn regress(&mut self, last_seq: Offset) {
        for (_, message) in self.messages.split_off(&(last_seq + 1)) {
            self.bytes -= message.size();
        }
        self.channels.retain(|_, sequences| {
            while sequences.pop_back_if(|seq| *seq > last_seq).is_some() {}
            !sequences.is_empty()
        });
        self.ids.retain(|_, seq| *seq <= last_seq);
        self.ids_by_age.retain(|(_, _, seq)| *seq <= last_seq);
        self.last_seq = self.last_seq.min(last_seq);
    }

    fn store(&mut self, message: Arc<Message>) {
        let (seq, address) = (message.seq, message.address.clone());
        self.last_seq = seq;
        self.bytes += message.size();
        if let Some(id) = &message.dedup_id {
            self.ids.insert(id.clone(), seq);
            self.ids_by_age.push_back((message.time_ms, id.clone(), seq));
        }
        self.messages.insert(seq, message);
        let sequences = self.channels.entry(address.clone()).or_default();
        sequences.push_back(seq);
        let count = sequences.len() as u64;
        let excess = self
            .limits
            .max_per_channel
            .map_or(0, |max| count.saturating_sub(max.max(1)));
        for _ in 0..excess {
            if let Some(first) = self.first_of(&address) {
                self.remove(first);
            }
        }
        while self.bytes > self.limits.max_bytes && self.messages.len() > 1 {
            self.remove(self.first_seq());
        }
    }

    fn first_of(&self, address: &str) -> Option<Offset> {
        self.channels.get(address)?.front().copied()
    }

    fn remove(&mut self, seq: Offset) {
        let Some(message) = self.messages.remove(&seq) else {
            return;
        };
        self.bytes -= message.size();
        if let Some(sequences) = self.channels.get_mut(&message.address) {
            sequences.pop_front_if(|first| *first == seq);
            if sequences.is_empty() {
                self.channels.remove(&message.address);
            }
        }
    }
}

/// As many of `found` as a page takes: it stops *after* the message that reaches `max_bytes`, and
/// has at least one.
fn page<'a>(
    found: impl Iterator<Item = &'a Message>,
    max_messages: u32,
    max_bytes: u32,
) -> impl Iterator<Item = &'a Message> {
    let mut bytes = 0;
    found
        .take(max_messages.max(1) as usize)
        .take_while(move |message| {
            let room = bytes == 0 || bytes < u64::from(max_bytes);
            bytes += message.size();
            room
        })
}
