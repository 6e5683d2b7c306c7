use proptest::{prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};
use slipstream::store::{Query, Written};

use super::places::{PLAIN, Place, all, draft, get, ids, insert, with_keys};

fn query(
    key: Option<&str>,
    after: Option<&str>,
    before: Option<&str>,
    descending: bool,
    limit: usize,
) -> Query {
    Query {
        key: key.map(str::to_owned),
        after: after.map(str::to_owned),
        before: before.map(str::to_owned),
        descending,
        limit,
    }
}

/// Ids that other orders than that of bytes put elsewhere: by case, by accents, by UTF-16.
const ASCENDING: [&str; 14] = [
    " ",
    "-",
    "0",
    "10",
    "9",
    "A",
    "Z",
    "_",
    "a",
    "aa",
    "z",
    "\u{e9}",
    "\u{ffee}",
    "\u{1f980}",
];

pub(super) async fn ids_are_in_the_order_of_bytes(place: &Place) {
    let store = place.open().await;
    assert!(ASCENDING.is_sorted());
    let mut runner = TestRunner::deterministic();
    let shuffled = proptest::strategy::Just(ASCENDING.to_vec()).prop_shuffle();
    for id in shuffled.new_tree(&mut runner).unwrap().current() {
        insert(&*store, PLAIN, id, with_keys(&["k"])).await;
    }
    for key in [None, Some("k")] {
        assert_eq!(
            ids(&*store, PLAIN, query(key, None, None, false, 1_000)).await,
            ASCENDING
        );
        for (place, id) in ASCENDING.into_iter().enumerate() {
            let above = ids(&*store, PLAIN, query(key, Some(id), None, false, 1_000)).await;
            assert_eq!(above, ASCENDING[place + 1..], "after {id:?}");
            let mut below = ids(&*store, PLAIN, query(key, None, Some(id), true, 1_000)).await;
            below.reverse();
            assert_eq!(below, ASCENDING[..place], "before {id:?}");
        }
    }
}

pub(super) async fn pages_go_up_and_down(place: &Place) {
    let store = place.open().await;
    assert!(ids(&*store, PLAIN, all()).await.is_empty());
    let expected: Vec<String> = (0..25).map(|n| format!("id-{n:03}")).collect();
    for id in &expected {
        insert(&*store, PLAIN, id, draft(1)).await;
    }
    let (mut up, mut after) = (Vec::new(), None);
    loop {
        let page = ids(&*store, PLAIN, query(None, after.as_deref(), None, false, 7)).await;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        up.extend(page);
    }
    assert_eq!(up, expected);
    let (mut down, mut before) = (Vec::new(), None);
    loop {
        let page = ids(&*store, PLAIN, query(None, None, before.as_deref(), true, 7)).await;
        let Some(last) = page.last() else { break };
        before = Some(last.clone());
        down.extend(page);
    }
    down.reverse();
    assert_eq!(down, expected);
    // Between two ids, neither included, from either end; and bounds that are no ids.
    let between = |descending, limit| query(None, Some("id-003"), Some("id-008"), descending, limit);
    assert_eq!(ids(&*store, PLAIN, between(false, 2)).await, ["id-004", "id-005"]);
    assert_eq!(ids(&*store, PLAIN, between(true, 2)).await, ["id-007", "id-006"]);
    let crossed = query(None, Some("id-008"), Some("id-003"), false, 10);
    assert!(ids(&*store, PLAIN, crossed).await.is_empty());
    let odd = query(None, Some(""), Some("id-000\u{1}"), false, 10);
    assert_eq!(ids(&*store, PLAIN, odd).await, ["id-000"]);
}

pub(super) async fn a_key_finds_its_documents(place: &Place) {
    let store = place.open().await;
    insert(&*store, PLAIN, "a", with_keys(&["x", "y"])).await;
    insert(&*store, PLAIN, "b", with_keys(&["y"])).await;
    insert(&*store, PLAIN, "c", with_keys(&["x", "z", "x"])).await;
    insert(&*store, PLAIN, "d", with_keys(&[])).await;
    for (key, expected) in [
        ("x", &["a", "c"][..]),
        ("y", &["a", "b"]),
        ("z", &["c"]),
        ("X", &[]),
        ("w", &[]),
    ] {
        let mut found = ids(&*store, PLAIN, query(Some(key), None, None, false, 10)).await;
        assert_eq!(found, expected, "{key}");
        found.reverse();
        let down = ids(&*store, PLAIN, query(Some(key), None, None, true, 10)).await;
        assert_eq!(down, found, "{key}");
    }
    assert_eq!(
        ids(&*store, PLAIN, query(Some("x"), Some("a"), None, false, 10)).await,
        ["c"]
    );
    assert_eq!(
        ids(&*store, PLAIN, query(Some("x"), None, Some("c"), true, 10)).await,
        ["a"]
    );
    assert_eq!(
        ids(&*store, PLAIN, query(Some("x"), None, None, false, 1)).await,
        ["a"]
    );
}

pub(super) async fn a_key_goes_with_its_document(place: &Place) {
    let store = place.open().await;
    insert(&*store, PLAIN, "a", with_keys(&["x", "y"])).await;
    let written = store
        .replace(PLAIN, "a", 1, with_keys(&["y", "z"]))
        .await
        .unwrap();
    assert_eq!(written, Written::Done);
    assert_eq!(get(&*store, PLAIN, "a").await.keys, ["y", "z"]);
    for (key, count) in [("x", 0), ("y", 1), ("z", 1)] {
        let found = ids(&*store, PLAIN, query(Some(key), None, None, false, 10)).await;
        assert_eq!(found.len(), count, "{key}");
    }
    store.remove(PLAIN, "a", None).await.unwrap();
    insert(&*store, PLAIN, "a", with_keys(&["w"])).await;
    for key in ["y", "z"] {
        assert!(
            ids(&*store, PLAIN, query(Some(key), None, None, false, 10))
                .await
                .is_empty()
        );
    }
}
