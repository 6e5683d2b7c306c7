use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Stands where a secret has changed.
pub const HIDDEN: &str = "[hidden]";

/// The longest value that is kept whole, bytes of its JSON.
const MAX_VALUE: usize = 2048;

/// One thing that has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Where: names and indexes with dots between them.
    pub path: String,
    /// What it was; null if it was not there.
    pub old: Value,
    /// What it is; null if it is gone.
    pub new: Value,
}

impl Change {
    /// From `old` to `new`. What is very long is left out.
    pub fn new(path: &str, old: impl Into<Value>, new: impl Into<Value>) -> Self {
        Self {
            path: path.to_owned(),
            old: kept(old.into()),
            new: kept(new.into()),
        }
    }

    /// A secret has changed.
    pub fn hidden(path: &str) -> Self {
        Self::new(path, HIDDEN, HIDDEN)
    }
}

/// The value in a form that every store keeps: names in stored objects may not have just any characters, and
/// depth is bounded, so what is not simple is kept as text.
fn kept(value: Value) -> Value {
    let value = match value {
        value @ (Value::Object(_) | Value::Array(_)) => Value::String(value.to_string()),
        value => value,
    };
    match &value {
        Value::String(text) if text.len() > MAX_VALUE => Value::String(format!("({} bytes)", text.len())),
        _ => value,
    }
}

/// What differs between two documents, in the order of paths. What lies at a path that `secret` says yes to,
/// or below it, is hidden.
pub fn diff(old: &Value, new: &Value, secret: impl Fn(&str) -> bool) -> Vec<Change> {
    let mut changes = Vec::new();
    visit("", old, new, &secret, &mut changes);
    changes
}

fn visit(path: &str, old: &Value, new: &Value, secret: &dyn Fn(&str) -> bool, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    if !path.is_empty() && secret(path) {
        let shown = |value: &Value| {
            if value.is_null() {
                Value::Null
            } else {
                HIDDEN.into()
            }
        };
        changes.push(Change::new(path, shown(old), shown(new)));
        return;
    }
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    const NONE: &Value = &Value::Null;
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, was) in old {
                visit(&below(name), was, new.get(name).unwrap_or(NONE), secret, changes);
            }
            for (name, is) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                visit(&below(name), NONE, is, secret, changes);
            }
        }
        (Value::Object(old), Value::Null) => {
            for (name, was) in old {
                visit(&below(name), was, NONE, secret, changes);
            }
        }
        (Value::Null, Value::Object(new)) => {
            for (name, is) in new {
                visit(&below(name), NONE, is, secret, changes);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                let (was, is) = (old.get(at).unwrap_or(NONE), new.get(at).unwrap_or(NONE));
                visit(&below(&at.to_string()), was, is, secret, changes);
            }
        }
        _ => changes.push(Change::new(path, old.clone(), new.clone())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_by_path_without_secrets() {
        let old = json!({"name": "a", "auth": {"hmac": "s1", "url": null}, "list": [1, 2], "gone": {"x": 1}});
        let new =
            json!({"name": "b", "auth": {"hmac": "s2", "url": "u"}, "list": [1], "come": {"hmac": "s3"}});
        let secret = |path: &str| path.ends_with("hmac");
        let found = diff(&old, &new, secret);
        let rows: Vec<_> = found
            .iter()
            .map(|change| (change.path.as_str(), change.old.clone(), change.new.clone()))
            .collect();
        assert_eq!(
            rows,
            [
                ("auth.hmac", json!(HIDDEN), json!(HIDDEN)),
                ("auth.url", json!(null), json!("u")),
                ("gone.x", json!(1), json!(null)),
                ("list.1", json!(2), json!(null)),
                ("name", json!("a"), json!("b")),
                ("come.hmac", json!(null), json!(HIDDEN)),
            ]
        );
    }

    #[test]
    fn long_and_deep_values_become_text() {
        assert_eq!(Change::new("a", "x".repeat(3000), 1).old, json!("(3000 bytes)"));
        assert_eq!(
            Change::new("a", json!({"$b.c": [1]}), true).old,
            json!(r#"{"$b.c":[1]}"#)
        );
    }

    proptest! {
        #[test]
        fn no_secret_is_in_any_difference(a in "S[a-z]{8}", b in "T[a-z]{8}", deep: bool) {
            let of = |secret: &str| if deep { json!({"k": {"secret": {"v": [secret]}}}) } else { json!({"secret": secret}) };
            let changes = diff(&of(&a), &of(&b), |path| path.ends_with("secret"));
            let text = serde_json::to_string(&changes).unwrap();
            prop_assert!(changes.len() == 1 && !text.contains(&a) && !text.contains(&b));
        }
    }
}
