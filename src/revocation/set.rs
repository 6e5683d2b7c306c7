use std::{collections::HashMap, sync::Arc};

use super::entry::{Entry, EntryId, Kind};
use crate::model::{AppId, TokenFacts};

/// What is revoked, of all apps, as far as this node knows.
#[derive(Debug, Default)]
pub struct Set {
    apps: HashMap<AppId, OfApp>,
}

#[derive(Debug, Default)]
struct OfApp {
    entries: HashMap<EntryId, Arc<Entry>>,
    /// How many of [`Kind::User`] and [`Kind::Key`]: most apps have none, and then nothing is hashed.
    users: usize,
    keys: usize,
}

impl Set {
    /// Knows `entry` of `app` instead of what it knew under its id. True if it may revoke more than
    /// before.
    pub fn put(&mut self, app: &AppId, entry: &Arc<Entry>) -> bool {
        let of_app = self.apps.entry(app.clone()).or_default();
        let known = of_app.entries.insert(entry.id(), entry.clone());
        match known {
            Some(known) => entry.exceeds(&known),
            None => {
                of_app.count(entry.kind, 1);
                true
            }
        }
    }

    /// Forgets an entry. True if it was known.
    pub fn remove(&mut self, app: &str, id: EntryId) -> bool {
        let Some(of_app) = self.apps.get_mut(app) else {
            return false;
        };
        let known = of_app.entries.remove(&id).is_some();
        if known {
            of_app.count(id.kind, -1);
        }
        if of_app.entries.is_empty() {
            self.apps.remove(app);
        }
        known
    }

    /// Whether a token of `user` that says this of itself is revoked at `now`.
    pub fn revokes(&self, app: &AppId, user: &str, facts: &TokenFacts, now: i64) -> bool {
        let Some(of_app) = self.apps.get(app) else {
            return false;
        };
        let holds = |id: EntryId| of_app.entries.get(&id).filter(|entry| entry.holds(now));
        let issued_before = |entry: &Arc<Entry>| facts.issued_at.is_none_or(|at| at < entry.before);
        let by_id = || {
            let hash = facts.id?;
            holds(EntryId::hashed(Kind::Token, hash))
        };
        let by_key = || {
            let key = facts.key.as_deref().filter(|_| of_app.keys > 0)?;
            holds(EntryId::of(Kind::Key, key))
        };
        let by_user = || (of_app.users > 0).then(|| holds(EntryId::of(Kind::User, user)))?;
        by_id().is_some()
            || holds(EntryId::BEFORE).is_some_and(issued_before)
            || by_user().is_some_and(issued_before)
            || by_key().is_some()
    }

    /// The entry of `app` called `id`, if it holds.
    pub fn get(&self, app: &AppId, id: EntryId, now: i64) -> Option<Arc<Entry>> {
        let entry = self.apps.get(app)?.entries.get(&id)?;
        entry.holds(now).then(|| entry.clone())
    }

    /// The entries of `app` that hold, in the order of their ids, after the one called `after`.
    pub fn list(&self, app: &AppId, after: Option<EntryId>, now: i64) -> Vec<(EntryId, Arc<Entry>)> {
        let Some(of_app) = self.apps.get(app) else {
            return Vec::new();
        };
        let wanted = of_app
            .entries
            .iter()
            .filter(|(id, entry)| after.is_none_or(|after| **id > after) && entry.holds(now));
        let mut all: Vec<_> = wanted.map(|(id, entry)| (*id, entry.clone())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// How many entries of `app` are known, also of those that hold no more.
    pub fn count(&self, app: &AppId) -> usize {
        self.apps.get(app).map_or(0, |of_app| of_app.entries.len())
    }

    /// How many entries of `app` hold.
    pub fn count_holding(&self, app: &AppId, now: i64) -> usize {
        let Some(of_app) = self.apps.get(app) else {
            return 0;
        };
        of_app.entries.values().filter(|entry| entry.holds(now)).count()
    }

    /// How many entries of all apps are known.
    pub fn len(&self) -> usize {
        self.apps.values().map(|of_app| of_app.entries.len()).sum()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// Every entry's app and id.
    pub fn ids(&self) -> impl Iterator<Item = (&AppId, EntryId)> {
        let of_app =
            |(app, of_app): (_, &'_ OfApp)| (app, of_app.entries.keys().copied().collect::<Vec<_>>());
        self.apps
            .iter()
            .map(of_app)
            .flat_map(|(app, ids)| ids.into_iter().map(move |id| (app, id)))
    }

    /// Forgets what holds no more.
    pub fn prune(&mut self, now: i64) {
        self.apps.retain(|_, of_app| {
            let mut ended = Vec::new();
            of_app.entries.retain(|id, entry| {
                let holds = entry.holds(now);
                if !holds {
                    ended.push(id.kind);
                }
                holds
            });
            for kind in ended {
                of_app.count(kind, -1);
            }
            !of_app.entries.is_empty()
        });
    }
}

impl OfApp {
    fn count(&mut self, kind: Kind, by: isize) {
        let counter = match kind {
            Kind::User => &mut self.users,
            Kind::Key => &mut self.keys,
            Kind::Token | Kind::Before => return,
        };
        *counter = counter.saturating_add_signed(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token_id;

    const NOW: i64 = 1_000;

    fn app(id: &str) -> AppId {
        AppId::new(id).unwrap()
    }

    fn entry(kind: Kind, value: &str, before: i64, until: i64) -> Arc<Entry> {
        Arc::new(Entry {
            kind,
            value: value.to_owned(),
            before,
            until,
            created: NOW,
        })
    }

    fn facts(id: Option<&str>, issued_at: Option<i64>, key: Option<&str>) -> TokenFacts {
        TokenFacts {
            id: id.map(token_id),
            issued_at,
            key: key.map(Arc::from),
        }
    }

    #[test]
    fn what_each_kind_revokes() {
        use Kind::{Before, Key, Token, User};
        let ann = |id, at, key| ("ann", facts(id, at, key));
        for (entry, (user, facts), revoked) in [
            (entry(Token, "t1", 0, 2_000), ann(Some("t1"), Some(5), None), true),
            (
                entry(Token, "t1", 0, 2_000),
                ann(Some("t2"), Some(5), None),
                false,
            ),
            (entry(Token, "t1", 0, 2_000), ann(None, None, None), false),
            (entry(Token, "t1", 0, NOW), ann(Some("t1"), Some(5), None), false),
            (entry(User, "ann", 900, 2_000), ann(None, Some(899), None), true),
            (entry(User, "ann", 900, 2_000), ann(None, Some(900), None), false),
            (entry(User, "ann", 900, 2_000), ann(None, None, None), true),
            (entry(User, "bob", 900, 2_000), ann(None, None, None), false),
            (entry(User, "", 900, 2_000), ann(None, None, None), false),
            (entry(User, "", 900, 2_000), ("", facts(None, None, None)), true),
            (entry(User, "ann", 900, NOW - 1), ann(None, None, None), false),
            (entry(Before, "", 900, 2_000), ann(None, Some(899), None), true),
            (entry(Before, "", 900, 2_000), ann(None, Some(900), None), false),
            (entry(Before, "", 900, 2_000), ann(None, None, None), true),
            (entry(Before, "", 900, NOW), ann(None, None, None), false),
            (entry(Key, "k1", 0, 2_000), ann(None, Some(999), Some("k1")), true),
            (
                entry(Key, "k1", 0, 2_000),
                ann(None, Some(999), Some("k2")),
                false,
            ),
            (entry(Key, "k1", 0, 2_000), ann(Some("k1"), None, None), false),
        ] {
            let mut set = Set::default();
            assert!(set.put(&app("a"), &entry));
            assert_eq!(
                set.revokes(&app("a"), user, &facts, NOW),
                revoked,
                "{entry:?} {user} {facts:?}"
            );
            assert!(!set.revokes(&app("b"), user, &facts, NOW), "another app");
            set.remove("a", entry.id());
            assert!(!set.revokes(&app("a"), user, &facts, NOW), "removed");
            assert!(set.is_empty());
        }
    }

    #[test]
    fn entries_are_counted_listed_and_forgotten() {
        let mut set = Set::default();
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            set.put(
                &app("a"),
                &entry(kind, "v", 5, NOW + i64::try_from(index).unwrap()),
            );
        }
        set.put(&app("b"), &entry(Kind::User, "v", 5, NOW + 9));
        assert_eq!((set.count(&app("a")), set.len()), (4, 5));
        assert_eq!(set.ids().count(), 5);
        let listed = set.list(&app("a"), None, NOW);
        assert_eq!(listed.len(), 3, "one of them holds no more");
        assert_eq!(set.list(&app("a"), Some(listed[0].0), NOW), listed[1..]);
        assert!(set.list(&app("c"), None, NOW).is_empty());
        assert!(
            !set.put(&app("b"), &entry(Kind::User, "v", 5, NOW + 9)),
            "the same"
        );
        assert!(!set.put(&app("b"), &entry(Kind::User, "v", 4, NOW + 9)), "less");
        assert!(set.put(&app("b"), &entry(Kind::User, "v", 6, NOW + 9)), "more");
        set.prune(NOW + 1);
        assert_eq!((set.count(&app("a")), set.len()), (2, 3));
        set.prune(NOW + 9);
        assert!(set.is_empty());
    }
}
