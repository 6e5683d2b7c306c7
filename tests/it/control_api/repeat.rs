//! Requests that are sent again.

use serde_json::{Value, json};

use super::Deployment;
use crate::support::{edge::Edge, http::Response, people::Caller};

const KEY: (&str, &str) = ("Idempotency-Key", "a-key-of-a-request");

async fn create(caller: &Caller, name: &str) -> Response {
    caller
        .call_with("POST", "/v1/teams", &[KEY], &json!({"name": name}))
        .await
}

/// It is done once, whoever is asked again, and secrets are told again too.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_done_once() {
    let deployment = Deployment::start().await;
    let first = deployment.all().start().await;
    let second = deployment.all().start().await;
    let ann = Caller::person(first.addr, "ann").await;
    let bob = Caller::person(first.addr, "bob").await;
    let made = create(&ann, "Shop").await;
    assert_eq!((made.status, made.header("idempotency-replayed")), (201, None));
    let again = create(&ann.at(second.addr), "Shop").await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (201, Some("true"))
    );
    assert_eq!(again.header("etag"), made.header("etag"));
    assert_eq!(again.body, made.body);
    assert_eq!(
        create(&ann, "Other").await.error(),
        (422, "idempotency_key_reused")
    );
    // The same key of another is another.
    assert_ne!(create(&bob, "Shop").await.expect(201)["id"], made.body["id"]);
    assert_eq!(teams(&ann).await, 1);

    let team = made.body["id"].as_str().unwrap();
    ann.app(team, "shop").await;
    let key = [("Idempotency-Key", "another")];
    let body = json!({"name": "backend"});
    let made = ann
        .call_with("POST", "/v1/apps/shop/keys", &key, &body)
        .await
        .expect(201);
    let again = ann
        .call_with("POST", "/v1/apps/shop/keys", &key, &body)
        .await
        .expect(201);
    assert!(made["key"].is_string());
    assert_eq!(again, made);
    let keys = ann.get("/v1/apps/shop/keys").await.expect(200);
    assert_eq!(keys["items"].as_array().unwrap().len(), 1);
    // The store does not have it in clear.
    let file = std::fs::read(deployment.folder.path().join("store.db")).unwrap();
    let wal = std::fs::read(deployment.folder.path().join("store.db-wal")).unwrap_or_default();
    let text = made["key"].as_str().unwrap().as_bytes();
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!holds(&file) && !holds(&wal));

    // What was refused has done nothing, and may be sent again.
    let refused = create_with(&ann, "third", &json!({"name": ""})).await;
    assert_eq!(refused.status, 400);
    let done = create_with(&ann, "third", &json!({"name": "Third"})).await;
    assert_eq!(done.status, 201);
    for (key, status) in [("", 422), ("ä", 422), ("a b", 422)] {
        assert_eq!(
            create_with(&ann, key, &json!({"name": "x"})).await.status,
            status,
            "{key}"
        );
    }
    stop([first, second]).await;
}

/// Many at once: one is done, the others are told so or to wait.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_done() {
    let deployment = Deployment::start().await;
    let nodes = [deployment.all().start().await, deployment.all().start().await];
    let ann = Caller::person(nodes[0].addr, "ann").await;
    let tries = (0..12).map(|n| {
        let caller = ann.at(nodes[n % 2].addr);
        async move { create(&caller, "Shop").await }
    });
    let answers = futures_util::future::join_all(tries).await;
    let mut ids = Vec::new();
    for answer in &answers {
        match answer.status {
            201 => ids.push(answer.body["id"].clone()),
            _ => assert_eq!(answer.error(), (409, "request_in_progress")),
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(teams(&ann).await, 1);
    assert_eq!(create(&ann, "Shop").await.expect(201)["id"], ids[0]);
    stop(nodes).await;
}

async fn create_with(caller: &Caller, key: &str, body: &Value) -> Response {
    caller
        .call_with("POST", "/v1/teams", &[("Idempotency-Key", key)], body)
        .await
}

async fn teams(caller: &Caller) -> usize {
    let teams = caller.get("/v1/teams").await.expect(200);
    teams["items"].as_array().unwrap().len()
}

async fn stop(nodes: impl IntoIterator<Item = Edge>) {
    for node in nodes {
        node.stop().await;
    }
}
