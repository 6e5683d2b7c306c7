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
    /// In which round it was told first; from then on in each, until all have heard of it.
    round: u64,
}

/// What a decision goes by.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// What the part should be, by what all nodes want.
    pub target: u64,
    /// What the claims of all others leave of the quota: nothing, if one is not known.
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

    /// Nothing was told of it before `round`, beyond what all know who have heard the node up to `known`.
    pub fn put_off(&mut self, known: u64, round: u64) {
        if let Some(proposed) = &mut self.proposed
            && proposed.round > known
        {
            proposed.round = round;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_off_waits_for_those_who_hear_of_it() {
        // Proposed in round 5. Put off: what all had heard then, and until when. Acknowledged: is it in force?
        for (put_off, acknowledged, in_force) in [
            (None, 4, 10),
            (None, 5, 30),
            (Some((4, 8)), 5, 10),
            (Some((4, 8)), 7, 10),
            (Some((4, 8)), 8, 30),
            // All had heard of it by then.
            (Some((5, 8)), 5, 30),
        ] {
            let mut share = Share::new(10);
            let view = |acknowledged, round| View {
                target: 30,
                free: 40,
                held: 0,
                acknowledged,
                round,
            };
            share.decide(&view(3, 5));
            assert_eq!((share.in_force(), share.claim()), (10, 30));
            if let Some((known, round)) = put_off {
                share.put_off(known, round);
            }
            share.decide(&view(acknowledged, 9));
            assert_eq!(share.in_force(), in_force, "{put_off:?} {acknowledged}");
            assert_eq!(share.claim(), 30);
        }
    }
}
