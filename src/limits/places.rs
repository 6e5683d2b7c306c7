use std::{collections::HashMap, hash::Hash};

/// How many places each of many holders has. A holder without one takes no memory, so that there are
/// never more than places given out.
#[derive(Clone, Debug)]
pub struct Places<K> {
    taken: HashMap<K, u32>,
}

impl<K: Eq + Hash> Default for Places<K> {
    fn default() -> Self {
        Self {
            taken: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Places<K> {
    /// Takes a place for `holder`, which may have `most`; whether there was one.
    pub fn take(&mut self, holder: K, most: u32) -> bool {
        let taken = self.taken.entry(holder).or_insert(0);
        let free = *taken < most;
        if free {
            *taken += 1;
        } else if *taken == 0 {
            self.taken.retain(|_, taken| *taken > 0);
        }
        free
    }

    /// Gives a place back that [`Places::take`] gave.
    pub fn give_back(&mut self, holder: &K) {
        if let Some(taken) = self.taken.get_mut(holder) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(holder);
            }
        }
        // What a storm has taken is given back.
        if self.taken.is_empty() {
            self.taken.shrink_to_fit();
        }
    }

    /// How many places `holder` has.
    pub fn of(&self, holder: &K) -> u32 {
        self.taken.get(holder).copied().unwrap_or(0)
    }

    /// How many holders have a place.
    pub fn holders(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_has_its_own_and_no_more() {
        let mut places = Places::default();
        assert!(places.take("a", 2) && places.take("a", 2) && !places.take("a", 2));
        assert!(places.take("b", 2));
        places.give_back(&"a");
        assert!(places.take("a", 2));
        assert!(!places.take("c", 0));
        assert_eq!((places.of(&"a"), places.of(&"c"), places.holders()), (2, 0, 2));
        places.give_back(&"c");
        assert_eq!(places.holders(), 2);
    }

    proptest! {
        /// Whatever is taken and given back in whatever order: never more than the most, nobody's
        /// refusal is another's doing, and who has nothing is not remembered.
        #[test]
        fn it_counts_who_is_there(steps in prop::collection::vec((0_usize..5, any::<bool>()), 0..200), most in 0_u32..4) {
            let mut places = Places::default();
            let mut held = [0_u32; 5];
            for (holder, takes) in steps {
                if takes {
                    prop_assert_eq!(places.take(holder, most), held[holder] < most);
                    held[holder] = (held[holder] + 1).min(most);
                } else if held[holder] > 0 {
                    places.give_back(&holder);
                    held[holder] -= 1;
                }
                prop_assert_eq!(places.of(&holder), held[holder]);
                prop_assert_eq!(places.holders(), held.iter().filter(|held| **held > 0).count());
            }
        }
    }
}
