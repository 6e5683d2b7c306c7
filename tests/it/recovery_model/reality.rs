//! What was really stored in a shard: the judge of what clients are given.

use std::collections::{BTreeMap, HashSet};

use slipstream::model::Offset;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// A publication with this content, and its idempotency key.
    Publication { id: u64, key: Option<String> },
    /// A publication of a newer program: no client may pass it untold.
    Opaque,
    /// The history below was removed.
    Tombstone,
    /// What clients do not see.
    Nothing,
}

/// The present incarnation of one shard, all that was ever stored in it, by sequence.
#[derive(Debug, Default)]
pub(crate) struct Reality {
    things: BTreeMap<Offset, (usize, Thing)>,
    /// Epochs whose offsets no longer mean what they meant.
    dead: HashSet<String>,
    /// The shard's last sequence, whatever stands there.
    pub(crate) last: Offset,
    /// Something stored may be gone: clients may be told so.
    pub(crate) lossy: bool,
}

impl Reality {
    pub(crate) fn new(lossy: bool) -> Self {
        Self {
            lossy,
            ..Self::default()
        }
    }

    pub(crate) fn store(&mut self, seq: Offset, channel: usize, thing: Thing) {
        self.things.insert(seq, (channel, thing));
    }

    /// The stream has gone back to `last_seq`; `epoch` is the one that was current.
    pub(crate) fn go_back(&mut self, last_seq: Offset, epoch: Option<String>) {
        let lost = self.things.split_off(&(last_seq + 1));
        // What was removed stays so, even if the store forgets why.
        for (of, _) in lost.values().filter(|(_, thing)| *thing == Thing::Tombstone) {
            self.things.retain(|_, (channel, _)| channel != of);
        }
        self.dead.extend(epoch);
        self.lossy = true;
    }

    pub(crate) fn is_dead(&self, epoch: &str) -> bool {
        self.dead.contains(epoch)
    }

    /// What a client that has everything up to `position` must get next.
    pub(crate) fn next(&self, channel: usize, position: Offset) -> Option<(Offset, &Thing)> {
        self.things
            .range(position + 1..)
            .find(|(_, (of, thing))| *of == channel && !matches!(thing, Thing::Nothing | Thing::Tombstone))
            .map(|(seq, (_, thing))| (*seq, thing))
    }

    /// Where a publication with this key is stored.
    pub(crate) fn with_key(&self, channel: usize, key: &str) -> HashSet<Offset> {
        let of_key = |thing: &Thing| matches!(thing, Thing::Publication { key: Some(of), .. } if of == key);
        self.things
            .iter()
            .filter(|(_, (of, thing))| *of == channel && of_key(thing))
            .map(|(seq, _)| *seq)
            .collect()
    }
}

/// The shards, and which channel lives in which.
#[derive(Debug, Default)]
pub(crate) struct Realities {
    pub(crate) shards: Vec<Reality>,
    pub(crate) shard_of: Vec<usize>,
}

impl Realities {
    pub(crate) fn of(&self, channel: usize) -> &Reality {
        &self.shards[self.shard_of[channel]]
    }

    pub(crate) fn of_mut(&mut self, channel: usize) -> &mut Reality {
        &mut self.shards[self.shard_of[channel]]
    }
}
