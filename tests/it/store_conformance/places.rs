//! Where stores are, and what the checks share.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use slipstream::{
    config::{Secret, StoreConfig},
    store::{self, Addition, Collection, Document, Draft, Engine, OpenError, Query, Store, Written},
    task::Tasks,
};
use tempfile::TempDir;

use crate::support::mongowire::Mongowire;

/// A file or a database of its own, which is there until this is dropped.
pub(super) struct Place {
    pub(super) config: StoreConfig,
    pub(super) tasks: Tasks,
    pub(super) folder: TempDir,
}

impl Place {
    pub(super) fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        Self::at(url, folder)
    }

    pub(super) fn database(server: &Mongowire) -> Self {
        Self::at(server.fresh_database(), tempfile::tempdir().unwrap())
    }

    fn at(url: String, folder: TempDir) -> Self {
        let config = StoreConfig {
            url: Some(Secret::new(url)),
            timeout: Duration::from_secs(20),
            queue: 1_000,
            max_in_flight: 16,
            readers: 2,
        };
        Self {
            config,
            tasks: Tasks::default(),
            folder,
        }
    }

    pub(super) fn url(&self) -> &str {
        self.config.url.as_ref().unwrap().expose()
    }

    /// Opens it as a node does.
    pub(super) async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.unwrap()
    }

    pub(super) async fn try_open(&self) -> Result<Arc<dyn Store>, OpenError> {
        store::open(&self.config, &self.tasks).await
    }

    /// Opens it as a command does.
    pub(super) async fn connect(&self) -> Arc<dyn Engine> {
        store::connect(&self.config, &self.tasks).await.unwrap()
    }
}

/// A collection without unique values, and one with them.
pub(super) const PLAIN: Collection = Collection::Apps;
pub(super) const UNIQUE: Collection = Collection::Accounts;

pub(super) fn draft(n: i64) -> Draft {
    Draft {
        unique: None,
        keys: Vec::new(),
        expires_ms: None,
        body: json!({ "n": n }),
    }
}

pub(super) fn with_body(body: Value) -> Draft {
    Draft { body, ..draft(0) }
}

pub(super) fn with_keys(keys: &[&str]) -> Draft {
    Draft {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..draft(0)
    }
}

pub(super) fn with_unique(unique: &str) -> Draft {
    Draft {
        unique: Some(unique.to_owned()),
        ..draft(0)
    }
}

pub(super) fn expiring(expires_ms: i64) -> Draft {
    Draft {
        expires_ms: Some(expires_ms),
        ..draft(0)
    }
}

pub(super) fn addition(source: &str, sequence: i64, sums: &[(&str, i64)]) -> Addition {
    Addition {
        source: source.to_owned(),
        sequence,
        sums: sums.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        ..Addition::default()
    }
}

/// Inserts what must not be there yet.
pub(super) async fn insert(store: &dyn Store, collection: Collection, id: &str, draft: Draft) {
    let written = store.insert(collection, id, draft).await.unwrap();
    assert_eq!(written, Written::Done, "{id:?}");
}

/// Reads what must be there.
pub(super) async fn get(store: &dyn Store, collection: Collection, id: &str) -> Document {
    store.get(collection, id).await.unwrap().expect("it is there")
}

pub(super) fn all() -> Query {
    Query {
        limit: 1_000,
        ..Query::default()
    }
}

pub(super) async fn ids(store: &dyn Store, collection: Collection, query: Query) -> Vec<String> {
    let found = store.list(collection, query).await.unwrap();
    found.into_iter().map(|document| document.id).collect()
}
