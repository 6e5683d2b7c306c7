//! The recent publications of a channel, and from where on they are complete.

use std::{collections::VecDeque, sync::Arc};

use crate::model::Offset;

use super::entry::Entry;

/// Publications in ascending order. The ring holds *every* publication of its channel after
/// [`Ring::from`] and up to its tail's `whole_to`: it can vouch for any position in between (L8c).
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    from: Offset,
}

/// How much a ring may hold.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Publications.
    pub messages: usize,
    /// Bytes, by [`Entry::cost`].
    pub bytes: usize,
}

impl Ring {
    /// An empty ring that is complete after `from`.
    pub fn new(from: Offset) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            from,
        }
    }

    /// The ring vouches for positions at or above this: the last offset it has let go, or its
    /// tail's first watermark.
    pub fn from(&self) -> Offset {
        self.from
    }

    /// What the entries cost.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it holds no publication.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many publications it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Appends the newest publication, then lets the oldest go while over the limits.
    pub fn push(&mut self, entry: Arc<Entry>, limits: RingLimits) {
        self.bytes += entry.cost();
        self.entries.push_back(entry);
        while self.entries.len() > limits.messages || self.bytes > limits.bytes {
            if !self.evict_first() {
                break;
            }
        }
    }

    /// Puts older publications in front: `entries` are all of the channel in (`from`, `self.from`].
    /// Takes as many of the newest as fit.
    pub fn extend_back(&mut self, from: Offset, entries: &[Arc<Entry>], limits: RingLimits) {
        debug_assert!(from <= self.from);
        for entry in entries.iter().rev() {
            if entry.offset > self.from {
                continue;
            }
            let fits = self.entries.len() < limits.messages && self.bytes + entry.cost() <= limits.bytes;
            if !fits {
                self.from = entry.offset;
                return;
            }
            self.bytes += entry.cost();
            self.entries.push_front(entry.clone());
        }
        self.from = from;
    }

    /// Lets everything go that is older than `oldest_ms`.
    pub fn evict_older(&mut self, oldest_ms: i64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.time_ms < oldest_ms)
        {
            self.evict_first();
        }
    }

    /// Lets everything go and gives the memory back.
    pub fn evict_all(&mut self) {
        if let Some(last) = self.entries.back() {
            self.from = last.offset;
        }
        self.entries = VecDeque::new();
        self.bytes = 0;
    }

    /// Forgets everything and is complete only after `from` again.
    pub fn reset(&mut self, from: Offset) {
        *self = Self::new(from);
    }

    /// The publications after `position`, oldest first. Only if `position >= self.from()`.
    pub fn after(&self, position: Offset) -> impl Iterator<Item = &Arc<Entry>> {
        debug_assert!(position >= self.from);
        let start = self.entries.partition_point(|entry| entry.offset <= position);
        self.entries.range(start..)
    }

    fn evict_first(&mut self) -> bool {
        let Some(first) = self.entries.pop_front() else {
            return false;
        };
        self.bytes -= first.cost();
        self.from = first.offset;
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::entry::test_entry;

    const WIDE: RingLimits = RingLimits {
        messages: 100,
        bytes: 1 << 20,
    };

    fn offsets(ring: &Ring, position: Offset) -> Vec<Offset> {
        ring.after(position).map(|entry| entry.offset).collect()
    }

    #[test]
    fn l8_a_ring_is_complete_after_what_it_let_go() {
        let mut ring = Ring::new(5);
        let limits = RingLimits { messages: 3, ..WIDE };
        for offset in [7, 9, 12] {
            ring.push(test_entry(offset), limits);
        }
        assert_eq!((ring.from(), offsets(&ring, 5)), (5, vec![7, 9, 12]));
        ring.push(test_entry(20), limits);
        assert_eq!((ring.from(), offsets(&ring, 9)), (7, vec![12, 20]));
        ring.evict_all();
        assert_eq!((ring.from(), ring.bytes(), ring.is_empty()), (20, 0, true));
    }

    #[test]
    fn older_publications_are_put_in_front_as_far_as_they_fit() {
        let mut ring = Ring::new(10);
        ring.push(test_entry(11), WIDE);
        let older: Vec<_> = [2, 4, 6, 11].into_iter().map(test_entry).collect();
        ring.extend_back(1, &older, WIDE);
        assert_eq!((ring.from(), offsets(&ring, 1)), (1, vec![2, 4, 6, 11]));

        let mut ring = Ring::new(10);
        ring.extend_back(1, &older, RingLimits { messages: 2, ..WIDE });
        assert_eq!((ring.from(), offsets(&ring, 2)), (2, vec![4, 6]));
    }

    #[test]
    fn l15_nothing_older_than_the_limit_is_kept() {
        let mut ring = Ring::new(0);
        for offset in 1..=4 {
            let mut entry = (*test_entry(offset)).clone();
            entry.time_ms = offset as i64 * 10;
            ring.push(Arc::new(entry), WIDE);
        }
        ring.evict_older(25);
        assert_eq!((ring.from(), offsets(&ring, 2)), (2, vec![3, 4]));
    }
}
