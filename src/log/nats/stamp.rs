//! Time stamps as NATS writes them: RFC 3339, in UTC, with 0 to 9 digits of a second's fraction.
//! A parser of its own, because every live copy carries one.

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
