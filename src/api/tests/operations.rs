use serde_json::json;

use super::support::{A, APPS, Node, request};
use crate::log::{
    LogEvent, ReadError,
    memory::{Request, Target},
};

#[tokio::test]
async fn a_node_is_healthy_whatever_nats_does() {
    let node = Node::start().await;
    node.faults.disconnect(0);
    let health = node.call("GET", "/healthz", "", "").await;
    assert_eq!(
        health.ok(200).0,
        json!({"node": "node-1", "version": env!("CARGO_PKG_VERSION")})
    );
}

#[tokio::test]
async fn a_node_is_ready_when_it_can_prove_positions() {
    let node = Node::start().await;
    let reasons = async || {
        let reply = node.call("GET", "/readyz", "", "").await;
        let answer = reply.json();
        assert_eq!(answer["ready"], reply.status == 200);
        assert_eq!(node.metrics.ready.get(), i64::from(reply.status == 200));
        answer["reasons"].clone()
    };
    assert_eq!(reasons().await, json!([]));
    node.faults.disconnect(0);
    assert_eq!(reasons().await, json!(["nats"]));
    node.faults.reconnect(0);
    assert_eq!(reasons().await, json!([]));
    // L4: after a reconnect nothing is proven until a leader has answered.
    node.faults
        .fail(Target::all(), Request::Info, ReadError::NoAnswer, u32::MAX);
    for keeper in node.hub.keepers() {
        keeper.on_event(&LogEvent::Connected);
    }
    let unproven = json!(["shard std-0", "shard std-1", "shard std-2", "shard std-3"]);
    assert_eq!(reasons().await, unproven);
    node.readiness.drain();
    assert_eq!(reasons().await[0], "draining");
}

#[tokio::test]
async fn metrics_are_served_and_count_requests() {
    let node = Node::start().await;
    node.post(A, "chat:x", r#"{"data":1}"#).await.ok(201);
    node.post("wrong", "chat:x", r#"{"data":1}"#).await;
    let metrics = node.call("GET", "/metrics", "", "").await;
    assert_eq!(metrics.status, 200);
    let content_type = metrics.headers["content-type"].to_str().unwrap();
    assert!(content_type.starts_with("application/openmetrics-text"));
    let text = String::from_utf8(metrics.bytes.to_vec()).unwrap();
    for line in [
        r#"slipstream_http_requests_total{status="2xx"} 1"#,
        r#"slipstream_http_requests_total{status="4xx"} 1"#,
        r#"slipstream_publishes_total{app="a",outcome="stored"} 1"#,
        r#"slipstream_auth_failures_total{reason="api_key"} 1"#,
    ] {
        assert!(text.contains(line), "{line}");
    }
    assert!(!text.contains(A), "a key is in the metrics");
}

#[tokio::test]
async fn operations_can_be_hidden() {
    let node = Node::with(&APPS.replacen("[http]", "[http]\nexpose_operations = false", 1)).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let reply = node.raw(request("GET", path, "", &[], "")).await;
        assert_eq!(reply.status, 404, "{path}");
    }
    node.post(A, "chat:x", r#"{"data":1}"#).await.ok(201);
}
