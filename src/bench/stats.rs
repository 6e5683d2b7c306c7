//! Distributions and medians.

use serde::{Deserialize, Serialize};

/// Buckets per power of two: a value is known within 1/64.
const SUB: u64 = 64;
const SUB_BITS: u32 = SUB.trailing_zeros();

/// A distribution of microseconds, mergeable, of bounded size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    /// Grows up to the highest bucket used: at most 64 * 59.
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, us: u64) {
        let index = bucket(us);
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, 0);
        }
        self.buckets[index] += 1;
        self.count += 1;
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (into, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *into += from;
        }
        self.count += other.count;
    }

    /// The value (µs) that `quantile` (0..=1) of all are not above; 0 if there are none.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.count as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return middle(index);
            }
        }
        0.0
    }

    /// The same in ms.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.quantile(quantile) / 1000.0
    }
}

fn bucket(us: u64) -> usize {
    if us < SUB {
        return us as usize;
    }
    let shift = us.ilog2() - SUB_BITS;
    let row = u64::from(shift) + 1;
    (row * SUB + (us >> shift) - SUB) as usize
}

fn middle(index: usize) -> f64 {
    let (row, place) = (index as u64 / SUB, index as u64 % SUB);
    if row == 0 {
        return place as f64;
    }
    let width = 1u64 << (row - 1);
    ((SUB + place) * width) as f64 + (width - 1) as f64 / 2.0
}

/// The median; of an even number of values the mean of the middle two; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(value), _) => (sorted[middle - 1] + value) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![9.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 3.0], 2.5),
        ] {
            assert!((median(&values) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn an_empty_distribution_has_no_quantiles() {
        assert!(Histogram::default().quantile(0.5).abs() < 1e-9);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn quantiles_are_near_the_exact_ones(mut values in prop::collection::vec(0u64..100_000_000, 1..300),
                                             split in 0usize..300) {
            let mut first = Histogram::default();
            let mut second = Histogram::default();
            for (i, value) in values.iter().enumerate() {
                if i < split { first.record(*value) } else { second.record(*value) }
            }
            first.merge(&second);
            values.sort_unstable();
            for q in [0.0, 0.5, 0.99, 1.0] {
                let rank = ((q * values.len() as f64).ceil() as usize).max(1);
                let exact = values[rank - 1] as f64;
                prop_assert!((first.quantile(q) - exact).abs() <= exact / 64.0 + 1.0);
            }
        }
    }
}
