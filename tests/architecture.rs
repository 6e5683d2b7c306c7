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
    ("config", "model"),
    ("telemetry", "config model"),
    ("limits", "config model"),
    // Pure: wire formats.
    ("protocol", "model"),
    ("auth", "config model task telemetry"),
    ("log", "config model random task telemetry"),
    ("cluster", "config log model task telemetry"),
    (
        "channel",
        "auth config limits log model protocol random task telemetry",
    ),
    ("revocation", "auth config log model task telemetry"),
    ("presence", "channel cluster config log model task telemetry"),
