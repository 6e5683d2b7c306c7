//! Apps that come from the control plane's bucket: served, changed and removed on running nodes.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use slipstream::{config::Secret, log::BucketName, model::AppId, seal::Sealing};

use crate::{
    doors::{Entered, Guest, enter, token},
    support::{
        edge::{Builder, Edge},
        holds,
        http::request_with,
        nats::NatsServer,
        until,
    },
};

const SEALING: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const KEY: &str = "the text of a key of the app shop, which tokens are signed with";
const NEW_KEY: &str = "the text of another key of the app shop, to be rotated to it";
const SOCKET: &str = "/apps/shop/connection/websocket";
const PUBLISH: &str = "/v1/channels/x/publications?app=shop";

fn edges(nats: &NatsServer) -> Builder {
    Edge::builder()
        .nats(&[nats.url()])
        .set("tenants.sealing_keys", SEALING)
}

fn key(id: &str, text: &str) -> Value {
    let hash = digest(&SHA256, text.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let app = AppId::new("shop").unwrap();
    let sealing = Sealing::new(&[Secret::new(SEALING)]).unwrap();
    let purpose = slipstream::apps::key_purpose(&app, id);
    json!({"id": id, "hash": hash, "secret": sealing.seal(&purpose, text.as_bytes()).unwrap()})
}

fn settings() -> Value {
    json!({
        "anonymous": true,
        "namespaces": [{"name": "", "subscribe": "anyone", "publish": "anyone"}],
    })
}

pub(crate) fn record(version: u64, settings: &Value, keys: &[Value]) -> Value {
    json!({"format": 1, "version": version, "settings": settings, "keys": keys})
}

/// Writes what the control plane says of an app.
pub(crate) async fn say(edge: &Edge, app: &str, record: &Value) {
    let bucket = edge.log().bucket(BucketName::Apps);
    let revision = bucket.get(app).await.unwrap().revision;
    let value = record.to_string().into_bytes().into();
    let written = bucket.set(app, value, revision, None).await.unwrap();
    assert!(written.is_some());
}

async fn remove(edge: &Edge, app: &str) {
    let bucket = edge.log().bucket(BucketName::Apps);
    let revision = bucket.get(app).await.unwrap().revision;
    assert!(bucket.remove(app, revision).await.unwrap());
}

async fn version(edge: &Edge, version: u64) {
    holds("the node has the version", || {
        edge.metric("slipstream_apps") > 1.0 && edge.app_version("shop") == Some(version)
    })
    .await;
}

async fn publish(edge: &Edge, key: &str) -> u16 {
    let answer = request_with(edge.addr, "POST", PUBLISH, key, r#"{"data": 1}"#).await;
    answer.unwrap().status
}

async fn says(guest: &mut Guest, data: &str) -> Result<u64, u16> {
    let publish = json!({"publish": {"channel": "x", "data": data}});
    let reply = guest.command(publish).await?;
    Ok(reply["error"]["code"].as_u64().unwrap_or(0))
}

fn signed(key: &str) -> String {
    token(&json!({"sub": "ann"}), key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_is_served_changed_and_removed_without_a_restart() {
    let nats = NatsServer::start().await;
    let (one, two) = (edges(&nats).start().await, edges(&nats).start().await);
    assert!(matches!(
        enter(two.addr, SOCKET, None, None).await,
        Entered::Refused(404)
    ));
    say(&one, "shop", &record(1, &settings(), &[key("k1", KEY)])).await;
    for edge in [&one, &two] {
        version(edge, 1).await;
    }
    let mut guest = enter(two.addr, SOCKET, None, None).await.guest();
    guest.subscribe(json!({"channel": "x"})).await.unwrap();
    assert_eq!(publish(&one, KEY).await, 200);
    assert_eq!(publish(&one, "no key").await, 401);
    assert_eq!(says(&mut guest, "hello").await, Ok(0));

    // Rules and limits: the connection feels them, and keeps what it has.
    let mut changed = settings();
    changed["namespaces"][0]["publish"] = json!("nobody");
    changed["limits"] = json!({"max_channels": 1});
    say(&one, "shop", &record(2, &changed, &[key("k1", KEY)])).await;
    version(&two, 2).await;
    assert_eq!(says(&mut guest, "again").await, Ok(103));
    assert_eq!(guest.subscribe(json!({"channel": "y"})).await, Err(106));
    assert_eq!(publish(&two, KEY).await, 200, "backends may");

    // What cannot be used changes nothing.
    let mut bad = settings();
    bad["namespaces"][0]["history"] = json!("nosuch");
    say(&one, "shop", &record(3, &bad, &[key("k1", KEY)])).await;
    for edge in [&one, &two] {
        holds("it is refused", || {
            edge.metric("slipstream_app_records_refused_total") == 1.0
        })
        .await;
        assert_eq!(edge.app_version("shop"), Some(2));
    }
    assert_eq!(publish(&two, KEY).await, 200);

    // But a key that it does not name is good no more.
    say(&one, "shop", &record(4, &bad, &[])).await;
    until("the key is gone", || async {
        (publish(&two, KEY).await == 401).then_some(())
    })
    .await;
    assert_eq!(two.app_version("shop"), Some(2));

    // The file's own app is not the control plane's.
    say(&one, "dev", &record(9, &settings(), &[])).await;
    say(&one, "shop", &record(5, &settings(), &[key("k1", KEY)])).await;
    version(&two, 5).await;
    assert_eq!(two.app_version("dev"), Some(0));

    remove(&one, "shop").await;
    assert_eq!(guest.closed().await, 3503);
    assert!(matches!(
        enter(two.addr, SOCKET, None, None).await,
        Entered::Refused(404)
    ));
    until("the other node knows", || async {
        (publish(&one, KEY).await == 401).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_with_an_overlap_and_a_revoked_one_ends_its_connections() {
    let nats = NatsServer::start().await;
    let (one, two) = (edges(&nats).start().await, edges(&nats).start().await);
    let mut closed = settings();
    closed["anonymous"] = json!(false);
    let connect = |key: &'static str| {
        let (addr, token) = (two.addr, signed(key));
        async move { enter(addr, SOCKET, None, Some(&token)).await }
    };
    say(&one, "shop", &record(1, &closed, &[key("k1", KEY)])).await;
    version(&two, 1).await;
    let mut old = connect(KEY).await.guest();
    assert!(matches!(connect(NEW_KEY).await, Entered::Closed(3500)));

    // Both are good.
    say(
        &one,
        "shop",
        &record(2, &closed, &[key("k2", NEW_KEY), key("k1", KEY)]),
    )
    .await;
    version(&two, 2).await;
    let mut new = connect(NEW_KEY).await.guest();
    connect(KEY).await.guest();
    assert_eq!(
        (publish(&two, KEY).await, publish(&two, NEW_KEY).await),
        (200, 200)
    );

    // The overlap is over: nobody is let in with it any more, who is in stays.
    let mut over = key("k1", KEY);
    over["until"] = json!(1);
    say(&one, "shop", &record(3, &closed, &[key("k2", NEW_KEY), over])).await;
    version(&two, 3).await;
    assert!(matches!(connect(KEY).await, Entered::Closed(3500)));
    assert_eq!(
        (publish(&two, KEY).await, publish(&two, NEW_KEY).await),
        (401, 200)
    );
    assert_eq!(says(&mut old, "still here").await, Ok(0));

    say(&one, "shop", &record(4, &closed, &[key("k2", NEW_KEY)])).await;
    assert_eq!(old.closed().await, 3500);
    assert_eq!(says(&mut new, "not I").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ends_though_the_rest_of_its_record_is_refused() {
    let nats = NatsServer::start().await;
    let one = edges(&nats).start().await;
    let mut closed = settings();
    closed["anonymous"] = json!(false);
    let both = [key("k2", NEW_KEY), key("k1", KEY)];
    say(&one, "shop", &record(1, &closed, &both)).await;
    version(&one, 1).await;
    assert_eq!(
        (publish(&one, KEY).await, publish(&one, NEW_KEY).await),
        (200, 200)
    );

    let mut over = key("k1", KEY);
    over["until"] = json!(1);
    closed["no_such_setting"] = json!(1);
    say(&one, "shop", &record(2, &closed, &[key("k2", NEW_KEY), over])).await;
    until("it is felt", || async {
        (publish(&one, KEY).await == 401).then_some(())
    })
    .await;
    assert!(matches!(
        enter(one.addr, SOCKET, None, Some(&signed(KEY))).await,
        Entered::Closed(3500)
    ));
    enter(one.addr, SOCKET, None, Some(&signed(NEW_KEY)))
        .await
        .guest();
    assert_eq!(publish(&one, NEW_KEY).await, 200);
    assert_eq!(one.app_version("shop"), Some(1), "all else is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_later_comes_up_from_the_bucket() {
    let nats = NatsServer::start().await;
    let one = edges(&nats).start().await;
    say(&one, "shop", &record(1, &settings(), &[key("k1", KEY)])).await;
    version(&one, 1).await;
    one.stop().await;
    let two = edges(&nats).start().await;
    assert_eq!(two.app_version("shop"), Some(1), "before it serves");
    enter(two.addr, SOCKET, None, None).await.guest();
    // One that cannot open the secrets goes on without the app.
    let closed = edges(&nats).set("tenants.sealing_keys", "").start().await;
    assert_eq!(closed.app_version("shop"), None);
    assert_eq!(closed.metric("slipstream_app_records_refused_total"), 1.0);
    assert_eq!(closed.metric("slipstream_apps"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_missed_is_made_up_for() {
    let mut nats = NatsServer::start().await;
    let one = edges(&nats).start().await;
    say(&one, "shop", &record(1, &settings(), &[])).await;
    version(&one, 1).await;
    let mut guest = enter(one.addr, SOCKET, None, None).await.guest();
    // All goes on while nothing is heard.
    nats.stop().await;
    guest.subscribe(json!({"channel": "x"})).await.unwrap_err();
    enter(one.addr, SOCKET, None, None).await.guest();
    nats.restart().await;
    remove(&one, "shop").await;
    assert_eq!(guest.closed().await, 3503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_takes_effect_within_a_second() {
    let nats = NatsServer::start().await;
    let (one, two) = (edges(&nats).start().await, edges(&nats).start().await);
    // A machine that is busy with other tests may be late: not three times in a row.
    let mut took = Vec::new();
    for round in 1..=3 {
        let since = Instant::now();
        say(&one, "shop", &record(round, &settings(), &[])).await;
        for edge in [&one, &two] {
            version(edge, round).await;
        }
        took.push(since.elapsed());
        if since.elapsed() < Duration::from_secs(1) {
            return;
        }
    }
    panic!("{took:?}");
}
