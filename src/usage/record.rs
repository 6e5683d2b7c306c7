//! What a node reports: one message of the usage stream. `docs/log-format.md` has the form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bucket;
use crate::{
    model::{AppId, NodeId},
    telemetry::{Counts, Measure, Used},
};

/// The version of the form that this program writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// Records of a node are in one of so many queues, by the node. For good: it is part of the form.
pub(super) const QUEUES: u64 = 4;

/// The most that a record holds, bytes, unless one app alone needs more.
const MAX_BYTES: usize = 256 * 1024;

/// What the apps on a node used over a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Who reports. It is named anew each time it starts.
    pub node: NodeId,
    /// The number of the record among the node's, from 1 on.
    pub sequence: i64,
    /// When the time began, ms since 1970.
    pub from_ms: i64,
    /// When it ended.
    pub to_ms: i64,
    /// What was used.
    pub apps: Vec<AppRecord>,
}

/// What an app used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// Its id.
    pub app: String,
    /// How much of what, by [`Measure::as_str`]. What is not there is 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, i64>,
    /// The most connections at once.
    #[serde(default)]
    pub peak_connections: i64,
    /// What of it is of which namespace: `=` and its name, or `*` for all that are not told apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, BTreeMap<String, i64>>,
    /// When keys were last used, ms since 1970 to the minute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, i64>,
}

/// Why a message is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON of the form.
    #[error("it cannot be read")]
    Unreadable,
    /// A later program wrote it.
    #[error("its format is {0}, and this program reads {FORMAT}")]
    Newer(u32),
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub fn parse(json: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_slice(json).map_err(|_| RecordError::Unreadable)?;
        if format > FORMAT {
            return Err(RecordError::Newer(format));
        }
        let record: Self = serde_json::from_slice(json).map_err(|_| RecordError::Unreadable)?;
        let sound = record.sequence > 0 && 0 <= record.from_ms && record.from_ms <= record.to_ms;
        if sound {
            Ok(record)
        } else {
            Err(RecordError::Unreadable)
        }
    }

    /// The queue that a node's records are in.
    pub(super) fn queue(node: NodeId) -> String {
        (node.number() % QUEUES).to_string()
    }

    /// The time that all of it is said to have been used at: the middle. A record is short and ends at full
    /// intervals of the clock, so that it is in the minute it is of; one that covers a time without NATS is
    /// not cut up.
    pub(super) fn at_ms(&self) -> i64 {
        self.from_ms + (self.to_ms - self.from_ms) / 2
    }
}

impl AppRecord {
    pub(super) fn new(app: &AppId, used: &Used) -> Self {
        let namespaces = used.namespaces.iter();
        let keys = used.keys.iter();
        Self {
            app: app.to_string(),
            counts: numbers(&used.counts),
            peak_connections: whole(used.peak_connections),
            namespaces: namespaces
                .map(|(name, counts)| (bucket::name_of(name.as_deref()), numbers(counts)))
                .collect(),
            keys: keys.map(|(key, minute)| (key.to_string(), *minute)).collect(),
        }
    }
}

/// Splits apps so that each part is about [`MAX_BYTES`] at most as JSON.
pub(super) fn parts(apps: Vec<AppRecord>) -> Vec<Vec<AppRecord>> {
    let mut parts: Vec<Vec<AppRecord>> = Vec::new();
    let mut room = 0;
    for app in apps {
        let bytes = serde_json::to_vec(&app).map_or(MAX_BYTES, |json| json.len() + 1);
        match parts.last_mut() {
            Some(part) if bytes <= room => {
                part.push(app);
                room -= bytes;
            }
            _ => {
                parts.push(vec![app]);
                room = MAX_BYTES.saturating_sub(bytes);
            }
        }
    }
    parts
}

fn numbers(counts: &Counts) -> BTreeMap<String, i64> {
    let all = Measure::ALL
        .iter()
        .map(|measure| (*measure, counts.get(*measure)));
    all.filter(|(_, count)| *count > 0)
        .map(|(measure, count)| (measure.as_str().to_owned(), whole(count)))
        .collect()
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            format: FORMAT,
            node: NodeId::new(6),
            sequence: 1,
            from_ms: 50_000,
            to_ms: 60_004,
            apps: vec![AppRecord {
                app: "a".to_owned(),
                counts: [("messages_in".to_owned(), 2)].into(),
                ..AppRecord::default()
            }],
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = record();
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            json,
            r#"{"format":1,"node":"0000000000000006","sequence":1,"from_ms":50000,"to_ms":60004,"apps":[{"app":"a","counts":{"messages_in":2},"peak_connections":0}]}"#
        );
        assert_eq!(Record::parse(json.as_bytes()), Ok(record.clone()));
        assert_eq!(Record::queue(record.node), "2");
        assert_eq!(record.at_ms(), 55_002, "of the minute it is nearly all of");
    }

    #[test]
    fn what_is_no_record_is_told_from_what_is_newer() {
        let json = |change: fn(&mut Record)| {
            let mut record = record();
            change(&mut record);
            serde_json::to_vec(&record).unwrap()
        };
        assert_eq!(Record::parse(b"{}"), Err(RecordError::Unreadable));
        assert_eq!(
            Record::parse(br#"{"format":2,"more":1}"#),
            Err(RecordError::Newer(2))
        );
        for wrong in [
            json(|record| record.sequence = 0),
            json(|record| record.to_ms = record.from_ms - 1),
            json(|record| record.from_ms = -1),
        ] {
            assert_eq!(Record::parse(&wrong), Err(RecordError::Unreadable));
        }
    }

    #[test]
    fn many_apps_are_several_records() {
        let app = |number: usize| AppRecord {
            app: format!("app-{number}"),
            keys: [("k".repeat(1_000), 1)].into(),
            ..AppRecord::default()
        };
        let split = parts((0..600).map(app).collect());
        assert_eq!(split.len(), 3);
        for part in &split {
            assert!(serde_json::to_vec(part).unwrap().len() <= MAX_BYTES);
        }
        assert_eq!(split.concat().len(), 600);
        assert_eq!(parts(Vec::new()).len(), 0);
    }
}
