//! The store in a database of MongoDB, or of a server that speaks its protocol and changes one document
//! atomically.
//!
//! One collection for each of ours, with ids in `_id`. What is used of MongoDB is what nearly every such
//! server has: no transactions, no TTL indexes, no change streams. What a server says when a value is
//! there twice differs, so that after a refusal what is there decides.

mod bson;
mod error;
mod work;

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use mongodb::{
    Client, Database, IndexModel,
    bson::{Bson, Document as Fields, doc},
    options::{
        ClientOptions, CollectionOptions, FindOptions, IndexOptions, ReadConcern, ReadPreference,
        SelectionCriteria, WriteConcern,
    },
};

use super::{
    Addition, BoxFuture, Collection, Document, Draft, Engine, OpenError, Query, Store, StoreError, Walked,
    Written,
};
use crate::{config::StoreConfig, task::Tasks};
use error::{failed, is_duplicate, is_overflow, is_refusal};
use work::Work;

/// The database, if the URL names none.
const DATABASE: &str = "slipstream";

/// How often a write is tried that was refused for a reason that has gone since.
const TRIES: usize = 5;

type Answer<T> = Result<T, mongodb::error::Error>;

pub(super) struct MongoStore {
    collections: Collections,
    work: Work,
}

/// The database, for one operation.
#[derive(Clone)]
struct Collections(Arc<Database>);

impl Collections {
    /// A collection whose reads see what a majority has, and so nothing that is taken back later.
    fn of(&self, collection: Collection) -> mongodb::Collection<Fields> {
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .build();
        self.0.collection_with_options(collection.as_str(), options)
    }

    /// The collection with what the server has, to see why it refused a write.
    fn latest(&self, collection: Collection) -> mongodb::Collection<Fields> {
        self.0.collection(collection.as_str())
    }

    async fn has(&self, collection: Collection, filter: Fields) -> Answer<bool> {
        Ok(self.latest(collection).find_one(filter).await?.is_some())
    }

    /// Why a write of a document (with its id and unique value) was refused: asked, since servers tell it in
    /// different ways, or not at all. `conflict` says whether it was the document that should have been there,
    /// or not. `None` if nothing stands in its way any more: to be tried again.
    async fn why(
        &self,
        error: mongodb::error::Error,
        conflict: impl Future<Output = Answer<bool>>,
        (collection, id, unique): (Collection, &str, Option<&str>),
    ) -> Result<Option<Written>, StoreError> {
        if !is_refusal(&error) {
            return Err(failed(error));
        }
        if conflict.await.map_err(failed)? {
            return Ok(Some(Written::Conflict));
        }
        if self.is_taken(collection, id, unique).await.map_err(failed)? {
            return Ok(Some(Written::Taken));
        }
        if is_duplicate(&error) {
            Ok(None)
        } else {
            Err(failed(error))
        }
    }

    /// Whether another document has this unique value.
    async fn is_taken(&self, collection: Collection, id: &str, unique: Option<&str>) -> Answer<bool> {
        match unique {
            Some(unique) => {
                let filter = doc! { "unique": unique, "_id": { "$ne": id } };
                self.has(collection, filter).await
            }
            None => Ok(false),
        }
    }
}

impl MongoStore {
    /// Connects, and waits until a server answers.
    ///
    /// # Errors
    ///
    /// If the URL is none, or nothing answers within `store.timeout`.
    pub(super) async fn open(url: &str, config: &StoreConfig, tasks: &Tasks) -> Result<Self, OpenError> {
        // What the driver says of a URL can quote it.
        let mut options = ClientOptions::parse(url)
            .await
            .map_err(|_| OpenError::Url("is not a URL of MongoDB, or has an option that is not known"))?;
        options.app_name.get_or_insert_with(|| "slipstream".to_owned());
        options.server_selection_timeout = Some(config.timeout);
        options.connect_timeout = Some(config.timeout);
        options.max_pool_size = u32::try_from(config.max_in_flight).ok();
        options.write_concern = Some(WriteConcern::majority());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let name = options.default_database.clone();
        let client = Client::with_options(options).map_err(failed)?;
        let database = client.database(name.as_deref().unwrap_or(DATABASE));
        let store = Self {
            collections: Collections(Arc::new(database)),
            work: Work::new(config, tasks),
        };
        store.ping().await?;
        Ok(store)
    }

    /// Has the driver do something, as [`Work::run`] says.
    fn run<'a, T, F, Fut>(&'a self, operation: F) -> BoxFuture<'a, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(Collections) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        Box::pin(self.work.run(operation(self.collections.clone())))
    }
}

/// An answer that needs no question.
fn known<'a, T: Send + 'a>(answer: Result<T, StoreError>) -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(std::future::ready(answer))
}

/// What there is to say of a write that was refused again and again while nothing stood in its way.
fn restless() -> StoreError {
    StoreError::Unavailable("others write the same document all the time".to_owned())
}

async fn one(of: mongodb::Collection<Fields>, filter: Fields) -> Result<Option<Document>, StoreError> {
    let found = of.find_one(filter).await.map_err(failed)?;
    found
        .map(|fields| bson::document(fields).map_err(damaged))
        .transpose()
}

fn damaged(why: bson::Damage) -> StoreError {
    StoreError::Failed(format!(
        "a document cannot be read: {why}; `slipstream store check` says which"
    ))
}

impl Store for MongoStore {
    fn get<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>> {
        let filter = doc! { "_id": id };
        self.run(move |db| one(db.of(collection), filter))
    }

    fn find<'a>(
        &'a self,
        collection: Collection,
        unique: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, StoreError>> {
        let filter = doc! { "unique": unique };
        self.run(move |db| one(db.of(collection), filter))
    }

    fn insert<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>> {
        let id = id.to_owned();
        self.run(move |db| async move {
            let fields = bson::new(&id, &draft);
            for _ in 0..TRIES {
                let Err(error) = db.latest(collection).insert_one(&fields).await else {
                    return Ok(Written::Done);
                };
                let conflict = db.has(collection, doc! { "_id": &id });
                let unique = draft.unique.as_deref();
                if let Some(why) = db.why(error, conflict, (collection, &id, unique)).await? {
                    return Ok(why);
                }
            }
            Err(restless())
        })
    }

    fn replace<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: u64,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Written, StoreError>> {
        let Ok(revision) = i64::try_from(revision) else {
            // None has been written so often.
            return known(Ok(Written::Conflict));
        };
        let id = id.to_owned();
        self.run(move |db| async move {
            let filter = doc! { "_id": &id, "revision": revision };
            let update = bson::replacement(&draft, revision.saturating_add(1));
            for _ in 0..TRIES {
                let error = match db
                    .latest(collection)
                    .update_one(filter.clone(), update.clone())
                    .await
                {
                    Ok(outcome) if outcome.matched_count > 0 => return Ok(Written::Done),
                    Ok(_) => return Ok(Written::Conflict),
                    Err(error) => error,
                };
                let still = db.has(collection, filter.clone());
                let conflict = async { Ok(!still.await?) };
                let unique = draft.unique.as_deref();
                if let Some(why) = db.why(error, conflict, (collection, &id, unique)).await? {
                    return Ok(why);
                }
            }
            Err(restless())
        })
    }

    fn remove<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let Ok(revision) = revision.map(i64::try_from).transpose() else {
            return known(Ok(false));
        };
        let mut filter = doc! { "_id": id };
        if let Some(revision) = revision {
            filter.insert("revision", revision);
        }
        self.run(move |db| async move {
            let outcome = db.latest(collection).delete_one(filter).await;
            Ok(outcome.map_err(failed)?.deleted_count > 0)
        })
    }

    fn list(&self, collection: Collection, query: Query) -> BoxFuture<'_, Result<Vec<Document>, StoreError>> {
        let mut filter = Fields::new();
        if let Some(key) = query.key {
            filter.insert("keys", key);
        }
        let mut bounds = Fields::new();
        if let Some(after) = query.after {
            bounds.insert("$gt", after);
        }
        if let Some(before) = query.before {
            bounds.insert("$lt", before);
        }
        if !bounds.is_empty() {
            filter.insert("_id", bounds);
        }
        let order = if query.descending { -1 } else { 1 };
        self.run(move |db| async move {
            let found = page(db.of(collection), filter, order, query.limit).await?;
            found
                .into_iter()
                .map(|fields| bson::document(fields).map_err(damaged))
                .collect()
        })
    }

    fn add<'a>(
        &'a self,
        collection: Collection,
        id: &'a str,
        addition: Addition,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let id = id.to_owned();
        self.run(move |db| async move {
            let added = format!("added.{}", addition.source);
            let sequence = addition.sequence;
            // Matches the document unless it has this addition. If it has, the upsert is an insert with an
            // id that is there, and refused.
            let filter = doc! {
                "_id": &id,
                "$or": [{ &added: { "$lt": sequence } }, { &added: { "$exists": false } }],
            };
            let update = bson::addition(&addition);
            let of = db.latest(collection);
            for _ in 0..TRIES {
                let upsert = of.update_one(filter.clone(), update.clone()).upsert(true);
                let Err(error) = upsert.await else {
                    return Ok(true);
                };
                if !is_refusal(&error) {
                    return Err(failed(error));
                }
                let filter = doc! { "_id": &id, &added: { "$gte": sequence } };
                if db.has(collection, filter).await.map_err(failed)? {
                    return Ok(false);
                }
                if is_overflow(&error) {
                    return Err(StoreError::Invalid("a number would leave what an i64 holds"));
                }
                // Somebody else made the document meanwhile.
                if !is_duplicate(&error) {
                    return Err(failed(error));
                }
            }
            Err(restless())
        })
    }

    fn sweep(
        &self,
        collection: Collection,
        now_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.run(move |db| async move {
            let of = db.latest(collection);
            let options = FindOptions::builder()
                .projection(doc! { "_id": 1 })
                .limit(limit as i64)
                .build();
            let expired = of
                .find(doc! { "expires": { "$lte": now_ms } })
                .with_options(options);
            let found: Vec<Fields> = expired
                .await
                .map_err(failed)?
                .try_collect()
                .await
                .map_err(failed)?;
            let ids: Vec<Bson> = found
                .into_iter()
                .filter_map(|mut fields| fields.remove("_id"))
                .collect();
            if ids.is_empty() {
                return Ok(0);
            }
            // One that was written meanwhile may have longer now.
            let filter = doc! { "_id": { "$in": ids }, "expires": { "$lte": now_ms } };
            let outcome = of.delete_many(filter).await.map_err(failed)?;
            Ok(usize::try_from(outcome.deleted_count).unwrap_or(usize::MAX))
        })
    }

    fn put(&self, collection: Collection, document: Document) -> BoxFuture<'_, Result<Written, StoreError>> {
        self.run(move |db| async move {
            let fields = bson::fields(&document);
            let id = document.id.as_str();
            let of = db.latest(collection);
            for _ in 0..TRIES {
                let upsert = of.replace_one(doc! { "_id": id }, &fields).upsert(true);
                let Err(error) = upsert.await else {
                    return Ok(Written::Done);
                };
                let never = async { Ok(false) };
                let unique = document.unique.as_deref();
                if let Some(why) = db.why(error, never, (collection, id, unique)).await? {
                    return Ok(why);
                }
            }
            Err(restless())
        })
    }

    fn count(&self, collection: Collection) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.run(move |db| async move { db.of(collection).count_documents(doc! {}).await.map_err(failed) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.run(|db| async move {
            db.0.run_command(doc! { "ping": 1 })
                .await
                .map(|_| ())
                .map_err(failed)
        })
    }
}

/// Up to `limit` documents in the order of their ids.
async fn page(
    of: mongodb::Collection<Fields>,
    filter: Fields,
    order: i32,
    limit: usize,
) -> Result<Vec<Fields>, StoreError> {
    let options = FindOptions::builder()
        .sort(doc! { "_id": order })
        .limit(limit as i64)
        .build();
    let found = of.find(filter).with_options(options).await.map_err(failed)?;
    found.try_collect().await.map_err(failed)
}

impl Engine for MongoStore {
    fn lay_out(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // One by one: the timeout is that of one operation, and FerretDB fails if several of one command
        // are there already.
        Box::pin(async move {
            for collection in Collection::ALL {
                for key in ["keys", "expires", "unique"] {
                    let is_unique = key == "unique";
                    if is_unique && !collection.has_unique() {
                        continue;
                    }
                    // With the ids behind it, a page of a key costs what it holds.
                    let keys = match key {
                        "keys" => doc! { "keys": 1, "_id": 1 },
                        _ => doc! { key: 1 },
                    };
                    let options = IndexOptions::builder().unique(is_unique).name(key.to_owned());
                    let index = IndexModel::builder().keys(keys).options(options.build());
                    let index = index.build();
                    self.run(move |db| async move {
                        // What is there already is no error, as long as it is the same.
                        let made = db.latest(collection).create_index(index).await;
                        made.map(|_| ()).map_err(failed)
                    })
                    .await?;
                }
            }
            Ok(())
        })
    }

    fn walk(
        &self,
        collection: Collection,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Walked>, StoreError>> {
        // No id is empty.
        let filter = doc! { "_id": { "$gt": after.unwrap_or_default() } };
        self.run(move |db| async move {
            let found = page(db.of(collection), filter, 1, limit).await?;
            let walked = found.into_iter().map(|fields| Walked {
                id: fields.get_str("_id").unwrap_or_default().to_owned(),
                document: bson::document(fields).map_err(|why| why.to_string()),
            });
            Ok(walked.collect())
        })
    }
}

/// What somebody is told who has waited for long enough.
fn late(timeout: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer within {timeout:?}"))
}
