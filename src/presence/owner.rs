//! What a node holds of one channel itself. Pure.
//!
//! What the others have not been told is kept as one change a connection, the last one: a change says
//! what *is*, not what happened, so that it can be told twice.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::member::Member;

#[cfg(test)]
mod tests;

/// The members that have their connections here.
#[derive(Debug, Default)]
pub struct Owner {
    members: HashMap<Box<str>, Held>,
    /// What the others have been told last; 0 = that there is nobody, or nothing.
    version: u64,
    /// Not told yet: connections that are as `members` has them.
    changed: Vec<Box<str>>,
    /// The lost connections of each user, so that a join in a storm looks at its own user's alone.
    /// Anonymous ones are nobody's.
    lost: HashMap<Box<str>, BTreeSet<Box<str>>>,
}

#[derive(Debug)]
struct Held {
    member: Arc<Member>,
    /// Its connection is lost: it stays until then, ms.
    until: Option<u64>,
}

/// A change of a channel at its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The version that it follows; 0 = there was nobody, and it says all.
    pub from: u64,
    /// The version after it. Versions of one incarnation of a node ascend over all channels.
    pub to: u64,
    /// These are there, as given.
    pub put: Vec<Arc<Member>>,
    /// These are not.
    pub left: Vec<Box<str>>,
}

/// All that an owner holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The owner's version over all channels when it was made: deltas up to it add nothing.
    pub version: u64,
    /// Everybody.
    pub members: Vec<Arc<Member>>,
}

impl Owner {
    /// A connection has come, or is as given from now on.
    pub fn put(&mut self, member: Arc<Member>) {
        let client = member.client.clone();
        let before = self.members.insert(client.clone(), Held { member, until: None });
        if let Some(held) = before {
            self.found(&held);
        }
        self.changed.push(client);
    }

    /// A connection has gone; what it was, if it was there.
    pub fn leave(&mut self, client: &str) -> Option<Arc<Member>> {
        let (client, held) = self.members.remove_entry(client)?;
        self.found(&held);
        self.changed.push(client);
        Some(held.member)
    }

    /// A connection is lost: it counts as there until `until`. False if it is not there.
    pub fn linger(&mut self, client: &str, until: u64) -> bool {
        let Some(held) = self.members.get_mut(client) else {
            return false;
        };
        let user = &held.member.user;
        if held.until.replace(until).is_none() && !user.is_empty() {
            self.lost.entry(user.clone()).or_default().insert(client.into());
        }
        true
    }

    /// Ends a lost connection if its time is over.
    pub fn end_lingering(&mut self, client: &str, now: u64) -> Option<Arc<Member>> {
        let held = self.members.get(client)?;
        let over = held.until.is_some_and(|until| until <= now);
        over.then(|| self.leave(client)).flatten()
    }

    /// Ends the lost connections of a user who has come `back` with another one. Of anonymous ones nobody
    /// knows whose they are.
    ///
    /// Only those that had come before it end: what is heard of another node may be old, and two
    /// connections that are both lost must not end for each other's sake.
    pub fn end_lingering_of(&mut self, back: &Member) -> Vec<Arc<Member>> {
        let lost = self.lost.get(&back.user).into_iter().flatten();
        let before = lost.filter(|client| {
            let held = self.members.get(*client);
            held.is_some_and(|held| back.came_after(&held.member))
        });
        let before: Vec<_> = before.cloned().collect();
        before.iter().filter_map(|client| self.leave(client)).collect()
    }

    /// A connection, lost ones included.
    pub fn get(&self, client: &str) -> Option<&Arc<Member>> {
        self.members.get(client).map(|held| &held.member)
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether there is something to tell.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the others have been told last.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What is to be told next, as version `to`, of about `room` bytes; `None` if nothing is. What does
    /// not fit follows with the next call.
    pub fn take_delta(&mut self, to: u64, room: usize) -> Option<Delta> {
        if self.changed.is_empty() {
            return None;
        }
        self.changed.sort_unstable_by(|a, b| b.cmp(a));
        self.changed.dedup();
        let mut delta = Delta {
            from: self.version,
            to,
            put: Vec::new(),
            left: Vec::new(),
        };
        let mut size = 0;
        // In the order of their names, of which the first are at the end.
        while size < room
            && let Some(client) = self.changed.pop()
        {
            if let Some(held) = self.members.get(&client) {
                size += held.member.size();
                delta.put.push(held.member.clone());
            } else {
                size += client.len() + 4;
                delta.left.push(client);
            }
        }
        if delta.from == 0 && !self.changed.is_empty() {
            // Not all of it: who takes it for all would see the others leave. It follows the version before
            // it, and who has not heard that one asks.
            delta.from = to.saturating_sub(1).max(1);
        }
        // Who has been told of nobody need not remember a version of it.
        let nobody = self.members.is_empty() && self.changed.is_empty();
        self.version = if nobody { 0 } else { to };
        Some(delta)
    }

    /// Everybody, with what has not been told yet. `version` is the last one given to a delta, of any
    /// channel.
    pub fn snapshot(&self, version: u64) -> Snapshot {
        Snapshot {
            version,
            members: self.members.values().map(|held| held.member.clone()).collect(),
        }
    }

    /// A connection that may have been lost is not any more.
    fn found(&mut self, held: &Held) {
        if held.until.is_none() {
            return;
        }
        let Held { member, .. } = held;
        if let Some(lost) = self.lost.get_mut(&member.user) {
            lost.remove(&member.client);
            if lost.is_empty() {
                self.lost.remove(&member.user);
            }
        }
    }
}
