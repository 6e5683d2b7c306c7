//! Publications, written once and shared by all who get them: a push is prefix, body and suffix; a
//! list of recovered publications is bodies between commas.

use std::ops::Range;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::encode::{Fields, client_info};
use crate::{
    model::{ChannelName, Kind, Publication},
    protocol::json,
};

/// What follows the body in a push.
pub const PUSH_SUFFIX: &[u8] = b"}}";

/// Appends what precedes the body in a push to `channel`'s subscribers.
pub fn encode_push_prefix(channel: &ChannelName, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"push":{"channel":"#);
    json::push_str(out, channel.as_str());
    out.extend_from_slice(br#","pub":"#);
}

/// Appends the publication as an object, and tells where in `out` its payload's JSON value stands.
///
/// Bytes are never embedded as they are: they stand in the extension field `b64data`, and `data` is
/// null.
pub fn encode_publication_body(publication: &Publication, out: &mut Vec<u8>) -> Range<usize> {
    let record = &publication.record;
    let mut fields = Fields::open(out);
    let data = match record.kind {
        Kind::Json if record.data.is_empty() => fields.written("data", |out| out.extend_from_slice(b"null")),
        Kind::Json => fields.written("data", |out| json::push_raw(out, &record.data)),
        Kind::Bytes => {
            fields.key("data").extend_from_slice(b"null");
            fields.written("b64data", |out| {
                out.push(b'"');
                out.extend_from_slice(STANDARD.encode(&record.data).as_bytes());
                out.push(b'"');
            })
        }
    };
    if let Some(info) = &record.info {
        client_info(fields.key("info"), info);
    }
    if publication.offset > 0 {
        fields.number("offset", publication.offset);
    }
    if !record.tags.is_empty() {
        let mut tags = Fields::open(fields.key("tags"));
        for (name, value) in &record.tags {
            json::push_str(tags.any_key(name), value);
        }
        tags.close();
    }
    if publication.time_ms != 0 {
        json::push_i64(fields.key("time"), publication.time_ms);
    }
    fields.close();
    data
}
