//! Messages between nodes about presence, in JSON. The log proves who sent them; what they say is read
//! as if it could be anything.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{member::Member, owner::Delta};
use crate::model::{AppId, ChannelKey, ChannelName, Incarnation};

/// Channels are spread over so many topics, by a hash that all nodes share. Part of the protocol
/// between nodes: it cannot change while a deployment runs.
pub(super) const PARTITIONS: u16 = 256;
/// Bytes of one message, about: a third of what NATS takes by default.
pub(super) const MESSAGE_BYTES: usize = 256 * 1024;

/// Bytes of an answer, about: what is more is asked for again, so that no answer fills a connection.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

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
    #[serde(rename = "t", default)]
    joined_ms: u64,
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

/// Part of an answer, as it is read.
#[derive(Debug, Deserialize)]
struct Answer<'a> {
    incarnation: Incarnation,
    /// The node's version when all of it was read.
    version: u64,
    /// Its number, from 0: one may be lost.
    part: usize,
    /// Members, by the number of the channel in the question.
    #[serde(borrow)]
    members: Vec<(u32, Vec<MemberText<'a>>)>,
    /// In the last part: how many channels have been answered.
    #[serde(default)]
    answered: Option<u32>,
}

/// The same, as it is written.
#[derive(Serialize)]
struct PartText<'a> {
    incarnation: Incarnation,
    version: u64,
    part: usize,
    members: &'a [(u32, Vec<Box<RawValue>>)],
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<u32>,
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
            joined_ms: member.joined_ms,
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
            joined_ms: self.joined_ms,
            conn_info: bytes(self.conn_info),
            chan_info: bytes(self.chan_info),
            state: bytes(self.state),
        })
    }
}

/// Messages that tell of deltas, each of a size that NATS takes.
pub(super) fn deltas(incarnation: Incarnation, deltas: &[(ChannelKey, Delta)]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let mut batch = Vec::new();
    let mut size = 0;
    for (key, delta) in deltas {
        let more = delta.put.iter().map(|member| member.size()).sum::<usize>()
            + delta.left.iter().map(|client| client.len() + 3).sum::<usize>()
            + key.name.as_str().len()
            + 80;
        if size > 0 && size + more > MESSAGE_BYTES {
            messages.extend(told(incarnation, std::mem::take(&mut batch), None));
            size = 0;
        }
        size += more;
        let put = delta.put.iter();
        batch.push(DeltaText {
            channel: Place::of(key),
            from: delta.from,
            to: delta.to,
            put: put.filter_map(|member| MemberText::of(member)).collect(),
            left: delta.left.clone(),
        });
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

/// The parts of an answer to a question for as many channels as `channels` gives. Once it is large it
/// ends, and the rest is asked for again.
pub(super) fn answers(
    incarnation: Incarnation,
    version: u64,
    channels: impl Iterator<Item = Vec<Arc<Member>>>,
) -> Vec<Bytes> {
    let mut answer = Parts::default();
    let mut answered = 0;
    for members in channels {
        for member in &members {
            answer.push(incarnation, version, answered, member);
        }
        answered += 1;
        if answer.bytes >= ANSWER_BYTES {
            break;
        }
    }
    answer.end(incarnation, version, answered)
}

#[derive(Default)]
struct Parts {
    parts: Vec<Bytes>,
    /// Members of the next part, by the number of their channel.
    members: Vec<(u32, Vec<Box<RawValue>>)>,
    size: usize,
    /// Of all parts.
    bytes: usize,
}

impl Parts {
    fn push(&mut self, incarnation: Incarnation, version: u64, number: u32, member: &Member) {
        let Some(text) = MemberText::of(member).and_then(|text| to_raw_value(&text).ok()) else {
            return;
        };
        self.size += text.get().len();
        match self.members.last_mut() {
            Some((of, list)) if *of == number => list.push(text),
            _ => self.members.push((number, vec![text])),
        }
        if self.size >= MESSAGE_BYTES {
            self.cut(incarnation, version, None);
        }
    }

    fn cut(&mut self, incarnation: Incarnation, version: u64, answered: Option<u32>) {
        let part = PartText {
            incarnation,
            version,
            part: self.parts.len(),
            members: &self.members,
            answered,
        };
        // Text of ours cannot fail to be written; without it the answer is not whole, and asked for again.
        if let Ok(part) = serde_json::to_vec(&part) {
            self.bytes += part.len();
            self.parts.push(part.into());
        }
        self.members.clear();
        self.size = 0;
    }

    fn end(mut self, incarnation: Incarnation, version: u64, answered: u32) -> Vec<Bytes> {
        self.cut(incarnation, version, Some(answered));
        self.parts
    }
}

/// A whole answer: what a node holds of the channels that it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) incarnation: Incarnation,
    pub(super) version: u64,
    /// The members of the first channels that were asked for.
    pub(super) channels: Vec<Vec<Arc<Member>>>,
}

/// Puts the parts of an answer about at most `count` channels together; `None` if a part is missing.
pub(super) fn read_answers(parts: &[Bytes], count: usize) -> Option<Held> {
    let mut channels: Vec<Vec<Arc<Member>>> = Vec::new();
    let mut head = None;
    let mut whole = false;
    for (number, part) in parts.iter().enumerate() {
        let answer: Answer<'_> = serde_json::from_slice(part).ok()?;
        let of = (answer.incarnation, answer.version);
        // One answer has one version, and a part for each number.
        if whole || answer.part != number || *head.get_or_insert(of) != of {
            return None;
        }
        for (number, members) in answer.members {
            let number = usize::try_from(number).ok().filter(|number| *number < count)?;
            if channels.len() <= number {
                channels.resize_with(number + 1, Vec::new);
            }
            channels[number].extend(members.into_iter().map(MemberText::read));
        }
        if let Some(answered) = answer.answered {
            let answered = usize::try_from(answered).ok()?;
            if answered > count || answered < channels.len() {
                return None;
            }
            channels.resize_with(answered, Vec::new);
            whole = true;
        }
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
        #[serde(default)]
        answered: Option<u32>,
    }
    serde_json::from_slice::<Last>(part).is_ok_and(|part| part.answered.is_some())
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

    #[test]
    fn answers_come_in_parts_and_count_only_when_they_are_whole() {
        let many: Vec<_> = (0..100).map(|i| member(&format!("c{i}"), 10_000)).collect();
        let channels = vec![Vec::new(), many, vec![member("d", 1)], Vec::new()];
        let parts = answers(Incarnation::new(3), 7, channels.iter().cloned());
        assert!(parts.len() > 3);
        assert!(is_last(parts.last().unwrap()) && !is_last(&parts[0]));
        let whole = |incarnation, channels| {
            Some(Held {
                incarnation,
                version: 7,
                channels,
            })
        };
        assert_eq!(read_answers(&parts, 4), whole(Incarnation::new(3), channels));
        assert_eq!(read_answers(&parts, 2), None, "more channels than were asked for");
        // Each part may be lost, or come twice.
        for lost in 0..parts.len() {
            let mut others = parts.clone();
            others.remove(lost);
            assert_eq!(read_answers(&others, 4), None);
            let mut repeated = parts.clone();
            repeated.insert(lost, parts[lost].clone());
            assert_eq!(read_answers(&repeated, 4), None);
        }
        // "None" is an answer.
        let none = answers(Incarnation::FIRST, 7, [Vec::new()].into_iter());
        assert_eq!(
            read_answers(&none, 1),
            whole(Incarnation::FIRST, vec![Vec::new()])
        );
    }

    #[test]
    fn a_large_answer_ends_early_and_says_so() {
        let large: Vec<_> = (0..200).map(|i| member(&format!("c{i}"), 10_000)).collect();
        let parts = answers(Incarnation::FIRST, 7, std::iter::repeat_n(large.clone(), 10));
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        assert!(bytes < ANSWER_BYTES + 3_000_000, "{bytes}");
        let channels = read_answers(&parts, 10).unwrap().channels;
        assert_eq!(channels, [large.clone(), large.clone(), large]);
    }

    #[test]
    fn what_makes_no_sense_is_no_answer() {
        for text in [
            "",
            "null",
            "{}",
            "[]",
            r#"{"incarnation":1,"version":1,"part":0,"members":[],"answered":2}"#,
            r#"{"incarnation":1,"version":1,"part":0,"members":[[0,[{"c":"a"}]]],"answered":0}"#,
            r#"{"incarnation":1,"version":1,"part":0,"members":[[4294967295,[{"c":"a"}]]],"answered":1}"#,
            r#"{"incarnation":1,"version":1,"part":0,"members":[]}"#,
        ] {
            assert_eq!(read_answers(&[Bytes::from(text)], 1), None, "{text}");
        }
    }
}
