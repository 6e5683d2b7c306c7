//! What nodes tell each other each round; docs/log-format.md has the form.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::kind::Kind;
use crate::model::{AppId, Incarnation, NodeId};

/// Quotas in one message.
pub const MAX_ENTRIES: usize = 500;
/// Messages of one round; what is beyond them is told in a later one.
pub const MAX_MESSAGES: u16 = 64;

/// A message: all of a round, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// Which life the node is in.
    #[serde(rename = "i")]
    pub incarnation: Incarnation,
    /// The round.
    #[serde(rename = "r")]
    pub round: u64,
    /// Which part of it this is, from 0.
    #[serde(rename = "p")]
    pub part: u16,
    /// How many there are.
    #[serde(rename = "n")]
    pub parts: u16,
    /// Up to which round it has heard each other node.
    #[serde(rename = "h")]
    pub heard: BTreeMap<NodeId, u64>,
    /// Whether more has changed than this round has room for.
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// What has changed since all have heard of it.
    #[serde(rename = "e")]
    pub entries: Vec<Entry>,
}

/// A quota of an app: app, quota, what the node claims of it, what it holds, and what its clients want. All 0:
/// it has nothing to do with it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry(pub AppId, pub Kind, pub u64, pub u64, pub u64);

impl Telling {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        // Numbers and names: nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// What was sent; `None` if it is none, or larger than one may be.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let telling: Self = serde_json::from_slice(data).ok()?;
        let fits = telling.entries.len() <= MAX_ENTRIES
            && (1..=MAX_MESSAGES).contains(&telling.parts)
            && telling.part < telling.parts;
        fits.then_some(telling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_telling_is_read_as_it_was_written_and_nothing_else_is() {
        let telling = Telling {
            incarnation: Incarnation::FIRST,
            round: 7,
            part: 0,
            parts: 1,
            heard: [(NodeId::new(5), 6)].into(),
            more: false,
            entries: vec![Entry(AppId::new("a").unwrap(), Kind::Calls, 1, 2, 3)],
        };
        let bytes = telling.encode();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"i":1,"r":7,"p":0,"n":1,"h":{"0000000000000005":6},"e":[["a",3,1,2,3]]}"#
        );
        assert_eq!(Telling::decode(&bytes), Some(telling.clone()));
        let more = Telling {
            more: true,
            ..telling.clone()
        };
        assert!(more.encode().ends_with(br#""m":true,"e":[["a",3,1,2,3]]}"#));
        assert_eq!(Telling::decode(&more.encode()), Some(more));
        for (part, parts) in [(1, 1), (0, 0), (0, MAX_MESSAGES + 1)] {
            let bad = Telling {
                part,
                parts,
                ..telling.clone()
            };
            assert_eq!(Telling::decode(&bad.encode()), None);
        }
        let many = Telling {
            entries: vec![telling.entries[0].clone(); MAX_ENTRIES + 1],
            ..telling
        };
        assert_eq!(Telling::decode(&many.encode()), None);
        assert_eq!(Telling::decode(b"{}"), None);
    }
}
