//! Lost, duplicate, out of order: the proof that a fast run was also a right one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many late arrivals back a [`Watch`] can tell apart from repeats.
const WINDOW: u32 = 64;

/// What one subscriber has received of one channel whose publications are numbered 1, 2, 3 …
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    last: u32,
    distinct: u32,
    /// Bit `n` stands for `last - 1 - n`: set if it has been received.
    seen: u64,
}

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Above everything before it.
    New,
    /// Missing until now, and overtaken.
    Late,
    /// Received before (or so late that it cannot be told).
    Repeat,
}

impl Watch {
    pub(crate) const fn new() -> Self {
        Self {
            last: 0,
            distinct: 0,
            seen: 0,
        }
    }

    /// How many different ones were received.
    pub(crate) fn distinct(&self) -> u32 {
        self.distinct
    }

    pub(crate) fn accept(&mut self, seq: u32) -> Arrival {
        if seq > self.last {
            let step = seq - self.last;
            let old_last = if self.last == 0 {
                0
            } else {
                1u64.checked_shl(step - 1).unwrap_or(0)
            };
            self.seen = self.seen.checked_shl(step).unwrap_or(0) | old_last;
            self.last = seq;
            self.distinct += 1;
            return Arrival::New;
        }
        let behind = self.last - seq;
        if behind == 0 || behind > WINDOW || self.seen & (1 << (behind - 1)) != 0 {
            return Arrival::Repeat;
        }
        self.seen |= 1 << (behind - 1);
        self.distinct += 1;
        Arrival::Late
    }
}

/// What must be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// Published and acknowledged, never received.
    pub(crate) lost: u64,
    /// Received twice.
    pub(crate) duplicate: u64,
    /// Received after one with a higher number.
    pub(crate) out_of_order: u64,
    /// Publishes that were refused or not answered.
    pub(crate) refused: u64,
    /// Resumes that were answered `recovered: false`.
    pub(crate) unrecovered: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicate += other.duplicate;
        self.out_of_order += other.out_of_order;
        self.refused += other.refused;
        self.unrecovered += other.unrecovered;
    }

    /// Counts an arrival.
    pub(crate) fn arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::New => {}
            Arrival::Late => self.out_of_order += 1,
            Arrival::Repeat => self.duplicate += 1,
        }
    }

    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lost, {} duplicate, {} out of order, {} refused, {} not recovered",
            self.lost, self.duplicate, self.out_of_order, self.refused, self.unrecovered
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arrivals_are_told_apart() {
        use Arrival::{Late, New, Repeat};
        let table: &[(&[u32], &[Arrival])] = &[
            (&[1, 2, 3], &[New, New, New]),
            (&[1, 1], &[New, Repeat]),
            (&[1, 3, 2, 2], &[New, New, Late, Repeat]),
            (&[5, 1, 5, 1], &[New, Late, Repeat, Repeat]),
            (&[1, 65, 2, 1], &[New, New, Late, Repeat]),
            (&[1, 200, 100], &[New, New, Repeat]),
        ];
        for (input, expected) in table {
            let mut watch = Watch::new();
            let got: Vec<_> = input.iter().map(|seq| watch.accept(*seq)).collect();
            assert_eq!(&got, expected, "{input:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn within_the_window_it_agrees_with_a_set(input in prop::collection::vec(1u32..60, 0..200)) {
            let mut watch = Watch::new();
            let mut set = BTreeSet::new();
            for seq in input {
                let highest = set.last().copied().unwrap_or(0);
                let fresh = set.insert(seq);
                let expected = match (fresh, seq > highest) {
                    (true, true) => Arrival::New,
                    (true, false) => Arrival::Late,
                    (false, _) => Arrival::Repeat,
                };
                prop_assert_eq!(watch.accept(seq), expected);
                prop_assert_eq!(watch.distinct() as usize, set.len());
            }
        }
    }
}
