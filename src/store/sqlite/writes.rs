//! Writing documents. All of this runs on the one thread that writes, inside a transaction: what is read
//! here cannot change before what follows from it is written.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    super::{Addition, Document, Draft, StoreError, Written},
    rows::{self, Table, failed},
};

pub(super) fn insert(db: &Connection, table: Table, id: &str, draft: Draft) -> Result<Written, StoreError> {
    if revision_of(db, table, id)?.is_some() {
        return Ok(Written::Conflict);
    }
    let Draft {
        unique,
        keys,
        expires_ms,
        body,
    } = draft;
    put(
        db,
        table,
        &Document {
            id: id.to_owned(),
            revision: 1,
            unique,
            keys,
            expires_ms,
            body,
            numbers: Default::default(),
            added: Default::default(),
        },
    )
}

pub(super) fn replace(
    db: &Connection,
    table: Table,
    id: &str,
    revision: u64,
    draft: &Draft,
) -> Result<Written, StoreError> {
    let present = revision_of(db, table, id)?;
    let Some(present) = present.filter(|present| u64::try_from(*present) == Ok(revision)) else {
        return Ok(Written::Conflict);
    };
    if is_taken(db, table, id, draft.unique.as_deref())? {
        return Ok(Written::Taken);
    }
    let statement = format!(
        "UPDATE {table} SET revision = ?2, uniq = ?3, keys = ?4, expires = ?5, body = ?6 WHERE id = ?1"
    );
    let next = present.saturating_add(1);
    let (keys, body) = (text(&draft.keys)?, text(&draft.body)?);
    let values = params![id, next, draft.unique, keys, draft.expires_ms, body];
    db.execute(&statement, values).map_err(failed)?;
    set_keys(db, table, id, &draft.keys)?;
    Ok(Written::Done)
}

pub(super) fn put(db: &Connection, table: Table, document: &Document) -> Result<Written, StoreError> {
    if is_taken(db, table, &document.id, document.unique.as_deref())? {
        return Ok(Written::Taken);
    }
    let statement = format!(
        "INSERT INTO {table} (id, revision, uniq, keys, expires, body, numbers, added)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, uniq = excluded.uniq,
             keys = excluded.keys, expires = excluded.expires, body = excluded.body,
             numbers = excluded.numbers, added = excluded.added"
    );
    let values = params![
        document.id,
        document.revision.cast_signed(),
        document.unique,
        text(&document.keys)?,
        document.expires_ms,
        text(&document.body)?,
        text(&document.numbers)?,
        text(&document.added)?,
    ];
    db.execute(&statement, values).map_err(failed)?;
    set_keys(db, table, &document.id, &document.keys)?;
    Ok(Written::Done)
}

pub(super) fn remove(
    db: &Connection,
    table: Table,
    id: &str,
    revision: Option<u64>,
) -> Result<bool, StoreError> {
    let Ok(revision) = revision.map(i64::try_from).transpose() else {
        // None has been written so often.
        return Ok(false);
    };
    let statement = format!("DELETE FROM {table} WHERE id = ?1 AND (?2 IS NULL OR revision = ?2)");
    let removed = db.execute(&statement, params![id, revision]).map_err(failed)?;
    Ok(removed > 0)
}

pub(super) fn add(db: &Connection, table: Table, id: &str, addition: Addition) -> Result<bool, StoreError> {
    let Addition {
        source,
        sequence,
        sums,
        peaks,
        keys,
        expires_ms,
    } = addition;
    let present = rows::get(db, table, id)?;
    let mut document = present.unwrap_or_else(|| Document {
        id: id.to_owned(),
        revision: 1,
        unique: None,
        keys,
        expires_ms,
        body: Value::Object(Map::new()),
        numbers: Default::default(),
        added: Default::default(),
    });
    if document.added.get(&source).is_some_and(|last| *last >= sequence) {
        return Ok(false);
    }
    document.added.insert(source, sequence);
    for (name, amount) in sums {
        let number = document.numbers.entry(name).or_insert(0);
        *number = number
            .checked_add(amount)
            .ok_or(StoreError::Invalid("a number would leave what an i64 holds"))?;
    }
    for (name, peak) in peaks {
        let number = document.numbers.entry(name).or_insert(peak);
        *number = peak.max(*number);
    }
    put(db, table, &document)?;
    Ok(true)
}

pub(super) fn sweep(db: &Connection, table: Table, now_ms: i64, limit: usize) -> Result<usize, StoreError> {
    let statement = format!(
        "DELETE FROM {table} WHERE id IN
             (SELECT id FROM {table} WHERE expires <= ?1 ORDER BY expires LIMIT {limit})"
    );
    db.execute(&statement, [now_ms]).map_err(failed)
}

fn revision_of(db: &Connection, table: Table, id: &str) -> Result<Option<i64>, StoreError> {
    let statement = format!("SELECT revision FROM {table} WHERE id = ?1");
    let found = db.query_row(&statement, [id], |row| row.get(0)).optional();
    found.map_err(failed)
}

/// Whether another document has this unique value.
fn is_taken(db: &Connection, table: Table, id: &str, unique: Option<&str>) -> Result<bool, StoreError> {
    let Some(unique) = unique else {
        return Ok(false);
    };
    let statement = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE uniq = ?1 AND id <> ?2)");
    let taken = db.query_row(&statement, [unique, id], |row| row.get(0));
    taken.map_err(failed)
}

/// Writes by which keys a document is found. That it has them, and in which order, is in its row.
fn set_keys(db: &Connection, table: Table, id: &str, keys: &[String]) -> Result<(), StoreError> {
    let statement = format!("DELETE FROM {table}_keys WHERE id = ?1");
    db.execute(&statement, [id]).map_err(failed)?;
    // A key that is given twice is one.
    let statement = format!("INSERT OR IGNORE INTO {table}_keys (key, id) VALUES (?1, ?2)");
    let mut insert = db.prepare(&statement).map_err(failed)?;
    for key in keys {
        insert.execute([key.as_str(), id]).map_err(failed)?;
    }
    Ok(())
}

fn text(value: &impl Serialize) -> Result<String, StoreError> {
    // Plain data with names that are texts: it can be written.
    serde_json::to_string(value).map_err(|error| StoreError::Failed(error.to_string()))
}
