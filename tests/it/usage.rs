//! What apps use, from the nodes into the store, with whatever is killed on the way.

mod killed;
mod support;
mod whole;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use slipstream::{
    log::{ConsumeOptions, Consumer, Log, StreamName, WorkStream, memory::MemoryLog},
    model::AppId,
    store::{Collection, Query},
    telemetry::{Measure, Metrics},
    usage::{
        AppRecord, Folder, Group, Namespace, QueryError, Record, Row, Step, Window, Worker, last_used, month,
        query,
    },
};
use support::{Place, app_record, record, usage_config};

use crate::support::{mongowire::Mongowire, until, within};

fn app() -> AppId {
    AppId::new("shop").unwrap()
}

async fn rows(place: &Place, step: Step, group: Group) -> Vec<Row> {
    let window = Window {
        from_ms: support::START_MS,
        to_ms: support::START_MS + 3 * 86_400_000,
        step,
        group,
    };
    query(&*place.store, &app(), window, 100_000).await.unwrap()
}

/// Its place in the stream.
async fn append(stream: &dyn WorkStream, record: &Record) -> u64 {
    let data = Bytes::from(serde_json::to_vec(record).unwrap());
    let queue = (record.node.number() % 4).to_string();
    let node = record.node.to_string();
    let id = format!("{node}.{}", record.sequence);
    let sent = stream.append(&[&queue, &node], Some(&id), data).unwrap();
    within(sent).await.unwrap().seq
}

/// Every sum is right at every step, whatever is folded twice.
async fn sums_are_right(place: &Place) {
    let metrics = Arc::new(Metrics::new());
    let folder = Folder::new(place.store.clone(), &usage_config(), metrics.clone());
    // Node 1 reports in two minutes, node 2 in the first: 0 s, 20 s and 70 s behind the start.
    let first = record(1, 1, 0, vec![app_record(10, 5, &[("=chat", 6), ("*", 4)])]);
    let second = record(2, 1, 20, vec![app_record(100, 7, &[("=chat", 100)])]);
    let third = record(1, 2, 70, vec![app_record(1_000, 3, &[("=", 1_000)])]);
    for record in [&first, &first, &second, &third, &second, &first, &third] {
        folder.fold(record).await.unwrap();
    }
    let told = async |step, group| {
        let rows = rows(place, step, group).await;
        let rows = rows.into_iter().map(|row| {
            (
                row.start_ms - support::START_MS,
                row.namespace.clone(),
                row.get(Measure::MessagesIn),
                row.peak_connections,
            )
        });
        rows.collect::<Vec<_>>()
    };
    let all = Namespace::All;
    assert_eq!(
        told(Step::Minute, Group::None).await,
        [(0, all.clone(), 110, 12), (60_000, all.clone(), 1_000, 3)],
        "peaks of nodes in a minute are added up"
    );
    let whole = [(0, all.clone(), 1_110, 12)];
    assert_eq!(
        told(Step::Hour, Group::None).await,
        whole,
        "the most of its minutes"
    );
    assert_eq!(told(Step::Day, Group::None).await, whole);
    let named = |name: &str| Namespace::Named(name.to_owned());
    assert_eq!(
        told(Step::Day, Group::Namespace).await,
        [
            (0, Namespace::Others, 4, 0),
            (0, named(""), 1_000, 0),
            (0, named("chat"), 106, 0)
        ]
    );
    let sum = month(&*place.store, &app(), 2026, 11).await.unwrap();
    assert_eq!((sum.get(Measure::MessagesIn), sum.peak_connections), (1_110, 12));
    let none = month(&*place.store, &app(), 2026, 12).await.unwrap();
    assert_eq!((none.counts.len(), none.peak_connections), (0, 0));
    assert_eq!(
        month(&*place.store, &app(), 2026, 13).await,
        Err(QueryError::Month)
    );
    // Another app whose id begins with this one's has nothing.
    let other = AppId::new("sho").unwrap();
    let window = Window {
        from_ms: 0,
        to_ms: support::START_MS * 2,
        step: Step::Day,
        group: Group::None,
    };
    assert_eq!(
        query(&*place.store, &other, window, 100_000).await,
        Ok(Vec::new())
    );
    assert_eq!(metrics.usage_refused.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_right_in_a_file() {
    sums_are_right(&Place::file().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_right_in_a_database() {
    let server = Mongowire::start().await;
    sums_are_right(&Place::database(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_has_bounds_and_pages_are_joined() {
    let place = Place::file().await;
    let folder = Folder::new(place.store.clone(), &usage_config(), Arc::default());
    let many: Vec<_> = (0..1_200).map(|n| (format!("=n{n:04}"), 1)).collect();
    let many: Vec<_> = many.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    folder
        .fold(&record(1, 1, 0, vec![app_record(1_200, 1, &many)]))
        .await
        .unwrap();
    let window = Window {
        from_ms: support::START_MS,
        to_ms: support::START_MS + 1,
        step: Step::Minute,
        group: Group::Namespace,
    };
    let ask = async |most| query(&*place.store, &app(), window, most).await;
    let rows = ask(1_200).await.unwrap();
    assert_eq!(rows.len(), 1_200);
    assert!(rows.is_sorted_by_key(|row| row.namespace.clone()));
    assert_eq!(ask(1_199).await, Err(QueryError::TooMany(1_199)), "never a part");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_sums_expire_and_documents_stay_small() {
    let place = Place::file().await;
    let folder = Folder::new(place.store.clone(), &usage_config(), Arc::default());
    folder
        .fold(&record(1, 1, 0, vec![app_record(1, 1, &[("=", 1)])]))
        .await
        .unwrap();
    let left = async |after: Duration| {
        let now_ms = support::START_MS + after.as_millis() as i64;
        place.store.sweep(Collection::Usage, now_ms, 1_000).await.unwrap();
        let query = Query {
            limit: 100,
            ..Query::default()
        };
        let all = place.store.list(Collection::Usage, query).await.unwrap();
        all.into_iter().map(|document| document.id).collect::<Vec<_>>()
    };
    let hours = |hours: u64| Duration::from_secs(3_600 * hours);
    assert_eq!(
        left(hours(48)).await.len(),
        7,
        "two of each step, and one of keys"
    );
    assert_eq!(left(hours(49)).await.len(), 5, "minutes are kept for two days");
    assert_eq!(left(hours(24 * 61)).await.len(), 3);
    assert_eq!(left(hours(24 * 402)).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_keys_is_kept_over_nodes_and_days() {
    let place = Place::file().await;
    let folder = Folder::new(place.store.clone(), &usage_config(), Arc::default());
    let used = |key: &str, minute: i64| AppRecord {
        app: "shop".to_owned(),
        keys: [(key.to_owned(), minute)].into(),
        ..AppRecord::default()
    };
    for record in [
        record(1, 1, 86_400, vec![used("k-1", 120_000)]),
        record(2, 1, 0, vec![used("k-1", 60_000)]),
        record(2, 2, 20, vec![used("k_2", 180_000)]),
    ] {
        folder.fold(&record).await.unwrap();
    }
    let last = last_used(&*place.store, &app()).await.unwrap();
    let last: Vec<_> = last.into_iter().collect();
    assert_eq!(last, [("k-1".to_owned(), 120_000), ("k_2".to_owned(), 180_000)]);
    let other = last_used(&*place.store, &AppId::new("sho").unwrap())
        .await
        .unwrap();
    assert!(other.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_added_up_holds_up_nothing() {
    let place = Place::file().await;
    let metrics = Arc::new(Metrics::new());
    let log = MemoryLog::new(Vec::new());
    let stream = log.work_stream(StreamName::Usage);
    let garbage = stream
        .append(&["1", "x"], None, Bytes::from_static(b"{}"))
        .unwrap();
    within(garbage).await.unwrap();
    let mut too_much = app_record(i64::MAX, 0, &[]);
    too_much.app = "loud".to_owned();
    let mut nobody = app_record(1, 0, &[]);
    nobody.app = "not an app".to_owned();
    let mine = || app_record(1, 0, &[]);
    append(&*stream, &record(1, 1, 0, vec![too_much.clone(), nobody, mine()])).await;
    append(&*stream, &record(1, 2, 0, vec![too_much, mine()])).await;
    let _worker = Worker::start(&log, &place.store, &usage_config(), &metrics, &place.tasks);
    until("folded", || async {
        (metrics.usage_folded.get() == 2).then_some(())
    })
    .await;
    let rows = rows(&place, Step::Day, Group::None).await;
    assert_eq!(rows[0].get(Measure::MessagesIn), 2);
    // The garbage, the app that is none, and three sums that would leave their range.
    assert_eq!(metrics.usage_refused.get(), 5);
    assert_eq!(within(stream.waiting(&[])).await.unwrap().messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_before_it_settles_counts_nothing_twice() {
    let place = Place::file().await;
    let metrics = Arc::new(Metrics::new());
    let log = MemoryLog::new(Vec::new());
    let stream = log.work_stream(StreamName::Usage);
    for sequence in 1..=3 {
        let apps = vec![app_record(10, 1, &[("=", 10)])];
        append(&*stream, &record(1, sequence, 0, apps)).await;
    }
    // What a worker does, up to where it dies.
    let mut consumer: Box<dyn Consumer> = within(stream.consume(ConsumeOptions {
        durable: "fold-1".to_owned(),
        prefix: vec!["1".to_owned()],
        max_ack_pending: 1,
        ack_wait: Duration::from_millis(300),
        forget_after: None,
    }))
    .await
    .unwrap();
    let pulled = within(consumer.pull(10, Duration::from_secs(5))).await.unwrap();
    assert_eq!(pulled.len(), 1, "the next is not given before");
    let first = Record::parse(&pulled[0].data).unwrap();
    Folder::new(place.store.clone(), &usage_config(), metrics.clone())
        .fold(&first)
        .await
        .unwrap();
    drop((pulled, consumer));

    let workers: Vec<_> = (0..3)
        .map(|_| Worker::start(&log, &place.store, &usage_config(), &metrics, &place.tasks))
        .collect();
    until("folded", || async {
        (metrics.usage_folded.get() == 3).then_some(())
    })
    .await;
    let total: i64 = rows(&place, Step::Minute, Group::None)
        .await
        .iter()
        .map(|row| row.get(Measure::MessagesIn))
        .sum();
    assert_eq!((total, workers.len()), (30, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_waited_for_and_nothing_is_lost() {
    let mut server = Mongowire::start().await;
    let place = Place::database(&server).await;
    let metrics = Arc::new(Metrics::new());
    let log = MemoryLog::new(Vec::new());
    let stream = log.work_stream(StreamName::Usage);
    server.kill().await;
    let _worker = Worker::start(&log, &place.store, &usage_config(), &metrics, &place.tasks);
    for node in 1..=8 {
        for sequence in 1..=3 {
            append(&*stream, &record(node, sequence, 0, vec![app_record(1, 1, &[])])).await;
        }
    }
    until("delayed", || async {
        (metrics.usage_delayed.get() > 4).then_some(())
    })
    .await;
    assert_eq!(metrics.usage_folded.get(), 0);
    assert_eq!(within(stream.waiting(&[])).await.unwrap().messages, 24);
    server.restart().await;
    until("folded", || async {
        (metrics.usage_folded.get() >= 24).then_some(())
    })
    .await;
    let rows = rows(&place, Step::Hour, Group::None).await;
    assert_eq!(rows[0].get(Measure::MessagesIn), 24);
    assert_eq!(rows[0].peak_connections, 8);
}

#[tokio::test]
async fn a_record_of_a_later_format_waits_for_a_later_worker() {
    let place = Place::file().await;
    let metrics = Arc::new(Metrics::new());
    let log = MemoryLog::new(Vec::new());
    let stream = log.work_stream(StreamName::Usage);
    let mut later: Value = serde_json::to_value(record(1, 1, 0, vec![app_record(1, 0, &[])])).unwrap();
    later["format"] = 2.into();
    let sent = stream
        .append(&["1", "x"], None, later.to_string().into())
        .unwrap();
    within(sent).await.unwrap();
    let _worker = Worker::start(&log, &place.store, &usage_config(), &metrics, &place.tasks);
    until("delayed", || async {
        (metrics.usage_delayed.get() > 1).then_some(())
    })
    .await;
    assert_eq!(within(stream.waiting(&[])).await.unwrap().messages, 1);
    assert_eq!(metrics.usage_refused.get(), 0);
}
