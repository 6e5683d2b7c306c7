//! The file: how it is opened, whose it is, and what tables it has.

use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{
    super::{Collection, OpenError, StoreError},
    rows::Table,
};

/// Says in the head of a file whose it is: "slip".
const APPLICATION: i32 = i32::from_be_bytes(*b"slip");

/// Bytes to which the write-ahead log is cut when all of it is in the file.
const LOG_BYTES: i64 = 64 << 20;

/// A connection to the file, which is made if there is none, for its owner alone.
pub(super) fn open(path: &Path, timeout: Duration) -> Result<Connection, OpenError> {
    own(path).map_err(|source| OpenError::File {
        path: path.to_owned(),
        source,
    })?;
    let mut db = connect(path, timeout).map_err(|error| refused(path, &error))?;
    if !claim(&mut db).map_err(|error| refused(path, &error))? {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    // Stays in the file, and cannot be set in a transaction.
    let mode: String = db
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|error| refused(path, &error))?;
    if mode != "wal" {
        return Err(OpenError::File {
            path: path.to_owned(),
            source: io::Error::other("its file system has no shared memory, which a write-ahead log needs"),
        });
    }
    Ok(db)
}

/// A connection to a file that [`open`] has opened, which cannot write.
pub(super) fn open_for_reading(path: &Path, timeout: Duration) -> Result<Connection, OpenError> {
    let db = connect(path, timeout).map_err(|error| refused(path, &error))?;
    db.pragma_update(None, "query_only", true)
        .map_err(|error| refused(path, &error))?;
    Ok(db)
}

/// Makes the file, or takes from others what they may do with it: it holds the hashes of passwords.
fn own(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn connect(path: &Path, timeout: Duration) -> rusqlite::Result<Connection> {
    // A connection stays on its thread, so SQLite needs no lock of its own; and a path is never a URI.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(timeout)?;
    // Read before anything is written: this fails if it is not a database.
    application(&db)?;
    db.pragma_update(None, "foreign_keys", true)?;
    // What is answered is on the disk, whatever happens to the machine.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Ok(db)
}

fn application(db: &Connection) -> rusqlite::Result<i32> {
    db.pragma_query_value(None, "application_id", |row| row.get(0))
}

/// Makes an empty file ours. False if it is another program's.
fn claim(db: &mut Connection) -> rusqlite::Result<bool> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match application(&transaction)? {
        APPLICATION => {}
        0 if tables == 0 => {
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            lay_out(&transaction, Table(Collection::Meta))?;
        }
        _ => return Ok(false),
    }
    transaction.commit()?;
    Ok(true)
}

/// Makes what is not there of a collection's tables.
pub(super) fn lay_out(db: &Connection, table: Table) -> rusqlite::Result<()> {
    db.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (
            id TEXT PRIMARY KEY NOT NULL,
            revision INTEGER NOT NULL,
            uniq TEXT,
            keys TEXT NOT NULL,
            expires INTEGER,
            body TEXT NOT NULL,
            numbers TEXT NOT NULL,
            added TEXT NOT NULL
        ) STRICT;
        CREATE INDEX IF NOT EXISTS {table}_expires ON {table} (expires) WHERE expires IS NOT NULL;
        CREATE TABLE IF NOT EXISTS {table}_keys (
            key TEXT NOT NULL,
            id TEXT NOT NULL REFERENCES {table} (id) ON DELETE CASCADE,
            PRIMARY KEY (key, id)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS {table}_keys_id ON {table}_keys (id);"
    ))?;
    if table.0.has_unique() {
        db.execute_batch(&format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {table}_uniq ON {table} (uniq);"
        ))?;
    }
    Ok(())
}

fn refused(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked(path),
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase(path),
        _ => OpenError::Store(StoreError::Failed(format!("{}: {error}", path.display()))),
    }
}
