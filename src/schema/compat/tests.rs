use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Schemas;

fn version(version: u32, schema: &Value) -> SchemaVersion {
    SchemaVersion {
        version,
        schema: Arc::new(schema.clone()),
    }
}

/// Where `next` cannot be shown to read what `before` has written; `None` = it reads all of it.
fn backward(before: &Value, next: &Value) -> Option<String> {
    let checked = check(&version(1, before), &version(2, next), Compatibility::Backward);
    checked.err().map(|why| why.path)
}

#[test]
fn what_a_new_version_may_change() {
    let person = json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]});
    let closed =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false});
    for (before, next, backward_at, forward_at) in [
        (person.clone(), person.clone(), None, None),
        (json!(true), json!({}), None, None),
        (json!(false), person.clone(), None, Some("")),
        // Types.
        (
            json!({"type": "integer"}),
            json!({"type": "number"}),
            None,
            Some("/type"),
        ),
        (
            json!({"type": "string"}),
            json!({"type": ["string", "null"]}),
            None,
            Some("/type"),
        ),
        (json!({}), json!({"type": TYPES}), None, None),
        (
            json!({"enum": ["a"]}),
            json!({"enum": ["a", "b"]}),
            None,
            Some("/enum"),
        ),
        (
            json!({"const": 1}),
            json!({"type": "integer"}),
            None,
            Some("/const"),
        ),
        (
            json!({"enum": [1, 2.5]}),
            json!({"type": "integer"}),
            Some("/type"),
            Some("/enum"),
        ),
        // Bounds.
        (
            json!({"minimum": 1}),
            json!({"minimum": 0.5}),
            None,
            Some("/minimum"),
        ),
        (
            json!({"exclusiveMinimum": 1}),
            json!({"minimum": 1}),
            None,
            Some("/exclusiveMinimum"),
        ),
        (
            json!({"maximum": 1}),
            json!({"exclusiveMaximum": 1}),
            Some("/exclusiveMaximum"),
            None,
        ),
        (
            json!({"minimum": 9_007_199_254_740_993_u64}),
            json!({"minimum": 9_007_199_254_740_992.0}),
            Some("/minimum"),
            Some("/minimum"),
        ),
        (
            json!({"type": "string"}),
            json!({"minimum": 5}),
            None,
            Some("/type"),
        ),
        (
            json!({"maxLength": 5}),
            json!({"maxLength": 6}),
            None,
            Some("/maxLength"),
        ),
        (
            json!({"minItems": 2}),
            json!({"minItems": 1}),
            None,
            Some("/minItems"),
        ),
        (json!({}), json!({"minProperties": 0}), None, None),
        (
            json!({"uniqueItems": true}),
            json!({"uniqueItems": false}),
            None,
            Some("/uniqueItems"),
        ),
        // Objects.
        (
            person.clone(),
            json!({"type": "object"}),
            None,
            Some("/properties/name/type"),
        ),
        (
            json!({"required": ["a", "b"]}),
            json!({"required": ["a"]}),
            None,
            Some("/required"),
        ),
        // An open object may have had anything there.
        (
            json!({"type": "object"}),
            json!({"properties": {"a": {"type": "string"}}}),
            Some("/properties/a/type"),
            Some("/type"),
        ),
        (
            closed.clone(),
            json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "additionalProperties": false}),
            None,
            Some("/additionalProperties"),
        ),
        (
            closed.clone(),
            json!({"type": "object", "properties": {"a": {"type": "number"}}}),
            None,
            Some("/additionalProperties"),
        ),
        (
            json!({"patternProperties": {"^a": {"maximum": 1}}}),
            json!({"patternProperties": {"^a": {"maximum": 2}}}),
            None,
            Some("/patternProperties/^a/maximum"),
        ),
        (
            json!({"patternProperties": {"^a": {"maximum": 1}}, "additionalProperties": false}),
            json!({"properties": {"ab": {"maximum": 1}}}),
            Some("/properties/ab/maximum"),
            Some("/additionalProperties"),
        ),
        (
            json!({"properties": {"a/b": {"properties": {"c": {"maximum": 2}}}}}),
            json!({"properties": {"a/b": {"properties": {"c": {"maximum": 1}}}}}),
            Some("/properties/a~1b/properties/c/maximum"),
            None,
        ),
        // Lists.
        (
            json!({"items": {"maximum": 1}}),
            json!({"items": {"maximum": 2}}),
            None,
            Some("/items/maximum"),
        ),
        (
            json!({"prefixItems": [{"maximum": 1}], "items": {"maximum": 2}}),
            json!({"items": {"maximum": 2}}),
            None,
            Some("/prefixItems/0/maximum"),
        ),
        (
            json!({"prefixItems": [{"maximum": 3}], "items": {"maximum": 2}}),
            json!({"items": {"maximum": 2}}),
            Some("/items/maximum"),
            None,
        ),
        (
            json!({"prefixItems": [{"maximum": 1}]}),
            json!({"prefixItems": [true, {"maximum": 1}]}),
            Some("/prefixItems/1/maximum"),
            Some("/prefixItems/0/maximum"),
        ),
        // What cannot be decided must be the same.
        (
            json!({"pattern": "^a"}),
            json!({"pattern": "^a", "maxLength": 9}),
            Some("/maxLength"),
            None,
        ),
        (
            json!({"pattern": "^ab"}),
            json!({"pattern": "^a"}),
            Some("/pattern"),
            Some("/pattern"),
        ),
        (
            json!({"anyOf": [{"type": "string"}]}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            Some("/anyOf"),
            Some("/anyOf"),
        ),
        (
            json!({"contains": {"const": 1}, "minContains": 0}),
            json!({"contains": {"const": 1}}),
            Some("/contains"),
            Some("/contains"),
        ),
        (
            json!({"unevaluatedProperties": false}),
            json!({"unevaluatedProperties": false, "type": "object"}),
            Some("/type"),
            Some("/unevaluatedProperties"),
        ),
        // References are what they refer to.
        (
            json!({"$defs": {"a": {"maximum": 1}}, "items": {"$ref": "#/$defs/a"}}),
            json!({"$defs": {"a": {"maximum": 2}}, "items": {"$ref": "#/$defs/a"}}),
            None,
            Some("/items/maximum"),
        ),
        (
            json!({"$defs": {"a": {"maximum": 1}}, "not": {"$ref": "#/$defs/a"}}),
            json!({"$defs": {"a": {"maximum": 2}}, "not": {"$ref": "#/$defs/a"}}),
            Some("/not"),
            Some("/not"),
        ),
    ] {
        assert_eq!(
            backward(&before, &next).as_deref(),
            backward_at,
            "{before} -> {next}"
        );
        let full = check(&version(1, &before), &version(2, &next), Compatibility::Full);
        assert_eq!(
            full.is_ok(),
            backward_at.is_none() && forward_at.is_none(),
            "{before} -> {next}"
        );
        assert_eq!(
            backward(&next, &before).as_deref(),
            forward_at,
            "{next} -> {before}"
        );
        assert!(check(&version(1, &before), &version(2, &next), Compatibility::None).is_ok());
    }
}

#[test]
fn the_reason_says_which_way_and_where() {
    let (before, next) = (
        version(3, &json!({"maximum": 1})),
        version(4, &json!({"maximum": 2})),
    );
    let why = check(&before, &next, Compatibility::Full)
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("version 3") && why.contains("valid now") && why.contains("'/maximum'"),
        "{why}"
    );
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..4_i64).prop_map(Value::from),
        (-2..4_i64).prop_map(|number| Value::from(number as f64 / 2.0)),
        "[ab]{0,3}".prop_map(Value::from),
    ]
}

/// Payloads of the small world that the schemas are about.
fn payload() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn word() -> impl Strategy<Value = (&'static str, Value)> {
    let kinds = prop::sample::subsequence(
        vec![
            "array", "boolean", "integer", "null", "number", "object", "string",
        ],
        1..4,
    );
    let bounds = vec!["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
    let sizes = vec![
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    ];
    prop_oneof![
        3 => kinds.prop_map(|kinds| ("type", kinds.into())),
        1 => prop::collection::vec(scalar(), 1..4).prop_map(|values| ("enum", values.into())),
        1 => scalar().prop_map(|value| ("const", value)),
        2 => (prop::sample::select(bounds), -2..4_i64).prop_map(|(bound, value)| (bound, value.into())),
        2 => (prop::sample::select(sizes), 0..4_u64).prop_map(|(size, value)| (size, value.into())),
        1 => any::<bool>().prop_map(|unique| ("uniqueItems", unique.into())),
        1 => prop::sample::subsequence(vec!["a", "b", "c"], 0..3).prop_map(|names| ("required", names.into())),
        1 => Just(("pattern", "^a".into())),
        1 => Just(("multipleOf", 2.into())),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let object = |words: Vec<(&'static str, Value)>| {
        Value::Object(
            words
                .into_iter()
                .map(|(word, value)| (word.to_owned(), value))
                .collect(),
        )
    };
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Value::from),
        6 => prop::collection::vec(word(), 0..3).prop_map(object),
    ];
    leaf.prop_recursive(2, 24, 4, move |inner| {
        let named = |names: &'static str| {
            prop::collection::btree_map(names, inner.clone(), 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect()))
        };
        let list = prop::collection::vec(inner.clone(), 1..3).prop_map(Value::from);
        let schemas = prop_oneof![
            named("[abc]").prop_map(|value| ("properties", value)),
            named("\\^[ab]").prop_map(|value| ("patternProperties", value)),
            inner.clone().prop_map(|value| ("additionalProperties", value)),
            inner.clone().prop_map(|value| ("items", value)),
            list.clone().prop_map(|value| ("prefixItems", value)),
            list.clone().prop_map(|value| ("anyOf", value)),
            list.prop_map(|value| ("allOf", value)),
            inner.clone().prop_map(|value| ("not", value)),
            inner.clone().prop_map(|value| ("contains", value)),
            inner.clone().prop_map(|value| ("if", value)),
            inner.prop_map(|value| ("then", value)),
        ];
        prop::collection::vec(prop_oneof![word(), schemas.clone(), schemas], 1..5).prop_map(object)
    })
}

/// One that differs from a schema in little: without a keyword, or with another.
fn near() -> impl Strategy<Value = (Value, Value)> {
    (schema(), schema(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(one, other, at, adds)| {
        let mut changed = one.clone();
        if let (Value::Object(changed), Value::Object(other)) = (&mut changed, &other) {
            if adds {
                changed.extend(other.clone().into_iter().take(1));
            } else if !changed.is_empty() {
                let keyword = changed.keys().nth(at.index(changed.len())).unwrap().clone();
                changed.remove(&keyword);
            }
        }
        (one, changed)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_called_compatible_is(
        (old, new) in prop_oneof![near(), (schema(), schema())],
        payloads in prop::collection::vec(payload(), 40),
    ) {
        let (before, next) = (version(1, &old), version(2, &new));
        let both = Schemas::new(&[before.clone(), next.clone()], None).unwrap().unwrap();
        for (reader, writer, shown) in [
            (2, 1, check(&before, &next, Compatibility::Backward).is_ok()),
            (1, 2, check(&next, &before, Compatibility::Backward).is_ok()),
        ] {
            for payload in payloads.iter().map(|payload| payload.to_string()).filter(|_| shown) {
                let valid = |version| both.read(payload.as_bytes(), version).unwrap().run().is_ok();
                prop_assert!(
                    !valid(writer) || valid(reader),
                    "{} is valid by {} and not by {} ({} and {})", payload, writer, reader, old, new
                );
            }
        }
    }
}
