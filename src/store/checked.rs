//! What may be asked of any store, asked in one place: an implementation behind [`Checked`] is given nothing
//! that it cannot keep, and so both refuse alike.

use super::{
    Addition, BoxFuture, Collection, Document, Draft, Engine, Query, Store, StoreError, Walked, Written,
    rules,
};

/// A store that is asked only what can be asked.
pub(super) struct Checked<E>(pub(super) E);

/// An answer that needs no question.
fn known<'a, T: Send + 'a>(answer: Result<T, StoreError>) -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(std::future::ready(answer))
}

/// `ask` if what is asked can be, else its error.
fn if_allowed<'a, T: Send + 'a>(
    allowed: Result<(), StoreError>,
    ask: impl FnOnce() -> BoxFuture<'a, Result<T, StoreError>>,
) -> BoxFuture<'a, Result<T, StoreError>> {
    match allowed {
        Ok(()) => ask(),
        Err(error) => known(Err(error)),
    }
}

impl<E: Engine> Store for Checked<E> {
    fn get<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>> {
        if rules::is_id(id) {
            self.0.get(collection, id)
        } else {
            known(Ok(None))
        }
    }

    fn find<'a>(
        &'a self,
        collection: Collection,
        unique: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>> {
        if rules::is_key(unique) {
            self.0.find(collection, unique)
        } else {
            known(Ok(None))
        }
    }

    fn insert<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>> {
        if_allowed(rules::draft(collection, id, &draft), || {
            self.0.insert(collection, id, draft)
        })
    }

    fn replace<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: u64,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>> {
        if_allowed(rules::draft(collection, id, &draft), || {
            self.0.replace(collection, id, revision, draft)
        })
    }

    fn remove<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        if rules::is_id(id) {
            self.0.remove(collection, id, revision)
        } else {
            known(Ok(false))
        }
    }

    fn list(&self, collection: Collection, query: Query) -> BoxFuture<'_, Result<Vec<Document>, StoreError>> {
        let findable = query.key.as_deref().is_none_or(rules::is_key);
        if_allowed(rules::query(&query), || {
            if findable {
                self.0.list(collection, query)
            } else {
                known(Ok(Vec::new()))
            }
        })
    }

    fn add<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        addition: Addition,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        if_allowed(rules::addition(collection, id, &addition), || {
            self.0.add(collection, id, addition)
        })
    }

    fn sweep(
        &self,
        collection: Collection,
        now_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        if_allowed(rules::limit(limit), || self.0.sweep(collection, now_ms, limit))
    }

    fn put(&self, collection: Collection, document: Document) -> BoxFuture<'_, Result<Written, StoreError>> {
        if_allowed(rules::document(collection, &document), || {
            self.0.put(collection, document)
        })
    }

    fn count(&self, collection: Collection) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.0.count(collection)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.ping()
    }
}

impl<E: Engine> Engine for Checked<E> {
    fn lay_out(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.lay_out()
    }

    fn walk(
        &self,
        collection: Collection,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Walked>, StoreError>> {
        self.0.walk(collection, after, limit)
    }
}
