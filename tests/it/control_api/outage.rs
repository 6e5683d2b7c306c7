//! The store stops, and nobody who connects, publishes or resumes notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slipstream::app::Roles;

use crate::{
    doors::enter,
    support::{
        edge::Edge,
        http::request_with,
        mongowire::Mongowire,
        nats::NatsServer,
        people::{Caller, settings, with_control},
        until,
    },
};

/// How long the store is away.
const AWAY: Duration = Duration::from_secs(30);

async fn publish(edge: &Edge, key: &str, data: u64) -> u16 {
    let path = "/v1/channels/x/publications?app=shop";
    let body = json!({"data": data.to_string()}).to_string();
    let answer = request_with(edge.addr, "POST", path, key, &body).await;
    answer.map_or(0, |answer| answer.status)
}

/// The store is killed for half a minute under load: publishing, connecting and resuming go on, also on a node
/// that starts meanwhile, on all roles; the control API answers 503, and again when the store is back.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_killed_for_half_a_minute_under_load() {
    let nats = NatsServer::start().await;
    let mut mongo = Mongowire::start().await;
    let url = mongo.fresh_database();
    let node = || {
        with_control(Edge::builder().nats(&[nats.url()]), &url)
            .set("store.timeout", "1s")
            .set("control.store_retry", "200ms")
            .roles(Roles::ALL)
    };
    let console = node().start().await;
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    let (_, key) = ann.key("shop", false).await;
    until("the node serves the app", || async {
        (publish(&console, &key, 0).await == 201).then_some(())
    })
    .await;

    mongo.kill().await;
    let began = Instant::now();
    let (mut sent, mut restarted, mut seen) = (0_u64, None, Vec::new());
    let mut guest = enter(console.addr, "/apps/shop/connection/websocket", None, None)
        .await
        .guest();
    guest.subscribe(json!({"channel": "x"})).await.unwrap();
    while began.elapsed() < AWAY {
        sent += 1;
        assert_eq!(publish(&console, &key, sent).await, 201);
        if sent.is_multiple_of(50) {
            // Whoever reads is told everything, and answers pings.
            seen.extend(
                guest
                    .publications(usize::try_from(sent).unwrap() - seen.len())
                    .await,
            );
            let asked = ann.get("/v1/apps/shop").await;
            assert_eq!(asked.error(), (503, "unavailable"));
            assert!(asked.header("retry-after").is_some());
            let login = json!({"email": "ann@x.example", "password": "correct horse battery"});
            let login = Caller::with(console.addr, "")
                .call("POST", "/v1/auth/login", &login)
                .await;
            assert_eq!(login.error(), (503, "unavailable"));
            enter(console.addr, "/apps/shop/connection/websocket", None, None)
                .await
                .guest();
        }
        if restarted.is_none() && began.elapsed() > AWAY / 3 {
            // It has the control role too, and the store is not there: it serves the apps of the bucket.
            let late = node().start().await;
            assert_eq!(
                publish(&late, &key, {
                    sent += 1;
                    sent
                })
                .await,
                201
            );
            assert_eq!(
                ann.at(late.addr).get("/v1/apps/shop").await.error(),
                (503, "unavailable")
            );
            restarted = Some(late);
        }
    }
    let expected: Vec<_> = (1..=sent).map(|n| ("x".to_owned(), n.to_string())).collect();
    seen.extend(guest.publications(expected.len() - seen.len()).await);
    assert_eq!(seen, expected);

    mongo.restart().await;
    let late = restarted.unwrap();
    for addr in [console.addr, late.addr] {
        let caller = ann.at(addr);
        let app = until("the control plane is back", || async {
            let answer = caller.get("/v1/apps/shop").await;
            (answer.status == 200).then_some(answer.body)
        })
        .await;
        assert_eq!(app["settings"], settings());
    }
    late.stop().await;
    console.stop().await;
}

/// While NATS is away a key is not said to be revoked, and it is once NATS is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_revoked_when_nats_is_back() {
    let mut nats = NatsServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("store.db").display());
    let console = with_control(Edge::builder().nats(&[nats.url()]), &url)
        .set("control.reconcile_interval", "200ms")
        .roles(Roles::ALL)
        .start()
        .await;
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    let (key, text) = ann.key("shop", false).await;
    until("the node serves the app", || async {
        (publish(&console, &text, 0).await == 201).then_some(())
    })
    .await;
    nats.kill().await;
    let revoked = ann
        .call("DELETE", &format!("/v1/apps/shop/keys/{key}"), &Value::Null)
        .await;
    assert_eq!(revoked.error(), (503, "unavailable"));
    nats.restart().await;
    until("the key can be revoked", || async {
        let revoked = ann
            .call("DELETE", &format!("/v1/apps/shop/keys/{key}"), &Value::Null)
            .await;
        (revoked.status == 204).then_some(())
    })
    .await;
    until("it is worth nothing", || async {
        (publish(&console, &text, 0).await == 401).then_some(())
    })
    .await;
    console.stop().await;
}
