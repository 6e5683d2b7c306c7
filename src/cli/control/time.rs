//! Times as people write and read them. Pure: the present is given.

use std::{str::FromStr, time::SystemTime};

const DAY_MS: i64 = 86_400_000;

/// A moment, or how far away one is: `2026-11-29T15:04:00Z`, `2026-11-29`, `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Ms since 1970.
    At(i64),
    /// So many ms away, in the direction that the command goes by.
    Away(i64),
}

impl When {
    /// Ms since 1970, of what lies back.
    pub(super) fn before(self, now_ms: i64) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::Away(ms) => now_ms.saturating_sub(ms),
        }
    }

    /// Ms since 1970, of what is to come.
    pub(super) fn after(self, now_ms: i64) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::Away(ms) => now_ms.saturating_add(ms),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = span_ms(text).map(Self::Away);
        let found = found.or_else(|| moment_ms(text).map(Self::At));
        found.ok_or_else(|| "a time like 2026-11-29T15:04:00Z or 2026-11-29, or a span like 24h".to_owned())
    }
}

/// A span of time, like `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Whole seconds.
    pub(super) seconds: i64,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = span_ms(text).ok_or_else(|| "a span like 30s, 15m, 1h, 90d or 0s".to_owned())?;
        Ok(Self { seconds: ms / 1000 })
    }
}

/// Now, ms since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// UTC, to the minute.
pub(super) fn shown(ms: i64) -> String {
    let (year, month, day) = date(ms.div_euclid(DAY_MS));
    let minutes = ms.rem_euclid(DAY_MS) / 60_000;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}",
        minutes / 60,
        minutes % 60
    )
}

/// A number and a unit: s, m, h, d or w.
fn span_ms(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let number = digits(&text[..text.len() - 1])?;
    number.checked_mul(seconds)?.checked_mul(1000)
}

/// RFC 3339, or a date alone, which is its midnight in UTC.
fn moment_ms(text: &str) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let mut parts = day.split('-');
    let (year, month, day) = (
        fixed(parts.next()?, 4)?,
        fixed(parts.next()?, 2)?,
        fixed(parts.next()?, 2)?,
    );
    if parts.next().is_some() {
        return None;
    }
    let days = days(year, month, day)?;
    let within = match rest.strip_prefix(['T', 't', ' ']) {
        None if rest.is_empty() => 0,
        None => return None,
        Some(rest) => clock_ms(rest)?,
    };
    Some(days * DAY_MS + within)
}

/// What stands behind the date, ms from its midnight in UTC.
fn clock_ms(text: &str) -> Option<i64> {
    let (clock, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let at = text.rfind(['+', '-'])?;
            let (clock, offset) = text.split_at(at);
            let (hours, minutes) = offset[1..].split_once(':')?;
            let minutes = bounded(hours, 23)? * 60 + bounded(minutes, 59)?;
            (
                clock,
                if offset.starts_with('-') {
                    -minutes
                } else {
                    minutes
                },
            )
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    digits(fraction)?;
    let ms = fraction.bytes().chain(*b"000").take(3);
    let ms = ms.fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0'));
    let mut parts = clock.split(':');
    let (hours, minutes) = (bounded(parts.next()?, 23)?, bounded(parts.next()?, 59)?);
    // A leap second is the one after it.
    let seconds = bounded(parts.next().unwrap_or("00"), 60)?;
    if parts.next().is_some() {
        return None;
    }
    Some((((hours * 60 + minutes - offset) * 60) + seconds) * 1000 + ms)
}

fn bounded(text: &str, most: i64) -> Option<i64> {
    fixed(text, 2).filter(|number| *number <= most)
}

fn fixed(text: &str, length: usize) -> Option<i64> {
    digits(text).filter(|_| text.len() == length)
}

fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok())?
}

/// Days before the month in a year that is no leap year.
const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from the year 0 to the first day of `year`.
fn days_to_year(year: i64) -> i64 {
    let before = year - 1;
    365 * year + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400)
}

/// The first day of `month` (1 to 12) in its year; of 13 it is that of the next year.
fn days_to_month(year: i64, month: i64) -> i64 {
    let index = usize::try_from(month - 1).unwrap_or(0);
    let plain = BEFORE.get(index).copied().unwrap_or(365);
    plain + i64::from(month > 2 && is_leap(year))
}

/// The number of a day, counted from 1970. `None` if there is no such day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) {
        return None;
    }
    let length = days_to_month(year, month + 1) - days_to_month(year, month);
    let there = (1..=length).contains(&day);
    there.then(|| days_to_year(year) - days_to_year(1970) + days_to_month(year, month) + day - 1)
}

/// Year, month and day of a day's number.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + days_to_year(1970);
    // A guess that is at most one off.
    let mut year = day.div_euclid(365) - day.div_euclid(365).div_euclid(1461);
    while days_to_year(year) > day {
        year -= 1;
    }
    while days_to_year(year + 1) <= day {
        year += 1;
    }
    let rest = day - days_to_year(year);
    let months = (1..=12).rev();
    let month = months
        .into_iter()
        .find(|month| days_to_month(year, *month) <= rest);
    let month = month.unwrap_or(1);
    (year, month, rest - days_to_month(year, month) + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_and_spans() {
        for (text, when) in [
            ("1970-01-01", When::At(0)),
            ("1970-01-01T00:00:00Z", When::At(0)),
            ("2026-11-29T15:04:00Z", When::At(1_795_964_640_000)),
            ("2026-11-29t15:04z", When::At(1_795_964_640_000)),
            ("2026-11-29 16:04:00+01:00", When::At(1_795_964_640_000)),
            ("2026-11-29T09:34:00.25-05:30", When::At(1_795_964_640_250)),
            ("2024-02-29", When::At(1_709_164_800_000)),
            ("0s", When::Away(0)),
            ("90s", When::Away(90_000)),
            ("15m", When::Away(900_000)),
            ("24h", When::Away(DAY_MS)),
            ("2w", When::Away(14 * DAY_MS)),
        ] {
            assert_eq!(text.parse(), Ok(when), "{text}");
        }
        for text in [
            "",
            "h",
            "1",
            "-1h",
            "+1h",
            "1.5h",
            "1 h",
            "1y",
            "2023-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-11-31",
            "2026-11-29T15:04:00",
            "2026-11-29T24:00:00Z",
            "2026-11-29T1:04:00Z",
            "2026-11-29Z",
            "2026-11-29T15:04:00.Z",
            "2026-11-29T15:04:00+0100",
            "99999999999999999h",
            "ä",
            "2026-11-2ä",
        ] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_go_where_the_command_goes() {
        let day = When::Away(DAY_MS);
        assert_eq!(
            (day.before(2 * DAY_MS), day.after(2 * DAY_MS)),
            (DAY_MS, 3 * DAY_MS)
        );
        let at = When::At(5);
        assert_eq!((at.before(9), at.after(9)), (5, 5));
        assert_eq!("90d".parse(), Ok(Span { seconds: 7_776_000 }));
        assert!("2026-11-29".parse::<Span>().is_err());
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01 00:00"),
            (-1, "1969-12-31 23:59"),
            (1_795_964_699_999, "2026-11-29 15:04"),
            (1_709_164_800_000, "2024-02-29 00:00"),
            (1_735_689_599_000, "2024-12-31 23:59"),
        ] {
            assert_eq!(shown(ms), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(minute in 0_i64..4_000_000_000) {
            // The years 1970 to 9575.
            let ms = minute * 60_000;
            let text = format!("{}Z", shown(ms));
            prop_assert_eq!(text.parse(), Ok(When::At(ms)));
        }
    }
}
