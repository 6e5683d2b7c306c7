use serde_json::{Map, Value};

/// The dialect: JSON Schema 2020-12.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// How deep schemas may be within each other.
const MAX_DEPTH: usize = 32;

/// Keywords whose value is a schema.
const ONE: [&str; 10] = [
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords that ask again what the schemas beside them have found: within each other, that doubles the work
/// with each level.
pub(super) const UNEVALUATED: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];

/// Keywords whose value is a list of schemas.
const MANY: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// Keywords whose value has a schema for each name.
const NAMED: [&str; 3] = ["dependentSchemas", "patternProperties", "properties"];

/// Keywords without schemas that say what is valid.
const PLAIN: [&str; 20] = [
    "const",
    "dependentRequired",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "type",
    "uniqueItems",
];

/// Keywords that say nothing about what is valid, and where references lead to. `format` and the encoding of
/// content are annotations in 2020-12.
const SILENT: [&str; 14] = [
    "$comment",
    "$defs",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "format",
    "readOnly",
    "title",
    "writeOnly",
];

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at '{path}': {why}")]
pub struct Unusable {
    /// Where in the schema: a JSON pointer.
    pub path: String,
    /// What is wrong there.
    pub why: String,
}

impl Unusable {
    pub(super) fn new(path: &str, why: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}

/// Bytes of a pattern: reading one takes time that its program does not show.
const MAX_PATTERN: usize = 1_024;

/// Patterns of a schema, with its references replaced. Each takes up to 128 KiB.
const MAX_PATTERNS: usize = 100;

/// The schema with every reference replaced by what it refers to, and without what says nothing about
/// validity. It has at most `max_nodes` values: objects, lists and what is in them.
///
/// # Errors
///
/// [`Unusable`]: also a keyword that is not known, and a reference out of the schema or into itself.
pub fn expand(schema: &Value, max_nodes: usize) -> Result<Value, Unusable> {
    let mut expansion = Expansion {
        root: schema,
        following: Vec::new(),
        unevaluated: 0,
        left: max_nodes,
        most: max_nodes,
        patterns: 0,
    };
    expansion.schema(schema, "", 0)
}

struct Expansion<'a> {
    root: &'a Value,
    /// References that are being replaced.
    following: Vec<String>,
    /// Schemas around this one that have a keyword of [`UNEVALUATED`].
    unevaluated: usize,
    left: usize,
    most: usize,
    /// Patterns so far.
    patterns: usize,
}

impl Expansion<'_> {
    fn charge(&mut self, path: &str) -> Result<(), Unusable> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            Unusable::new(
                path,
                format!(
                    "too large: with its references replaced the schema has more than {} values",
                    self.most
                ),
            )
        })?;
        Ok(())
    }

    /// Patterns take memory when they are compiled.
    fn pattern(&mut self, pattern: &str, path: &str) -> Result<(), Unusable> {
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            return Err(Unusable::new(path, format!("more than {MAX_PATTERNS} patterns")));
        }
        if pattern.len() > MAX_PATTERN {
            return Err(Unusable::new(
                path,
                format!("a pattern of more than {MAX_PATTERN} bytes"),
            ));
        }
        Ok(())
    }

    fn charge_all(&mut self, value: &Value, path: &str) -> Result<(), Unusable> {
        self.charge(path)?;
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.charge_all(item, path)),
            Value::Object(entries) => entries.values().try_for_each(|item| self.charge_all(item, path)),
            _ => Ok(()),
        }
    }

    fn schema(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Value, Unusable> {
        self.charge(path)?;
        if depth > MAX_DEPTH {
            let why = format!("schemas are within each other more than {MAX_DEPTH} times");
            return Err(Unusable::new(path, why));
        }
        let entries = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(entries) => entries,
            _ => return Err(Unusable::new(path, "must be a schema: an object, true or false")),
        };
        let unevaluated = UNEVALUATED.iter().find(|keyword| entries.contains_key(**keyword));
        if let Some(keyword) = unevaluated {
            if self.unevaluated > 0 {
                let why = "cannot be within another schema with unevaluatedItems or unevaluatedProperties";
                return Err(Unusable::new(&format!("{path}/{keyword}"), why));
            }
            self.unevaluated += 1;
        }
        let mut expanded = Map::new();
        let mut referred = None;
        for (keyword, value) in entries {
            let path = format!("{path}/{}", escaped(keyword));
            let keyword = keyword.as_str();
            if keyword == "$ref" {
                referred = Some(self.follow(value, &path, depth)?);
            } else if keyword == "$schema" {
                let known = value
                    .as_str()
                    .is_some_and(|uri| uri.trim_end_matches('#') == DIALECT);
                if !known {
                    return Err(Unusable::new(&path, format!("must be {DIALECT}")));
                }
            } else if ONE.contains(&keyword) {
                expanded.insert(keyword.to_owned(), self.schema(value, &path, depth + 1)?);
            } else if MANY.contains(&keyword) {
                let Value::Array(items) = value else {
                    return Err(Unusable::new(&path, "must be a list of schemas"));
                };
                let items = items.iter().enumerate();
                let items =
                    items.map(|(index, item)| self.schema(item, &format!("{path}/{index}"), depth + 1));
                let items = items.collect::<Result<_, _>>()?;
                expanded.insert(keyword.to_owned(), Value::Array(items));
            } else if NAMED.contains(&keyword) {
                let Value::Object(named) = value else {
                    return Err(Unusable::new(&path, "must be an object of schemas"));
                };
                let mut schemas = Map::new();
                for (name, schema) in named {
                    if keyword == "patternProperties" {
                        self.pattern(name, &path)?;
                    }
                    let path = format!("{path}/{}", escaped(name));
                    schemas.insert(name.clone(), self.schema(schema, &path, depth + 1)?);
                }
                expanded.insert(keyword.to_owned(), Value::Object(schemas));
            } else if PLAIN.contains(&keyword) {
                self.charge_all(value, &path)?;
                if keyword == "pattern" {
                    self.pattern(value.as_str().unwrap_or_default(), &path)?;
                }
                expanded.insert(keyword.to_owned(), value.clone());
            } else if !SILENT.contains(&keyword) && !keyword.starts_with("x-") {
                return Err(Unusable::new(&path, "this keyword is not known here"));
            }
        }
        self.unevaluated -= usize::from(unevaluated.is_some());
        let Some(referred) = referred else {
            return Ok(Value::Object(expanded));
        };
        if expanded.is_empty() {
            return Ok(referred);
        }
        let all = expanded
            .entry("allOf")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(all) = all {
            all.push(referred);
        }
        Ok(Value::Object(expanded))
    }

    fn follow(&mut self, reference: &Value, path: &str, depth: usize) -> Result<Value, Unusable> {
        let pointer = reference.as_str().and_then(|uri| uri.strip_prefix('#'));
        let pointer = pointer
            .filter(|pointer| !pointer.contains('%') && (pointer.is_empty() || pointer.starts_with('/')));
        let Some(pointer) = pointer else {
            let why = "must lead into the schema itself: \"#/...\", a JSON pointer";
            return Err(Unusable::new(path, why));
        };
        let Some(target) = self.root.pointer(pointer) else {
            return Err(Unusable::new(path, "leads to nothing"));
        };
        // What lies around a reference is being replaced too.
        let recursive = pointer.is_empty()
            || path.starts_with(&format!("{pointer}/"))
            || self.following.iter().any(|known| known == pointer);
        if recursive {
            return Err(Unusable::new(path, "is recursive"));
        }
        self.following.push(pointer.to_owned());
        // Paths of faults are where they stand.
        let expanded = self.schema(target, pointer, depth + 1)?;
        self.following.pop();
        Ok(expanded)
    }
}

/// A name as it stands in a JSON pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_replaced_and_what_says_nothing_goes() {
        let schema = json!({
            "$schema": DIALECT,
            "title": "t",
            "$defs": {"name": {"type": "string", "description": "d"}},
            "properties": {
                "a": {"$ref": "#/$defs/name"},
                "b": {"$ref": "#/$defs/name", "maxLength": 3, "format": "email"},
                // Names and data, not keywords.
                "$ref": {"const": {"$ref": "http://a.example/"}},
            },
            "x-owner": {"team": 1},
        });
        let expanded = json!({"properties": {
            "a": {"type": "string"},
            "b": {"maxLength": 3, "allOf": [{"type": "string"}]},
            "$ref": {"const": {"$ref": "http://a.example/"}},
        }});
        assert_eq!(expand(&schema, 100).unwrap(), expanded);
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_path() {
        let beside = json!({"unevaluatedItems": false});
        assert!(expand(&json!({"prefixItems": [beside, beside]}), 100).is_ok());
        let deep = (0..MAX_DEPTH + 1).fold(json!(true), |inner, _| json!({"items": inner}));
        // Small to write down, two to the twelve when it is done.
        let mut defs = Map::new();
        defs.insert("d12".to_owned(), json!({"type": "string"}));
        for level in 0..12 {
            let next = format!("#/$defs/d{}", level + 1);
            defs.insert(
                format!("d{level}"),
                json!({"allOf": [{"$ref": next}, {"$ref": next}]}),
            );
        }
        let bomb = json!({"$defs": defs, "$ref": "#/$defs/d0"});
        for (schema, path) in [
            (json!(7), ""),
            (
                json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
                "/$schema",
            ),
            (
                json!({"properties": {"a/b": {"$ref": "http://a.example/"}}}),
                "/properties/a~1b/$ref",
            ),
            (json!({"$ref": "file:///etc/passwd"}), "/$ref"),
            (json!({"$ref": "#anchor"}), "/$ref"),
            (json!({"$ref": "#/$defs/none"}), "/$ref"),
            (json!({"items": {"$ref": "#"}}), "/items/$ref"),
            (
                json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
                "/$defs/b/items/$ref",
            ),
            (
                json!({"properties": {"a": {"items": {"$ref": "#/properties/a"}}}}),
                "/properties/a/items/$ref",
            ),
            (json!({"$id": "http://a.example/"}), "/$id"),
            (json!({"$dynamicRef": "#a"}), "/$dynamicRef"),
            (json!({"propertys": {}}), "/propertys"),
            (
                json!({"allOf": [{"items": {"unevaluatedItems": false}}], "unevaluatedProperties": false}),
                "/allOf/0/items/unevaluatedItems",
            ),
            (
                json!({"unevaluatedItems": {"unevaluatedItems": false}}),
                "/unevaluatedItems/unevaluatedItems",
            ),
            (json!({"items": [true]}), "/items"),
            (json!({"allOf": {}}), "/allOf"),
            (json!({"properties": []}), "/properties"),
        ] {
            assert_eq!(expand(&schema, 1_000).unwrap_err().path, path, "{schema}");
        }
        assert!(
            expand(&deep, 1_000)
                .unwrap_err()
                .why
                .contains("within each other")
        );
        assert!(expand(&bomb, 1_000).unwrap_err().why.contains("too large"));
        let many = json!({"enum": vec![0; 100]});
        assert!(expand(&many, 100).is_err() && expand(&many, 102).is_ok());
    }
}
