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

/// NATS's own, which carries the id of an idempotency key.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";

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
        headers.insert(INFO_NAME, value(list(info_fields(info))));
    }
    if !record.tags.is_empty() {
        headers.insert(TAGS_NAME, value(list(tag_fields(&record.tags))));
    }
    headers
}

/// The size, on the wire and in the store, of the headers that [`publication`] makes, with a message
/// id of so many bytes if there is one. Found without making them.
pub(super) fn headers_bytes(record: &Record, id_bytes: Option<usize>) -> usize {
    let line = |name: &str, value: usize| name.len() + ": ".len() + value + "\r\n".len();
    let info = record.info.as_ref();
    let info = info.map_or(0, |info| line(INFO, list_bytes(info_fields(info))));
    let tags = match record.tags.as_slice() {
        [] => 0,
        tags => line(TAGS, list_bytes(tag_fields(tags))),
    };
    let id = id_bytes.map_or(0, |bytes| line(MESSAGE_ID, bytes));
    "NATS/1.0\r\n".len() + line(SLIP, "1j".len()) + info + tags + id + "\r\n".len()
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

fn info_fields(info: &ClientInfo) -> impl Iterator<Item = (&str, &[u8])> {
    let fields = [
        ("c", Some(info.client.as_bytes())),
        ("u", Some(info.user.as_bytes())),
        ("i", info.conn_info.as_deref()),
        ("h", info.chan_info.as_deref()),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
}

fn tag_fields(tags: &[(String, String)]) -> impl Iterator<Item = (&str, &[u8])> {
    tags.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
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
    let mut out = String::new();
    for (index, (name, value)) in entries.enumerate() {
        if index > 0 {
            out.push(';');
        }
        escape(&mut out, name.as_bytes(), is_plain);
        out.push('=');
        escape(&mut out, value, is_plain);
    }
    out
}

/// The length of [`list`].
fn list_bytes<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> usize {
    let escaped = |text: &[u8]| {
        text.iter()
            .map(|&b| if is_plain(b) { 1 } else { 3 })
            .sum::<usize>()
    };
    let lengths = entries.map(|(name, value)| escaped(name.as_bytes()) + "=".len() + escaped(value));
    // One `;` less than entries.
    lengths.map(|length| length + 1).sum::<usize>().saturating_sub(1)
}

/// What stays as it is in a list: visible ASCII but the characters of the list's own syntax.
fn is_plain(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'%' | b'=' | b';')
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
