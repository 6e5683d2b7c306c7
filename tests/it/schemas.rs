//! Payloads and their schemas, at the doors of a node, and as they change.

use serde_json::json;

use crate::{
    doors::enter,
    support::{edge::Edge, http, nats::NatsServer},
};

const TYPED: &str = r##"
[[apps.namespaces]]
name = "typed"
history = "std"
recovery = true
subscribe = "anyone"
publish = "anyone"
schema_compatibility = "full"
[[apps.namespaces.schemas]]
version = 1
schema = {"$defs" = {text = {type = "string", maxLength = 5}}, properties = {text = {"$ref" = "#/$defs/text"}}}
"##;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_validating_is_bounded_for_a_payload_and_for_an_app() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("tenants.max_schema_work", "3000")
        .set("tenants.schema_work_rate", "5000")
        .file(TYPED)
        .start()
        .await;
    let publish = async |items: usize| {
        let body = json!({"data": vec![0; items]}).to_string();
        http::request(edge.addr, "POST", "/v1/channels/typed:x/publications", &body)
            .await
            .unwrap()
    };
    let large = publish(4_000).await;
    assert_eq!(
        (large.status, &large.body["error"]["code"]),
        (422, &json!("invalid_payload"))
    );
    let message = large.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("units of work, 3000 at most"), "{message}");

    // As much as a second has: what comes next waits for it.
    let mut refused = None;
    for _ in 0..100 {
        let answer = publish(800).await;
        if answer.status != 201 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(edge.metric("slipstream_limits_hit_total{app=\"dev\",limit=\"schema_work_rate\"") >= 1.0);
    // Others of the app, without a schema, go on.
    let body = json!({"data": 1}).to_string();
    let other = http::request(edge.addr, "POST", "/v1/channels/public:x/publications", &body).await;
    assert_eq!(other.unwrap().status, 201);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_where_its_payload_is_wrong() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder().nats(&[nats.url()]).file(TYPED).start().await;
    let mut guest = enter(edge.addr, "/connection/websocket", None, None)
        .await
        .guest();
    let publish = |data| json!({"publish": {"channel": "typed:x", "data": data}});
    let good = guest.command(publish(json!({"text": "hello"}))).await.unwrap();
    assert!(good["error"].is_null(), "{good}");
    let bad = guest.command(publish(json!({"text": "planted"}))).await.unwrap();
    let error = &bad["error"];
    assert_eq!(error["code"], 107);
    assert_eq!(
        error["message"],
        "not valid by schema version 1, at '/text': maxLength"
    );
    // The connection goes on.
    assert!(guest.command(publish(json!({}))).await.unwrap()["error"].is_null());

    let body = json!({"channel": "typed:x", "data": {"text": 1}, "schema_version": 1}).to_string();
    let answer = http::request(edge.addr, "POST", "/api/publish", &body)
        .await
        .unwrap();
    assert_eq!(answer.body["error"]["code"], 107);
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("at '/text': type"), "{message}");

    let page = http::request(edge.addr, "GET", "/v1/channels/typed:x/publications", "").await;
    let page = page.unwrap().body;
    let publications = page["publications"].as_array().unwrap();
    assert_eq!(publications.len(), 2, "{page}");
    assert!(publications.iter().all(|it| it["tags"]["schema_version"] == "1"));
    assert_eq!(
        edge.metric("slipstream_publishes_total{app=\"dev\",outcome=\"invalid\""),
        2.0
    );
    edge.stop().await;
}
