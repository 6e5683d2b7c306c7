//! The connections of this node by their user.
//!
//! Kept small, since every connection is in it: entries of all users of a shard share a slab, and
//! those whose (app, user) have the same hash are a list through it.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    sync::Arc,
};

use parking_lot::Mutex;
use slab::Slab;

use crate::{
    channel::Mailbox,
    model::{AppId, TokenFacts},
};

/// Locks that connections share. Not a setting: it only spreads contention.
const SHARDS: usize = 16;
/// No entry.
const NONE: u32 = u32::MAX;

/// See the module's documentation.
pub struct Index {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    entries: Slab<Entry>,
    /// The first of the entries with a hash.
    heads: HashMap<u64, u32>,
}

struct Entry {
    app: AppId,
    user: Box<str>,
    client: Box<str>,
    mailbox: Arc<Mailbox>,
    facts: Option<Box<TokenFacts>>,
    hash: u64,
    before: u32,
    after: u32,
}

/// A connection of this node.
#[derive(Clone)]
pub struct Local {
    /// Its id.
    pub client: Box<str>,
    /// Where it is reached.
    pub mailbox: Arc<Mailbox>,
}

/// A connection's place in the index, which it has until this is dropped.
pub struct Place {
    index: Arc<Index>,
    hash: u64,
    slot: u32,
}

// === impl Index ===

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl Index {
    /// Enters a connection of `user`. `facts` are those of its token, if it came with one.
    pub fn enter(
        self: &Arc<Self>,
        app: &AppId,
        user: &str,
        client: &str,
        facts: Option<TokenFacts>,
        mailbox: Arc<Mailbox>,
    ) -> Place {
        let hash = self.hash(app, user);
        let mut shard = self.shard(hash).lock();
        self.put(&mut shard, hash, app, user, client, facts, mailbox)
    }

    /// The same, unless the user has `most` connections that are not about to end.
    pub fn enter_within(
        self: &Arc<Self>,
        most: usize,
        app: &AppId,
        user: &str,
        client: &str,
        facts: Option<TokenFacts>,
        mailbox: Arc<Mailbox>,
    ) -> Option<Place> {
        let hash = self.hash(app, user);
        let mut shard = self.shard(hash).lock();
        let there = shard.of(hash, app, user).take(most).count();
        (there < most).then(|| self.put(&mut shard, hash, app, user, client, facts, mailbox))
    }

    #[expect(clippy::too_many_arguments, reason = "what an entry is made of")]
    fn put(
        self: &Arc<Self>,
        shard: &mut Shard,
        hash: u64,
        app: &AppId,
        user: &str,
        client: &str,
        facts: Option<TokenFacts>,
        mailbox: Arc<Mailbox>,
    ) -> Place {
        let after = shard.heads.get(&hash).copied().unwrap_or(NONE);
        let slot = shard.entries.insert(Entry {
            app: app.clone(),
            user: user.into(),
            client: client.into(),
            mailbox,
            facts: facts.map(Box::new),
            hash,
            before: NONE,
            after,
        });
        // A node has fewer file descriptors than this could overflow by.
        let slot = u32::try_from(slot).unwrap_or(NONE);
        if let Some(next) = shard.entry(after) {
            next.before = slot;
        }
        shard.heads.insert(hash, slot);
        Place {
            index: self.clone(),
            hash,
            slot,
        }
    }

    /// The connections of a user that are not about to end.
    pub fn local(&self, app: &AppId, user: &str) -> Vec<Local> {
        let hash = self.hash(app, user);
        let shard = self.shard(hash).lock();
        let local = shard.of(hash, app, user).map(|entry| Local {
            client: entry.client.clone(),
            mailbox: entry.mailbox.clone(),
        });
        local.collect()
    }

    /// The connections of an app whose user and token `is` is true of: of all users, at a look at every
    /// connection of the node, or only of `user`.
    pub fn with_token(
        &self,
        app: &AppId,
        user: Option<&str>,
        is: impl Fn(&str, &TokenFacts) -> bool,
    ) -> Vec<Arc<Mailbox>> {
        let mut found = Vec::new();
        let mut look = |entry: &Entry| {
            let facts = entry.facts.as_deref().filter(|_| entry.app == *app);
            if facts.is_some_and(|facts| is(&entry.user, facts)) {
                found.push(entry.mailbox.clone());
            }
        };
        match user {
            Some(user) => {
                let hash = self.hash(app, user);
                self.shard(hash).lock().with_hash(hash).for_each(look);
            }
            None => {
                for shard in &self.shards {
                    shard.lock().entries.iter().for_each(|(_, entry)| look(entry));
                }
            }
        }
        found
    }

    /// All connections of an app, at a look at every connection of the node.
    pub fn of_app(&self, app: &AppId) -> Vec<Arc<Mailbox>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let of_app = shard.entries.iter().filter(|(_, entry)| entry.app == *app);
            found.extend(of_app.map(|(_, entry)| entry.mailbox.clone()));
        }
        found
    }

    /// How many users have connections here; those without a name are one for each app.
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().heads.len()).sum()
    }

    /// The same of one app, at a look at every user of the node.
    pub fn users_of(&self, app: &AppId) -> usize {
        let of_app = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            let first = |slot: &&u32| shard.entries.get(**slot as usize);
            shard
                .heads
                .values()
                .filter(|slot| first(slot).is_some_and(|entry| entry.app == *app))
                .count()
        };
        self.shards.iter().map(of_app).sum()
    }

    /// How many connections are in it.
    pub fn connections(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }

    fn hash(&self, app: &AppId, user: &str) -> u64 {
        self.hasher.hash_one((app, user))
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The upper bits: a map uses others.
        let at = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        &self.shards[at]
    }
}

impl Shard {
    /// The entries of a list.
    fn with_hash(&self, hash: u64) -> impl Iterator<Item = &Entry> {
        let first = self.heads.get(&hash).copied().unwrap_or(NONE);
        let entry = |at: u32| self.entries.get(at as usize);
        std::iter::successors(entry(first), move |known| entry(known.after))
    }

    /// The connections of a user that are not about to end.
    fn of(&self, hash: u64, app: &AppId, user: &str) -> impl Iterator<Item = &Entry> {
        self.with_hash(hash)
            .filter(move |entry| entry.app == *app && *entry.user == *user && !entry.mailbox.closing())
    }

    fn entry(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

// === impl Place ===

impl Place {
    /// The connection goes on with another token.
    pub fn renew(&self, facts: TokenFacts) {
        let mut shard = self.index.shard(self.hash).lock();
        if let Some(entry) = shard.entry(self.slot) {
            entry.facts = Some(Box::new(facts));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.index.shard(self.hash).lock();
        let Some(entry) = shard.entries.try_remove(self.slot as usize) else {
            return;
        };
        if let Some(after) = shard.entry(entry.after) {
            after.before = entry.before;
        }
        match shard.entry(entry.before) {
            Some(before) => before.after = entry.after,
            None if entry.after == NONE => {
                shard.heads.remove(&entry.hash);
            }
            None => {
                shard.heads.insert(entry.hash, entry.after);
            }
        }
        if shard.entries.is_empty() {
            // What a storm of connections has taken is given back.
            shard.entries.shrink_to_fit();
            shard.heads.shrink_to_fit();
        }
        drop(shard);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::channel::MailboxLimits;

    fn app(id: &str) -> AppId {
        AppId::new(id).unwrap()
    }

    fn mailbox() -> Arc<Mailbox> {
        let limits = MailboxLimits { soft: 1, hard: 1 };
        Arc::new(Mailbox::held(limits, None))
    }

    fn clients(index: &Index, app: &AppId, user: &str) -> BTreeSet<String> {
        let local = index.local(app, user);
        let clients: BTreeSet<_> = local.iter().map(|it| it.client.to_string()).collect();
        assert_eq!(clients.len(), local.len(), "each once");
        clients
    }

    #[test]
    fn the_same_user_of_another_app_is_another() {
        let index = Arc::new(Index::default());
        let _a = index.enter(&app("a"), "ann", "1", None, mailbox());
        let _b = index.enter(&app("b"), "ann", "2", None, mailbox());
        assert_eq!(clients(&index, &app("a"), "ann"), ["1".to_owned()].into());
        assert_eq!(clients(&index, &app("b"), "ann"), ["2".to_owned()].into());
        assert!(clients(&index, &app("a"), "").is_empty());
        assert_eq!((index.users(), index.connections()), (2, 2));
    }

    #[test]
    fn one_that_is_about_to_end_counts_no_more() {
        let index = Arc::new(Index::default());
        let mailbox = mailbox();
        let _place = index.enter(&app("a"), "ann", "1", None, mailbox.clone());
        assert_eq!(index.local(&app("a"), "ann").len(), 1);
        mailbox.end();
        assert!(index.local(&app("a"), "ann").is_empty());
    }

    #[test]
    fn a_user_has_no_more_than_the_most_and_another_is_another() {
        let index = Arc::new(Index::default());
        let enter = |id: &str, user: &str| index.enter_within(2, &app(id), user, "c", None, mailbox());
        let (one, _two) = (enter("a", "ann").unwrap(), enter("a", "ann").unwrap());
        assert!(enter("a", "ann").is_none());
        let _others = (enter("a", "bob").unwrap(), enter("b", "ann").unwrap());
        drop(one);
        assert!(enter("a", "ann").is_some());
        // One that is about to end counts no more.
        let going = mailbox();
        let _going = index
            .enter_within(2, &app("a"), "ann", "c", None, going.clone())
            .unwrap();
        assert!(enter("a", "ann").is_none());
        going.end();
        assert!(enter("a", "ann").is_some());
    }

    #[test]
    fn connections_are_found_by_their_token() {
        let index = Arc::new(Index::default());
        let facts = |at| TokenFacts {
            issued_at: Some(at),
            ..TokenFacts::default()
        };
        let old = |_: &str, facts: &TokenFacts| facts.issued_at < Some(5);
        let place = index.enter(&app("a"), "ann", "1", Some(facts(1)), mailbox());
        let _without = index.enter(&app("a"), "ann", "2", None, mailbox());
        let _other = index.enter(&app("b"), "ann", "3", Some(facts(1)), mailbox());
        assert_eq!(index.with_token(&app("a"), None, old).len(), 1);
        assert_eq!(index.with_token(&app("a"), Some("ann"), old).len(), 1);
        assert!(index.with_token(&app("a"), Some("bob"), old).is_empty());
        place.renew(facts(9));
        assert!(index.with_token(&app("a"), None, old).is_empty());
    }

    proptest! {
        /// Whatever comes and goes in whatever order, the index holds who is there.
        #[test]
        fn it_holds_who_is_there(steps in prop::collection::vec((0_usize..4, any::<prop::sample::Index>(), any::<bool>()), 0..200)) {
            let index = Arc::new(Index::default());
            let users = ["", "ann", "bob", "cid"];
            let mut there: Vec<(usize, String, Place)> = Vec::new();
            for (number, (user, at, comes)) in steps.into_iter().enumerate() {
                if comes || there.is_empty() {
                    let client = number.to_string();
                    let place = index.enter(&app("a"), users[user], &client, None, mailbox());
                    there.push((user, client, place));
                } else {
                    let at = at.index(there.len());
                    there.swap_remove(at);
                }
                for (user, name) in users.iter().enumerate() {
                    let known: BTreeSet<_> = there.iter().filter(|it| it.0 == user).map(|it| it.1.clone()).collect();
                    prop_assert_eq!(clients(&index, &app("a"), name), known);
                }
                let distinct: BTreeSet<_> = there.iter().map(|it| it.0).collect();
                prop_assert_eq!((index.users(), index.connections()), (distinct.len(), there.len()));
            }
        }
    }
}
