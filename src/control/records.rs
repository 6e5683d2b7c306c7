//! Documents of the store as values of their types.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use super::error::ControlError;
use crate::store::{Collection, Document, Draft, Query, Store, Written};

/// What a page of a list holds at most.
pub(super) const PAGE: usize = 1000;

/// A kind of document.
pub(super) trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Where it is kept.
    const COLLECTION: Collection;
    /// What it is, for "no such ..".
    const NAME: &'static str;
    /// As in [`Document::unique`].
    fn unique(&self) -> Option<String> {
        None
    }
    /// As in [`Document::keys`].
    fn keys(&self) -> Vec<String>;
    /// As in [`Document::expires_ms`].
    fn expires_ms(&self) -> Option<i64> {
        None
    }
}

/// A document that was read.
#[derive(Clone)]
pub(super) struct Stored<T> {
    pub(super) id: String,
    pub(super) revision: u64,
    pub(super) value: T,
}

impl<T: Record> Stored<T> {
    pub(super) fn read(document: Document) -> Result<Self, ControlError> {
        let value = serde_json::from_value(document.body).map_err(|error| {
            // What the error says may quote the document.
            tracing::error!(
                id = document.id,
                line = error.line(),
                "a stored {} cannot be read",
                T::NAME
            );
            ControlError::Internal
        })?;
        Ok(Self {
            id: document.id,
            revision: document.revision,
            value,
        })
    }
}

/// A document that was changed.
pub(super) struct Changed<T, R> {
    /// As it is now.
    pub(super) now: Stored<T>,
    /// As it was.
    pub(super) before: T,
    /// What the change has returned.
    pub(super) with: R,
}

/// The store, in types.
#[derive(Clone)]
pub(super) struct Records {
    store: Arc<dyn Store>,
    tries: u32,
}

impl Records {
    /// Tries a change that another came before `tries` times.
    pub(super) fn new(store: Arc<dyn Store>, tries: u32) -> Self {
        Self { store, tries }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) async fn get<T: Record>(&self, id: &str) -> Result<Option<Stored<T>>, ControlError> {
        let found = self.store.get(T::COLLECTION, id).await?;
        found.map(Stored::read).transpose()
    }

    /// The document, or `not_found`.
    pub(super) async fn need<T: Record>(&self, id: &str) -> Result<Stored<T>, ControlError> {
        self.get(id).await?.ok_or(ControlError::NotFound(T::NAME))
    }

    pub(super) async fn find<T: Record>(&self, unique: &str) -> Result<Option<Stored<T>>, ControlError> {
        let found = self.store.find(T::COLLECTION, unique).await?;
        found.map(Stored::read).transpose()
    }

    /// A page of those with `key`, from the smallest id up.
    pub(super) async fn list<T: Record>(&self, key: String) -> Result<Vec<Stored<T>>, ControlError> {
        let query = Query {
            key: Some(key),
            limit: PAGE,
            ..Query::default()
        };
        let found = self.store.list(T::COLLECTION, query).await?;
        found.into_iter().map(Stored::read).collect()
    }

    pub(super) async fn insert<T: Record>(&self, id: String, value: T) -> Result<Stored<T>, ControlError> {
        match self.store.insert(T::COLLECTION, &id, draft(&value)?).await? {
            Written::Done => Ok(Stored {
                id,
                revision: 1,
                value,
            }),
            Written::Conflict => Err(ControlError::Conflict),
            Written::Taken => Err(ControlError::EmailTaken),
        }
    }

    /// Replaces what was read, unless it has been changed since: false then.
    pub(super) async fn replace<T: Record>(&self, stored: &Stored<T>) -> Result<bool, ControlError> {
        let (id, revision) = (&stored.id, stored.revision);
        let draft = draft(&stored.value)?;
        match self.store.replace(T::COLLECTION, id, revision, draft).await? {
            Written::Done => Ok(true),
            Written::Conflict => Ok(false),
            Written::Taken => Err(ControlError::EmailTaken),
        }
    }

    /// Removes what was read, unless it has been changed since, or is gone: false then.
    pub(super) async fn remove<T: Record>(&self, stored: &Stored<T>) -> Result<bool, ControlError> {
        let removed = self
            .store
            .remove(T::COLLECTION, &stored.id, Some(stored.revision));
        Ok(removed.await?)
    }

    /// Removes whatever is there.
    pub(super) async fn remove_any<T: Record>(&self, id: &str) -> Result<bool, ControlError> {
        Ok(self.store.remove(T::COLLECTION, id, None).await?)
    }

    /// Changes a document by compare-and-set: `how` decides on what is there at that moment, and again if
    /// another came before.
    ///
    /// # Errors
    ///
    /// `not_found`, what `how` refuses, `conflict` if others come before again and again.
    pub(super) async fn change<T: Record, R: Send>(
        &self,
        id: &str,
        how: impl FnMut(&mut T) -> Result<R, ControlError> + Send,
    ) -> Result<Changed<T, R>, ControlError> {
        self.change_seen(id, None, how).await
    }

    /// The same, for who has `seen` a revision of it: another is not changed.
    ///
    /// # Errors
    ///
    /// `stale`, and as [`Records::change`].
    pub(super) async fn change_seen<T: Record, R: Send>(
        &self,
        id: &str,
        seen: Option<u64>,
        mut how: impl FnMut(&mut T) -> Result<R, ControlError> + Send,
    ) -> Result<Changed<T, R>, ControlError> {
        for _ in 0..self.tries {
            let mut stored = self.need::<T>(id).await?;
            if seen.is_some_and(|seen| seen != stored.revision) {
                return Err(ControlError::Stale(stored.revision));
            }
            let before = stored.value.clone();
            let with = how(&mut stored.value)?;
            if self.replace(&stored).await? {
                stored.revision += 1;
                return Ok(Changed {
                    now: stored,
                    before,
                    with,
                });
            }
        }
        Err(ControlError::Conflict)
    }
}

fn draft<T: Record>(value: &T) -> Result<Draft, ControlError> {
    Ok(Draft {
        unique: value.unique(),
        keys: value.keys(),
        expires_ms: value.expires_ms(),
        body: serde_json::to_value(value).map_err(|_| ControlError::Internal)?,
    })
}
