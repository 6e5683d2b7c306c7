use std::{fmt, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::{Unusable, expand};
use crate::model::SchemaVersion;

/// What one pattern may take of memory, as a program and as its cache, bytes.
const PATTERN_BYTES: usize = 64 * 1024;

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
    validator: Arc<Validator>,
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
            let validator = compile(schema).map_err(|why| (*version, why))?;
            Ok(Compiled {
                version: *version,
                schema: schema.clone(),
                validator: Arc::new(validator),
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

    /// Checks a payload of JSON against a version.
    ///
    /// # Errors
    ///
    /// [`Invalid`].
    pub fn validate(&self, payload: &[u8], version: u32) -> Result<(), Invalid> {
        let compiled = self.find(version)?;
        let payload = serde_json::from_slice(payload).map_err(|_| Invalid::NotJson)?;
        compiled.validator.validate(&payload).map_err(|error| {
            let mut pointer = error.instance_path().as_str().to_owned();
            if pointer.len() > MAX_POINTER {
                let end = (0..=MAX_POINTER).rev().find(|end| pointer.is_char_boundary(*end));
                pointer.truncate(end.unwrap_or_default());
                pointer.push_str("...");
            }
            Invalid::Fault {
                version: compiled.version,
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

fn compile(schema: &Value) -> Result<Validator, Unusable> {
    let expanded = expand(schema, usize::MAX)?;
    // A tenant writes the patterns, and others the payloads: only the engine without backtracking, whose
    // time is linear, will do.
    let patterns = PatternOptions::regex()
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES);
    let options = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(patterns)
        .should_validate_formats(false);
    options
        .offline()
        .build(&expanded)
        .map_err(|error| Unusable::new(error.instance_path().as_str(), error.to_string()))
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
            let result = schemas.validate(payload.to_string().as_bytes(), 1);
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
        let invalid = schemas.validate(payload.as_bytes(), 1).unwrap_err();
        assert!(invalid.to_string().len() < MAX_POINTER + 100);
    }

    #[test]
    fn the_latest_version_counts_unless_one_is_named() {
        let schemas = schemas(&[json!({"type": "string"}), json!({"type": "integer"})]);
        assert_eq!((schemas.version(None), schemas.version(Some(1))), (Ok(2), Ok(1)));
        assert_eq!(schemas.version(Some(3)), Err(Invalid::Version { version: 3 }));
        assert_eq!(schemas.validate(b"1", 2), Ok(()));
        assert_eq!(schemas.validate(b"\"a\"", 1), Ok(()));
        assert!(schemas.validate(b"1", 1).is_err());
        assert_eq!(schemas.validate(b"\xff", 1), Err(Invalid::NotJson));
    }

    #[test]
    fn what_has_not_changed_is_not_compiled_again() {
        let first = versions(&[json!({"type": "string"})]);
        let both = versions(&[json!({"type": "string"}), json!({"type": "integer"})]);
        let before = Schemas::new(&first, None).unwrap().unwrap();
        let after = Schemas::new(&both, Some(&before)).unwrap().unwrap();
        assert!(Arc::ptr_eq(
            &before.versions[0].validator,
            &after.versions[0].validator
        ));
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
        assert!(schemas.validate(payload.as_bytes(), 1).is_err());
    }

    #[test]
    fn formats_are_annotations() {
        let schemas = schemas(&[json!({"format": "email", "contentMediaType": "application/json"})]);
        assert_eq!(schemas.validate(b"\"no\"", 1), Ok(()));
    }
}
