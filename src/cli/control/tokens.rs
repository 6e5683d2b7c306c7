//! Personal API tokens as they are shown.

use serde_json::Value;

use super::table::{Column, fields};

pub(super) const COLUMNS: &[Column] = &[
    ("id", "id"),
    ("name", "name"),
    ("account", "account"),
    ("team", "team"),
    ("scopes", "scopes"),
    ("made", "created_ms"),
    ("expires", "expires_ms"),
    ("used", "used_ms"),
];

/// One that was just made.
pub(super) fn made(token: &Value) -> String {
    let about = fields(
        token,
        &[
            ("id", "id"),
            ("name", "name"),
            ("scopes", "scopes"),
            ("expires", "expires_ms"),
            ("token", "token"),
        ],
    );
    format!("{about}the token is not shown again\n")
}
