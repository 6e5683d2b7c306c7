//! The one way to write a span of time (`25s`, `1h30m`) and a number of bytes (`64KiB`).

use std::{fmt::Write, time::Duration};

/// Units of time in milliseconds, the largest first.
const TIME: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of size in bytes, the largest first.
const SIZE: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a span of time: one or more whole numbers, each with one of `d h m s ms`, in falling
/// order. `None` if `text` is anything else or longer than 584 million years.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut above = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        let (_, scale) = *TIME.iter().find(|(name, _)| *name == unit)?;
        if scale >= above {
            return None;
        }
        above = scale;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(scale)?)?;
        rest = behind;
    }
    (above != u64::MAX).then(|| Duration::from_millis(total))
}

/// Writes `time` so that [`parse_time`] reads it; what is below a millisecond is dropped.
pub(super) fn format_time(time: Duration) -> String {
    let mut left = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in TIME {
        if left >= scale {
            let _ = write!(text, "{}{unit}", left / scale);
            left %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads a size: one whole number with one of `B KiB MiB GiB TiB`. `None` if `text` is anything
/// else or does not fit in 64 bits.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = SIZE.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Writes `size` in the largest unit that divides it, so that [`parse_size`] reads it.
pub(super) fn format_size(size: u64) -> String {
    let (unit, scale) = SIZE
        .iter()
        .find(|(_, scale)| size != 0 && size.is_multiple_of(*scale))
        .unwrap_or(&SIZE[4]);
    format!("{}{unit}", size / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_of_time() {
        for (text, ms) in [
            ("0s", 0),
            ("25s", 25_000),
            ("1h30m", 5_400_000),
            ("200ms", 200),
            ("1d", 86_400_000),
            ("90m", 5_400_000),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(parse_time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "s",
            "25",
            "25 s",
            " 25s",
            "-1s",
            "1.5s",
            "1s1s",
            "1s1m",
            "1S",
            "1sec",
            "1us",
            "٣s",
            "99999999999999999999s",
            "18446744073709551615d",
            "1h-30m",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(format_size(bytes), text);
        }
        for text in [
            "",
            "64",
            "64KB",
            "64kib",
            "64K",
            "1 MiB",
            "1.5MiB",
            "KiB",
            "-1B",
            "1MiB1B",
            "18014398509481984KiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms: u64, size: u64) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse_time(&format_time(time)), Some(time));
            prop_assert_eq!(parse_size(&format_size(size)), Some(size));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-zA-Z .]{0,12}") {
            if let Some(time) = parse_time(&text) {
                prop_assert_eq!(parse_time(&format_time(time)), Some(time));
            }
            if let Some(size) = parse_size(&text) {
                prop_assert_eq!(parse_size(&format_size(size)), Some(size));
            }
        }
    }
}
