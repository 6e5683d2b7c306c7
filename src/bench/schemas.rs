//! What a unit of the work of validating a payload takes, in this process and without a network: for schemas
//! that are as costly as they can be, and for usual ones, of which the units are only an upper bound.

use std::{sync::Arc, time::Instant};

use serde_json::{Map, Value, json};

use super::{BenchError, args::SchemasArgs, report};
use crate::{model::SchemaVersion, schema::Schemas};

/// Values of a long list.
const ITEMS: usize = 30_000;

/// A name, a schema, a payload.
fn cases() -> Vec<(&'static str, Value, Value)> {
    let numbers: Value = (0..ITEMS).map(|n| json!(n % 10)).collect();
    let members = (0..5_000).map(|n| (format!("k{n}"), json!(n)));
    let members = Value::Object(members.collect());
    let repeated = |count: usize, schema: &dyn Fn(usize) -> Value| (0..count).map(schema).collect::<Value>();
    let patterns = |count: usize| -> Map<String, Value> {
        let pattern = |n| (format!("^k[0-9]*{n}x$"), json!(true));
        (0..count).map(pattern).collect()
    };
    let unevaluated =
        |n: usize| json!({"if": {"required": ["k1"]}, "then": {"properties": {format!("k{n}"): true}}});
    // As many states of the automaton as there are texts of that length.
    let text: String = (0_u64..60_000)
        .scan(1, |state: &mut u64, _| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(if *state >> 63 == 0 { 'a' } else { 'b' })
        })
        .collect();
    let message = json!({
        "type": "object",
        "required": ["id", "text"],
        "additionalProperties": false,
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9a-f-]{36}$"},
            "text": {"type": "string", "maxLength": 4_000},
            "tags": {"type": "array", "maxItems": 10, "uniqueItems": true, "items": {"enum": ["a", "b", "c"]}},
        },
    });
    vec![
        (
            "a chat message",
            message,
            json!({"id": "0".repeat(36), "text": "hello ".repeat(20), "tags": ["a", "b"]}),
        ),
        (
            "a list of numbers",
            json!({"items": {"type": "integer"}}),
            numbers.clone(),
        ),
        (
            "each of 100 keywords on each value",
            json!({"items": {"allOf": repeated(100, &|n| json!({"not": {"const": n + 100}}))}}),
            numbers.clone(),
        ),
        (
            "none of 10 lists",
            json!({"anyOf": repeated(10, &|_| json!({"items": {"minimum": 0, "maximum": 8}}))}),
            numbers.clone(),
        ),
        (
            "100 times contains, and the rest",
            json!({
                "allOf": repeated(100, &|n| json!({"contains": {"const": n + 20}, "minContains": 0})),
                "unevaluatedItems": {"type": "integer"},
            }),
            numbers,
        ),
        (
            "fractions of large numbers",
            json!({"items": {"allOf": repeated(10, &|_| json!({"multipleOf": 0.1}))}}),
            json!(vec![1e99; 3_000]),
        ),
        (
            "a list without repeats, chosen to have one hash",
            json!({"uniqueItems": true}),
            (0..ITEMS as u64).map(|n| json!(u64::MAX - n)).collect(),
        ),
        (
            "nothing, 500 times, and the rest",
            json!({"allOf": repeated(500, &|_| json!({})), "unevaluatedProperties": true}),
            members.clone(),
        ),
        (
            "20 levels, and the rest",
            json!({
                "allOf": [(0..20).fold(
                    json!({"patternProperties": patterns(20)}),
                    |inner, _| json!({"allOf": [inner]}),
                )],
                "unevaluatedProperties": true,
            }),
            members.clone(),
        ),
        (
            "one condition for 30, and the rest",
            json!({"not": {
                "unevaluatedProperties": false,
                "if": {"patternProperties": patterns(20)},
                "then": {"allOf": repeated(30, &|n| {
                    json!({"if": true, "then": {"properties": {format!("x{n}"): true}}})
                })},
            }}),
            members.clone(),
        ),
        (
            "100 patterns of names",
            json!({"patternProperties": patterns(100)}),
            members.clone(),
        ),
        (
            "100 conditions, and the rest",
            json!({"allOf": repeated(100, &unevaluated), "unevaluatedProperties": {"type": "integer"}}),
            members,
        ),
        ("a pattern", json!({"pattern": "^[a-z]*$"}), json!(text)),
        (
            "a pattern with 2^12 states",
            json!({"pattern": "^(a|b)*a(a|b){12}c"}),
            json!(text),
        ),
        (
            "a pattern with 2^100 states",
            json!({"pattern": "^(a|b)*a(a|b){100}c"}),
            json!(text),
        ),
        (
            "a pattern with 2^300 states",
            json!({"pattern": "^[ab]*a[ab]{300}c"}),
            json!(text),
        ),
    ]
}

/// `bench schemas`.
pub(crate) fn run(args: &SchemasArgs) -> Result<(), BenchError> {
    let mut rows = Vec::new();
    for (name, schema, payload) in cases() {
        let version = SchemaVersion {
            version: 1,
            schema: Arc::new(schema),
        };
        let refused = |why: String| BenchError::Usage(format!("{name}: {why}"));
        let began = Instant::now();
        let schemas = Schemas::new(&[version], None).map_err(|(_, why)| refused(why.to_string()))?;
        let compiled = began.elapsed();
        let schemas = schemas.ok_or_else(|| refused("no schema".to_owned()))?;
        let payload = payload.to_string();
        let check = schemas
            .read(payload.as_bytes(), 1)
            .map_err(|why| refused(why.to_string()))?;
        let mut times = Vec::new();
        for _ in 0..args.runs {
            let began = Instant::now();
            // Valid or not: what it takes is what counts.
            let _ = std::hint::black_box(check.run());
            times.push(began.elapsed());
        }
        times.sort_unstable();
        let (work, took) = (check.work(), times[times.len() / 2].as_secs_f64() * 1e9);
        let per_unit = took / work as f64;
        eprintln!(
            "{name}: {work} units, {:.3} ms, {per_unit:.2} ns a unit",
            took / 1e6
        );
        rows.push(json!({
            "schema": name,
            "compile_ms": report::round(compiled.as_secs_f64() * 1e3),
            "units": work,
            "ms": report::round(took / 1e6),
            "ns_per_unit": report::round(per_unit),
        }));
    }
    report::write_json(&json!({ "rows": rows }), args.json.as_deref())
}
