//! What is true of a store in a file.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rusqlite::Connection;
use serde_json::json;
use slipstream::store::{self, Collection, OpenError, StoreError, Written};

use super::places::{PLAIN, Place, all, draft, get, insert};

fn path(place: &Place) -> PathBuf {
    place.folder.path().join("store.db")
}

fn mode(path: &PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn refusal(place: &Place) -> OpenError {
    match place.try_open().await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn nobody_else_may_read_the_file() {
    let place = Place::file();
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(1)).await;
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        assert_eq!(mode(&place.folder.path().join(name)), 0o600, "{name}");
    }
    drop(store);
    // Closed in order: all is in the one file.
    assert!(!place.folder.path().join("store.db-wal").exists());
    fs::set_permissions(path(&place), Permissions::from_mode(0o644)).unwrap();
    get(&*place.open().await, PLAIN, "a").await;
    assert_eq!(mode(&path(&place)), 0o600);
}

#[tokio::test]
async fn a_locked_file_is_refused_and_then_unavailable() {
    let mut place = Place::file();
    place.config.timeout = Duration::from_millis(300);
    drop(place.open().await);
    let other = Connection::open(path(&place)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = refusal(&place).await;
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    assert!(error.to_string().contains("locked by another process"), "{error}");
    other.execute_batch("COMMIT").unwrap();
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(1)).await;
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = Instant::now();
    let refused = store.insert(PLAIN, "b", draft(1)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(5));
    // Who reads is not disturbed.
    get(&*store, PLAIN, "a").await;
    other.execute_batch("COMMIT").unwrap();
    crate::support::until("it writes again", || async {
        store.insert(PLAIN, "c", draft(1)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_and_left_alone() {
    let place = Place::file();
    let text = "this is no database, and long enough to be looked at. ".repeat(50);
    fs::write(path(&place), &text).unwrap();
    let error = refusal(&place).await;
    assert!(matches!(error, OpenError::NotADatabase(_)), "{error}");
    assert_eq!(fs::read_to_string(path(&place)).unwrap(), text);

    fs::remove_file(path(&place)).unwrap();
    let other = Connection::open(path(&place)).unwrap();
    other.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let error = refusal(&place).await;
    assert!(matches!(error, OpenError::Foreign(_)), "{error}");
    let tables: i64 = other
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);

    let mut nowhere = Place::file();
    let url = format!("sqlite:{}/no/such/folder", nowhere.folder.path().display());
    nowhere.config.url = Some(slipstream::config::Secret::new(url));
    let error = refusal(&nowhere).await;
    assert!(matches!(error, OpenError::File { .. }), "{error}");
}

#[tokio::test]
async fn a_full_queue_is_unavailable() {
    let mut place = Place::file();
    place.config.queue = 2;
    place.config.timeout = Duration::from_secs(5);
    let store = place.open().await;
    insert(&*store, PLAIN, "first", draft(1)).await;
    let other = Connection::open(path(&place)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ids: Vec<String> = (0..20).map(|n| format!("a{n}")).collect();
    let asked = Instant::now();
    let outcomes = tokio::join!(
        join_all(ids.iter().map(|id| store.insert(PLAIN, id, draft(1)))),
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            other.execute_batch("COMMIT").unwrap();
        }
    );
    assert!(asked.elapsed() < Duration::from_secs(5));
    let full = StoreError::Unavailable("its queue is full".to_owned());
    let refused = outcomes
        .0
        .iter()
        .filter(|outcome| **outcome == Err(full.clone()))
        .count();
    let done = outcomes
        .0
        .iter()
        .filter(|outcome| **outcome == Ok(Written::Done))
        .count();
    // As many waited as may, and before them as many were taken at once; nothing else happened to any.
    assert!((2..=4).contains(&done), "{:?}", outcomes.0);
    assert_eq!(refused + done, 20, "{:?}", outcomes.0);
    assert_eq!(store.count(PLAIN).await.unwrap(), 1 + done as u64);
}

#[tokio::test]
async fn one_write_that_fails_undoes_no_other() {
    let place = Place::file();
    let store = place.open().await;
    let other = Connection::open(path(&place)).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER planted BEFORE INSERT ON apps WHEN NEW.id = 'bad'
             BEGIN SELECT RAISE(ABORT, 'planted'); END;
             BEGIN IMMEDIATE",
        )
        .unwrap();
    // They gather while the file is locked, and are one transaction then.
    let ids = ["a", "b", "bad", "c", "d"];
    let outcomes = tokio::join!(
        join_all(ids.iter().map(|id| store.insert(PLAIN, id, draft(1)))),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            other.execute_batch("COMMIT").unwrap();
        }
    );
    for (id, outcome) in ids.iter().zip(outcomes.0) {
        match *id {
            "bad" => assert!(matches!(outcome, Err(StoreError::Failed(_))), "{outcome:?}"),
            _ => assert_eq!(outcome, Ok(Written::Done), "{id}"),
        }
    }
    assert_eq!(
        super::places::ids(&*store, PLAIN, all()).await,
        ["a", "b", "c", "d"]
    );
}

#[tokio::test]
async fn check_names_what_cannot_be_read_or_breaks_a_rule() {
    let place = Place::file();
    let store = place.open().await;
    for n in 0..250 {
        insert(&*store, PLAIN, &format!("a{n:03}"), draft(n)).await;
    }
    let engine = place.connect().await;
    let report = store::check(&*engine, |problem| panic!("{problem}"))
        .await
        .unwrap();
    assert_eq!((report.version, report.problems), (store::VERSION, 0));
    assert!(report.counts.contains(&(PLAIN, 250)), "{report:?}");
    let other = Connection::open(path(&place)).unwrap();
    other
        .execute_batch(
            "UPDATE apps SET body = '{\"secret\": 1' WHERE id = 'a017';
             UPDATE apps SET body = '{\"$secret\": 1}' WHERE id = 'a101';
             UPDATE apps SET revision = -1 WHERE id = 'a249'",
        )
        .unwrap();
    let mut said = Vec::new();
    let report = store::check(&*engine, |problem| said.push(problem))
        .await
        .unwrap();
    assert_eq!(report.problems, 3);
    assert_eq!(said.len(), 3, "{said:?}");
    for (said, id) in said.iter().zip(["a017", "a101", "a249"]) {
        assert!(
            said.starts_with(&format!("apps \"{id}\" ")) && !said.contains("secret"),
            "{said}"
        );
    }
    let read = store.get(PLAIN, "a017").await;
    assert!(
        matches!(&read, Err(StoreError::Failed(why)) if !why.contains("secret")),
        "{read:?}"
    );
    assert_eq!(get(&*store, PLAIN, "a018").await.body, json!({ "n": 18 }));
    assert!(store.list(Collection::Plans, all()).await.unwrap().is_empty());
}
