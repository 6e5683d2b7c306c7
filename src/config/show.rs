//! Writing the effective configuration as TOML.

use std::fmt::{Display, Write};

use super::fields::Section;

/// A table being written: its own keys first and its tables behind them, as TOML wants it.
#[derive(Default)]
pub(super) struct Lines {
    path: String,
    keys: String,
    tables: String,
}

impl Lines {
    /// `key = value`, where `value` is TOML.
    pub(super) fn value(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.keys, "{key} = {value}");
    }

    /// The table `key`.
    pub(super) fn table(&mut self, key: &str, section: &impl Section) {
        self.nested(key, ("[", "]"), section);
    }

    /// One more element of the list of tables `key`.
    pub(super) fn element(&mut self, key: &str, section: &impl Section) {
        self.nested(key, ("[[", "]]"), section);
    }

    fn nested(&mut self, key: &str, (open, close): (&str, &str), section: &impl Section) {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        let mut lines = Self {
            path,
            ..Self::default()
        };
        section.write(&mut lines);
        let _ = write!(
            self.tables,
            "\n{open}{}{close}\n{}{}",
            lines.path, lines.keys, lines.tables
        );
    }

    /// The document.
    pub(super) fn finish(self) -> String {
        let text = self.keys + &self.tables;
        text.trim_start().to_owned()
    }
}

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            char if char.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}
