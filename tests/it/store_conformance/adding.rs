use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;
use slipstream::store::{Addition, Collection, Draft, StoreError, Written};

use super::places::{Place, addition, all, draft, get, ids, with_keys};

const USAGE: Collection = Collection::Usage;

fn numbers(numbers: &[(&str, i64)]) -> BTreeMap<String, i64> {
    numbers.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

fn peak(source: &str, sequence: i64, peak: i64) -> Addition {
    Addition {
        peaks: numbers(&[("peak", peak)]),
        ..addition(source, sequence, &[])
    }
}

pub(super) async fn an_addition_makes_the_document(place: &Place) {
    let store = place.open().await;
    let first = Addition {
        peaks: numbers(&[("online", 7)]),
        keys: vec!["app:a".to_owned()],
        expires_ms: Some(99),
        ..addition("node-1", 5, &[("messages", 3), ("bytes", -4)])
    };
    assert!(store.add(USAGE, "a:1", first).await.unwrap());
    let made = get(&*store, USAGE, "a:1").await;
    assert_eq!((made.revision, made.body), (1, json!({})));
    assert_eq!((made.keys, made.expires_ms), (vec!["app:a".to_owned()], Some(99)));
    assert_eq!(
        made.numbers,
        numbers(&[("bytes", -4), ("messages", 3), ("online", 7)])
    );
    assert_eq!(made.added, numbers(&[("node-1", 5)]));
    let mut by_key = all();
    by_key.key = Some("app:a".to_owned());
    assert_eq!(ids(&*store, USAGE, by_key).await, ["a:1"]);
    // What makes a document does not change one; and one may add nothing.
    let second = Addition {
        keys: vec!["other".to_owned()],
        expires_ms: Some(1),
        ..addition("0", 1, &[])
    };
    assert!(store.add(USAGE, "a:1", second.clone()).await.unwrap());
    let now = get(&*store, USAGE, "a:1").await;
    assert_eq!((now.revision, now.expires_ms), (1, Some(99)));
    assert_eq!((now.keys, now.numbers), (vec!["app:a".to_owned()], made.numbers));
    assert_eq!(now.added, numbers(&[("0", 1), ("node-1", 5)]));
    assert!(store.add(USAGE, "a:2", second).await.unwrap());
    assert_eq!(get(&*store, USAGE, "a:2").await.numbers, BTreeMap::new());
}

pub(super) async fn an_addition_counts_once(place: &Place) {
    let store = place.open().await;
    for (source, sequence, counts, sum) in [
        ("a", 3, true, 1),
        ("a", 3, false, 1),
        ("a", 2, false, 1),
        ("a", 9, true, 2),
        ("a", 4, false, 2),
        ("b", 1, true, 3),
        ("b", 1, false, 3),
        ("a", 10, true, 4),
    ] {
        let added = store
            .add(USAGE, "u", addition(source, sequence, &[("n", 1)]))
            .await;
        assert_eq!(added.unwrap(), counts, "{source} {sequence}");
        assert_eq!(get(&*store, USAGE, "u").await.numbers, numbers(&[("n", sum)]));
    }
    assert_eq!(
        get(&*store, USAGE, "u").await.added,
        numbers(&[("a", 10), ("b", 1)])
    );
    // Of each document for itself.
    assert!(
        store
            .add(USAGE, "v", addition("a", 1, &[("n", 1)]))
            .await
            .unwrap()
    );
}

pub(super) async fn peaks_only_rise(place: &Place) {
    let store = place.open().await;
    for (sequence, given, expected) in [
        (1, -3, -3),
        (2, -9, -3),
        (3, 5, 5),
        (4, 4, 5),
        (5, i64::MAX, i64::MAX),
    ] {
        assert!(store.add(USAGE, "u", peak("a", sequence, given)).await.unwrap());
        assert_eq!(
            get(&*store, USAGE, "u").await.numbers,
            numbers(&[("peak", expected)])
        );
    }
    assert!(store.add(USAGE, "v", peak("a", 1, 1)).await.unwrap());
}

pub(super) async fn a_replacement_keeps_numbers(place: &Place) {
    let store = place.open().await;
    assert!(
        store
            .add(USAGE, "u", addition("a", 1, &[("n", 2)]))
            .await
            .unwrap()
    );
    let written = store.replace(USAGE, "u", 1, with_keys(&["k"])).await.unwrap();
    assert_eq!(written, Written::Done);
    let now = get(&*store, USAGE, "u").await;
    assert_eq!((now.revision, now.numbers), (2, numbers(&[("n", 2)])));
    assert!(
        !store
            .add(USAGE, "u", addition("a", 1, &[("n", 2)]))
            .await
            .unwrap()
    );
    assert!(
        store
            .add(USAGE, "u", addition("a", 2, &[("n", 2)]))
            .await
            .unwrap()
    );
    let now = get(&*store, USAGE, "u").await;
    assert_eq!((now.revision, now.numbers), (2, numbers(&[("n", 4)])));
    // A document that was inserted is added to as well.
    let given = Draft {
        body: json!({ "kept": true }),
        ..draft(0)
    };
    store.insert(USAGE, "v", given).await.unwrap();
    assert!(
        store
            .add(USAGE, "v", addition("a", 1, &[("n", 1)]))
            .await
            .unwrap()
    );
    let now = get(&*store, USAGE, "v").await;
    assert_eq!(
        (now.body, now.numbers),
        (json!({ "kept": true }), numbers(&[("n", 1)]))
    );
}

pub(super) async fn a_number_does_not_leave_its_range(place: &Place) {
    let store = place.open().await;
    let most = addition("a", 1, &[("n", i64::MAX), ("m", 0)]);
    assert!(store.add(USAGE, "u", most).await.unwrap());
    let refused = store
        .add(USAGE, "u", addition("a", 2, &[("m", 1), ("n", 1)]))
        .await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    let now = get(&*store, USAGE, "u").await;
    assert_eq!(now.numbers, numbers(&[("m", 0), ("n", i64::MAX)]));
    assert_eq!(now.added, numbers(&[("a", 1)]));
    assert!(
        store
            .add(USAGE, "u", addition("a", 2, &[("n", -1)]))
            .await
            .unwrap()
    );
}

pub(super) async fn additions_at_once_all_count(place: &Place) {
    let store = place.open().await;
    let sources = (0..12).map(|source| {
        let store = store.clone();
        async move {
            for sequence in 1..=5 {
                let one = addition(&format!("node-{source}"), sequence, &[("n", 1)]);
                assert!(store.add(USAGE, "u", one).await.unwrap());
            }
        }
    });
    join_all(sources).await;
    let now = get(&*store, USAGE, "u").await;
    assert_eq!(now.numbers, numbers(&[("n", 60)]));
    assert_eq!(now.added.len(), 12);
    assert!(now.added.values().all(|sequence| *sequence == 5));
}

pub(super) async fn one_addition_many_times_at_once_counts_once(place: &Place) {
    let store = place.open().await;
    for sequence in 1..=5 {
        let again = (0..8).map(|_| store.add(USAGE, "u", addition("a", sequence, &[("n", 1)])));
        let counted = join_all(again).await;
        let counted = counted
            .into_iter()
            .filter(|added| *added.as_ref().unwrap())
            .count();
        assert_eq!(counted, 1);
    }
    assert_eq!(get(&*store, USAGE, "u").await.numbers, numbers(&[("n", 5)]));
}
