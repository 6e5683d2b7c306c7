//! Answers as people read them. Pure.
//!
//! Names come from other people: what would steer a terminal is shown as an escape.

use serde_json::Value;

use super::time;

/// A column: its title and the field that it shows.
pub(super) type Column = (&'static str, &'static str);

/// Stands where there is nothing.
const NOTHING: &str = "-";

/// A table of `items`, one line each.
pub(super) fn table(items: &[Value], columns: &[Column]) -> String {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned());
    let mut lines = vec![titles.collect::<Vec<_>>()];
    for item in items {
        let cells = columns.iter().map(|(_, field)| cell(field, find(item, field)));
        lines.push(cells.collect());
    }
    let right: Vec<bool> = columns
        .iter()
        .map(|(_, field)| {
            let mut cells = items.iter().map(|item| (field, find(item, field)));
            !items.is_empty() && cells.all(|(field, value)| is_number(field, value))
        })
        .collect();
    aligned(&lines, &right)
}

/// One thing: a line for each field that it has.
pub(super) fn fields(item: &Value, columns: &[Column]) -> String {
    let there = columns.iter().filter(|(_, field)| find(item, field).is_some());
    let lines: Vec<_> = there
        .map(|(title, field)| vec![(*title).to_owned(), cell(field, find(item, field))])
        .collect();
    aligned(&lines, &[false, false])
}

/// A table of whatever the items hold: objects within are taken apart, times come first.
pub(super) fn anything(items: &[Value]) -> String {
    let flat: Vec<Vec<(String, &Value)>> = items.iter().map(|item| flatten(item, "")).collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in flat.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let rank = |name: &str| match () {
        () if is_time(name) => 0,
        () if flat
            .iter()
            .flatten()
            .any(|(other, value)| other == name && !value.is_number()) =>
        {
            1
        }
        () => 2,
    };
    names.sort_by_key(|name| rank(name));
    let value = |row: &[(String, &Value)], name: &str| {
        let found = row.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| (*value).clone())
    };
    let mut lines = vec![names.iter().map(|name| plain(title(name))).collect::<Vec<_>>()];
    for row in &flat {
        let cells = names.iter().map(|name| cell(name, value(row, name).as_ref()));
        lines.push(cells.collect());
    }
    let right: Vec<bool> = names.iter().map(|name| rank(name) == 2).collect();
    aligned(&lines, &right)
}

/// Text in which nothing steers a terminal.
pub(super) fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// A value in one line. Fields with names in `_ms` are times.
pub(super) fn cell(field: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::Number(number)) => match (is_time(field), number.as_i64()) {
            (true, Some(ms)) => time::shown(ms),
            // The end of a key is in seconds.
            _ if field == "until" => time::shown(number.as_i64().unwrap_or(0).saturating_mul(1000)),
            _ => number.to_string(),
        },
        Some(Value::Bool(value)) => if *value { "yes" } else { "no" }.to_owned(),
        Some(Value::String(text)) if text.is_empty() => NOTHING.to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Array(items)) if items.is_empty() => NOTHING.to_owned(),
        Some(Value::Array(items)) => {
            let items = items.iter().map(|item| cell("", Some(item)));
            items.collect::<Vec<_>>().join(",")
        }
        Some(object) => plain(&object.to_string()),
    }
}

fn is_time(field: &str) -> bool {
    field.ends_with("_ms")
}

fn is_number(field: &str, value: Option<&Value>) -> bool {
    !is_time(field) && field != "until" && value.is_none_or(|value| value.is_number() || value.is_null())
}

/// The title of a column that is made up from a field.
fn title(field: &str) -> &str {
    field.strip_suffix("_ms").unwrap_or(field)
}

/// A field, also of an object within: `a.b`.
fn find<'a>(item: &'a Value, field: &str) -> Option<&'a Value> {
    field.split('.').try_fold(item, |item, name| item.get(name))
}

fn flatten<'a>(item: &'a Value, prefix: &str) -> Vec<(String, &'a Value)> {
    let Value::Object(object) = item else {
        let name = if prefix.is_empty() { "value" } else { prefix };
        return vec![(name.to_owned(), item)];
    };
    let name = |field: &str| match prefix {
        "" => field.to_owned(),
        prefix => format!("{prefix}.{field}"),
    };
    let fields = object
        .iter()
        .flat_map(|(field, value)| flatten(value, &name(field)));
    fields.collect()
}

fn aligned(lines: &[Vec<String>], right: &[bool]) -> String {
    let mut widths = vec![0; right.len()];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for ((cell, width), right) in line.iter().zip(&widths).zip(right) {
            match right {
                true => text.push_str(&format!("{cell:>width$}  ")),
                false => text.push_str(&format!("{cell:<width$}  ")),
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let items = [
            json!({"id": "a", "name": "Shöp", "members": 12, "created_ms": 0, "roles": ["x", "y"]}),
            json!({"id": "bcd", "name": "x", "members": 3, "created_ms": 60_000, "roles": [], "open": true}),
        ];
        let columns = [
            ("id", "id"),
            ("name", "name"),
            ("members", "members"),
            ("created", "created_ms"),
            ("roles", "roles"),
            ("open", "open"),
        ];
        assert_eq!(
            table(&items, &columns),
            "id   name  members  created           roles  open\n\
             a    Shöp       12  1970-01-01 00:00  x,y    -\n\
             bcd  x           3  1970-01-01 00:01  -      yes\n"
        );
        assert_eq!(table(&[], &columns[..2]), "id  name\n");
    }

    #[test]
    fn one_thing_has_a_line_for_each_field() {
        let item = json!({"id": "a", "plan": null, "quotas": {"channels": 5}, "until": 60});
        let columns = [
            ("id", "id"),
            ("plan", "plan"),
            ("channels", "quotas.channels"),
            ("good until", "until"),
            ("none", "none"),
        ];
        assert_eq!(
            fields(&item, &columns),
            "id          a\nplan        -\nchannels    5\ngood until  1970-01-01 00:01\n"
        );
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let hostile = json!({"name": "a\u{1b}[31mb\nc\u{202e}d\u{9b}"});
        assert_eq!(
            fields(&hostile, &[("name", "name")]),
            "name  a\\u{1b}[31mb\\nc\\u{202e}d\\u{9b}\n"
        );
        let hostile = json!({"\u{1b}": 1});
        assert_eq!(anything(&[hostile]), "\\u{1b}\n     1\n");
    }

    #[test]
    fn whatever_there_is_becomes_a_table() {
        let items = [
            json!({"connections": {"peak": 7}, "bytes": 10, "namespace": "a", "from_ms": 0}),
            json!({"connections": {"peak": 12}, "from_ms": 60_000, "errors": 1.5}),
        ];
        assert_eq!(
            anything(&items),
            "from              namespace  bytes  connections.peak  errors\n\
             1970-01-01 00:00  a             10                 7       -\n\
             1970-01-01 00:01  -              -                12     1.5\n"
        );
        assert_eq!(anything(&[]), "\n");
    }
}
