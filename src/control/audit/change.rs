use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Stands where a secret has changed.
pub const HIDDEN: &str = "[hidden]";

/// The longest value that is kept whole, bytes of its JSON.
const MAX_VALUE: usize = 2048;

/// One thing that has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_and_deep_values_become_text() {
        assert_eq!(Change::new("a", "x".repeat(3000), 1).old, json!("(3000 bytes)"));
        assert_eq!(
            Change::new("a", json!({"$b.c": [1]}), true).old,
            json!(r#"{"$b.c":[1]}"#)
        );
    }
}
