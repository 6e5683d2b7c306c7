//! Three nodes hear of what the control plane does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Deployment;
use crate::{
    doors::{enter, token},
    support::{
        edge::Edge,
        holds,
        http::request_with,
        people::{Caller, settings},
        until,
    },
};

/// Within which all nodes and their connections feel a change.
const SOON: Duration = Duration::from_secs(1);
/// A machine that is busy with other tests gets this many tries.
const TRIES: usize = 3;

async fn publish(edge: &Edge, key: &str) -> u16 {
    let path = "/v1/channels/x/publications?app=shop";
    let answer = request_with(edge.addr, "POST", path, key, r#"{"data": 1}"#).await;
    answer.unwrap().status
}

async fn everywhere(edges: &[Edge], key: &str, status: u16) {
    for edge in edges {
        until("the node knows of the key", || async {
            (publish(edge, key).await == status).then_some(())
        })
        .await;
    }
}

/// A key is made, rotated and revoked: all three nodes take the new one and refuse the old one, and whoever came
/// with it is closed, within a second.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_rotate_and_revoke_keys() {
    let deployment = Deployment::start().await;
    let console = deployment.all().start().await;
    let mut edges = Vec::new();
    for _ in 0..3 {
        edges.push(deployment.data().start().await);
    }
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    let (mut key, mut text) = ann.key("shop", true).await;
    everywhere(&edges, &text, 201).await;
    let mut took = Vec::new();
    for _ in 0..TRIES {
        let genuine = token(&json!({"sub": "u", "app": "shop"}), &text);
        let mut guests = Vec::new();
        for edge in &edges {
            let path = "/apps/shop/connection/websocket";
            guests.push(enter(edge.addr, path, None, Some(&genuine)).await.guest());
        }
        let rotate = format!("/v1/apps/shop/keys/{key}/rotate");
        let rotated = ann
            .call("POST", &rotate, &json!({"overlap_seconds": 600}))
            .await
            .expect(201);
        let new = rotated["key"].as_str().unwrap();
        everywhere(&edges, new, 201).await;
        everywhere(&edges, &text, 201).await;
        let began = Instant::now();
        let revoked = ann
            .call("DELETE", &format!("/v1/apps/shop/keys/{key}"), &Value::Null)
            .await;
        assert_eq!(revoked.status, 204);
        for guest in &mut guests {
            assert_eq!(guest.closed().await, 3500);
        }
        everywhere(&edges, &text, 401).await;
        took.push(began.elapsed());
        everywhere(&edges, new, 201).await;
        (key, text) = (rotated["id"].as_str().unwrap().to_owned(), new.to_owned());
    }
    assert!(took.iter().any(|took| *took < SOON), "{took:?}");
    for edge in edges {
        edge.stop().await;
    }
    console.stop().await;
}

/// A limit that is lowered is felt by who is connected, on all three nodes, and a plan binds them together.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_feel_changed_limits_and_plans() {
    let deployment = Deployment::start().await;
    let console = deployment.all().start().await;
    let mut edges = Vec::new();
    for _ in 0..3 {
        edges.push(deployment.data().set("quotas.interval", "100ms").start().await);
    }
    let operator = Caller::operator(console.addr);
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    holds("all nodes serve it", || {
        edges.iter().all(|edge| edge.app_version("shop") == Some(1))
    })
    .await;
    let mut guests = Vec::new();
    for edge in &edges {
        let path = "/apps/shop/connection/websocket";
        guests.push(enter(edge.addr, path, None, None).await.guest());
    }
    let mut small = settings();
    small["namespaces"][0]["max_size"] = "8B".into();
    ann.call("PATCH", "/v1/apps/shop", &json!({"settings": small}))
        .await
        .expect(200);
    for guest in &mut guests {
        let publish = json!({"publish": {"channel": "x", "data": "more than eight bytes"}});
        loop {
            let reply = guest.command(publish.clone()).await.unwrap();
            if reply["error"]["code"] == 106 {
                break;
            }
        }
    }
    // Four connections on all nodes together; there are three.
    let plan = json!({"selectable": true, "quotas": {"peak_connections": 4}});
    operator.call("PUT", "/v1/plans/four", &plan).await.expect(201);
    ann.call("PATCH", "/v1/apps/shop", &json!({"plan": "four"}))
        .await
        .expect(200);
    holds("all nodes have the plan", || {
        edges.iter().all(|edge| edge.app_version("shop") == Some(3))
    })
    .await;
    let fourth = until("there is room for one more", || async {
        for edge in &edges {
            if let crate::doors::Entered::In(guest) =
                enter(edge.addr, "/apps/shop/connection/websocket", None, None).await
            {
                return Some(guest);
            }
        }
        None
    })
    .await;
    for edge in &edges {
        let fifth = enter(edge.addr, "/apps/shop/connection/websocket", None, None).await;
        assert!(matches!(fifth, crate::doors::Entered::Refused(503)), "{fifth:?}");
    }
    drop(fourth);
    for edge in edges {
        edge.stop().await;
    }
    console.stop().await;
}
