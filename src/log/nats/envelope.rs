//! A record as a NATS message, and back (L3): the body is the payload as it is, the rest is in our
//! own headers.
//!
//! `Slip` holds the version and the kind (`1j`), so the common publication costs one short header.
//! `Slip-Info` and `Slip-Tags` are there only if the record has them: lists of `name=value` joined
//! by `;`, with all that could be mistaken escaped as `%XX`. User input is never a header's name.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::{
    headers::Headers,
    subject::{escape, unescape},
};
use crate::{
    log::Body,
    model::{ClientInfo, Kind, Record},
};

/// Version and kind: `<version><kind>`.
pub(super) const SLIP: &str = "Slip";
/// The publishing client.
pub(super) const INFO: &str = "Slip-Info";
/// The publisher's tags.
pub(super) const TAGS: &str = "Slip-Tags";

const SLIP_NAME: HeaderName = HeaderName::from_static(SLIP);
const INFO_NAME: HeaderName = HeaderName::from_static(INFO);
const TAGS_NAME: HeaderName = HeaderName::from_static(TAGS);

/// The envelope's version that this program writes, and the highest it reads.
const VERSION: u32 = 1;

/// The headers of a publication.
pub(super) fn publication(record: &Record) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        SLIP_NAME,
        match record.kind {
            Kind::Json => "1j",
            Kind::Bytes => "1b",
        },
    );
    if let Some(info) = &record.info {
        headers.insert(INFO_NAME, value(info_list(info)));
    }
    if !record.tags.is_empty() {
        let tags = record.tags.iter().map(|(k, v)| (k.as_str(), v.as_bytes()));
        headers.insert(TAGS_NAME, value(list(tags)));
    }
    headers
}

/// The headers of a tombstone; its body is empty (L15).
pub(super) fn tombstone() -> HeaderMap {
    HeaderMap::from_iter([(SLIP_NAME, HeaderValue::from("1t"))])
}

/// The headers of an anchor; its body is empty.
pub(super) fn anchor() -> HeaderMap {
    HeaderMap::from_iter([(SLIP_NAME, HeaderValue::from("1a"))])
}

/// What a stored message is. An anchor reads as a publication without content: it stands on a
/// subject of its own, which is no channel's.
pub(super) fn body(headers: &Headers<'_>, data: Bytes) -> Body {
    let malformed = Body::Unreadable { malformed: true };
    let Some((version, kind)) = headers.slip.and_then(version_and_kind) else {
        return malformed;
    };
    if version > VERSION {
        return Body::Unreadable { malformed: false };
    }
    let kind = match kind {
        "j" => Kind::Json,
        "b" | "a" => Kind::Bytes,
        "t" => return Body::Tombstone,
        _ => return malformed,
    };
    let info = headers.info.map(parse_info);
    let tags = headers.tags.map_or(Some(Vec::new()), parse_tags);
    match (info, tags) {
        (None, Some(tags)) => Body::Publication(Record {
            kind,
            data,
            info: None,
            tags,
        }),
        (Some(Some(info)), Some(tags)) => Body::Publication(Record {
            kind,
            data,
            info: Some(info),
            tags,
        }),
        _ => malformed,
    }
}

/// Splits `1j`. Versions start at 1 and are written without leading zeros.
fn version_and_kind(value: &str) -> Option<(u32, &str)> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (version, kind) = value.split_at(digits);
    if version.starts_with('0') {
        return None;
    }
    Some((version.parse().ok()?, kind))
}

fn info_list(info: &ClientInfo) -> String {
    let fields = [
        ("c", Some(info.client.as_bytes())),
        ("u", Some(info.user.as_bytes())),
        ("i", info.conn_info.as_deref()),
        ("h", info.chan_info.as_deref()),
    ];
    list(
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    )
}

fn parse_info(text: &str) -> Option<ClientInfo> {
    let mut info = ClientInfo::default();
    for (name, value) in entries(text)? {
        match name.as_slice() {
            b"c" => info.client = String::from_utf8(value).ok()?,
            b"u" => info.user = String::from_utf8(value).ok()?,
            b"i" => info.conn_info = Some(value.into()),
            b"h" => info.chan_info = Some(value.into()),
            _ => return None,
        }
    }
    Some(info)
}

fn parse_tags(text: &str) -> Option<Vec<(String, String)>> {
    entries(text)?
        .into_iter()
        .map(|(name, value)| Some((String::from_utf8(name).ok()?, String::from_utf8(value).ok()?)))
        .collect()
}

fn list<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    // What stays as it is: visible ASCII but the characters of the list's own syntax.
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'=' | b';');
    let mut out = String::new();
    for (index, (name, value)) in entries.enumerate() {
        if index > 0 {
            out.push(';');
        }
        escape(&mut out, name.as_bytes(), plain);
        out.push('=');
        escape(&mut out, value, plain);
    }
    out
}

type Entry = (Vec<u8>, Vec<u8>);

fn entries(text: &str) -> Option<Vec<Entry>> {
    text.split(';')
        .map(|entry| {
            let (name, value) = entry.split_once('=')?;
            Some((unescape(name)?, unescape(value)?))
        })
        .collect()
}

/// A list as a header's value. It has visible ASCII only, which [`HeaderValue`] takes as it is.
fn value(list: String) -> HeaderValue {
    HeaderValue::from(list)
}

#[cfg(test)]
mod tests;
