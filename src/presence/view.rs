//! What a node knows of a channel's members on all nodes, itself included. Pure.
//!
//! For each node that holds a lease there is a *replica* of what that node, in its present incarnation,
//! has said. A node that has not been heard yet is *asked*; until it has answered, or is gone, the view
//! is not complete and says so. Deltas continue a replica, or leave a hole, and then the node is asked
//! again. All that a message can do here is to make a replica equal to what its owner had: it may come
//! late, twice, or be lost.

use std::{collections::HashMap, sync::Arc};

use crate::model::{Incarnation, NodeId};

use super::{member::Member, owner::Delta};

#[cfg(test)]
mod tests;

/// The members of a channel, by node.
#[derive(Debug, Default)]
pub struct View {
    replicas: HashMap<NodeId, Replica>,
    /// How many connections each user has.
    users: HashMap<Box<str>, u32>,
    connections: usize,
}

#[derive(Debug)]
struct Replica {
    incarnation: Incarnation,
    /// Everything up to here has been heard; deltas up to it are repeats.
    version: u64,
    /// The version that is known to exist: what is older does not answer the question.
    known: u64,
    whole: bool,
    members: HashMap<Box<str>, Arc<Member>>,
}

/// What others see happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A connection has come.
    Joined(Arc<Member>),
    /// A connection shows another state or info.
    Updated(Arc<Member>),
    /// A connection has gone.
    Left(Arc<Member>),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The replica is what its owner had.
    Current,
    /// Something is missing: ask the node.
    Ask,
    /// Of a node, or an incarnation, that does not count; or a repeat.
    Ignored,
}

impl View {
    /// A node holds a lease. True if it has to be asked.
    pub fn node_up(&mut self, id: NodeId, incarnation: Incarnation, seen: &mut Vec<Seen>) -> bool {
        if let Some(replica) = self.replicas.get(&id) {
            if replica.incarnation >= incarnation {
                return !replica.whole;
            }
            self.drop_replica(id, seen);
        }
        let replica = Replica {
            incarnation,
            version: 0,
            known: 0,
            whole: false,
            members: HashMap::new(),
        };
        self.replicas.insert(id, replica);
        true
    }

    /// An incarnation of a node is over: all that it has said goes.
    pub fn node_down(&mut self, id: NodeId, incarnation: Incarnation, seen: &mut Vec<Seen>) {
        let known = self.replicas.get(&id);
        if known.is_some_and(|replica| replica.incarnation <= incarnation) {
            self.drop_replica(id, seen);
        }
    }

    /// A change at a node.
    pub fn on_delta(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        delta: &Delta,
        seen: &mut Vec<Seen>,
    ) -> Heard {
        let Some(replica) = self.replica(id, incarnation) else {
            return Heard::Ignored;
        };
        if delta.to <= replica.version {
            return Heard::Ignored;
        }
        if delta.from == 0 {
            return self.on_snapshot(id, incarnation, delta.to, &delta.put, seen);
        }
        // What a delta says is how things are at `to`, so that what it repeats does no harm.
        if !replica.whole || delta.from > replica.version {
            replica.known = replica.known.max(delta.to);
            replica.whole = false;
            return Heard::Ask;
        }
        replica.version = delta.to;
        for member in &delta.put {
            self.put(id, member, seen);
        }
        for client in &delta.left {
            self.remove(id, client, seen);
        }
        Heard::Current
    }

    /// All that a node holds, as of `version`.
    pub fn on_snapshot(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
        version: u64,
        members: &[Arc<Member>],
        seen: &mut Vec<Seen>,
    ) -> Heard {
        let Some(replica) = self.replica(id, incarnation) else {
            return Heard::Ignored;
        };
        if version < replica.known {
            return Heard::Ask;
        }
        if version < replica.version {
            return Heard::Ignored;
        }
        replica.version = version;
        replica.whole = true;
        let there: std::collections::HashSet<_> = members.iter().map(|member| &member.client).collect();
        let gone: Vec<_> = replica
            .members
            .keys()
            .filter(|client| !there.contains(client))
            .cloned()
            .collect();
        for member in members {
            self.put(id, member, seen);
        }
        for client in gone {
            self.remove(id, &client, seen);
        }
        Heard::Current
    }

    /// A node's digest, made when its versions had come to `at`: the channel has `version` there, or
    /// (`None`) nobody. True if the node has to be asked.
    pub fn on_digest(&mut self, id: NodeId, incarnation: Incarnation, version: Option<u64>, at: u64) -> bool {
        let Some(replica) = self.replica(id, incarnation) else {
            return false;
        };
        let lost = match version {
            Some(version) => version > replica.version,
            None => !replica.members.is_empty() && replica.version <= at,
        };
        if lost {
            replica.known = replica.known.max(version.unwrap_or(at));
            replica.whole = false;
        }
        !replica.whole
    }

    /// What the others said may not have come: they have to be asked. What is known is shown meanwhile.
    pub fn doubt(&mut self, me: NodeId) {
        for (_, replica) in self.replicas.iter_mut().filter(|(id, _)| **id != me) {
            replica.known = replica.known.max(replica.version);
            replica.whole = false;
        }
    }

    /// This node's own change, shown at once.
    pub fn put_own(&mut self, me: NodeId, member: &Arc<Member>, seen: &mut Vec<Seen>) {
        self.put(me, member, seen);
    }

    /// The same for one that has gone.
    pub fn remove_own(&mut self, me: NodeId, client: &str, seen: &mut Vec<Seen>) {
        self.remove(me, client, seen);
    }

    /// This node itself: always heard.
    pub fn set_own(&mut self, me: NodeId, incarnation: Incarnation) {
        let replica = self.replicas.entry(me).or_insert_with(|| Replica {
            incarnation,
            version: 0,
            known: 0,
            whole: true,
            members: HashMap::new(),
        });
        replica.incarnation = incarnation;
    }

    /// Whether all nodes have been heard.
    pub fn is_complete(&self) -> bool {
        self.replicas.values().all(|replica| replica.whole)
    }

    /// The nodes that have not answered.
    pub fn missing(&self) -> Vec<NodeId> {
        let missing = self.replicas.iter().filter(|(_, replica)| !replica.whole);
        let mut missing: Vec<_> = missing.map(|(id, _)| *id).collect();
        missing.sort();
        missing
    }

    /// Whether a node has to be asked.
    pub fn is_missing(&self, id: NodeId) -> bool {
        self.replicas.get(&id).is_some_and(|replica| !replica.whole)
    }

    /// The nodes that it knows of, in their incarnations.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Incarnation)> {
        self.replicas
            .iter()
            .map(|(id, replica)| (*id, replica.incarnation))
    }

    /// How many connections are there.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// How many users are there; all anonymous ones are one.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Everybody, in no order.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.replicas
            .values()
            .flat_map(|replica| replica.members.values())
    }

    fn replica(&mut self, id: NodeId, incarnation: Incarnation) -> Option<&mut Replica> {
        let replica = self.replicas.get_mut(&id)?;
        (replica.incarnation == incarnation).then_some(replica)
    }

    fn put(&mut self, id: NodeId, member: &Arc<Member>, seen: &mut Vec<Seen>) {
        let Some(replica) = self.replicas.get_mut(&id) else {
            return;
        };
        match replica.members.insert(member.client.clone(), member.clone()) {
            Some(before) if before == *member => {}
            Some(before) if before.user == member.user => seen.push(Seen::Updated(member.clone())),
            // Nobody can be another user: somebody has told wrongly, and is believed again.
            Some(before) => {
                self.uncount(&before);
                seen.push(Seen::Left(before));
                self.count(member);
                seen.push(Seen::Joined(member.clone()));
            }
            None => {
                self.count(member);
                seen.push(Seen::Joined(member.clone()));
            }
        }
    }

    fn remove(&mut self, id: NodeId, client: &str, seen: &mut Vec<Seen>) {
        let replica = self.replicas.get_mut(&id);
        if let Some(member) = replica.and_then(|replica| replica.members.remove(client)) {
            self.uncount(&member);
            seen.push(Seen::Left(member));
        }
    }

    fn drop_replica(&mut self, id: NodeId, seen: &mut Vec<Seen>) {
        let Some(replica) = self.replicas.remove(&id) else {
            return;
        };
        for member in replica.members.into_values() {
            self.uncount(&member);
            seen.push(Seen::Left(member));
        }
    }

    fn count(&mut self, member: &Member) {
        self.connections += 1;
        *self.users.entry(member.user.clone()).or_default() += 1;
    }

    fn uncount(&mut self, member: &Member) {
        self.connections -= 1;
        if let Some(count) = self.users.get_mut(&member.user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&member.user);
            }
        }
    }
}
