//! How many who are behind are fed at once (L12): when many wait on a shard, one sequential sweep
//! of everything in it serves them all, instead of one filtered read each. Pure; the driver is
//! [`super::sweeper`].

use std::{collections::HashMap, sync::Arc};

use crate::{log::Stored, model::Offset};

use super::recovery::Target;

/// What reading costs the server, in microseconds, measured on nats-server 2.15 (a filtered read
/// scans over what it does not return). Only their ratio matters.
const SWEEP_PER_MESSAGE: f64 = 6.0;
const ALONE: f64 = 700.0;
const ALONE_PER_MESSAGE: f64 = 0.1;

/// How many of those who wait a sweep should serve: those nearest to the end of the log. 0 = it is
/// cheaper to read for each alone. `positions` in any order.
pub fn sweep_count(positions: &mut [Offset], last_seq: Offset, at_least: usize) -> usize {
    positions.sort_unstable_by(|a, b| b.cmp(a));
    let mut best = 0;
    for (index, position) in positions.iter().enumerate() {
        let served = index + 1;
        let messages = last_seq.saturating_sub(*position) as f64;
        let alone = served as f64 * (ALONE + ALONE_PER_MESSAGE * messages);
        if served >= at_least && SWEEP_PER_MESSAGE * messages < alone {
            best = served;
        }
    }
    best
}

/// One reader that a sweep serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rider<T> {
    /// The driver's name for it.
    pub ticket: T,
    /// It wants everything of its channel after this.
    pub position: Offset,
    /// As far as this.
    pub target: Target,
}

/// A rider that has what it wants, or as much as fits, or cannot have it this way.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived<T> {
    /// The driver's name for it.
    pub ticket: T,
    /// Its channel's messages after its position, ascending, shared with its fellow riders.
    pub messages: Vec<Arc<Stored>>,
    /// What they cover, if the floor still holds for `proof`.
    pub covered_to: Offset,
    /// What proves it.
    pub proof: Proof,
}

/// Why a rider's messages are everything after its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The sweep passed the position itself, and nothing was lost on the way.
    Passed,
    /// Only if a floor learnt from now on is at most this + 1.
    Floor(Offset),
    /// Not this way: it has to be read alone.
    Alone,
}

/// A sweep over a shard. Messages go in page by page; riders come out.
#[derive(Debug)]
pub struct Sweep<T> {
    at: Offset,
    /// The first place where two pages did not overlap: what came after may have expired unseen.
    broken_at: Option<Offset>,
    channels: HashMap<String, Channel<T>>,
    riders: usize,
    bytes: usize,
    limits: SweepLimits,
}

/// The bounds of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct SweepLimits {
    /// Bytes of one rider's page: with more it leaves and comes back.
    pub page_bytes: usize,
    /// Bytes kept for all riders: over this, those with the most leave.
    pub total_bytes: usize,
}

#[derive(Debug)]
struct Channel<T> {
    riders: Vec<Rider<T>>,
    /// Everything of the channel that the sweep has seen since the first of its riders joined.
    messages: Vec<Arc<Stored>>,
    bytes: usize,
}

impl<T: Clone> Sweep<T> {
    /// A sweep that begins at `from`.
    pub fn new(from: Offset, limits: SweepLimits) -> Self {
        Self {
            at: from,
            broken_at: None,
            channels: HashMap::new(),
            riders: 0,
            bytes: 0,
            limits,
        }
    }

    /// The next page has to be read from here (inclusive): pages overlap by one message.
    pub fn next(&self) -> Offset {
        self.at
    }

    /// How many still wait.
    pub fn riders(&self) -> usize {
        self.riders
    }

    /// Takes a rider along, if the sweep has not passed its position.
    pub fn board(&mut self, address: &str, rider: Rider<T>) -> bool {
        if rider.position < self.at {
            return false;
        }
        self.riders += 1;
        if let Some(channel) = self.channels.get_mut(address) {
            channel.riders.push(rider);
        } else {
            let channel = Channel {
                riders: vec![rider],
                messages: Vec::new(),
                bytes: 0,
            };
            self.channels.insert(address.to_owned(), channel);
        }
        true
    }

    /// A page, read from [`Sweep::next`]. Returns whoever arrives with it. An empty page, or one that
    /// only repeats, moves nothing: the replica lags, and is to be asked again.
    pub fn on_page(&mut self, page: Vec<(String, Stored)>) -> Vec<Arrived<T>> {
        let mut arrived = Vec::new();
        if page.first().is_some_and(|(_, first)| first.seq > self.at) {
            self.broken_at.get_or_insert(self.at);
        }
        for (address, stored) in page {
            if stored.seq < self.at {
                continue;
            }
            let repeated = stored.seq == self.at && self.seen(&address, stored.seq);
            self.at = stored.seq;
            if repeated {
                continue;
            }
            let Some(channel) = self.channels.get_mut(&address) else {
                continue;
            };
            let seq = stored.seq;
            let size = stored.size();
            channel.bytes += size;
            self.bytes += size;
            channel.messages.push(Arc::new(stored));
            let full = channel.bytes >= self.limits.page_bytes;
            let done = channel
                .riders
                .iter()
                .all(|rider| rider.target.last.is_some_and(|last| last <= seq));
            if done || full {
                self.leave(&address, &mut arrived);
            }
        }
        while self.bytes > self.limits.total_bytes {
            let largest = self.channels.iter().max_by_key(|(_, channel)| channel.bytes);
            let Some(address) = largest.map(|(address, _)| address.clone()) else {
                break;
            };
            self.leave(&address, &mut arrived);
        }
        // Whose last message has been passed without being seen: it has gone.
        let at = self.at;
        let missed: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, channel)| {
                channel
                    .riders
                    .iter()
                    .all(|rider| rider.target.last.is_none_or(|it| it < at))
            })
            .map(|(address, _)| address.clone())
            .collect();
        for address in missed {
            self.leave(&address, &mut arrived);
        }
        arrived
    }

    /// Lets everyone off who is still on: the shard has no more, or does not answer.
    pub fn finish(&mut self) -> Vec<Arrived<T>> {
        let mut arrived = Vec::new();
        let addresses: Vec<_> = self.channels.keys().cloned().collect();
        for address in addresses {
            self.leave(&address, &mut arrived);
        }
        arrived
    }

    fn seen(&self, address: &str, seq: Offset) -> bool {
        let Some(channel) = self.channels.get(address) else {
            return true;
        };
        channel.messages.last().is_some_and(|last| last.seq == seq)
    }

    fn leave(&mut self, address: &str, arrived: &mut Vec<Arrived<T>>) {
        let Some(channel) = self.channels.remove(address) else {
            return;
        };
        self.bytes -= channel.bytes;
        self.riders -= channel.riders.len();
        for rider in channel.riders {
            arrived.push(judge(rider, &channel.messages, self.broken_at));
        }
    }
}

fn judge<T>(rider: Rider<T>, messages: &[Arc<Stored>], broken_at: Option<Offset>) -> Arrived<T> {
    let Rider {
        ticket,
        position,
        target,
    } = rider;
    let passed = messages.iter().any(|stored| stored.seq == position);
    let after = messages.partition_point(|stored| stored.seq <= position);
    let messages = messages[after..].to_vec();
    let last = messages.last().map_or(position, |stored| stored.seq);
    let complete = target.last.is_some_and(|known| known <= last);
    let unclear = messages.iter().any(|stored| !stored.is_publication());
    let proof = if unclear || last == position {
        // A tombstone or an unreadable message above the position, or nothing found at all.
        Proof::Alone
    } else if !passed {
        Proof::Floor(position)
    } else if let Some(broken_at) = broken_at.filter(|broken_at| *broken_at < last) {
        Proof::Floor(broken_at.max(position))
    } else {
        Proof::Passed
    };
    let covered_to = if complete { last.max(target.whole_to) } else { last };
    Arrived {
        ticket,
        messages,
        covered_to,
        proof,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::Body,
        model::{Kind, Record},
    };

    const LIMITS: SweepLimits = SweepLimits {
        page_bytes: 1 << 20,
        total_bytes: 1 << 20,
    };

    fn stored(seq: Offset) -> Stored {
        let record = Record {
            kind: Kind::Json,
            data: "1".into(),
            info: None,
            tags: vec![],
        };
        Stored {
            seq,
            time_ms: 0,
            body: Body::Publication(record),
        }
    }

    fn page(messages: &[(&str, Offset)]) -> Vec<(String, Stored)> {
        messages
            .iter()
            .map(|(address, seq)| ((*address).to_owned(), stored(*seq)))
            .collect()
    }

    fn rider(ticket: u8, position: Offset, last: Offset) -> Rider<u8> {
        Rider {
            ticket,
            position,
            target: Target {
                last: Some(last),
                whole_to: 100,
            },
        }
    }

    fn seqs(arrived: &Arrived<u8>) -> (u8, Vec<Offset>, Offset, Proof) {
        let offsets = arrived.messages.iter().map(|stored| stored.seq).collect();
        (arrived.ticket, offsets, arrived.covered_to, arrived.proof)
    }

    #[test]
    fn l12_many_near_the_end_are_swept_and_a_few_far_behind_are_not() {
        let mut storm: Vec<_> = (0..1_000).map(|index| 37_000 + index).collect();
        assert_eq!(sweep_count(&mut storm, 74_000, 50), 1_000);
        let mut with_one_far_behind = storm;
        with_one_far_behind.push(1);
        assert_eq!(
            sweep_count(&mut with_one_far_behind, 1_000_000_000, 50),
            1_001,
            "scans cost more"
        );
        let mut near: Vec<_> = (0..50).map(|_| 995_000).chain([1]).collect();
        assert_eq!(
            sweep_count(&mut near, 1_000_000, 50),
            50,
            "the one is left to itself"
        );
        assert_eq!(sweep_count(&mut [5; 10], 20, 50), 0, "too few to bother");
        assert_eq!(
            sweep_count(&mut [0; 50], 1_000_000, 50),
            0,
            "a long way for a few"
        );
    }

    #[test]
    fn l12_riders_leave_with_everything_after_their_position() {
        let mut sweep = Sweep::new(3, LIMITS);
        assert!(sweep.board("a", rider(1, 3, 7)));
        assert!(sweep.board("a", rider(2, 5, 7)));
        assert!(sweep.board("b", rider(3, 4, 9)));
        assert!(!sweep.board("b", rider(4, 2, 9)), "passed already");
        let arrived = sweep.on_page(page(&[("a", 3), ("b", 4), ("a", 5), ("x", 6), ("a", 7)]));
        let arrived: Vec<_> = arrived.iter().map(seqs).collect();
        assert_eq!(
            arrived,
            [
                (1, vec![5, 7], 100, Proof::Passed),
                (2, vec![7], 100, Proof::Passed)
            ]
        );
        assert_eq!((sweep.next(), sweep.riders()), (7, 1));
        let arrived = sweep.on_page(page(&[("a", 7), ("b", 8), ("b", 9)]));
        assert_eq!(seqs(&arrived[0]), (3, vec![8, 9], 100, Proof::Passed));
    }

    #[test]
    fn l12_what_was_not_passed_needs_the_floor() {
        let mut sweep = Sweep::new(3, LIMITS);
        sweep.board("a", rider(1, 4, 7));
        let arrived = sweep.on_page(page(&[("x", 3), ("a", 7)]));
        assert_eq!(seqs(&arrived[0]), (1, vec![7], 100, Proof::Floor(4)));
    }

    #[test]
    fn l12_pages_that_do_not_overlap_need_the_floor_too() {
        let mut sweep = Sweep::new(3, LIMITS);
        sweep.board("a", rider(1, 3, 9));
        assert!(sweep.on_page(page(&[("a", 3), ("a", 5)])).is_empty());
        let arrived = sweep.on_page(page(&[("x", 8), ("a", 9)]));
        assert_eq!(seqs(&arrived[0]), (1, vec![5, 9], 100, Proof::Floor(5)));
    }

    #[test]
    fn l12_a_tombstone_above_the_position_is_read_alone() {
        let mut sweep = Sweep::new(3, LIMITS);
        sweep.board("a", rider(1, 3, 9));
        let mut messages = page(&[("a", 3), ("a", 5), ("a", 9)]);
        messages[1].1.body = Body::Tombstone;
        assert_eq!(sweep.on_page(messages)[0].proof, Proof::Alone);
    }

    #[test]
    fn l12_a_rider_whose_last_message_has_gone_is_read_alone_or_fed_on() {
        let mut sweep = Sweep::new(3, LIMITS);
        sweep.board("a", rider(1, 3, 9));
        sweep.board("b", rider(2, 4, 9));
        let arrived = sweep.on_page(page(&[("a", 3), ("a", 5), ("x", 10)]));
        let mut arrived: Vec<_> = arrived.iter().map(seqs).collect();
        arrived.sort_by_key(|(ticket, ..)| *ticket);
        assert_eq!(
            arrived,
            [(1, vec![5], 5, Proof::Passed), (2, vec![], 4, Proof::Alone)]
        );
    }

    #[test]
    fn l12_what_is_kept_is_bounded() {
        let size = stored(1).size();
        let mut sweep = Sweep::new(
            1,
            SweepLimits {
                page_bytes: 2 * size,
                total_bytes: 3 * size,
            },
        );
        sweep.board("a", rider(1, 1, 90));
        let arrived = sweep.on_page(page(&[("a", 1), ("a", 2), ("a", 3)]));
        assert_eq!(
            seqs(&arrived[0]),
            (1, vec![2], 2, Proof::Passed),
            "a page, and back for more"
        );
        for (ticket, address) in [(2, "b"), (3, "c"), (4, "d"), (5, "e")] {
            sweep.board(address, rider(ticket, 3, 90));
        }
        let arrived = sweep.on_page(page(&[("a", 3), ("b", 4), ("c", 5), ("d", 6), ("e", 7)]));
        assert_eq!(arrived.len(), 1, "three may be kept");
        assert_eq!(sweep.finish().len(), 3);
    }

    #[test]
    fn a_lagging_replica_moves_nothing() {
        let mut sweep = Sweep::new(3, LIMITS);
        sweep.board("a", rider(1, 3, 9));
        sweep.on_page(page(&[("a", 3), ("a", 5)]));
        assert!(sweep.on_page(page(&[("a", 5)])).is_empty());
        assert!(sweep.on_page(vec![]).is_empty());
        assert_eq!(sweep.next(), 5);
    }
}
