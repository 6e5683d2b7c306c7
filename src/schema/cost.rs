//! What it can cost at most to validate a payload against a schema, found out before it is done: a tenant
//! writes the schema, and others the payloads.
//!
//! A *unit* is one keyword that looks at one value. What a schema asks of values is added up by how deep they
//! lie; a payload has so many values and so many bytes of text at each depth; their product is the work. It is
//! an upper bound: whatever can be looked at is taken to be.

use serde_json::{Map, Value};

use super::expand::UNEVALUATED;

/// Bytes of text that a keyword goes through for a unit.
const BYTES: u64 = 16;

/// Items of a list are written down and hashed: units of each value that is within it.
const UNIQUE: u64 = 8;

/// Numbers that are not whole are divided without loss, by numbers of any length if need be.
const DIVISION: u64 = 250;
/// The greatest number that a `multipleOf` divides by as a whole one.
const MAX_WHOLE: u64 = 1 << 53;

/// What is asked of what lies at one depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Level {
    /// Units of each value.
    value: u64,
    /// Units of each [`BYTES`] bytes of text.
    text: u64,
    /// Units of each name, by which its value is told from others.
    name: u64,
    /// Units of each [`BYTES`] bytes of a name.
    name_text: u64,
    /// Units of each value, and of each [`BYTES`] bytes, at this depth and below.
    whole: u64,
}

/// What a schema asks of values, by their depth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    levels: Vec<Level>,
}

impl Level {
    fn each(self, other: Self, act: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            value: act(self.value, other.value),
            text: act(self.text, other.text),
            name: act(self.name, other.name),
            name_text: act(self.name_text, other.name_text),
            whole: act(self.whole, other.whole),
        }
    }
}

impl Cost {
    /// Of a schema as [`super::expand`] has made it. `pattern` has the units of [`BYTES`] bytes that a pattern
    /// is held against.
    pub(super) fn of(schema: &Value, pattern: &mut dyn FnMut(&str) -> u64) -> Self {
        let mut cost = Self::default();
        cost.at(0).value = 1;
        let Value::Object(keywords) = schema else {
            return cost;
        };
        for (keyword, value) in keywords {
            cost.keyword(keyword, value, pattern);
        }
        cost.add(&Self::of_children(keywords, pattern).below());
        if UNEVALUATED.iter().any(|keyword| keywords.contains_key(*keyword)) {
            cost.ask_again(in_place(schema));
        }
        cost
    }

    /// `unevaluatedItems` and `unevaluatedProperties` ask again what all schemas beside them hold of the same value,
    /// once for each that they stand within and for each condition that depends on them, and go through all
    /// items and members for each.
    fn ask_again(&mut self, schemas: u64) {
        let below = self.at(1);
        below.value += schemas;
        below.name += schemas;
        let times = schemas.saturating_add(2);
        for level in &mut self.levels {
            *level = level.each(*level, |units, _| units.saturating_mul(times));
        }
    }

    /// What a keyword asks of the value itself, and of the names in it.
    fn keyword(&mut self, keyword: &str, value: &Value, pattern: &mut dyn FnMut(&str) -> u64) {
        self.at(0).value += 1;
        match (keyword, value) {
            ("enum" | "const", value) => {
                let texts = value.to_string().len() as u64 / BYTES;
                self.at(0).value += count(value) + texts;
            }
            ("required" | "dependentRequired", value) => self.at(0).value += count(value),
            ("multipleOf", Value::Number(by)) => {
                let whole = by.as_u64().is_some_and(|by| by <= MAX_WHOLE);
                self.at(0).value += if whole { 0 } else { DIVISION };
            }
            ("minLength" | "maxLength", _) => self.at(0).text += 1,
            ("pattern", Value::String(text)) => self.at(0).text += pattern(text),
            ("uniqueItems", Value::Bool(true)) => self.at(0).whole += UNIQUE,
            ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                for schema in schemas {
                    self.add(&Self::of(schema, pattern));
                }
            }
            ("dependentSchemas", Value::Object(schemas)) => {
                for schema in schemas.values() {
                    self.add(&Self::of(schema, pattern));
                }
            }
            ("not" | "if" | "then" | "else", schema) => self.add(&Self::of(schema, pattern)),
            ("properties", Value::Object(schemas)) => {
                self.at(0).value += schemas.len() as u64;
                self.at(1).name += 1;
            }
            ("patternProperties", Value::Object(schemas)) => {
                for name in schemas.keys() {
                    self.at(1).name += 1;
                    self.at(1).name_text += pattern(name);
                }
            }
            ("propertyNames", schema) => {
                let Level { value, text, .. } = *Self::of(schema, pattern).at(0);
                self.at(1).name += value;
                self.at(1).name_text += text;
            }
            _ => {}
        }
    }

    /// What is asked of each value in a list or an object.
    fn of_children(keywords: &Map<String, Value>, pattern: &mut dyn FnMut(&str) -> u64) -> Self {
        let mut of = |schema: &Value| Self::of(schema, pattern);
        let (mut item, mut member, mut any) = (Self::default(), Self::default(), Self::default());
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                // One of them at most.
                ("properties", Value::Object(schemas)) => {
                    schemas.values().for_each(|schema| member.most(&of(schema)));
                }
                ("additionalProperties", schema) => member.most(&of(schema)),
                ("prefixItems", Value::Array(schemas)) => {
                    schemas.iter().for_each(|schema| item.most(&of(schema)));
                }
                ("items", schema) => item.most(&of(schema)),
                // All of them, maybe.
                ("patternProperties", Value::Object(schemas)) => {
                    schemas.values().for_each(|schema| any.add(&of(schema)));
                }
                ("contains" | "unevaluatedItems" | "unevaluatedProperties", schema) => any.add(&of(schema)),
                _ => {}
            }
        }
        item.most(&member);
        item.add(&any);
        item
    }

    /// One level farther down.
    fn below(mut self) -> Self {
        self.levels.insert(0, Level::default());
        self
    }

    fn at(&mut self, depth: usize) -> &mut Level {
        if self.levels.len() <= depth {
            self.levels.resize(depth + 1, Level::default());
        }
        &mut self.levels[depth]
    }

    fn add(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    fn most(&mut self, other: &Self) {
        self.each(other, u64::max);
    }

    fn each(&mut self, other: &Self, act: impl Fn(u64, u64) -> u64 + Copy) {
        for (depth, level) in other.levels.iter().enumerate() {
            let own = self.at(depth);
            *own = own.each(*level, act);
        }
    }

    /// Units of a payload, at most.
    pub(super) fn work(&self, payload: &Payload) -> u64 {
        let (mut work, mut whole) = (0_u64, 0_u64);
        for (depth, has) in payload.levels.iter().enumerate() {
            let asks = self.levels.get(depth).copied().unwrap_or_default();
            whole = whole.saturating_add(asks.whole);
            // A name that is hashed is one of what lies around it.
            for (count, units) in [
                (has.values, asks.value.saturating_add(whole)),
                (has.names, asks.name.saturating_add(whole)),
                (has.text / BYTES, asks.text.saturating_add(whole)),
                (has.name_text / BYTES, asks.name_text.saturating_add(whole)),
            ] {
                work = work.saturating_add(count.saturating_mul(units));
            }
        }
        work
    }
}

/// How much of a payload lies how deep.
#[derive(Debug, Default)]
pub(super) struct Payload {
    levels: Vec<Amount>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    values: u64,
    text: u64,
    names: u64,
    name_text: u64,
}

impl Payload {
    /// Of a payload that is no deeper than the stack bears.
    pub(super) fn of(payload: &Value) -> Self {
        let mut amounts = Self::default();
        amounts.count(payload, 0);
        amounts
    }

    fn count(&mut self, value: &Value, depth: usize) {
        let amount = self.at(depth);
        amount.values += 1;
        match value {
            // Each begins a piece of its own.
            Value::String(text) => amount.text += text.len() as u64 + BYTES - 1,
            Value::Array(items) => items.iter().for_each(|item| self.count(item, depth + 1)),
            Value::Object(members) => {
                for (name, value) in members {
                    let amount = self.at(depth + 1);
                    amount.names += 1;
                    amount.name_text += name.len() as u64 + BYTES - 1;
                    self.count(value, depth + 1);
                }
            }
            _ => {}
        }
    }

    fn at(&mut self, depth: usize) -> &mut Amount {
        if self.levels.len() <= depth {
            self.levels.resize(depth + 1, Amount::default());
        }
        &mut self.levels[depth]
    }
}

/// Schemas that look at the same value as this one, itself included.
fn in_place(schema: &Value) -> u64 {
    let Value::Object(keywords) = schema else { return 1 };
    let of = |(keyword, value): (&String, &Value)| match (keyword.as_str(), value) {
        ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter().map(in_place).sum(),
        ("dependentSchemas", Value::Object(schemas)) => schemas.values().map(in_place).sum(),
        ("not" | "if" | "then" | "else", schema) => in_place(schema),
        _ => 0,
    };
    1 + keywords.iter().map(of).sum::<u64>()
}

/// Values in a value, itself included.
fn count(value: &Value) -> u64 {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn work(schema: &Value, payload: &Value) -> u64 {
        Cost::of(schema, &mut |_| 100).work(&Payload::of(payload))
    }

    #[test]
    fn work_is_what_a_schema_asks_of_each_value_times_the_values() {
        let numbers = json!(vec![7; 1_000]);
        for (schema, least, most) in [
            (json!(true), 1, 1_000),
            (json!({"type": "array"}), 2, 1_000),
            (json!({"items": {"minimum": 1}}), 2_000, 2_100),
            // Each asks each.
            (
                json!({"items": {"allOf": vec![json!({"minimum": 1}); 100]}}),
                200_000,
                210_000,
            ),
            (
                json!({"anyOf": vec![json!({"items": {"minimum": 1}}); 100]}),
                200_000,
                210_000,
            ),
            (
                json!({"items": {"enum": (0..500).collect::<Vec<_>>()}}),
                600_000,
                700_000,
            ),
            (json!({"uniqueItems": true}), 8_000, 8_100),
            (json!({"items": {"multipleOf": 2}}), 2_000, 2_100),
            (json!({"items": {"multipleOf": 0.1}}), 250_000, 260_000),
            (
                json!({"allOf": vec![json!({"contains": {"const": 1}}); 10], "unevaluatedItems": false}),
                400_000,
                600_000,
            ),
        ] {
            let work = work(&schema, &numbers);
            assert!((least..=most).contains(&work), "{schema}: {work}");
        }
    }

    #[test]
    fn of_properties_only_one_looks_at_a_member_and_of_patterns_each() {
        let member = |n: usize| (format!("m{n}"), json!({"minimum": 1}));
        let members: Map<String, Value> = (0..100).map(member).collect();
        let payload: Value = (0..100)
            .map(|n| (format!("m{n}"), json!(n)))
            .collect::<Map<_, _>>()
            .into();
        let properties = work(&json!({"properties": members.clone()}), &payload);
        assert!((200..500).contains(&properties), "{properties}");
        let patterns = work(&json!({"patternProperties": members}), &payload);
        // 100 units a piece of a name, 100 patterns, 100 names of one piece.
        assert!((1_000_000..1_200_000).contains(&patterns), "{patterns}");
    }

    #[test]
    fn text_is_charged_by_its_length_where_a_keyword_reads_it() {
        let text = |length: usize| json!(["a".repeat(length)]);
        let schema = json!({"items": {"pattern": "x"}});
        assert!(work(&schema, &text(16)) < 300);
        assert!((100_000..110_000).contains(&work(&schema, &text(16_000))));
        assert!(
            work(&json!({"pattern": "x"}), &text(16_000)) < 10,
            "the text is not the root"
        );
        let names = json!({"propertyNames": {"pattern": "x"}});
        let payload = json!({"a".repeat(16_000): 1});
        assert!((100_000..110_000).contains(&work(&names, &payload)));
    }

    #[test]
    fn a_list_within_lists_that_are_unique_is_hashed_by_each() {
        let unique = |depth| {
            (0..depth).fold(
                json!({"uniqueItems": true}),
                |items, _| json!({"uniqueItems": true, "items": items}),
            )
        };
        let payload = (0..30).fold(json!(vec![7; 1_000]), |inner, _| json!([inner]));
        assert!(work(&unique(30), &payload) > 20 * work(&unique(0), &payload));
    }

    #[test]
    fn nothing_overflows() {
        let cost = Cost::of(&json!({"pattern": "x"}), &mut |_| u64::MAX / 2);
        assert_eq!(cost.work(&Payload::of(&json!("a".repeat(100)))), u64::MAX);
    }
}
