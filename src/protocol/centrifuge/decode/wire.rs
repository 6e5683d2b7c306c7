//! The shapes of requests on the wire, type-checked by serde.

use std::{borrow::Cow, fmt, marker::PhantomData};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use crate::{
    model::MAX_OFFSET,
    protocol::{
        Connect, HistoryQuery, Payload, RecoverFrom, Request, Subscribe, SubscribeFeature, Token, json,
    },
};

/// `flag` of a subscribe: answer error 112 instead of `recovered: false`.
const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// A struct that is written as an object: derived ones take an array of their fields, too.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// The object that is a request; null is as good as absent.
pub(super) fn object<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
) -> Result<Option<T>, A::Error> {
    Ok(map
        .next_value::<Option<Object<T>>>()?
        .map(|Object(request)| request))
}

/// A string, borrowed from the message unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn token_or_empty(token: Option<Text<'_>>) -> Token<'_> {
    token.map(|Text(token)| Token(token)).unwrap_or_default()
}

/// A whole number that every client can hold.
struct Safe(u64);

impl<'de> Deserialize<'de> for Safe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number > MAX_OFFSET {
            return Err(D::Error::custom("a number beyond 2^53 - 1"));
        }
        Ok(Self(number))
    }
}

#[derive(Deserialize)]
pub(super) struct WireEmpty {}

#[derive(Deserialize)]
pub(super) struct WireChannel<'a> {
    #[serde(borrow, default)]
    pub(super) channel: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct WireRpc<'a> {
    #[serde(borrow, default)]
    pub(super) method: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct WireRefresh<'a> {
    #[serde(borrow)]
    pub(super) token: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireSubRefresh<'a> {
    #[serde(borrow, default)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) token: Option<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct WireConnect<'a> {
    #[serde(borrow)]
    token: Option<Text<'a>>,
    #[serde(borrow)]
    subs: Option<WireRecoverMap<'a>>,
}

impl<'a> From<WireConnect<'a>> for Request<'a> {
    fn from(wire: WireConnect<'a>) -> Self {
        Self::Connect(Box::new(Connect {
            token: wire.token.map(|Text(token)| Token(token)),
            recover: wire.subs.map(|WireRecoverMap(subs)| subs).unwrap_or_default(),
        }))
    }
}

/// The part of a subscribe that says where the client was.
#[derive(Deserialize)]
pub(super) struct WireRecover<'a> {
    recover: Option<bool>,
    offset: Option<Safe>,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
}

fn recover_from<'a>(
    recover: Option<bool>,
    offset: Option<Safe>,
    epoch: Option<Text<'a>>,
) -> Option<RecoverFrom<'a>> {
    recover.unwrap_or_default().then(|| RecoverFrom {
        offset: offset.map_or(0, |Safe(offset)| offset),
        epoch: epoch.map(|Text(epoch)| epoch).unwrap_or_default(),
    })
}

/// `subs` of a connect: the channels that are to be recovered.
pub(super) struct WireRecoverMap<'a>(Vec<(Cow<'a, str>, RecoverFrom<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for WireRecoverMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Channels;
        impl<'de> Visitor<'de> for Channels {
            type Value = WireRecoverMap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of subscriptions by channel")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut subs = Vec::new();
                while let Some((Text(channel), wire)) =
                    map.next_entry::<Text<'de>, Object<WireRecover<'de>>>()?
                {
                    let Object(wire) = wire;
                    let from = recover_from(wire.recover, wire.offset, wire.epoch);
                    subs.extend(from.map(|from| (channel, from)));
                }
                Ok(WireRecoverMap(subs))
            }
        }
        deserializer.deserialize_map(Channels)
    }
}

#[derive(Deserialize)]
pub(super) struct WireSubscribe<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
    recover: Option<bool>,
    offset: Option<Safe>,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
    flag: Option<i64>,
    tf: Option<IgnoredAny>,
    #[serde(rename = "type")]
    kind: Option<i64>,
}

impl<'a> From<WireSubscribe<'a>> for Request<'a> {
    fn from(wire: WireSubscribe<'a>) -> Self {
        let unsupported = if wire.tf.is_some() {
            Some(SubscribeFeature::TagsFilter)
        } else if wire.kind.unwrap_or_default() != 0 {
            Some(SubscribeFeature::OtherType)
        } else {
            None
        };
        Self::Subscribe(Subscribe {
            channel: wire.channel,
            token: wire.token.map(|Text(token)| Token(token)),
            recover: recover_from(wire.recover, wire.offset, wire.epoch),
            reject_unrecovered: wire.flag.unwrap_or_default() & FLAG_REJECT_UNRECOVERED != 0,
            unsupported,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct WirePublish<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    /// `null` is a payload like any other JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Text<'a>>,
    #[serde(borrow)]
    idempotency_key: Option<Text<'a>>,
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> WirePublish<'a> {
    pub(super) fn into_request(self) -> Result<Request<'a>, &'static str> {
        let payload = match (self.data, self.b64data) {
            (Some(_), Some(_)) => return Err("both data and b64data"),
            (Some(data), None) => Some(Payload::Json(match json::without_newlines(data.get()) {
                Some(clean) => Cow::Owned(clean),
                None => Cow::Borrowed(data.get()),
            })),
            (None, Some(Text(text))) => Some(Payload::Bytes(
                STANDARD
                    .decode(text.as_bytes())
                    .map_err(|_| "b64data is not base64")?,
            )),
            (None, None) => None,
        };
        Ok(Request::Publish {
            channel: self.channel,
            payload,
            idempotency_key: self.idempotency_key.map(|Text(key)| key),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct WireHistory<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    limit: Option<i32>,
    #[serde(borrow)]
    since: Option<Object<WireSince<'a>>>,
    reverse: Option<bool>,
    since_time: Option<Safe>,
    until_time: Option<Safe>,
}

#[derive(Deserialize)]
pub(super) struct WireSince<'a> {
    offset: Option<Safe>,
    #[serde(borrow)]
    epoch: Option<Text<'a>>,
}

impl<'a> From<WireHistory<'a>> for Request<'a> {
    fn from(wire: WireHistory<'a>) -> Self {
        let (since, epoch) = match wire.since {
            Some(Object(since)) => {
                let offset = since.offset.map_or(0, |Safe(offset)| offset);
                (
                    Some(offset),
                    since
                        .epoch
                        .map(|Text(epoch)| epoch.into_owned())
                        .unwrap_or_default(),
                )
            }
            None => (None, String::new()),
        };
        Self::History {
            channel: wire.channel,
            query: HistoryQuery {
                limit: wire.limit.unwrap_or_default(),
                since,
                epoch,
                reverse: wire.reverse.unwrap_or_default(),
                since_time: wire.since_time.map(|Safe(ms)| ms),
                until_time: wire.until_time.map(|Safe(ms)| ms),
            },
        }
    }
}
