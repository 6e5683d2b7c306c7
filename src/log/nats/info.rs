//! The leader's view of a shard (L5).

use serde::Deserialize;

use super::stamp;
use crate::{
    log::{ReadError, ShardInfo},
    model::Offset,
};

/// A STREAM.INFO answer, as far as it is used.
#[derive(Deserialize)]
pub(super) struct StreamInfo {
    created: String,
    state: State,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    first_seq: Offset,
    #[serde(default)]
    first_ts: String,
    last_seq: Offset,
    #[serde(default)]
    last_ts: String,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    leader: String,
}

impl StreamInfo {
    /// Accepts only what a leader has said: a replica without one answers from its own store.
    pub(super) fn accept(self) -> Result<ShardInfo, ReadError> {
        if self.cluster.is_some_and(|cluster| cluster.leader.is_empty()) {
            return Err(ReadError::NotNow("the shard has no leader".to_owned()));
        }
        let State {
            messages,
            bytes,
            first_seq,
            first_ts,
            last_seq,
            last_ts,
        } = self.state;
        let empty = messages == 0;
        Ok(ShardInfo {
            created: self.created,
            first_seq: if empty { last_seq + 1 } else { first_seq },
            last_seq,
            first_time_ms: if empty {
                0
            } else {
                stamp::parse_ms(&first_ts).unwrap_or_default()
            },
            last_time_ms: stamp::parse_ms(&last_ts).unwrap_or_default(),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(cluster: &str, messages: u64) -> Result<ShardInfo, ReadError> {
        let text = format!(
            r#"{{"type":"t","created":"2026-11-22T05:55:00.1Z","state":{{"messages":{messages},"bytes":9,
            "first_seq":4,"first_ts":"1970-01-01T00:00:01Z","last_seq":7,"last_ts":"x"}}{cluster}}}"#
        );
        serde_json::from_str::<StreamInfo>(&text).unwrap().accept()
    }

    #[test]
    fn l5_only_a_leader_counts() {
        assert!(info("", 2).is_ok());
        assert!(info(r#","cluster":{"name":"c","leader":"n1"}"#, 2).is_ok());
        for leaderless in [
            r#","cluster":{"name":"c"}"#,
            r#","cluster":{"leader":"","replicas":[]}"#,
        ] {
            assert!(matches!(info(leaderless, 2), Err(ReadError::NotNow(_))));
        }
    }

    #[test]
    fn an_empty_shard_starts_behind_its_last_sequence() {
        let full = info("", 2).unwrap();
        assert_eq!(
            (full.first_seq, full.last_seq, full.first_time_ms, full.bytes),
            (4, 7, 1_000, 9)
        );
        assert_eq!(full.created, "2026-11-22T05:55:00.1Z");
        let empty = info("", 0).unwrap();
        assert_eq!((empty.first_seq, empty.last_seq, empty.first_time_ms), (8, 7, 0));
    }
}
