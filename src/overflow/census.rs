//! What the stream has of all apps, from one answer. Pure.

use std::collections::{HashMap, HashSet};

use super::backlog::Place;
use crate::{
    log::Counts,
    model::{AppId, ChannelName},
};

/// What waits, as the stream's leader had it at one moment.
#[derive(Debug, Default)]
pub(super) struct Census {
    apps: HashMap<AppId, Found>,
    /// How many keys the answer had.
    keys: usize,
    /// Whether what is not here does not wait.
    is_whole: bool,
}

#[derive(Debug, Default)]
struct Found {
    messages: u64,
    channels: HashSet<ChannelName>,
}

impl Census {
    pub(super) fn new(counts: Counts) -> Self {
        let mut census = Self {
            apps: HashMap::new(),
            keys: counts.keys.len(),
            is_whole: counts.is_whole,
        };
        for (key, messages) in counts.keys {
            // Whatever else is an app's is its message, too: it is dropped when it is delivered.
            let mut parts = key.into_iter();
            let Some(app) = parts.next().and_then(|app| AppId::new(&app).ok()) else {
                continue;
            };
            let found = census.apps.entry(app).or_default();
            found.messages += messages;
            let channel = parts.next().and_then(|channel| ChannelName::new(&channel).ok());
            found.channels.extend(channel);
        }
        census
    }

    /// Whether what is not here does not wait.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// How many keys the stream was asked for in one answer.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// Apps of which something waits.
    pub(super) fn apps(&self) -> impl Iterator<Item = &AppId> {
        self.apps.keys()
    }

    /// How many messages of an app wait, if that is known.
    pub(super) fn messages(&self, app: &AppId) -> Option<u64> {
        let found = self.apps.get(app).map_or(0, |found| found.messages);
        self.is_whole.then_some(found)
    }

    /// Whether it is known that nothing of a place waits.
    pub(super) fn is_empty(&self, app: &AppId, place: &Place) -> bool {
        let Some(found) = self.apps.get(app) else {
            return self.is_whole;
        };
        // `None` is all of the app.
        let is_there = place
            .as_ref()
            .is_none_or(|channel| found.channels.contains(channel));
        self.is_whole && !is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(is_whole: bool) -> Counts {
        let key = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        Counts {
            keys: vec![
                (key(&["a", "x", "q"]), 2),
                (key(&["a", "y", "q"]), 3),
                (key(&["b", "x", "q"]), 1),
                (key(&["c"]), 7),
                (key(&["No App", "x", "q"]), 9),
            ],
            is_whole,
        }
    }

    #[test]
    fn a_whole_answer_says_what_does_not_wait() {
        let census = Census::new(counts(true));
        let app = |id| AppId::new(id).unwrap();
        let place = |name| Some(ChannelName::new(name).unwrap());
        for (id, channel, is_empty) in [
            ("a", place("x"), false),
            ("a", place("z"), true),
            ("a", None, false),
            ("b", place("y"), true),
            ("c", None, false),
            ("d", place("x"), true),
            ("d", None, true),
        ] {
            assert_eq!(census.is_empty(&app(id), &channel), is_empty, "{id} {channel:?}");
        }
        for (id, messages) in [("a", 5), ("b", 1), ("c", 7), ("d", 0)] {
            assert_eq!(census.messages(&app(id)), Some(messages), "{id}");
        }
        assert_eq!((census.apps().count(), census.keys()), (3, 5));
    }

    #[test]
    fn a_part_of_the_answer_says_nothing_of_what_it_does_not_have() {
        let census = Census::new(counts(false));
        let app = |id| AppId::new(id).unwrap();
        for id in ["a", "d"] {
            assert_eq!(census.messages(&app(id)), None);
            for place in [None, Some(ChannelName::new("z").unwrap())] {
                assert!(!census.is_empty(&app(id), &place), "{id} {place:?}");
            }
        }
        assert!(!census.is_whole() && census.apps().any(|known| *known == app("b")));
    }
}
