use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use super::{
    super::{Query, Store, sqlite::SqliteStore},
    *,
};
use crate::config::StoreConfig;

async fn store() -> (TempDir, Arc<SqliteStore>) {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        url: None,
        timeout: Duration::from_secs(20),
        queue: 100,
        max_in_flight: 10,
        readers: 2,
    };
    let store = SqliteStore::open(&folder.path().join("store"), &config).await;
    (folder, Arc::new(store.unwrap()))
}

fn plan(body: Value) -> Draft {
    Draft {
        unique: None,
        keys: Vec::new(),
        expires_ms: None,
        body,
    }
}

/// A step as they are to be: it changes what is still in the old form, and that once.
const DOUBLE: Step = |engine| {
    Box::pin(async move {
        let query = Query {
            limit: 100,
            ..Query::default()
        };
        for document in engine.list(Collection::Plans, query).await? {
            if let Some(old) = document.body.get("old").and_then(Value::as_i64) {
                let draft = plan(json!({ "new": old * 2 }));
                engine
                    .replace(Collection::Plans, &document.id, document.revision, draft)
                    .await?;
            }
        }
        Ok(())
    })
};

#[tokio::test]
async fn a_step_changes_documents_once_however_many_nodes_start() {
    let (_folder, store) = store().await;
    assert_eq!(take(&*store, STEPS).await.unwrap(), 0);
    for id in ["a", "b", "c"] {
        let draft = plan(json!({ "old": 21 }));
        let written = store.insert(Collection::Plans, id, draft).await.unwrap();
        assert_eq!(written, Written::Done);
    }
    let steps = [STEPS, &[DOUBLE, DOUBLE]].concat();
    let nodes = join_all((0..8).map(|_| take(&*store, &steps))).await;
    assert!(nodes.iter().all(Result::is_ok), "{nodes:?}");
    assert_eq!(version(&*store).await.unwrap(), 3);
    for id in ["a", "b", "c"] {
        let plan = store.get(Collection::Plans, id).await.unwrap().unwrap();
        assert_eq!((plan.revision, plan.body), (2, json!({ "new": 42 })));
    }
}

#[tokio::test]
async fn a_store_of_a_later_version_is_left_as_it_is() {
    let (_folder, store) = store().await;
    let later = plan(json!({ "version": VERSION + 1 }));
    store.insert(Collection::Meta, DOCUMENT, later).await.unwrap();
    let refused = migrate(&*store).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found, known } if found == VERSION + 1 && known == VERSION));
    assert!(refused.to_string().contains("newer"), "{refused}");
    assert_eq!(version(&*store).await.unwrap(), VERSION + 1);
    assert!(
        store.count(Collection::Accounts).await.is_err(),
        "no table was made"
    );
}
