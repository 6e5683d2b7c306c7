//! What is done again and again: telling what has changed, digests, the end of grace and linger.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;

use super::Presence;
use crate::{
    model::ChannelKey,
    presence::wire::{self, Digest},
    random,
};

/// How often it is looked whose grace is over.
const GRACE_TICK: Duration = Duration::from_millis(100);

/// When connections that are lost have to be looked at. Bounded by the members that are lingering.
#[derive(Default)]
pub(super) struct Lost(BinaryHeap<Reverse<(u64, Due)>>);

/// A connection on a channel, without an order of its own.
struct Due {
    key: ChannelKey,
    client: Box<str>,
}

impl Lost {
    pub(super) fn push(&mut self, until: u64, key: ChannelKey, client: Box<str>) {
        self.0.push(Reverse((until, Due { key, client })));
    }

    fn due(&mut self, now: u64) -> Option<Due> {
        let Reverse((until, _)) = self.0.peek()?;
        if *until > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, due))| due)
    }
}

pub(super) fn start(presence: &Arc<Presence>) {
    presence.tasks.spawn(flush(presence.clone()));
    presence.tasks.spawn(digest(presence.clone()));
    presence.tasks.spawn(end_grace(presence.clone()));
    presence.tasks.spawn(forget(presence.clone()));
}

/// Tells what has changed, gathered for a moment.
async fn flush(presence: Arc<Presence>) {
    loop {
        presence.wake_flush.notified().await;
        sleep(presence.config.flush_interval).await;
        presence.flush();
    }
}

async fn digest(presence: Arc<Presence>) {
    let interval = presence.config.digest_interval;
    // Nodes that were started together do not send together.
    let jitter = random::below(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
    sleep(Duration::from_millis(jitter)).await;
    loop {
        presence.send_digests();
        sleep(interval).await;
    }
}

async fn end_grace(presence: Arc<Presence>) {
    loop {
        sleep(GRACE_TICK).await;
        loop {
            let now = presence.now();
            let Some(due) = presence.lost.lock().due(now) else {
                break;
            };
            presence.end_lingering(&due.key, &due.client, now);
        }
    }
}

async fn forget(presence: Arc<Presence>) {
    loop {
        sleep(presence.config.linger / 4).await;
        presence.channels.forget_idle(presence.config.linger);
        let count = i64::try_from(presence.channels.count()).unwrap_or(i64::MAX);
        presence.metrics.presence_channels.set(count);
    }
}

impl Presence {
    fn flush(&self) {
        let changed = std::mem::take(&mut *self.changed.lock());
        let mut deltas: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for key in changed {
            self.channels.with(&key, |entry| {
                entry.telling = false;
                entry.touch();
                let told = deltas.entry(wire::partition(entry.hash)).or_default();
                while entry.owner.has_changed() {
                    let to = self.version.fetch_add(1, Ordering::AcqRel) + 1;
                    let delta = entry.owner.take_delta(to, wire::MESSAGE_BYTES);
                    told.extend(delta.map(|delta| (key.clone(), delta)));
                }
            });
        }
        if self.is_alone() {
            return;
        }
        let incarnation = self.nodes.me().1;
        for (partition, deltas) in deltas {
            for message in wire::deltas(incarnation, &deltas) {
                self.tell(partition, message);
            }
        }
    }

    pub(super) fn send_digests(&self) {
        if self.is_alone() {
            return;
        }
        let at = self.version.load(Ordering::Acquire);
        // Also of partitions in which nobody is left: others may not have heard that.
        let heard = self.partitions.heard().map(|partition| (partition, Vec::new()));
        let mut partitions: BTreeMap<u16, Vec<(u64, u64)>> = heard.collect();
        self.channels.for_each(|_, entry| {
            let channels = partitions.entry(wire::partition(entry.hash)).or_default();
            if entry.owner.version() > 0 {
                channels.push((entry.hash, entry.owner.version()));
            }
        });
        let incarnation = self.nodes.me().1;
        for (partition, channels) in partitions {
            if let Some(message) = wire::digest(incarnation, Digest { at, channels }) {
                self.tell(partition, message);
            }
        }
    }

    /// Whether nobody hears what this node tells.
    fn is_alone(&self) -> bool {
        self.nodes.others().is_empty() && !self.asked.load(Ordering::Acquire)
    }

    fn tell(&self, partition: u16, message: Bytes) {
        self.metrics.presence_bytes.inc_by(message.len() as u64);
        self.log.tell(&wire::topic(partition), message);
    }

    fn end_lingering(&self, key: &ChannelKey, client: &str, now: u64) {
        self.channels.with(key, |entry| {
            let mut seen = Vec::new();
            if let Some(ended) = entry.owner.end_lingering(client, now) {
                entry.view.remove_own(self.nodes.me().0, &ended.client, &mut seen);
            }
            self.show(key, entry, &seen);
            self.tell_later(key, entry);
        });
    }
}

// Only the time counts.
impl PartialEq for Due {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}
