//! Versions of schemas as they are registered: what may become of those that are there.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::Reason;
use crate::{
    config::AppConfig,
    model::{Rule, SchemaVersion},
    schema::{self, Schemas},
};

/// Why an app with the settings `before` cannot have the schemas of `next`.
pub(super) fn check(before: &Value, next: &AppConfig) -> Vec<Reason> {
    let before = registered(before);
    let mut reasons = Vec::new();
    for (index, (name, rule)) in next.namespaces.iter().enumerate() {
        let path = format!("settings.namespaces[{index}].schemas");
        let before = before.get(name).map_or(&[][..], Vec::as_slice);
        let mut refuse = |key: &str, why: String| reasons.push(Reason::new(&format!("{path}{key}"), why));
        if let Err((version, why)) = Schemas::new(&rule.schemas, None) {
            refuse("", format!("version {version} cannot be used, {why}"));
            continue;
        }
        kept(before, rule, &mut refuse);
        added(before, rule, &mut refuse);
    }
    reasons
}

/// What publications are tagged with means the same for good, and the latest is what the next is compared with.
fn kept(before: &[SchemaVersion], rule: &Rule, refuse: &mut impl FnMut(&str, String)) {
    let latest = before.last().map(|latest| latest.version);
    for known in before {
        let version = known.version;
        let now = rule.schemas.iter().position(|now| now.version == version);
        match now {
            Some(at) if rule.schemas[at].schema != known.schema => {
                let why = format!("version {version} is registered and cannot be altered; add another");
                refuse(&format!("[{at}].schema"), why);
            }
            None if latest == Some(version) => {
                let why = format!("version {version} is the latest that is registered and cannot be removed");
                refuse("", why);
            }
            _ => {}
        }
    }
}

fn added(before: &[SchemaVersion], rule: &Rule, refuse: &mut impl FnMut(&str, String)) {
    let Some(latest) = before.last() else {
        return successors(&rule.schemas, 0, rule, refuse);
    };
    for (at, version) in rule.schemas.iter().enumerate() {
        let known = before.iter().any(|known| known.version == version.version);
        if !known && version.version < latest.version {
            let why = format!(
                "must be more than {}, the latest that is registered",
                latest.version
            );
            refuse(&format!("[{at}].version"), why);
        }
    }
    let at = rule
        .schemas
        .iter()
        .position(|known| known.version == latest.version);
    if let Some(at) = at {
        successors(&rule.schemas[at..], at, rule, refuse);
    }
}

/// Each goes with the one before it; the first is number `at` of all.
fn successors(versions: &[SchemaVersion], at: usize, rule: &Rule, refuse: &mut impl FnMut(&str, String)) {
    for (index, pair) in versions.windows(2).enumerate() {
        let [before, next] = pair else { continue };
        if let Err(why) = schema::check(before, next, rule.schema_compatibility) {
            refuse(&format!("[{}].schema", at + index + 1), why.to_string());
        }
    }
}

/// The schemas of settings as they are stored, by namespace. They may be of a time when other settings were
/// good, so nothing else is asked of them.
pub(in crate::control) fn registered(settings: &Value) -> BTreeMap<String, Vec<SchemaVersion>> {
    let list = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let version = |version: &Value| {
        let schema = match version.get("schema")? {
            Value::String(text) => serde_json::from_str(text).ok()?,
            schema => schema.clone(),
        };
        Some(SchemaVersion {
            version: version.get("version")?.as_u64()?.try_into().ok()?,
            schema: Arc::new(schema),
        })
    };
    let namespaces = list(settings, "namespaces").into_iter().map(|namespace| {
        let name = namespace.get("name").and_then(Value::as_str).unwrap_or_default();
        let versions = list(&namespace, "schemas");
        (name.to_owned(), versions.iter().filter_map(version).collect())
    });
    namespaces.collect()
}
