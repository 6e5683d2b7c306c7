//! Issue 5, "Limits and plans": what an app may have on all nodes together, over the wire.

mod history;
mod rates;

use std::time::Duration;

use serde_json::{Value, json};
use slipstream::log::{BucketName, ConsumeOptions, StreamName};

use crate::{
    doors::{Entered, Guest, enter},
    support::{
        edge::{Builder, Edge},
        holds,
        http::{Response, request_with},
        nats::NatsServer,
        until, within,
    },
};

/// The app `a` with quotas, and `b` without. Short rounds.
pub(crate) fn edge(nats: &NatsServer, quotas: &str) -> Builder {
    let app = |id: &str, more: &str| {
        format!(
            "[[apps]]\nid = \"{id}\"\nanonymous = true\napi_keys = [\"the-key-of-{id}\"]\n{more}\n\
             [[apps.namespaces]]\nname = \"\"\nsubscribe = \"anyone\"\npublish = \"anyone\"\npresence = true\n"
        )
    };
    Edge::builder()
        .nats(&[nats.url()])
        .set("quotas.interval", "200ms")
        .set("quotas.flush_interval", "200ms")
        .file(&(app("a", quotas) + &app("b", "")))
}

async fn edges(nats: &NatsServer, quotas: &str) -> [Edge; 3] {
    let edge = || edge(nats, quotas).start();
    let edges = [edge().await, edge().await, edge().await];
    holds("all nodes know of each other", || {
        edges.iter().all(|edge| edge.nodes().others().len() == 2)
    })
    .await;
    // And have had some rounds: who starts has a part before the others have made room for it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    edges
}

pub(crate) async fn publish(edge: &Edge, app: &str) -> Response {
    let key = format!("the-key-of-{app}");
    let path = "/v1/channels/x/publications";
    let answer = request_with(edge.addr, "POST", path, &key, r#"{"data": 1}"#).await;
    answer.unwrap()
}

async fn come(edge: &Edge, app: &str) -> Entered {
    let path = format!("/apps/{app}/connection/websocket");
    enter(edge.addr, &path, None, None).await
}

pub(crate) fn hit(edge: &Edge, app: &str, limit: &str) -> f64 {
    edge.metric(&format!(
        "slipstream_limits_hit_total{{app=\"{app}\",limit=\"{limit}\"}}"
    ))
}

fn used(edge: &Edge, quota: &str) -> f64 {
    edge.metric(&format!(
        "slipstream_quota_used_percent{{app=\"a\",quota=\"{quota}\"}}"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_over_all_nodes() {
    let nats = NatsServer::start().await;
    let edges = edges(&nats, "quotas.peak_connections = 6").await;
    // All on one node: the others give up what they do not need.
    let mut guests = Vec::new();
    within(async {
        while guests.len() < 6 {
            match come(&edges[0], "a").await {
                Entered::In(guest) => guests.push(guest),
                Entered::Refused(503) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    // Not one more, wherever it comes.
    for _ in 0..5 {
        for edge in &edges {
            assert!(matches!(come(edge, "a").await, Entered::Refused(503)));
            assert!(hit(edge, "a", "quota_peak_connections") > 0.0);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    holds("every node knows that all is used", || {
        edges.iter().all(|edge| used(edge, "peak_connections") >= 100.0)
    })
    .await;
    // The other app is none the worse.
    for edge in &edges {
        let _guest: Guest = come(edge, "b").await.guest();
        assert_eq!(hit(edge, "b", "quota_peak_connections"), 0.0);
    }
    // Those that go make room elsewhere.
    guests.truncate(4);
    until("a connection to another node", || async {
        matches!(come(&edges[2], "a").await, Entered::In(_)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_members_and_sizes_have_quotas() {
    let nats = NatsServer::start().await;
    let quotas = "quotas.channels = 2\nquotas.presence_members = 1\nquotas.message_bytes = 10";
    let edge = edge(&nats, quotas).start().await;
    let mut guests = Vec::new();
    for _ in 0..2 {
        guests.push(come(&edge, "a").await.guest());
    }
    let mut first = guests.remove(0);
    let mut second = guests.remove(0);
    assert!(first.subscribe(json!({"channel": "x"})).await.is_ok());
    assert_eq!(second.subscribe(json!({"channel": "x"})).await, Err(106));
    assert_eq!(hit(&edge, "a", "quota_presence_members"), 1.0);
    assert!(second.subscribe(json!({"channel": "y"})).await.is_ok());
    assert_eq!(second.subscribe(json!({"channel": "z"})).await, Err(106));
    assert_eq!(hit(&edge, "a", "quota_channels"), 1.0);
    let mut other = come(&edge, "b").await.guest();
    for channel in ["x", "y", "z"] {
        assert!(other.subscribe(json!({"channel": channel})).await.is_ok());
    }

    let code = |reply: Result<Value, u16>| reply.unwrap()["error"]["code"].as_u64();
    let large = json!({"publish": {"channel": "x", "data": "12345678901"}});
    assert_eq!(code(first.command(large.clone()).await), Some(106));
    assert_eq!(hit(&edge, "a", "quota_message_bytes"), 1.0);
    assert_eq!(code(other.command(large).await), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_is_counted_over_nodes_and_restarts_and_warned_of_once() {
    let nats = NatsServer::start().await;
    let quotas = "quotas.messages_per_month = 20";
    let [one, two, three] = edges(&nats, quotas).await;
    for n in 0..15 {
        let edge = [&one, &two, &three][n % 3];
        assert_eq!(publish(edge, "a").await.status, 200, "{n}");
    }
    let bucket = two.log().bucket(BucketName::Months);
    let count = || async {
        let entry = bucket.get("a").await.unwrap();
        let stored: Value = serde_json::from_slice(&entry.value?).unwrap();
        stored["messages"].as_u64()
    };
    until("all is stored", || async {
        (count().await == Some(15)).then_some(())
    })
    .await;
    holds("no node warns of 75 percent", || {
        used(&one, "messages_per_month") == 75.0
    })
    .await;

    // Stopped in order: nothing is lost, and one that starts knows.
    one.stop().await;
    let one = edge(&nats, quotas).start().await;
    for edge in [&one, &two, &three] {
        holds("it knows the count", || used(edge, "messages_per_month") == 75.0).await;
    }
    for n in 0..5 {
        assert_eq!(publish(&one, "a").await.status, 200, "{n}");
    }
    let over = publish(&one, "a").await;
    assert_eq!(
        (over.status, &over.body["error"]["code"]),
        (429, &json!("quota_used_up"))
    );
    let wait: u64 = over.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 31 * 86_400, "{wait}");
    assert_eq!(over.header("ratelimit-limit"), Some("20"));
    assert_eq!(over.header("ratelimit-remaining"), Some("0"));
    assert_eq!(hit(&one, "a", "quota_messages_per_month"), 1.0);
    for edge in [&two, &three] {
        until("the others know", || async {
            (publish(edge, "a").await.status == 429).then_some(())
        })
        .await;
        assert_eq!(publish(edge, "b").await.status, 200);
    }
    let mut guest = come(&two, "a").await.guest();
    let reply = guest
        .command(json!({"publish": {"channel": "x", "data": 1}}))
        .await;
    assert_eq!(reply.unwrap()["error"]["code"], 111);

    // One of the nodes has warned, once, and said so to whoever wants to know.
    let options = ConsumeOptions {
        durable: "test".to_owned(),
        prefix: Vec::new(),
        max_ack_pending: 10,
        ack_wait: Duration::from_secs(30),
        forget_after: None,
    };
    let stream = two.log().work_stream(StreamName::Events);
    let mut consumer = stream.consume(options).await.unwrap();
    let mut events = consumer.pull(10, Duration::from_secs(10)).await.unwrap();
    events.extend(consumer.pull(10, Duration::from_secs(1)).await.unwrap());
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].key, ["a"]);
    let event: Value = serde_json::from_slice(&events[0].data).unwrap();
    assert_eq!(event["type"], "quota.warning");
    assert_eq!(
        (&event["app"], &event["quota"], &event["limit"]),
        (&json!("a"), &json!("messages_per_month"), &json!(20))
    );
    assert!(event["used"].as_u64().unwrap() >= 16, "{event}");
    let warnings = |edge: &Edge| edge.metric("slipstream_quota_warnings_total");
    assert_eq!(warnings(&one) + warnings(&two) + warnings(&three), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_loses_no_more_than_an_interval_of_a_month() {
    let nats = NatsServer::start().await;
    let quotas = "quotas.messages_per_month = 10";
    let mut killed = edge(&nats, quotas).spawn().await;
    let publish_there = || async {
        let path = "/v1/channels/x/publications";
        let answer = request_with(killed.addr, "POST", path, "the-key-of-a", r#"{"data": 1}"#).await;
        answer.unwrap().status
    };
    for _ in 0..6 {
        assert_eq!(publish_there().await, 200);
    }
    let one = edge(&nats, quotas).start().await;
    holds("all of an earlier interval is stored", || {
        used(&one, "messages_per_month") == 60.0
    })
    .await;
    // Of this the next flush would tell: it is lost, or it is counted once.
    assert_eq!(publish_there().await, 200);
    killed.kill();
    let mut taken = 0;
    while publish(&one, "a").await.status == 200 {
        taken += 1;
        assert!(taken <= 4, "what was stored is not forgotten");
    }
    assert!((3..=4).contains(&taken), "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_tell_the_rate() {
    let nats = NatsServer::start().await;
    let quotas = "quotas.messages_per_second = 3\nquotas.api_calls_per_second = 10";
    // No round comes between: what is left is known exactly.
    let edge = edge(&nats, quotas).set("quotas.interval", "1m").start().await;
    let answer = publish(&edge, "a").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("ratelimit-limit"), Some("3"));
    assert_eq!(answer.header("ratelimit-remaining"), Some("2"));
    assert_eq!(answer.header("ratelimit-reset"), Some("1"));
    let mut refused = None;
    for _ in 0..3 {
        let answer = publish(&edge, "a").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.body["error"]["code"], "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit-remaining"), Some("0"));
    assert_eq!(hit(&edge, "a", "quota_messages_per_second"), 1.0);

    // Calls that publish nothing have the other rate, which ends, too.
    let list = |key: &'static str| request_with(edge.addr, "GET", "/v1/channels", key, "");
    let answer = list("the-key-of-a").await.unwrap();
    assert_eq!(
        (answer.status, answer.header("ratelimit-limit")),
        (200, Some("10"))
    );
    let refused = until("one too many", || async {
        list("the-key-of-a").await.filter(|answer| answer.status == 429)
    })
    .await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(hit(&edge, "a", "quota_api_calls_per_second") > 0.0);
    let server = request_with(edge.addr, "POST", "/api/channels", "the-key-of-a", "{}");
    let server = server.await.unwrap();
    assert!(server.status == 200 && server.header("ratelimit-limit").is_some());

    // Who has no rate is told of none.
    for answer in [publish(&edge, "b").await, list("the-key-of-b").await.unwrap()] {
        assert_eq!((answer.status, answer.header("ratelimit-limit")), (200, None));
    }
    // Nor is who is nobody.
    let answer = list("no key").await.unwrap();
    assert_eq!((answer.status, answer.header("ratelimit-limit")), (401, None));
}
