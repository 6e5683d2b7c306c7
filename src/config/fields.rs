//! Reading one table of settings: every key once, all problems noted, unknown keys refused.

use std::collections::BTreeSet;

use super::{
    Problem,
    layers::{Node, Table, Value},
};

/// A table of settings as a struct.
pub(super) trait Section: Sized {
    /// Reads every key. `None` if a key that has no default is wrong, so that there is nothing to
    /// put in its place.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
    /// Writes every key.
    fn write(&self, out: &mut super::show::Lines);
}

/// A way to write a value of type `T` in a table.
pub(super) trait Kind<T> {
    /// Reads the value of `key`. If it is wrong, the problem is noted and the default returned, so
    /// that relations with other keys can still be checked.
    fn read(fields: &mut Fields<'_>, key: &'static str) -> Option<T>;
    /// Writes the value under `key`.
    fn write(value: &T, key: &'static str, out: &mut super::show::Lines);
}

/// A table being read: what was given, and the same table of the defaults.
pub(super) struct Fields<'a> {
    given: &'a Table,
    defaults: &'a Table,
    path: String,
    known: BTreeSet<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// The whole configuration.
    pub(super) fn root(given: &'a Table, defaults: &'a Table, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            given,
            defaults,
            path: String::new(),
            known: BTreeSet::new(),
            problems,
        }
    }

    /// A table of its own, whose problems are told at `path`.
    pub(super) fn at(
        path: &str,
        given: &'a Table,
        defaults: &'a Table,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            ..Self::root(given, defaults, problems)
        }
    }

    /// Reads `key` as a `K`.
    pub(super) fn take<K: Kind<T>, T>(&mut self, key: &'static str) -> Option<T> {
        self.known.insert(key);
        K::read(self, key)
    }

    /// What was given for `key`.
    pub(super) fn given(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.insert(key);
        self.given.get(key)
    }

    /// What the defaults have for `key`.
    pub(super) fn default(&self, key: &str) -> Option<&'a Node> {
        self.defaults.get(key)
    }

    /// Notes that the value of `key`, or an element of it, is wrong.
    pub(super) fn problem(&mut self, key: &str, node: &Node, message: impl Into<String>) {
        let key = self.path(key);
        self.problems.push(Problem {
            key,
            origin: node.origin.name(),
            message: message.into(),
        });
    }

    /// Reads `node`, which was given for `key`, as a section whose defaults are in `defaults`.
    pub(super) fn section<S: Section>(&mut self, key: &str, node: &Node, defaults: &Table) -> Option<S> {
        let empty = Table::new();
        let given = match &node.value {
            Value::Table(table) => table,
            _ => {
                self.problem(key, node, "must be a table of keys");
                &empty
            }
        };
        let path = self.path(key);
        let mut fields = Fields {
            given,
            defaults,
            path,
            known: BTreeSet::new(),
            problems: self.problems,
        };
        let before = fields.problems.len();
        let section = S::read(&mut fields);
        fields.refuse_unknown();
        // A key that is wrong by its default is one that must be given: the table itself is named.
        for problem in &mut self.problems[before..] {
            if problem.origin.is_none() {
                problem.origin = node.origin.name();
            }
        }
        section
    }

    /// Refuses the keys that were given but never taken.
    pub(super) fn refuse_unknown(&mut self) {
        for (key, node) in self.given {
            if self.known.contains(key.as_str()) {
                continue;
            }
            let advice = match nearest(key, self.known.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None if self.path.is_empty() => "see docs/configuration.md for the sections".to_owned(),
                None => "see docs/configuration.md for the keys of this section".to_owned(),
            };
            let path = self.path(key);
            let message = format!("unknown key; {advice}");
            self.problems.push(Problem {
                key: path,
                origin: node.origin.name(),
                message,
            });
        }
    }

    fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// The word of `known` that `word` is most likely a misspelling of: at most a third of it differs.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The length bound keeps the work small whatever a file holds.
    let limit = (word.len() / 3).max(1);
    known
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= limit)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, dropped, replaced or swapped with their neighbour to get from
/// `a` to `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i.max(j)
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped {
                    rows[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_has_a_suggestion() {
        let known = ["ping_interval", "pong_timeout", "max_channels", "listen"];
        for (word, near) in [
            ("ping_intervall", Some("ping_interval")),
            ("pnig_interval", Some("ping_interval")),
            ("max-channels", Some("max_channels")),
            ("lisen", Some("listen")),
            ("timeout", None),
            ("x", None),
            (&"z".repeat(1000), None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), near, "{word}");
        }
    }
}
