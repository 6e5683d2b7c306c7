use serde_json::{Map, Value};

use super::{Unusable, expand, expand::escaped};
use crate::model::{Compatibility, SchemaVersion};

/// Why a version of a schema does not go with the one before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be shown to be compatible with version {before}: {what}, at '{path}': {why}")]
pub struct Incompatible {
    /// The version before.
    pub before: u32,
    /// Which of both would read what the other has written.
    what: &'static str,
    /// Where in the schema of the reader: a JSON pointer, references replaced.
    pub path: String,
    /// What cannot be shown.
    why: String,
}

const TRUE: Value = Value::Bool(true);

/// All types of JSON values; a number may be an integer.
const TYPES: [&str; 6] = ["array", "boolean", "null", "number", "object", "string"];

/// Keywords that stand for themselves: they hold wherever the other schema has the very same.
const OPAQUE: [&str; 9] = [
    "allOf",
    "anyOf",
    "dependentRequired",
    "dependentSchemas",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "propertyNames",
];

/// The same, of which each says nothing without the others.
const GROUPS: [&[&str]; 2] = [
    &["contains", "maxContains", "minContains"],
    &["else", "if", "then"],
];

/// Checks that `next` goes with `before`.
///
/// # Errors
///
/// [`Incompatible`], also if it would go but that cannot be shown: only what each keyword says by itself is
/// compared, `allOf`, `anyOf`, `oneOf`, `not`, conditions and patterns must be the same.
pub fn check(before: &SchemaVersion, next: &SchemaVersion, mode: Compatibility) -> Result<(), Incompatible> {
    let incompatible = |what| {
        move |Unusable { path, why }| Incompatible {
            before: before.version,
            what,
            path,
            why,
        }
    };
    let what = "the schema";
    let old = expand(&before.schema, usize::MAX).map_err(incompatible(what))?;
    let new = expand(&next.schema, usize::MAX).map_err(incompatible(what))?;
    if mode == Compatibility::None {
        return Ok(());
    }
    let what = "what was valid before may not be valid any more";
    includes(&new, &old, "").map_err(incompatible(what))?;
    if mode == Compatibility::Full {
        let what = "what is valid now may not have been valid before";
        includes(&old, &new, "").map_err(incompatible(what))?;
    }
    Ok(())
}

/// Shows that all that is valid by `writer` is valid by `reader`. Both are expanded.
fn includes(reader: &Value, writer: &Value, path: &str) -> Result<(), Unusable> {
    // A schema takes in itself. Nothing is valid by false, and all by true.
    if reader == writer || *writer == Value::Bool(false) || *reader == TRUE {
        return Ok(());
    }
    let (Value::Object(reader), writer) = (reader, object(writer)) else {
        return Err(Unusable::new(path, "nothing is valid here any more"));
    };
    let pair = Pair {
        types: types(&writer),
        reader,
        writer: &writer,
        path,
    };
    reader
        .iter()
        .try_for_each(|(keyword, value)| pair.keyword(keyword, value))
}

/// A schema as an object: true is one that says nothing.
fn object(schema: &Value) -> Map<String, Value> {
    schema.as_object().cloned().unwrap_or_default()
}

struct Pair<'a> {
    reader: &'a Map<String, Value>,
    writer: &'a Map<String, Value>,
    /// What a value that the writer may have written can be.
    types: Vec<String>,
    path: &'a str,
}

impl Pair<'_> {
    fn keyword(&self, keyword: &str, value: &Value) -> Result<(), Unusable> {
        let path = format!("{}/{keyword}", self.path);
        if !self.concerns(keyword) {
            return Ok(());
        }
        let holds = match keyword {
            "type" => self.types.iter().all(|kind| takes(value, kind)),
            "const" => self
                .values()
                .is_some_and(|values| values.iter().all(|one| one == value)),
            "enum" => self.values().is_some_and(|values| {
                let known = value.as_array().map_or(&[][..], Vec::as_slice);
                values.iter().all(|one| known.contains(one))
            }),
            "minimum" => self.above(value, false),
            "exclusiveMinimum" => self.above(value, true),
            "maximum" => self.below(value, false),
            "exclusiveMaximum" => self.below(value, true),
            "minItems" | "minLength" | "minProperties" => {
                is_zero(value)
                    || self.limit(keyword, |limit| {
                        order(limit, value).is_some_and(|order| order.is_ge())
                    })
            }
            "maxItems" | "maxLength" | "maxProperties" => self.limit(keyword, |limit| {
                order(limit, value).is_some_and(|order| order.is_le())
            }),
            "uniqueItems" => *value == Value::Bool(false) || self.writer.get(keyword) == Some(value),
            "required" => {
                let has = self.writer.get(keyword).and_then(Value::as_array);
                let wanted = value.as_array().map_or(&[][..], Vec::as_slice);
                let missing = wanted
                    .iter()
                    .find(|name| !has.is_some_and(|has| has.contains(name)));
                if let Some(missing) = missing {
                    return Err(Unusable::new(&path, format!("{missing} may be absent")));
                }
                true
            }
            "properties" => return self.properties(value, &path),
            "patternProperties" => return self.patterns(value, &path),
            "additionalProperties" => return self.additional(value, &path),
            "prefixItems" => return self.prefix(value, &path),
            "items" => return self.items(value, &path),
            keyword if OPAQUE.contains(&keyword) => self.writer.get(keyword) == Some(value),
            keyword => GROUPS.iter().any(|group| {
                let same = |keyword: &&str| self.writer.get(*keyword) == self.reader.get(*keyword);
                group.contains(&keyword) && group.iter().all(same)
            }),
        };
        if holds {
            return Ok(());
        }
        Err(Unusable::new(&path, "it does not follow from the other version"))
    }

    /// Whether `keyword` says anything of what the writer may have written.
    fn concerns(&self, keyword: &str) -> bool {
        let kinds: &[&str] = match keyword {
            "exclusiveMaximum" | "exclusiveMinimum" | "maximum" | "minimum" | "multipleOf" => {
                &["number", "integer"]
            }
            "maxLength" | "minLength" | "pattern" => &["string"],
            "contains" | "items" | "maxContains" | "maxItems" | "minContains" | "minItems"
            | "prefixItems" | "unevaluatedItems" | "uniqueItems" => &["array"],
            "additionalProperties"
            | "dependentRequired"
            | "dependentSchemas"
            | "maxProperties"
            | "minProperties"
            | "patternProperties"
            | "properties"
            | "propertyNames"
            | "required"
            | "unevaluatedProperties" => &["object"],
            _ => return true,
        };
        self.types.iter().any(|kind| kinds.contains(&kind.as_str()))
    }

    /// The values that the writer may have written, if they are listed.
    fn values(&self) -> Option<Vec<Value>> {
        listed(self.writer)
    }

    fn limit(&self, keyword: &str, holds: impl Fn(&Value) -> bool) -> bool {
        self.writer.get(keyword).is_some_and(holds)
    }

    fn above(&self, least: &Value, exclusive: bool) -> bool {
        let is_above = |keyword: &str, or_equal: bool| {
            self.limit(keyword, |limit| {
                order(limit, least).is_some_and(|order| order.is_gt() || or_equal && order.is_eq())
            })
        };
        is_above("minimum", !exclusive) || is_above("exclusiveMinimum", true)
    }

    fn below(&self, most: &Value, exclusive: bool) -> bool {
        let is_below = |keyword: &str, or_equal: bool| {
            self.limit(keyword, |limit| {
                order(limit, most).is_some_and(|order| order.is_lt() || or_equal && order.is_eq())
            })
        };
        is_below("maximum", !exclusive) || is_below("exclusiveMaximum", true)
    }

    /// What the writer has for `name` among its `keyword`.
    fn named<'a>(schema: &'a Map<String, Value>, keyword: &str, name: &str) -> Option<&'a Value> {
        schema.get(keyword)?.as_object()?.get(name)
    }

    fn all_named<'a>(
        schema: &'a Map<String, Value>,
        keyword: &str,
    ) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        schema
            .get(keyword)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    }

    fn has_patterns(schema: &Map<String, Value>) -> bool {
        Self::all_named(schema, "patternProperties").next().is_some()
    }

    /// What a property can be that the writer does not name.
    fn unnamed(&self) -> &Value {
        // Which pattern it matches is not known.
        if Self::has_patterns(self.writer) {
            return &TRUE;
        }
        self.writer.get("additionalProperties").unwrap_or(&TRUE)
    }

    fn properties(&self, properties: &Value, path: &str) -> Result<(), Unusable> {
        for (name, reader) in properties.as_object().into_iter().flatten() {
            let writer = Self::named(self.writer, "properties", name).unwrap_or_else(|| self.unnamed());
            includes(reader, writer, &format!("{path}/{}", escaped(name)))?;
        }
        Ok(())
    }

    fn patterns(&self, patterns: &Value, path: &str) -> Result<(), Unusable> {
        for (pattern, reader) in patterns.as_object().into_iter().flatten() {
            let path = format!("{path}/{}", escaped(pattern));
            let writer = Self::named(self.writer, "patternProperties", pattern);
            includes(reader, writer.unwrap_or(&TRUE), &path)?;
        }
        Ok(())
    }

    fn additional(&self, reader: &Value, path: &str) -> Result<(), Unusable> {
        for (name, writer) in Self::all_named(self.writer, "properties") {
            if Self::named(self.reader, "properties", name).is_none() {
                includes(reader, writer, path)?;
            }
        }
        for (pattern, writer) in Self::all_named(self.writer, "patternProperties") {
            if Self::named(self.reader, "patternProperties", pattern).is_none() {
                includes(reader, writer, path)?;
            }
        }
        includes(
            reader,
            self.writer.get("additionalProperties").unwrap_or(&TRUE),
            path,
        )
    }

    fn at(schema: &Map<String, Value>, index: usize) -> &Value {
        let prefix = schema.get("prefixItems").and_then(Value::as_array);
        prefix
            .and_then(|prefix| prefix.get(index))
            .or_else(|| schema.get("items"))
            .unwrap_or(&TRUE)
    }

    fn prefix(&self, prefix: &Value, path: &str) -> Result<(), Unusable> {
        for (index, reader) in prefix.as_array().into_iter().flatten().enumerate() {
            includes(reader, Self::at(self.writer, index), &format!("{path}/{index}"))?;
        }
        Ok(())
    }

    fn items(&self, reader: &Value, path: &str) -> Result<(), Unusable> {
        let places = |schema: &Map<String, Value>| {
            let prefix = schema.get("prefixItems").and_then(Value::as_array);
            prefix.map_or(0, Vec::len)
        };
        for index in places(self.reader)..places(self.writer) {
            includes(reader, Self::at(self.writer, index), path)?;
        }
        includes(reader, self.writer.get("items").unwrap_or(&TRUE), path)
    }
}

/// The values of a schema that lists them.
fn listed(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value.clone()]),
        (None, values) => values?.as_array().cloned(),
    }
}

/// What a value can be that is valid by a schema.
fn types(schema: &Map<String, Value>) -> Vec<String> {
    let said: Vec<String> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => TYPES.map(str::to_owned).to_vec(),
    };
    let Some(values) = listed(schema) else {
        return said;
    };
    let mut kinds: Vec<String> = values.iter().map(|value| kind(value).to_owned()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number)
            if number.is_f64() && number.as_f64().is_some_and(|number| number.fract() != 0.0) =>
        {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether the value of `type` takes `kind`.
fn takes(types: &Value, kind: &str) -> bool {
    let is = |known: &Value| known == kind || kind == "integer" && known == "number";
    match types {
        Value::Array(types) => types.iter().any(is),
        one => is(one),
    }
}

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

/// How two numbers compare; `None` if that is not exactly known.
fn order(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    let whole = |value: &Value| {
        let signed = value.as_i64().map(i128::from);
        signed.or_else(|| value.as_u64().map(i128::from))
    };
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        return Some(a.cmp(&b));
    }
    /// Up to here every integer is a number of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let (a, b) = (a.as_f64()?, b.as_f64()?);
    let exact = a.abs() < EXACT && b.abs() < EXACT;
    a.partial_cmp(&b).filter(|_| exact)
}

#[cfg(test)]
mod tests;
