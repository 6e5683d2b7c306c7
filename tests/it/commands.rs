//! The decoder of the client protocol, whatever comes: the corpus of its fuzz target.

use proptest::prelude::*;

use crate::support::corpus::{Seed, has_seeds, replay};

#[path = "../../fuzz/checks/command_decoder.rs"]
mod command_decoder;

const TARGET: &str = "command_decoder";

fn seeds() -> Vec<Seed> {
    let deep = |open: &str, close: &str, depth: usize| {
        let data = open.repeat(depth) + "1" + &close.repeat(depth);
        format!(r#"{{"id":1,"publish":{{"channel":"a","data":{data}}}}}"#)
    };
    let texts = [
        ("empty", ""),
        ("pong", "{}"),
        ("pongs", "{}\n{}\n"),
        ("newline", "\n"),
        ("empty-line", "{}\n\n{}"),
        ("carriage-return", "{}\r\n{\"id\":1,\"ping\":{}}\r\n"),
        (
            "connect",
            r#"{"id":1,"connect":{"token":"a.b.c","name":"js","version":"5","data":{"a":[1]}}}"#,
        ),
        (
            "connect-and-subscribe",
            "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"public:a\"}}\n",
        ),
        (
            "connect-recover",
            r#"{"id":1,"connect":{"subs":{"a":{"recover":true,"offset":9007199254740991,"epoch":"e"},"b":{}}}}"#,
        ),
        (
            "subscribe-recover",
            r#"{"id":2,"subscribe":{"channel":"a","token":"t","recover":true,"offset":7,"epoch":"x","flag":2}}"#,
        ),
        (
            "subscribe-features",
            r#"{"id":2,"subscribe":{"channel":"a","tf":{"op":"eq"},"type":1,"delta":"fossil"}}"#,
        ),
        (
            "subscribe-escapes",
            r#"{"id":2,"subscribe":{"channel":"\u0070ublic:\ud83e\udd80","epoch":"\n\"\\"}}"#,
        ),
        ("lone-surrogate", r#"{"id":2,"subscribe":{"channel":"\ud800"}}"#),
        ("lone-surrogate-in-a-key", r#"{"id":2,"\ud800":{}}"#),
        (
            "several",
            concat!(
                "{\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":{\"n\":1}}}\n{}\n",
                "{\"id\":4,\"history\":{\"channel\":\"a\",\"limit\":-1,\"since\":{\"offset\":5,\"epoch\":\"e\"},\"reverse\":true}}\n",
                "{\"id\":5,\"unsubscribe\":{\"channel\":\"a\"}}\n{\"send\":{\"data\":1}}",
            ),
        ),
        (
            "publish-null",
            r#"{"id":3,"publish":{"channel":"a","data":null,"idempotency_key":"k"}}"#,
        ),
        (
            "publish-spaced",
            "{\"id\" : 3 ,\r\"publish\":{\"channel\":\"a\",\"data\": [ 1 ,\r 2 ] } }",
        ),
        (
            "publish-bytes",
            r#"{"id":3,"publish":{"channel":"a","b64data":"AAE="}}"#,
        ),
        (
            "publish-both",
            r#"{"id":3,"publish":{"channel":"a","data":1,"b64data":"AAE="}}"#,
        ),
        (
            "publish-brackets-in-text",
            r#"{"id":3,"publish":{"channel":"a","data":"[[[{{{\"]]"}}"#,
        ),
        ("publish-cut", r#"{"id":3,"publish":{"channel":"a","data":{"n":"#),
        (
            "refresh",
            "{\"id\":6,\"refresh\":{\"token\":\"t\"}}\n{\"id\":7,\"sub_refresh\":{\"channel\":\"a\",\"token\":\"t\"}}",
        ),
        (
            "presence",
            "{\"id\":8,\"presence\":{\"channel\":\"a\"}}\n{\"id\":9,\"presence_stats\":{\"channel\":\"a\"}}",
        ),
        (
            "rpc",
            "{\"id\":10,\"rpc\":{\"method\":\"m\",\"data\":{}}}\n{\"id\":11,\"ping\":{}}",
        ),
        ("unknown", r#"{"id":12,"fly":{}}"#),
        ("no-request", r#"{"id":12}"#),
        ("null-request", r#"{"id":12,"connect":null}"#),
        ("two-requests", r#"{"id":12,"ping":{},"history":{"channel":"a"}}"#),
        ("two-ids", r#"{"id":12,"id":12,"ping":{}}"#),
        ("escaped-id", r#"{"\u0069d":12,"ping":{}}"#),
        ("id-0", r#"{"id":0}"#),
        ("id-0-send", r#"{"id":0,"send":{}}"#),
        ("id-33-bits", r#"{"id":4294967296,"ping":{}}"#),
        ("id-fraction", r#"{"id":1.0,"ping":{}}"#),
        ("id-text", r#"{"id":"1","ping":{}}"#),
        (
            "offset-2-53",
            r#"{"id":2,"subscribe":{"channel":"a","recover":true,"offset":9007199254740992}}"#,
        ),
        (
            "number-beyond-all",
            r#"{"id":2,"x":1e999,"history":{"channel":"a","limit":1e999}}"#,
        ),
        ("array", "[1,{\"id\":1}]"),
        (
            "behind-the-object",
            "{\"id\":1,\"ping\":{}} x\n{\"id\":2,\"ping\":{}}",
        ),
        (
            "control-character",
            "{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":\"\t\"}}",
        ),
    ];
    let mut seeds: Vec<Seed> = texts
        .into_iter()
        .map(|(name, text)| (name, text.as_bytes().to_vec()))
        .collect();
    seeds.extend([
        ("deep-arrays", deep("[", "]", 500).into_bytes()),
        ("deep-objects", deep("{\"a\":", "}", 500).into_bytes()),
        ("not-utf-8", b"{\"id\":1,\"ping\":{}}\n\xff".to_vec()),
    ]);
    seeds
}

#[test]
fn every_seed_is_in_the_corpus_of_commands() {
    has_seeds(TARGET, &seeds());
}

#[test]
fn the_corpus_of_commands_holds() {
    replay(TARGET, seeds().len(), command_decoder::check);
}

/// What a fuzzer would begin with: seeds cut, joined and with a byte changed.
fn nearly_a_seed() -> impl Strategy<Value = Vec<u8>> {
    let piece = (
        prop::sample::select(seeds()),
        any::<prop::sample::Index>(),
        any::<bool>(),
    );
    let piece = piece.prop_map(|((_, bytes), at, cut)| {
        let end = if cut {
            at.index(bytes.len() + 1)
        } else {
            bytes.len()
        };
        bytes[..end].to_vec()
    });
    let pieces = prop::collection::vec(piece, 1..4);
    let changed = (
        any::<prop::sample::Index>(),
        prop::sample::select(b"{}[]\",:\n 0-e\\".to_vec()),
    );
    (pieces, prop::option::of(changed), any::<bool>()).prop_map(|(pieces, changed, lines)| {
        let mut message = pieces.join(if lines { &b"\n"[..] } else { b"" });
        if let Some((at, byte)) = changed.filter(|_| !message.is_empty()) {
            let at = at.index(message.len());
            message[at] = byte;
        }
        message
    })
}

proptest! {
    #[test]
    fn messages_close_to_the_corpus_hold(message in nearly_a_seed()) {
        command_decoder::check(&message);
    }
}
