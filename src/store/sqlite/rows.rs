//! Reading documents, and what a row has for each of their parts.

use std::fmt;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params_from_iter, types::Value};
use serde::de::DeserializeOwned;

use super::super::{Collection, Document, Query, StoreError, Walked};

/// A collection as the name of its table, which is one of a few words and safe in a statement.
#[derive(Clone, Copy)]
pub(super) struct Table(pub(super) Collection);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// What [`document`] reads, of a table that the statement calls `d`.
const COLUMNS: &str = "d.id, d.revision, d.uniq, d.keys, d.expires, d.body, d.numbers, d.added";

/// What went wrong, in the words of the trait.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is named where errors are mapped"
)]
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable("another process has the file locked".to_owned())
        }
        Some(ErrorCode::DiskFull) => StoreError::Unavailable("the disk is full".to_owned()),
        _ => StoreError::Failed(error.to_string()),
    }
}

pub(super) fn get(db: &Connection, table: Table, id: &str) -> Result<Option<Document>, StoreError> {
    one(db, table, "id", id)
}

pub(super) fn find(db: &Connection, table: Table, unique: &str) -> Result<Option<Document>, StoreError> {
    one(db, table, "uniq", unique)
}

fn one(db: &Connection, table: Table, column: &str, value: &str) -> Result<Option<Document>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM {table} d WHERE d.{column} = ?1");
    let found = db
        .query_row(&statement, [value], |row| Ok(document(row)))
        .optional();
    found
        .map_err(failed)?
        .transpose()
        .map_err(|error| damaged(table, &error))
}

pub(super) fn list(db: &Connection, table: Table, query: Query) -> Result<Vec<Document>, StoreError> {
    let Query {
        key,
        after,
        before,
        descending,
        limit,
    } = query;
    // The ids of the side table are in order for each key, so that a page costs what it holds.
    let (from, id) = match &key {
        Some(_) => (format!("{table}_keys k JOIN {table} d ON d.id = k.id"), "k.id"),
        None => (format!("{table} d"), "d.id"),
    };
    let bounds = [
        key.map(|key| ("k.key = ?".to_owned(), key)),
        after.map(|after| (format!("{id} > ?"), after)),
        before.map(|before| (format!("{id} < ?"), before)),
    ];
    let (conditions, values): (Vec<_>, Vec<_>) = bounds.into_iter().flatten().unzip();
    let conditions = match conditions.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", conditions.join(" AND ")),
    };
    let order = if descending { "DESC" } else { "ASC" };
    let statement = format!("SELECT {COLUMNS} FROM {from} {conditions} ORDER BY {id} {order} LIMIT {limit}");
    let values = values.into_iter().map(Value::Text);
    let found = rows(db, &statement, values, document).map_err(failed)?;
    found
        .into_iter()
        .map(|found| found.map_err(|error| damaged(table, &error)))
        .collect()
}

pub(super) fn walk(
    db: &Connection,
    table: Table,
    after: Option<String>,
    limit: usize,
) -> Result<Vec<Walked>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM {table} d WHERE d.id > ? ORDER BY d.id LIMIT {limit}");
    // No id is empty.
    let after = Value::Text(after.unwrap_or_default());
    let walked = |row: &Row<'_>| {
        let id = row.get_ref(0)?;
        Ok::<_, rusqlite::Error>(Walked {
            id: String::from_utf8_lossy(id.as_bytes().unwrap_or_default()).into_owned(),
            document: document(row).map_err(|error| error.to_string()),
        })
    };
    let found = rows(db, &statement, [after], walked).map_err(failed)?;
    found.into_iter().map(|walked| walked.map_err(failed)).collect()
}

pub(super) fn count(db: &Connection, table: Table) -> Result<u64, StoreError> {
    let statement = format!("SELECT count(*) FROM {table}");
    let count = db.query_row(&statement, [], |row| row.get::<_, i64>(0));
    count.map(i64::cast_unsigned).map_err(failed)
}

fn rows<T>(
    db: &Connection,
    statement: &str,
    values: impl IntoIterator<Item = Value>,
    read: impl Fn(&Row<'_>) -> T,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = db.prepare(statement)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row));
    }
    Ok(found)
}

/// Why a row is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error("{0}")]
    Column(#[from] rusqlite::Error),
    // Where, but not what: messages of the parser can quote values.
    #[error("`{0}` is not what is written there")]
    Json(&'static str),
    #[error("its revision is negative")]
    Revision,
}

fn document(row: &Row<'_>) -> Result<Document, RowError> {
    Ok(Document {
        id: row.get(0)?,
        revision: u64::try_from(row.get::<_, i64>(1)?).map_err(|_| RowError::Revision)?,
        unique: row.get(2)?,
        keys: json(row, 3, "keys")?,
        expires_ms: row.get(4)?,
        body: json(row, 5, "body")?,
        numbers: json(row, 6, "numbers")?,
        added: json(row, 7, "added")?,
    })
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize, name: &'static str) -> Result<T, RowError> {
    let text = row.get_ref(column)?.as_str().map_err(|_| RowError::Json(name))?;
    serde_json::from_str(text).map_err(|_| RowError::Json(name))
}

pub(super) fn damaged(table: Table, error: &RowError) -> StoreError {
    StoreError::Failed(format!(
        "a document of {table} cannot be read: {error}; `slipstream store check` says which"
    ))
}
