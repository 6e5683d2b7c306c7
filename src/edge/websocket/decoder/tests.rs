use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1_000;

mod properties;

/// An event that owns its contents.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Event::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// A masked frame as a client sends it, by first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0x5a, 0x00, 0xff, 0x31];
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

fn concat(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// Feeds `bytes` in reads that end at `cuts`; the events up to an error, and the error.
fn decode(limit: usize, bytes: &[u8], cuts: &[usize]) -> (Vec<Owned>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        let mut read = bytes[from..to].to_vec();
        let mut input = &mut read[..];
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event)) => events.push(event.into()),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
            let kept = decoder.partial.as_ref().map_or(0, |partial| partial.capacity());
            assert!(kept <= limit + MAX_CONTROL_BYTES, "{kept} bytes kept");
        }
        assert!(input.is_empty(), "None means that all input was taken");
        from = to;
    }
    (events, None)
}

/// The same in one read and byte by byte, which must not differ.
fn decode_both_ways(bytes: &[u8]) -> (Vec<Owned>, Option<ProtocolError>) {
    let at_once = decode(LIMIT, bytes, &[]);
    let cuts: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(decode(LIMIT, bytes, &cuts), at_once, "byte by byte");
    at_once
}

#[test]
fn valid_sequences_give_their_events() {
    use Owned::*;
    let long = "x".repeat(LIMIT);
    let cases: Vec<(&str, Vec<u8>, Vec<Owned>)> = vec![
        ("empty text", frame(0x81, b""), vec![Text(String::new())]),
        (
            "text",
            frame(0x81, "zażółć".as_bytes()),
            vec![Text("zażółć".into())],
        ),
        (
            "binary",
            frame(0x82, &[0, 255, 128]),
            vec![Binary(vec![0, 255, 128])],
        ),
        ("126 bytes", frame(0x82, &[1; 126]), vec![Binary(vec![1; 126])]),
        (
            "as long as allowed",
            frame(0x81, long.as_bytes()),
            vec![Text(long.clone())],
        ),
        ("ping", frame(0x89, &[7; 125]), vec![Ping(vec![7; 125])]),
        ("empty ping", frame(0x89, b""), vec![Ping(vec![])]),
        ("pong", frame(0x8a, b"beat"), vec![Pong(b"beat".to_vec())]),
        ("close", frame(0x88, b""), vec![Close(None, String::new())]),
        (
            "close with code",
            frame(0x88, &[0x03, 0xe8]),
            vec![Close(Some(1000), String::new())],
        ),
        (
            "close with reason",
            frame(0x88, b"\x0b\xb8bye"),
            vec![Close(Some(3000), "bye".into())],
        ),
        (
            "two messages in a read",
            concat(&[frame(0x81, b"one"), frame(0x81, b"two")]),
            vec![Text("one".into()), Text("two".into())],
        ),
        (
            "fragments",
            concat(&[
                frame(0x01, b"He"),
                frame(0x00, b""),
                frame(0x00, b"l"),
                frame(0x80, b"lo"),
            ]),
            vec![Text("Hello".into())],
        ),
        (
            "fragments that are all empty",
            concat(&[frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")]),
            vec![Binary(vec![])],
        ),
        (
            "control frames between fragments",
            concat(&[
                frame(0x02, &[1, 2]),
                frame(0x89, b"still there?"),
                frame(0x00, &[3]),
                frame(0x8a, b""),
                frame(0x80, &[4]),
                frame(0x81, b"next"),
            ]),
            vec![
                Ping(b"still there?".to_vec()),
                Pong(vec![]),
                Binary(vec![1, 2, 3, 4]),
                Text("next".into()),
            ],
        ),
        (
            "a character over two fragments",
            concat(&[frame(0x01, b"\xf0\x9f"), frame(0x80, b"\xa6\x80")]),
            vec![Text("🦀".into())],
        ),
        (
            "fragments that fill the limit",
            concat(&[frame(0x01, &long.as_bytes()[1..]), frame(0x80, b"x")]),
            vec![Text(long.clone())],
        ),
        (
            "nothing is read after a close frame",
            concat(&[frame(0x88, b"\x03\xe8"), frame(0x81, b"late"), vec![0xff; 40]]),
            vec![Close(Some(1000), String::new())],
        ),
        (
            "a close frame inside a message",
            concat(&[frame(0x01, b"half"), frame(0x88, b""), frame(0x80, b"rest")]),
            vec![Close(None, String::new())],
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode_both_ways(&bytes), (expected, None), "{name}");
    }
}

#[test]
fn every_rule_has_its_error_and_close_code() {
    use ProtocolError::*;
    let raw = |bytes: &[u8]| bytes.to_vec();
    let cases: Vec<(&str, Vec<u8>, ProtocolError, u16)> = vec![
        ("unmasked text", raw(b"\x81\x05Hello"), Unmasked, 1002),
        ("unmasked close", raw(b"\x88\x00"), Unmasked, 1002),
        ("rsv1, as for compression", frame(0xc1, b"x"), ReservedBits, 1002),
        ("rsv2", frame(0xa1, b"x"), ReservedBits, 1002),
        ("rsv3 on a control frame", frame(0x99, b"x"), ReservedBits, 1002),
        ("reserved data opcode 3", frame(0x83, b""), UnknownOpcode, 1002),
        ("reserved data opcode 7", frame(0x87, b""), UnknownOpcode, 1002),
        (
            "reserved control opcode 11",
            frame(0x8b, b""),
            UnknownOpcode,
            1002,
        ),
        (
            "reserved control opcode 15",
            frame(0x8f, b""),
            UnknownOpcode,
            1002,
        ),
        ("5 in two bytes", raw(&[0x81, 0xfe, 0, 5]), LengthEncoding, 1002),
        (
            "125 in two bytes",
            raw(&[0x81, 0xfe, 0, 125]),
            LengthEncoding,
            1002,
        ),
        (
            "65535 in eight",
            raw(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 255, 255]),
            LengthEncoding,
            1002,
        ),
        (
            "the length's highest bit",
            raw(&[0x82, 0xff, 128, 0, 0, 0, 0, 1, 0, 0]),
            LengthEncoding,
            1002,
        ),
        ("fragmented ping", frame(0x09, b""), FragmentedControl, 1002),
        ("fragmented close", frame(0x08, b""), FragmentedControl, 1002),
        ("ping of 126 bytes", frame(0x89, &[0; 126]), LongControl, 1002),
        (
            "close of 65536 bytes",
            frame(0x88, &[0; 65_536]),
            LongControl,
            1002,
        ),
        (
            "continuation first",
            frame(0x80, b"x"),
            UnexpectedContinuation,
            1002,
        ),
        (
            "open continuation first",
            frame(0x00, b"x"),
            UnexpectedContinuation,
            1002,
        ),
        (
            "text inside a text",
            concat(&[frame(0x01, b"a"), frame(0x81, b"b")]),
            ExpectedContinuation,
            1002,
        ),
        (
            "binary inside a text",
            concat(&[frame(0x01, b""), frame(0x02, b"b")]),
            ExpectedContinuation,
            1002,
        ),
        ("close body of one byte", frame(0x88, &[3]), CloseBody, 1002),
        (
            "reason that is not UTF-8",
            frame(0x88, b"\x03\xe8\xff"),
            InvalidUtf8,
            1007,
        ),
        (
            "text that is not UTF-8",
            frame(0x81, b"ab\xc0\xaf"),
            InvalidUtf8,
            1007,
        ),
        (
            "text that ends in a character",
            frame(0x81, b"\xf0\x9f\xa6"),
            InvalidUtf8,
            1007,
        ),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), InvalidUtf8, 1007),
        (
            "fragments that do not make a character",
            concat(&[frame(0x01, b"\xf0\x9f"), frame(0x80, b"a")]),
            InvalidUtf8,
            1007,
        ),
        (
            "frame over the limit",
            frame(0x82, &[0; LIMIT + 1]),
            TooLarge { limit: LIMIT },
            1009,
        ),
        (
            "header alone over the limit",
            raw(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask"),
            TooLarge { limit: LIMIT },
            1009,
        ),
        (
            "fragments over the limit",
            concat(&[frame(0x02, &[0; LIMIT]), frame(0x80, &[0])]),
            TooLarge { limit: LIMIT },
            1009,
        ),
    ];
    for (name, bytes, error, code) in cases {
        assert_eq!(decode_both_ways(&bytes), (vec![], Some(error)), "{name}");
        assert_eq!(error.close_code(), code, "{name}");
    }
}

#[test]
fn close_codes_that_may_not_be_sent_are_refused() {
    let sendable = |code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in 0..=u16::MAX {
        let bytes = frame(0x88, &code.to_be_bytes());
        let expected = if sendable(code) {
            (vec![Owned::Close(Some(code), String::new())], None)
        } else {
            (vec![], Some(ProtocolError::CloseCode(code)))
        };
        assert_eq!(decode(LIMIT, &bytes, &[]), expected);
    }
}

#[test]
fn a_message_ends_with_its_last_fragment() {
    let bytes = concat(&[frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")]);
    let expected = (
        vec![Owned::Text("ab".to_owned())],
        Some(ProtocolError::UnexpectedContinuation),
    );
    assert_eq!(decode_both_ways(&bytes), expected);
}

#[test]
fn a_read_may_end_between_header_and_payload() {
    for first in [0x81, 0x89, 0x8a] {
        let one = frame(first, b"payload");
        let bytes = concat(&[one.clone(), one.clone(), one.clone()]);
        let header = one.len() - 7;
        let cuts: Vec<usize> = (0..3).map(|n| n * one.len() + header).collect();
        let (events, error) = decode(LIMIT, &bytes, &cuts);
        assert_eq!((events.len(), error), (3, None));
    }
}

#[test]
fn nothing_is_read_after_an_error() {
    let mut decoder = Decoder::new(LIMIT);
    let mut bytes = concat(&[frame(0x81, b"\xff"), frame(0x81, b"late")]);
    let mut input = &mut bytes[..];
    assert_eq!(decoder.next(&mut input), Err(ProtocolError::InvalidUtf8));
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert!(input.is_empty());
}

#[test]
fn a_limit_below_a_control_frame_holds_for_messages_only() {
    assert_eq!(
        decode(10, &frame(0x89, &[1; 125]), &[]),
        (vec![Owned::Ping(vec![1; 125])], None)
    );
    assert_eq!(
        decode(10, &frame(0x82, &[1; 11]), &[]).1,
        Some(ProtocolError::TooLarge { limit: 10 })
    );
}

#[test]
fn a_whole_frame_is_handed_out_where_it_lies() {
    let mut decoder = Decoder::new(LIMIT);
    let mut bytes = frame(0x81, b"in place");
    let lies = bytes.as_ptr_range();
    let mut input = &mut bytes[..];
    let Ok(Some(Event::Text(text))) = decoder.next(&mut input) else {
        panic!("a text message")
    };
    assert!(lies.contains(&text.as_ptr()));
    assert!(decoder.is_idle());
}

#[test]
fn an_idle_decoder_is_small_and_keeps_no_buffer() {
    assert!(size_of::<Decoder>() <= 40);
    let mut decoder = Decoder::new(LIMIT);
    let sequence = concat(&[
        frame(0x01, b"frag"),
        frame(0x89, b"ping"),
        frame(0x80, b"ments"),
        frame(0x81, b"whole"),
        frame(0x8a, b"pong"),
    ]);
    for byte in sequence {
        let mut read = [byte];
        let mut input = &mut read[..];
        while decoder.next(&mut input).unwrap().is_some() {}
    }
    assert!(decoder.is_idle());
}

#[test]
fn memory_grows_with_what_has_come_not_with_what_was_announced() {
    let mut decoder = Decoder::new(16 << 20);
    let mut bytes = frame(0x82, &vec![0; 8 << 20]);
    bytes.truncate(1_000);
    let mut input = &mut bytes[..];
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert!(decoder.partial.unwrap().capacity() <= 1_000);
}
