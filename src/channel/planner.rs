//! How many who are behind are fed at once (L12): when many wait on a shard, one sequential sweep
//! of everything in it serves them all, instead of one filtered read each. What a sweep has read is
//! kept for a while, since a storm does not come at once. Pure; the driver is [`super::sweeper`].

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{log::Stored, model::Offset};

use super::recovery::Target;

/// What reading costs the server, in microseconds, measured on nats-server 2.15 (a filtered read
/// scans over what it does not return). Only their ratio matters.
const SWEEP_PER_MESSAGE: f64 = 6.0;
const ALONE: f64 = 700.0;
const ALONE_PER_MESSAGE: f64 = 0.1;

/// What a kept message costs besides its payload: headers in the same buffer, entries of the index.
const OVERHEAD: usize = 512;

/// What it costs to read for one reader alone that is `behind` so many messages of the shard.
pub fn alone_cost(behind: u64) -> f64 {
    ALONE + ALONE_PER_MESSAGE * behind as f64
}

/// How many of those who wait a sweep should serve: those nearest to the end of the log. 0 = it is
/// cheaper to read for each alone. `positions` in any order; `kept` is what a window has already;
/// `spent` is what reads alone have cost lately. Once they have cost what a sweep costs, there is
/// one: so all of it never costs more than twice what it must.
pub fn sweep_count(
    positions: &mut [Offset],
    last_seq: Offset,
    at_least: usize,
    kept: Option<(Offset, Offset)>,
    spent: f64,
) -> usize {
    positions.sort_unstable_by(|a, b| b.cmp(a));
    let (mut best, mut alone) = (0, spent);
    for (index, position) in positions.iter().enumerate() {
        let served = index + 1;
        let behind = last_seq.saturating_sub(*position);
        let goes_on = kept.filter(|(from, _)| position >= from);
        let to_read = goes_on.map_or(behind, |(_, to)| last_seq.saturating_sub(to.max(*position)));
        alone += alone_cost(behind);
        let many = served >= at_least || spent > alone_cost(behind) * at_least as f64;
        let enough = many || goes_on.is_some();
        if enough && SWEEP_PER_MESSAGE * to_read as f64 <= alone {
            best = served;
        }
    }
    best
}

/// What the window has for a reader.
#[derive(Debug, PartialEq, Eq)]
pub struct Served {
    /// Its channel's messages after its position, ascending.
    pub messages: Vec<Arc<Stored>>,
    /// What they cover, if the floor still holds for `proof`.
    pub covered_to: Offset,
    /// What proves it.
    pub proof: Proof,
}

/// Why messages of a window are everything after a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The sweep passed the position itself, and nothing was lost on the way.
    Passed,
    /// Only if a floor learnt from now on is at most this + 1.
    Floor(Offset),
}

/// Whether a window can serve a reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has this.
    Served(Served),
    /// It has not come that far yet.
    Later,
    /// Not this way: it has to be read alone.
    Alone,
}

/// Everything of a shard between two sequences, as sweeps have read it: of all channels, also of
/// those nobody has asked for yet.
#[derive(Debug)]
pub struct Window {
    from: Offset,
    to: Offset,
    messages: VecDeque<(Arc<str>, Arc<Stored>)>,
    channels: HashMap<Arc<str>, Kept>,
    bytes: usize,
    limit: usize,
    /// Behind these sequences something is not there: it had gone before the sweep began, or has gone
    /// unseen, between two pages or while one was put together. Ascending; as many as messages, at
    /// most.
    breaks: Vec<Offset>,
    trimmed: bool,
}

/// What a window has of one channel.
#[derive(Debug)]
struct Kept {
    address: Arc<str>,
    messages: VecDeque<Arc<Stored>>,
}

impl Window {
    /// An empty window that begins at `from` and keeps up to `limit` bytes.
    pub fn new(from: Offset, limit: usize) -> Self {
        Self {
            from,
            to: from,
            messages: VecDeque::new(),
            channels: HashMap::new(),
            bytes: 0,
            limit,
            breaks: Vec::new(),
            trimmed: false,
        }
    }

    /// The next page has to be read from here (inclusive): pages overlap by one message.
    pub fn next(&self) -> Offset {
        self.to
    }

    /// Between which sequences it has everything.
    pub fn span(&self) -> (Offset, Offset) {
        (self.from, self.to)
    }

    /// What is kept, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether another page may push out what it has.
    pub fn is_full(&self, page_bytes: usize) -> bool {
        self.bytes + page_bytes > self.limit
    }

    /// Whether messages were pushed out since this was asked last.
    pub fn was_trimmed(&mut self) -> bool {
        std::mem::take(&mut self.trimmed)
    }

    /// Whether a sweep that goes on from here will come by everything after `position`.
    pub fn reaches_back_to(&self, position: Offset) -> bool {
        position >= self.from
    }

    /// A page, read from [`Window::next`]. A page that only repeats moves nothing: the replica lags,
    /// and is to be asked again. True if the window has grown.
    pub fn on_page(&mut self, page: Vec<(String, Stored)>) -> bool {
        let before = self.to;
        let began = !self.messages.is_empty();
        if page.first().is_some_and(|(_, first)| first.seq > self.to) {
            self.breaks.push(self.to);
        }
        for (address, stored) in page {
            if stored.seq < self.to || (stored.seq == self.to && began) {
                continue;
            }
            if stored.seq > self.to + 1 && self.breaks.last() != Some(&self.to) {
                self.breaks.push(self.to);
            }
            self.to = stored.seq;
            self.keep(address, stored);
        }
        self.to > before || (!began && !self.messages.is_empty())
    }

    /// What the window has of a channel after `position`, as far as `target`.
    pub fn serve(&self, address: &str, position: Offset, target: Target) -> Answer {
        let Some(known) = target.last.filter(|_| position >= self.from) else {
            return Answer::Alone;
        };
        if known > self.to {
            return Answer::Later;
        }
        let Some(found) = self.after(address, position) else {
            return Answer::Alone;
        };
        let last = found.last(position);
        if last < known {
            // What was known to exist had gone before the sweep came by.
            return Answer::Alone;
        }
        let proof = self.proof(position, &found, last);
        Answer::Served(Served {
            messages: found.messages,
            covered_to: last.max(target.whole_to),
            proof,
        })
    }

    /// What the window has of a channel after `position` by now. It moves the reader on, so that
    /// the window need not keep it.
    pub fn serve_part(&self, address: &str, position: Offset) -> Answer {
        if position >= self.to {
            return Answer::Later;
        }
        let found = (position >= self.from).then(|| self.after(address, position));
        let Some(found) = found.flatten() else {
            return Answer::Alone;
        };
        let proof = self.proof(position, &found, self.to);
        Answer::Served(Served {
            messages: found.messages,
            covered_to: self.to,
            proof,
        })
    }

    /// The channel's messages after `position`; `None` if there is a tombstone or an unreadable one
    /// among them.
    fn after(&self, address: &str, position: Offset) -> Option<After> {
        let Some(Kept { messages: all, .. }) = self.channels.get(address) else {
            return Some(After::default());
        };
        let at = all.partition_point(|stored| stored.seq < position);
        let passed = all.get(at).is_some_and(|stored| stored.seq == position);
        let messages: Vec<_> = all.range(at + usize::from(passed)..).cloned().collect();
        messages
            .iter()
            .all(|stored| stored.is_publication())
            .then_some(After { passed, messages })
    }

    /// What proves that these are all messages after `position` up to `reach`.
    fn proof(&self, position: Offset, found: &After, reach: Offset) -> Proof {
        let broken = self.breaks.iter().find(|at| **at >= position && **at < reach);
        match broken {
            _ if !found.passed => Proof::Floor(position),
            Some(at) => Proof::Floor(*at),
            None => Proof::Passed,
        }
    }

    fn keep(&mut self, address: String, stored: Stored) {
        let stored = Arc::new(stored);
        self.bytes += stored.size() + OVERHEAD;
        // Most are of a channel that is known: one look, and no text of its own.
        let address = if let Some(kept) = self.channels.get_mut(address.as_str()) {
            kept.messages.push_back(stored.clone());
            kept.address.clone()
        } else {
            let address: Arc<str> = address.into();
            let kept = Kept {
                address: address.clone(),
                messages: VecDeque::from([stored.clone()]),
            };
            self.channels.insert(address.clone(), kept);
            address
        };
        self.messages.push_back((address, stored));
        while self.bytes > self.limit && self.messages.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let Some((address, stored)) = self.messages.pop_front() else {
            return;
        };
        self.bytes -= stored.size() + OVERHEAD;
        self.trimmed = true;
        self.from = stored.seq + 1;
        if let Some(channel) = self.channels.get_mut(&address) {
            channel.messages.pop_front();
            if channel.messages.is_empty() {
                self.channels.remove(&address);
            }
        }
        self.breaks.retain(|at| *at >= stored.seq);
    }
}

/// A channel's messages after a position.
#[derive(Default)]
struct After {
    /// There is one at the position itself.
    passed: bool,
    messages: Vec<Arc<Stored>>,
}

impl After {
    fn last(&self, position: Offset) -> Offset {
        self.messages.last().map_or(position, |stored| stored.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::Body,
        model::{Kind, Record},
    };

    const LIMIT: usize = 1 << 20;

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

    fn serve(window: &Window, address: &str, position: Offset, last: Offset) -> (Vec<Offset>, Offset, Proof) {
        match window.serve(
            address,
            position,
            Target {
                last: Some(last),
                whole_to: last + 10,
            },
        ) {
            Answer::Served(Served {
                messages,
                covered_to,
                proof,
            }) => (
                messages.iter().map(|stored| stored.seq).collect(),
                covered_to,
                proof,
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn l12_many_near_the_end_are_swept_and_a_few_far_behind_are_not() {
        let count = |positions: &mut [Offset], last_seq| sweep_count(positions, last_seq, 50, None, 0.0);
        let mut storm: Vec<_> = (0..1_000).map(|index| 37_000 + index).collect();
        assert_eq!(count(&mut storm, 74_000), 1_000);
        let mut near: Vec<_> = (0..50).map(|_| 995_000).chain([1]).collect();
        assert_eq!(count(&mut near, 1_000_000), 50, "the one is left to itself");
        assert_eq!(count(&mut [5; 10], 20), 0, "too few to bother");
        assert_eq!(count(&mut [0; 50], 1_000_000), 0, "a long way for a few");
        let kept = Some((0, 990_000));
        assert_eq!(
            sweep_count(&mut [0; 50], 1_000_000, 50, kept, 0.0),
            50,
            "most of the way is known"
        );
        assert_eq!(
            sweep_count(&mut [10_000], 60_000, 50, Some((9_000, 59_500)), 0.0),
            1,
            "a little more serves who else comes, too"
        );
        let one = |spent| sweep_count(&mut [10_000], 60_000, 32, None, spent);
        let alone = alone_cost(50_000);
        assert_eq!(one(10.0 * alone), 0, "a few have read alone");
        assert_eq!(one(60.0 * alone), 1, "so many that a sweep had been cheaper");
    }

    #[test]
    fn l12_a_window_serves_everything_after_a_position() {
        let mut window = Window::new(3, LIMIT);
        assert!(window.on_page(page(&[("a", 3), ("b", 4), ("a", 5), ("x", 6), ("a", 7)])));
        assert_eq!(serve(&window, "a", 3, 7), (vec![5, 7], 17, Proof::Passed));
        assert_eq!(serve(&window, "a", 5, 7), (vec![7], 17, Proof::Passed));
        assert_eq!(serve(&window, "a", 4, 7), (vec![5, 7], 17, Proof::Floor(4)));
        let later = Target {
            last: Some(9),
            whole_to: 9,
        };
        assert_eq!(window.serve("b", 4, later), Answer::Later);
        assert_eq!(window.serve("b", 2, later), Answer::Alone, "it began behind that");
        assert!(window.on_page(page(&[("a", 7), ("b", 8), ("b", 9)])));
        assert_eq!(serve(&window, "b", 4, 9), (vec![8, 9], 19, Proof::Passed));
        assert_eq!(serve(&window, "a", 7, 7), (vec![], 17, Proof::Passed));
    }

    #[test]
    fn l12_pages_that_do_not_overlap_need_the_floor() {
        let mut window = Window::new(3, LIMIT);
        window.on_page(page(&[("a", 3), ("x", 4), ("a", 5)]));
        window.on_page(page(&[("x", 8), ("a", 9)]));
        assert_eq!(serve(&window, "a", 3, 9), (vec![5, 9], 19, Proof::Floor(5)));
        assert_eq!(serve(&window, "a", 9, 9), (vec![], 19, Proof::Passed));
        let mut late = Window::new(3, LIMIT);
        late.on_page(page(&[("a", 4), ("a", 5)]));
        assert_eq!(serve(&late, "a", 3, 5), (vec![4, 5], 15, Proof::Floor(3)));
    }

    #[test]
    fn l12_what_is_missing_from_a_page_needs_the_floor() {
        let mut window = Window::new(3, LIMIT);
        window.on_page(page(&[("a", 3), ("x", 4), ("a", 7), ("a", 8), ("a", 9)]));
        assert_eq!(serve(&window, "a", 3, 9), (vec![7, 8, 9], 19, Proof::Floor(4)));
        assert_eq!(serve(&window, "a", 7, 9), (vec![8, 9], 19, Proof::Passed));
    }

    #[test]
    fn l12_a_tombstone_or_what_has_gone_is_read_alone() {
        let mut window = Window::new(3, LIMIT);
        let mut messages = page(&[("a", 3), ("a", 5), ("a", 9), ("b", 10), ("x", 12)]);
        messages[1].1.body = Body::Tombstone;
        window.on_page(messages);
        let target = |last| Target {
            last: Some(last),
            whole_to: 20,
        };
        assert_eq!(window.serve("a", 3, target(9)), Answer::Alone);
        assert_eq!(
            serve(&window, "a", 5, 9).0,
            [9],
            "behind the tombstone all is well"
        );
        assert_eq!(
            window.serve("b", 4, target(11)),
            Answer::Alone,
            "11 was there once"
        );
        assert_eq!(
            window.serve(
                "b",
                4,
                Target {
                    last: None,
                    whole_to: 9
                }
            ),
            Answer::Alone
        );
    }

    #[test]
    fn l12_what_is_kept_is_bounded() {
        let size = stored(1).size() + OVERHEAD;
        let mut window = Window::new(1, 3 * size);
        window.on_page(page(&[("a", 1), ("b", 2), ("a", 3), ("b", 4)]));
        assert_eq!((window.span(), window.bytes()), ((2, 4), 3 * size));
        assert!(window.was_trimmed() && !window.was_trimmed());
        assert_eq!(
            window.serve(
                "a",
                1,
                Target {
                    last: Some(3),
                    whole_to: 4
                }
            ),
            Answer::Alone
        );
        assert_eq!(serve(&window, "b", 2, 4), (vec![4], 14, Proof::Passed));
    }

    #[test]
    fn l12_what_may_be_pushed_out_is_served_in_part() {
        let size = stored(1).size() + OVERHEAD;
        let mut window = Window::new(1, 4 * size);
        window.on_page(page(&[("a", 1), ("b", 2), ("a", 3)]));
        assert!(!window.is_full(size) && window.is_full(2 * size));
        let part = |position| match window.serve_part("a", position) {
            Answer::Served(served) => (served.messages.len(), served.covered_to),
            other => panic!("{other:?}"),
        };
        assert_eq!((part(1), part(2)), ((1, 3), (1, 3)));
        assert_eq!(window.serve_part("a", 3), Answer::Later);
        assert_eq!(window.serve_part("a", 0), Answer::Alone);
    }

    #[test]
    fn a_lagging_replica_moves_nothing() {
        let mut window = Window::new(3, LIMIT);
        assert!(window.on_page(page(&[("a", 3), ("a", 5)])));
        assert!(!window.on_page(page(&[("a", 5)])));
        assert!(!window.on_page(vec![]));
        assert_eq!(window.next(), 5);
    }
}
