//! What nodes tell each other about users: versioned JSON. What is read may be anything.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::AppId;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// What is to be done to the connections of a user.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    version: u32,
    /// The user's app.
    pub app: AppId,
    /// The user; empty for connections without one.
    pub user: String,
    /// Only the connection with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What.
    pub action: Action,
}

/// What is done to each of a user's connections.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Close it.
    Disconnect {
        /// With this code.
        code: u16,
        /// And this reason.
        reason: String,
        /// Except those with these ids.
        #[serde(default)]
        whitelist: Vec<String>,
    },
    /// End its subscription.
    Unsubscribe {
        /// To this channel.
        channel: String,
    },
    /// Subscribe it.
    Subscribe(Box<Subscribe>),
    /// Have it live longer, or end as expired.
    Refresh {
        /// It has expired.
        expired: bool,
        /// Until then, seconds since 1970; without it, for ever.
        #[serde(default)]
        expire_at: Option<i64>,
        /// What subscribers see with what it publishes, if it changes.
        #[serde(default)]
        info: Option<Box<RawValue>>,
    },
    /// Send it a message.
    Message {
        /// The message: any JSON.
        data: Box<RawValue>,
    },
    /// Nothing: is it there?
    Online,
}

/// A subscription that a backend makes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Subscribe {
    /// The channel.
    pub channel: String,
    /// What other subscribers see.
    #[serde(default)]
    pub info: Option<Box<RawValue>>,
    /// What the client is told with it.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
    /// From where the publications are wanted: offset and epoch.
    #[serde(default)]
    pub recover_since: Option<(u64, String)>,
    /// Until when, seconds since 1970; without it, for ever.
    #[serde(default)]
    pub expire_at: Option<i64>,
}

/// What a node has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    version: u32,
    /// To how many connections.
    pub connections: u32,
}

impl Request {
    /// Of the connections of `user`, or only the one called `client`.
    pub fn new(app: AppId, user: String, client: Option<String>, action: Action) -> Self {
        Self {
            version: VERSION,
            app,
            user,
            client,
            action,
        }
    }

    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads what was sent; `None` if it is none, or of a version that is not known here.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let request: Self = serde_json::from_slice(data).ok()?;
        (request.version == VERSION).then_some(request)
    }

    /// Whether the connection called `client` is meant.
    pub fn means(&self, client: &str) -> bool {
        let named = self.client.as_deref().is_none_or(|named| named == client);
        let spared = match &self.action {
            Action::Disconnect { whitelist, .. } => whitelist.iter().any(|spared| spared == client),
            _ => false,
        };
        named && !spared
    }
}

impl Answer {
    /// It was done to so many.
    pub fn new(connections: usize) -> Self {
        Self {
            version: VERSION,
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
        }
    }

    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads what was sent; `None` if it is none, or of a version that is not known here.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let answer: Self = serde_json::from_slice(data).ok()?;
        (answer.version == VERSION).then_some(answer)
    }
}

/// Plain data as JSON, which cannot fail; should it ever, nobody can read it.
fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn request(client: Option<&str>, action: Action) -> Request {
        let app = AppId::new("a").unwrap();
        Request::new(app, "ann".to_owned(), client.map(str::to_owned), action)
    }

    fn disconnect(whitelist: &[&str]) -> Action {
        Action::Disconnect {
            code: 3503,
            reason: "bye".to_owned(),
            whitelist: whitelist.iter().map(|&it| it.to_owned()).collect(),
        }
    }

    #[test]
    fn a_request_is_read_as_it_is_written() {
        let subscribe = Subscribe {
            channel: "news".to_owned(),
            info: Some(raw(r#"{"a":1}"#)),
            data: None,
            recover_since: Some((5, "e".to_owned())),
            expire_at: None,
        };
        for action in [
            disconnect(&["c1"]),
            Action::Unsubscribe {
                channel: "news".to_owned(),
            },
            Action::Subscribe(Box::new(subscribe)),
            Action::Refresh {
                expired: false,
                expire_at: Some(9),
                info: Some(raw("1")),
            },
            Action::Message {
                data: raw(r#"{"a": [1, "x"]}"#),
            },
            Action::Online,
        ] {
            let written = request(Some("c"), action);
            let read = Request::decode(&written.encode()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{written:?}"));
        }
        let answer = Answer::new(3);
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"version":2,"app":"a","user":"u","action":"online"}"#,
            r#"{"version":1,"app":"A","user":"u","action":"online"}"#,
            r#"{"version":1,"app":"a","action":"online"}"#,
            r#"{"version":1,"app":"a","user":"u","action":"delete"}"#,
            r#"{"version":1,"app":"a","user":"u","action":{"disconnect":{"code":70000,"reason":""}}}"#,
        ] {
            assert!(Request::decode(bad.as_bytes()).is_none(), "{bad}");
        }
        let good = r#"{"version":1,"app":"a","user":"u","action":"online","new":1}"#;
        assert!(Request::decode(good.as_bytes()).is_some());
        for bad in ["", "{}", r#"{"version":1}"#, r#"{"version":1,"connections":-1}"#] {
            assert_eq!(Answer::decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn which_connections_are_meant() {
        for (request, meant) in [
            (request(None, Action::Online), ["c1", "c2"].to_vec()),
            (request(Some("c2"), Action::Online), vec!["c2"]),
            (request(None, disconnect(&["c1"])), vec!["c2"]),
            (request(Some("c1"), disconnect(&["c1"])), vec![]),
            (request(Some("other"), Action::Online), vec![]),
        ] {
            let found: Vec<_> = ["c1", "c2"].into_iter().filter(|it| request.means(it)).collect();
            assert_eq!(found, meant, "{request:?}");
        }
    }
}
