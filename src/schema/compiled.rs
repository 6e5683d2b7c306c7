use std::{collections::HashMap, fmt, sync::Arc};

use jsonschema::{Draft, Keyword, PatternOptions, Regex, ValidationError, Validator, paths::Location};
use serde_json::{Map, Value, json};

use super::{
    Unusable,
    cost::{Cost, Payload},
    expand,
    unique::is_unique,
};
use crate::model::SchemaVersion;

/// What one pattern may take of memory, as a program and as its cache, bytes.
const PATTERN_BYTES: usize = 64 * 1024;

/// Of the sizes that patterns are told apart by, 2 to the power of the smallest and of the largest: a byte is held
/// against each state of a program, in the end.
const PATTERN_SIZES: [u32; 2] = [10, PATTERN_BYTES.ilog2()];

/// Bytes of a program to which 16 bytes of text are a unit.
const PATTERN_UNIT: u64 = 8;

/// The longest path that is told, bytes: its names are the publisher's.
const MAX_POINTER: usize = 200;

/// The schemas of a namespace, ready for use. At least one.
#[derive(Clone)]
pub struct Schemas {
    /// Ascending.
    versions: Arc<[Compiled]>,
}

#[derive(Clone)]
struct Compiled {
    version: u32,
    schema: Arc<Value>,
    ready: Arc<Ready>,
}

struct Ready {
    validator: Validator,
    cost: Cost,
}

/// A payload that is about to be checked.
pub struct Check<'a> {
    compiled: &'a Compiled,
    payload: Value,
    work: u64,
}

/// Why a payload is not valid. Holds none of its values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The namespace has no such version.
    #[error("there is no schema version {version}")]
    Version {
        /// What was asked for.
        version: u32,
    },
    /// It is not JSON.
    #[error("a schema wants JSON")]
    NotJson,
    /// To find out whether it is valid would be too much work.
    #[error("too much for schema version {version}: up to {work} units of work, {most} at most")]
    Work {
        /// The version.
        version: u32,
        /// How much.
        work: u64,
        /// How much it may be.
        most: u64,
    },
    /// It is not as the schema says.
    #[error("not valid by schema version {version}, at '{pointer}': {keyword}")]
    Fault {
        /// The version.
        version: u32,
        /// Where in the payload: a JSON pointer, cut if it is long.
        pointer: String,
        /// The keyword of the schema that does not hold.
        keyword: String,
    },
}

impl Schemas {
    /// Makes the schemas ready; `None` if there are none. What `before` has is taken from there. The schemas
    /// have been checked to be of bearable size ([`expand`]).
    ///
    /// # Errors
    ///
    /// The first that cannot be used, with its version.
    pub fn new(versions: &[SchemaVersion], before: Option<&Self>) -> Result<Option<Self>, (u32, Unusable)> {
        let ready = |SchemaVersion { version, schema }: &SchemaVersion| {
            let known = before.into_iter().flat_map(|before| before.versions.iter());
            if let Some(known) = known.into_iter().find(|known| known.schema == *schema) {
                return Ok(Compiled {
                    version: *version,
                    ..known.clone()
                });
            }
            let ready = compile(schema).map_err(|why| (*version, why))?;
            Ok(Compiled {
                version: *version,
                schema: schema.clone(),
                ready: Arc::new(ready),
            })
        };
        let versions: Arc<[_]> = versions.iter().map(ready).collect::<Result<_, _>>()?;
        Ok((!versions.is_empty()).then_some(Self { versions }))
    }

    /// The version of that number, or the latest.
    ///
    /// # Errors
    ///
    /// [`Invalid::Version`].
    pub fn version(&self, named: Option<u32>) -> Result<u32, Invalid> {
        match named {
            Some(version) => self.find(version).map(|known| known.version),
            None => Ok(self.versions.last().map_or(0, |latest| latest.version)),
        }
    }

    fn find(&self, version: u32) -> Result<&Compiled, Invalid> {
        let found = self.versions.iter().find(|known| known.version == version);
        found.ok_or(Invalid::Version { version })
    }

    /// Reads a payload that is to be checked against a version.
    ///
    /// # Errors
    ///
    /// [`Invalid::Version`], [`Invalid::NotJson`].
    pub fn read(&self, payload: &[u8], version: u32) -> Result<Check<'_>, Invalid> {
        let compiled = self.find(version)?;
        let payload = serde_json::from_slice(payload).map_err(|_| Invalid::NotJson)?;
        Ok(Check {
            work: compiled.ready.cost.work(&Payload::of(&payload)),
            compiled,
            payload,
        })
    }
}

impl Check<'_> {
    /// What it can cost at most, in units of at most 30 ns (`slipstream bench schemas`).
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Checks.
    ///
    /// # Errors
    ///
    /// [`Invalid::Fault`].
    pub fn run(&self) -> Result<(), Invalid> {
        self.compiled
            .ready
            .validator
            .validate(&self.payload)
            .map_err(|error| {
                let mut pointer = error.instance_path().as_str().to_owned();
                if pointer.len() > MAX_POINTER {
                    let end = (0..=MAX_POINTER).rev().find(|end| pointer.is_char_boundary(*end));
                    pointer.truncate(end.unwrap_or_default());
                    pointer.push_str("...");
                }
                Invalid::Fault {
                    version: self.compiled.version,
                    pointer,
                    keyword: error.kind().keyword().to_owned(),
                }
            })
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = self.versions.iter().map(|compiled| compiled.version);
        f.debug_list().entries(versions).finish()
    }
}

fn compile(schema: &Value) -> Result<Ready, Unusable> {
    let expanded = expand(schema, usize::MAX)?;
    let validator = options(PATTERN_BYTES)
        .with_keyword("anyOf", any_of)
        .with_keyword("oneOf", one_of)
        .build(&expanded)
        .map_err(|error| Unusable::new(error.instance_path().as_str(), error.to_string()))?;
    // One that is referred to stands there many times.
    let mut known = HashMap::new();
    let cost = Cost::of(&expanded, &mut |pattern| match known.get(pattern) {
        Some(units) => *units,
        None => *known.entry(pattern.to_owned()).or_insert(pattern_units(pattern)),
    });
    Ok(Ready { validator, cost })
}

fn options<'i>(pattern_bytes: usize) -> jsonschema::ValidationOptions<'i> {
    // A tenant writes the patterns, and others the payloads: only the engine without backtracking, whose
    // time is linear, will do.
    let patterns: PatternOptions<Regex> = PatternOptions::regex()
        .size_limit(pattern_bytes)
        .dfa_size_limit(PATTERN_BYTES);
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(patterns)
        .should_validate_formats(false)
        .with_keyword("uniqueItems", unique_items)
        .offline()
}

/// How many units 16 bytes of text are to a pattern: by the size that its program has.
fn pattern_units(pattern: &str) -> u64 {
    let schema = json!({ "pattern": pattern });
    let fits = |power: u32| options(1 << power).build(&schema).is_ok();
    let [mut least, mut most] = PATTERN_SIZES;
    while least < most {
        let middle = u32::midpoint(least, most);
        match fits(middle) {
            true => most = middle,
            false => least = middle + 1,
        }
    }
    (1 << most) / PATTERN_UNIT
}

/// A keyword that says no more than that it does not hold: of `anyOf` and `oneOf` the library would gather all
/// that does not hold within them, for every value, though only the first fault is told.
struct Curt(Validator);

impl<'i> Keyword<'i> for Curt {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        let fault = || ValidationError::custom("");
        self.0.is_valid(value).then_some(()).ok_or_else(fault)
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        self.0.is_valid(value)
    }
}

/// `uniqueItems`, if it is true. The library's own is quadratic for values that were chosen to have one hash.
struct Unique(bool);

impl<'i> Keyword<'i> for Unique {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        let fault = || ValidationError::custom("");
        Keyword::is_valid(self, value).then_some(()).ok_or_else(fault)
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        !self.0 || value.as_array().is_none_or(|items| is_unique(items))
    }
}

fn unique_items<'a>(_: &'a Map<String, Value>, wanted: &'a Value, _: Location) -> MadeKeyword<'a> {
    Ok(Box::new(Unique(*wanted == Value::Bool(true))))
}

type MadeKeyword<'a> = Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>>;

fn any_of<'a>(_: &'a Map<String, Value>, schemas: &'a Value, _: Location) -> MadeKeyword<'a> {
    curt("anyOf", schemas)
}

fn one_of<'a>(_: &'a Map<String, Value>, schemas: &'a Value, _: Location) -> MadeKeyword<'a> {
    curt("oneOf", schemas)
}

fn curt<'a>(keyword: &str, schemas: &Value) -> MadeKeyword<'a> {
    let validator = options(PATTERN_BYTES).build(&json!({ keyword: schemas }));
    Ok(Box::new(Curt(validator.map_err(ValidationError::to_owned)?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn versions(schemas: &[Value]) -> Vec<SchemaVersion> {
        let schemas = schemas.iter().zip(1..);
        let version = |(schema, version): (&Value, u32)| SchemaVersion {
            version,
            schema: Arc::new(schema.clone()),
        };
        schemas.map(version).collect()
    }

    fn schemas(schemas: &[Value]) -> Schemas {
        Schemas::new(&versions(schemas), None).unwrap().unwrap()
    }

    fn validate(schemas: &Schemas, payload: &[u8], version: u32) -> Result<(), Invalid> {
        schemas.read(payload, version)?.run()
    }

    #[test]
    fn a_fault_is_told_by_where_it_is_and_never_by_what() {
        let schema = json!({
            "type": "object",
            "required": ["id"],
            "additionalProperties": false,
            "properties": {
                "id": {"type": "integer", "minimum": 1},
                "tags": {"items": {"enum": ["a", "b"]}},
                "kind": {"pattern": "^[a-z]+$"},
                "deep": {"properties": {"a/b": {"const": 1}}},
            },
        });
        let schemas = schemas(&[schema]);
        for (payload, fault) in [
            (json!({"id": 1}), None),
            (json!({"id": 1, "tags": ["a"], "kind": "x"}), None),
            (json!({"id": "planted"}), Some(("/id", "type"))),
            (json!({"id": 0}), Some(("/id", "minimum"))),
            (
                json!({"id": 1, "tags": ["a", "planted"]}),
                Some(("/tags/1", "enum")),
            ),
            (
                json!({"id": 1, "kind": "PLANTED planted"}),
                Some(("/kind", "pattern")),
            ),
            (
                json!({"id": 1, "deep": {"a/b": "planted"}}),
                Some(("/deep/a~1b", "const")),
            ),
            (json!({}), Some(("", "required"))),
            (json!({"id": 1, "planted": 1}), Some(("", "additionalProperties"))),
            (json!("planted"), Some(("", "type"))),
        ] {
            let result = validate(&schemas, payload.to_string().as_bytes(), 1);
            match (fault, result) {
                (None, result) => assert_eq!(result, Ok(()), "{payload}"),
                (Some((at, of)), Err(invalid)) => {
                    assert!(!invalid.to_string().contains("planted"), "{invalid}");
                    let expected = Invalid::Fault {
                        version: 1,
                        pointer: at.to_owned(),
                        keyword: of.to_owned(),
                    };
                    assert_eq!(invalid, expected, "{payload}");
                }
                (Some(_), Ok(())) => panic!("{payload} is valid"),
            }
        }
    }

    #[test]
    fn a_long_path_is_cut() {
        let schemas = schemas(&[json!({"additionalProperties": {"type": "string"}})]);
        let payload = json!({"ä".repeat(1_000): 1}).to_string();
        let invalid = validate(&schemas, payload.as_bytes(), 1).unwrap_err();
        assert!(invalid.to_string().len() < MAX_POINTER + 100);
    }

    #[test]
    fn the_latest_version_counts_unless_one_is_named() {
        let schemas = schemas(&[json!({"type": "string"}), json!({"type": "integer"})]);
        assert_eq!((schemas.version(None), schemas.version(Some(1))), (Ok(2), Ok(1)));
        assert_eq!(schemas.version(Some(3)), Err(Invalid::Version { version: 3 }));
        assert_eq!(validate(&schemas, b"1", 2), Ok(()));
        assert_eq!(validate(&schemas, b"\"a\"", 1), Ok(()));
        assert!(validate(&schemas, b"1", 1).is_err());
        assert_eq!(validate(&schemas, b"\xff", 1), Err(Invalid::NotJson));
    }

    #[test]
    fn what_has_not_changed_is_not_compiled_again() {
        let first = versions(&[json!({"type": "string"})]);
        let both = versions(&[json!({"type": "string"}), json!({"type": "integer"})]);
        let before = Schemas::new(&first, None).unwrap().unwrap();
        let after = Schemas::new(&both, Some(&before)).unwrap().unwrap();
        assert!(Arc::ptr_eq(&before.versions[0].ready, &after.versions[0].ready));
        assert!(Schemas::new(&[], Some(&before)).unwrap().is_none());
    }

    #[test]
    fn a_schema_that_is_none_is_refused_with_its_path() {
        for (schema, path) in [
            (
                json!({"properties": {"a": {"type": "strin"}}}),
                "/properties/a/type",
            ),
            (json!({"minLength": -1}), "/minLength"),
            // Backreferences and lookarounds need an engine that backtracks.
            (json!({"pattern": "(a)\\1"}), ""),
            (json!({"pattern": "^(?=a)"}), ""),
            (json!({"pattern": "(((a{1,100}){1,100}){1,100}){1,100}"}), ""),
            (json!({"pattern": "("}), ""),
        ] {
            let (version, why) = Schemas::new(&versions(std::slice::from_ref(&schema)), None).unwrap_err();
            assert_eq!(version, 1);
            assert!(why.path.starts_with(path), "{schema}: {why}");
        }
    }

    #[test]
    fn a_pattern_that_others_choke_on_is_linear() {
        let schemas = schemas(&[json!({"pattern": "^(a+)+$"})]);
        let payload = format!("\"{}b\"", "a".repeat(60_000));
        assert!(validate(&schemas, payload.as_bytes(), 1).is_err());
    }

    #[test]
    fn formats_are_annotations() {
        let schemas = schemas(&[json!({"format": "email", "contentMediaType": "application/json"})]);
        assert_eq!(validate(&schemas, b"\"no\"", 1), Ok(()));
    }

    #[test]
    fn of_alternatives_only_that_none_holds_is_told() {
        let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
        let schema = json!({
            "properties": {
                "any": {"anyOf": [text, {"items": {"oneOf": [number, {"minimum": 5}]}}]},
                "one": {"oneOf": [number, {"minimum": 5}]},
            },
            // It sees what holds of them.
            "anyOf": [{"properties": {"a": number}}, {"properties": {"b": true}, "required": ["b"]}],
            "unevaluatedProperties": false,
        });
        let schemas = schemas(&[schema]);
        for (payload, fault) in [
            (json!({"any": "x", "one": 1, "a": 1}), None),
            (json!({"any": [1, 5.5], "a": 1, "b": 1}), None),
            (json!({"any": 1}), None),
            (json!({"any": [7]}), Some(("/any", "anyOf"))),
            (json!({"one": 7}), Some(("/one", "oneOf"))),
            (json!({"one": 4.5}), Some(("/one", "oneOf"))),
            (json!({"a": "x"}), Some(("", "unevaluatedProperties"))),
            (json!({"b": "x", "a": "y"}), Some(("", "unevaluatedProperties"))),
            (json!({"c": 1}), Some(("", "unevaluatedProperties"))),
        ] {
            let fault = fault.map_or(Ok(()), |(pointer, keyword): (&str, &str)| {
                Err(Invalid::Fault {
                    version: 1,
                    pointer: pointer.to_owned(),
                    keyword: keyword.to_owned(),
                })
            });
            assert_eq!(
                validate(&schemas, payload.to_string().as_bytes(), 1),
                fault,
                "{payload}"
            );
        }
    }

    #[test]
    fn what_can_cost_much_is_much_work_and_what_is_usual_is_little() {
        let work = |schema: Value, payload: Value| {
            let schemas = schemas(&[schema]);
            schemas.read(payload.to_string().as_bytes(), 1).unwrap().work()
        };
        // tenants.max_schema_work
        let most = 4_000_000;
        let text = "ab".repeat(32_000);
        let numbers = json!(vec![1; 30_000]);
        for (schema, payload) in [
            // The automaton of such a pattern has as many states as there are texts of that length.
            (json!({"pattern": "^(a|b)*a(a|b){100}c"}), json!(text)),
            (
                json!({"patternProperties": {"(a|b)*a(a|b){100}c": true}}),
                json!({ text.clone(): 1 }),
            ),
            (
                json!({"items": {"allOf": (0..500).map(|n| json!({"not": {"const": n + 2}})).collect::<Vec<_>>()}}),
                numbers.clone(),
            ),
            (
                json!({"anyOf": (0..500).map(|_| json!({"items": {"type": "string"}})).collect::<Vec<_>>()}),
                numbers.clone(),
            ),
        ] {
            assert!(work(schema.clone(), payload) > most, "{schema}");
        }
        let message = json!({
            "type": "object",
            "required": ["id", "text", "tags"],
            "properties": {
                "id": {"type": "string", "pattern": "^[0-9a-f-]{36}$"},
                "text": {"type": "string", "maxLength": 70_000, "pattern": "\\S"},
                "tags": {"type": "array", "maxItems": 3_000, "uniqueItems": true, "items": {"enum": ["a", "b", "c"]}},
                "at": {"oneOf": [{"type": "integer", "minimum": 0}, {"pattern": "^\\d{4}-\\d\\d-\\d\\d"}]},
            },
            "additionalProperties": false,
        });
        let payload = |text: &str, tags| json!({"id": "0".repeat(36), "text": text, "tags": vec!["a"; tags], "at": "2026-11-29T00:00:00Z"});
        let small = work(message.clone(), payload("hello", 2));
        assert!(small < 5_000, "{small}");
        let large = work(message.clone(), payload(&text, 3_000));
        assert!(large < most, "{large}");
        assert!(work(json!({"items": {"type": "integer"}}), numbers) < most / 10);
    }
}
