//! Holds the lists of `deny.toml` (bans, licences, sources) with nothing but cargo itself, so that
//! they count on every machine. Building cargo-deny takes longer than everything else together.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use serde::Deserialize;

const CRATES_IO: &str = "https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
    allow_registry: Vec<String>,
}

fn deny() -> Deny {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    toml::from_str(&text).expect("deny.toml has the tables this test reads")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A package that is really built, on whatever platform.
struct Package {
    name: String,
    /// Empty if it comes from the registry.
    elsewhere: String,
    license: String,
}

fn packages() -> Vec<Package> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--target", "all", "--edges", "all"])
        .args(["--prefix", "none", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: BTreeSet<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        // What was listed before is marked, and not descended into again.
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect();
    let parse = |line: &String| {
        let (package, license) = line.split_once('|')?;
        let mut words = package.splitn(3, ' ');
        let name = words.next()?.to_owned();
        let _version = words.next()?;
        let elsewhere = words.next().unwrap_or_default().replace("(proc-macro)", "");
        let elsewhere = elsewhere.trim().to_owned();
        Some(Package {
            name,
            elsewhere,
            license: license.to_owned(),
        })
    };
    lines
        .iter()
        .filter_map(parse)
        .filter(|package| package.name != env!("CARGO_PKG_NAME"))
        .collect()
}

/// Whether a licence expression (SPDX, or the old `A/B`) can be met with the allowed licences.
fn permitted(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut tokens: Vec<&str> = spaced.split_whitespace().rev().collect();
    let met = any_of(&mut tokens, allowed);
    met && tokens.is_empty()
}

fn any_of(tokens: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(tokens, allowed);
    while tokens.pop_if(|token| *token == "OR").is_some() {
        met |= all_of(tokens, allowed);
    }
    met
}

fn all_of(tokens: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(tokens, allowed);
    while tokens.pop_if(|token| *token == "AND").is_some() {
        met &= one(tokens, allowed);
    }
    met
}

fn one(tokens: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    match tokens.pop() {
        Some("(") => any_of(tokens, allowed) && tokens.pop() == Some(")"),
        Some(license) => {
            let mut license = license.to_owned();
            if tokens.pop_if(|token| *token == "WITH").is_some() {
                license = format!("{license} WITH {}", tokens.pop().unwrap_or_default());
            }
            allowed.contains(&license)
        }
        None => false,
    }
}

#[test]
fn a_licence_expression_is_read_as_spdx_has_it() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned));
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND ISC", true),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND BSL-1.0", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("Apache-2.0", false),
        ("", false),
        ("MIT ISC", false),
    ] {
        assert_eq!(permitted(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn every_dependency_may_be_one() {
    let deny = deny();
    let registry = [CRATES_IO.to_owned()];
    assert_eq!(
        deny.sources.allow_registry, registry,
        "this test knows one registry"
    );
    assert_eq!(
        [&*deny.sources.unknown_registry, &*deny.sources.unknown_git],
        ["deny", "deny"]
    );

    let packages = packages();
    assert!(packages.len() > 50, "cargo tree lists the dependencies");
    let mut problems = Vec::new();
    for package in &packages {
        let name = &package.name;
        if let Some(ban) = deny.bans.deny.iter().find(|ban| ban.name == *name) {
            problems.push(format!("{name} is banned: {}", ban.reason));
        }
        if !permitted(&package.license, &deny.licenses.allow) {
            problems.push(format!("{name} has the licence {:?}", package.license));
        }
        if !package.elsewhere.is_empty() {
            problems.push(format!("{name} comes from {}", package.elsewhere));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_dependency_has_a_reason() {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Manifest {
        dependencies: toml::Table,
        dev_dependencies: toml::Table,
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: Manifest = toml::from_str(&manifest).unwrap();
    let declared: BTreeSet<&str> = manifest
        .dependencies
        .keys()
        .chain(manifest.dev_dependencies.keys())
        .map(String::as_str)
        .collect();
    let decisions = fs::read_to_string(root().join("docs/decisions.md")).unwrap();
    let explained: BTreeSet<&str> = decisions
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        declared, explained,
        "Cargo.toml and the table in docs/decisions.md"
    );
}
