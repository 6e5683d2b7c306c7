//! Documents as MongoDB has them.
//!
//! Whole numbers are always 64 bits wide, so that they come back as whole numbers. What is not there is
//! left out, since `$setOnInsert` of FerretDB leaves out null and empty arrays, too. And an array inside an
//! array, which FerretDB refuses, is the only field of a document there, under the empty name that no
//! document of ours can have.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, Document as Fields, doc};
use serde_json::{Map, Number, Value};

use super::super::{Addition, Document, Draft};

/// Why what was read is no document.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("`{0}` is missing, or is not what is written there")]
    Field(&'static str),
    #[error("its body holds what JSON has not")]
    Body,
}

/// A new document.
pub(super) fn new(id: &str, draft: &Draft) -> Fields {
    let mut fields = doc! { "_id": id, "revision": 1_i64 };
    fields.extend(written(
        draft.unique.as_deref(),
        &draft.keys,
        draft.expires_ms,
        &draft.body,
    ));
    fields.extend(doc! { "numbers": {}, "added": {} });
    fields
}

/// The update that replaces all of a document but its numbers.
pub(super) fn replacement(draft: &Draft, revision: i64) -> Fields {
    let mut set = written(
        draft.unique.as_deref(),
        &draft.keys,
        draft.expires_ms,
        &draft.body,
    );
    set.insert("revision", revision);
    let mut update = doc! { "$set": set };
    if draft.expires_ms.is_none() {
        update.insert("$unset", doc! { "expires": "" });
    }
    update
}

/// A whole document.
pub(super) fn fields(document: &Document) -> Fields {
    let Document {
        id,
        revision,
        unique,
        keys,
        expires_ms,
        body,
        numbers,
        added,
    } = document;
    let mut fields = doc! { "_id": id, "revision": revision.cast_signed() };
    fields.extend(written(unique.as_deref(), keys, *expires_ms, body));
    fields.extend(doc! { "numbers": map(numbers), "added": map(added) });
    fields
}

/// The update that adds, and makes the document if there is none.
pub(super) fn addition(addition: &Addition) -> Fields {
    let Addition {
        source,
        sequence,
        sums,
        peaks,
        keys,
        expires_ms,
    } = addition;
    let numbers = |numbers: &BTreeMap<String, i64>| -> Fields {
        let number = |(name, value): (&String, &i64)| (format!("numbers.{name}"), Bson::Int64(*value));
        numbers.iter().map(number).collect()
    };
    let body = Value::Object(Map::new());
    let mut new = written(None, keys, *expires_ms, &body);
    new.insert("revision", 1_i64);
    let mut update = doc! { "$set": { format!("added.{source}"): *sequence } };
    if sums.is_empty() && peaks.is_empty() {
        new.insert("numbers", Fields::new());
    }
    update.insert("$setOnInsert", new);
    // An operator without fields is refused by older servers.
    for (operator, fields) in [("$inc", numbers(sums)), ("$max", numbers(peaks))] {
        if !fields.is_empty() {
            update.insert(operator, fields);
        }
    }
    update
}

fn written(unique: Option<&str>, keys: &[String], expires_ms: Option<i64>, body: &Value) -> Fields {
    let mut fields = doc! { "keys": keys, "body": bson(body) };
    if let Some(unique) = unique {
        fields.insert("unique", unique);
    }
    if let Some(expires_ms) = expires_ms {
        fields.insert("expires", expires_ms);
    }
    fields
}

fn map(numbers: &BTreeMap<String, i64>) -> Fields {
    numbers
        .iter()
        .map(|(name, value)| (name.clone(), Bson::Int64(*value)))
        .collect()
}

fn bson(value: &Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(*flag),
        // What is neither is refused by the rules before.
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Bson::Int64(whole),
            None => number.as_f64().map_or(Bson::Null, Bson::Double),
        },
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(items) => Bson::Array(items.iter().map(item).collect()),
        Value::Object(fields) => Bson::Document(
            fields
                .iter()
                .map(|(name, field)| (name.clone(), bson(field)))
                .collect(),
        ),
    }
}

/// The name of the only field of a document that stands for an array inside an array.
const INNER_ARRAY: &str = "";

fn item(value: &Value) -> Bson {
    match value {
        Value::Array(_) => Bson::Document(doc! { INNER_ARRAY: bson(value) }),
        _ => bson(value),
    }
}

/// A document that was read.
pub(super) fn document(mut fields: Fields) -> Result<Document, Damage> {
    let (unique, keys, expires) = (
        fields.remove("unique").unwrap_or(Bson::Null),
        fields.remove("keys").unwrap_or(Bson::Null),
        fields.remove("expires").unwrap_or(Bson::Null),
    );
    let mut take = |name: &'static str| fields.remove(name).ok_or(Damage::Field(name));
    let id = text(take("_id")?).ok_or(Damage::Field("_id"))?;
    let revision = whole(&take("revision")?)
        .and_then(|revision| u64::try_from(revision).ok())
        .ok_or(Damage::Field("revision"))?;
    let unique = match unique {
        Bson::Null => None,
        unique => Some(text(unique).ok_or(Damage::Field("unique"))?),
    };
    let keys = match keys {
        Bson::Null => Some(Vec::new()),
        Bson::Array(keys) => keys.into_iter().map(text).collect::<Option<_>>(),
        _ => None,
    };
    let expires_ms = match expires {
        Bson::Null => None,
        expires => Some(whole(&expires).ok_or(Damage::Field("expires"))?),
    };
    let body = match take("body")? {
        Bson::Document(body) => json(Bson::Document(body)).ok_or(Damage::Body)?,
        _ => return Err(Damage::Field("body")),
    };
    Ok(Document {
        id,
        revision,
        unique,
        keys: keys.ok_or(Damage::Field("keys"))?,
        expires_ms,
        body,
        numbers: numbers(take("numbers")?).ok_or(Damage::Field("numbers"))?,
        added: numbers(take("added")?).ok_or(Damage::Field("added"))?,
    })
}

fn text(value: Bson) -> Option<String> {
    match value {
        Bson::String(text) => Some(text),
        _ => None,
    }
}

/// A whole number, also if a server has made it shorter.
fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        _ => None,
    }
}

fn numbers(value: Bson) -> Option<BTreeMap<String, i64>> {
    let Bson::Document(fields) = value else {
        return None;
    };
    fields
        .into_iter()
        .map(|(name, value)| Some((name, whole(&value)?)))
        .collect()
}

fn json(value: Bson) -> Option<Value> {
    Some(match value {
        Bson::Null => Value::Null,
        Bson::Boolean(flag) => Value::Bool(flag),
        Bson::Int32(number) => number.into(),
        Bson::Int64(number) => number.into(),
        Bson::Double(number) => Value::Number(Number::from_f64(number)?),
        Bson::String(text) => Value::String(text),
        Bson::Array(items) => Value::Array(items.into_iter().map(json).collect::<Option<_>>()?),
        Bson::Document(mut fields) if fields.contains_key(INNER_ARRAY) => {
            let inner = fields.remove(INNER_ARRAY)?;
            let alone = fields.is_empty() && matches!(inner, Bson::Array(_));
            return json(inner).filter(|_| alone);
        }
        Bson::Document(fields) => {
            let fields = fields.into_iter().map(|(name, field)| Some((name, json(field)?)));
            Value::Object(fields.collect::<Option<Map<_, _>>>()?)
        }
        _ => return None,
    })
}
