//! The store in a file of SQLite, for one machine: nothing to install, nothing to run.
//!
//! SQLite has one writer at a time and blocks its thread, so a thread of ours owns the connection that
//! writes ([`worker`]), and does in one transaction what has gathered while the last one was committed.
//! Others read, each with a connection of its own, and see what has been committed when they begin.

mod file;
mod rows;
mod worker;
mod writes;

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::Connection;

use super::{
    Addition, BoxFuture, Collection, Document, Draft, Engine, OpenError, Query, Store, StoreError, Walked,
    Written,
};
use crate::config::StoreConfig;
use rows::Table;
use worker::Pool;

/// A file of SQLite. Dropping it does what is queued, and closes the file.
pub(super) struct SqliteStore {
    // Dropped in this order: the last connection to be closed is the one that writes, and it moves what
    // is in the write-ahead log into the file.
    reader: Pool,
    writer: Pool,
}

impl SqliteStore {
    /// Opens the file, which is made if there is none, without tables but the one of the schema's version.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, belongs to another program or is locked for longer than `store.timeout`.
    pub(super) async fn open(path: &Path, config: &StoreConfig) -> Result<Self, OpenError> {
        let path: Arc<Path> = path.into();
        let timeout = config.timeout;
        let opening = path.clone();
        let open = Arc::new(move || file::open(&opening, timeout));
        let writer = Pool::start("store-write", 1, config.queue, timeout, open, worker::write).await?;
        let open = Arc::new(move || file::open_for_reading(&path, timeout));
        let readers = config.readers;
        let reader = Pool::start("store-read", readers, config.queue, timeout, open, worker::read).await?;
        Ok(Self { reader, writer })
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(self.reader.run(work))
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(self.writer.run(work))
    }
}

impl Store for SqliteStore {
    fn get<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>> {
        let id = id.to_owned();
        self.read(move |db| rows::get(db, Table(collection), &id))
    }

    fn find<'a>(
        &'a self,
        collection: Collection,
        unique: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>> {
        let unique = unique.to_owned();
        self.read(move |db| rows::find(db, Table(collection), &unique))
    }

    fn insert<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>> {
        let id = id.to_owned();
        self.write(move |db| writes::insert(db, Table(collection), &id, draft))
    }

    fn replace<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: u64,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>> {
        let id = id.to_owned();
        self.write(move |db| writes::replace(db, Table(collection), &id, revision, &draft))
    }

    fn remove<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let id = id.to_owned();
        self.write(move |db| writes::remove(db, Table(collection), &id, revision))
    }

    fn list(&self, collection: Collection, query: Query) -> BoxFuture<'_, Result<Vec<Document>, StoreError>> {
        self.read(move |db| rows::list(db, Table(collection), query))
    }

    fn add<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        addition: Addition,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let id = id.to_owned();
        self.write(move |db| writes::add(db, Table(collection), &id, addition))
    }

    fn sweep(
        &self,
        collection: Collection,
        now_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.write(move |db| writes::sweep(db, Table(collection), now_ms, limit))
    }

    fn put(&self, collection: Collection, document: Document) -> BoxFuture<'_, Result<Written, StoreError>> {
        self.write(move |db| writes::put(db, Table(collection), &document))
    }

    fn count(&self, collection: Collection) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.read(move |db| rows::count(db, Table(collection)))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // The thread that writes is the one there is one of.
        self.write(|db| rows::count(db, Table(Collection::Meta)).map(|_| ()))
    }
}

impl Engine for SqliteStore {
    fn lay_out(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(|db| {
            Collection::ALL
                .into_iter()
                .try_for_each(|collection| file::lay_out(db, Table(collection)).map_err(rows::failed))
        })
    }

    fn walk(
        &self,
        collection: Collection,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Walked>, StoreError>> {
        self.read(move |db| rows::walk(db, Table(collection), after, limit))
    }
}

/// What somebody is told who has waited for long enough.
fn late(timeout: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer within {timeout:?}"))
}
