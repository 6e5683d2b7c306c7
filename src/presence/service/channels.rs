//! The channels whose members this node knows.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{Presence, PresenceError};
use crate::{
    channel::Mailbox,
    model::ChannelKey,
    presence::{owner::Owner, view::View, wire},
};

/// All of them, by partition, with a lock each.
pub(super) struct Channels {
    shards: Vec<Mutex<HashMap<ChannelKey, Entry>>>,
    count: AtomicUsize,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            shards: (0..wire::PARTITIONS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
        }
    }
}

/// One channel.
pub(super) struct Entry {
    pub(super) hash: u64,
    pub(super) owner: Owner,
    pub(super) view: View,
    /// Who hears of joins and leaves.
    pub(super) listeners: slab::Slab<Arc<Mailbox>>,
    /// Connections that are about to be members.
    pub(super) admitted: usize,
    /// Questions that wait for the view to be complete.
    pub(super) queries: usize,
    /// Wakes them.
    pub(super) heard: Arc<Notify>,
    /// It is among those that have something to tell.
    pub(super) telling: bool,
    /// When somebody last had to do with it.
    used: Instant,
}

impl Entry {
    /// Somebody has had to do with it.
    pub(super) fn touch(&mut self) {
        self.used = Instant::now();
    }

    fn is_idle(&self, now: Instant, linger: Duration) -> bool {
        self.owner.is_empty()
            && !self.owner.has_changed()
            && self.listeners.is_empty()
            && self.queries == 0
            && self.admitted == 0
            && now.saturating_duration_since(self.used) > linger
    }
}

impl Channels {
    /// Does something with a channel that is known.
    pub(super) fn with<T>(&self, key: &ChannelKey, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.shard(wire::hash(key)).lock().get_mut(key).map(act)
    }

    /// Does something with a channel, which is known from now on: the other nodes are asked for it.
    pub(super) fn with_new<T>(
        &self,
        presence: &Arc<Presence>,
        key: &ChannelKey,
        act: impl FnOnce(&mut Entry) -> T,
    ) -> Result<T, PresenceError> {
        let hash = wire::hash(key);
        let mut ask = Vec::new();
        let mut shard = self.shard(hash).lock();
        let entry = match shard.get_mut(key) {
            Some(entry) => entry,
            None => {
                if self.count.load(Ordering::Relaxed) >= presence.config.max_channels {
                    return Err(PresenceError::TooManyChannels);
                }
                self.count.fetch_add(1, Ordering::Relaxed);
                let mut view = View::default();
                let (me, incarnation) = presence.nodes.me();
                view.set_own(me, incarnation);
                for (id, incarnation) in presence.nodes.others() {
                    view.node_up(id, incarnation, &mut Vec::new());
                    ask.push(id);
                }
                shard.entry(key.clone()).or_insert(Entry {
                    hash,
                    owner: Owner::default(),
                    view,
                    listeners: slab::Slab::new(),
                    admitted: 0,
                    queries: 0,
                    heard: Arc::new(Notify::new()),
                    telling: false,
                    used: Instant::now(),
                })
            }
        };
        entry.touch();
        let done = act(entry);
        drop(shard);
        if !ask.is_empty() {
            presence.ask_when_heard(wire::partition(hash), key, ask);
        }
        Ok(done)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Looks at all of them, a partition at a time.
    pub(super) fn for_each(&self, mut act: impl FnMut(&ChannelKey, &mut Entry)) {
        for partition in 0..wire::PARTITIONS {
            self.for_each_in(partition, &mut act);
        }
    }

    /// Looks at those of a partition.
    pub(super) fn for_each_in(&self, partition: u16, mut act: impl FnMut(&ChannelKey, &mut Entry)) {
        for (key, entry) in self.shards[usize::from(partition)].lock().iter_mut() {
            act(key, entry);
        }
    }

    /// Forgets those that nobody has to do with.
    pub(super) fn forget_idle(&self, linger: Duration) {
        let now = Instant::now();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|_, entry| !entry.is_idle(now, linger));
            self.count.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashMap<ChannelKey, Entry>> {
        &self.shards[usize::from(wire::partition(hash))]
    }
}
