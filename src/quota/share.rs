/// A node's part of one quota: what it admits by, and what it is about to.
///
/// A part is lowered at once. A higher one is proposed first, and is in force only once every other node has
/// said that it has heard of the proposal, and not beyond what their own claims leave. A claim is the larger
/// one of what is in force and what is proposed, so whoever proposes later counts it. Of all parts in force
/// the one that was raised last had, when it was, every other one among the claims that it saw: together they
/// are never more than the quota, whatever was lost or late, among nodes that know of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    in_force: u64,
    proposed: Option<Proposed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proposed {
    part: u64,
    /// In which round it was told first.
    round: u64,
}

/// What a decision goes by.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// What the part should be, by what all nodes want.
    pub target: u64,
    /// What the claims of all others leave of the quota.
    pub free: u64,
    /// What the node holds, below which it cannot go.
    pub held: u64,
    /// All others have heard this node up to this round.
    pub acknowledged: u64,
    /// The round in which what is decided now is told.
    pub round: u64,
}

impl Share {
    /// A node begins with this part.
    pub fn new(part: u64) -> Self {
        Self {
            in_force: part,
            proposed: None,
        }
    }

    /// What the node admits by.
    pub fn in_force(&self) -> u64 {
        self.in_force
    }

    /// What other nodes must leave to it.
    pub fn claim(&self) -> u64 {
        self.proposed
            .map_or(self.in_force, |proposed| proposed.part.max(self.in_force))
    }

    /// The node holds so much, whatever its part.
    pub fn hold(&mut self, held: u64) {
        self.in_force = self.in_force.max(held);
    }

    /// One round.
    pub fn decide(&mut self, view: &View) {
        self.take_effect(view);
        if view.target < self.in_force {
            self.in_force = view.target.max(view.held);
            self.proposed = None;
        } else if view.target == self.in_force {
            self.proposed = None;
        } else {
            match &mut self.proposed {
                // What was told first may be made less, not more.
                Some(proposed) => proposed.part = proposed.part.min(view.target),
                None => {
                    self.proposed = Some(Proposed {
                        part: view.target,
                        round: view.round,
                    });
                }
            }
        }
        self.take_effect(view);
    }

    fn take_effect(&mut self, view: &View) {
        if let Some(proposed) = self.proposed
            && proposed.round <= view.acknowledged
        {
            self.in_force = self.in_force.max(proposed.part.min(view.free));
            self.proposed = None;
        }
    }
}
