//! JSON in settings.

use std::sync::Arc;

use serde_json::Value as Any;

use super::{Leaf, Node, Value, quoted};

/// A JSON object, true or false: as it is, or written in a text.
pub(in crate::config) struct Json;

impl Leaf<Arc<Any>> for Json {
    const WANTED: &'static str = "a JSON schema: a table, or a text with a JSON object";
    fn parse(value: &Value, _: bool) -> Option<Arc<Any>> {
        let json = match value {
            Value::Text(text) => serde_json::from_str(text).ok()?,
            value => json(value)?,
        };
        matches!(json, Any::Object(_) | Any::Bool(_)).then(|| Arc::new(json))
    }
    fn show(value: &Arc<Any>) -> String {
        quoted(&value.to_string())
    }
}

fn json(value: &Value) -> Option<Any> {
    let of_node = |node: &Node| json(&node.value);
    Some(match value {
        Value::Table(entries) => {
            let entries = entries.iter();
            Any::Object(
                entries
                    .map(|(key, node)| Some((key.clone(), of_node(node)?)))
                    .collect::<Option<_>>()?,
            )
        }
        Value::List(items) => Any::Array(items.iter().map(of_node).collect::<Option<_>>()?),
        Value::Text(text) => Any::String(text.clone()),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => Any::Number(serde_json::Number::from_f64(*number)?),
        Value::Flag(flag) => Any::Bool(*flag),
        Value::Null => Any::Null,
        Value::Unusable => return None,
    })
}
