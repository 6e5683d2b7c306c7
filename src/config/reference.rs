//! `docs/configuration.md`, made from `defaults.toml`; a test fails if it drifts.

use std::fmt::Write;

use super::DEFAULTS;

/// The page. A comment block above a `[section]` describes it, one above a key describes the key, and
/// the first block introduces the page.
fn page() -> String {
    let mut page = String::from(
        "<!-- Made from src/config/defaults.toml: change that, then run\n     \
         UPDATE_DOCS=1 cargo test --lib configuration_page -->\n# Configuration\n\n",
    );
    let mut comment = String::new();
    let mut introduced = false;
    let mut in_table = false;
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            let text = text.trim();
            comment.push_str(if text.is_empty() { "\n\n" } else { text });
            if !text.is_empty() {
                comment.push(' ');
            }
        } else if line.starts_with('[') {
            let _ = write!(page, "\n## `{line}`\n\n{}\n", comment.trim());
            comment.clear();
            in_table = false;
        } else if let Some((key, value)) = line.split_once(" = ") {
            if !in_table {
                page.push_str("\n| key | default | meaning |\n|---|---|---|\n");
                in_table = true;
            }
            let _ = writeln!(page, "| `{key}` | `{value}` | {} |", comment.trim());
            comment.clear();
        } else if !introduced && !comment.is_empty() {
            introduced = true;
            page.push_str(&introduction(&std::mem::take(&mut comment)));
        }
    }
    page
}

fn introduction(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    format!("{}\n{LAYERS}", lines.join("\n"))
}

const LAYERS: &str = "
## Layers

The later over the earlier:

1. the defaults below;
2. a file: `slipstream serve --config slipstream.toml`;
3. the environment: `SLIPSTREAM__SECTION__KEY`, for example `SLIPSTREAM__HTTP__LISTEN=0.0.0.0:8000`.
   Lists are written with commas. Elements of lists of tables are numbered from 0:
   `SLIPSTREAM__LOG__CLASSES__0__REPLICAS=3`, `SLIPSTREAM__APPS__0__AUTH__HMAC_SECRET=...`;
4. options of the command line.

A list replaces the list of the layer before it. Unknown keys are refused, and all problems are
reported at once. `slipstream config check` looks for problems and does nothing else; `slipstream
config show` prints what is in effect, with secrets redacted. A secret can stand in a file of its own:
`hmac_secret_file = \"/run/secrets/hmac\"` instead of `hmac_secret`, and the same for `password`,
`secret`, `token`, `url` of the store, `sealing_keys`, `session_secret`, `operator_key` and `api_keys`.
";

#[test]
fn configuration_page_is_what_the_defaults_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/configuration.md has drifted from defaults.toml: \
         run `UPDATE_DOCS=1 cargo test --lib configuration_page`"
    );
}

#[test]
fn every_key_and_section_has_a_comment() {
    let mut before = "";
    for line in DEFAULTS.lines() {
        if line.starts_with('[') || line.contains(" = ") && !line.starts_with('#') {
            assert!(before.starts_with("# "), "no comment above {line}");
        }
        before = line;
    }
}
