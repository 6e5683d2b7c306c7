//! How much history an app may have on all nodes together, and how long.

use std::time::Duration;

use serde_json::{Value, json};
use slipstream::log::ShardId;

use super::{come, hit, used};
use crate::{
    apps::{record, say},
    doors::{enter, http},
    support::{
        edge::{Builder, Edge},
        holds,
        nats::NatsServer,
        until,
    },
};

/// A publication of about a kilobyte.
const BYTES: usize = 900;
const PATH: &str = "/v1/channels/x/publications";

/// The app `a` with quotas, and `b` without: channels with history, and those of `e` without.
fn edge(nats: &NatsServer, quotas: &str) -> Builder {
    let app = |id: &str, more: &str| {
        let namespace = |name: &str, history: &str| {
            format!(
                "[[apps.namespaces]]\nname = \"{name}\"\nhistory = \"{history}\"\nsubscribe = \"anyone\"\n\
                 publish = \"anyone\"\n"
            )
        };
        let (kept, none) = (namespace("", "std"), namespace("e", "none"));
        format!(
            "[[apps]]\nid = \"{id}\"\nanonymous = true\napi_keys = [\"the-key-of-{id}\"]\n{more}\n\
             {kept}read_history = \"anyone\"\nrecovery = true\n{none}"
        )
    };
    Edge::builder()
        .nats(&[nats.url()])
        .set("quotas.interval", "200ms")
        .set("quotas.flush_interval", "200ms")
        .file(&(app("a", quotas) + &app("b", "")))
}

/// Status, answer and what `Retry-After` says.
async fn post(edge: &Edge, app: &str, path: &str, key: Option<&str>) -> (u16, Value) {
    let authorization = format!("Bearer the-key-of-{app}");
    let mut body = json!({"data": "x".repeat(BYTES)});
    if let Some(key) = key {
        body["idempotency_key"] = key.into();
    }
    let headers = [("authorization", authorization.as_str())];
    http(edge.addr, &format!("POST {path}"), &headers, &body).await
}

async fn publish(edge: &Edge) -> u16 {
    post(edge, "a", PATH, None).await.0
}

/// What JetStream has stored of the class.
async fn stored(edge: &Edge) -> u64 {
    let mut bytes = 0;
    for shard in [ShardId(0), ShardId(1)] {
        bytes += edge.log().info(shard).await.unwrap().bytes;
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_history_are_counted_over_nodes_and_restarts() {
    const QUOTA: u64 = 20_000;
    let nats = NatsServer::start().await;
    let quotas = format!("quotas.history_bytes = {QUOTA}");
    let start = || edge(&nats, &quotas).start();
    let [one, two, three] = [start().await, start().await, start().await];
    let before = stored(&one).await;
    let ephemeral = "/v1/channels/e:x/publications";
    for n in 0..12 {
        let edge = [&one, &two, &three][n % 3];
        assert_eq!(publish(edge).await, 201, "{n}");
        assert_eq!(
            post(edge, "a", ephemeral, None).await.0,
            200,
            "what is not stored"
        );
    }
    let known = stored(&one).await - before;
    let percent = (known * 100 / QUOTA) as f64;
    assert!((50.0..75.0).contains(&percent), "{percent}");
    for edge in [&one, &two, &three] {
        holds("all know exactly what is stored", || {
            used(edge, "history_bytes") == percent
        })
        .await;
    }

    // Stopped in order, and one that starts knows.
    one.stop().await;
    let one = edge(&nats, &quotas).start().await;
    holds("it knows", || used(&one, "history_bytes") == percent).await;
    let mut taken = 0;
    while publish(&one).await == 201 {
        taken += 1;
        assert!(taken < 12);
    }
    let now = stored(&one).await - before;
    assert!(now <= QUOTA && now + 1_200 > QUOTA, "{now}");
    let (status, answer) = post(&one, "a", PATH, None).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("quota_used_up")));
    assert!(hit(&one, "a", "quota_history_bytes") >= 2.0);

    // What the others did not know of yet is all that is too much.
    for edge in [&two, &three] {
        until("the others know", || async {
            let refused = publish(edge).await == 429;
            refused.then_some(())
        })
        .await;
    }
    let late = stored(&two).await - before;
    assert!(
        late <= QUOTA + 2 * (QUOTA - now + u64::from(taken > 0) * 10_000),
        "{late}"
    );
    let all = stored(&one).await;
    for edge in [&one, &two, &three] {
        assert_eq!(publish(edge).await, 429);
        assert_eq!(post(edge, "a", ephemeral, None).await.0, 200);
    }
    assert_eq!(stored(&one).await, all);
    let mut guest = come(&two, "a").await.guest();
    let data = "x".repeat(BYTES);
    let reply = guest
        .command(json!({"publish": {"channel": "x", "data": data}}))
        .await;
    assert_eq!(reply.unwrap()["error"]["code"], 111);
    // Nobody else feels it.
    assert_eq!(post(&two, "b", PATH, None).await.0, 201);
    let warnings = |edge: &Edge| {
        let series = "slipstream_quota_warnings_total{app=\"a\",quota=\"history_bytes\"}";
        edge.metric(series)
    };
    holds("one has warned", || {
        warnings(&one) + warnings(&two) + warnings(&three) == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_room_for_history_again_when_the_oldest_goes() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "quotas.history_bytes = 5000")
        .set("log.classes.0.max_age", "4s")
        .set("log.classes.0.duplicate_window", "2s")
        .set("channel.check_interval", "250ms")
        .start()
        .await;
    // What is stored once takes room once.
    for n in 0..20 {
        let (status, answer) = post(&edge, "a", PATH, Some("k")).await;
        assert_eq!(status, if n == 0 { 201 } else { 200 }, "{answer}");
    }
    until("it is full", || async {
        (publish(&edge).await == 429).then_some(())
    })
    .await;
    until("there is room", || async {
        (publish(&edge).await == 201).then_some(())
    })
    .await;
    assert!(hit(&edge, "a", "quota_history_bytes") >= 1.0);
    holds("all has gone", || used(&edge, "history_bytes") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_an_app_may_keep_is_not_given() {
    const KEPT: Duration = Duration::from_secs(8);
    let nats = NatsServer::start().await;
    let quotas = format!("quotas.history_seconds = {}", KEPT.as_secs());
    let start = || edge(&nats, &quotas).start();
    let (one, two) = (start().await, start().await);
    // A tail of the first node has all in its ring.
    let mut live = come(&one, "a").await.guest();
    assert!(live.subscribe(json!({"channel": "x"})).await.is_ok());
    let mut offsets = Vec::new();
    let mut epoch = Value::Null;
    for app in ["a", "b"] {
        for _ in 0..3 {
            let (status, answer) = post(&one, app, PATH, None).await;
            assert_eq!(status, 201, "{answer}");
            if app == "a" {
                offsets.push(answer["offset"].as_u64().unwrap());
                epoch = answer["epoch"].clone();
            }
        }
    }
    let get = |edge: &Edge, app: &str, query: String| {
        let (addr, authorization) = (edge.addr, format!("Bearer the-key-of-{app}"));
        async move {
            let headers = [("authorization", authorization.as_str())];
            let (status, page) = http(addr, &format!("GET {PATH}{query}"), &headers, &Value::Null).await;
            assert_eq!(status, 200, "{page}");
            let count = page["publications"].as_array().unwrap().len();
            (count, page["gap"].as_bool().unwrap())
        }
    };
    let since = |offset: u64| format!("?since={offset}");
    for edge in [&one, &two] {
        assert_eq!(get(edge, "a", since(offsets[0])).await, (2, false), "not yet");
    }
    tokio::time::sleep(KEPT + Duration::from_millis(500)).await;
    for edge in [&one, &two] {
        assert_eq!(get(edge, "a", since(offsets[0])).await, (0, true), "all of it");
        assert_eq!(
            get(edge, "a", since(offsets[2])).await,
            (0, false),
            "nothing is missing"
        );
    }
    assert_eq!(publish(&one).await, 201);
    for edge in [&one, &two] {
        for (query, page) in [
            (String::new(), (1, false)),
            ("?reverse=true".to_owned(), (1, false)),
            (since(offsets[0]), (1, true)),
            (since(offsets[2]), (1, false)),
            ("?from=0".to_owned(), (1, false)),
        ] {
            assert_eq!(get(edge, "a", query.clone()).await, page, "{query}");
        }
        assert_eq!(get(edge, "b", String::new()).await, (3, false));
        // Who comes back: its position is as good as one that has expired, unless it has missed nothing older.
        for (offset, recovered, missed) in [(offsets[2], true, 1), (offsets[0], false, 0)] {
            let mut guest = come(edge, "a").await.guest();
            let subscribe = json!({"channel": "x", "recover": true, "offset": offset, "epoch": epoch});
            let reply = guest.command(json!({ "subscribe": subscribe })).await.unwrap();
            let result = &reply["subscribe"];
            let missing = result["publications"].as_array().map_or(0, Vec::len);
            assert_eq!(
                (result["recovered"].as_bool().unwrap_or(false), missing),
                (recovered, missed),
                "{reply}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_lowered_holds_for_what_there_is() {
    let nats = NatsServer::start().await;
    let edge = Edge::start(&[nats.url()]).await;
    let settings = json!({
        "anonymous": true,
        "namespaces": [{
            "name": "", "history": "std", "subscribe": "anyone", "publish": "anyone", "read_history": "anyone",
        }],
    });
    let change = |version: u64, quotas: Value| {
        let mut record = record(version, &settings, &[]);
        record["quotas"] = quotas;
        let edge = &edge;
        async move {
            say(edge, "shop", &record).await;
            holds("the node has the version", || {
                edge.app_version("shop") == Some(version)
            })
            .await;
        }
    };
    change(1, json!({})).await;
    let mut guest = enter(edge.addr, "/apps/shop/connection/websocket", None, None)
        .await
        .guest();
    let publish = json!({"publish": {"channel": "x", "data": "x".repeat(BYTES)}});
    let read = json!({"history": {"channel": "x", "limit": 10}});
    let count = |reply: Value| reply["history"]["publications"].as_array().map_or(0, Vec::len);
    for _ in 0..2 {
        let reply = guest.command(publish.clone()).await.unwrap();
        assert!(reply["error"].is_null(), "{reply}");
    }
    assert_eq!(count(guest.command(read.clone()).await.unwrap()), 2);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(count(guest.command(read.clone()).await.unwrap()), 2);
    change(2, json!({"history_seconds": 1, "history_bytes": BYTES})).await;
    assert_eq!(count(guest.command(read.clone()).await.unwrap()), 0);
    let reply = guest.command(publish.clone()).await.unwrap();
    assert_eq!(reply["error"]["code"], 111, "it is more than a payload");
    // And up again.
    change(3, json!({})).await;
    assert_eq!(count(guest.command(read).await.unwrap()), 2);
    let reply = guest.command(publish).await.unwrap();
    assert!(reply["error"].is_null(), "{reply}");
}
