//! What waits in the queue, and what nodes tell each other of it. Pure.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::model::{AppId, ChannelName, ClientInfo, Kind, Offset, Record};

/// The version of the form.
const FORMAT: u32 = 1;

/// A publication that waits: a head of JSON, a line break, the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    /// What is to be published.
    pub(super) record: Record,
    /// The key it is published with: its own, or one that was made for it.
    pub(super) key: String,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    kind: char,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Info {
    client: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan: Option<String>,
}

/// Raw JSON, which is UTF-8.
fn text(raw: Option<&Bytes>) -> Option<String> {
    raw.map(|raw| String::from_utf8_lossy(raw).into_owned())
}

impl Queued {
    /// As it is stored; `None` never, since nothing in it cannot be written.
    pub(super) fn encode(&self) -> Option<Bytes> {
        let Record {
            kind,
            data,
            info,
            tags,
        } = &self.record;
        let head = Head {
            format: FORMAT,
            kind: match kind {
                Kind::Json => 'j',
                Kind::Bytes => 'b',
            },
            key: self.key.clone(),
            info: info.as_ref().map(|info| Info {
                client: info.client.clone(),
                user: info.user.clone(),
                conn: text(info.conn_info.as_ref()),
                chan: text(info.chan_info.as_ref()),
            }),
            tags: tags.clone(),
        };
        let head = serde_json::to_vec(&head).ok()?;
        let mut message = BytesMut::with_capacity(head.len() + 1 + data.len());
        message.extend_from_slice(&head);
        message.extend_from_slice(b"\n");
        message.extend_from_slice(data);
        Some(message.freeze())
    }

    /// `None` if it is not of this form.
    pub(super) fn decode(message: &Bytes) -> Option<Self> {
        // JSON that was written on one line has no other line break.
        let end = memchr::memchr(b'\n', message)?;
        let head: Head = serde_json::from_slice(&message[..end]).ok()?;
        let kind = match (head.format, head.kind) {
            (FORMAT, 'j') => Kind::Json,
            (FORMAT, 'b') => Kind::Bytes,
            _ => return None,
        };
        Some(Self {
            record: Record {
                kind,
                data: message.slice(end + 1..),
                info: head.info.map(|info| ClientInfo {
                    client: info.client,
                    user: info.user,
                    conn_info: info.conn.map(Bytes::from),
                    chan_info: info.chan.map(Bytes::from),
                }),
                tags: head.tags,
            },
            key: head.key,
        })
    }
}

/// What a node tells the others.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// Channels that it has queued publications of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) queued: Vec<(AppId, String)>,
    /// Channels of which everything up to a place is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) drained: Vec<(AppId, String, Offset)>,
    /// Channels of which nothing waits any more that it has queued.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) idle: Vec<(AppId, String)>,
}

impl Notice {
    pub(super) fn queued(app: &AppId, channel: &ChannelName) -> Self {
        Self {
            queued: vec![(app.clone(), channel.as_str().to_owned())],
            ..Self::default()
        }
    }

    pub(super) fn drained(app: &AppId, channel: &ChannelName, seq: Offset) -> Self {
        Self {
            drained: vec![(app.clone(), channel.as_str().to_owned(), seq)],
            ..Self::default()
        }
    }

    pub(super) fn idle(app: &AppId, channel: &ChannelName) -> Self {
        Self {
            idle: vec![(app.clone(), channel.as_str().to_owned())],
            ..Self::default()
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_what_was_published() {
        for (kind, data) in [
            (Kind::Json, &b"{\"a\":1}"[..]),
            (Kind::Bytes, b"\n\x00\xff\n"),
            (Kind::Bytes, b""),
        ] {
            for info in [
                None,
                Some(ClientInfo {
                    client: "c\n".to_owned(),
                    user: String::new(),
                    conn_info: Some(Bytes::from_static(b"{\"n\":\"\xc3\xa4\"}")),
                    chan_info: None,
                }),
            ] {
                let queued = Queued {
                    record: Record {
                        kind,
                        data: Bytes::copy_from_slice(data),
                        info,
                        tags: vec![("a".to_owned(), "\n=".to_owned())],
                    },
                    key: "k".to_owned(),
                };
                assert_eq!(Queued::decode(&queued.encode().unwrap()), Some(queued));
            }
        }
    }

    #[test]
    fn what_is_of_another_form_is_not_read() {
        for message in [
            "",
            "{}\n",
            "{\"format\":1,\"kind\":\"j\",\"key\":\"k\"}",
            "{\"format\":2,\"kind\":\"j\",\"key\":\"k\"}\n1",
            "{\"format\":1,\"kind\":\"x\",\"key\":\"k\"}\n1",
        ] {
            assert_eq!(
                Queued::decode(&Bytes::from_static(message.as_bytes())),
                None,
                "{message}"
            );
        }
    }

    #[test]
    fn a_notice_says_what_it_was_told() {
        let (app, channel) = (AppId::new("a").unwrap(), ChannelName::new("b:c").unwrap());
        for notice in [
            Notice::queued(&app, &channel),
            Notice::drained(&app, &channel, 7),
            Notice::idle(&app, &channel),
        ] {
            assert_eq!(
                serde_json::from_slice::<Notice>(&notice.encode()).unwrap(),
                notice
            );
        }
    }
}
