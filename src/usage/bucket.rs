//! What sums are stored under: ids that are in the order of time.
//!
//! `<app>/<step>/<seconds>` holds an app's, `<app>/<step>-ns/<seconds>/<namespace>` a namespace's, and
//! `<app>/keys/<seconds>` when each key was last used on a day. Seconds are those since 1970 of the beginning, in ten digits. A
//! namespace is `=` and its name, or `*` for all that are not told apart.

use std::time::Duration;

use crate::{config::UsageConfig, model::AppId};

/// Over how long is summed up. Days are those of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// By the minute.
    Minute,
    /// By the hour.
    Hour,
    /// By the day.
    Day,
}

impl Step {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// As it stands in ids and in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Its length, milliseconds.
    pub const fn ms(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// The beginning of the one that `ms` is in.
    pub const fn start(self, ms: i64) -> i64 {
        ms - ms.rem_euclid(self.ms())
    }

    pub(super) fn keep(self, config: &UsageConfig) -> Duration {
        match self {
            Self::Minute => config.keep_minutes,
            Self::Hour => config.keep_hours,
            Self::Day => config.keep_days,
        }
    }
}

/// What stands for the namespaces that are not told apart.
pub(super) const OTHERS: &str = "*";

/// A namespace as it stands in records and ids.
pub(super) fn name_of(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| OTHERS.to_owned(), |name| format!("={name}"))
}

/// The inverse of [`name_of`]; `None` for what it never writes.
pub(super) fn namespace_of(name: &str) -> Option<Option<&str>> {
    if name == OTHERS {
        return Some(None);
    }
    name.strip_prefix('=').map(Some)
}

/// Where an app's sum over the step that begins at `start_ms` is.
pub(super) fn app_id(app: &AppId, step: Step, start_ms: i64) -> String {
    format!("{}{:010}", app_prefix(app, step), start_ms / 1_000)
}

/// Where a namespace's is; `name` as [`name_of`] writes it.
pub(super) fn namespace_id(app: &AppId, step: Step, start_ms: i64, name: &str) -> String {
    format!("{}{:010}/{name}", namespace_prefix(app, step), start_ms / 1_000)
}

pub(super) fn app_prefix(app: &AppId, step: Step) -> String {
    format!("{app}/{}/", step.as_str())
}

pub(super) fn namespace_prefix(app: &AppId, step: Step) -> String {
    format!("{app}/{}-ns/", step.as_str())
}

/// Where it is kept when each key of an app was last used, of those that were used on a day.
pub(super) fn keys_id(app: &AppId, start_ms: i64) -> String {
    format!("{}{:010}", keys_prefix(app), start_ms / 1_000)
}

pub(super) fn keys_prefix(app: &AppId) -> String {
    format!("{app}/keys/")
}

/// A key's id as the name of a number: letters and digits as they are, `_XX` for each other byte. `None` if
/// it is too long for one.
pub(super) fn number_of_key(key: &str) -> Option<String> {
    let mut name = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("_{byte:02X}"));
        }
    }
    (1..=64).contains(&name.len()).then_some(name)
}

/// The inverse of [`number_of_key`].
pub(super) fn key_of_number(name: &str) -> Option<String> {
    let mut key = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'_' {
            let digits = [bytes.next()?, bytes.next()?];
            key.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            key.push(byte);
        }
    }
    String::from_utf8(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_time_and_of_one_app() {
        let app = AppId::new("a").unwrap();
        let ids: Vec<_> = [999, 60_000, 1_800_000_000_000, 9_999_999_999_000]
            .map(|ms| app_id(&app, Step::Minute, Step::Minute.start(ms)))
            .into();
        assert_eq!(ids[1], "a/minute/0000000060");
        assert!(ids.is_sorted(), "{ids:?}");
        assert_eq!(
            namespace_id(&app, Step::Day, 86_400_000, &name_of(Some("x/y"))),
            "a/day-ns/0000086400/=x/y"
        );
        assert_eq!(name_of(None), "*");
        for namespace in [None, Some(""), Some("*"), Some("=")] {
            assert_eq!(namespace_of(&name_of(namespace)), Some(namespace));
        }
        assert_eq!(namespace_of("x"), None);
    }

    #[test]
    fn a_step_begins_where_its_time_does() {
        let at = 1_795_967_696_789;
        for (step, start) in [
            (Step::Minute, 1_795_967_640_000),
            (Step::Hour, 1_795_964_400_000),
            (Step::Day, 1_795_910_400_000),
        ] {
            assert_eq!(step.start(at), start);
            assert_eq!(step.start(start), start);
            assert_eq!(step.start(start + step.ms()), start + step.ms());
        }
    }

    #[test]
    fn every_key_has_a_number_of_its_own() {
        for key in ["abc", "a-b", "a_b", "a_2D", "é", "_"] {
            let name = number_of_key(key).unwrap();
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
                "{name}"
            );
            assert_eq!(key_of_number(&name).as_deref(), Some(key));
        }
        assert_eq!((number_of_key(""), number_of_key(&"-".repeat(22))), (None, None));
    }
}
