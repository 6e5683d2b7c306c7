//! Layers of settings as one tree in which every value knows where it comes from.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::Problem;

/// What variables of the environment start with; `__` stands between the parts of a key.
pub(super) const ENV_PREFIX: &str = "SLIPSTREAM__";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `defaults.toml`.
    Defaults,
    /// A file and a line in it.
    File(Arc<str>, usize),
    /// An environment variable, by its name.
    Env(Arc<str>),
    /// An option of the command line.
    Option,
    /// A document of the control plane.
    Document,
}

impl Origin {
    /// For messages: `None` for the defaults, which nobody has to look up.
    pub(super) fn name(&self) -> Option<String> {
        (*self != Self::Defaults).then(|| self.to_string())
    }

    /// Whether values are plain text, so that numbers, flags and lists are read out of it.
    pub(super) fn is_textual(&self) -> bool {
        matches!(self, Self::Env(_) | Self::Option)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("defaults"),
            Self::File(path, line) => write!(f, "{path}:{line}"),
            Self::Env(name) => f.write_str(name),
            Self::Option => f.write_str("command line"),
            Self::Document => f.write_str("document"),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What settings are made of. Dates are not used by any.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Table(Table),
    List(Vec<Node>),
    Text(String),
    Integer(i64),
    Flag(bool),
    /// Only within JSON schemas.
    Float(f64),
    /// Only within JSON schemas of documents.
    Null,
    Unusable,
}

/// Keys and their values.
pub(super) type Table = BTreeMap<String, Node>;

/// Reads a TOML document. All syntax errors are reported, with their lines and without quoting the
/// document, which may hold secrets.
pub(super) fn parse(name: Option<&Path>, text: &str, problems: &mut Vec<Problem>) -> Table {
    let name: Option<Arc<str>> = name.map(|path| path.display().to_string().into());
    let origin = |span: &Range<usize>| match &name {
        Some(name) => {
            let before = &text.as_bytes()[..span.start.min(text.len())];
            Origin::File(
                name.clone(),
                1 + before.iter().filter(|&&byte| byte == b'\n').count(),
            )
        }
        None => Origin::Defaults,
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        problems.push(Problem {
            key: String::new(),
            origin: origin(&error.span().unwrap_or(0..0)).name(),
            message: format!("not valid TOML: {}", error.message()),
        });
    }
    table(document.into_inner(), &origin)
}

fn table(table: DeTable<'_>, origin: &dyn Fn(&Range<usize>) -> Origin) -> Table {
    let entry = |(key, value): (
        toml::Spanned<std::borrow::Cow<'_, str>>,
        toml::Spanned<DeValue<'_>>,
    )| {
        let origin_of_entry = origin(&key.span());
        let node = Node {
            value: self::value(value.into_inner(), origin),
            origin: origin_of_entry,
        };
        (key.into_inner().into_owned(), node)
    };
    table.into_iter().map(entry).collect()
}

fn value(from: DeValue<'_>, origin: &dyn Fn(&Range<usize>) -> Origin) -> Value {
    match from {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Unusable, Value::Integer)
        }
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map_or(Value::Unusable, Value::Float),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| Node {
                    origin: origin(&item.span()),
                    value: value(item.into_inner(), origin),
                })
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(inner, origin)),
        _ => Value::Unusable,
    }
}

/// A part of the path to a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// An element of a list.
    Index(usize),
    /// A key of a table.
    Key(String),
}

/// Lays `settings` (paths and texts) over `base`. Paths may index lists by number, which may also
/// add the next element; they are sorted by number so that the order given does not matter.
pub(super) fn lay_texts<'a>(
    base: &mut Table,
    settings: impl Iterator<Item = (Vec<&'a str>, Origin, &'a str)>,
    problems: &mut Vec<Problem>,
) {
    let step = |part: &str| match part.parse() {
        Ok(index) => Step::Index(index),
        Err(_) => Step::Key(part.to_owned()),
    };
    let mut settings: Vec<(Vec<Step>, Origin, &str)> = settings
        .map(|(path, origin, text)| (path.into_iter().map(step).collect(), origin, text))
        .collect();
    settings.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, origin, text) in settings {
        let mut problem = |message: &str| {
            problems.push(Problem {
                key: dotted(&path),
                origin: origin.name(),
                message: message.to_owned(),
            });
        };
        let Some((Step::Key(last), walk)) = path.split_last() else {
            problem("names no key; write SECTION__KEY, and the number of an element before its keys");
            continue;
        };
        match descend(base, walk, &origin) {
            Ok(table) => {
                let node = Node {
                    value: Value::Text(text.to_owned()),
                    origin,
                };
                table.insert(last.clone(), node);
            }
            Err(message) => problem(message),
        }
    }
}

/// The table at `path`, made if it does not exist.
fn descend<'a>(base: &'a mut Table, path: &[Step], origin: &Origin) -> Result<&'a mut Table, &'static str> {
    let mut table = base;
    let mut steps = path.iter().peekable();
    while let Some(step) = steps.next() {
        let Step::Key(key) = step else {
            return Err("has a number where a key is wanted");
        };
        let listed = matches!(steps.peek(), Some(Step::Index(_)));
        let empty = || {
            if listed {
                Value::List(Vec::new())
            } else {
                Value::Table(Table::new())
            }
        };
        let node = table.entry(key.clone()).or_insert_with(|| Node {
            origin: origin.clone(),
            value: empty(),
        });
        table = match (&mut node.value, steps.peek()) {
            (Value::Table(inner), _) => inner,
            (Value::List(items), Some(Step::Index(index))) => {
                steps.next();
                if *index == items.len() {
                    items.push(Node {
                        origin: origin.clone(),
                        value: Value::Table(Table::new()),
                    });
                }
                match items.get_mut(*index).map(|item| &mut item.value) {
                    Some(Value::Table(inner)) => inner,
                    Some(_) => return Err("goes into a list of plain values; set the whole list"),
                    None => return Err("skips an element: elements are numbered from 0 without holes"),
                }
            }
            (Value::List(_), _) => return Err("goes into a list; write the number of the element"),
            _ => return Err("goes into a value that has no keys"),
        };
    }
    Ok(table)
}

fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        text = match step {
            Step::Index(index) => format!("{text}[{index}]"),
            Step::Key(key) if text.is_empty() => key.clone(),
            Step::Key(key) => format!("{text}.{key}"),
        };
    }
    text
}
