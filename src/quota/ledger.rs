//! What one node adds to a count that all nodes share: each addition is counted once, whatever becomes of the
//! answers. Pure.

use std::collections::BTreeMap;

use crate::model::NodeId;

/// What is counted.
pub trait Amount: Clone + Default {
    /// Whether there is nothing to add.
    fn is_nothing(&self) -> bool;

    /// More of it.
    fn add(&mut self, more: &Self);

    /// Less of it; no less than nothing.
    fn subtract(&mut self, less: &Self);
}

/// Up to which of its additions each node's are in a count.
pub type Marks = BTreeMap<NodeId, u64>;

/// What a node is about to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition<A> {
    /// Which one of this node's.
    pub number: u64,
    /// How much.
    pub amount: A,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Ledger<A> {
    /// Counted here and not stored yet.
    own: A,
    /// What of that is being stored, maybe is already.
    adding: Option<Addition<A>>,
    /// How many additions there were.
    additions: u64,
    /// A mark of this node has been seen in what was stored.
    marked: bool,
    /// Which one of what was stored is known.
    revision: u64,
    /// Somebody has looked whether anything is stored.
    known: bool,
}

/// Writes an addition of the node `me` down; false if it is in the count already. `lives` tells which nodes there
/// are: marks of others are let go.
pub fn enter(marks: &mut Marks, me: NodeId, number: u64, lives: impl Fn(NodeId) -> bool) -> bool {
    if marks.get(&me).is_some_and(|mark| *mark >= number) {
        return false;
    }
    marks.retain(|node, _| lives(*node));
    marks.insert(me, number);
    true
}

impl<A: Amount> Ledger<A> {
    /// What was counted here and is not stored yet.
    pub fn own(&self) -> &A {
        &self.own
    }

    /// The same, to add to it or to take from it what counts no more.
    pub fn own_mut(&mut self) -> &mut A {
        &mut self.own
    }

    /// What is to be stored now: what could not be before, or else all that is not.
    pub fn addition(&mut self) -> Option<&Addition<A>> {
        // Before it is known what this node has added, its numbers could be those of before.
        if self.adding.is_none() && !self.own.is_nothing() && self.known {
            self.additions += 1;
            self.adding = Some(Addition {
                number: self.additions,
                amount: self.own.clone(),
            });
        }
        self.adding.as_ref()
    }

    /// Counts from nothing. What was not stored is of no use any more.
    pub fn begin_anew(&mut self) {
        self.own = A::default();
        self.adding = None;
        self.marked = false;
    }

    /// What is told next counts, unless the store was lost: it is the leader's.
    pub fn on_read(&mut self) {
        self.revision = 0;
    }

    /// Somebody has looked what is stored.
    pub fn on_known(&mut self) {
        self.known = true;
    }

    /// Nothing is stored: no mark can have been let go of either.
    pub fn on_nothing(&mut self) {
        self.known = true;
        self.marked = false;
    }

    /// Whether somebody has looked what is stored.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// A count with these marks is stored, by whichever node. Whether it is news: it may be told late, and again.
    pub fn on_stored(&mut self, marks: &Marks, revision: u64, me: NodeId) -> bool {
        if revision <= self.revision {
            return false;
        }
        self.revision = revision;
        let mark = marks.get(&me).copied();
        let added = self.adding.as_ref().is_some_and(|adding| match mark {
            Some(mark) => mark >= adding.number,
            // It had one, which was let go of while this node was thought to be gone: whether the last
            // addition is counted nobody knows, and it is not counted twice.
            None => self.marked,
        });
        if added {
            self.settle();
        }
        if let Some(mark) = mark {
            self.marked = true;
            if self.adding.is_none() {
                self.additions = self.additions.max(mark);
            }
        }
        self.known = true;
        true
    }

    /// What was to be added as this number will not be.
    pub fn give_up(&mut self, number: u64) {
        if self.adding.as_ref().is_some_and(|adding| adding.number == number) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if let Some(added) = self.adding.take() {
            self.own.subtract(&added.amount);
        }
    }
}

impl Amount for u64 {
    fn is_nothing(&self) -> bool {
        *self == 0
    }

    fn add(&mut self, more: &Self) {
        *self = self.saturating_add(*more);
    }

    fn subtract(&mut self, less: &Self) {
        *self = self.saturating_sub(*less);
    }
}
