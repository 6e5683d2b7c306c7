use serde_json::json;

use super::support::{A, B, Node};

#[tokio::test]
async fn users_without_connections_are_commanded_with_success() {
    let node = Node::start().await;
    for (command, body) in [
        ("disconnect", "{}"),
        (
            "disconnect",
            r#"{"code":4000,"reason":"bye","whitelist":["c1"],"client":"c2"}"#,
        ),
        ("unsubscribe", r#"{"channel":"chat:1"}"#),
        (
            "subscribe",
            r#"{"channel":"chat:1","info":{"a":1},"data":2,"recover_since":{"offset":1,"epoch":"e"}}"#,
        ),
        ("refresh", r#"{"expired":true}"#),
        ("refresh", r#"{"expire_at":99999999999,"info":null}"#),
        ("messages", r#"{"data":{"text":"hi"}}"#),
    ] {
        let reply = node
            .call("POST", &format!("/v1/users/nobody/{command}"), A, body)
            .await;
        assert_eq!(
            reply.ok(200).0,
            json!({"connections": 0, "missing_nodes": []}),
            "{command} {body}"
        );
    }
    let online = node.call("GET", "/v1/users/a%2Fb%20c", A, "").await;
    assert_eq!(online.ok(200).text("status"), "offline");
}

#[tokio::test]
async fn commands_out_of_their_bounds_are_refused() {
    let node = Node::start().await;
    let big = format!(r#"{{"data":"{}"}}"#, "x".repeat(70_000));
    let reason = format!(r#"{{"reason":"{}"}}"#, "x".repeat(124));
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    let deep = |field: &str| format!(r#"{{"channel":"chat:1","{field}":{deep}}}"#);
    let (deep_info, deep_data) = (deep("info"), deep("data"));
    let deep_message = deep_data.replace(r#""channel":"chat:1","#, "");
    for (command, body, error) in [
        ("disconnect", r#"{"code":2999}"#, (422, "invalid_field")),
        ("disconnect", r#"{"code":5000}"#, (422, "invalid_field")),
        ("disconnect", &reason, (422, "invalid_field")),
        ("disconnect", r#"{"client":""}"#, (422, "invalid_field")),
        ("disconnect", r#"{"other":1}"#, (422, "invalid_body")),
        ("unsubscribe", "{}", (422, "invalid_body")),
        ("unsubscribe", r#"{"channel":"none:1"}"#, (404, "unknown_channel")),
        ("subscribe", r#"{"channel":""}"#, (422, "invalid_field")),
        ("subscribe", r#"{"channel":"only_b:1"}"#, (404, "unknown_channel")),
        (
            "subscribe",
            r#"{"channel":"chat:1","expire_at":0}"#,
            (422, "invalid_field"),
        ),
        ("subscribe", &deep_info, (400, "bad_request")),
        ("subscribe", &deep_data, (400, "bad_request")),
        ("messages", &deep_message, (400, "bad_request")),
        ("messages", "{}", (422, "invalid_field")),
        ("messages", &big, (413, "payload_too_large")),
        ("messages", "x", (400, "invalid_json")),
    ] {
        let reply = node
            .call("POST", &format!("/v1/users/ann/{command}"), A, body)
            .await;
        assert_eq!(
            reply.error(),
            (error.0, error.1.to_owned()),
            "{command} {body:.80}"
        );
    }
}

#[tokio::test]
async fn revocations_are_made_listed_and_taken_back_by_their_app_alone() {
    let node = Node::start().await;
    let mut ids = Vec::new();
    for body in [
        r#"{"kind":"token","value":"t1"}"#,
        r#"{"kind":"user","value":"ann","before":5}"#,
        r#"{"kind":"before"}"#,
        r#"{"kind":"key","value":"k1"}"#,
    ] {
        let made = node.call("POST", "/v1/revocations", A, body).await;
        ids.push(made.ok(201).text("id").to_owned());
    }
    ids.sort();
    let list = async |key, query: &str| {
        let listed = node
            .call("GET", &format!("/v1/revocations?{query}"), key, "")
            .await
            .ok(200);
        let ids = listed
            .array("revocations")
            .iter()
            .map(|it| it["id"].as_str().unwrap().to_owned());
        (
            ids.collect::<Vec<_>>(),
            listed.0["next"].as_str().map(str::to_owned),
        )
    };
    let (first, next) = list(A, "limit=3").await;
    let (rest, end) = list(A, &format!("cursor={}", next.unwrap())).await;
    assert_eq!(end, None);
    let mut all = [first, rest].concat();
    all.sort();
    assert_eq!(all, ids);
    assert!(list(B, "").await.0.is_empty(), "another app's");
    let path = format!("/v1/revocations/{}", ids[0]);
    assert_eq!(
        node.call("DELETE", &path, B, "").await.error().1,
        "unknown_revocation"
    );
    node.call("DELETE", &path, A, "").await.ok(200);
    assert_eq!(
        node.call("DELETE", &path, A, "").await.error().1,
        "unknown_revocation"
    );
    assert_eq!(list(A, "").await.0.len(), 3);
}

#[tokio::test]
async fn revocations_have_bounds() {
    let file = format!("[revocations]\nmax_per_app = 1\n{}", super::support::APPS);
    let node = Node::with(&file).await;
    for body in [
        r#"{"kind":"token"}"#,
        r#"{"kind":"token","value":""}"#,
        r#"{"kind":"token","value":"t","before":5}"#,
        r#"{"kind":"before","value":"x"}"#,
        r#"{"kind":"user","value":"ann","until":5}"#,
        r#"{"kind":"user","value":"ann","until":99999999999}"#,
    ] {
        let reply = node.call("POST", "/v1/revocations", A, body).await;
        assert_eq!(reply.error(), (422, "invalid_field".to_owned()), "{body}");
    }
    let ann = r#"{"kind":"user","value":"ann"}"#;
    node.call("POST", "/v1/revocations", A, ann).await.ok(201);
    let bob = node
        .call("POST", "/v1/revocations", A, r#"{"kind":"user","value":"bob"}"#)
        .await;
    assert_eq!(bob.error(), (409, "too_many_revocations".to_owned()));
    node.call("POST", "/v1/revocations", A, ann).await.ok(201);
    node.call("POST", "/v1/revocations", B, ann).await.ok(201);
}
