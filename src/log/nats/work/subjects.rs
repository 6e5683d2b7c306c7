//! What a stream holds by subject, as its leader says.

use std::collections::HashMap;

use serde::Deserialize;

use crate::log::{Counts, ReadError, nats::subject};

/// The most subjects of one answer, where it does not say how many there are.
const PAGE: usize = 100_000;

/// The answer to STREAM.INFO with a filter of subjects, as far as it is used.
#[derive(Deserialize)]
pub(super) struct Subjects {
    /// Of all pages.
    total: Option<u64>,
    state: State,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    leader: String,
}

impl Subjects {
    /// Accepts only what a leader has said: a replica without one answers from its own store.
    pub(super) fn accept(self, root: &str) -> Result<Counts, ReadError> {
        if self.cluster.is_some_and(|cluster| cluster.leader.is_empty()) {
            return Err(ReadError::NotNow("the stream has no leader".to_owned()));
        }
        let subjects = self.state.subjects;
        let count = subjects.len();
        let is_whole = match self.total {
            Some(total) => usize::try_from(total).is_ok_and(|total| total <= count),
            None => count < PAGE,
        };
        // What no node can have appended is taken out when it is delivered.
        let keys = subjects.into_iter().filter_map(|(subject, messages)| {
            let tokens = subject.strip_prefix(root)?.strip_prefix('.')?;
            Some((subject::key_parts(tokens)?, messages))
        });
        Ok(Counts {
            keys: keys.collect(),
            is_whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Result<Counts, ReadError> {
        serde_json::from_str::<Subjects>(text)
            .unwrap()
            .accept("w.overflow")
    }

    #[test]
    fn only_a_leader_counts_and_only_what_is_a_key() {
        let subjects = r#"{"total":3,"offset":0,"limit":100000,"config":{},"state":{"messages":9,
            "subjects":{"w.overflow.a.x%2Ey.q":4,"w.overflow.%zz":1,"w.other.a":4}}"#;
        let all = counts(&format!(r#"{subjects},"cluster":{{"leader":"n1"}}}}"#)).unwrap();
        let key = ["a", "x.y", "q"].map(str::to_owned).to_vec();
        assert_eq!((all.keys, all.is_whole), (vec![(key, 4)], true));
        assert!(counts(&format!("{subjects}}}")).is_ok());
        let leaderless = counts(&format!(r#"{subjects},"cluster":{{"name":"c"}}}}"#));
        assert!(matches!(leaderless, Err(ReadError::NotNow(_))));
    }

    #[test]
    fn a_page_of_more_is_not_all() {
        let page = |total: &str| {
            counts(&format!(
                r#"{{{total}"state":{{"subjects":{{"w.overflow.a.x.q":1}}}}}}"#
            ))
        };
        assert!(page("").unwrap().is_whole && page("\"total\":1,").unwrap().is_whole);
        assert!(!page("\"total\":2,").unwrap().is_whole);
        let empty = counts(r#"{"total":0,"state":{"messages":0}}"#).unwrap();
        assert_eq!((empty.keys.len(), empty.is_whole), (0, true));
    }
}
