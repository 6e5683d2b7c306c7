//! Messages between nodes about presence, in JSON. The log proves who sent them; what they say is read
//! as if it could be anything.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{member::Member, owner::Delta};
use crate::model::{AppId, ChannelKey, ChannelName, Incarnation};

/// Channels are spread over so many topics, by a hash that all nodes share. Part of the protocol
/// between nodes: it cannot change while a deployment runs.
pub(super) const PARTITIONS: u16 = 256;
/// Bytes of one message, about: a third of what NATS takes by default.
const MESSAGE_BYTES: usize = 256 * 1024;

/// The topic of a partition's deltas and digests.
pub(super) fn topic(partition: u16) -> String {
    format!("presence.{partition}")
}

/// The topic on which a node is asked for what it holds; its id follows.
pub(super) const ASK: &str = "presence-ask";

/// FNV-1a (64 bits) over app and channel, each behind its length, as shards are found.
pub(super) fn hash(key: &ChannelKey) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let fnv = |hash: u64, bytes: &[u8]| {
        bytes
            .iter()
            .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
    };
    [key.app.as_str(), key.name.as_str()]
        .iter()
        .fold(OFFSET, |hash, part| {
            let length = part.len() as u32;
            fnv(fnv(hash, &length.to_le_bytes()), part.as_bytes())
        })
}

/// The partition of a channel with this hash.
pub(super) fn partition(hash: u64) -> u16 {
    // The remainder is below `PARTITIONS`.
    (hash % u64::from(PARTITIONS)) as u16
}

/// What nodes tell each other on a partition's topic.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told<'a> {
    pub(super) incarnation: Incarnation,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) deltas: Vec<DeltaText<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
}

/// All channels of a partition that have somebody.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Digest {
    /// The node's version when it was made.
    pub(super) at: u64,
    /// By hash: the version of the channel.
    pub(super) channels: Vec<(u64, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeltaText<'a> {
    #[serde(borrow)]
    pub(super) channel: Place<'a>,
    pub(super) from: u64,
    pub(super) to: u64,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) put: Vec<MemberText<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left: Vec<Box<str>>,
}

/// A channel as nodes name it to each other: app and name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place<'a>(
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MemberText<'a> {
    #[serde(rename = "c")]
    client: Box<str>,
    #[serde(rename = "u", default, skip_serializing_if = "str::is_empty")]
    user: Box<str>,
    #[serde(borrow, rename = "i", default, skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "h", default, skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "s", default, skip_serializing_if = "Option::is_none")]
    state: Option<&'a RawValue>,
}

/// A question for what a node holds of some channels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question<'a> {
    #[serde(borrow)]
    pub(super) channels: Vec<Place<'a>>,
}

/// Part of the answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer<'a> {
    pub(super) incarnation: Incarnation,
    /// The node's version when all of it was read.
    pub(super) version: u64,
    /// Members, by the number of the channel in the question.
    #[serde(borrow)]
    pub(super) members: Vec<(u32, Vec<MemberText<'a>>)>,
    /// Whether this is the last part. Parts come in their order.
    pub(super) last: bool,
}

impl Place<'_> {
    pub(super) fn of(key: &ChannelKey) -> Place<'_> {
        Place(key.app.as_str().into(), key.name.as_str().into())
    }

    pub(super) fn key(&self) -> Option<ChannelKey> {
        Some(ChannelKey {
            app: AppId::new(&self.0).ok()?,
            name: ChannelName::new(&self.1).ok()?,
        })
    }
}

impl<'a> MemberText<'a> {
    /// `None` if what it shows is not JSON, which no door lets in.
    fn of(member: &'a Member) -> Option<Self> {
        let raw = |value: &'a Option<Bytes>| match value {
            None => Some(None),
            Some(bytes) => serde_json::from_slice::<&RawValue>(bytes).ok().map(Some),
        };
        Some(Self {
            client: member.client.clone(),
            user: member.user.clone(),
            conn_info: raw(&member.conn_info)?,
            chan_info: raw(&member.chan_info)?,
            state: raw(&member.state)?,
        })
    }

    fn read(self) -> Arc<Member> {
        let bytes =
            |value: Option<&RawValue>| value.map(|value| Bytes::copy_from_slice(value.get().as_bytes()));
        Arc::new(Member {
            client: self.client,
            user: self.user,
            conn_info: bytes(self.conn_info),
            chan_info: bytes(self.chan_info),
            state: bytes(self.state),
        })
    }

    fn size(&self) -> usize {
        let raw = |value: Option<&RawValue>| value.map_or(0, |value| value.get().len() + 8);
        self.client.len() + self.user.len() + 24 + raw(self.conn_info) + raw(self.chan_info) + raw(self.state)
    }
}

/// Messages that tell of deltas, each of a size that NATS takes.
pub(super) fn deltas(incarnation: Incarnation, deltas: &[(ChannelKey, Delta)]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let mut batch = Vec::new();
    let mut size = 0;
    for (key, delta) in deltas {
        let put: Vec<_> = delta
            .put
            .iter()
            .filter_map(|member| MemberText::of(member))
            .collect();
        size += put.iter().map(MemberText::size).sum::<usize>();
        size +=
            delta.left.iter().map(|client| client.len() + 3).sum::<usize>() + 80 + key.name.as_str().len();
        batch.push(DeltaText {
            channel: Place::of(key),
            from: delta.from,
            to: delta.to,
            put,
            left: delta.left.clone(),
        });
        if size >= MESSAGE_BYTES {
            messages.extend(told(incarnation, std::mem::take(&mut batch), None));
            size = 0;
        }
    }
    if !batch.is_empty() {
        messages.extend(told(incarnation, batch, None));
    }
    messages
}

/// A digest.
pub(super) fn digest(incarnation: Incarnation, digest: Digest) -> Option<Bytes> {
    told(incarnation, Vec::new(), Some(digest))
}

fn told(incarnation: Incarnation, deltas: Vec<DeltaText<'_>>, digest: Option<Digest>) -> Option<Bytes> {
    let told = Told {
        incarnation,
        deltas,
        digest,
    };
    serde_json::to_vec(&told).ok().map(Bytes::from)
}

impl DeltaText<'_> {
    pub(super) fn read(self) -> Option<(ChannelKey, Delta)> {
        let key = self.channel.key()?;
        let delta = Delta {
            from: self.from,
            to: self.to,
            put: self.put.into_iter().map(MemberText::read).collect(),
            left: self.left,
        };
        Some((key, delta))
    }
}

/// The parts of an answer.
pub(super) fn answers(incarnation: Incarnation, version: u64, channels: &[Vec<Arc<Member>>]) -> Vec<Bytes> {
    let mut parts = Vec::new();
    let mut members: Vec<(u32, Vec<MemberText<'_>>)> = Vec::new();
    let mut size = 0;
    let part = |members: Vec<_>, last| {
        let answer = Answer {
            incarnation,
            version,
            members,
            last,
        };
        serde_json::to_vec(&answer).ok().map(Bytes::from)
    };
    for (number, all) in (0..).zip(channels) {
        for member in all.iter().filter_map(|member| MemberText::of(member)) {
            size += member.size();
            match members.last_mut() {
                Some((of, list)) if *of == number => list.push(member),
                _ => members.push((number, vec![member])),
            }
            if size >= MESSAGE_BYTES {
                parts.extend(part(std::mem::take(&mut members), false));
                size = 0;
            }
        }
    }
    parts.extend(part(members, true));
    parts
}

/// A whole answer: what a node holds of the channels that it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) incarnation: Incarnation,
    /// The node's version when it was read.
    pub(super) version: u64,
    /// In the order of the question.
    pub(super) channels: Vec<Vec<Arc<Member>>>,
}

/// Puts the parts of an answer about `count` channels together; `None` if it is not whole.
pub(super) fn read_answers(parts: &[Bytes], count: usize) -> Option<Held> {
    let mut channels: Vec<Vec<Arc<Member>>> = vec![Vec::new(); count];
    let mut head = None;
    let mut whole = false;
    for part in parts {
        let answer: Answer<'_> = serde_json::from_slice(part).ok()?;
        // One answer has one version.
        if *head.get_or_insert((answer.incarnation, answer.version)) != (answer.incarnation, answer.version) {
            return None;
        }
        for (number, members) in answer.members {
            let channel = channels.get_mut(number as usize)?;
            channel.extend(members.into_iter().map(MemberText::read));
        }
        whole |= answer.last;
    }
    let (incarnation, version) = head.filter(|_| whole)?;
    Some(Held {
        incarnation,
        version,
        channels,
    })
}

/// Whether an answer's part is the last one.
pub(super) fn is_last(part: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Last {
        last: bool,
    }
    serde_json::from_slice::<Last>(part).is_ok_and(|part| part.last)
}

/// By hash what a digest says.
pub(super) fn by_hash(digest: &Digest) -> HashMap<u64, u64> {
    digest.channels.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::member::test_member;

    fn key(name: &str) -> ChannelKey {
        ChannelKey {
            app: AppId::new("a").unwrap(),
            name: ChannelName::new(name).unwrap(),
        }
    }

    fn member(client: &str, size: usize) -> Arc<Member> {
        Arc::new(Member {
            chan_info: Some(format!("\"{}\"", "x".repeat(size)).into()),
            state: Some("{\"a\": 1}".into()),
            ..(*test_member(client, "u\"1")).clone()
        })
    }

    #[test]
    fn deltas_are_read_as_they_were_told_in_messages_that_nats_takes() {
        let sent: Vec<_> = (0..100_u64)
            .map(|i| {
                let delta = Delta {
                    from: i,
                    to: i + 1,
                    put: vec![member(&format!("c{i}"), 10_000)],
                    left: vec!["gone".into()],
                };
                (key(&format!("ns:{i}")), delta)
            })
            .collect();
        let messages = deltas(Incarnation::FIRST, &sent);
        assert!(messages.len() > 1);
        let mut read = Vec::new();
        for message in &messages {
            assert!(message.len() < 512 * 1024, "{}", message.len());
            let told: Told<'_> = serde_json::from_slice(message).unwrap();
            assert_eq!(told.incarnation, Incarnation::FIRST);
            read.extend(told.deltas.into_iter().map(|delta| delta.read().unwrap()));
        }
        assert_eq!(read, sent);
    }

    fn held(incarnation: Incarnation, channels: Vec<Vec<Arc<Member>>>) -> Held {
        Held {
            incarnation,
            version: 7,
            channels,
        }
    }

    #[test]
    fn answers_come_in_parts_and_count_only_when_they_are_whole() {
        let many: Vec<_> = (0..100).map(|i| member(&format!("c{i}"), 10_000)).collect();
        let channels = vec![Vec::new(), many, vec![member("d", 1)]];
        let parts = answers(Incarnation::new(3), 7, &channels);
        assert!(parts.len() > 2);
        assert!(is_last(parts.last().unwrap()) && !is_last(&parts[0]));
        assert_eq!(
            read_answers(&parts, 3),
            Some(held(Incarnation::new(3), channels.clone()))
        );
        assert_eq!(read_answers(&parts[..parts.len() - 1], 3), None);
        assert_eq!(read_answers(&parts, 2), None, "more channels than were asked for");
        // "None" is an answer.
        let none = answers(Incarnation::FIRST, 7, &[Vec::new()]);
        assert_eq!(
            read_answers(&none, 1),
            Some(held(Incarnation::FIRST, vec![Vec::new()]))
        );
    }
}
