//! Issue 3, "Apps from the first commit": the same channel name in two apps never meets.

use axum::http::HeaderValue;
use serde_json::{Value, json};

use super::support::{A, B, Node, percent_encoded, publications, request};

/// Names that could be mistaken for something else on their way to a subject.
const NAMES: [&str; 24] = [
    "x",
    "a",
    "b",
    "a.chat.x",
    "../b/chat",
    "..",
    ".",
    ".x",
    "x.",
    "x..y",
    "*",
    ">",
    "a.*",
    "a.>",
    "a/b",
    "a%2Fb",
    "%2e",
    "h.std.0.b.x",
    "$JS.API.INFO",
    "x y",
    "ü",
    "u\u{308}",
    "x\u{200b}",
    "\"'\\;=",
];

#[tokio::test]
async fn the_same_name_in_two_apps_never_meets() {
    let node = Node::start().await;
    let names: Vec<_> = NAMES
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("chat:{name}")])
        .collect();
    for (index, name) in names.iter().enumerate() {
        // The same idempotency key everywhere: it must not carry over either.
        let body = |app: &str| format!(r#"{{"data":"{app}{index}","idempotency_key":"k"}}"#);
        node.post(A, name, &body("a")).await.ok(201);
        node.post(B, name, &body("b")).await.ok(201);
    }
    for (index, name) in names.iter().enumerate() {
        assert_eq!(
            node.payloads(A, name).await,
            [json!(format!("a{index}"))],
            "{name}"
        );
        assert_eq!(
            node.payloads(B, name).await,
            [json!(format!("b{index}"))],
            "{name}"
        );
        let history = json!({"channel": name, "limit": -1}).to_string();
        let reply = node.call("POST", "/api/history", B, &history).await;
        let result = reply.ok(200).0["result"].clone();
        assert_eq!(
            result["publications"][0]["data"],
            json!(format!("b{index}")),
            "{name}"
        );
        assert_eq!(result["publications"].as_array().map(Vec::len), Some(1), "{name}");
    }
    // What one removes stays with the other, by either API.
    for (index, name) in names.iter().enumerate() {
        if index % 2 == 0 {
            node.call("DELETE", &publications(name), A, "").await.ok(200);
        } else {
            let body = json!({"channel": name}).to_string();
            let reply = node.call("POST", "/api/history_remove", A, &body).await;
            assert_eq!(reply.ok(200).0, json!({"result": {}}));
        }
        assert_eq!(node.payloads(A, name).await, Vec::<Value>::new(), "{name}");
        assert_eq!(node.payloads(B, name).await.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_name_is_decoded_once() {
    let node = Node::start().await;
    node.call(
        "POST",
        "/v1/channels/chat%3Aa%2Fb/publications",
        A,
        r#"{"data":1}"#,
    )
    .await
    .ok(201);
    node.call(
        "POST",
        "/v1/channels/chat:a%252Fb/publications",
        A,
        r#"{"data":2}"#,
    )
    .await
    .ok(201);
    node.call("POST", "/v1/channels/chat:a%2fb/publications", A, r#"{"data":3}"#)
        .await
        .ok(201);
    assert_eq!(node.payloads(A, "chat:a/b").await, [json!(1), json!(3)]);
    assert_eq!(node.payloads(A, "chat:a%2Fb").await, [json!(2)]);
    // A plus is a plus, in a path.
    node.call("POST", "/v1/channels/chat:a+b/publications", A, r#"{"data":4}"#)
        .await
        .ok(201);
    assert_eq!(node.payloads(A, "chat:a+b").await, [json!(4)]);
}

/// Every endpoint with every way to show a key, and to name an app that it does not open.
#[tokio::test]
async fn a_key_opens_its_own_app_only() {
    let node = Node::start().await;
    let rest = publications("chat:x");
    let calls = [
        ("POST", rest.as_str(), r#"{"data":1}"#),
        ("GET", rest.as_str(), ""),
        ("DELETE", rest.as_str(), ""),
        ("POST", "/api/publish", r#"{"channel":"chat:x","data":1}"#),
        ("POST", "/api/broadcast", r#"{"channels":["chat:x"],"data":1}"#),
        ("POST", "/api/history", r#"{"channel":"chat:x"}"#),
        ("POST", "/api/history_remove", r#"{"channel":"chat:x"}"#),
        (
            "POST",
            "/api/batch",
            r#"{"commands":[{"publish":{"channel":"chat:x","data":1}}]}"#,
        ),
        ("POST", "/api/info", "{}"),
        (
            "POST",
            "/api",
            r#"{"method":"publish","params":{"channel":"chat:x","data":1}}"#,
        ),
    ];
    let forged = format!("{A}x");
    let bearer = format!("Bearer {A}");
    let apikey = format!("apikey {A}");
    for (method, path, body) in calls {
        let server_api = path.starts_with("/api");
        let (in_query, foreign_query) = (format!("{path}?api_key={A}"), format!("{path}?app=b"));
        for (path, key, headers, allowed) in [
            (path, A, &[][..], true),
            (path, "second-of-a-0123456789", &[], true),
            (path, "", &[("Authorization", bearer.as_str())], true),
            (path, "", &[("Authorization", apikey.as_str())], true),
            (path, A, &[("X-App", "a")], true),
            // A query is for the server API alone: it ends up in logs.
            (&in_query, "", &[], server_api),
            (path, "", &[], false),
            (path, &forged, &[], false),
            (path, "a", &[], false),
            (path, "", &[("Authorization", "Bearer ")], false),
            (path, "", &[("Authorization", "Basic a2V5")], false),
            (path, A, &[("X-App", "b")], false),
            (path, A, &[("X-App", "nope")], false),
            (path, A, &[("X-App", "")], false),
            (path, A, &[("X-App", "A")], false),
            (path, A, &[("X-App", "a ")], false),
            (&foreign_query, A, &[], false),
        ] {
            let reply = node.send(request(method, path, key, headers, body)).await;
            let case = format!("{method} {path} {key} {headers:?}: {}", reply.status);
            if allowed {
                assert!(matches!(reply.status, 200 | 201), "{case}");
                continue;
            }
            let named = headers.iter().any(|(name, _)| *name == "X-App") || path.contains("?app=");
            if server_api {
                assert_eq!(reply.status, 401, "{case}");
                assert!(reply.bytes.is_empty(), "{case}");
            } else if named {
                assert_eq!(reply.error(), (403, "forbidden".to_owned()), "{case}");
            } else if path.contains("api_key") && method != "POST" {
                assert_eq!(reply.status, 401, "{case}");
            } else {
                assert_eq!(reply.error(), (401, "unauthorized".to_owned()), "{case}");
                assert_eq!(reply.headers["www-authenticate"], "Bearer");
            }
        }
    }
    assert!(node.payloads(B, "chat:x").await.is_empty());
}

#[tokio::test]
async fn who_has_no_key_learns_nothing() {
    let node = Node::start().await;
    for name in ["chat:x", "nope:x", "only_b:x", "", ":", "\u{1}"] {
        let path = format!("/v1/channels/{}/publications", percent_encoded(name));
        let reply = node.call("POST", &path, "wrong", "not json").await;
        assert_eq!(reply.error(), (401, "unauthorized".to_owned()), "{name:?}");
    }
    // A namespace of another app does not exist here.
    let reply = node.post(A, "only_b:x", r#"{"data":1}"#).await;
    assert_eq!(reply.error(), (404, "unknown_channel".to_owned()));
    node.post(B, "only_b:x", r#"{"data":1}"#).await.ok(201);
    // Headers that are no text are no keys.
    let mut odd = request("GET", &publications("chat:x"), "", &[], "");
    odd.headers_mut()
        .insert("X-API-Key", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(node.send(odd).await.status, 401);
    let mut odd = request("GET", &publications("chat:x"), A, &[], "");
    odd.headers_mut()
        .insert("X-App", HeaderValue::from_bytes(b"a\xff").unwrap());
    assert_eq!(node.send(odd).await.status, 403);
}
