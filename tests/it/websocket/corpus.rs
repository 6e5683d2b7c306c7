//! The corpus of the WebSocket decoder's fuzz target.

use super::frames::{masked, unmasked};
use crate::support::corpus::{Seed, has_seeds, replay};

#[path = "../../../fuzz/checks/websocket_decoder.rs"]
mod websocket_decoder;

const TARGET: &str = "websocket_decoder";

/// A seed: limit (in 16 bytes), size of the reads, frames.
fn seed(limit: u8, read: u8, frames: &[Vec<u8>]) -> Vec<u8> {
    [&[limit, read][..], &frames.concat()].concat()
}

fn seeds() -> Vec<Seed> {
    let raw = |bytes: &[u8]| bytes.to_vec();
    vec![
        ("empty", vec![]),
        ("text", seed(8, 1, &[masked(0x81, b"Hello")])),
        ("text-empty", seed(8, 1, &[masked(0x81, b"")])),
        ("text-two-byte-length", seed(16, 7, &[masked(0x81, &[b'x'; 200])])),
        (
            "text-eight-byte-length",
            seed(255, 13, &[raw(b"\x81\xff\0\0\0\0\0\x01\0\0mask")]),
        ),
        ("text-at-limit", seed(8, 9, &[masked(0x81, &[b'x'; 128])])),
        ("text-over-limit", seed(8, 9, &[masked(0x81, &[b'x'; 129])])),
        (
            "text-limit-zero",
            seed(0, 3, &[masked(0x81, b""), masked(0x81, b"x")]),
        ),
        (
            "text-multibyte",
            seed(8, 2, &[masked(0x81, "zażółć gęślą 🦀".as_bytes())]),
        ),
        ("text-overlong-utf8", seed(8, 2, &[masked(0x81, b"\xc0\xaf")])),
        ("text-surrogate", seed(8, 1, &[masked(0x81, b"\xed\xa0\x80")])),
        ("text-cut-utf8", seed(8, 5, &[masked(0x81, b"ab\xf0\x9f\xa6")])),
        ("binary", seed(8, 4, &[masked(0x82, &[0, 255, 128, 127])])),
        (
            "several-in-a-read",
            seed(
                8,
                3,
                &[masked(0x81, b"a"), masked(0x82, b"b"), masked(0x81, b"c")],
            ),
        ),
        (
            "fragments",
            seed(
                8,
                2,
                &[masked(0x01, b"He"), masked(0x00, b"ll"), masked(0x80, b"o")],
            ),
        ),
        (
            "fragments-empty",
            seed(8, 6, &[masked(0x02, b""), masked(0x00, b""), masked(0x80, b"")]),
        ),
        (
            "fragments-cut-character",
            seed(8, 6, &[masked(0x01, b"\xf0\x9f"), masked(0x80, b"\xa6\x80")]),
        ),
        (
            "fragments-over-limit",
            seed(1, 5, &[masked(0x01, b"0123456789"), masked(0x80, b"0123456")]),
        ),
        (
            "fragments-with-ping",
            seed(
                8,
                5,
                &[masked(0x01, b"a"), masked(0x89, b"p"), masked(0x80, b"b")],
            ),
        ),
        (
            "fragments-with-close",
            seed(8, 5, &[masked(0x01, b"a"), masked(0x88, b"\x03\xe8")]),
        ),
        (
            "fragments-unfinished",
            seed(8, 5, &[masked(0x01, b"a"), masked(0x00, b"b")]),
        ),
        (
            "fragments-new-message",
            seed(8, 5, &[masked(0x01, b"a"), masked(0x81, b"b")]),
        ),
        ("continuation-first", seed(8, 5, &[masked(0x80, b"b")])),
        ("ping", seed(8, 8, &[masked(0x89, &[7; 125])])),
        ("ping-empty", seed(8, 8, &[masked(0x89, b"")])),
        ("ping-too-long", seed(16, 8, &[masked(0x89, &[7; 126])])),
        ("ping-fragmented", seed(8, 8, &[masked(0x09, b"x")])),
        (
            "ping-after-bare-header",
            seed(8, 6, &[masked(0x89, b"p"), masked(0x8a, b"q")]),
        ),
        ("pong", seed(8, 8, &[masked(0x8a, b"beat")])),
        ("close", seed(8, 1, &[masked(0x88, b"")])),
        ("close-code", seed(8, 1, &[masked(0x88, b"\x03\xe8")])),
        ("close-reason", seed(8, 3, &[masked(0x88, b"\x0b\xb9drain")])),
        ("close-one-byte", seed(8, 1, &[masked(0x88, b"\x03")])),
        ("close-bad-code", seed(8, 1, &[masked(0x88, b"\x03\xed")])),
        ("close-bad-reason", seed(8, 1, &[masked(0x88, b"\x03\xe8\xff")])),
        (
            "close-and-more",
            seed(
                8,
                4,
                &[masked(0x88, b""), masked(0x81, b"late"), raw(&[0xff; 20])],
            ),
        ),
        ("unmasked", seed(8, 3, &[unmasked(0x81, b"Hello")])),
        ("reserved-bit-1", seed(8, 3, &[masked(0xc1, b"x")])),
        ("reserved-bit-3", seed(8, 3, &[masked(0x99, b"x")])),
        ("reserved-opcode", seed(8, 3, &[masked(0x83, b"x")])),
        ("reserved-control-opcode", seed(8, 3, &[masked(0x8b, b"x")])),
        (
            "length-not-shortest-2",
            seed(8, 3, &[raw(b"\x81\xfe\x00\x05maskHello")]),
        ),
        (
            "length-not-shortest-8",
            seed(8, 3, &[raw(b"\x81\xff\0\0\0\0\0\0\x00\x05maskHello")]),
        ),
        (
            "length-highest-bit",
            seed(8, 3, &[raw(b"\x82\xff\x80\0\0\0\0\0\0\x01mask")]),
        ),
        ("header-cut", seed(8, 1, &[raw(b"\x81\xfe\x01")])),
        ("payload-cut", seed(8, 2, &[masked(0x81, b"Hello")[..8].to_vec()])),
        ("http", seed(8, 4, &[raw(b"GET / HTTP/1.1\r\n\r\n")])),
    ]
}

#[test]
fn every_seed_is_in_the_corpus() {
    has_seeds(TARGET, &seeds());
}

#[test]
fn the_corpus_holds() {
    replay(TARGET, seeds().len(), websocket_decoder::check);
}
