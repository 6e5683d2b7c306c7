//! Memory that apps share: each has its own part, so that none can evict another's.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;

use crate::{model::AppId, telemetry::Limit};

/// The bytes of rings that each app may hold on this node: an equal part of the whole for each app that
/// holds any, and what those leave that want less. Parts are made anew when the number of such apps has
/// changed by more than a thirty-second; an app that has more than its new part loses it when it wants
/// more, and until then those that are new get what is left.
#[derive(Debug, Default)]
pub struct Budgets {
    total: usize,
    used: AtomicUsize,
    /// Apps that hold anything.
    active: AtomicUsize,
    divided: RwLock<Divided>,
}

#[derive(Debug, Default)]
struct Divided {
    apps: HashMap<AppId, Arc<Budget>>,
    /// By how many the whole is divided.
    between: usize,
    /// What one gets that has no limit of its own.
    share: usize,
}

#[derive(Debug)]
struct Budget {
    /// 0 = none.
    own: usize,
    limit: AtomicUsize,
    used: AtomicUsize,
    /// It goes when nothing of it is held any more.
    removed: AtomicBool,
}

impl Budgets {
    /// Divides `total` bytes.
    pub fn new(total: usize) -> Self {
        Self {
            total,
            divided: RwLock::new(Divided {
                share: total,
                ..Divided::default()
            }),
            ..Self::default()
        }
    }

    /// An app may hold at most `own` bytes; 0 = no more than its part.
    pub fn set(&self, app: &AppId, own: u64) {
        let own = usize::try_from(own).unwrap_or(usize::MAX);
        let mut divided = self.divided.write();
        let used = divided
            .apps
            .get(app)
            .map_or(0, |budget| budget.used.load(Ordering::Relaxed));
        let budget = Budget {
            own,
            limit: AtomicUsize::new(cap(own, divided.share)),
            used: AtomicUsize::new(used),
            removed: AtomicBool::new(false),
        };
        divided.apps.insert(app.clone(), Arc::new(budget));
        if used > 0 {
            self.divide(&mut divided);
        }
    }

    /// There is no such app any more. What it still holds counts until it is given back.
    pub fn remove(&self, app: &AppId) {
        let divided = self.divided.read();
        if let Some(budget) = divided.apps.get(app) {
            budget.removed.store(true, Ordering::Relaxed);
        }
        drop(divided);
        self.forget(app);
    }

    /// Forgets an app that was removed, is not there again, and holds nothing.
    fn forget(&self, app: &AppId) {
        let mut divided = self.divided.write();
        let is_over = |budget: &Arc<Budget>| {
            budget.removed.load(Ordering::Relaxed) && budget.used.load(Ordering::Relaxed) == 0
        };
        if divided.apps.get(app).is_some_and(is_over) {
            divided.apps.remove(app);
        }
    }

    /// Takes `bytes` for an app; false if that would be more than it may hold.
    pub fn take(&self, app: &AppId, bytes: usize) -> bool {
        let divided = self.divided.read();
        let Some(budget) = divided.apps.get(app) else {
            return false;
        };
        let take = |used: &AtomicUsize, limit: usize| {
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= limit)
            })
        };
        // The whole first: what an app holds, by which it counts as one that holds any, is never undone.
        if take(&self.used, self.total).is_err() {
            return false;
        }
        let Ok(before) = take(&budget.used, budget.limit.load(Ordering::Relaxed)) else {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        };
        if before == 0 && bytes > 0 {
            self.active.fetch_add(1, Ordering::Relaxed);
            drop(divided);
            self.divide_if_changed();
        }
        true
    }

    /// What bounds an app: its own limit, or the node's.
    pub fn bound(&self, app: &AppId) -> Limit {
        match self.divided.read().apps.get(app) {
            Some(budget) if budget.own == budget.limit.load(Ordering::Relaxed) => Limit::AppRings,
            _ => Limit::NodeRings,
        }
    }

    /// Gives back what was taken.
    pub fn give_back(&self, app: &AppId, bytes: usize) {
        let divided = self.divided.read();
        let Some(budget) = divided.apps.get(app) else {
            return;
        };
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if bytes > 0 && budget.used.fetch_sub(bytes, Ordering::Relaxed) == bytes {
            self.active.fetch_sub(1, Ordering::Relaxed);
            let removed = budget.removed.load(Ordering::Relaxed);
            drop(divided);
            if removed {
                self.forget(app);
            }
            self.divide_if_changed();
        }
    }

    fn divide_if_changed(&self) {
        let active = self.active.load(Ordering::Relaxed);
        let between = self.divided.read().between;
        if active.abs_diff(between) > between / 32 {
            self.divide(&mut self.divided.write());
        }
    }

    fn divide(&self, divided: &mut Divided) {
        let is_active = |budget: &&Arc<Budget>| budget.used.load(Ordering::Relaxed) > 0;
        let wants = |budget: &Arc<Budget>| if budget.own == 0 { usize::MAX } else { budget.own };
        let mut active: Vec<_> = divided.apps.values().filter(is_active).collect();
        active.sort_by_key(|budget| wants(budget));
        let count = active.len();
        let (mut left, mut share) = (self.total, self.total);
        for (index, budget) in active.into_iter().enumerate() {
            share = left / (count - index);
            let limit = cap(budget.own, share);
            budget.limit.store(limit, Ordering::Relaxed);
            left -= limit;
        }
        divided.between = count;
        divided.share = share;
        for budget in divided.apps.values().filter(|budget| !is_active(budget)) {
            budget.limit.store(cap(budget.own, share), Ordering::Relaxed);
        }
    }
}

fn cap(own: usize, share: usize) -> usize {
    if own == 0 { share } else { own.min(share) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn app(id: &str) -> AppId {
        AppId::new(id).unwrap()
    }

    fn budgets(total: usize, apps: &[(&str, u64)]) -> Budgets {
        let budgets = Budgets::new(total);
        for (id, own) in apps {
            budgets.set(&app(id), *own);
        }
        budgets
    }

    #[test]
    fn every_app_that_holds_any_has_its_own_part() {
        let budgets = budgets(100, &[("a", 0), ("small", 10), ("b", 0), ("c", 80), ("idle", 0)]);
        let limit = |id| {
            budgets.divided.read().apps[&app(id)]
                .limit
                .load(Ordering::Relaxed)
        };
        assert!(!budgets.take(&app("a"), 101) && !budgets.take(&app("small"), 11));
        for id in ["a", "small", "b", "c"] {
            assert!(budgets.take(&app(id), 1));
        }
        assert_eq!(
            (limit("small"), limit("a"), limit("b"), limit("c")),
            (10, 30, 30, 30)
        );
        assert_eq!(budgets.bound(&app("small")), Limit::AppRings);
        assert_eq!(
            budgets.bound(&app("c")),
            Limit::NodeRings,
            "its own is above its share"
        );
        assert!(budgets.take(&app("a"), 29) && !budgets.take(&app("a"), 1));
        assert!(budgets.take(&app("b"), 29), "a full neighbour takes nothing away");
        budgets.give_back(&app("a"), 5);
        assert!(budgets.take(&app("a"), 5));
        assert!(!budgets.take(&app("unknown"), 1));
    }

    #[test]
    fn who_was_alone_makes_room_when_it_wants_more() {
        let budgets = budgets(100, &[("a", 0), ("b", 0)]);
        assert!(budgets.take(&app("a"), 90));
        assert!(budgets.take(&app("b"), 10), "what is left");
        assert!(!budgets.take(&app("b"), 10));
        assert!(!budgets.take(&app("a"), 1), "it is over its part now");
        budgets.give_back(&app("a"), 90);
        assert!(budgets.take(&app("b"), 40) && budgets.take(&app("a"), 50));
        budgets.give_back(&app("b"), 50);
        assert!(budgets.take(&app("a"), 50), "it is alone again");
    }

    #[test]
    fn an_app_that_was_removed_counts_until_it_holds_nothing() {
        let budgets = budgets(100, &[("a", 0), ("b", 0)]);
        assert!(budgets.take(&app("a"), 60));
        budgets.remove(&app("a"));
        budgets.remove(&app("b"));
        assert!(!budgets.take(&app("b"), 1));
        budgets.give_back(&app("a"), 60);
        assert!(!budgets.take(&app("a"), 1));
        assert_eq!(budgets.divided.read().apps.len(), 0);
        budgets.set(&app("a"), 0);
        assert!(budgets.take(&app("a"), 100));
    }

    proptest! {
        /// Never more than the whole, never less than nothing, and all is there again in the end.
        #[test]
        fn what_is_given_was_there(steps in prop::collection::vec((0..6usize, 0..60usize, any::<bool>()), 0..200)) {
            let ids: Vec<_> = (0..6).map(|index| app(&format!("a{index}"))).collect();
            let budgets = Budgets::new(100);
            for (index, id) in ids.iter().enumerate() {
                budgets.set(id, index as u64 * 7);
            }
            let mut held = [0; 6];
            for (who, bytes, takes) in steps {
                if takes {
                    if budgets.take(&ids[who], bytes) {
                        held[who] += bytes;
                    }
                } else {
                    let bytes = bytes.min(held[who]);
                    budgets.give_back(&ids[who], bytes);
                    held[who] -= bytes;
                }
                prop_assert!(held.iter().sum::<usize>() <= 100);
                let active = held.iter().filter(|held| **held > 0).count();
                prop_assert_eq!(budgets.active.load(Ordering::Relaxed), active);
            }
            for (id, held) in ids.iter().zip(held) {
                budgets.give_back(id, held);
            }
            prop_assert_eq!(budgets.used.load(Ordering::Relaxed), 0);
        }
    }
}
