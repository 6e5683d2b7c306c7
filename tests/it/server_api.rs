//! Centrifugo's server API for users, presence, channels and nodes, and the lists of REST, on two nodes.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    support::{edge::Edge, holds, http::request_with, nats::NatsServer, until},
    users::{Raw, rest},
};

const NAMESPACES: &str = r#"
[[apps.namespaces]]
name = "here"
subscribe = "anyone"
presence = true

[[apps]]
id = "other"
api_keys = ["the-key-of-the-other-app-of-the-tests"]
anonymous = true
[[apps.namespaces]]
name = "public"
subscribe = "anyone"
"#;

async fn two(nats: &NatsServer) -> (Edge, Edge) {
    let start = async || Edge::builder().nats(&[nats.url()]).file(NAMESPACES).start().await;
    let (a, b) = (start().await, start().await);
    for edge in [&a, &b] {
        holds("the nodes know each other", || edge.nodes().live().len() == 2).await;
    }
    (a, b)
}

/// Calls a method, and gives its result.
async fn api(addr: SocketAddr, method: &str, params: Value) -> Value {
    let (status, mut answer) = rest(addr, "POST", &format!("/api/{method}"), params).await;
    assert_eq!(status, 200, "{method}: {answer}");
    assert!(answer["error"].is_null(), "{method}: {answer}");
    answer["result"].take()
}

async fn subscribe(client: &mut Raw, channel: &str) {
    client
        .send(json!({"id": 2, "subscribe": {"channel": channel}}))
        .await;
    assert!(client.hear().await.unwrap()["error"].is_null(), "{channel}");
}

#[tokio::test]
async fn users_are_commanded_on_the_other_node() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    let mut ann = Raw::connect(b.addr, &json!({"sub": "ann"})).await;
    let mut tab = Raw::connect(a.addr, &json!({"sub": "ann"})).await;
    let first = api(a.addr, "publish", json!({"channel": "public:x", "data": 1})).await;
    api(a.addr, "publish", json!({"channel": "public:x", "data": 2})).await;
    let body = json!({
        "user": "ann", "client": ann.client, "channel": "public:x", "data": {"d": 1},
        "recover_since": {"offset": first["offset"], "epoch": first["epoch"]},
    });
    assert_eq!(api(a.addr, "subscribe", body).await, json!({}));
    let push = ann.hear().await.unwrap();
    assert_eq!(push["push"]["subscribe"]["data"]["d"], 1);
    assert_eq!(ann.hear().await.unwrap()["push"]["pub"]["data"], 2);
    let body = json!({"user": "ann", "channel": "public:x"});
    assert_eq!(api(a.addr, "unsubscribe", body).await, json!({}));
    let push = ann.hear().await.unwrap();
    assert_eq!(push["push"]["unsubscribe"]["code"], 2000);
    // The other tab has no such subscription; the next it hears is the end.
    let expired = json!({"user": "ann", "client": tab.client, "expired": true});
    assert_eq!(api(b.addr, "refresh", expired).await, json!({}));
    assert_eq!(tab.closed().await.0, 3005);
    let body = json!({"user": "ann", "disconnect": {"code": 4100, "reason": "why not"}});
    assert_eq!(api(a.addr, "disconnect", body).await, json!({}));
    assert_eq!(ann.closed().await, (4100, "why not".to_owned()));
    let batch = json!({"commands": [
        {"disconnect": {"user": "ann"}}, {"presence_stats": {"channel": "here:a"}}, {"info": {}},
    ]});
    let (_, answer) = rest(a.addr, "POST", "/api/batch", batch).await;
    assert_eq!(answer["replies"][0], json!({"disconnect": {}}));
    assert_eq!(
        answer["replies"][1],
        json!({"presence_stats": {"num_clients": 0, "num_users": 0}})
    );
    assert_eq!(answer["replies"][2]["info"]["nodes"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn members_are_those_of_both_nodes() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    let mut ann = Raw::connect(a.addr, &json!({"sub": "ann", "info": {"n": 1}})).await;
    let mut tab = Raw::connect(b.addr, &json!({"sub": "ann"})).await;
    let mut bob = Raw::connect(b.addr, &json!({"sub": "bob"})).await;
    for client in [&mut ann, &mut tab, &mut bob] {
        subscribe(client, "here:a").await;
    }
    let channel = json!({"channel": "here:a"});
    for edge in [&a, &b] {
        until("three members", || async {
            let stats = api(edge.addr, "presence_stats", channel.clone()).await;
            (stats == json!({"num_clients": 3, "num_users": 2})).then_some(())
        })
        .await;
        let members = api(edge.addr, "presence", channel.clone()).await;
        let shown = json!({
            &ann.client: {"client": ann.client, "user": "ann", "conn_info": {"n": 1}},
            &tab.client: {"client": tab.client, "user": "ann"},
            &bob.client: {"client": bob.client, "user": "bob"},
        });
        assert_eq!(members, json!({ "presence": shown }));
    }
    for (channel, code) in [("public:x", 108), ("nowhere:x", 102), ("", 107)] {
        for method in ["presence", "presence_stats"] {
            let path = format!("/api/{method}");
            let (_, answer) = rest(a.addr, "POST", &path, json!({"channel": channel})).await;
            assert_eq!(answer["error"]["code"], code, "{method} {channel}");
        }
    }
}

#[tokio::test]
async fn channels_are_listed_page_by_page_with_the_subscribers_of_both_nodes() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    let mut ann = Raw::connect(a.addr, &json!({"sub": "ann"})).await;
    let mut bob = Raw::connect(b.addr, &json!({"sub": "bob"})).await;
    for i in 0..10 {
        subscribe(&mut ann, &format!("public:{i}")).await;
        if i % 2 == 0 {
            subscribe(&mut bob, &format!("public:{i}")).await;
        }
    }
    subscribe(&mut bob, "here:b").await;
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/channels?prefix=public%3A&limit=3{cursor}");
        let (status, page) = rest(b.addr, "GET", &path, Value::Null).await;
        assert_eq!((status, &page["missing_nodes"]), (200, &json!([])), "{page}");
        listed.extend(page["channels"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace(':', "%3A")),
            None => break,
        }
    }
    let expected: Vec<_> = (0..10)
        .map(|i| json!({"channel": format!("public:{i}"), "subscribers": 2 - i % 2}))
        .collect();
    assert_eq!(listed, expected);
    let all = api(a.addr, "channels", json!({"pattern": "*:?"})).await;
    assert_eq!(all["channels"].as_object().unwrap().len(), 11);
    assert_eq!(all["channels"]["public:0"], json!({"num_clients": 2}));
    let some = api(a.addr, "channels", json!({"pattern": "h*b"})).await;
    assert_eq!(some, json!({"channels": {"here:b": {"num_clients": 1}}}));
    // Whom nobody follows any more is not listed, though its tail lingers.
    bob.send(json!({"id": 3, "unsubscribe": {"channel": "here:b"}}))
        .await;
    bob.hear().await.unwrap();
    let none = api(a.addr, "channels", json!({"pattern": "here:*"})).await;
    assert_eq!(none, json!({"channels": {}}));

    let info = api(a.addr, "info", json!({})).await;
    let nodes = info["nodes"].as_array().unwrap();
    assert_eq!(nodes[0]["uid"], a.nodes().me().0.to_string());
    let numbers = |node: &Value| {
        (
            node["num_clients"].clone(),
            node["num_users"].clone(),
            node["num_subs"].clone(),
        )
    };
    assert_eq!(numbers(&nodes[0]), (json!(1), json!(1), json!(10)));
    assert_eq!(numbers(&nodes[1]), (json!(1), json!(1), json!(5)));
    let (_, nodes) = rest(b.addr, "GET", "/v1/nodes", Value::Null).await;
    assert_eq!(nodes["nodes"][0]["id"], b.nodes().me().0.to_string());
    assert_eq!(nodes["nodes"][0]["state"], "ready");
    assert_eq!(nodes["nodes"][1]["subscriptions"], 10);

    // The other app has none of it.
    let other = "the-key-of-the-other-app-of-the-tests";
    for (path, empty) in [
        ("/v1/channels", json!({"channels": [], "missing_nodes": []})),
        (
            "/v1/channels?prefix=public",
            json!({"channels": [], "missing_nodes": []}),
        ),
    ] {
        let reply = request_with(a.addr, "GET", path, other, "").await.unwrap();
        assert_eq!((reply.status, reply.body), (200, empty));
    }
    let reply = request_with(a.addr, "GET", "/v1/nodes", other, "").await.unwrap();
    for node in reply.body["nodes"].as_array().unwrap() {
        let numbers = ["connections", "users", "subscriptions", "channels"].map(|field| &node[field]);
        assert_eq!(numbers, [0; 4].map(Value::from).each_ref());
    }
}
