use std::sync::Arc;

use slipstream::store::{Store, Written};
use tokio::task::JoinSet;

use super::places::{PLAIN, Place, UNIQUE, draft, get, insert, with_unique};

const MANY: i64 = 12;

/// Runs the same for each of many numbers, on as many tasks at once.
async fn at_once<F>(store: &Arc<dyn Store>, act: impl Fn(Arc<dyn Store>, i64) -> F) -> Vec<Written>
where
    F: Future<Output = Written> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for n in 0..MANY {
        let act = act(store.clone(), n);
        tasks.spawn(async move { (n, act.await) });
    }
    let mut outcomes = tasks.join_all().await;
    outcomes.sort_by_key(|(n, _)| *n);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[track_caller]
fn one_won(outcomes: &[Written], others: Written) -> i64 {
    let won = outcomes
        .iter()
        .filter(|outcome| **outcome == Written::Done)
        .count();
    let lost = outcomes.iter().filter(|outcome| **outcome == others).count();
    assert_eq!((won, lost), (1, outcomes.len() - 1), "{outcomes:?}");
    outcomes
        .iter()
        .position(|outcome| *outcome == Written::Done)
        .unwrap() as i64
}

pub(super) async fn one_of_many_inserts_wins(place: &Place) {
    let store = place.open().await;
    for round in 0..5 {
        let outcomes = at_once(&store, |store, n| async move {
            store.insert(PLAIN, &format!("a{round}"), draft(n)).await.unwrap()
        });
        let winner = one_won(&outcomes.await, Written::Conflict);
        let stored = get(&*store, PLAIN, &format!("a{round}")).await;
        assert_eq!(stored.body["n"], winner);
    }
}

pub(super) async fn one_of_many_replacements_wins(place: &Place) {
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(-1)).await;
    for revision in 1..=5 {
        let outcomes = at_once(&store, move |store, n| async move {
            store.replace(PLAIN, "a", revision, draft(n)).await.unwrap()
        });
        let winner = one_won(&outcomes.await, Written::Conflict);
        let stored = get(&*store, PLAIN, "a").await;
        assert_eq!(
            (stored.revision, &stored.body["n"]),
            (revision + 1, &winner.into())
        );
    }
}

pub(super) async fn one_of_many_unique_values_wins(place: &Place) {
    let store = place.open().await;
    for round in 0..5 {
        let outcomes = at_once(&store, move |store, n| async move {
            let value = with_unique(&format!("value-{round}"));
            store
                .insert(UNIQUE, &format!("{round}-{n}"), value)
                .await
                .unwrap()
        });
        let winner = one_won(&outcomes.await, Written::Taken);
        let stored = store
            .find(UNIQUE, &format!("value-{round}"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(stored.id, format!("{round}-{winner}"));
    }
    // The same by replacing.
    for n in 0..MANY {
        insert(
            &*store,
            UNIQUE,
            &format!("r-{n}"),
            with_unique(&format!("own-{n}")),
        )
        .await;
    }
    let outcomes = at_once(&store, |store, n| async move {
        store
            .replace(UNIQUE, &format!("r-{n}"), 1, with_unique("wanted"))
            .await
            .unwrap()
    });
    let winner = one_won(&outcomes.await, Written::Taken);
    let stored = store.find(UNIQUE, "wanted").await.unwrap().unwrap();
    assert_eq!((stored.id, stored.revision), (format!("r-{winner}"), 2));
    assert_eq!(store.count(UNIQUE).await.unwrap(), 5 + MANY as u64);
}

pub(super) async fn counting_by_compare_and_set_loses_nothing(place: &Place) {
    let store = place.open().await;
    insert(&*store, PLAIN, "a", draft(0)).await;
    let outcomes = at_once(&store, |store, _| async move {
        for _ in 0..3 {
            loop {
                let present = get(&*store, PLAIN, "a").await;
                let next = draft(present.body["n"].as_i64().unwrap() + 1);
                if store.replace(PLAIN, "a", present.revision, next).await.unwrap() == Written::Done {
                    break;
                }
            }
        }
        Written::Done
    });
    outcomes.await;
    let stored = get(&*store, PLAIN, "a").await;
    assert_eq!(
        (stored.body["n"].as_i64(), stored.revision),
        (Some(3 * MANY), 3 * MANY as u64 + 1)
    );
}
