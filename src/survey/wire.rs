//! What nodes ask each other about an app: versioned JSON. What is read may be anything.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::{AppId, ChannelName};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// A message with the version that it is written in.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    message: T,
}

/// What is asked about an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) app: AppId,
    pub(super) about: About,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum About {
    /// Its channels behind `after` that begin with `prefix`.
    Channels {
        #[serde(default)]
        prefix: String,
        #[serde(default)]
        after: Option<String>,
        limit: usize,
    },
    /// Its numbers.
    Tally,
}

/// What a node has of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Connections.
    pub connections: u64,
    /// Users with connections; all anonymous ones are one.
    pub users: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Channels that it follows: also those that have just lost their last subscriber.
    pub channels: u64,
}

/// Channels that a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channels {
    /// In the order of their names, with the number of their subscribers.
    pub(super) channels: Vec<(String, u64)>,
    /// There are more behind the last of these.
    #[serde(default)]
    pub(super) more: bool,
}

/// As it is sent.
pub(super) fn encode(message: &impl Serialize) -> Bytes {
    let versioned = Versioned {
        version: VERSION,
        message,
    };
    // Plain data: it can be written.
    serde_json::to_vec(&versioned).unwrap_or_default().into()
}

/// Reads what was sent; `None` if it is none, or of a version that is not known here.
pub(super) fn decode<T: DeserializeOwned>(data: &[u8]) -> Option<T> {
    let read: Versioned<T> = serde_json::from_slice(data).ok()?;
    (read.version == VERSION).then_some(read.message)
}

impl Channels {
    /// The names if they are names, in their order, each once; `None` if they are not.
    pub(super) fn named(self) -> Option<Vec<(ChannelName, u64)>> {
        let named: Result<Vec<_>, _> = self
            .channels
            .iter()
            .map(|(name, count)| ChannelName::new(name).map(|name| (name, *count)))
            .collect();
        named
            .ok()
            .filter(|named| named.windows(2).all(|pair| pair[0].0 < pair[1].0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_read_and_nothing_else() {
        let question = Question {
            app: AppId::new("dev").unwrap(),
            about: About::Channels {
                prefix: "chat:".to_owned(),
                after: None,
                limit: 3,
            },
        };
        assert_eq!(decode(&encode(&question)), Some(question));
        let tally = Tally {
            connections: 1,
            ..Tally::default()
        };
        assert_eq!(decode(&encode(&tally)), Some(tally));
        for bad in [
            r#"{"version":2,"app":"dev","about":"tally"}"#,
            r#"{"version":1,"app":"Dev!","about":"tally"}"#,
            r#"{"version":1,"app":"dev","about":"all"}"#,
            r#"{"app":"dev","about":"tally"}"#,
            "",
            "[]",
        ] {
            assert_eq!(decode::<Question>(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn names_that_are_none_or_out_of_order_are_not_taken() {
        let of = |names: &[&str]| Channels {
            channels: names.iter().map(|name| ((*name).to_owned(), 1)).collect(),
            more: false,
        };
        assert_eq!(of(&["a", "b:c"]).named().unwrap().len(), 2);
        assert_eq!(of(&["b", "a"]).named(), None);
        assert_eq!(of(&["a", "a"]).named(), None);
        assert_eq!(of(&[""]).named(), None);
    }
}
