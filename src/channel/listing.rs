//! The channels of a partition, by key and in order; and which of an app's have subscribers.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use super::{
    Hub,
    hub::{Body, Channel},
};
use crate::model::{AppId, ChannelKey, ChannelName};

/// Channels looked at under one hold of a partition's lock.
const AT_ONCE: usize = 256;

/// The channels of a partition that have a tail.
#[derive(Default)]
pub(super) struct Known {
    by_key: HashMap<ChannelKey, Arc<Channel>>,
    /// The same, so that a list can go on where a page ended.
    names: HashMap<AppId, BTreeSet<ChannelName>>,
}

impl Known {
    pub(super) fn get(&self, key: &ChannelKey) -> Option<&Arc<Channel>> {
        self.by_key.get(key)
    }

    pub(super) fn insert(&mut self, key: &ChannelKey, channel: Arc<Channel>) {
        self.by_key.insert(key.clone(), channel);
        // An app is named once, not for each of its channels.
        if !self.names.contains_key(&key.app) {
            self.names.insert(key.app.clone(), BTreeSet::new());
        }
        if let Some(names) = self.names.get_mut(&key.app) {
            names.insert(key.name.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &ChannelKey) {
        self.by_key.remove(key);
        if let Some(names) = self.names.get_mut(&key.app) {
            names.remove(&key.name);
            if names.is_empty() {
                self.names.remove(&key.app);
            }
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.by_key.values()
    }

    /// The next channels of an app, in the order of their names.
    fn next(&self, app: &AppId, prefix: &str, after: Option<&str>) -> Vec<Arc<Channel>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let names = self.names.get(app);
        let names = names.map(|names| names.range::<str, _>((from, Bound::Unbounded)));
        let names = names.into_iter().flatten();
        names
            .take_while(|name| name.as_str().starts_with(prefix))
            .take(AT_ONCE)
            .filter_map(|name| {
                self.by_key.get(&ChannelKey {
                    app: app.clone(),
                    name: name.clone(),
                })
            })
            .cloned()
            .collect()
    }
}

/// Channels of an app with subscribers on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their names, with the number of their subscribers.
    pub channels: Vec<(ChannelName, usize)>,
    /// There are more behind the last of these.
    pub more: bool,
}

impl Hub {
    /// The channels of an app behind the name `after` that begin with `prefix` and have subscribers here:
    /// at most `limit`, whose names take at most `bytes` or are one.
    pub fn subscribed(
        &self,
        app: &AppId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        bytes: usize,
    ) -> Listing {
        let mut all = Vec::new();
        for partition in &self.partitions {
            let mut found = 0;
            let mut at = after.map(ToOwned::to_owned);
            loop {
                let next = partition.channels.lock().next(app, prefix, at.as_deref());
                let Some(last) = next.last() else { break };
                at = Some(last.route.key().name.as_str().to_owned());
                for channel in &next {
                    let count = channel.subscribers();
                    if count > 0 {
                        found += 1;
                        all.push((channel.route.key().name.clone(), count));
                    }
                }
                if found > limit || next.len() < AT_ONCE {
                    break;
                }
            }
        }
        all.sort_unstable();
        let mut taken = 0;
        let fits = all
            .iter()
            .take(limit)
            .enumerate()
            .take_while(|(index, (name, _))| {
                taken += name.as_str().len();
                *index == 0 || taken <= bytes
            });
        let fits = fits.count();
        let more = fits < all.len();
        all.truncate(fits);
        Listing { channels: all, more }
    }
}

impl Channel {
    /// How many subscriptions it has.
    fn subscribers(&self) -> usize {
        match &*self.body.lock() {
            Body::Durable(durable) => durable.tail.cursors().count(),
            Body::Ephemeral(ephemeral) => ephemeral.cursors.count(),
            Body::Closed => 0,
        }
    }
}
