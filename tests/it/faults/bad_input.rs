//! Bad input over the wire: every field has a bound and an error.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    client::Client,
    edge::{Edge, TOKEN_SECRET},
    nats::NatsServer,
    token::{in_seconds, labelled, signed, token, unsigned},
    within,
};

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// A result.
    Good,
    /// An error.
    Error(u64),
    /// The end of the connection.
    Close(u16),
}

use Answer::{Close, Error, Good};

struct Row {
    name: &'static str,
    /// Frames that come before, after the connect.
    before: Vec<String>,
    frame: String,
    expected: Answer,
}

fn row(name: &'static str, command: impl std::fmt::Display, expected: Answer) -> Row {
    Row {
        name,
        before: Vec::new(),
        frame: command.to_string(),
        expected,
    }
}

fn after(mut row: Row, before: &[Value]) -> Row {
    row.before = before.iter().map(Value::to_string).collect();
    row
}

fn subscribe(channel: &str) -> Value {
    json!({"id": 9, "subscribe": {"channel": channel}})
}

fn subscribe_with(token: &str) -> Value {
    json!({"id": 9, "subscribe": {"channel": "chat:room", "token": token}})
}

fn publish(channel: &str, data: &Value) -> Value {
    json!({"id": 9, "publish": {"channel": channel, "data": data}})
}

fn commands() -> Vec<Row> {
    let long = format!("public:{}", "x".repeat(249));
    let deep = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"id":9,"publish":{{"channel":"public:a","data":{data}}}}}"#)
    };
    let beyond = 1_u64 << 53;
    let mine = json!({"sub": "", "channel": "chat:room"});
    let old = json!({"sub": "", "channel": "chat:room", "exp": in_seconds(-60)});
    vec![
        row("not JSON", "nonsense", Close(3501)),
        row("half a command", r#"{"id":9,"history":{"chan"#, Close(3501)),
        row("an empty message", "", Close(3501)),
        row("an empty line", "\n\n", Close(3501)),
        row(
            "something behind the object",
            r#"{"id":9,"history":{"channel":"public:a"}} x"#,
            Close(3501),
        ),
        row("an array", "[]", Close(3501)),
        row("no id", r#"{"history":{"channel":"public:a"}}"#, Close(3501)),
        row(
            "id 0",
            r#"{"id":0,"history":{"channel":"public:a"}}"#,
            Close(3501),
        ),
        row(
            "an id of 33 bits",
            r#"{"id":4294967296,"history":{"channel":"public:a"}}"#,
            Close(3501),
        ),
        row(
            "a negative id",
            r#"{"id":-1,"history":{"channel":"public:a"}}"#,
            Close(3501),
        ),
        row("a pong that no ping asked for", "{}", Close(3501)),
        row("a second connect", r#"{"id":9,"connect":{}}"#, Close(3501)),
        row("send", r#"{"send":{"data":{}}}"#, Close(3508)),
        row("no request", r#"{"id":9}"#, Error(107)),
        row("an unknown request", r#"{"id":9,"fly":{}}"#, Error(104)),
        row(
            "two requests",
            r#"{"id":9,"history":{"channel":"public:a"},"unsubscribe":{"channel":"public:a"}}"#,
            Error(107),
        ),
        row(
            "a field twice",
            r#"{"id":9,"subscribe":{"channel":"public:a","channel":"public:b"}}"#,
            Error(107),
        ),
        row(
            "a field of another type",
            r#"{"id":9,"subscribe":{"channel":5}}"#,
            Error(107),
        ),
        row(
            "presence",
            r#"{"id":9,"presence":{"channel":"public:a"}}"#,
            Error(108),
        ),
        row("rpc", r#"{"id":9,"rpc":{"method":"a"}}"#, Error(108)),
        row("no channel", r#"{"id":9,"subscribe":{}}"#, Error(107)),
        row("an empty channel", subscribe(""), Error(107)),
        row("a channel of 256 bytes", subscribe(&long), Error(107)),
        row("a channel of 255 bytes", subscribe(&long[..255]), Good),
        row(
            "a channel with a control character",
            subscribe("public:\u{7}"),
            Error(107),
        ),
        row(
            "a channel with all that subjects forbid",
            subscribe("public:.*. >..\u{e9}%"),
            Good,
        ),
        row(
            "a namespace that does not exist",
            subscribe("nowhere:a"),
            Error(102),
        ),
        row("no namespace", subscribe("public"), Error(102)),
        row(
            "an offset beyond 2^53",
            json!({"id": 9, "subscribe": {"channel": "public:a", "recover": true, "offset": beyond, "epoch": "e"}}),
            Error(107),
        ),
        row(
            "a negative offset",
            json!({"id": 9, "subscribe": {"channel": "public:a", "recover": true, "offset": -1}}),
            Error(107),
        ),
        row(
            "a fraction of an offset",
            json!({"id": 9, "subscribe": {"channel": "public:a", "recover": true, "offset": 1.5}}),
            Error(107),
        ),
        row(
            "a tags filter",
            r#"{"id":9,"subscribe":{"channel":"public:a","tf":{"op":"eq"}}}"#,
            Error(107),
        ),
        row(
            "a map subscription",
            r#"{"id":9,"subscribe":{"channel":"public:a","type":1}}"#,
            Error(108),
        ),
        after(
            row("subscribed already", subscribe("public:a"), Error(105)),
            &[json!({"id": 2, "subscribe": {"channel": "public:a"}})],
        ),
        after(
            row("one channel too many", subscribe("public:d"), Error(106)),
            &["a", "b", "c"].map(|name| json!({"id": 2, "subscribe": {"channel": format!("public:{name}")}})),
        ),
        row(
            "unsubscribed already",
            r#"{"id":9,"unsubscribe":{"channel":"public:a"}}"#,
            Good,
        ),
        row(
            "no data",
            r#"{"id":9,"publish":{"channel":"public:a"}}"#,
            Error(107),
        ),
        row("data that is null", publish("public:a", &Value::Null), Good),
        row(
            "data that is not JSON",
            r#"{"id":9,"publish":{"channel":"public:a","data":{oops}}}"#,
            Close(3501),
        ),
        row("data nested 128 deep", deep(128), Good),
        row("data nested 129 deep", deep(129), Error(107)),
        row("data nested 20,000 deep", deep(20_000), Error(107)),
        row(
            "base64 that is none",
            r#"{"id":9,"publish":{"channel":"public:a","b64data":"*"}}"#,
            Error(107),
        ),
        row(
            "too large a payload",
            publish("public:a", &json!("x".repeat(70_000))),
            Error(106),
        ),
        row(
            "an empty idempotency key",
            json!({"id": 9, "publish": {"channel": "public:a", "data": 1, "idempotency_key": ""}}),
            Error(107),
        ),
        row(
            "an idempotency key of 256 bytes",
            json!({"id": 9, "publish": {"channel": "public:a", "data": 1, "idempotency_key": "k".repeat(256)}}),
            Error(107),
        ),
        row(
            "publish without permission",
            publish("chat:room", &json!(1)),
            Error(103),
        ),
        row(
            "history without permission",
            r#"{"id":9,"history":{"channel":"chat:room","limit":1}}"#,
            Error(103),
        ),
        row(
            "history of an ephemeral channel",
            r#"{"id":9,"history":{"channel":"live:a","limit":1}}"#,
            Error(108),
        ),
        row(
            "history of another epoch",
            r#"{"id":9,"history":{"channel":"public:a","limit":1,"since":{"offset":1,"epoch":"x"}}}"#,
            Error(112),
        ),
        row(
            "history from beyond 2^53",
            json!({"id": 9, "history": {"channel": "public:a", "limit": 1, "since": {"offset": beyond}}}),
            Error(107),
        ),
        row(
            "sub_refresh of no subscription",
            r#"{"id":9,"sub_refresh":{"channel":"chat:room","token":"t"}}"#,
            Error(103),
        ),
        row(
            "refresh that nothing asked for",
            r#"{"id":9,"refresh":{"token":"t"}}"#,
            Close(3501),
        ),
        row("no subscription token", subscribe("chat:room"), Error(103)),
        row("a good subscription token", subscribe_with(&token(&mine)), Good),
        row(
            "a subscription token that is none",
            subscribe_with("a.b.c"),
            Error(103),
        ),
        row(
            "an expired subscription token",
            subscribe_with(&token(&old)),
            Error(109),
        ),
        row(
            "a forged subscription token",
            subscribe_with(&signed(&mine, Algorithm::HS256, &[7; 32])),
            Error(103),
        ),
        row(
            "a subscription token without a signature",
            subscribe_with(&unsigned(&mine)),
            Error(103),
        ),
        row(
            "a subscription token with a confused algorithm",
            subscribe_with(&labelled(&mine, "RS256")),
            Error(103),
        ),
        row(
            "a subscription token for another channel",
            subscribe_with(&token(&json!({"sub": "", "channel": "chat:other"}))),
            Close(3500),
        ),
        row(
            "a subscription token for another user",
            subscribe_with(&token(&json!({"sub": "eve", "channel": "chat:room"}))),
            Close(3500),
        ),
        row(
            "a connection token for a channel",
            subscribe_with(&token(&json!({"sub": ""}))),
            Error(103),
        ),
    ]
}

fn connects() -> Vec<(&'static str, Value, Answer)> {
    let user = json!({"sub": "ann", "exp": in_seconds(600)});
    let with = |token: String| json!({"id": 9, "connect": {"token": token}});
    vec![
        ("anonymous", json!({"id": 9, "connect": {}}), Good),
        ("a good token", with(token(&user)), Good),
        (
            "HS512 with the same secret",
            with(signed(&user, Algorithm::HS512, TOKEN_SECRET)),
            Good,
        ),
        ("a token that is none", with("nonsense".to_owned()), Close(3500)),
        (
            "an expired token",
            with(token(&json!({"sub": "ann", "exp": in_seconds(-60)}))),
            Error(109),
        ),
        (
            "a token of the future",
            with(token(&json!({"sub": "ann", "nbf": in_seconds(600)}))),
            Error(109),
        ),
        (
            "a forged token",
            with(signed(&user, Algorithm::HS256, &[7; 32])),
            Close(3500),
        ),
        ("alg none", with(unsigned(&user)), Close(3500)),
        (
            "alg RS256 over HS256",
            with(labelled(&user, "RS256")),
            Close(3500),
        ),
        (
            "alg HS384 over HS256",
            with(labelled(&user, "HS384")),
            Close(3500),
        ),
        ("an unknown alg", with(labelled(&user, "HS1")), Close(3500)),
        (
            "a subscription token",
            with(token(&json!({"sub": "ann", "channel": "chat:room"}))),
            Close(3500),
        ),
        (
            "a namespace that does not exist",
            with(token(&json!({"sub": "ann", "channels": ["nowhere:a"]}))),
            Error(102),
        ),
        ("a subscribe before", subscribe("public:a"), Close(3501)),
        ("no JSON", json!("hello"), Close(3501)),
        (
            "a token of another type",
            json!({"id": 9, "connect": {"token": 5}}),
            Close(3501),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_command_has_its_error_over_the_wire() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("edge.max_channels", "3")
        .start()
        .await;
    let witness = Client::connect(edge.addr).await;
    let mut wrong = Vec::new();
    for row in commands() {
        let mut frames = vec![json!({"id": 1, "connect": {}}).to_string()];
        frames.extend(row.before);
        let answered = within(answer(edge.addr, &frames, &row.frame)).await;
        if answered != row.expected {
            wrong.push(format!(
                "{}: {answered:?} instead of {:?}",
                row.name, row.expected
            ));
        }
    }
    for (name, connect, expected) in connects() {
        let answered = within(answer(edge.addr, &[], &connect.to_string())).await;
        if answered != expected {
            wrong.push(format!(
                "connect with {name}: {answered:?} instead of {expected:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(witness.record().connects, 1, "nobody else notices");
    edge.stop().await;
}

/// Sends frames that must all be answered well, then the one in question, whose id is 9.
async fn answer(addr: SocketAddr, before: &[String], frame: &str) -> Answer {
    let stream = TcpStream::connect(addr).await.unwrap();
    let url = format!("ws://{addr}/connection/websocket");
    let (mut socket, _) = client_async(url, stream).await.unwrap();
    for frame in before {
        socket.send(Message::text(frame.clone())).await.unwrap();
        let Some(Ok(Message::Text(reply))) = socket.next().await else {
            panic!("{frame} is not answered");
        };
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert!(reply.get("error").is_none(), "{frame}: {reply}");
    }
    socket.send(Message::text(frame.to_owned())).await.unwrap();
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                for line in text.split('\n').filter(|line| !line.is_empty()) {
                    let reply: Value = serde_json::from_str(line).unwrap();
                    if reply["id"] == 9 {
                        return reply["error"]["code"].as_u64().map_or(Good, Error);
                    }
                }
            }
            Some(Ok(Message::Close(Some(close)))) => return Close(close.code.into()),
            Some(Ok(_)) => {}
            ended => panic!("{frame}: {ended:?}"),
        }
    }
}
