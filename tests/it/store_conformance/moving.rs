//! Export and import, between any two stores.

use std::io::Cursor;

use serde_json::{Value, json};
use slipstream::store::{self, Collection, Document, Draft, Engine, OpenError, StoreError, TransferError};

use super::places::{Place, addition, all, draft, get, insert, with_body, with_keys, with_unique};
use crate::support::mongowire::Mongowire;

/// Something in each collection, and more than a page in two.
async fn fill(place: &Place) {
    let store = place.open().await;
    for collection in Collection::ALL {
        for n in 0..3 {
            let unique = collection.has_unique().then(|| format!("unique-{n}"));
            let draft = Draft {
                unique,
                expires_ms: (n > 0).then_some(n - 1),
                ..with_body(json!({ "n": n, "f": 1.0, "e": 0.1 + 0.2, "text": "\u{1f980}\n\0" }))
            };
            insert(&*store, collection, &format!("id-{n}\u{e9}"), draft).await;
        }
    }
    for n in 0..130 {
        insert(
            &*store,
            Collection::Apps,
            &format!("app-{n}"),
            with_keys(&["b", "a", "b"]),
        )
        .await;
        let unique = with_unique(&format!("mail-{n}"));
        insert(&*store, Collection::Accounts, &format!("account-{n}"), unique).await;
    }
    for revision in 1..5 {
        store
            .replace(Collection::Apps, "app-7", revision, draft(1))
            .await
            .unwrap();
    }
    for (source, sequence) in [("a", 1), ("b", 7), ("a", 2)] {
        let usage = addition(source, sequence, &[("messages", 5), ("bytes", i64::MAX / 4)]);
        assert!(store.add(Collection::Usage, "usage", usage).await.unwrap());
    }
}

/// All there is but what the store says of itself.
async fn everything(place: &Place) -> Vec<(Collection, Document)> {
    let store = place.open().await;
    let mut found = Vec::new();
    for collection in Collection::ALL {
        let documents = store.list(collection, all()).await.unwrap();
        let own = |document: &Document| collection == Collection::Meta && document.id == "schema";
        found.extend(
            documents
                .into_iter()
                .filter(|document| !own(document))
                .map(|document| (collection, document)),
        );
    }
    found
}

async fn export(place: &Place) -> Vec<u8> {
    let mut out = Vec::new();
    let engine = place.connect().await;
    store::export(&*engine, &mut out).await.unwrap();
    out
}

async fn import(engine: &dyn Engine, bytes: &[u8], merge: bool) -> Result<u64, TransferError> {
    let counts = store::import(engine, &mut Cursor::new(bytes), merge).await?;
    Ok(counts.values().sum())
}

/// The lines but the first and the last, which name the export.
fn documents(export: &[u8]) -> Vec<Value> {
    let lines: Vec<Value> = export
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    lines[1..lines.len() - 1].to_vec()
}

async fn moves(from: &Place, to: &Place) {
    fill(from).await;
    let first = export(from).await;
    let engine = to.connect().await;
    let count = import(&*engine, &first, false).await.unwrap();
    assert_eq!(count, 12 * 3 + 2 * 130 + 1);
    assert_eq!(everything(to).await, everything(from).await);
    let second = export(to).await;
    assert_eq!(documents(&second), documents(&first));
    // What was added stays added.
    let store = to.open().await;
    let again = addition("b", 7, &[("messages", 5)]);
    assert!(!store.add(Collection::Usage, "usage", again).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_from_a_file_into_a_database() {
    let server = Mongowire::start().await;
    moves(&Place::file(), &Place::database(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_from_a_database_into_a_file() {
    let server = Mongowire::start().await;
    moves(&Place::database(&server), &Place::file()).await;
}

async fn is_refused_unless_merged(to: &Place) {
    let from = Place::file();
    fill(&from).await;
    let bytes = export(&from).await;
    let store = to.open().await;
    insert(&*store, Collection::Apps, "app-1", draft(-1)).await;
    insert(&*store, Collection::Apps, "own", draft(-1)).await;
    let engine = to.connect().await;
    let refused = import(&*engine, &bytes, false).await;
    assert!(matches!(refused, Err(TransferError::NotEmpty(2))), "{refused:?}");
    assert_eq!(store.count(Collection::Apps).await.unwrap(), 2);
    import(&*engine, &bytes, true).await.unwrap();
    assert_eq!(
        get(&*store, Collection::Apps, "app-1").await.keys,
        ["b", "a", "b"]
    );
    assert_eq!(
        get(&*store, Collection::Apps, "own").await.body,
        json!({ "n": -1 })
    );
    // Done again, nothing changes.
    import(&*engine, &bytes, true).await.unwrap();
    assert_eq!(everything(to).await.len(), everything(&from).await.len() + 1);
    // A value that another document has is not taken from it.
    store
        .remove(Collection::Accounts, "account-3", None)
        .await
        .unwrap();
    insert(&*store, Collection::Accounts, "thief", with_unique("mail-3")).await;
    let refused = import(&*engine, &bytes, true).await;
    assert!(
        matches!(
            refused,
            Err(TransferError::Taken {
                collection: Collection::Accounts,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_import_writes_over_a_file_only_if_told() {
    is_refused_unless_merged(&Place::file()).await;
}

#[tokio::test]
async fn an_import_writes_over_a_database_only_if_told() {
    let server = Mongowire::start().await;
    is_refused_unless_merged(&Place::database(&server)).await;
}

#[tokio::test]
async fn an_export_that_was_cut_or_changed_is_refused() {
    let from = Place::file();
    fill(&from).await;
    let bytes = export(&from).await;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let count = lines.len();
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().concat();
    let header = |change: &str, to: &str| {
        let first = String::from_utf8(lines[0].to_vec()).unwrap();
        assert!(first.contains(change), "{first}");
        [first.replace(change, to).into_bytes(), lines[1..].concat()].concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no header", lines[1..].concat()),
        ("no footer", lines[..count - 1].concat()),
        ("only a header", lines[0].to_vec()),
        ("cut in a line", bytes[..bytes.len() / 2].to_vec()),
        ("cut in the footer", bytes[..bytes.len() - 3].to_vec()),
        ("one is missing", without(20)),
        (
            "one is there twice",
            [&lines[..21], &lines[20..]].concat().concat(),
        ),
        ("more behind", [&bytes[..], lines[1]].concat()),
        ("two exports", [&bytes[..], &bytes[..]].concat()),
        (
            "another form",
            header("\"slipstream_export\":1", "\"slipstream_export\":2"),
        ),
        ("a newer schema", header("\"schema\":1", "\"schema\":2")),
        ("not JSON", b"hello\n".to_vec()),
        (
            "not UTF-8",
            [lines[0], b"\xff\xfe\n", &lines[1..].concat()].concat(),
        ),
    ];
    for (what, bytes) in cases {
        let verified = store::verify(&mut Cursor::new(&bytes));
        assert!(verified.is_err(), "{what}: {verified:?}");
        let to = Place::file();
        let engine = to.connect().await;
        let refused = import(&*engine, &bytes, false).await;
        assert!(
            matches!(
                refused,
                Err(TransferError::Line { .. } | TransferError::Version { .. })
            ),
            "{what}: {refused:?}"
        );
    }
    assert_eq!(
        store::verify(&mut Cursor::new(&bytes))
            .unwrap()
            .values()
            .sum::<u64>(),
        count as u64 - 2
    );
}

async fn an_import_can_be_done_again(to: &Place) {
    let from = Place::file();
    fill(&from).await;
    let bytes = export(&from).await;
    let engine = to.connect().await;
    let refused = import(&*engine, &bytes[..bytes.len() / 2], false).await;
    assert!(matches!(refused, Err(TransferError::Line { .. })), "{refused:?}");
    // Nobody works with half of it, and no other export goes on from there.
    let opened = to.try_open().await.map(|_| ());
    assert!(matches!(opened, Err(OpenError::HalfImported)), "{opened:?}");
    let other = export(&from).await;
    let refused = import(&*engine, &other, false).await;
    assert!(matches!(refused, Err(TransferError::NotEmpty(_))), "{refused:?}");
    import(&*engine, &bytes, false).await.unwrap();
    assert_eq!(everything(to).await, everything(&from).await);
}

#[tokio::test]
async fn an_import_into_a_file_can_be_done_again() {
    an_import_can_be_done_again(&Place::file()).await;
}

#[tokio::test]
async fn an_import_into_a_database_can_be_done_again() {
    let server = Mongowire::start().await;
    an_import_can_be_done_again(&Place::database(&server)).await;
}

#[tokio::test]
async fn a_store_that_was_never_migrated_is_not_exported() {
    let place = Place::file();
    let engine = place.connect().await;
    let refused = store::export(&*engine, &mut Vec::new()).await;
    assert!(
        matches!(
            refused,
            Err(TransferError::Store(OpenError::Older { found: 0, .. }))
        ),
        "{refused:?}"
    );
    let counted = engine.count(Collection::Apps).await;
    assert!(matches!(counted, Err(StoreError::Failed(_))), "{counted:?}");
    let report = store::check(&*engine, |problem| panic!("{problem}"))
        .await
        .unwrap();
    assert_eq!(report.version, 0);
}
