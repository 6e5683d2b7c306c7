use serde_json::json;

use super::support::{A, B, Node, Reply};

const APPS: &str = r#"
    [[apps]]
    anonymous = true
    id = "a"
    api_keys = ["key-of-a-0123456789"]
    [[apps.namespaces]]
    name = "here"
    subscribe = "anyone"
    presence = true
    [[apps.namespaces]]
    name = "chat"
    subscribe = "anyone"
    [[apps]]
    anonymous = true
    id = "b"
    api_keys = ["key-of-b-0123456789"]
    [[apps.namespaces]]
    name = "here"
    subscribe = "anyone"
    presence = true
"#;

async fn get(node: &Node, key: &str, path: &str) -> Reply {
    node.call("GET", path, key, "").await
}

#[tokio::test]
async fn members_page_by_page_and_their_number() {
    let node = Node::with(APPS).await;
    let _members: Vec<_> = (0..25)
        .map(|i| node.member("a", "here:x", &format!("c{i:02}"), &format!("u{}", i % 10)))
        .collect();
    let mut clients = Vec::new();
    let mut query = "limit=10".to_owned();
    loop {
        let page = get(&node, A, &format!("/v1/channels/here:x/presence?{query}")).await;
        let page = page.json();
        assert_eq!((&page["connections"], &page["users"]), (&json!(25), &json!(10)));
        assert_eq!(
            (&page["complete"], &page["missing_nodes"]),
            (&json!(true), &json!([]))
        );
        let members = page["members"].as_array().unwrap();
        clients.extend(members.iter().map(|it| it["client"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => query = format!("limit=10&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<_> = (0..25).map(|i| format!("c{i:02}")).collect();
    assert_eq!(clients, expected);
    let page = get(&node, A, "/v1/channels/here:x/presence?limit=1").await;
    assert_eq!(
        page.json()["members"],
        json!([{ "client": "c00", "user": "u0", "conn_info": { "n": 1 } }])
    );
    let stats = get(&node, A, "/v1/channels/here:x/presence/stats").await;
    assert_eq!(
        stats.json(),
        json!({ "connections": 25, "users": 10, "complete": true, "missing_nodes": [] })
    );
}

#[tokio::test]
async fn no_app_sees_anothers_members() {
    let node = Node::with(APPS).await;
    let _member = node.member("a", "here:x", "c1", "ann");
    let stats = get(&node, B, "/v1/channels/here:x/presence/stats").await;
    assert_eq!(stats.json()["connections"], 0);
}

#[tokio::test]
async fn what_cannot_be_asked() {
    let node = Node::with(APPS).await;
    for (path, status, code) in [
        ("/v1/channels/chat:x/presence", 404, "no_presence"),
        ("/v1/channels/chat:x/presence/stats", 404, "no_presence"),
        ("/v1/channels/nowhere:x/presence", 404, "unknown_channel"),
        ("/v1/channels/here:x/presence?limit=0", 422, "invalid_field"),
        ("/v1/channels/here:x/presence?limit=1001", 422, "invalid_field"),
        ("/v1/channels/here:x/presence?nosuch=1", 400, "bad_request"),
    ] {
        let reply = get(&node, A, path).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{path}");
    }
}
