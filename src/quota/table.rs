//! All quotas of a node, and what it knows of the other nodes'. Pure: what was heard goes in, what is to be
//! told comes out.
//!
//! Each round a node tells all that has changed since everybody has heard of it, and up to which round it has
//! heard the others: so nothing that is lost is lost for good, and nothing is told again that is known.
//!
//! If that is more than there is room for, some waits for its turn and the node says so: what it has told
//! nothing of yet may all be its own. What waits is not in force.

use std::collections::{BTreeMap, HashMap};

use super::{
    fair::{Wish, fair},
    kind::Kind,
    share::{Share, View},
    wire::{Entry, MAX_ENTRIES, MAX_MESSAGES, Telling},
};
use crate::model::{AppId, Incarnation, NodeId};

/// How many quotas there is room for.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Told in a round.
    told: usize,
    /// Remembered of each other node.
    remembered: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            told: MAX_ENTRIES * usize::from(MAX_MESSAGES),
            remembered: 1 << 18,
        }
    }
}

/// A quota of an app.
pub type Key = (AppId, Kind);

/// A quota as this node sees it now.
#[derive(Clone, Debug)]
pub struct Own {
    /// Which.
    pub key: Key,
    /// How much all nodes may have together.
    pub limit: u64,
    /// What this node holds, and what its clients want.
    pub wish: Wish,
}

/// What a node claims and wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    claim: u64,
    wish: Wish,
}

#[derive(Debug)]
struct Line {
    share: Share,
    limit: u64,
    told: Told,
    /// The round since which it is told, in each.
    since: u64,
    /// While not all know it.
    turn: Option<Turn>,
    /// What all nodes hold or want, this one included.
    used: u64,
}

/// When something is told, if there is not room for all: who comes first in this order does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// It is told since this round. That ends when all have heard one that had it, though it has changed since:
    /// what changes always keeps nobody waiting.
    Told(u64),
    /// It waits since this round.
    Waits(u64),
}

#[derive(Debug, Default)]
struct Peer {
    incarnation: Option<Incarnation>,
    /// The first round of this node that is for it: of earlier ones it may have heard, but they had not all.
    first: u64,
    /// The last of its rounds that was heard whole; 0 = none.
    heard: u64,
    /// Up to which round it has heard this node.
    acknowledged: u64,
    told: HashMap<Key, Told>,
    /// Not all that it claims is in `told`: there was more than it had room for, by the last round heard.
    more: bool,
    /// The same, for want of room here.
    forgotten: bool,
    /// A round of which some messages have come.
    arriving: Option<Arriving>,
}

#[derive(Debug)]
struct Arriving {
    round: u64,
    parts: BTreeMap<u16, Telling>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Table {
    me: NodeId,
    incarnation: Incarnation,
    room: Room,
    round: u64,
    peers: BTreeMap<NodeId, Peer>,
    lines: HashMap<Key, Line>,
}

impl Table {
    /// Of a node that knows no quotas and no other nodes.
    pub fn new(me: NodeId, incarnation: Incarnation) -> Self {
        Self {
            me,
            incarnation,
            room: Room::default(),
            round: 0,
            peers: BTreeMap::new(),
            lines: HashMap::new(),
        }
    }

    /// These are all the others that hold a lease, and this is this node's life.
    pub fn meet(&mut self, incarnation: Incarnation, others: &[(NodeId, Incarnation)]) {
        self.peers.retain(|id, peer| {
            let now = others.iter().find(|(other, _)| other == id);
            now.is_some_and(|(_, now)| peer.incarnation == Some(*now))
        });
        for (id, incarnation) in others.iter().filter(|(id, _)| *id != self.me) {
            self.peers.entry(*id).or_insert_with(|| Peer {
                incarnation: Some(*incarnation),
                first: self.round + 1,
                ..Peer::default()
            });
        }
        if incarnation != self.incarnation {
            self.begin_anew(incarnation);
        }
    }

    /// For the others this node was gone: they have shared what it had.
    fn begin_anew(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        let next = self.round + 1;
        for peer in self.peers.values_mut() {
            peer.first = next;
        }
        let keys: Vec<_> = self.lines.keys().cloned().collect();
        for key in keys {
            let Some(line) = self.lines.get(&key) else {
                continue;
            };
            let (limit, held, had) = (line.limit, line.told.wish.held, line.share.in_force());
            let first = self.first_part(&key, limit).min(had).max(held);
            if let Some(line) = self.lines.get_mut(&key) {
                line.share = Share::new(first);
                line.since = next;
                line.turn = None;
            }
        }
    }

    /// What another node has told.
    pub fn hear(&mut self, from: NodeId, telling: Telling) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if peer.incarnation != Some(telling.incarnation) || telling.round <= peer.heard {
            return;
        }
        let (round, parts) = (telling.round, telling.parts);
        let arriving = match &mut peer.arriving {
            Some(arriving) if arriving.round > round => return,
            Some(arriving) if arriving.round == round => arriving,
            other => other.insert(Arriving {
                round,
                parts: BTreeMap::new(),
            }),
        };
        arriving.parts.insert(telling.part, telling);
        if arriving.parts.len() < usize::from(parts) {
            return;
        }
        let Some(whole) = peer.arriving.take() else { return };
        peer.more = false;
        for telling in whole.parts.into_values() {
            peer.more |= telling.more;
            peer.acknowledged = telling.heard.get(&self.me).copied().unwrap_or(0);
            for Entry(app, kind, claim, held, wanted) in telling.entries {
                let told = Told {
                    claim,
                    wish: Wish { held, wanted },
                };
                let key = (app, kind);
                if told == Told::default() {
                    peer.told.remove(&key);
                } else if peer.told.len() < self.room.remembered || peer.told.contains_key(&key) {
                    peer.told.insert(key, told);
                } else {
                    peer.forgotten = true;
                }
            }
        }
        peer.heard = round;
    }

    /// Decides the parts of all quotas of this node anew; those that are not among `quotas` are given up.
    pub fn decide(&mut self, quotas: Vec<Own>) {
        self.round += 1;
        let acknowledged = self.acknowledged();
        let mut gone: Vec<_> = self.lines.keys().cloned().collect();
        gone.sort_unstable();
        for own in quotas {
            if let Ok(at) = gone.binary_search(&own.key) {
                gone.remove(at);
            }
            self.decide_one(own, acknowledged);
        }
        let round = self.round;
        for key in gone {
            if let Some(line) = self.lines.get_mut(&key) {
                line.share = Share::new(0);
                line.used = 0;
                line.tell(Told::default(), round);
                if line.since <= acknowledged {
                    self.lines.remove(&key);
                }
            }
        }
    }

    fn decide_one(&mut self, own: Own, acknowledged: u64) {
        let Own { key, limit, wish } = own;
        let nodes = self.tolds(&key, limit);
        let claimed = nodes.iter().map(|node| node.told.claim);
        let free = if nodes.iter().all(|node| node.known) {
            limit.saturating_sub(claimed.fold(0, u64::saturating_add))
        } else {
            0
        };
        // What a node wants that was not heard yet nobody knows: it has its part, and the others have the rest.
        let (heard, unheard): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.known);
        let apart = unheard.iter().map(|node| node.told.claim);
        let shared = limit.saturating_sub(apart.fold(0, u64::saturating_add));
        let mut wishes: Vec<_> = heard.iter().map(|node| (node.id, node.told.wish)).collect();
        wishes.push((self.me, wish));
        wishes.sort_unstable_by_key(|(id, _)| *id);
        let mine = wishes.iter().position(|(id, _)| *id == self.me).unwrap_or(0);
        let wishes: Vec<_> = wishes.into_iter().map(|(_, wish)| wish).collect();
        let used = wishes.iter().map(|wish| wish.held.max(wish.wanted));
        let used = used.fold(0, u64::saturating_add);
        let target = fair(shared, &wishes)[mine];
        let round = self.round;
        if !self.lines.contains_key(&key) {
            let first = self.first_part(&key, limit);
            let line = Line {
                share: Share::new(first.max(wish.held)),
                limit,
                told: Told::default(),
                since: round,
                turn: None,
                used,
            };
            self.lines.insert(key.clone(), line);
        }
        let Some(line) = self.lines.get_mut(&key) else {
            return;
        };
        (line.limit, line.used) = (limit, used);
        line.share.hold(wish.held);
        line.share.decide(&View {
            target,
            free,
            held: wish.held,
            acknowledged,
            round,
        });
        let claim = line.share.claim();
        line.tell(Told { claim, wish }, round);
    }

    /// The node turned out to hold more of a quota than its part is now.
    pub fn hold(&mut self, key: &Key, held: u64) {
        let round = self.round;
        if let Some(line) = self.lines.get_mut(key) {
            line.share.hold(held);
            let claim = line.share.claim();
            let wish = Wish {
                held,
                ..line.told.wish
            };
            line.tell(Told { claim, wish }, round);
        }
    }

    /// What there is to tell of the last round.
    pub fn tell(&mut self) -> Vec<Telling> {
        // To nobody nothing.
        let known = self.acknowledged();
        let round = self.round;
        let mut news = Vec::new();
        for (key, line) in &mut self.lines {
            line.turn = line.turn_at(known, round);
            if let Some(turn) = line.turn {
                news.push((turn, key, line));
            }
        }
        news.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let more = news.len() > self.room.told;
        let mut entries = Vec::new();
        for (turn, (app, kind), line) in news {
            if entries.len() == self.room.told {
                // Who hears this round has not heard of it.
                line.since = round + 1;
                line.share.put_off(known, round + 1);
                continue;
            }
            if let Turn::Waits(_) = turn {
                line.turn = Some(Turn::Told(round));
            }
            let Told { claim, wish } = line.told;
            entries.push(Entry(app.clone(), *kind, claim, wish.held, wish.wanted));
        }
        let heard: BTreeMap<_, _> = self.peers.iter().map(|(id, peer)| (*id, peer.heard)).collect();
        let mut parts: Vec<_> = entries.chunks(MAX_ENTRIES).map(<[Entry]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        (0..)
            .zip(parts)
            .map(|(part, entries)| Telling {
                incarnation: self.incarnation,
                round: self.round,
                part,
                parts: count,
                heard: heard.clone(),
                more,
                entries,
            })
            .collect()
    }

    /// What this node admits by.
    pub fn part(&self, key: &Key) -> Option<u64> {
        self.lines.get(key).map(|line| line.share.in_force())
    }

    /// What all nodes hold or want of a quota, as far as this one has heard.
    pub fn used(&self, key: &Key) -> Option<u64> {
        self.lines.get(key).map(|line| line.used)
    }

    /// Up to which round all others have heard this node, in this life; without end if there are none.
    fn acknowledged(&self) -> u64 {
        let all = self.peers.values().map(Peer::acknowledged);
        all.min().unwrap_or(u64::MAX)
    }

    /// What the others have told of a quota. Whoever may not have told of it is taken to have begun with the
    /// part that is its by then.
    fn tolds(&self, key: &Key, limit: u64) -> Vec<Seen> {
        let parts = self.equal_parts(limit);
        let of = |(id, peer): (&NodeId, &Peer)| {
            let told = peer.told.get(key).copied();
            let known = told.is_some() || peer.is_whole();
            let claim = parts.get(id).copied().unwrap_or(0);
            let begun = Told {
                claim: if known { 0 } else { claim },
                ..Told::default()
            };
            Seen {
                id: *id,
                told: told.unwrap_or(begun),
                known,
            }
        };
        self.peers.iter().map(of).collect()
    }

    /// What this node begins with: as much as any other, if that is not known to be taken.
    fn first_part(&self, key: &Key, limit: u64) -> u64 {
        let equal = self.equal_parts(limit).get(&self.me).copied().unwrap_or(0);
        let claimed = self.tolds(key, limit).into_iter().map(|node| node.told.claim);
        equal.min(limit.saturating_sub(claimed.fold(0, u64::saturating_add)))
    }

    fn equal_parts(&self, limit: u64) -> BTreeMap<NodeId, u64> {
        let mut ids: Vec<_> = self.peers.keys().copied().collect();
        ids.push(self.me);
        ids.sort_unstable();
        let parts = fair(limit, &vec![Wish::default(); ids.len()]);
        ids.into_iter().zip(parts).collect()
    }
}

/// Another node's part of a quota.
struct Seen {
    id: NodeId,
    told: Told,
    /// Whether it has told that.
    known: bool,
}

impl Peer {
    /// Up to which round it has heard this node, of those that are for it.
    fn acknowledged(&self) -> u64 {
        if self.acknowledged < self.first {
            0
        } else {
            self.acknowledged
        }
    }

    /// Whether it claims nothing beyond what is remembered.
    fn is_whole(&self) -> bool {
        self.heard > 0 && !self.more && !self.forgotten
    }
}

impl Line {
    /// `None` if all know it: they have heard the node up to `known`.
    fn turn_at(&self, known: u64, round: u64) -> Option<Turn> {
        if self.since <= known {
            return None;
        }
        match self.turn {
            Some(Turn::Told(first)) if first <= known => Some(Turn::Waits(round)),
            turn => Some(turn.unwrap_or(Turn::Waits(round))),
        }
    }

    fn tell(&mut self, told: Told, round: u64) {
        if self.told != told {
            self.told = told;
            self.since = round;
        }
    }
}

#[cfg(test)]
mod tests;
