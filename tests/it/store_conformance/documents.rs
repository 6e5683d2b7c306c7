use serde_json::json;
use slipstream::store::{Collection, Document, Draft, Written};

use super::places::{
    PLAIN, Place, UNIQUE, addition, all, draft, expiring, get, ids, insert, with_body, with_keys, with_unique,
};

pub(super) async fn what_is_inserted_is_there(place: &Place) {
    let store = place.open().await;
    let given = Draft {
        unique: Some("ann@example.com".to_owned()),
        keys: vec!["b".to_owned(), "a".to_owned(), "b".to_owned()],
        expires_ms: Some(-5),
        body: json!({ "name": "Ann", "deep": { "list": [1, 2.5, null, true, "x", {}] } }),
    };
    insert(&*store, UNIQUE, "ann", given.clone()).await;
    let expected = Document {
        id: "ann".to_owned(),
        revision: 1,
        unique: given.unique,
        keys: given.keys,
        expires_ms: given.expires_ms,
        body: given.body,
        numbers: Default::default(),
        added: Default::default(),
    };
    assert_eq!(get(&*store, UNIQUE, "ann").await, expected);
    let found = store.find(UNIQUE, "ann@example.com").await.unwrap();
    assert_eq!(found, Some(expected));
    // Ids are of a collection, and written as they are.
    for (collection, id) in [(PLAIN, "ann"), (UNIQUE, "Ann"), (UNIQUE, "ann ")] {
        assert_eq!(store.get(collection, id).await.unwrap(), None);
    }
    assert_eq!(store.find(UNIQUE, "Ann@example.com").await.unwrap(), None);
    store.ping().await.unwrap();
}

pub(super) async fn nothing_is_found_by_what_nothing_can_have(place: &Place) {
    let store = place.open().await;
    insert(&*store, UNIQUE, "ann", with_unique("a")).await;
    let long = "x".repeat(301);
    for name in ["", "a\0b", "\u{7f}", &long] {
        assert_eq!(store.get(UNIQUE, name).await.unwrap(), None);
        assert_eq!(store.find(UNIQUE, name).await.unwrap(), None);
        assert!(!store.remove(UNIQUE, name, None).await.unwrap());
        let mut query = all();
        query.key = Some(name.to_owned());
        assert!(ids(&*store, UNIQUE, query).await.is_empty());
    }
    let revision = store.replace(UNIQUE, "ann", u64::MAX, with_unique("a")).await;
    assert_eq!(revision.unwrap(), Written::Conflict);
    assert!(!store.remove(UNIQUE, "ann", Some(u64::MAX)).await.unwrap());
}

pub(super) async fn an_id_is_given_once(place: &Place) {
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(1)).await;
    assert_eq!(
        store.insert(PLAIN, "a", draft(2)).await.unwrap(),
        Written::Conflict
    );
    assert_eq!(get(&*store, PLAIN, "a").await.body, json!({ "n": 1 }));
    insert(&*store, Collection::Plans, "a", draft(3)).await;
    assert!(store.remove(PLAIN, "a", None).await.unwrap());
    insert(&*store, PLAIN, "a", draft(4)).await;
    assert_eq!(get(&*store, PLAIN, "a").await.revision, 1);
}

pub(super) async fn a_replacement_needs_the_revision(place: &Place) {
    let store = place.open().await;
    assert_eq!(
        store.replace(PLAIN, "a", 1, draft(1)).await.unwrap(),
        Written::Conflict
    );
    let first = Draft {
        expires_ms: Some(7),
        ..with_keys(&["k", "l"])
    };
    insert(&*store, PLAIN, "a", first).await;
    for wrong in [0, 2, 3] {
        let written = store.replace(PLAIN, "a", wrong, draft(2)).await.unwrap();
        assert_eq!(written, Written::Conflict);
    }
    // All of it is replaced, also by less.
    for revision in 1..4 {
        let body = with_body(json!({ "at": revision }));
        assert_eq!(
            store.replace(PLAIN, "a", revision, body).await.unwrap(),
            Written::Done
        );
        let now = get(&*store, PLAIN, "a").await;
        assert_eq!(
            (now.revision, now.body),
            (revision + 1, json!({ "at": revision }))
        );
        assert_eq!((now.keys, now.expires_ms), (Vec::new(), None));
    }
}

pub(super) async fn a_removal_may_need_the_revision(place: &Place) {
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(1)).await;
    store.replace(PLAIN, "a", 1, draft(2)).await.unwrap();
    assert!(!store.remove(PLAIN, "a", Some(1)).await.unwrap());
    assert!(store.remove(PLAIN, "a", Some(2)).await.unwrap());
    assert!(!store.remove(PLAIN, "a", Some(2)).await.unwrap());
    assert!(!store.remove(PLAIN, "a", None).await.unwrap());
    assert_eq!(store.get(PLAIN, "a").await.unwrap(), None);
    insert(&*store, PLAIN, "a", draft(3)).await;
    assert!(store.remove(PLAIN, "a", None).await.unwrap());
}

pub(super) async fn a_unique_value_has_one_document(place: &Place) {
    let store = place.open().await;
    insert(&*store, UNIQUE, "ann", with_unique("one")).await;
    let inserted = store.insert(UNIQUE, "bob", with_unique("one")).await.unwrap();
    assert_eq!(inserted, Written::Taken);
    assert_eq!(store.get(UNIQUE, "bob").await.unwrap(), None);
    insert(&*store, UNIQUE, "bob", with_unique("two")).await;
    let replaced = store.replace(UNIQUE, "bob", 1, with_unique("one")).await.unwrap();
    assert_eq!(replaced, Written::Taken);
    let bob = get(&*store, UNIQUE, "bob").await;
    assert_eq!((bob.revision, bob.unique.as_deref()), (1, Some("two")));
    // Where both stand in the way, it is the id that counts, and the revision.
    let inserted = store.insert(UNIQUE, "bob", with_unique("one")).await.unwrap();
    assert_eq!(inserted, Written::Conflict);
    let replaced = store.replace(UNIQUE, "bob", 9, with_unique("one")).await.unwrap();
    assert_eq!(replaced, Written::Conflict);
    // Its own value is in nobody's way; and another collection has its own.
    let replaced = store.replace(UNIQUE, "bob", 1, with_unique("two")).await.unwrap();
    assert_eq!(replaced, Written::Done);
    insert(&*store, Collection::Sessions, "ann", with_unique("one")).await;
    let put = Document {
        id: "cem".to_owned(),
        ..get(&*store, UNIQUE, "ann").await
    };
    assert_eq!(store.put(UNIQUE, put).await.unwrap(), Written::Taken);
    assert_eq!(store.get(UNIQUE, "cem").await.unwrap(), None);
}

pub(super) async fn a_unique_value_is_free_again(place: &Place) {
    let store = place.open().await;
    insert(&*store, UNIQUE, "ann", with_unique("one")).await;
    assert!(store.remove(UNIQUE, "ann", None).await.unwrap());
    insert(&*store, UNIQUE, "bob", with_unique("one")).await;
    let replaced = store.replace(UNIQUE, "bob", 1, with_unique("two")).await.unwrap();
    assert_eq!(replaced, Written::Done);
    assert_eq!(store.find(UNIQUE, "one").await.unwrap(), None);
    insert(&*store, UNIQUE, "cem", with_unique("one")).await;
    let bob = store.find(UNIQUE, "two").await.unwrap().unwrap();
    assert_eq!((&*bob.id, bob.revision), ("bob", 2));
}

pub(super) async fn a_put_is_what_was_put(place: &Place) {
    let store = place.open().await;
    let first = Document {
        id: "a".to_owned(),
        revision: 41,
        unique: Some("u".to_owned()),
        keys: vec!["k".to_owned()],
        expires_ms: Some(i64::MAX),
        body: json!({ "n": 1 }),
        numbers: [("sum".to_owned(), i64::MIN)].into(),
        added: [("node-1".to_owned(), 9)].into(),
    };
    assert_eq!(store.put(UNIQUE, first.clone()).await.unwrap(), Written::Done);
    assert_eq!(get(&*store, UNIQUE, "a").await, first);
    let second = Document {
        revision: 7,
        unique: Some("v".to_owned()),
        keys: vec!["l".to_owned()],
        expires_ms: None,
        numbers: Default::default(),
        added: Default::default(),
        ..first
    };
    for _ in 0..2 {
        assert_eq!(store.put(UNIQUE, second.clone()).await.unwrap(), Written::Done);
        assert_eq!(get(&*store, UNIQUE, "a").await, second);
    }
    assert_eq!(store.find(UNIQUE, "u").await.unwrap(), None);
    let mut query = all();
    query.key = Some("k".to_owned());
    assert!(ids(&*store, UNIQUE, query).await.is_empty());
    let replaced = store.replace(UNIQUE, "a", 7, with_unique("w")).await.unwrap();
    assert_eq!(replaced, Written::Done);
    assert_eq!(get(&*store, UNIQUE, "a").await.revision, 8);
}

pub(super) async fn sweep_takes_what_has_expired(place: &Place) {
    let store = place.open().await;
    for (id, expires_ms) in [("a", 10), ("b", 20), ("c", 30), ("d", 40)] {
        insert(&*store, PLAIN, id, expiring(expires_ms)).await;
    }
    insert(&*store, PLAIN, "e", draft(1)).await;
    insert(&*store, Collection::Plans, "a", expiring(10)).await;
    assert_eq!(store.sweep(PLAIN, 9, 100).await.unwrap(), 0);
    // What has expired is there until it is swept.
    assert_eq!(get(&*store, PLAIN, "a").await.expires_ms, Some(10));
    assert_eq!(store.sweep(PLAIN, 30, 2).await.unwrap(), 2);
    assert_eq!(store.sweep(PLAIN, 30, 2).await.unwrap(), 1);
    assert_eq!(store.sweep(PLAIN, 30, 2).await.unwrap(), 0);
    assert_eq!(ids(&*store, PLAIN, all()).await, ["d", "e"]);
    assert_eq!(store.count(Collection::Plans).await.unwrap(), 1);
}

pub(super) async fn documents_are_counted(place: &Place) {
    let store = place.open().await;
    for collection in Collection::ALL {
        let own = u64::from(collection == Collection::Meta);
        assert_eq!(store.count(collection).await.unwrap(), own, "{collection:?}");
    }
    for n in 0..5 {
        insert(&*store, PLAIN, &format!("a{n}"), draft(n)).await;
    }
    store.remove(PLAIN, "a3", None).await.unwrap();
    assert_eq!(store.count(PLAIN).await.unwrap(), 4);
}

pub(super) async fn what_is_written_survives(place: &Place) {
    let mut stored = Vec::new();
    {
        let store = place.open().await;
        insert(&*store, UNIQUE, "ann", with_unique("one")).await;
        insert(&*store, PLAIN, "a", with_keys(&["k"])).await;
        store.replace(PLAIN, "a", 1, with_keys(&["l"])).await.unwrap();
        let usage = addition("n1", 1, &[("messages", 3)]);
        assert!(store.add(Collection::Usage, "u", usage).await.unwrap());
        for (collection, id) in [(UNIQUE, "ann"), (PLAIN, "a"), (Collection::Usage, "u")] {
            stored.push((collection, get(&*store, collection, id).await));
        }
    }
    let store = place.open().await;
    for (collection, document) in stored {
        assert_eq!(get(&*store, collection, &document.id).await, document);
    }
    let mut query = all();
    query.key = Some("l".to_owned());
    assert_eq!(ids(&*store, PLAIN, query).await, ["a"]);
}
