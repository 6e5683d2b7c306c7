//! Channels as NATS subjects, and back (L1). The mapping is injective: two channels never share a
//! subject, whatever their names hold.
//!
//! A subject is `<root>.<address>`. The address of a durable channel is
//! `<class>.<shard>.<app>.<namespace>.<rest>`, of an ephemeral one `<app>.<namespace>.<rest>`. The
//! namespace is one token, a lone `%` if the channel has none; the rest has a token for each part
//! between its dots, a lone `%` for an empty part.

use std::fmt::Write as _;

use crate::model::{AppId, ChannelKey, ChannelName};

use super::format::shard_of;

/// Stands alone for an empty token. It cannot be mistaken for an escape, which has two digits.
const EMPTY: &str = "%";
/// The token of the anchor: no app id starts with `%`.
const ANCHOR: &str = "%anchor";

/// The address of a channel in a class of `shards` streams, and its shard.
pub(super) fn durable(class: &str, shards: u16, key: &ChannelKey) -> (u16, String) {
    let shard = shard_of(key, shards);
    let mut address = with_room(class.len() + 7, key);
    address.push_str(class);
    // Writing into a string cannot fail.
    let _ = write!(address, ".{shard}.");
    push_channel(&mut address, key);
    (shard, address)
}

/// The address of an ephemeral channel.
pub(super) fn ephemeral(key: &ChannelKey) -> String {
    let mut address = with_room(0, key);
    push_channel(&mut address, key);
    address
}

/// A string that takes `before` bytes and a channel of which nothing is escaped.
fn with_room(before: usize, key: &ChannelKey) -> String {
    let channel = key.app.as_str().len() + key.name.as_str().len() + 3;
    String::with_capacity(before + channel)
}

/// The address of a shard's anchor (L1, L4, L11).
pub(super) fn anchor(class: &str, shard: u16) -> String {
    format!("{class}.{shard}.{ANCHOR}")
}

fn push_channel(out: &mut String, key: &ChannelKey) {
    out.push_str(key.app.as_str());
    out.push('.');
    // A channel with a `:` has a namespace that is not empty, so a lone `%` means "no namespace".
    push_token(out, key.name.namespace());
    for part in key.name.rest().split('.') {
        out.push('.');
        push_token(out, part);
    }
}

fn push_token(out: &mut String, part: &str) {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'.' | b'*' | b'>');
    if part.is_empty() {
        out.push_str(EMPTY);
    } else if part.bytes().all(plain) {
        out.push_str(part);
    } else {
        escape(out, part.as_bytes(), plain);
    }
}

/// Appends `bytes`, with `%XX` (upper-case hex) for each byte that is not `plain`.
pub(super) fn escape(out: &mut String, bytes: &[u8], plain: impl Fn(u8) -> bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The inverse of [`escape`]; `None` if a `%` is not followed by two hex digits.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            // Two hex digits fit into a byte.
            out.push((high << 4 | low) as u8);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// The tokens of a key of the deployment's own streams: one for each part.
pub(super) fn key(parts: &[&str]) -> String {
    let mut tokens = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            tokens.push('.');
        }
        push_token(&mut tokens, part);
    }
    tokens
}

/// The inverse of [`key`]; `None` for any other spelling than its own.
pub(super) fn key_parts(tokens: &str) -> Option<Vec<String>> {
    let part = |token: &str| {
        let bytes = if token == EMPTY {
            Vec::new()
        } else {
            unescape(token)?
        };
        String::from_utf8(bytes).ok()
    };
    let parts: Vec<String> = tokens.split('.').map(part).collect::<Option<_>>()?;
    let canonical: Vec<_> = parts.iter().map(String::as_str).collect();
    (key(&canonical) == tokens).then_some(parts)
}

/// The channel behind the tokens `<app>.<namespace>.<rest>`. Only what [`durable`] and
/// [`ephemeral`] write is accepted: another spelling of the same channel is `None`.
pub(super) fn channel(tokens: &str) -> Option<ChannelKey> {
    let (app, tokens) = tokens.split_once('.')?;
    let (namespace, rest) = tokens.split_once('.')?;
    let mut name = Vec::new();
    if namespace != EMPTY {
        name.extend(unescape(namespace)?);
        name.push(b':');
    }
    for (index, token) in rest.split('.').enumerate() {
        if index > 0 {
            name.push(b'.');
        }
        if token != EMPTY {
            name.extend(unescape(token)?);
        }
    }
    let key = ChannelKey {
        app: AppId::new(app).ok()?,
        name: ChannelName::new(std::str::from_utf8(&name).ok()?).ok()?,
    };
    let mut canonical = String::new();
    push_channel(&mut canonical, &key);
    (canonical.split_once('.') == Some((app, tokens))).then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(app: &str, name: &str) -> ChannelKey {
        ChannelKey {
            app: AppId::new(app).unwrap(),
            name: ChannelName::new(name).unwrap(),
        }
    }

    #[test]
    fn l1_names_that_nats_cannot_hold_are_escaped() {
        for (name, tokens) in [
            ("chat:room.1", "a.chat.room.1"),
            ("plain", "a.%.plain"),
            ("a.b", "a.%.a.b"),
            ("a.b:c", "a.a%2Eb.c"),
            (".", "a.%.%.%"),
            ("n:.x.", "a.n.%.x.%"),
            ("n:a..b", "a.n.a.%.b"),
            ("n:*", "a.n.%2A"),
            ("n:>", "a.n.%3E"),
            ("n:100%", "a.n.100%25"),
            ("n:%", "a.n.%25"),
            ("% :x", "a.%25%20.x"),
            ("n:x y:é", "a.n.x%20y:%C3%A9"),
            ("$JS:API", "a.$JS.API"),
        ] {
            assert_eq!(ephemeral(&key("a", name)), tokens, "{name}");
            assert_eq!(channel(tokens), Some(key("a", name)), "{tokens}");
        }
    }

    #[test]
    fn l1_only_the_canonical_spelling_is_read() {
        for tokens in [
            "", "a", "a.n", "a.n.", "a..x", "A.n.x", "a.n.%2a", "a.n.%41", "a.n.%2", "a.n.%zz", "a.n.x y",
            "a.n.%FF", "%anchor", "a.%.n:x",
        ] {
            assert_eq!(channel(tokens), None, "{tokens}");
        }
    }

    /// Names that are likely to meet if anything in the encoding is ambiguous.
    fn name() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[a%.:>* 0-2é\u{3000}\"\\\\]{1,12}").unwrap()
    }

    #[test]
    fn a_key_has_a_token_for_each_part() {
        for (parts, tokens) in [
            (&["dev"][..], "dev"),
            (&["dev", "a.b"], "dev.a%2Eb"),
            (&["dev", "", ">"], "dev.%.%3E"),
            (&["*", "%", "x y"], "%2A.%25.x%20y"),
        ] {
            assert_eq!(super::key(parts), tokens);
            assert_eq!(key_parts(tokens).unwrap(), parts);
        }
        for tokens in ["", "a..b", "a.%2a", "a.%41", "a.%FF", "a.%2"] {
            assert_eq!(key_parts(tokens), None, "{tokens}");
        }
    }

    proptest! {
        #[test]
        fn two_keys_never_share_a_subject(a in proptest::collection::vec(name(), 1..4), b in proptest::collection::vec(name(), 1..4)) {
            let parts = |key: &Vec<String>| super::key(&key.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(key_parts(&parts(&a)), Some(a.clone()));
            prop_assert_eq!(a == b, parts(&a) == parts(&b));
        }

        #[test]
        fn l1_encoding_is_reversible_and_valid(name in name()) {
            let Ok(name) = ChannelName::new(&name) else { return Ok(()) };
            let key = ChannelKey { app: AppId::new("a").unwrap(), name };
            let tokens = ephemeral(&key);
            prop_assert_eq!(channel(&tokens), Some(key.clone()));
            for token in tokens.split('.') {
                prop_assert!(!token.is_empty());
                prop_assert!(token.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>'));
            }
            let (shard, address) = durable("std", 4, &key);
            prop_assert_eq!(address, format!("std.{shard}.{tokens}"));
        }

        #[test]
        fn l1_two_channels_never_share_a_subject(a in name(), b in name()) {
            let (Ok(a), Ok(b)) = (ChannelName::new(&a), ChannelName::new(&b)) else { return Ok(()) };
            let app = AppId::new("a").unwrap();
            let address = |name: &ChannelName| ephemeral(&ChannelKey { app: app.clone(), name: name.clone() });
            prop_assert_eq!(a == b, address(&a) == address(&b));
        }
    }
}
