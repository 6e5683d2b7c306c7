//! What a node knows of leases: its own, and those of others. Pure.
//!
//! A lease is an entry of a bucket that its node writes again and again. It ends when another node
//! *removes* it, by compare-and-set at the revision that it has watched for too long. So the end is one
//! fact for all: a renewal that came first makes the removal fail, a removal that came first makes the
//! renewal fail, and its node then knows that it must begin anew.
//!
//! **Time counts only by evidence.** What an observer measures is not how long it has heard nothing, but
//! how long it has heard nothing *while the bucket took writes*: its clock goes on between two of its
//! own renewals that are not much more than the interval apart, and stands still otherwise. An outage of
//! NATS, an election, a cut link or a stopped observer of any length takes no lease from anybody.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::model::{Incarnation, NodeId};

use super::node::{NodeInfo, NodeState};

#[cfg(test)]
mod tests;

/// Time in which the bucket took this node's writes.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Between two renewals that count as one stretch, at most.
    max_gap: Duration,
    last: Option<Instant>,
    passed: Duration,
}

impl Clock {
    /// A clock that stands at zero. `max_gap` is the longest time between two successful writes that
    /// counts.
    pub fn new(max_gap: Duration) -> Self {
        Self {
            max_gap,
            last: None,
            passed: Duration::ZERO,
        }
    }

    /// A write that was begun at `begun` has been acknowledged.
    pub fn acknowledged(&mut self, begun: Instant) {
        if let Some(last) = self.last {
            let gap = begun.saturating_duration_since(last);
            if gap <= self.max_gap {
                self.passed += gap;
            }
        }
        self.last = Some(begun);
    }

    /// How far it has certainly come: up to the last write.
    pub fn now(&self) -> Duration {
        self.passed
    }

    /// Where it stands at `instant` if the next write will show that time has gone on since the last.
    /// To be noted of what was seen then: it is never before what [`Clock::now`] turns out to be.
    pub fn at(&self, instant: Instant) -> Duration {
        let since = self
            .last
            .map_or(Duration::ZERO, |last| instant.saturating_duration_since(last));
        self.passed + since.min(self.max_gap)
    }

    /// Whether a write now would show that time has gone on.
    pub fn runs(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) < self.max_gap)
    }
}

/// What happened to a node, as others must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// It holds a lease.
    Up(NodeId, Incarnation),
    /// This incarnation is over, for good.
    Down(NodeId, Incarnation),
    /// This node itself has begun anew: what it has told others counts no more.
    Me(Incarnation),
}

/// The leases of all other nodes.
#[derive(Debug)]
pub struct Leases {
    me: NodeId,
    lease: Duration,
    nodes: HashMap<NodeId, Lease>,
    /// Told of in the present pass over the bucket; `None` between passes.
    pass: Option<Vec<NodeId>>,
}

#[derive(Debug)]
struct Lease {
    info: std::sync::Arc<NodeInfo>,
    revision: u64,
    /// When this revision was seen first, by [`Clock::at`].
    seen: Duration,
}

impl Leases {
    /// Of no node yet. `lease` is how long one lasts without a renewal.
    pub fn new(me: NodeId, lease: Duration) -> Self {
        Self {
            me,
            lease,
            nodes: HashMap::new(),
            pass: None,
        }
    }

    /// The bucket tells all its entries from now on, until [`Leases::on_current`].
    pub fn on_begin(&mut self) {
        self.pass = Some(Vec::new());
    }

    /// All entries have been told: what was not among them is no more.
    pub fn on_current(&mut self, events: &mut Vec<NodeEvent>) {
        let Some(told) = self.pass.take() else { return };
        let gone: Vec<_> = self
            .nodes
            .keys()
            .filter(|id| !told.contains(id))
            .copied()
            .collect();
        for id in gone {
            self.end(id, events);
        }
    }

    /// An entry as the bucket has it at `revision`, seen at `now` ([`Clock::at`]). Of a node that is
    /// gone it is a removal.
    pub fn on_entry(&mut self, info: NodeInfo, revision: u64, now: Duration, events: &mut Vec<NodeEvent>) {
        let id = info.id;
        if id == self.me {
            return;
        }
        if info.state == NodeState::Gone {
            return self.on_removed(id, revision, events);
        }
        if let Some(told) = &mut self.pass {
            told.push(id);
        }
        let incarnation = info.incarnation;
        if let Some(known) = self.nodes.get_mut(&id) {
            if revision <= known.revision {
                return;
            }
            let before = known.info.incarnation;
            known.revision = revision;
            known.seen = now;
            known.info = info.into();
            if incarnation != before {
                events.push(NodeEvent::Down(id, before));
                events.push(NodeEvent::Up(id, incarnation));
            }
            return;
        }
        let lease = Lease {
            info: info.into(),
            revision,
            seen: now,
        };
        self.nodes.insert(id, lease);
        events.push(NodeEvent::Up(id, incarnation));
    }

    /// The entry was removed at `revision`.
    pub fn on_removed(&mut self, id: NodeId, revision: u64, events: &mut Vec<NodeEvent>) {
        if self.nodes.get(&id).is_some_and(|known| known.revision < revision) {
            self.end(id, events);
        }
    }

    /// Whose lease has run out by `now` ([`Clock::now`]): to be ended at that revision, or read again.
    pub fn overdue(&self, now: Duration) -> Vec<(std::sync::Arc<NodeInfo>, u64)> {
        let overdue = |lease: &&Lease| now >= lease.seen + self.lease;
        let nodes = self.nodes.values().filter(overdue);
        nodes.map(|lease| (lease.info.clone(), lease.revision)).collect()
    }

    /// How long after `now` the next lease runs out, if no renewal of it comes.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let due = self.nodes.values().map(|lease| lease.seen + self.lease);
        due.filter(|due| *due > now).min().map(|due| due - now)
    }

    /// Whether this incarnation of a node holds a lease.
    pub fn is_live(&self, id: NodeId, incarnation: Incarnation) -> bool {
        self.nodes
            .get(&id)
            .is_some_and(|lease| lease.info.incarnation == incarnation)
    }

    /// The others that hold a lease, in no order.
    pub fn live(&self) -> impl Iterator<Item = &std::sync::Arc<NodeInfo>> {
        self.nodes.values().map(|lease| &lease.info)
    }

    fn end(&mut self, id: NodeId, events: &mut Vec<NodeEvent>) {
        if let Some(lease) = self.nodes.remove(&id) {
            events.push(NodeEvent::Down(id, lease.info.incarnation));
        }
    }
}

/// This node's own lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLease {
    /// What it is written as.
    pub incarnation: Incarnation,
    /// The last revision of its key that this node knows; 0 = never written.
    pub revision: u64,
    held: bool,
    /// It may have been written: an answer did not come.
    maybe: bool,
}

impl OwnLease {
    /// Not written yet.
    pub fn new() -> Self {
        Self {
            incarnation: Incarnation::FIRST,
            revision: 0,
            held: false,
            maybe: false,
        }
    }

    /// A write of it was stored. True if this was the first of its incarnation.
    pub fn on_renewed(&mut self, revision: u64) -> bool {
        self.revision = revision;
        !std::mem::replace(&mut self.held, true)
    }

    /// A write of it has no answer: it was stored, or was not.
    pub fn on_unanswered(&mut self) {
        self.maybe = true;
    }

    /// The compare-and-set failed, and the bucket has this instead: the incarnation that the key holds,
    /// if it holds any, at `revision`.
    pub fn on_lost_race(&mut self, held: Option<Incarnation>, revision: u64) {
        self.revision = revision;
        // A write of ours whose acknowledgement was lost is no reason to begin anew.
        if held != Some(self.incarnation) && (self.held || self.maybe) {
            self.incarnation = self.incarnation.next();
            self.held = false;
            self.maybe = false;
        }
    }
}

impl Default for OwnLease {
    fn default() -> Self {
        Self::new()
    }
}
