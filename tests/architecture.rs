//! Holds the direction of imports and a few habits, by reading the sources. docs/architecture.md has
//! the reasons.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What each top-level module may import of this crate: what is below it, never what is beside or
/// above it. A module that is not listed has no place yet.
const MODULES: &[(&str, &str)] = &[
    // Pure: what everything is made of.
    ("model", ""),
    // Small tools that any module above may use.
    ("random", ""),
    ("task", ""),
    // Pure: what payloads must be like.
    ("schema", "model"),
    ("config", "model schema"),
    ("seal", "config"),
    ("telemetry", "config model"),
    ("limits", "config model"),
    // Pure: wire formats.
    ("protocol", "model"),
    ("auth", "config model task telemetry"),
    ("log", "config model random task telemetry"),
    ("cluster", "config log model task telemetry"),
    ("store", "config model random task telemetry"),
    ("quota", "cluster config limits log model task telemetry"),
    (
        "channel",
        "auth config limits log model protocol quota random task telemetry",
    ),
    ("revocation", "auth config log model task telemetry"),
    (
        "presence",
        "channel cluster config limits log model protocol random task telemetry",
    ),
    // Pure: one connection's protocol state.
    ("session", "config log model protocol"),
    (
        "apps",
        "auth config limits log model quota schema session task telemetry",
    ),
    (
        "control",
        "apps auth config limits log model random schema seal store task telemetry",
    ),
    (
        "overflow",
        "apps channel config log model quota random task telemetry",
    ),
    (
        "publish",
        "apps channel config log model overflow protocol quota schema task telemetry",
    ),
    (
        "users",
        "channel cluster config log model protocol revocation session task telemetry",
    ),
    ("usage", "config log model store task telemetry"),
    ("survey", "channel cluster limits log model task telemetry users"),
    // The rim.
    (
        "edge",
        "apps auth channel config limits log model presence protocol publish quota random revocation session task telemetry users",
    ),
    (
        "api",
        "apps auth channel cluster config control limits log model overflow presence protocol publish quota random revocation schema seal store survey task telemetry usage users",
    ),
    (
        "bench",
        "apps cluster config limits log model presence protocol quota schema store task telemetry usage",
    ),
    // Knows everything below, and is known by the commands alone.
    (
        "app",
        "api apps auth channel cluster config control edge limits log model overflow presence protocol publish quota random revocation seal session store survey task telemetry usage users",
    ),
    ("dev", "app config model task"),
    (
        "cli",
        "app bench cluster config dev log model random store task telemetry",
    ),
    // They name the modules and use none.
    ("lib", ""),
    ("main", ""),
];

/// External crates that only some places may name.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("async_nats", &["log/nats", "bench"]),
    ("axum", &["api", "app", "edge"]),
    ("hyper", &["api", "app", "edge"]),
    ("hyper_util", &["api", "app", "edge"]),
    ("clap", &["bench", "cli"]),
    ("mio", &["bench"]),
    ("jsonschema", &["schema"]),
    ("argon2", &["control/password"]),
    ("lettre", &["control/mail"]),
    ("mongodb", &["store/mongo"]),
    ("rusqlite", &["store/sqlite"]),
    ("anyhow", &["bench", "main"]),
    ("toml", &["bench", "config"]),
];

/// Modules that decide and do nothing: no runtime, no sockets, no clock of their own.
const PURE: &[&str] = &["model", "protocol", "schema", "session"];

/// What pure modules never name.
const IMPURE: &[&str] = &[
    "async_nats",
    "axum",
    "hyper",
    "hyper_util",
    "mio",
    "reqwest",
    "rustix",
    "socket2",
    "tokio",
    "tokio_util",
];

/// Where tests may use a crate that the code beside them may not.
const TESTS_MAY: &[(&str, &str)] = &[("auth", "axum"), ("auth", "hyper"), ("auth", "hyper_util")];

const MAX_LINES: usize = 600;

struct Source {
    /// Below `src`, for example `log/nats/subject.rs`.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module.
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    fn is_below(&self, place: &str) -> bool {
        self.path
            .strip_prefix(place)
            .is_some_and(|rest| rest.starts_with(['/', '.']))
    }

    /// The text without comments.
    fn code(&self) -> String {
        let code = self.text.lines().map(|line| match line.find("//") {
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        });
        code.collect::<Vec<_>>().join("\n")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// The code that is not inside `mod tests { .. }`, which ends a file.
    fn code_without_tests(&self) -> String {
        let code = self.code();
        let end = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
        code[..end].to_owned()
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source {
                    path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What follows each `name::` in `code`.
fn after<'a>(code: &'a str, name: &str) -> Vec<&'a str> {
    let path = format!("{name}::");
    code.match_indices(&path)
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| is_word(c) || c == ':' || c == '$'))
        .map(|(at, _)| &code[at + path.len()..])
        .collect()
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// The modules of this crate that `code` names as `crate::module` or `crate::{module, ..}`.
fn imported(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in after(code, "crate") {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_word(rest).to_owned());
            continue;
        };
        let mut depth = 0_i32;
        let mut item = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    names.push(first_word(&group[item..at]).to_owned());
                    item = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    // Macros and constants of the crate's root are no modules.
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    names
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = "use crate::{\n  a::{x, y},\n  b,\n};\nuse crate::c::Z;\nlet d = crate::d::f(); $crate::e::m!(); crate::MACRO;";
    assert_eq!(imported(code), ["a", "b", "c", "d"]);
    assert_eq!(
        after("xtokio::a tokio::b my::tokio::c", "tokio"),
        ["b my::tokio::c"]
    );
}

#[test]
fn modules_import_downwards_only() {
    let allowed: BTreeMap<&str, &str> = MODULES.iter().copied().collect();
    let mut problems = Vec::new();
    for source in sources("src") {
        let module = source.module();
        let Some(allowed) = allowed.get(module) else {
            problems.push(format!(
                "{}: `{module}` has no place in the table of this test",
                source.path
            ));
            continue;
        };
        for name in imported(&source.code()) {
            if name != module && !allowed.split(' ').any(|allowed| allowed == name) {
                problems.push(format!("{}: `{module}` must not import `{name}`", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn the_table_has_no_cycle() {
    for (place, (module, imports)) in MODULES.iter().enumerate() {
        for import in imports.split_whitespace() {
            let below = MODULES[..place].iter().any(|(name, _)| *name == import);
            assert!(
                below,
                "`{module}` imports `{import}`, which is not above it in the table"
            );
        }
    }
}

#[test]
fn external_crates_are_named_where_they_belong() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let code = match source.is_test() {
            true => String::new(),
            false => source.code_without_tests(),
        };
        let all = source.code();
        for (name, places) in ONLY_IN {
            let exempt = TESTS_MAY.contains(&(source.module(), name));
            let code = if exempt { &code } else { &all };
            let here = places.iter().any(|place| source.is_below(place));
            if !here && !after(code, name).is_empty() {
                problems.push(format!("{}: `{name}` belongs into {places:?}", source.path));
            }
        }
        for name in IMPURE {
            if PURE.contains(&source.module()) && !after(&all, name).is_empty() {
                problems.push(format!("{}: a pure module names `{name}`", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn files_are_small_and_modules_have_modern_names() {
    let mut problems = Vec::new();
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            let lines = source.text.lines().count();
            if lines > MAX_LINES {
                problems.push(format!("{folder}/{}: {lines} lines", source.path));
            }
            if source.path.ends_with("mod.rs") {
                problems.push(format!("{folder}/{}: name it after the module", source.path));
            }
        }
    }
    report(&problems);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["#[ign", "ore"],
        ["unimple", "mented!"],
    ]
    .map(|parts| parts.concat());
    let mut problems = Vec::new();
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            for mark in marks.iter().filter(|mark| source.text.contains(mark.as_str())) {
                problems.push(format!("{folder}/{}: {mark}", source.path));
            }
        }
    }
    report(&problems);
}
