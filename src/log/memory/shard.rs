//! A shard: a leader's [`Store`] and the replicas that follow it, each as far as a test lets it.

use std::{collections::VecDeque, sync::Arc};

use super::store::{Limits, Message, Op, Store};
use crate::{
    log::{Body, Page, ShardInfo, Sweep},
    model::Offset,
};

#[cfg(test)]
mod tests;

/// The most changes a held replica falls behind by; then it applies the oldest all the same.
const MAX_BACKLOG: usize = 100_000;

/// What became of a message that was offered to the shard.
#[derive(Debug)]
pub(super) enum Appended {
    /// It was stored.
    Stored(Arc<Message>),
    /// One with the same id was stored before, at this sequence.
    Duplicate(Offset),
}

/// One stream. Replica 0 is the leader.
#[derive(Debug)]
pub(super) struct Shard {
    limits: Limits,
    created: String,
    leader: Store,
    followers: Vec<Follower>,
    answering: Option<usize>,
    deposed: Option<usize>,
    /// What goes while the next page is put together: below this, behind so many messages.
    tear: Option<(u32, Offset)>,
    turn: usize,
}

#[derive(Debug)]
struct Follower {
    store: Store,
    backlog: VecDeque<Op>,
    held: bool,
    skew_ms: i64,
}

// === impl Shard ===

impl Shard {
    pub(super) fn new(limits: Limits, created: String, replicas: usize) -> Self {
        let follower = |_| Follower {
            store: Store::new(limits),
            backlog: VecDeque::new(),
            held: false,
            skew_ms: 0,
        };
        Self {
            limits,
            created,
            leader: Store::new(limits),
            followers: (1..replicas).map(follower).collect(),
            answering: None,
            deposed: None,
            tear: None,
            turn: 0,
        }
    }

    /// Stores a message, unless one with the same id is remembered.
    pub(super) fn append(
        &mut self,
        address: &str,
        body: Body,
        dedup_id: Option<&str>,
        now_ms: i64,
    ) -> Appended {
        self.leader.expire(now_ms);
        if let Some(first) = dedup_id.and_then(|id| self.leader.first_with(id)) {
            return Appended::Duplicate(first);
        }
        let message = Arc::new(Message {
            seq: self.leader.last_seq() + 1,
            time_ms: now_ms,
            address: address.into(),
            body,
            dedup_id: dedup_id.map(Arc::from),
            prev: self.leader.last_of(address).unwrap_or(0),
        });
        self.commit(&Op::Store(Arc::clone(&message)));
        Appended::Stored(message)
    }

    /// Removes a channel's messages below a sequence.
    pub(super) fn purge(&mut self, address: &str, below: Offset) {
        let address = address.into();
        self.commit(&Op::Purge { address, below });
    }

    /// Removes everything below a sequence.
    pub(super) fn trim(&mut self, below: Offset) {
        self.commit(&Op::Trim { below });
    }

    /// The leader's copy, or that of a deposed one which does not know it yet.
    pub(super) fn leader(&mut self, now_ms: i64) -> &Store {
        self.replica(self.deposed.unwrap_or(0), now_ms)
    }

    /// The copy that answers a read by any replica: the one set by [`Shard::answer_from`], or each
    /// in turn.
    pub(super) fn any(&mut self, now_ms: i64) -> &Store {
        self.turn = (self.turn + 1) % (self.followers.len() + 1);
        self.replica(self.answering.unwrap_or(self.turn), now_ms)
    }

    /// A page of a channel from any replica; see [`crate::log::Log::read`].
    pub(super) fn read(
        &mut self,
        address: &str,
        from: Offset,
        messages: u32,
        bytes: u32,
        now_ms: i64,
    ) -> Page {
        let Some((after, below)) = self.tear.take() else {
            return self.any(now_ms).read(address, from, messages, bytes);
        };
        let mut page = self.any(now_ms).read(address, from, after, bytes);
        self.trim(below);
        let next = page.messages.last().map_or(from, |last| last.seq + 1);
        let left = messages.saturating_sub(after);
        let rest = self.any(now_ms).read(address, next, left, bytes);
        // The server counts down from what there was at first.
        page.pending = page.pending.saturating_sub(rest.messages.len() as u64);
        page.messages.extend(rest.messages);
        page
    }

    /// A page of everything from any replica; see [`crate::log::Log::sweep`].
    pub(super) fn sweep(&mut self, from: Offset, messages: u32, bytes: u32, now_ms: i64) -> Sweep {
        let Some((after, below)) = self.tear.take() else {
            return self.any(now_ms).sweep(from, messages, bytes);
        };
        let mut page = self.any(now_ms).sweep(from, after, bytes);
        self.trim(below);
        let next = page.messages.last().map_or(from, |(_, last)| last.seq + 1);
        let rest = self
            .any(now_ms)
            .sweep(next, messages.saturating_sub(after), bytes);
        page.pending = page.pending.saturating_sub(rest.messages.len() as u64);
        page.messages.extend(rest.messages);
        page
    }

    /// See [`super::Faults::tear_page`].
    pub(super) fn tear(&mut self, after: u32, below: Offset) {
        self.tear = Some((after, below));
    }

    /// What the leader says of the shard.
    pub(super) fn info(&mut self, now_ms: i64) -> ShardInfo {
        let created = self.created.clone();
        let store = self.leader(now_ms);
        ShardInfo {
            created,
            first_seq: store.first_seq(),
            last_seq: store.last_seq(),
            first_time_ms: store.first_time_ms(),
            last_time_ms: store.last_time_ms(),
            bytes: store.bytes(),
        }
    }

    /// The true leader's copy, for a later [`Shard::restore`].
    pub(super) fn snapshot(&self) -> Store {
        self.leader.clone()
    }

    /// Puts an older copy in the place of all replicas; `created` stays.
    pub(super) fn restore(&mut self, store: &Store) {
        self.leader = store.clone();
        for follower in &mut self.followers {
            follower.store = store.clone();
            follower.backlog.clear();
        }
    }

    /// Goes back to `last_seq`, as after losing what came later; `created` stays.
    pub(super) fn regress(&mut self, last_seq: Offset) {
        let mut store = self.snapshot();
        store.regress(last_seq);
        self.restore(&store);
    }

    /// Deletes and creates the stream: empty, sequences from 1.
    pub(super) fn recreate(&mut self, created: String) {
        self.created = created;
        self.restore(&Store::new(self.limits));
    }

    /// Holds a replica where it is, or lets it catch up with the leader.
    pub(super) fn hold(&mut self, replica: usize, held: bool) {
        if let Some(follower) = self.follower(replica) {
            follower.held = held;
            if !held {
                follower.catch_up(Offset::MAX);
            }
        }
    }

    /// Lets a held replica apply what it has been sent up to and including `seq`.
    pub(super) fn catch_up(&mut self, replica: usize, seq: Offset) {
        if let Some(follower) = self.follower(replica) {
            follower.catch_up(seq);
        }
    }

    /// Sets how far a follower's clock is ahead of the leader's.
    pub(super) fn skew(&mut self, replica: usize, skew_ms: i64) {
        if let Some(follower) = self.follower(replica) {
            follower.skew_ms = skew_ms;
        }
    }

    /// Chooses who answers reads by any replica; `None` = each in turn.
    pub(super) fn answer_from(&mut self, replica: Option<usize>) {
        self.answering = replica;
    }

    /// Lets a replica answer as if it were the leader; `None` = the leader answers.
    pub(super) fn depose(&mut self, replica: Option<usize>) {
        self.deposed = replica;
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        self.tear = None;
        self.answering = None;
        self.deposed = None;
        for follower in &mut self.followers {
            follower.held = false;
            follower.skew_ms = 0;
            follower.catch_up(Offset::MAX);
        }
    }

    fn commit(&mut self, op: &Op) {
        self.leader.apply(op);
        for follower in &mut self.followers {
            follower.follow(op.clone());
        }
    }

    fn replica(&mut self, replica: usize, now_ms: i64) -> &Store {
        let follower = replica
            .checked_sub(1)
            .and_then(|index| self.followers.get_mut(index));
        let (store, now_ms) = match follower {
            Some(follower) => (&mut follower.store, now_ms + follower.skew_ms),
            None => (&mut self.leader, now_ms),
        };
        store.expire(now_ms);
        store
    }

    fn follower(&mut self, replica: usize) -> Option<&mut Follower> {
        self.followers.get_mut(replica.checked_sub(1)?)
    }
}

// === impl Follower ===

impl Follower {
    fn follow(&mut self, op: Op) {
        self.backlog.push_back(op);
        if !self.held {
            self.catch_up(Offset::MAX);
        } else if self.backlog.len() > MAX_BACKLOG {
            self.apply_next(Offset::MAX);
        }
    }

    fn catch_up(&mut self, seq: Offset) {
        while self.apply_next(seq) {}
    }

    fn apply_next(&mut self, up_to: Offset) -> bool {
        let due = |op: &mut Op| !matches!(op, Op::Store(message) if message.seq > up_to);
        let next = self.backlog.pop_front_if(due);
        if let Some(op) = &next {
            self.store.apply(op);
        }
        next.is_some()
    }
}
