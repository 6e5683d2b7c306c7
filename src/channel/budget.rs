//! Memory that apps share: each has its own part, so that none can evict another's.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{model::AppId, telemetry::Limit};

/// The bytes of rings that each app may hold on this node.
#[derive(Debug, Default)]
pub struct Budgets {
    apps: HashMap<AppId, Budget>,
}

#[derive(Debug)]
struct Budget {
    limit: usize,
    /// Where the limit comes from.
    by: Limit,
    used: AtomicUsize,
}

impl Budgets {
    /// Divides `total` between the apps. `wanted` is an app's own limit (0 = none): no app gets
    /// more than an equal share of what is left by those that want less.
    pub fn divide(total: usize, wanted: &[(AppId, u64)]) -> Self {
        let mut open: Vec<_> = wanted.iter().collect();
        open.sort_by_key(|(_, limit)| if *limit == 0 { u64::MAX } else { *limit });
        let mut left = total;
        let mut apps = HashMap::new();
        let count = open.len();
        for (index, (app, limit)) in open.into_iter().enumerate() {
            let share = left / (count - index);
            let (limit, by) = match usize::try_from(*limit) {
                Ok(limit) if limit != 0 && limit <= share => (limit, Limit::AppRings),
                _ => (share, Limit::NodeRings),
            };
            left -= limit;
            apps.insert(
                app.clone(),
                Budget {
                    limit,
                    by,
                    used: AtomicUsize::new(0),
                },
            );
        }
        Self { apps }
    }

    /// Takes `bytes` for an app; false if that would be more than it may hold.
    pub fn take(&self, app: &AppId, bytes: usize) -> bool {
        let Some(budget) = self.apps.get(app) else {
            return false;
        };
        let taken = budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= budget.limit)
            });
        taken.is_ok()
    }

    /// What bounds an app: its own limit, or the node's.
    pub fn bound(&self, app: &AppId) -> Limit {
        self.apps.get(app).map_or(Limit::NodeRings, |budget| budget.by)
    }

    /// Gives back what was taken.
    pub fn give_back(&self, app: &AppId, bytes: usize) {
        if let Some(budget) = self.apps.get(app) {
            budget.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_app_has_its_own_part() {
        let app = |id| AppId::new(id).unwrap();
        let budgets = Budgets::divide(
            100,
            &[(app("a"), 0), (app("small"), 10), (app("b"), 0), (app("c"), 80)],
        );
        let limit = |id| budgets.apps[&app(id)].limit;
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
        assert!(budgets.take(&app("a"), 30) && !budgets.take(&app("a"), 1));
        assert!(budgets.take(&app("b"), 30), "a full neighbour takes nothing away");
        budgets.give_back(&app("a"), 5);
        assert!(budgets.take(&app("a"), 5));
        assert!(!budgets.take(&app("unknown"), 1));
    }
}
