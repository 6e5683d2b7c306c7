//! Publications over a rate that wait: late, all, once, in the order of their channel.

mod turns;

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use slipstream::{
    channel::Hub,
    log::StreamName,
    model::{AppId, ChannelKey, ChannelName, ClassName, Kind, Record},
};

use crate::{
    doors::enter,
    support::{
        edge::{Builder, Edge},
        holds,
        http::{Response, publish, request, request_with},
        nats::NatsServer,
        until,
    },
};

const LATE: &str = r#"
[[apps.namespaces]]
name = "late"
history = "std"
recovery = true
subscribe = "anyone"
publish = "anyone"
overflow = "queue"

[[apps]]
id = "quiet"
anonymous = true
api_keys = ["the-api-key-of-the-quiet-app-of-tests"]

[[apps.namespaces]]
name = "public"
history = "std"
subscribe = "anyone"
"#;
const QUIET_KEY: &str = "the-api-key-of-the-quiet-app-of-tests";
const QUIET: &str = "/v1/channels/public:x/publications?app=quiet";
const PUBLISHED: &str = "slipstream_queue_total{outcome=\"published\"}";

fn edges(nats: &NatsServer, rate: &str) -> Builder {
    Edge::builder()
        .nats(&[nats.url()])
        .file(LATE)
        .set("apps.0.limits.publish_rate", rate)
        .set("queue.ack_wait", "2s")
}

async fn post(addr: SocketAddr, channel: &str, n: u64) -> Response {
    publish(addr, channel, &json!({ "data": n })).await.unwrap()
}

async fn history(addr: SocketAddr, channel: &str) -> Vec<u64> {
    let path = format!("/v1/channels/{channel}/publications?limit=1000");
    let page = request(addr, "GET", &path, "").await.unwrap();
    let publications = page.body["publications"].as_array().unwrap();
    publications
        .iter()
        .map(|it| it["data"].as_u64().unwrap())
        .collect()
}

async fn queue(addr: SocketAddr, channel: &str, id: &str) -> Value {
    let path = format!("/v1/channels/{channel}/queue?id={id}");
    let answer = request(addr, "GET", &path, "").await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

async fn arrived(addr: SocketAddr, channel: &str, count: usize) -> Vec<u64> {
    until("all have arrived", || async {
        let history = history(addr, channel).await;
        (history.len() >= count).then_some(history)
    })
    .await
}

/// Publishes `0..count` one after the other; how many were queued.
async fn publish_all(addr: SocketAddr, channel: &str, count: u64) -> usize {
    let mut queued = 0;
    for n in 0..count {
        let answer = post(addr, channel, n).await;
        match answer.status {
            201 => assert!(answer.body["offset"].is_u64(), "{answer:?}"),
            202 => {
                assert_eq!(answer.body["queued"], true);
                assert!(answer.body["offset"].is_null() && answer.body["id"].is_string());
                queued += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    queued
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_the_rate_arrives_in_order_and_once_though_a_node_is_killed() {
    const COUNT: u64 = 50;
    let nats = NatsServer::start().await;
    let (a, b) = (edges(&nats, "10").start().await, edges(&nats, "10").start().await);
    let mut c = edges(&nats, "10").spawn().await;
    let (one, two) = tokio::join!(
        publish_all(a.addr, "late:a", COUNT),
        publish_all(b.addr, "late:b", COUNT)
    );
    assert!(one >= 10 && two >= 10, "{one} and {two} are over the rate");
    until("the third node publishes, too", || async {
        (c.metric(PUBLISHED).await >= 3.0).then_some(())
    })
    .await;
    c.kill();
    // Another app does not notice.
    for _ in 0..20 {
        let answer = request_with(a.addr, "POST", QUIET, QUIET_KEY, "{\"data\": 1}").await;
        assert_eq!(answer.unwrap().status, 201);
    }
    for (edge, channel) in [(&a, "late:b"), (&b, "late:a")] {
        let all = arrived(edge.addr, channel, COUNT as usize).await;
        assert_eq!(all, (0..COUNT).collect::<Vec<_>>(), "{channel}");
    }
    until("nothing waits", || async {
        (queue(a.addr, "late:a", "1").await == json!({"waiting": 0, "oldest": null, "state": "gone"}))
            .then_some(())
    })
    .await;
    // In between nothing came twice, and now it goes the fast way again.
    for channel in ["late:a", "late:b"] {
        assert_eq!(history(a.addr, channel).await.len(), COUNT as usize);
    }
    until("it is published at once", || async {
        // Below the rate: more than that would wait, and be waited for, for ever.
        tokio::time::sleep(Duration::from_millis(300)).await;
        (post(a.addr, "late:a", COUNT).await.status == 201).then_some(())
    })
    .await;
    a.stop().await;
    b.stop().await;
}

/// Longer ago than NATS knows repeats by their ids: nobody was there to take it over. What was published with the
/// same key before is another publication by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_has_stored_that_died_is_not_stored_again() {
    let app = |id: &str| {
        format!(
            "[[apps]]\nid = \"{id}\"\nanonymous = true\napi_keys = [\"the-api-key-of-the-app-{id}-of-tests\"]\n\
             namespaces = [{{ name = \"\", history = \"std\", subscribe = \"anyone\", overflow = \"queue\" }}]\n"
        )
    };
    let nats = NatsServer::start().await;
    let edge = |file: &str| {
        Edge::builder()
            .nats(&[nats.url()])
            .file(file)
            .set("log.classes.0.duplicate_window", "1s")
            .set("queue.ack_wait", "400ms")
    };
    // It does not know the apps, so that what waits stays.
    let first = edge(LATE).start().await;
    let log = first.log();
    let stream = log.work_stream(StreamName::Overflow);
    let store = async |app: &str, n: u64, key: &str| {
        let key_of = ChannelKey {
            app: AppId::new(app).unwrap(),
            name: ChannelName::new("x").unwrap(),
        };
        let id = Hub::dedup_id(&key_of.app, &key_of.name, key);
        let route = log.route(&key_of, Some(&ClassName::new("std").unwrap())).unwrap();
        let record = Record {
            kind: Kind::Json,
            data: n.to_string().into(),
            info: None,
            tags: Vec::new(),
        };
        log.publish(&route, &record, Some(&id)).unwrap().await.unwrap()
    };
    let leave = async |app: &str, n: u64, key: &str| {
        // As the queue has what it is asked to publish late.
        let message = format!("{{\"format\":1,\"kind\":\"j\",\"key\":\"{key}\"}}\n{n}");
        let appended = stream.append(&[app, "x", "q"], None, message.into());
        appended.unwrap().await.unwrap();
    };
    let forgotten = async |key: &str| {
        store("probe", 0, key).await;
        until("NATS has forgotten the ids", || async {
            (!store("probe", 0, key).await.duplicate).then_some(())
        })
        .await;
    };
    store("again", 1, "key").await;
    forgotten("before").await;
    leave("again", 2, "key").await;
    leave("left", 1, "key").await;
    store("left", 1, "key").await;
    leave("left", 2, "new").await;
    forgotten("after").await;

    let second = edge(&format!("{LATE}\n{}{}", app("left"), app("again")))
        .start()
        .await;
    holds("all are taken out", || second.metric(PUBLISHED) == 3.0).await;
    for app in ["left", "again"] {
        let path = format!("/v1/channels/x/publications?app={app}");
        let key = format!("the-api-key-of-the-app-{app}-of-tests");
        let page = request_with(second.addr, "GET", &path, &key, "")
            .await
            .unwrap()
            .body;
        let publications = page["publications"].as_array().unwrap().iter();
        let history: Vec<_> = publications.map(|it| it["data"].as_u64().unwrap()).collect();
        assert_eq!(history, [1, 2], "{app}");
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_nodes_queue_behind_what_one_has_queued() {
    let nats = NatsServer::start().await;
    let (a, b) = (edges(&nats, "4").start().await, edges(&nats, "4").start().await);
    assert!(publish_all(a.addr, "late:x", 40).await >= 20);
    // It hears that it must not use its rate here.
    let known = "slipstream_queue_channels";
    holds("the other node knows", || b.metric(known) == 1.0).await;
    for n in 40..50 {
        let addr = if n % 2 == 0 { b.addr } else { a.addr };
        let answer = post(addr, "late:x", n).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.body["id"].as_str().unwrap();
        let state = queue(addr, "late:x", id).await;
        assert_eq!(state["state"], "waiting", "{state}");
        assert!(
            state["waiting"].as_u64() >= Some(1) && state["oldest"].is_i64(),
            "{state}"
        );
    }
    let all = arrived(a.addr, "late:x", 50).await;
    assert_eq!(all, (0..50).collect::<Vec<_>>());
    for edge in [&a, &b] {
        holds("nothing is known to wait any more", || edge.metric(known) == 0.0).await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_publish_at_once_again_after_a_burst_without_a_pause() {
    let nats = NatsServer::start().await;
    let (a, b) = (edges(&nats, "10").start().await, edges(&nats, "10").start().await);
    assert!(publish_all(a.addr, "late:x", 40).await >= 20);
    let mut next = 40;
    until("both are published to at once", || {
        let n = next;
        next += 2;
        let (a, b) = (a.addr, b.addr);
        async move {
            let (one, two) = tokio::join!(post(a, "late:x", n), post(b, "late:x", n + 1));
            // Less than a round apart, so that no node is ever silent for one.
            tokio::time::sleep(Duration::from_millis(300)).await;
            ((one.status, two.status) == (201, 201)).then_some(())
        }
    })
    .await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_has_queued_is_found_by_one_that_starts() {
    let nats = NatsServer::start().await;
    let mut a = edges(&nats, "3").spawn().await;
    assert!(publish_all(a.addr, "late:x", 20).await >= 10);
    a.kill();
    let b = edges(&nats, "100").start().await;
    assert_eq!(post(b.addr, "late:x", 20).await.status, 202, "behind what waits");
    let all = arrived(b.addr, "late:x", 21).await;
    assert_eq!(all, (0..21).collect::<Vec<_>>());
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_what_was_taken_arrives() {
    let nats = NatsServer::start().await;
    let edge = edges(&nats, "2")
        .set("apps.0.limits.max_queued", "5")
        .start()
        .await;
    let mut taken = Vec::new();
    let mut refused = 0;
    for n in 0..20 {
        let answer = post(edge.addr, "late:x", n).await;
        match answer.status {
            201 | 202 => taken.push(n),
            429 => {
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(refused >= 10, "{refused}");
    assert!(edge.metric("slipstream_limits_hit_total{app=\"dev\",limit=\"queued\"") >= 10.0);
    assert_eq!(arrived(edge.addr, "late:x", taken.len()).await, taken);
    edge.stop().await;

    let small = NatsServer::start().await;
    let edge = edges(&small, "1")
        .set("log.streams.overflow.max_bytes", "1KiB")
        .start()
        .await;
    let mut statuses = Vec::new();
    for n in 0..20 {
        statuses.push(post(edge.addr, "late:x", n).await.status);
    }
    assert!(statuses.contains(&202) && statuses.contains(&429), "{statuses:?}");
    let bytes = "slipstream_limits_hit_total{app=\"dev\",limit=\"queue_bytes\"";
    assert!(edge.metric(bytes) >= 1.0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_of_what_waits_take_no_room() {
    let nats = NatsServer::start().await;
    let edge = edges(&nats, "1")
        .set("apps.0.limits.max_queued", "5")
        .start()
        .await;
    publish_all(edge.addr, "late:x", 3).await;
    let body = json!({"data": 3, "idempotency_key": "k"});
    for n in 0..20 {
        let answer = publish(edge.addr, "late:x", &body).await.unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.body["duplicate"], n > 0, "{answer:?}");
    }
    assert_eq!(arrived(edge.addr, "late:x", 4).await, (0..4).collect::<Vec<_>>());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_that_cannot_say_so_answer_without_an_offset() {
    let nats = NatsServer::start().await;
    let edge = edges(&nats, "2").start().await;
    let mut guest = enter(edge.addr, "/connection/websocket", None, None)
        .await
        .guest();
    guest.subscribe(json!({"channel": "late:x"})).await.unwrap();
    let mut late = 0;
    for n in 0..8 {
        let command = json!({"publish": {"channel": "late:x", "data": n.to_string()}});
        let reply = guest.command(command).await.unwrap();
        assert!(reply["error"].is_null(), "{reply}");
        late += u32::from(reply["publish"]["offset"].is_null());
    }
    assert!(late >= 4, "{late}");
    let body = json!({"channel": "late:x", "data": "8"}).to_string();
    let answer = request(edge.addr, "POST", "/api/publish", &body).await.unwrap();
    assert_eq!(answer.body, json!({"result": {}}));
    let seen = guest.publications(9).await;
    let seen: Vec<_> = seen.into_iter().map(|(_, data)| data).collect();
    assert_eq!(seen, (0..9).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    // A namespace without a queue refuses as ever.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut refused = false;
    for n in 0..10 {
        refused |= post(edge.addr, "public:x", n).await.status == 429;
    }
    assert!(refused);
    edge.stop().await;
}

/// A user's own rate is there to keep the user from the others: who exceeds it is refused, also where others wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_over_his_own_rate_does_not_fill_the_queue() {
    let nats = NatsServer::start().await;
    let edge = edges(&nats, "3")
        .set("apps.0.limits.user_publish_rate", "2")
        .start()
        .await;
    // A backend has filled the rate, so that all of the channel waits.
    let queued = publish_all(edge.addr, "late:x", 10).await;
    assert!(queued > 0);
    let mut guest = enter(edge.addr, "/connection/websocket", None, None)
        .await
        .guest();
    let mut refused = 0;
    for n in 0..10 {
        let publish = json!({"publish": {"channel": "late:x", "data": 100 + n}});
        let reply = guest.command(publish).await.unwrap();
        refused += u64::from(reply["error"]["code"] == 111);
    }
    assert!(refused >= 5, "{refused}");
    let expected = usize::try_from(20 - refused).unwrap();
    assert_eq!(arrived(edge.addr, "late:x", expected).await.len(), expected);
    edge.stop().await;
}
