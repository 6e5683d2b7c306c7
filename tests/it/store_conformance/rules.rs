use proptest::{
    collection::{btree_map, vec},
    prelude::{Just, Strategy, any, prop_oneof},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::{Map, Value, json};
use slipstream::store::{Addition, Collection, Document, Draft, Query, StoreError};

use super::places::{PLAIN, Place, UNIQUE, addition, draft, get, insert, with_body, with_keys, with_unique};

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }))
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// What the rules refuse: whatever the implementation, and before anything is sent.
pub(super) async fn what_cannot_be_kept_is_refused(place: &Place) {
    let store = place.open().await;
    let (id201, key301, huge) = (long(201), long(301), long(1 << 20));
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    let drafts = [
        (PLAIN, "", draft(1)),
        (PLAIN, &*id201, draft(1)),
        (PLAIN, "a\nb", draft(1)),
        (PLAIN, "a\u{85}", draft(1)),
        (PLAIN, "a", with_keys(&[""])),
        (PLAIN, "a", with_keys(&["ok", "a\tb"])),
        (PLAIN, "a", with_keys(&[&key301])),
        (
            PLAIN,
            "a",
            Draft {
                keys: many,
                ..draft(1)
            },
        ),
        (PLAIN, "a", with_unique("no unique values here")),
        (UNIQUE, "a", draft(1)),
        (UNIQUE, "a", with_unique("")),
        (UNIQUE, "a", with_unique("a\0")),
        (UNIQUE, "a", with_unique(&key301)),
        (PLAIN, "a", with_body(json!([]))),
        (PLAIN, "a", with_body(json!("text"))),
        (PLAIN, "a", with_body(json!({ "": 1 }))),
        (PLAIN, "a", with_body(json!({ "$set": 1 }))),
        (PLAIN, "a", with_body(json!({ "a.b": 1 }))),
        (PLAIN, "a", with_body(json!({ "a": [{ "b\0": 1 }] }))),
        (PLAIN, "a", with_body(json!({ "n": i64::MAX as u64 + 1 }))),
        (PLAIN, "a", with_body(json!({ "n": [u64::MAX] }))),
        (PLAIN, "a", with_body(nested(33))),
        (PLAIN, "a", with_body(json!({ "text": huge }))),
    ];
    for (collection, id, draft) in drafts {
        let shown = format!("{collection:?} {:.20} {:.60?}", id, draft);
        let inserted = store.insert(collection, id, draft.clone()).await;
        assert!(
            matches!(inserted, Err(StoreError::Invalid(_))),
            "{shown}: {inserted:?}"
        );
        let replaced = store.replace(collection, id, 1, draft).await;
        assert!(
            matches!(replaced, Err(StoreError::Invalid(_))),
            "{shown}: {replaced:?}"
        );
    }
    let both = Addition {
        peaks: [("n".to_owned(), 1)].into(),
        ..addition("a", 1, &[("n", 1)])
    };
    let additions = [
        (Collection::Usage, "", addition("a", 1, &[])),
        (Collection::Usage, "u", addition("", 1, &[])),
        (Collection::Usage, "u", addition("a.b", 1, &[])),
        (Collection::Usage, "u", addition(&long(65), 1, &[])),
        (Collection::Usage, "u", addition("a", 0, &[])),
        (Collection::Usage, "u", addition("a", 1, &[("", 1)])),
        (Collection::Usage, "u", addition("a", 1, &[("a-b", 1)])),
        (Collection::Usage, "u", addition("a", 1, &[("$n", 1)])),
        (Collection::Usage, "u", both),
        (UNIQUE, "u", addition("a", 1, &[])),
    ];
    for (collection, id, addition) in additions {
        let shown = format!("{addition:?}");
        let added = store.add(collection, id, addition).await;
        assert!(matches!(added, Err(StoreError::Invalid(_))), "{shown}: {added:?}");
    }
    let sound = Document {
        id: "a".to_owned(),
        revision: 1,
        unique: None,
        keys: Vec::new(),
        expires_ms: None,
        body: json!({}),
        numbers: Default::default(),
        added: Default::default(),
    };
    let changes: [fn(&mut Document); 5] = [
        |document| document.revision = 0,
        |document| document.revision = u64::MAX,
        |document| document.body = json!(null),
        |document| document.numbers = [("a.b".to_owned(), 1)].into(),
        |document| document.added = [("a".to_owned(), 0)].into(),
    ];
    for change in changes {
        let mut document = sound.clone();
        change(&mut document);
        let put = store.put(PLAIN, document.clone()).await;
        assert!(
            matches!(put, Err(StoreError::Invalid(_))),
            "{document:?}: {put:?}"
        );
    }
    for limit in [0, 1_001] {
        let query = Query {
            limit,
            ..Query::default()
        };
        let listed = store.list(PLAIN, query).await;
        assert!(
            matches!(listed, Err(StoreError::Invalid(_))),
            "{limit}: {listed:?}"
        );
        let swept = store.sweep(PLAIN, 0, limit).await;
        assert!(matches!(swept, Err(StoreError::Invalid(_))), "{limit}: {swept:?}");
    }
    for collection in [PLAIN, UNIQUE, Collection::Usage] {
        assert_eq!(store.count(collection).await.unwrap(), 0);
    }
    // And what is just allowed is kept.
    let most = Draft {
        keys: (0..1_000).map(|n| format!("{n:0>300}")).collect(),
        ..with_body(json!({ "deep": nested(31), "text": long((1 << 20) - 1_000) }))
    };
    insert(&*store, PLAIN, &long(200), most.clone()).await;
    let stored = get(&*store, PLAIN, &long(200)).await;
    assert_eq!((stored.keys, stored.body), (most.keys, most.body));
}

/// Any JSON that the rules allow.
fn json_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no others", |n| n.is_finite())
            .prop_map(Value::from),
        (-1_000_i32..1_000).prop_map(|n| Value::from(f64::from(n))),
        prop_oneof![
            Just(i64::MAX),
            Just(i64::MIN),
            Just(0),
            Just(i64::from(i32::MAX) + 1)
        ]
        .prop_map(Value::from),
        prop_oneof![
            Just(f64::MAX),
            Just(f64::MIN_POSITIVE),
            Just(5e-324),
            Just(-0.0),
            Just(0.1 + 0.2)
        ]
        .prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any::<String>().prop_map(Value::from),
        Just(Value::from("a\0b\u{ffff}\u{10ffff}\"\\")),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(name(), inner, 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    let sound = |name: &String| !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0']);
    prop_oneof![
        any::<String>().prop_filter("not kept", sound),
        prop_oneof![
            Just("_id"),
            Just("0"),
            Just("id"),
            Just("__proto__"),
            Just("a$"),
            Just(" ")
        ]
        .prop_map(str::to_owned),
    ]
}

/// Whether two values are the same, floats by their bits but for the sign of 0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a.is_f64() == b.is_f64()
                && a == b
                && a.as_f64().map(f64::abs).map(f64::to_bits) == b.as_f64().map(f64::abs).map(f64::to_bits)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

pub(super) async fn json_comes_back_equal(place: &Place) {
    let store = place.open().await;
    let mut runner = TestRunner::deterministic();
    let bodies = btree_map(name(), json_value(), 0..6);
    for n in 0..150 {
        let body: Map<String, Value> = bodies
            .new_tree(&mut runner)
            .unwrap()
            .current()
            .into_iter()
            .collect();
        let body = Value::Object(body);
        let id = format!("json-{n}");
        insert(&*store, PLAIN, &id, with_body(body.clone())).await;
        let stored = get(&*store, PLAIN, &id).await.body;
        assert!(same(&stored, &body), "{body}\n{stored}");
    }
}
