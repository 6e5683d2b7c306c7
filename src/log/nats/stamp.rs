//! Time stamps as NATS writes them: RFC 3339, in UTC, with 0 to 9 digits of a second's fraction.
//! A parser of its own, because every live copy carries one.

use std::time::{SystemTime, UNIX_EPOCH};

/// This machine's time in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970, rounded down; `None` if `text` is not such a time stamp. Offsets other
/// than `Z` are understood too (RFC 3339 section 5.6).
pub(super) fn parse_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (date_time, rest) = bytes.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| date_time[at] != byte) {
        return None;
    }
    let number = |from: usize, to: usize| digits(&date_time[from..to]);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !valid {
        return None;
    }
    let (millis, zone) = fraction(rest)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    Some(seconds * 1_000 + millis)
}

/// A time in milliseconds since 1970 as NATS reads it. Times before 1970 are 1970's first moment.
pub(super) fn format_ms(time_ms: i64) -> String {
    let time_ms = time_ms.max(0);
    let (seconds, millis) = (time_ms / 1_000, time_ms % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil calendar from a day number, by eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The milliseconds of `.123456789`, if there, and what follows.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if !matches!(length, 1..=9) {
        return None;
    }
    let millis = (0..3).fold(0, |sum, at| {
        let digit = if at < length {
            i64::from(rest[at] - b'0')
        } else {
            0
        };
        sum * 10 + digit
    });
    Some((millis, &rest[length..]))
}

/// The seconds that a zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] => {
            let seconds = digits(hours).filter(|_| hours.len() == 2)? * 3_600 + digits(&[*m1, *m2])? * 60;
            Some(if *sign == b'+' { seconds } else { -seconds })
        }
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years start in March here, so that
/// the leap day is the last one and the lengths of the months before it follow a straight line.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let from_march = (153 * month + 2) / 5;
    // 1970-01-01 is day 719,468 when 0000-03-01 is day 0.
    year * 365 + leap_days + from_march + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_it_is_read() {
        assert_eq!(format_ms(951_826_154_321), "2000-02-29T12:09:14.321Z");
        assert_eq!(format_ms(-5), "1970-01-01T00:00:00.000Z");
        for time_ms in [
            0,
            1,
            999,
            86_399_999,
            68_256_000_000,
            1_795_327_200_123,
            4_102_444_800_000,
        ] {
            assert_eq!(parse_ms(&format_ms(time_ms)), Some(time_ms));
        }
    }

    #[test]
    fn known_times() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2026-11-22T05:55:00.123456789Z", 1_795_326_900_123),
            ("2026-11-22T06:55:00.123+01:00", 1_795_326_900_123),
            ("2026-11-21T23:25:00.123999-06:30", 1_795_326_900_123),
            ("2100-12-31T23:59:59.09Z", 4_133_980_799_090),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ] {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T05:55:00",
            "2026-11-22 05:55:00Z",
            "2026-13-22T05:55:00Z",
            "2026-11-22T24:55:00Z",
            "2026-11-22T05:55:00.Z",
            "2026-11-22T05:55:00.1234567890Z",
            "2026-11-22T05:55:00+1:00",
            "2026-11-22T05:55:00Zx",
            "2026-11-2éT05:55:00Z",
        ] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }
}
