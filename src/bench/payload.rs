//! What the benchmark publishes: JSON of an exact size that carries a sequence and a time.
//!
//! Both are digits of fixed width inside a string, so that servers that parse and print JSON again
//! leave them as they are, and the receiver finds them with one search and no parser.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use memchr::memmem;

/// What stands before the two numbers.
const MARKER: &[u8] = b"\"bench\":\"";
const SEQ_DIGITS: usize = 10;
const TIME_DIGITS: usize = 16;
/// `<seq> <time>`
const STAMP: usize = SEQ_DIGITS + 1 + TIME_DIGITS;

/// The smallest payload: everything but the padding.
pub(crate) const MIN_SIZE: usize = 1 + MARKER.len() + STAMP + "\",\"pad\":\"\"}".len();

/// Microseconds since 1970. Wall clock, because publisher and receiver may be two processes.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// What a publication says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Its number within its channel, from 1.
    pub(crate) seq: u32,
    /// When it was published, µs since 1970.
    pub(crate) time_us: u64,
}

/// Appends a payload of exactly `size` bytes (at least [`MIN_SIZE`]).
pub(crate) fn write(out: &mut Vec<u8>, size: usize, stamp: Stamp) {
    out.push(b'{');
    out.extend_from_slice(MARKER);
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "{:0seq$} {:0time$}\",\"pad\":\"",
        stamp.seq,
        stamp.time_us,
        seq = SEQ_DIGITS,
        time = TIME_DIGITS
    );
    out.resize(out.len() + size.saturating_sub(MIN_SIZE), b'x');
    out.extend_from_slice(b"\"}");
}

/// Finds the stamps in received text.
pub(crate) struct Scanner(memmem::Finder<'static>);

impl Scanner {
    pub(crate) fn new() -> Self {
        Self(memmem::Finder::new(MARKER))
    }

    /// The first stamp at or after `from`, and where the text behind it begins.
    pub(crate) fn next(&self, text: &[u8], from: usize) -> Option<(Stamp, usize)> {
        let mut from = from;
        loop {
            let start = from + self.0.find(text.get(from..)?)? + MARKER.len();
            let digits = text.get(start..start + STAMP)?;
            from = start;
            let (seq, rest) = digits.split_at(SEQ_DIGITS);
            if let (Some(seq), Some(time_us)) = (number(seq), number(rest.get(1..)?)) {
                let seq = u32::try_from(seq).ok()?;
                return Some((Stamp { seq, time_us }, start + STAMP));
            }
        }
    }
}

/// Digits as a number; `None` if anything else is among them.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |n, b| {
        b.is_ascii_digit()
            .then(|| n.wrapping_mul(10).wrapping_add(u64::from(b - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_is_json_and_is_found_again() {
        for (size, seq, time_us) in [(MIN_SIZE, 1, 2), (256, 4_000_000_000, 1_763_791_200_123_456)] {
            let stamp = Stamp { seq, time_us };
            let mut text = br#"{"push":{"channel":"c","pub":{"data":"#.to_vec();
            let before = text.len();
            write(&mut text, size, stamp);
            assert_eq!(text.len() - before, size);
            assert!(serde_json::from_slice::<serde_json::Value>(&text[before..]).is_ok());
            let (found, end) = Scanner::new().next(&text, 0).unwrap();
            assert_eq!(found, stamp);
            assert_eq!(Scanner::new().next(&text, end), None);
        }
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_passed_over() {
        let scanner = Scanner::new();
        let mut text = br#"{"bench":"not the digits that were meant","#.to_vec();
        assert_eq!(scanner.next(&text, 0), None);
        let stamp = Stamp { seq: 7, time_us: 8 };
        write(&mut text, 100, stamp);
        assert_eq!(scanner.next(&text, 0).unwrap().0, stamp);
        for cut in 0..text.len() {
            let _ = scanner.next(&text[..cut], 0);
        }
    }
}
