//! The shapes of requests on the wire, type-checked by serde.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::protocol::{
    Connect, HistoryQuery, Payload, PayloadError, RecoverFrom, Request, Subscribe, SubscribeFeature, Token,
    json::{Object, Safe, Text, present, without_newlines},
};

/// `flag` of a subscribe: answer error 112 instead of `recovered: false`.
const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// The object that is a request; null is as good as absent.
pub(super) fn object<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
) -> Result<Option<T>, A::Error> {
    Ok(map
        .next_value::<Option<Object<T>>>()?
        .map(|Object(request)| request))
}

pub(super) fn token_or_empty(token: Option<Text<'_>>) -> Token<'_> {
    token.map(|Text(token)| Token(token)).unwrap_or_default()
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
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct WireSend<'a> {
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

/// Raw JSON on one line.
pub(super) fn raw(data: Option<&RawValue>) -> Cow<'_, str> {
    let text = data.map_or("null", RawValue::get);
    without_newlines(text).map_or(Cow::Borrowed(text), Cow::Owned)
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
    join_leave: Option<bool>,
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
            join_leave: wire.join_leave.unwrap_or_default(),
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

impl<'a> WirePublish<'a> {
    pub(super) fn into_request(self) -> Result<Request<'a>, PayloadError> {
        let payload = Payload::read(self.data, self.b64data.as_ref().map(|Text(text)| text.as_ref()))?;
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
