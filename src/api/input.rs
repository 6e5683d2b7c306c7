//! What publications look like in the body of a request, at every path that takes one.

use std::{borrow::Cow, fmt, marker::PhantomData};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::{
    model::Record,
    protocol::{Payload, json::Text},
    publish::MAX_TAGS,
};

/// The most publications, channels or commands in one request. Not a setting: it is part of the
/// documented API, and `http.max_body_bytes` bounds what they may take.
pub(super) const MAX_ITEMS: usize = 1_000;

/// A list of at most [`MAX_ITEMS`], so that a small body cannot become a large one in memory.
pub(super) struct Few<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_ITEMS}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX_ITEMS {
                        return Err(A::Error::invalid_length(MAX_ITEMS + 1, &self));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData)).map(Self)
    }
}

/// Tags in the order given: an object of texts, each name once.
#[derive(Default)]
pub(super) struct Tags(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MAX_TAGS} texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags, A::Error> {
                let mut tags = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if tags.len() == MAX_TAGS || tags.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::invalid_length(tags.len() + 1, &self));
                    }
                    tags.push((name, value));
                }
                Ok(Tags(tags))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Makes a publication of the fields of `body`. JSON is not copied: the record holds on to the body
/// until it is sent.
///
/// # Errors
///
/// `data` is missing, or not one payload.
pub(super) fn record(
    body: &Bytes,
    data: Option<&RawValue>,
    b64data: Option<&Text<'_>>,
    tags: Option<Tags>,
) -> Result<Record, ApiError> {
    let payload = Payload::read(data, b64data.map(|Text(text)| text.as_ref()))?;
    let payload = payload.ok_or_else(|| ApiError::field("data", "missing"))?;
    let kind = payload.kind();
    let data = match payload {
        Payload::Json(Cow::Borrowed(text)) => body.slice_ref(text.as_bytes()),
        Payload::Json(Cow::Owned(text)) => text.into(),
        Payload::Bytes(bytes) => bytes.into(),
    };
    let Tags(tags) = tags.unwrap_or_default();
    Ok(Record {
        kind,
        data,
        info: None,
        tags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_bounded_while_it_is_read() {
        for (count, fits) in [(0, true), (MAX_ITEMS, true), (MAX_ITEMS + 1, false)] {
            let list = format!("[{}]", vec!["1"; count].join(","));
            let read = serde_json::from_str::<Few<u8>>(&list);
            assert_eq!(read.map(|Few(items)| items.len()).ok(), fits.then_some(count));
        }
    }

    #[test]
    fn json_payloads_share_the_body() {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let body = Bytes::from_static(br#"{"data": {"a": [1, 2]} }"#);
        let Fields { data } = serde_json::from_slice(&body).unwrap();
        let record = record(&body, Some(data), None, None).unwrap();
        assert_eq!(record.data, r#"{"a": [1, 2]}"#);
        assert!(std::ptr::eq(record.data.as_ptr(), &raw const body[9]));
    }
}
