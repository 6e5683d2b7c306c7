//! What is true of a store in a database, and of both while they start.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mongodb::{Client, bson::doc};
use serde_json::json;
use slipstream::{
    config::Secret,
    store::{self, Collection, OpenError, Store, StoreError, Written},
};

use super::places::{PLAIN, Place, UNIQUE, addition, draft, get, insert, with_body, with_unique};
use crate::support::{mongowire::Mongowire, until};

async fn is_unavailable_in_time(store: &dyn Store, timeout: Duration) {
    for what in ["get", "insert", "add", "list", "ping"] {
        let asked = Instant::now();
        let outcome = match what {
            "get" => store.get(PLAIN, "a").await.map(|_| ()),
            "insert" => store.insert(PLAIN, "b", draft(2)).await.map(|_| ()),
            "add" => store
                .add(Collection::Usage, "u", addition("a", 1, &[("n", 1)]))
                .await
                .map(|_| ()),
            "list" => store.list(PLAIN, super::places::all()).await.map(|_| ()),
            _ => store.ping().await,
        };
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{what}: {outcome:?}"
        );
        assert!(
            asked.elapsed() < timeout + Duration::from_secs(2),
            "{what}: {:?}",
            asked.elapsed()
        );
    }
}

async fn works_again(store: &dyn Store) {
    until("the store answers again", || async { store.ping().await.ok() }).await;
    assert_eq!(get(store, PLAIN, "a").await.body, json!({ "n": 1 }));
    until("it takes writes again", || async {
        store.insert(PLAIN, "c", draft(3)).await.ok()
    })
    .await;
    assert!(store.remove(PLAIN, "c", None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_unavailable_until_it_is_back() {
    let mut server = Mongowire::start().await;
    let mut place = Place::database(&server);
    place.config.timeout = Duration::from_secs(1);
    // What is laid out takes its time.
    place.config.timeout = Duration::from_secs(20);
    drop(place.open().await);
    place.config.timeout = Duration::from_secs(1);
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(1)).await;
    server.kill().await;
    is_unavailable_in_time(&*store, place.config.timeout).await;
    let refused = place.try_open().await.map(|_| ());
    assert!(
        matches!(refused, Err(OpenError::Store(StoreError::Unavailable(_)))),
        "{refused:?}"
    );
    server.restart().await;
    works_again(&*store).await;
    // In order, and back at once.
    server.restart().await;
    works_again(&*store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_unavailable_until_it_goes_on() {
    let server = Mongowire::start().await;
    let mut place = Place::database(&server);
    drop(place.open().await);
    place.config.timeout = Duration::from_secs(1);
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(1)).await;
    server.pause();
    is_unavailable_in_time(&*store, place.config.timeout).await;
    server.resume();
    works_again(&*store).await;
    // What was under way has ended.
    until("no task is left", || async {
        (place.tasks.count() == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_wait_for_a_server_are_refused() {
    let server = Mongowire::start().await;
    let mut place = Place::database(&server);
    place.config.max_in_flight = 2;
    place.config.queue = 3;
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(1)).await;
    server.pause();
    let outcomes = tokio::join!(join_all((0..20).map(|_| store.get(PLAIN, "a"))), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.resume();
    });
    let full = Err(StoreError::Unavailable("its queue is full".to_owned()));
    let refused = outcomes.0.iter().filter(|outcome| **outcome == full).count();
    let answered = outcomes.0.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((answered, refused), (5, 15), "{:?}", outcomes.0);
}

#[tokio::test]
async fn a_url_is_never_repeated() {
    let secret = "hunter2";
    for url in [
        format!("mongodb://ann:{secret}@"),
        format!("mongodb://ann:{secret}@127.0.0.1:1/db?nosuch={secret}"),
        format!("mongodb://ann:{secret}@127.0.0.1:{secret}/db"),
        format!("mongodb://ann:{secret}@127.0.0.1:1/db"),
        format!("postgres://ann:{secret}@127.0.0.1/db"),
    ] {
        let mut place = Place::file();
        place.config.url = Some(Secret::new(url));
        place.config.timeout = Duration::from_millis(200);
        let error = place.try_open().await.map(|_| ()).unwrap_err();
        let said = format!("{error} {error:?} {:?}", place.config);
        assert!(!said.contains(secret), "{said}");
    }
    let mut place = Place::file();
    place.config.url = None;
    let none = place.try_open().await.map(|_| ());
    assert!(matches!(none, Err(OpenError::None)), "{none:?}");
}

/// What a server says of a value that is there twice names the value.
#[tokio::test]
async fn an_error_never_repeats_what_was_to_be_stored() {
    let server = Mongowire::start().await;
    let place = Place::database(&server);
    let store = place.open().await;
    let client = Client::with_uri_str(place.url()).await.unwrap();
    let database = client.default_database().unwrap();
    let accounts = database.collection::<mongodb::bson::Document>("accounts");
    accounts
        .insert_one(
            doc! { "_id": "a", "unique": "u", "body": { "secret": "hunter2" }, "revision": "hunter2" },
        )
        .await
        .unwrap();
    let read = store.get(UNIQUE, "a").await.unwrap_err();
    assert!(
        matches!(read, StoreError::Failed(_)) && !format!("{read:?}").contains("hunter2"),
        "{read}"
    );
    // One that cannot be read is in the way all the same.
    let inserted = store.insert(UNIQUE, "b", with_unique("u")).await.unwrap();
    assert_eq!(inserted, Written::Taken);
    accounts.insert_one(doc! { "unique": "v" }).await.unwrap();
    let engine = place.connect().await;
    let mut said = Vec::new();
    let report = store::check(&*engine, |problem| said.push(problem))
        .await
        .unwrap();
    assert_eq!(report.problems, 2, "{said:?}");
    assert!(said[0].starts_with("accounts \"a\" cannot be read"), "{said:?}");
    assert!(said[1].contains("1 documents cannot be listed"), "{said:?}");
    assert!(said.iter().all(|said| !said.contains("hunter2")), "{said:?}");
}

async fn many_nodes_start(place: &Place) {
    let nodes = join_all((0..8).map(|_| place.try_open())).await;
    for node in &nodes {
        assert!(node.is_ok(), "{:?}", node.as_ref().err());
    }
    let engine = place.connect().await;
    assert_eq!(store::version(&*engine).await.unwrap(), store::VERSION);
    assert_eq!(store::migrate(&*engine).await.unwrap(), store::VERSION);
    let store = place.open().await;
    insert(&*store, UNIQUE, "a", with_unique("u")).await;
    assert_eq!(
        store.insert(UNIQUE, "b", with_unique("u")).await.unwrap(),
        Written::Taken
    );
}

async fn a_newer_schema_is_refused(place: &Place) {
    let store = place.open().await;
    let meta = store.get(Collection::Meta, "schema").await.unwrap().unwrap();
    let newer = with_body(json!({ "version": store::VERSION + 1 }));
    let written = store
        .replace(Collection::Meta, "schema", meta.revision, newer)
        .await
        .unwrap();
    assert_eq!(written, Written::Done);
    let refused = place.try_open().await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { .. }), "{refused:?}");
    assert!(
        refused.to_string().contains("newer than this program"),
        "{refused}"
    );
    let engine = place.connect().await;
    assert!(matches!(
        store::check(&*engine, drop).await,
        Err(OpenError::Newer { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_start_at_once_on_a_new_file() {
    many_nodes_start(&Place::file()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_start_at_once_on_a_new_database() {
    let server = Mongowire::start().await;
    many_nodes_start(&Place::database(&server)).await;
}

#[tokio::test]
async fn a_file_with_a_newer_schema_is_refused() {
    a_newer_schema_is_refused(&Place::file()).await;
}

#[tokio::test]
async fn a_database_with_a_newer_schema_is_refused() {
    let server = Mongowire::start().await;
    a_newer_schema_is_refused(&Place::database(&server)).await;
}
