//! Requests that are sent again.

use serde_json::{Value, json};

use super::Deployment;
use crate::support::{edge::Edge, http::Response, people::Caller, until};

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
    // A token of the same account that may not make keys is not told the one that was made.
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 + 60_000;
    let narrow = json!({"name": "t", "scopes": ["usage.read"], "expires_ms": soon});
    let narrow = ann.call("POST", "/v1/account/tokens", &narrow).await.expect(201);
    let narrow = Caller::with(first.addr, narrow["token"].as_str().unwrap());
    let refused = narrow.call_with("POST", "/v1/apps/shop/keys", &key, &body).await;
    assert_eq!(refused.error(), (403, "scope_missing"));
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

/// Who sends a change and goes away has it done all the same, up to its entry in the audit log.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_done_to_its_end_though_the_caller_goes_away() {
    let deployment = Deployment::start().await;
    let node = deployment.all().start().await;
    let ann = Caller::person(node.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    const CHANGES: usize = 20;
    for n in 0..CHANGES {
        ann.send_and_leave("PATCH", "/v1/apps/shop", &json!({"name": format!("Shop {n}")}))
            .await;
    }
    let audit = format!("/v1/teams/{team}/audit?order=oldest");
    until("every version that there is has its entry", || async {
        let version = ann.get("/v1/apps/shop").await.expect(200)["version"]
            .as_u64()
            .unwrap();
        let log = ann.get(&audit).await.expect(200);
        let entries = log["items"].as_array().unwrap().iter();
        let changes = entries.filter(|entry| entry["action"] == "app.change").count() as u64;
        // Of changes at the same moment one may be refused.
        (version > 1 && changes + 1 == version).then_some(())
    })
    .await;
    stop([node]).await;
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
