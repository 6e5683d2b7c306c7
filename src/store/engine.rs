use super::{BoxFuture, Collection, Document, Store, StoreError};

/// A document met on a walk through a collection.
#[derive(Debug)]
pub struct Walked {
    /// Its id, as far as it is one.
    pub id: String,
    /// The document, or why it cannot be read. Never quotes what it holds.
    pub document: Result<Document, String>,
}

/// A [`Store`] as those see it who look after it: migrations, `check`, export and import.
pub trait Engine: Store {
    /// Makes the tables, collections and indexes that are not there. May run any number of times, on
    /// several nodes at once.
    fn lay_out(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Up to `limit` documents in the order of their ids, after an id. Unlike [`Store::list`] it goes on
    /// where one cannot be read.
    fn walk(
        &self,
        collection: Collection,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Walked>, StoreError>>;
}
