//! What a node measures, as `/metrics` tells it.

use serde_json::{Value, json};

use crate::{
    doors::{Entered, enter, http, token},
    support::{edge::Edge, nats::NatsServer, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_and_the_connection_to_nats_do_is_measured() {
    let mut nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("edge.max_channels", "1")
        .start()
        .await;
    let limit = |name: &str| {
        edge.metric(&format!(
            "slipstream_limits_hit_total{{app=\"dev\",limit=\"{name}\"}}"
        ))
    };
    let plain = "/connection/websocket";

    let mut guest = enter(edge.addr, plain, None, None).await.guest();
    guest.subscribe(json!({"channel": "public:a"})).await.unwrap();
    assert_eq!(guest.subscribe(json!({"channel": "public:b"})).await, Err(106));
    assert_eq!(limit("channels"), 1.0);
    let forged = token(&json!({"sub": "u"}), "another secret: of 32 bytes, at least");
    let refused = enter(edge.addr, plain, None, Some(&forged)).await;
    assert!(matches!(refused, Entered::Closed(3500)), "{refused:?}");
    assert_eq!(
        edge.metric("slipstream_auth_failures_total{reason=\"invalid\"}"),
        1.0
    );

    // The page and handshakes count as requests.
    assert_eq!(edge.metric("slipstream_http_requests_total{status=\"2xx\"}"), 2.0);
    assert_eq!(http(edge.addr, "GET /", &[], &Value::Null).await.0, 200);
    assert_eq!(http(edge.addr, "GET /nothing", &[], &Value::Null).await.0, 404);
    assert_eq!(edge.metric("slipstream_http_requests_total{status=\"2xx\"}"), 3.0);
    assert_eq!(edge.metric("slipstream_http_requests_total{status=\"4xx\"}"), 1.0);

    assert!(edge.metric("slipstream_tasks") > 0.0);
    assert_eq!(edge.metric("slipstream_mailbox_bytes"), 0.0);
    assert_eq!(edge.metric("slipstream_nats_connected"), 1.0);
    assert_eq!(edge.metric("slipstream_nats_reconnects_total"), 0.0);
    nats.stop().await;
    let connected = |wanted| edge.metric("slipstream_nats_connected") == wanted;
    until("disconnected", || async { connected(0.0).then_some(()) }).await;
    nats.restart().await;
    until("connected again", || async { connected(1.0).then_some(()) }).await;
    let reconnects = || edge.metric("slipstream_nats_reconnects_total");
    until("counted", || async { (reconnects() == 1.0).then_some(()) }).await;
    edge.stop().await;
}
