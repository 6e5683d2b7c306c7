//! A node's reader of a channel (L7-L9): what it has whole, where a gap is, and who gets what.
//!
//! Pure: the driver hands in copies, pages, floors and checks, and does what [`Tail::need`] and
//! [`Tail::take_effects`] ask for. Every decision about wholeness of a *live* channel is here; what
//! a page proves is in [`super::recovery`].

use std::{collections::VecDeque, sync::Arc};

use crate::model::Offset;

use super::{
    cursor::{Batch, Cursor, CursorKey, Cursors, Outlet},
    entry::{Entry, Message},
    mailbox::{Offer, Pace},
    recovery::{Target, floor_holds},
    ring::{Ring, RingLimits},
};

mod join;
#[cfg(test)]
mod tests;

pub use join::{Fed, Feed, Join, Joined};

/// The bounds of one tail.
#[derive(Clone, Copy, Debug)]
pub struct TailLimits {
    /// Its ring.
    pub ring: RingLimits,
    /// Bytes of copies kept while a gap is read.
    pub gap_bytes: usize,
    /// Bytes of publications in one page.
    pub page_bytes: usize,
}

/// A live copy as it arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The message.
    pub message: Message,
    /// `Nats-Last-Sequence`.
    pub prev: Offset,
}

/// What the tail needs from the log before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is whole (or has not begun).
    Nothing,
    /// Whether everything after `position` is still retained: a floor learnt from now on.
    Floor {
        /// The watermark to prove.
        position: Offset,
        /// What a vouching tail of another node must reach.
        reach: Offset,
    },
    /// Everything after `from`, as far as `target`.
    Read {
        /// The watermark to read from.
        from: Offset,
        /// What is known to exist.
        target: Target,
    },
}

/// What the driver must do for cursors.
#[derive(Debug)]
pub struct Effects<O> {
    /// These fell behind: feed them.
    pub behind: Vec<CursorKey>,
    /// These ended, since something is missing for them: unsubscribe 2500 (3010 if server-side).
    pub ended: Vec<O>,
    /// Publications handed to outlets.
    pub delivered: u64,
    /// Bytes of their frames.
    pub delivered_bytes: u64,
    /// Messages no program can read, passed over.
    pub malformed: u64,
    /// Gaps that opened.
    pub gaps: u64,
    /// Gaps that could not be closed.
    pub lost: u64,
    /// Live copies for which a gap's buffer had no room.
    pub overflowed: u64,
    /// Publications that left the ring to make room.
    pub evicted: u64,
    /// Publications that left the ring since the history was removed.
    pub removed: u64,
}

impl<O> Default for Effects<O> {
    fn default() -> Self {
        Self {
            behind: Vec::new(),
            ended: Vec::new(),
            delivered_bytes: 0,
            delivered: 0,
            malformed: 0,
            gaps: 0,
            lost: 0,
            overflowed: 0,
            evicted: 0,
            removed: 0,
        }
    }
}

/// See the module's documentation. `O` is where a cursor's publications go.
#[derive(Debug)]
pub struct Tail<O> {
    limits: TailLimits,
    /// W: it has every message of its channel up to here.
    whole_to: Offset,
    /// L: the last message it has seen.
    last: Option<Offset>,
    /// `last` is the last one the log had at `whole_to` (it has looked, or has seen one since).
    looked: bool,
    phase: Phase,
    ring: Ring,
    cursors: Cursors<O>,
    effects: Effects<O>,
}

#[derive(Debug)]
enum Phase {
    Starting,
    Whole,
    Gap(Gap),
}

#[derive(Debug)]
struct Gap {
    need: Need,
    /// Copies that arrived meanwhile, in order.
    waiting: VecDeque<Arrival>,
    bytes: usize,
    /// The highest copy that found no room in `waiting`.
    dropped_to: Offset,
}

impl<O: Outlet> Tail<O> {
    /// A tail that has not begun: its interest is being set up.
    pub fn new(limits: TailLimits) -> Self {
        Self {
            limits,
            whole_to: 0,
            last: None,
            looked: false,
            phase: Phase::Starting,
            ring: Ring::new(0),
            cursors: Cursors::default(),
            effects: Effects::default(),
        }
    }

    /// The interest is set up and afterwards the shard's leader named `last_seq`: from here on
    /// everything arrives, or leaves a trace.
    pub fn begin(&mut self, last_seq: Offset) {
        self.whole_to = last_seq;
        self.last = None;
        self.looked = false;
        self.ring.reset(last_seq);
        self.phase = Phase::Whole;
    }

    /// Whether [`Tail::begin`] has been called since the start or the last reset.
    pub fn has_begun(&self) -> bool {
        !matches!(self.phase, Phase::Starting)
    }

    /// W: it has every message of its channel up to here.
    pub fn whole_to(&self) -> Offset {
        self.whole_to
    }

    /// L: the last message it has seen.
    #[cfg(test)]
    pub fn last(&self) -> Option<Offset> {
        self.last
    }

    /// Whether `last` is the last message the log had at `whole_to`: it has looked, or seen one.
    pub fn has_looked(&self) -> bool {
        self.looked
    }

    /// Its ring, for readers of recent history.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Its ring, to let publications go.
    pub fn ring_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Its cursors.
    pub fn cursors(&self) -> &Cursors<O> {
        &self.cursors
    }

    /// What is needed to close the gap.
    pub fn need(&self) -> Need {
        match &self.phase {
            Phase::Gap(gap) => gap.need,
            Phase::Starting | Phase::Whole => Need::Nothing,
        }
    }

    /// Whether nothing is missing up to `whole_to` and after it nothing is being waited for.
    pub fn is_whole(&self) -> bool {
        matches!(self.phase, Phase::Whole)
    }

    /// What has to be done since the last call.
    pub fn take_effects(&mut self) -> Effects<O> {
        std::mem::take(&mut self.effects)
    }

    /// Live copies in the order they came. They may repeat, and some may be missing. `pace` says how
    /// what continues is handed to its readers.
    pub fn on_copies(&mut self, pace: Pace, arrivals: impl IntoIterator<Item = Arrival>) {
        let mut batch = Batch::new(pace);
        for arrival in arrivals {
            self.on_copy(arrival, &mut batch);
        }
        self.deliver(&batch);
    }

    /// A floor learnt since [`Need::Floor`]. Returns false if it does not hold: then another tail
    /// may vouch ([`Tail::on_read`]), or the gap is lost ([`Tail::lose`]).
    pub fn on_floor(&mut self, floor: Offset) -> bool {
        let Phase::Gap(gap) = &self.phase else { return true };
        let Need::Floor { position, reach } = gap.need else {
            return true;
        };
        if !floor_holds(position, floor) {
            return false;
        }
        let Phase::Gap(gap) = std::mem::replace(&mut self.phase, Phase::Whole) else {
            return true;
        };
        let mut batch = Batch::default();
        let mut waiting = gap.waiting;
        match waiting.front().map(|first| first.message.offset()) {
            // The copy that opened the gap.
            Some(first) if first == reach => {
                if let Some(first) = waiting.pop_front() {
                    self.append(first.message, &mut batch);
                }
            }
            Some(first) if first < reach => {}
            // It found no room with others: they are stored, and will be read.
            None if gap.dropped_to > 0 => {}
            _ => self.whole_to = self.whole_to.max(reach),
        }
        self.replay(waiting, gap.dropped_to, &mut batch);
        self.deliver(&batch);
        true
    }

    /// Proven messages: everything after the position asked for, up to `covered_to`. For
    /// [`Need::Read`] from the log, for either need from a tail of another node that vouches.
    pub fn on_read(&mut self, messages: Vec<Message>, covered_to: Offset) {
        let Phase::Gap(gap) = std::mem::replace(&mut self.phase, Phase::Whole) else {
            self.phase = Phase::Whole;
            return;
        };
        let mut batch = Batch::default();
        for message in messages {
            if message.offset() > self.last.unwrap_or(self.whole_to) {
                self.append(message, &mut batch);
            }
        }
        self.whole_to = self.whole_to.max(covered_to);
        let reached = match gap.need {
            Need::Read { target, .. } => self.whole_to >= target.last.unwrap_or(target.whole_to),
            Need::Floor { reach, .. } => self.whole_to >= reach,
            Need::Nothing => true,
        };
        if reached {
            self.replay(gap.waiting, gap.dropped_to, &mut batch);
        } else {
            let need = match gap.need {
                Need::Read { target, .. } => Need::Read {
                    from: self.whole_to,
                    target,
                },
                Need::Floor { reach, .. } => Need::Floor {
                    position: self.whole_to,
                    reach,
                },
                Need::Nothing => Need::Nothing,
            };
            self.phase = Phase::Gap(Gap { need, ..gap });
        }
        self.deliver(&batch);
    }

    /// The gap cannot be closed: those who would miss something end, and the tail starts anew at
    /// the first message it has behind the gap, or else at the `last_seq` that the leader named
    /// since ([`Tail::begin`]). What was said to exist may not be so.
    pub fn lose(&mut self, last_seq: Offset) {
        let Phase::Gap(gap) = std::mem::replace(&mut self.phase, Phase::Whole) else {
            self.phase = Phase::Whole;
            return;
        };
        match gap.waiting.front() {
            Some(first) => self.restart_at(first.message.offset()),
            None => {
                self.restart_at(last_seq.max(self.whole_to));
                // No message of this channel need be there.
                self.last = None;
                self.looked = false;
            }
        }
        let mut batch = Batch::default();
        self.replay(gap.waiting, gap.dropped_to, &mut batch);
        self.deliver(&batch);
    }

    /// The shard's incarnation changed: nobody's offsets mean anything any more.
    pub fn reset(&mut self) {
        self.end_all();
        self.phase = Phase::Starting;
        self.whole_to = 0;
        self.last = None;
        self.looked = false;
        self.ring.reset(0);
    }

    /// A check (L11): the leader's `last_seq`, learnt before the channel's last message `last` was
    /// asked for from a copy that had everything up to it, and a floor learnt after that.
    pub fn on_check(&mut self, last_seq: Offset, floor: Offset, last: Option<Offset>) {
        if !self.is_whole() {
            return;
        }
        if let Some(found) = last.filter(|found| *found > self.whole_to) {
            self.open_gap(found);
            return;
        }
        if last_seq < self.whole_to {
            // The answer is older than the tail: there may have been later ones.
            return;
        }
        self.looked = true;
        // It may be older than the tail's first watermark.
        self.last = self.last.max(last);
        if last_seq == self.whole_to {
            return;
        }
        // Messages go oldest first: as long as an older one is stored, none behind it has gone.
        if last.is_some() || floor_holds(self.whole_to, floor) {
            self.whole_to = last_seq;
        } else {
            self.effects.gaps += 1;
            self.phase = Phase::Gap(Gap::new(Need::Floor {
                position: self.whole_to,
                reach: last_seq,
            }));
        }
    }

    /// Another node knows of a message whose live copy may not have come (L11).
    pub fn on_nudge(&mut self, offset: Offset) {
        if offset > self.whole_to && self.is_whole() {
            self.open_gap(offset);
        }
    }

    /// Removes a cursor; true if it was there.
    pub fn leave(&mut self, key: CursorKey) -> bool {
        self.cursors.remove(key).is_some()
    }

    /// `known` is stored, above W.
    fn open_gap(&mut self, known: Offset) {
        self.effects.gaps += 1;
        let target = Target {
            last: Some(known),
            whole_to: known,
        };
        self.phase = Phase::Gap(Gap::new(Need::Read {
            from: self.whole_to,
            target,
        }));
    }

    fn on_copy(&mut self, arrival: Arrival, batch: &mut Batch) {
        match &mut self.phase {
            Phase::Starting => return,
            Phase::Gap(gap) => {
                if arrival.message.offset() > self.whole_to {
                    self.effects.overflowed += gap.keep(arrival, self.limits.gap_bytes);
                }
                return;
            }
            Phase::Whole => {}
        }
        let offset = arrival.message.offset();
        if offset <= self.whole_to {
            return;
        }
        // What goes, goes oldest first: as `prev` was still stored, nothing stood between it and
        // this one, and everything up to W is known.
        let known = self.last.unwrap_or(1)..=self.whole_to;
        if arrival.prev != 0 && known.contains(&arrival.prev) {
            self.append(arrival.message, batch);
            return;
        }
        if arrival.prev > self.whole_to {
            self.open_gap(arrival.prev);
        } else {
            // The message before it has expired, or was never there: only the floor can tell.
            self.effects.gaps += 1;
            self.phase = Phase::Gap(Gap::new(Need::Floor {
                position: self.whole_to,
                reach: offset,
            }));
        }
        if let Phase::Gap(gap) = &mut self.phase {
            self.effects.overflowed += gap.keep(arrival, self.limits.gap_bytes);
        }
    }

    /// After a gap was closed: what arrived meanwhile.
    fn replay(&mut self, waiting: VecDeque<Arrival>, dropped_to: Offset, batch: &mut Batch) {
        for arrival in waiting {
            self.on_copy(arrival, batch);
        }
        if dropped_to > self.whole_to {
            match &mut self.phase {
                Phase::Whole => self.open_gap(dropped_to),
                Phase::Gap(gap) => gap.dropped_to = gap.dropped_to.max(dropped_to),
                Phase::Starting => {}
            }
        }
    }

    /// The next message of the channel, nothing missing before it.
    fn append(&mut self, message: Message, batch: &mut Batch) {
        let offset = message.offset();
        match message {
            Message::Publication(entry) => {
                let held = self.ring.len() + 1;
                self.ring.push(entry.clone(), self.limits.ring);
                self.effects.evicted += (held - self.ring.len()) as u64;
                batch.push(entry);
            }
            Message::Tombstone(_) => {
                self.effects.removed += self.ring.len() as u64;
                self.ring.reset(offset);
            }
            Message::Malformed(_) => self.effects.malformed += 1,
            Message::Opaque(_) => {
                self.deliver(batch);
                *batch = Batch::new(batch.pace());
                self.restart_at(offset);
            }
        }
        self.last = Some(offset);
        self.looked = true;
        self.whole_to = self.whole_to.max(offset);
    }

    fn restart_at(&mut self, offset: Offset) {
        self.effects.lost += 1;
        self.end_all();
        self.ring.reset(offset);
        self.whole_to = offset;
        self.last = Some(offset);
        self.looked = true;
    }

    fn end_all(&mut self) {
        let ended = self.cursors.take_all();
        self.effects
            .ended
            .extend(ended.into_iter().map(|(_, cursor)| cursor.outlet));
    }

    fn deliver(&mut self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        let mut closed = Vec::new();
        let first = batch.first().unwrap_or(0);
        let mut takers = 0;
        for (key, cursor) in self.cursors.iter_mut().filter(|(_, cursor)| cursor.live) {
            let had = cursor.delivered;
            match batch.offer(&cursor.outlet, &mut cursor.delivered) {
                Offer::Taken if had < first => takers += 1,
                // A client that is ahead of this node: it had a part of them.
                Offer::Taken => {
                    let (new, bytes) = batch.after(had);
                    self.effects.delivered += new as u64;
                    self.effects.delivered_bytes += bytes as u64;
                }
                Offer::Full => {
                    cursor.live = false;
                    self.effects.behind.push(key);
                }
                Offer::Closed => closed.push(key),
            }
        }
        // Once for all: the loop is the dearest of the node.
        self.effects.delivered += takers * batch.len() as u64;
        self.effects.delivered_bytes += takers * batch.bytes() as u64;
        for key in closed {
            // Its connection is about to leave; until then it must cost nothing.
            if let Some(cursor) = self.cursors.get_mut(key) {
                cursor.live = false;
            }
        }
    }
}

impl Gap {
    fn new(need: Need) -> Self {
        Self {
            need,
            waiting: VecDeque::new(),
            bytes: 0,
            dropped_to: 0,
        }
    }

    /// Keeps a copy for later; on overflow lets all of them go: they are read from the log then. Says
    /// how many it let go.
    fn keep(&mut self, arrival: Arrival, limit: usize) -> u64 {
        let offset = arrival.message.offset();
        if self.dropped_to > 0 {
            self.dropped_to = self.dropped_to.max(offset);
            return 1;
        }
        self.bytes += arrival.message.cost();
        self.waiting.push_back(arrival);
        if self.bytes > limit && self.waiting.len() > 1 {
            self.dropped_to = self
                .waiting
                .iter()
                .map(|kept| kept.message.offset())
                .max()
                .unwrap_or(offset);
            let dropped = std::mem::take(&mut self.waiting);
            self.bytes = 0;
            return dropped.len() as u64;
        }
        0
    }
}

/// Publications among `messages`.
pub(super) fn publications(messages: &[Message]) -> impl Iterator<Item = &Arc<Entry>> {
    messages.iter().filter_map(|message| match message {
        Message::Publication(entry) => Some(entry),
        _ => None,
    })
}

/// A new cursor.
pub(super) fn cursor<O>(outlet: O, delivered: Offset, live: bool) -> Cursor<O> {
    Cursor {
        outlet,
        delivered,
        live,
    }
}
