use serde_json::Value;

use crate::control::audit::Change;

/// What `new` has otherwise than `old`, in the order of paths. Elements of lists of objects are compared by
/// their `id`, or by their `name`, where all have one: so that one more in front is one difference. Other lists
/// are values.
pub fn diff(old: &Value, new: &Value) -> Vec<Change> {
    let mut all = Vec::new();
    compare("", Some(old), Some(new), &mut all);
    all
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, all: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let (before, after) = (old.and_then(entries), new.and_then(entries));
    // What is there on one side only is told whole if it is a value, and by its parts if it has some.
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (Some(before), None) if new.is_none() && !before.is_empty() => (before, Vec::new()),
        (None, Some(after)) if old.is_none() && !after.is_empty() => (Vec::new(), after),
        _ => {
            let value = |value: Option<&Value>| value.cloned().unwrap_or_default();
            all.push(Change::new(path, value(old), value(new)));
            return;
        }
    };
    let mut keys: Vec<_> = before.iter().chain(&after).map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    let of = |entries: &[(String, &Value)], key: &str| -> Option<Value> {
        let found = entries.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| (*value).clone())
    };
    for key in keys {
        let path = match (path, key.starts_with('[')) {
            ("", _) | (_, true) => format!("{path}{key}"),
            (path, false) => format!("{path}.{key}"),
        };
        let (old, new) = (of(&before, key), of(&after, key));
        compare(&path, old.as_ref(), new.as_ref(), all);
    }
}

/// The parts of an object, or of a list whose elements have names.
fn entries(value: &Value) -> Option<Vec<(String, &Value)>> {
    match value {
        Value::Object(object) => Some(object.iter().map(|(key, value)| (key.clone(), value)).collect()),
        Value::Array(items) if !items.is_empty() => {
            let named = ["id", "name"].iter().find_map(|by| {
                let names = items.iter().map(|item| Some((item.get(by)?.as_str()?, item)));
                names.collect::<Option<Vec<_>>>()
            })?;
            let mut names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            names.dedup();
            // Of the same name twice it could not be told which is which.
            (names.len() == items.len()).then(|| {
                let named = named.into_iter();
                named.map(|(name, item)| (format!("[{name}]"), item)).collect()
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(old: &Value, new: &Value) -> Vec<(String, Value, Value)> {
        let all = diff(old, new).into_iter();
        all.map(|it| (it.path, it.old, it.new)).collect()
    }

    #[test]
    fn each_change_has_its_path() {
        let old = json!({
            "anonymous": true,
            "limits": {"publish_rate": 1, "max_channels": 2},
            "allowed_origins": ["a"],
            "namespaces": [{"name": "chat", "rate": 1}, {"name": "gone"}],
        });
        let new = json!({
            "limits": {"publish_rate": 5, "max_channels": 2},
            "allowed_origins": ["a", "b"],
            "namespaces": [{"name": "new", "rate": 3}, {"name": "chat", "rate": 2}],
            "auth": {"leeway": "1s"},
        });
        assert_eq!(
            told(&old, &new),
            [
                (
                    "allowed_origins".to_owned(),
                    json!("[\"a\"]"),
                    json!("[\"a\",\"b\"]")
                ),
                ("anonymous".to_owned(), json!(true), Value::Null),
                ("auth.leeway".to_owned(), Value::Null, json!("1s")),
                ("limits.publish_rate".to_owned(), json!(1), json!(5)),
                ("namespaces[chat].rate".to_owned(), json!(1), json!(2)),
                ("namespaces[gone].name".to_owned(), json!("gone"), Value::Null),
                ("namespaces[new].name".to_owned(), Value::Null, json!("new")),
                ("namespaces[new].rate".to_owned(), Value::Null, json!(3)),
            ]
        );
        assert_eq!(told(&old, &old), []);
    }

    #[test]
    fn what_has_no_parts_is_told_whole() {
        for (old, new) in [
            (json!({"a": 1}), json!({"a": {"b": 1}})),
            (json!({"a": []}), json!({"a": [1]})),
            (json!({"a": {}}), json!({})),
            (
                json!({"a": [{"name": "x"}, {"name": "x"}]}),
                json!({"a": [{"name": "x"}]}),
            ),
        ] {
            let told = told(&old, &new);
            assert_eq!(told.len(), 1, "{told:?}");
            assert_eq!(told[0].0, "a");
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(1)),
            Just(json!(2)),
            Just(json!("x")),
            Just(json!(true)),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                prop::collection::btree_map("[a-c]", inner.clone(), 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
                prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| {
                    let named = map
                        .into_iter()
                        .map(|(name, value)| json!({"name": name, "of": value}));
                    Value::Array(named.collect())
                }),
            ]
        })
    }

    proptest! {
        /// No difference without a change, no change without a difference (the order of named elements is
        /// none), and the other way round it is the same with old and new exchanged.
        #[test]
        fn it_tells_all(old in json_value(), new in json_value()) {
            let there = diff(&old, &new);
            prop_assert_eq!(diff(&old, &old), []);
            if old == new {
                prop_assert_eq!(&there, &[]);
            }
            let back: Vec<_> = diff(&new, &old)
                .into_iter()
                .map(|it| Change { path: it.path, old: it.new, new: it.old })
                .collect();
            prop_assert_eq!(there, back);
        }
    }
}
