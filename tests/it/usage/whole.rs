//! From clients to sums, over a real NATS server.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use slipstream::{
    log::BucketName,
    model::AppId,
    task::Tasks,
    telemetry::{Measure, Metrics},
    usage::{Group, Namespace, Worker, last_used},
};

use super::support::{Place, days, log_of, sum, usage_config};
use crate::{
    doors::{enter, http, publications},
    support::{
        edge::{API_KEY, Edge},
        nats::NatsServer,
        token, until,
    },
};

async fn publish(addr: std::net::SocketAddr, channel: &str, text: &str) {
    let request = format!("POST {}", publications(channel));
    let key = [("x-api-key", API_KEY)];
    let (status, answer) = http(addr, &request, &key, &json!({ "data": text })).await;
    assert!((200..300).contains(&status), "{status} {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_and_backends_do_is_in_the_sums() {
    let nats = NatsServer::start().await;
    let builder = Edge::builder()
        .nats(&[nats.url()])
        .set("usage.flush_interval", "1s");
    let config = builder.config();
    let edge = builder.start().await;
    let place = Place::file().await;
    let log = log_of(&config).await;
    let metrics = Arc::new(Metrics::new());
    let _worker = Worker::start(&*log.log, &place.store, &usage_config(), &metrics, &place.tasks);

    let path = "/connection/websocket";
    let signed = token::token(&json!({ "sub": "u" }));
    let mut first = enter(edge.addr, path, None, Some(&signed)).await.guest();
    let mut second = enter(edge.addr, path, None, None).await.guest();
    for guest in [&mut first, &mut second] {
        guest.subscribe(json!({ "channel": "public:a" })).await.unwrap();
        guest.subscribe(json!({ "channel": "live:a" })).await.unwrap();
    }
    for text in ["one", "two", "three"] {
        publish(edge.addr, "public:a", text).await;
    }
    publish(edge.addr, "live:a", "four").await;
    for guest in [&mut first, &mut second] {
        assert_eq!(guest.publications(4).await.len(), 4);
    }
    let key = [("x-api-key", API_KEY)];
    let page = http(
        edge.addr,
        &format!("GET {}", publications("public:a")),
        &key,
        &Value::Null,
    )
    .await;
    assert_eq!(page.0, 200);
    drop((first, second));
    edge.stop().await;

    until("folded", || async {
        (sum(&place, Measure::ApiCalls).await >= 5).then_some(())
    })
    .await;
    for (measure, expected) in [
        (Measure::ConnectionsOpened, 2),
        (Measure::MessagesIn, 4),
        // `"one"`, `"two"`, `"three"`, `"four"`, with their quotes.
        (Measure::BytesIn, 5 + 5 + 7 + 6),
        (Measure::MessagesOut, 8),
        (Measure::HistoryReads, 1),
        (Measure::ApiCalls, 5),
        (Measure::Pushes, 0),
    ] {
        assert_eq!(sum(&place, measure).await, expected, "{measure:?}");
    }
    assert!(sum(&place, Measure::ConnectionMs).await > 0);
    let sent = sum(&place, Measure::BytesOut).await;
    assert!((8 * 10..8 * 1_000).contains(&sent), "{sent}");
    let peaks = days(&place, Group::None).await;
    assert!(peaks.iter().any(|row| row.peak_connections == 2), "{peaks:?}");
    let of = async |name: &str, measure| {
        let name = Namespace::Named(name.to_owned());
        let rows = days(&place, Group::Namespace).await;
        let rows = rows.iter().filter(|row| row.namespace == name);
        rows.map(|row| row.get(measure)).sum::<i64>()
    };
    assert_eq!(of("public", Measure::MessagesIn).await, 3);
    assert_eq!(of("public", Measure::MessagesOut).await, 6);
    assert_eq!(of("public", Measure::HistoryReads).await, 1);
    assert_eq!(of("live", Measure::MessagesOut).await, 2);
    assert_eq!(of("", Measure::MessagesIn).await, 0);
    let keys = last_used(&*place.store, &AppId::new("dev").unwrap())
        .await
        .unwrap();
    assert_eq!(keys.len(), 1, "the key that the token is signed with: {keys:?}");
    assert!(keys.values().all(|minute| minute % 60_000 == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_use_of_an_api_key_is_known_by_its_id() {
    let nats = NatsServer::start().await;
    let builder = Edge::builder()
        .nats(&[nats.url()])
        .set("usage.flush_interval", "1s");
    let edge = builder.start().await;
    let place = Place::file().await;
    let metrics = Arc::new(Metrics::new());
    let _worker = Worker::start(
        &**edge.log(),
        &place.store,
        &usage_config(),
        &metrics,
        &place.tasks,
    );
    let hash = |text: &str| {
        let hash = digest(&SHA256, text.as_bytes());
        let hex = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        hex.collect::<String>()
    };
    let record = json!({
        "format": 1,
        "version": 1,
        "settings": {"anonymous": true, "namespaces": [{"name": "", "subscribe": "anyone"}]},
        "keys": [{"id": "k-used", "hash": hash("one")}, {"id": "k-idle", "hash": hash("two")}],
    });
    let bucket = edge.log().bucket(BucketName::Apps);
    bucket
        .set("shop", record.to_string().into(), 0, None)
        .await
        .unwrap();
    until("served", || async { edge.app_version("shop") }).await;
    let begun = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    // The right key, and one that is no app's.
    for (key, status) in [("one", 200), ("three", 401)] {
        let headers = [("x-api-key", key)];
        let answer = http(edge.addr, "GET /v1/channels", &headers, &Value::Null).await;
        assert_eq!(answer.0, status);
    }
    let app = AppId::new("shop").unwrap();
    let keys = until("reported", || async {
        let keys = last_used(&*place.store, &app).await.unwrap();
        (!keys.is_empty()).then_some(keys)
    })
    .await;
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["k-used"]);
    assert!(keys["k-used"] > begun - 60_000 && keys["k-used"] % 60_000 == 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_takes_one_interval_with_it_and_a_worker_nothing() {
    let nats = NatsServer::start().await;
    let builder = Edge::builder()
        .nats(&[nats.url()])
        .set("usage.flush_interval", "1s");
    let config = builder.config();
    let place = Place::file().await;
    let log = log_of(&config).await;
    let metrics = Arc::new(Metrics::new());
    let work = |tasks: &Tasks| Worker::start(&*log.log, &place.store, &usage_config(), &metrics, tasks);

    let mut killed = builder.clone().spawn().await;
    let first = Tasks::default();
    let _first = work(&first);
    for text in ["1", "2", "3", "4", "5"] {
        publish(killed.addr, "public:a", text).await;
    }
    until("reported", || async {
        (sum(&place, Measure::MessagesIn).await == 5).then_some(())
    })
    .await;
    first.stop();
    for text in ["6", "7", "8"] {
        publish(killed.addr, "public:a", text).await;
    }
    killed.kill();

    let other = builder.spawn().await;
    for text in ["9", "10"] {
        publish(other.addr, "public:a", text).await;
    }
    // In order: it reports what it has before it ends.
    assert_eq!(other.terminate().await, Some(0));
    // Two that are stopped as they come, in the middle of whatever they do.
    for _ in 0..2 {
        let tasks = Tasks::default();
        let _worker = work(&tasks);
        tokio::task::yield_now().await;
        tasks.stop();
    }
    let _last = work(&place.tasks);
    until("folded", || async {
        (sum(&place, Measure::MessagesIn).await >= 7).then_some(())
    })
    .await;
    let total = sum(&place, Measure::MessagesIn).await;
    assert!((7..=10).contains(&total), "{total}");
    let calls = sum(&place, Measure::ApiCalls).await;
    assert_eq!(calls, total, "each record is whole");
}
