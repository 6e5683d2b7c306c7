//! More apps with a backlog than a node publishes for at once.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use slipstream::log::StreamName;

use crate::support::{
    edge::{Builder, Edge},
    holds,
    http::request_with,
    nats::NatsServer,
    until,
};

/// `queue.ack_wait`, and as much again as NATS may be late.
const ACK_WAIT: Duration = Duration::from_secs(3);

/// An app with a queue, and its own rate.
fn app(id: &str, limits: &str) -> String {
    format!(
        "[[apps]]\nid = \"{id}\"\nanonymous = true\napi_keys = [\"the-key-of-{id}-for-the-tests-of-turns\"]\n{limits}\n\
         [[apps.namespaces]]\nname = \"\"\nhistory = \"std\"\nsubscribe = \"anyone\"\noverflow = \"queue\"\n"
    )
}

fn edge(nats: &NatsServer, apps: &[(&str, &str)]) -> Builder {
    let apps: String = apps.iter().map(|(id, limits)| app(id, limits)).collect();
    Edge::builder()
        .nats(&[nats.url()])
        .file(&apps)
        .set("queue.max_drains", "1")
        .set("queue.ack_wait", "2s")
}

async fn ask(addr: SocketAddr, id: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let key = format!("the-key-of-{id}-for-the-tests-of-turns");
    let path = format!("/v1/channels/x/{path}");
    let answer = request_with(addr, method, &path, &key, body).await.unwrap();
    (answer.status, answer.body)
}

/// Publishes `count` one after the other; how many were queued.
async fn publish(addr: SocketAddr, id: &str, count: usize) -> usize {
    let mut queued = 0;
    for n in 0..count {
        let body = format!("{{\"data\": {n}}}");
        let (status, body) = ask(addr, id, "POST", "publications", &body).await;
        assert!(matches!(status, 201 | 202), "{id}: {status} {body}");
        queued += usize::from(status == 202);
    }
    queued
}

/// What is published of an app: each with its time.
async fn published(addr: SocketAddr, id: &str) -> Vec<(u64, i64)> {
    let (_, page) = ask(addr, id, "GET", "publications?limit=1000", "").await;
    let publications = page["publications"].as_array().unwrap().iter();
    publications
        .map(|it| (it["data"].as_u64().unwrap(), it["time"].as_i64().unwrap()))
        .collect()
}

async fn all_of(addr: SocketAddr, id: &str, count: usize) -> Vec<(u64, i64)> {
    let all = until("all of an app is published", || async {
        let published = published(addr, id).await;
        (published.len() >= count).then_some(published)
    })
    .await;
    let numbers: Vec<_> = all.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (0..count as u64).collect::<Vec<_>>(), "{id}");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_with_a_long_backlog_and_a_low_rate_holds_up_no_other() {
    const LONG: usize = 80;
    let nats = NatsServer::start().await;
    let fast = "limits.publish_rate = 10";
    let edge = edge(
        &nats,
        &[
            ("slow", "limits.publish_rate = 1"),
            ("b", fast),
            ("c", fast),
            ("d", fast),
        ],
    )
    .start()
    .await;
    assert!(publish(edge.addr, "slow", LONG).await > LONG / 2);
    let (b, c, d) = tokio::join!(
        publish(edge.addr, "b", 30),
        publish(edge.addr, "c", 30),
        publish(edge.addr, "d", 30)
    );
    assert!(b > 0 && c > 0 && d > 0, "{b} {c} {d}");
    for id in ["b", "c", "d"] {
        all_of(edge.addr, id, 30).await;
    }
    // They have shared the one place with it, and did not wait for its end; and it goes on.
    let before = published(edge.addr, "slow").await.len();
    assert!(before < LONG, "{before}");
    until("the slow one has its turns, too", || async {
        (published(edge.addr, "slow").await.len() >= before + 2).then_some(())
    })
    .await;
    holds("nobody waits for a turn any more", || {
        edge.metric("slipstream_queue_apps_waiting") == 0.0
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_no_rate_holds_up_leaves_others_their_turn() {
    const LONG: usize = 400;
    let nats = NatsServer::start().await;
    let slow = "limits.publish_rate = 1";
    let mut before = edge(&nats, &[("long", slow), ("short", slow)]).spawn().await;
    let (long, short) = (
        publish(before.addr, "long", LONG).await,
        publish(before.addr, "short", 20).await,
    );
    assert!(long >= LONG - 20 && short >= 5, "{long} and {short} wait");
    before.kill();
    // What it had taken is free again.
    tokio::time::sleep(ACK_WAIT).await;
    // It finds what waits in the order of the apps.
    let edge = edge(&nats, &[("long", ""), ("short", "")]).start().await;
    let long = all_of(edge.addr, "long", LONG).await;
    let short = all_of(edge.addr, "short", 20).await;
    assert!(
        short[19].1 < long[LONG - 1].1,
        "all of the short one comes before the end of the long one"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_whose_month_is_used_up_takes_no_turns() {
    let nats = NatsServer::start().await;
    let poor = "limits.publish_rate = 2\nquotas.messages_per_month = 4";
    let edge = edge(&nats, &[("poor", poor), ("b", "limits.publish_rate = 10")])
        .set("quotas.interval", "200ms")
        .set("quotas.flush_interval", "200ms")
        .start()
        .await;
    assert!(publish(edge.addr, "poor", 8).await >= 4);
    let deferred = "slipstream_queue_total{outcome=\"deferred\"}";
    holds("the month is used up", || edge.metric(deferred) >= 1.0).await;
    assert_eq!(published(edge.addr, "poor").await.len(), 4);
    assert!(publish(edge.addr, "b", 40).await > 0);
    all_of(edge.addr, "b", 40).await;
    // Some rounds of the watcher, too, in which it is found to wait.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(edge.metric(deferred), 1.0, "it is asked about once a minute");
    assert_eq!(published(edge.addr, "poor").await.len(), 4);
    assert_eq!(edge.metric("slipstream_queue_apps_waiting"), 0.0);
    let (_, queue) = ask(edge.addr, "poor", "GET", "queue", "").await;
    assert!(queue["waiting"].as_u64() >= Some(4), "{queue}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_too_long_is_dropped_and_counted_of_deleted_apps_too() {
    let nats = NatsServer::start().await;
    let slow = "limits.publish_rate = 1";
    let mut before = edge(&nats, &[("stays", slow), ("goes", slow)]).spawn().await;
    publish(before.addr, "stays", 20).await;
    publish(before.addr, "goes", 20).await;
    before.kill();
    // What it had taken is free again, and all of it is too old.
    tokio::time::sleep(ACK_WAIT).await;
    let edge = edge(&nats, &[("stays", "limits.publish_rate = 5")])
        .set("queue.max_age", "2s")
        .start()
        .await;
    let waiting = || async {
        let stream = edge.log().work_stream(StreamName::Overflow);
        stream.waiting(&[]).await.unwrap().messages
    };
    until("nothing of any app is left", || async {
        (waiting().await == 0).then_some(())
    })
    .await;
    let outcome = |name: &str| edge.metric(&format!("slipstream_queue_total{{outcome=\"{name}\"}}"));
    let stored = published(edge.addr, "stays").await.len();
    assert!(outcome("expired") >= 20.0, "{}", outcome("expired"));
    // What was published of the other one before, nobody can ask for any more.
    assert!(stored < 20 && outcome("expired") >= (20 - stored) as f64);
    assert_eq!((outcome("published"), outcome("dropped")), (0.0, 0.0));
    // It goes on.
    assert!(publish(edge.addr, "stays", 8).await > 0);
    until("what waits for less is published", || async {
        (published(edge.addr, "stays").await.len() == stored + 8).then_some(())
    })
    .await;
    edge.stop().await;
}
