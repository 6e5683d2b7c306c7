//! From sources to a validated [`Config`].

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Config, ConfigErrors, Problem,
    fields::{Fields, Section},
    layers::{self, ENV_PREFIX, Origin, Table, Value},
    show::Lines,
    validate,
};

/// The annotated defaults: the first layer, and the documentation of every key.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// What a configuration is made from, the later over the earlier: the defaults, a file, the
/// environment, options of the command line. Injected, so that two nodes with different ones run in
/// one process.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file: its path, for messages, and its content.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables. Those named `SLIPSTREAM__SECTION__KEY` are used; elements of lists are
    /// numbered from 0 (`SLIPSTREAM__APPS__0__ID`).
    pub env: Vec<(String, String)>,
    /// Options of the command line: the path of a key (`http.listen`, `apps.0.id`) and its value.
    pub overrides: Vec<(String, String)>,
}

impl Config {
    /// Reads and validates all layers.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once. Values are never quoted, so that no secret can be.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let defaults = layers::parse(None, DEFAULTS, &mut problems);
        let given = given(sources, &mut problems);
        let mut fields = Fields::root(&given, &defaults, &mut problems);
        let config = Self::read(&mut fields);
        fields.refuse_unknown();
        let Some(config) = config else {
            // Unreachable with sound defaults (a test loads them), but then there is a problem too.
            ConfigErrors::check(problems)?;
            return Err(ConfigErrors::unsound_defaults());
        };
        let origins = origins(&given);
        validate::relations(&config, &origins, &mut problems);
        ConfigErrors::check(problems).map(|()| config)
    }

    /// Checks the relations between keys again, for a configuration that was changed in code.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut problems = Vec::new();
        validate::relations(self, &BTreeMap::new(), &mut problems);
        ConfigErrors::check(problems)
    }

    /// The effective configuration as TOML, secrets redacted: what `slipstream config show` prints.
    pub fn show(&self) -> String {
        let mut lines = Lines::default();
        self.write(&mut lines);
        lines.finish()
    }
}

/// All layers above the defaults as one tree.
fn given(sources: &Sources, problems: &mut Vec<Problem>) -> Table {
    let mut given = match &sources.file {
        Some((path, text)) => layers::parse(Some(path.as_path()), text, problems),
        None => Table::new(),
    };
    let env = sources.env.iter().filter_map(|(name, text)| {
        let path = name.strip_prefix(ENV_PREFIX)?;
        Some((
            path.to_ascii_lowercase(),
            Origin::Env(name.as_str().into()),
            text.as_str(),
        ))
    });
    let env: Vec<_> = env.collect();
    let split = env
        .iter()
        .map(|(path, origin, text)| (path.split("__").collect(), origin.clone(), *text));
    layers::lay_texts(&mut given, split, problems);
    let overrides = sources.overrides.iter();
    let split = overrides.map(|(path, text)| (path.split('.').collect(), Origin::Option, text.as_str()));
    layers::lay_texts(&mut given, split, problems);
    given
}

/// Where every value that was given comes from, by its path.
fn origins(given: &Table) -> BTreeMap<String, String> {
    fn visit(path: &str, value: &Value, all: &mut BTreeMap<String, String>) {
        match value {
            Value::Table(table) => {
                for (key, node) in table {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    all.extend(node.origin.name().map(|origin| (path.clone(), origin)));
                    visit(&path, &node.value, all);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    all.extend(item.origin.name().map(|origin| (path.clone(), origin)));
                    visit(&path, &item.value, all);
                }
            }
            _ => {}
        }
    }
    let mut all = BTreeMap::new();
    for (key, node) in given {
        all.extend(node.origin.name().map(|origin| (key.clone(), origin)));
        visit(key, &node.value, &mut all);
    }
    all
}

#[cfg(test)]
mod tests;
