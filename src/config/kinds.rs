//! The kinds of values that settings have: how each is read, what to do if it cannot be, and how it
//! is written.

use std::{fmt::Display, marker::PhantomData, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    fields::{Fields, Kind, Section},
    layers::{Node, Table, Value},
    show::{Lines, quoted},
    units,
};
use crate::model::{AppId, ClassName, History};

mod json;
mod secrets;
mod words;

pub(super) use json::Json;
pub(super) use secrets::{Hidden, HiddenList};
pub(super) use words::{Compatible, Encryption, Listeners, TooSoon, Transport, Who, WhoSignsUp};

/// A kind that is one TOML value.
pub(super) trait Leaf<T> {
    /// What is wanted, for the message if something else is there.
    const WANTED: &'static str;
    /// Reads a value. `textual` values come from the environment or the command line.
    fn parse(value: &Value, textual: bool) -> Option<T>;
    /// The value in TOML.
    fn show(value: &T) -> String;
}

/// The value of `key` as a `K`: the one given, or else the default.
fn read_leaf<K: Leaf<T>, T>(fields: &mut Fields<'_>, key: &'static str) -> Option<T> {
    let parse = |node: &Node| K::parse(&node.value, node.origin.is_textual());
    let fallback = fields.default(key);
    let Some(given) = fields.given(key) else {
        let default = fallback.and_then(parse);
        if let (None, Some(node)) = (&default, fallback) {
            fields.problem(key, node, format!("must be given: {}", K::WANTED));
        }
        return default;
    };
    parse(given).or_else(|| {
        fields.problem(key, given, format!("must be {}", K::WANTED));
        fallback.and_then(parse)
    })
}

macro_rules! leaves {
    ($($kind:ty $(where $k:ident)?),+ $(,)?) => {
        $(impl<T $(, $k)?> Kind<T> for $kind where $kind: Leaf<T> {
            fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<T> {
                read_leaf::<Self, T>(fields, key)
            }

            fn write(value: &T, key: &'static str, out: &mut Lines) {
                out.value(key, <Self as Leaf<T>>::show(value));
            }
        })+
    };
}

leaves!(Json, TooSoon, Compatible, Text, FilePath, Address, Flag, Count, CountOrNone, Size, Time, Id, Class, Kept, Who, Listeners, WhoSignsUp, Transport, Encryption, Texts, Maybe<K> where K);

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Any text.
pub(super) struct Text;

impl Leaf<String> for Text {
    const WANTED: &'static str = "text in quotes";
    fn parse(value: &Value, _: bool) -> Option<String> {
        text(value).map(str::to_owned)
    }
    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// A path of the file system.
pub(super) struct FilePath;

impl Leaf<PathBuf> for FilePath {
    const WANTED: &'static str = "the path of a file, in quotes";
    fn parse(value: &Value, _: bool) -> Option<PathBuf> {
        text(value).map(PathBuf::from)
    }
    fn show(value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// An address to listen on.
pub(super) struct Address;

impl Leaf<SocketAddr> for Address {
    const WANTED: &'static str = "an IP address and a port, like \"127.0.0.1:8000\" or \"[::]:8000\"";
    fn parse(value: &Value, _: bool) -> Option<SocketAddr> {
        text(value)?.parse().ok()
    }
    fn show(value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }
}

/// Yes or no.
pub(super) struct Flag;

impl Leaf<bool> for Flag {
    const WANTED: &'static str = "true or false";
    fn parse(value: &Value, textual: bool) -> Option<bool> {
        match value {
            Value::Flag(flag) => Some(*flag),
            Value::Text(text) if textual => text.parse().ok(),
            _ => None,
        }
    }
    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number that the field's type can hold.
pub(super) struct Count;

impl<T: TryFrom<i64> + Display> Leaf<T> for Count {
    const WANTED: &'static str = "a whole number, not negative and not too large for this key";
    fn parse(value: &Value, textual: bool) -> Option<T> {
        let number = match value {
            Value::Integer(number) => *number,
            Value::Text(text) if textual => text.parse().ok()?,
            _ => return None,
        };
        T::try_from(number).ok()
    }
    fn show(value: &T) -> String {
        value.to_string()
    }
}

/// A whole number; 0 = none.
pub(super) struct CountOrNone;

impl Leaf<Option<u64>> for CountOrNone {
    const WANTED: &'static str = <Count as Leaf<u64>>::WANTED;
    fn parse(value: &Value, textual: bool) -> Option<Option<u64>> {
        <Count as Leaf<u64>>::parse(value, textual).map(|number| (number != 0).then_some(number))
    }
    fn show(value: &Option<u64>) -> String {
        value.unwrap_or(0).to_string()
    }
}

/// A number of bytes.
pub(super) struct Size;

impl<T: TryFrom<u64> + TryInto<u64> + Copy> Leaf<T> for Size {
    const WANTED: &'static str = "a size like \"64KiB\": a whole number with B, KiB, MiB, GiB or TiB";
    fn parse(value: &Value, _: bool) -> Option<T> {
        T::try_from(units::parse_size(text(value)?)?).ok()
    }
    fn show(value: &T) -> String {
        quoted(&units::format_size((*value).try_into().unwrap_or(u64::MAX)))
    }
}

/// A span of time.
pub(super) struct Time;

impl Leaf<Duration> for Time {
    const WANTED: &'static str =
        "a span of time like \"25s\" or \"1h30m\": whole numbers with d, h, m, s or ms";
    fn parse(value: &Value, _: bool) -> Option<Duration> {
        units::parse_time(text(value)?)
    }
    fn show(value: &Duration) -> String {
        quoted(&units::format_time(*value))
    }
}

/// The id of an app.
pub(super) struct Id;

impl Leaf<AppId> for Id {
    const WANTED: &'static str = "1 to 32 of a-z, 0-9, '-' and '_', starting with a letter or digit";
    fn parse(value: &Value, _: bool) -> Option<AppId> {
        AppId::new(text(value)?).ok()
    }
    fn show(value: &AppId) -> String {
        quoted(value.as_str())
    }
}

/// The name of a retention class.
pub(super) struct Class;

impl Leaf<ClassName> for Class {
    const WANTED: &'static str = "1 to 16 of a-z and 0-9";
    fn parse(value: &Value, _: bool) -> Option<ClassName> {
        // "none" would read as "no history" where a namespace names its class.
        text(value)
            .filter(|text| *text != NO_HISTORY)
            .and_then(ClassName::new)
    }
    fn show(value: &ClassName) -> String {
        quoted(value.as_str())
    }
}

const NO_HISTORY: &str = "none";

/// Where history is kept, if at all.
pub(super) struct Kept;

impl Leaf<History> for Kept {
    const WANTED: &'static str = "\"none\" or the name of a class of [[log.classes]]";
    fn parse(value: &Value, textual: bool) -> Option<History> {
        if text(value)? == NO_HISTORY {
            return Some(History::None);
        }
        Class::parse(value, textual).map(History::Class)
    }
    fn show(value: &History) -> String {
        match value {
            History::None => quoted(NO_HISTORY),
            History::Class(class) => quoted(class.as_str()),
        }
    }
}

/// A `K`, or nothing if the text is empty.
pub(super) struct Maybe<K>(PhantomData<K>);

impl<K: Leaf<T>, T> Leaf<Option<T>> for Maybe<K> {
    const WANTED: &'static str = K::WANTED;
    fn parse(value: &Value, textual: bool) -> Option<Option<T>> {
        match value {
            Value::Text(text) if text.is_empty() => Some(None),
            value => K::parse(value, textual).map(Some),
        }
    }
    fn show(value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| quoted(""), K::show)
    }
}

/// A list of texts; in the environment one text with commas between the elements.
pub(super) struct Texts;

impl Leaf<Vec<String>> for Texts {
    const WANTED: &'static str = "a list of texts, like [\"a\", \"b\"]";
    fn parse(value: &Value, textual: bool) -> Option<Vec<String>> {
        match value {
            Value::List(items) => items
                .iter()
                .map(|item| text(&item.value).map(str::to_owned))
                .collect(),
            Value::Text(text) if textual => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
            _ => None,
        }
    }
    fn show(value: &Vec<String>) -> String {
        let items: Vec<String> = value.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A table of its own.
pub(super) struct Inner;

impl<S: Section> Kind<S> for Inner {
    fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<S> {
        let default = fields.default(key)?;
        let Value::Table(defaults) = &default.value else {
            return None;
        };
        let nothing = Node {
            origin: default.origin.clone(),
            value: Value::Table(Table::new()),
        };
        let given = fields.given(key).unwrap_or(&nothing);
        fields.section(key, given, defaults)
    }

    fn write(value: &S, key: &'static str, out: &mut Lines) {
        out.table(key, value);
    }
}

/// A table that does nothing unless it is given.
pub(super) struct IfGiven;

impl<S: Section> Kind<Option<S>> for IfGiven {
    fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<Option<S>> {
        match fields.given(key) {
            Some(_) => <Inner as Kind<S>>::read(fields, key).map(Some),
            None => Some(None),
        }
    }

    fn write(value: &Option<S>, key: &'static str, out: &mut Lines) {
        if let Some(section) = value {
            out.table(key, section);
        }
    }
}

/// A list of tables. Each takes what it leaves out from the one table of the defaults, which with
/// `SHOWN` is also an element by itself if no list is given.
pub(super) struct Tables<const SHOWN: bool>;

impl<S: Section, const SHOWN: bool> Kind<Vec<S>> for Tables<SHOWN> {
    fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<Vec<S>> {
        let Value::List(defaults) = &fields.default(key)?.value else {
            return None;
        };
        let template = defaults.first()?;
        let Value::Table(defaults) = &template.value else {
            return None;
        };
        let Some(given) = fields.given(key) else {
            let shown = SHOWN.then(|| fields.section(key, template, &Table::new()));
            return shown.map_or(Some(Vec::new()), |element| element.map(|element| vec![element]));
        };
        let Value::List(items) = &given.value else {
            fields.problem(
                key,
                given,
                format!("must be a list of tables, each under [[{key}]]"),
            );
            return Some(Vec::new());
        };
        // An element that cannot be made is left out: its problems have been noted.
        let section = |(index, item)| fields.section(&format!("{key}[{index}]"), item, defaults);
        Some(items.iter().enumerate().filter_map(section).collect())
    }

    fn write(value: &Vec<S>, key: &'static str, out: &mut Lines) {
        for element in value {
            out.element(key, element);
        }
    }
}
