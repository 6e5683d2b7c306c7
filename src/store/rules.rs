//! What can be stored: pure, and the same for all implementations, so that what one takes the other does.

use serde_json::Value;

use super::{Addition, Collection, Document, Draft, Query, StoreError};

const MAX_ID: usize = 200;
const MAX_TEXT: usize = 300;
const MAX_KEYS: usize = 1_000;
const MAX_NAME: usize = 64;
const MAX_NUMBERS: usize = 1_000;
const MAX_LIMIT: usize = 1_000;
/// MongoDB takes 100 levels with those around the body, and JSON parsers of this crate 128.
const MAX_DEPTH: usize = 32;
const MAX_BODY: usize = 1 << 20;
/// What a value is counted with besides its name and its text.
const VALUE_BYTES: usize = 16;

type Outcome = Result<(), StoreError>;

fn must(holds: bool, message: &'static str) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(StoreError::Invalid(message))
    }
}

/// Whether a document can have this id.
pub(super) fn is_id(id: &str) -> bool {
    is_text(id, MAX_ID)
}

/// Whether a document can have this key, or unique value.
pub(super) fn is_key(key: &str) -> bool {
    is_text(key, MAX_TEXT)
}

fn is_text(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// # Errors
///
/// Says what is wrong with a document that is to be written.
pub(super) fn draft(collection: Collection, id: &str, draft: &Draft) -> Outcome {
    parts(collection, id, draft.unique.as_deref(), &draft.keys, &draft.body)
}

/// # Errors
///
/// Says which rule a whole document breaks.
pub(super) fn document(collection: Collection, document: &Document) -> Outcome {
    let Document {
        id,
        revision,
        unique,
        keys,
        expires_ms: _,
        body,
        numbers,
        added,
    } = document;
    parts(collection, id, unique.as_deref(), keys, body)?;
    must(
        (1..=i64::MAX as u64).contains(revision),
        "a revision is at least 1 and at most what an i64 holds",
    )?;
    names(numbers.keys())?;
    must(
        added.len() <= MAX_NUMBERS && added.keys().all(|source| is_source(source)),
        SOURCE,
    )?;
    must(added.values().all(|sequence| *sequence > 0), SEQUENCE)
}

/// # Errors
///
/// Says what is wrong with an addition.
pub(super) fn addition(collection: Collection, id: &str, addition: &Addition) -> Outcome {
    let Addition {
        source,
        sequence,
        sums,
        peaks,
        keys,
        expires_ms: _,
    } = addition;
    must(is_id(id), ID)?;
    must(
        !collection.has_unique(),
        "the documents of this collection have a unique value, so an addition makes none",
    )?;
    must(is_source(source), SOURCE)?;
    must(*sequence > 0, SEQUENCE)?;
    keys_of(keys)?;
    must(
        sums.keys().all(|name| !peaks.contains_key(name)),
        "a number is either a sum or a peak",
    )?;
    names(sums.keys().chain(peaks.keys()))
}

/// # Errors
///
/// Says what is wrong with a query.
pub(super) fn query(query: &Query) -> Outcome {
    limit(query.limit)
}

/// # Errors
///
/// If more documents at once are wanted than there may be, or none.
pub(super) fn limit(limit: usize) -> Outcome {
    must(
        (1..=MAX_LIMIT).contains(&limit),
        "1 to 1,000 documents come at once",
    )
}

const ID: &str = "an id has 1 to 200 bytes and no control characters";
const SOURCE: &str = "a source has 1 to 64 letters, digits, '-' and '_'";
const SEQUENCE: &str = "the sequence of an addition is greater than 0";

fn parts(collection: Collection, id: &str, unique: Option<&str>, keys: &[String], body: &Value) -> Outcome {
    must(is_id(id), ID)?;
    must(
        unique.is_some() == collection.has_unique(),
        "a document has a unique value exactly if its collection has them",
    )?;
    must(
        unique.is_none_or(is_key),
        "a unique value has 1 to 300 bytes and no control characters",
    )?;
    keys_of(keys)?;
    must(body.is_object(), "the body of a document is an object")?;
    let mut room = MAX_BODY;
    value(body, MAX_DEPTH, &mut room)
}

fn keys_of(keys: &[String]) -> Outcome {
    must(keys.len() <= MAX_KEYS, "a document has at most 1,000 keys")?;
    must(
        keys.iter().all(|key| is_key(key)),
        "a key has 1 to 300 bytes and no control characters",
    )
}

fn names<'a>(mut names: impl Iterator<Item = &'a String> + Clone) -> Outcome {
    must(
        names.clone().count() <= MAX_NUMBERS,
        "a document has at most 1,000 numbers",
    )?;
    must(
        names.all(|name| is_word(name, "_")),
        "the name of a number has 1 to 64 letters, digits and '_'",
    )
}

fn is_source(source: &str) -> bool {
    is_word(source, "-_")
}

fn is_word(word: &str, besides: &str) -> bool {
    (1..=MAX_NAME).contains(&word.len())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || besides.contains(c))
}

/// Checks a value that may be `depth` levels deep, and takes what it needs from `room`.
fn value(value: &Value, depth: usize, room: &mut usize) -> Outcome {
    take(room, VALUE_BYTES)?;
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => must(
            number.is_i64() || number.is_f64(),
            "a whole number in a body is at most what an i64 holds",
        ),
        Value::String(text) => take(room, text.len()),
        Value::Array(items) => {
            let depth = deeper(depth)?;
            items.iter().try_for_each(|item| self::value(item, depth, room))
        }
        Value::Object(fields) => {
            let depth = deeper(depth)?;
            fields.iter().try_for_each(|(name, field)| {
                must(
                    !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0']),
                    "a name in a body is not empty, does not begin with '$', and holds no '.' and no NUL",
                )?;
                take(room, name.len())?;
                self::value(field, depth, room)
            })
        }
    }
}

fn deeper(depth: usize) -> Result<usize, StoreError> {
    depth
        .checked_sub(1)
        .ok_or(StoreError::Invalid("a body is at most 32 levels deep"))
}

fn take(room: &mut usize, bytes: usize) -> Outcome {
    *room = room
        .checked_sub(bytes)
        .ok_or(StoreError::Invalid("a body is at most 1 MiB large"))?;
    Ok(())
}
