/// What part of a quota is given to all alike before wishes count, so that a node whose clients have been
/// quiet can serve at once: one of so many.
const FLOOR: u64 = 8;

/// What a node has of a quota, and what its clients want of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// It holds so much, and cannot give it back.
    pub held: u64,
    /// What its clients want, that which it refuses included.
    pub wanted: u64,
}

/// Splits `limit` among nodes, in their order: everybody what it holds, then a floor, then what is wanted, to
/// each alike until it has enough, and what is left to all alike. The parts add up to `limit`, or to what is
/// held if that is more.
pub fn fair(limit: u64, wishes: &[Wish]) -> Vec<u64> {
    let mut parts: Vec<u64> = wishes.iter().map(|wish| wish.held).collect();
    let held = parts.iter().copied().fold(0, u64::saturating_add);
    let mut left = limit.saturating_sub(held);
    let count = u64::try_from(wishes.len().max(1)).unwrap_or(u64::MAX);
    let floor = limit / FLOOR / count;
    pour(&mut left, &mut parts, |_| floor);
    pour(&mut left, &mut parts, |node| wishes[node].wanted);
    pour(&mut left, &mut parts, |_| u64::MAX);
    parts
}

/// Raises the parts by `left`, each alike and none above its `most`.
fn pour(left: &mut u64, parts: &mut [u64], most: impl Fn(usize) -> u64) {
    loop {
        let takers: Vec<_> = (0..parts.len())
            .filter(|&node| parts[node] < most(node))
            .collect();
        let count = u64::try_from(takers.len()).unwrap_or(u64::MAX);
        if count == 0 || *left == 0 {
            return;
        }
        // The last few units go to the first nodes, one each.
        let each = (*left / count).max(1);
        for node in takers {
            let more = each.min(most(node) - parts[node]).min(*left);
            parts[node] += more;
            *left -= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wishes(all: &[(u64, u64)]) -> Vec<Wish> {
        all.iter().map(|&(held, wanted)| Wish { held, wanted }).collect()
    }

    #[test]
    fn who_wants_more_has_more_and_nobody_has_nothing() {
        for (limit, all, parts) in [
            (800, &[(0, 0), (0, 0)][..], &[400, 400][..]),
            (800, &[(0, 800), (0, 0)], &[750, 50]),
            (800, &[(0, 9000), (0, 100), (0, 9000)], &[350, 100, 350]),
            // What is enough for all leaves room for all.
            (800, &[(0, 100), (0, 0)], &[425, 375]),
            (800, &[(700, 700), (0, 200)], &[700, 100]),
            // More is held than there may be.
            (800, &[(700, 700), (200, 300)], &[700, 200]),
            (1, &[(0, 0), (0, 0), (0, 0)], &[1, 0, 0]),
            (1, &[(0, 0), (0, 5), (0, 0)], &[0, 1, 0]),
            (0, &[(0, 5), (0, 0)], &[0, 0]),
            (5, &[], &[]),
        ] {
            assert_eq!(fair(limit, &wishes(all)), parts, "{limit} {all:?}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole(
            limit in prop_oneof![0_u64..20, any::<u64>()],
            all in prop::collection::vec((0_u64..1000, prop_oneof![0_u64..2000, any::<u64>()]), 1..12),
        ) {
            let wishes = wishes(&all);
            let parts = fair(limit, &wishes);
            let held: u64 = wishes.iter().map(|wish| wish.held).sum();
            prop_assert_eq!(parts.iter().sum::<u64>(), limit.max(held));
            // Who has less than it wants has, beyond what it holds, no less than any other; up to one unit.
            for (mine, wish) in parts.iter().zip(&wishes) {
                prop_assert!(*mine >= wish.held);
                if *mine < wish.wanted {
                    for (other, theirs) in parts.iter().zip(&wishes) {
                        let floor = limit / FLOOR / wishes.len() as u64;
                        let beyond = (*other - theirs.held).saturating_sub(floor);
                        prop_assert!(beyond <= (*mine - wish.held) + 1);
                    }
                }
            }
        }
    }
}
