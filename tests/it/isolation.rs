//! Issue 3, "Apps from the first commit": a connection names its app, and the same channel name in two
//! apps never meets, by any door.

use serde_json::{Value, json};

use crate::doors::{Entered, Guest, enter, http, publications, token};
use crate::support::{
    edge::{Builder, Edge},
    nats::NatsServer,
    until,
};

const SECRET_A: &str = "the secret of the app a: 32 bytes, at least";
const SECRET_B: &str = "the secret of the app b: 32 bytes, at least";
const SECRET_DEV: &str = "the token secret of the tests: 32 bytes";
const KEY_A: (&str, &str) = ("x-api-key", "the-key-of-a");
const KEY_B: (&str, &str) = ("x-api-key", "the-key-of-b");

/// Two apps beside `dev` that have the same namespaces; only `a` lets anonymous clients in.
fn edge(nats: &NatsServer) -> Builder {
    let app = |id: &str, anonymous: bool, secret: &str, more: &str| {
        format!(
            "[[apps]]\nid = \"{id}\"\nanonymous = {anonymous}\napi_keys = [\"the-key-of-{id}\"]\n{more}\n\
             [apps.auth]\nhmac_secret = \"{secret}\"\n\
             [[apps.namespaces]]\nname = \"\"\nhistory = \"std\"\nrecovery = true\n\
             subscribe = \"anyone\"\npublish = \"anyone\"\nread_history = \"anyone\"\n\
             [[apps.namespaces]]\nname = \"closed\"\nhistory = \"std\"\nsubscribe = \"token\"\n\
             [[apps.namespaces]]\nname = \"{id}\"\nsubscribe = \"anyone\"\nhistory = \"none\"\n"
        )
    };
    let origins = "allowed_origins = [\"https://a.example\"]";
    let apps = [
        app("a", true, SECRET_A, origins),
        app("b", false, SECRET_B, "limits.max_connections = 2"),
    ];
    Edge::builder().nats(&[nats.url()]).file(&apps.concat())
}

/// The app that a connection has come to belong to.
async fn app_of(guest: &mut Guest) -> &'static str {
    for (app, channel) in [("dev", "live:x"), ("a", "a:x"), ("b", "b:x")] {
        if guest.subscribe(json!({ "channel": channel })).await.is_ok() {
            return app;
        }
    }
    "none"
}

/// What came of an attempt: the app, `closed CODE` or `refused STATUS`.
async fn outcome(entered: Entered) -> String {
    match entered {
        Entered::In(mut guest) => app_of(&mut guest).await.to_owned(),
        Entered::Closed(code) => format!("closed {code}"),
        Entered::Refused(status) => format!("refused {status}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_belongs_to_the_app_that_it_names() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats).start().await;
    let signed = |claims: Value, secret: &str| Some(token(&claims, secret));
    let of_a = || signed(json!({"app": "a"}), SECRET_A);
    let plain = "/connection/websocket";
    let table = [
        // Nothing is named: the default app.
        (plain, None, "dev"),
        (plain, signed(json!({"sub": "u"}), SECRET_DEV), "dev"),
        (plain, signed(json!({"sub": "u"}), SECRET_A), "closed 3500"),
        // The URL names it.
        ("/connection/websocket?app=a", None, "a"),
        ("/connection/websocket?x=1&app=a", None, "a"),
        ("/apps/a/connection/websocket", None, "a"),
        ("/connection/websocket?app=b", None, "closed 3501"),
        ("/connection/websocket?app=b", signed(json!({}), SECRET_B), "b"),
        (
            "/apps/b/connection/websocket",
            signed(json!({"app": "b"}), SECRET_B),
            "b",
        ),
        (
            "/connection/websocket?app=b",
            signed(json!({}), SECRET_A),
            "closed 3500",
        ),
        // The token names it, and is verified with that app's keys.
        (plain, of_a(), "a"),
        (plain, signed(json!({"app": "dev"}), SECRET_DEV), "dev"),
        (plain, signed(json!({"app": "a"}), SECRET_B), "closed 3500"),
        (plain, signed(json!({"app": "a"}), SECRET_DEV), "closed 3500"),
        (plain, signed(json!({"app": "nosuch"}), SECRET_DEV), "closed 3500"),
        (
            plain,
            signed(json!({"app": "unnamed"}), SECRET_DEV),
            "closed 3500",
        ),
        (plain, signed(json!({"app": ["a"]}), SECRET_DEV), "closed 3500"),
        (plain, Some("a.b.c".to_owned()), "closed 3500"),
        // Both do, and differ.
        ("/connection/websocket?app=b", of_a(), "closed 3500"),
        (
            "/connection/websocket?app=a",
            signed(json!({"app": "b"}), SECRET_A),
            "closed 3500",
        ),
        (
            "/connection/websocket?app=a",
            signed(json!({"app": "b"}), SECRET_B),
            "closed 3500",
        ),
        ("/apps/a/connection/websocket?app=b", None, "a"),
        ("/connection/websocket?app=a&app=b", None, "a"),
        // No app.
        ("/connection/websocket?app=", None, "refused 404"),
        ("/connection/websocket?app=nosuch", None, "refused 404"),
        ("/connection/websocket?app=unnamed", None, "refused 404"),
        ("/connection/websocket?app=A", None, "refused 404"),
        ("/connection/websocket?app=a%2F", None, "refused 404"),
        ("/connection/websocket?app=%61", None, "refused 404"),
        ("/connection/websocket?app=*", None, "refused 404"),
        ("/apps/a%2F..%2Fb/connection/websocket", None, "refused 404"),
        ("/apps/a/../b/connection/websocket", None, "refused 404"),
    ];
    for (path, token, expected) in table {
        let entered = enter(edge.addr, path, None, token.as_deref()).await;
        assert_eq!(outcome(entered).await, expected, "{path} {token:?}");
    }
    // The list of origins is that of the app, however it is named.
    for (path, origin, token, expected) in [
        (
            "/connection/websocket?app=a",
            "https://evil.example",
            None,
            "refused 403",
        ),
        ("/connection/websocket?app=a", "https://a.example", None, "a"),
        (plain, "https://evil.example", of_a(), "closed 3507"),
        (plain, "https://a.example", of_a(), "a"),
    ] {
        let entered = enter(edge.addr, path, Some(origin), token.as_deref()).await;
        assert_eq!(outcome(entered).await, expected, "{path} from {origin}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_default_app_the_token_may_still_name_one() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats).set("node.default_app", "").start().await;
    let path = "/connection/websocket";
    let of_b = token(&json!({"app": "b"}), SECRET_B);
    let open = |app: &str| edge.metric(&format!("slipstream_connections{{app=\"{app}\"}}"));
    for (token, expected) in [
        (None, "closed 3501"),
        (Some(token(&json!({"sub": "u"}), SECRET_A)), "closed 3500"),
        (Some(token(&json!({"app": "unnamed"}), SECRET_A)), "closed 3500"),
        (Some(of_b.clone()), "b"),
    ] {
        let entered = enter(edge.addr, path, None, token.as_deref()).await;
        assert_eq!(outcome(entered).await, expected, "{token:?}");
    }
    let nobody = || async { (open("b") + open("unnamed") == 0.0).then_some(()) };
    until("all of them have gone", nobody).await;

    // The app's own limit holds, whichever way they come; a place that is left is free again.
    let first = enter(edge.addr, path, None, Some(&of_b)).await.guest();
    let second = enter(edge.addr, "/connection/websocket?app=b", None, Some(&of_b)).await;
    let _second = second.guest();
    assert_eq!((open("b"), open("unnamed")), (2.0, 0.0));
    let third = enter(edge.addr, path, None, Some(&of_b)).await;
    assert_eq!(outcome(third).await, "closed 3504");
    let third = enter(edge.addr, "/connection/websocket?app=b", None, Some(&of_b)).await;
    assert_eq!(outcome(third).await, "refused 503");
    assert_eq!(
        edge.metric("slipstream_limits_hit_total{app=\"b\",limit=\"app_connections\"}"),
        2.0
    );
    drop(first);
    until("one has gone", || async { (open("b") < 2.0).then_some(()) }).await;
    let fourth = enter(edge.addr, path, None, Some(&of_b)).await;
    assert_eq!(outcome(fourth).await, "b");
    edge.stop().await;
}

/// Names that could be taken for something else on their way to a subject or a key.
const NAMES: [&str; 20] = [
    "x",
    "a",
    "b",
    "b.x",
    ".x",
    "x.",
    "x..y",
    "*",
    ">",
    "a.*",
    "a.>",
    "../b/x",
    "b%2Fx",
    "a/b",
    "h.std.0.b.x",
    "$JS.API.STREAM.NAMES",
    "x y",
    "ü",
    "u\u{308}",
    "\"\\;=",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_channel_in_two_apps_never_meets() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats).start().await;
    let addr = edge.addr;
    let of_b = token(&json!({"sub": "u"}), SECRET_B);
    let mut a = enter(addr, "/apps/a/connection/websocket", None, None)
        .await
        .guest();
    let mut b = enter(addr, "/connection/websocket?app=b", None, Some(&of_b))
        .await
        .guest();
    for name in NAMES {
        a.subscribe(json!({ "channel": name })).await.unwrap();
        b.subscribe(json!({ "channel": name })).await.unwrap();
    }
    // By every door, with the same idempotency key everywhere.
    for (index, name) in NAMES.iter().enumerate() {
        for (app, guest, key) in [("a", &mut a, KEY_A), ("b", &mut b, KEY_B)] {
            let text = format!("{app}{index}");
            match index % 3 {
                0 => {
                    let body = json!({"data": text, "idempotency_key": "k"});
                    let path = format!("POST {}", publications(name));
                    let (status, answer) = http(addr, &path, &[key], &body).await;
                    assert_eq!(status, 201, "{name}: {answer}");
                }
                1 => {
                    let body = json!({"channel": name, "data": text, "idempotency_key": "k"});
                    let (status, answer) = http(addr, "POST /api/publish", &[key], &body).await;
                    assert_eq!((status, answer.get("error")), (200, None), "{name}: {answer}");
                }
                _ => {
                    let publish = json!({"channel": name, "data": text, "idempotency_key": "k"});
                    let reply = guest.command(json!({ "publish": publish })).await.unwrap();
                    assert!(reply.get("error").is_none(), "{name}: {reply}");
                }
            }
        }
    }
    for (app, guest) in [("a", &mut a), ("b", &mut b)] {
        let mut seen = guest.publications(NAMES.len()).await;
        let mut expected: Vec<_> = NAMES.iter().enumerate().collect();
        expected.sort_by_key(|(_, name)| **name);
        seen.sort();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(index, name)| ((*name).to_owned(), format!("{app}{index}")))
            .collect();
        assert_eq!(seen, expected, "live in {app}");
    }
    for (index, name) in NAMES.iter().enumerate() {
        for (app, guest, key) in [("a", &mut a, KEY_A), ("b", &mut b, KEY_B)] {
            let expected = json!([format!("{app}{index}")]);
            let path = format!("GET {}", publications(name));
            let (_, answer) = http(addr, &path, &[key], &Value::Null).await;
            assert_eq!(
                payloads(&answer["publications"]),
                expected,
                "{name} in {app}: {answer}"
            );
            let body = json!({"channel": name, "limit": -1});
            let (_, answer) = http(addr, "POST /api/history", &[key], &body).await;
            assert_eq!(
                payloads(&answer["result"]["publications"]),
                expected,
                "{name} in {app}"
            );
            let history = json!({"history": {"channel": name, "limit": 10}});
            let answer = guest.command(history).await.unwrap();
            assert_eq!(
                payloads(&answer["history"]["publications"]),
                expected,
                "{name} in {app}"
            );
        }
    }
    // What one app removes stays with the other.
    for name in NAMES {
        let remove = format!("DELETE {}", publications(name));
        assert_eq!(http(addr, &remove, &[KEY_A], &Value::Null).await.0, 200, "{name}");
        let get = format!("GET {}", publications(name));
        let (_, of_a) = http(addr, &get, &[KEY_A], &Value::Null).await;
        let (_, of_b) = http(addr, &get, &[KEY_B], &Value::Null).await;
        assert_eq!(payloads(&of_a["publications"]), json!([]), "{name}");
        assert_eq!(
            payloads(&of_b["publications"]).as_array().unwrap().len(),
            1,
            "{name}"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_and_a_token_open_their_own_app_only() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats).start().await;
    let addr = edge.addr;
    let body = json!({"channel": "x", "data": "a", "publications": null});
    let publish = json!({"data": "a"});
    for (request, headers, status) in [
        ("POST /v1/channels/x/publications?app=b", &[KEY_A][..], 403),
        ("POST /v1/channels/x/publications", &[KEY_A, ("x-app", "b")], 403),
        ("POST /v1/channels/x/publications?app=nosuch", &[KEY_A], 403),
        ("POST /v1/channels/x/publications?app=b", &[], 401),
        (
            "POST /v1/channels/x/publications",
            &[("x-api-key", "the-key-of-"), ("x-app", "b")],
            401,
        ),
        ("GET /v1/channels/x/publications?app=b", &[KEY_A], 403),
        ("DELETE /v1/channels/x/publications?app=b", &[KEY_A], 403),
        ("GET /v1/channels/x/queue?app=b", &[KEY_A], 403),
        ("GET /v1/channels/x/queue", &[KEY_A, ("x-app", "b")], 403),
        ("GET /v1/channels/x/queue?app=b", &[], 401),
        ("GET /v1/channels/x/queue?app=a", &[KEY_A], 200),
        ("POST /api/publish?app=b", &[KEY_A], 401),
        ("POST /api/publish?app=b&api_key=the-key-of-a", &[], 401),
        ("POST /api/history?app=b", &[KEY_A], 401),
        ("POST /api/history_remove?app=b", &[KEY_A], 401),
    ] {
        let body = match request {
            _ if request.starts_with("POST /api/") => &body,
            _ if request.starts_with("POST") => &publish,
            _ => &Value::Null,
        };
        let (found, answer) = http(addr, request, headers, body).await;
        assert_eq!(found, status, "{request} {headers:?}: {answer}");
    }

    let mut a = enter(addr, "/connection/websocket?app=a", None, None)
        .await
        .guest();
    for (claims, secret, accepted) in [
        (json!({"channel": "closed:x"}), SECRET_A, true),
        (json!({"channel": "closed:y", "app": "a"}), SECRET_A, true),
        (json!({"channel": "closed:z", "app": "b"}), SECRET_A, false),
        (json!({"channel": "closed:z", "app": "b"}), SECRET_B, false),
        (json!({"channel": "closed:z"}), SECRET_B, false),
    ] {
        let subscribe = json!({"channel": claims["channel"], "token": token(&claims, secret)});
        let reply = a.command(json!({ "subscribe": subscribe })).await;
        let taken = reply.is_ok_and(|reply| reply.get("subscribe").is_some());
        assert_eq!(taken, accepted, "{claims}");
        if !taken {
            a = enter(addr, "/connection/websocket?app=a", None, None)
                .await
                .guest();
        }
    }
    edge.stop().await;
}

/// The data of publications, as an array.
fn payloads(publications: &Value) -> Value {
    let publications = publications.as_array().cloned().unwrap_or_default();
    publications
        .into_iter()
        .map(|publication| publication["data"].clone())
        .collect()
}
