//! What backends do to the connections of a user, on two nodes; and revoked tokens.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use crate::support::{
    edge::{Edge, TOKEN_SECRET},
    holds,
    http::request,
    nats::NatsServer,
    proxy::{Proxy, Weather},
    token, within,
};

pub(crate) struct Raw {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) client: String,
}

impl Raw {
    /// Connects; why not, if the server closes.
    async fn try_connect(addr: SocketAddr, claims: &Value) -> Result<Self, (u16, String)> {
        Self::with_token(addr, &token::token(claims)).await
    }

    async fn with_token(addr: SocketAddr, token: &str) -> Result<Self, (u16, String)> {
        let (raw, _) = Self::answered(addr, json!({"token": token})).await?;
        Ok(raw)
    }

    /// Connects, and what the server answers.
    async fn answered(addr: SocketAddr, request: Value) -> Result<(Self, Value), (u16, String)> {
        let url = format!("ws://{addr}/connection/websocket");
        let (socket, _) = within(tokio_tungstenite::connect_async(url)).await.unwrap();
        let mut raw = Self {
            socket,
            client: String::new(),
        };
        raw.send(json!({"id": 1, "connect": request})).await;
        let mut reply = raw.hear().await?;
        raw.client = reply["connect"]["client"].as_str().unwrap().to_owned();
        Ok((raw, reply["connect"].take()))
    }

    pub(crate) async fn connect(addr: SocketAddr, claims: &Value) -> Self {
        Self::try_connect(addr, claims)
            .await
            .unwrap_or_else(|why| panic!("{why:?}"))
    }

    pub(crate) async fn send(&mut self, command: Value) {
        within(self.socket.send(Message::text(command.to_string())))
            .await
            .unwrap();
    }

    /// The next that is no ping, or how it was closed.
    pub(crate) async fn hear(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match within(self.socket.next()).await.unwrap().unwrap() {
                Message::Text(text) if text.as_str() == "{}" => self.send(json!({})).await,
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(Some(frame)) => {
                    return Err((frame.code.into(), frame.reason.to_string()));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(why) = self.hear().await {
                return why;
            }
        }
    }
}

pub(crate) async fn rest(addr: SocketAddr, method: &str, path: &str, body: Value) -> (u16, Value) {
    let reply = request(addr, method, path, &body.to_string()).await.unwrap();
    (reply.status, reply.body)
}

async fn command(addr: SocketAddr, path: &str, body: Value) -> Value {
    let (status, answer) = rest(addr, "POST", path, body).await;
    assert!(status < 300, "{path}: {answer}");
    answer
}

pub(crate) async fn two(nats: &NatsServer) -> (Edge, Edge) {
    let urls = [nats.url()];
    let (a, b) = (Edge::start(&urls).await, Edge::start(&urls).await);
    for edge in [&a, &b] {
        holds("the nodes know each other", || edge.nodes().live().len() == 2).await;
    }
    (a, b)
}

#[tokio::test]
async fn a_disconnect_reaches_all_nodes_and_spares_whom_it_should() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    let ann = json!({"sub": "ann"});
    let (mut on_a, mut on_b) = (Raw::connect(a.addr, &ann).await, Raw::connect(b.addr, &ann).await);
    let spared = Raw::connect(b.addr, &ann).await;
    let (_, online) = rest(a.addr, "GET", "/v1/users/ann", Value::Null).await;
    assert_eq!(
        online,
        json!({"status": "online", "connections": 3, "missing_nodes": []})
    );
    let body = json!({"code": 4500, "reason": "for good", "whitelist": [spared.client]});
    let done = command(a.addr, "/v1/users/ann/disconnect", body).await;
    assert_eq!(done, json!({"connections": 2, "missing_nodes": []}));
    for client in [&mut on_a, &mut on_b] {
        assert_eq!(client.closed().await, (4500, "for good".to_owned()));
    }
    let (_, online) = rest(a.addr, "GET", "/v1/users/ann", Value::Null).await;
    assert_eq!(online["connections"], 1);
    let (_, offline) = rest(a.addr, "GET", "/v1/users/bob", Value::Null).await;
    assert_eq!(offline["status"], "offline");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn subscriptions_messages_and_refreshes_reach_the_other_node() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    let mut ann = Raw::connect(b.addr, &json!({"sub": "ann"})).await;
    let publish = |text: &str| {
        let body = json!({"data": text});
        command(a.addr, "/v1/channels/public:x/publications", body)
    };
    let first = publish("one").await;
    publish("two").await;
    let since = json!({"offset": first["offset"], "epoch": first["epoch"]});
    let body = json!({"channel": "public:x", "data": {"d": 1}, "recover_since": since});
    let done = command(a.addr, "/v1/users/ann/subscribe", body).await;
    assert_eq!(done["connections"], 1);
    let push = ann.hear().await.unwrap();
    assert_eq!(push["push"]["channel"], "public:x");
    assert_eq!(push["push"]["subscribe"]["recoverable"], true);
    assert_eq!(push["push"]["subscribe"]["data"]["d"], 1);
    assert_eq!(ann.hear().await.unwrap()["push"]["pub"]["data"], "two");
    publish("three").await;
    assert_eq!(ann.hear().await.unwrap()["push"]["pub"]["data"], "three");
    command(a.addr, "/v1/users/ann/messages", json!({"data": {"m": 1}})).await;
    assert_eq!(ann.hear().await.unwrap()["push"]["message"]["data"]["m"], 1);
    command(
        a.addr,
        "/v1/users/ann/unsubscribe",
        json!({"channel": "public:x"}),
    )
    .await;
    assert_eq!(ann.hear().await.unwrap()["push"]["unsubscribe"]["code"], 2000);
    command(a.addr, "/v1/users/ann/refresh", json!({})).await;
    assert!(ann.hear().await.unwrap()["push"]["refresh"].is_object());
    command(a.addr, "/v1/users/ann/refresh", json!({"expired": true})).await;
    assert_eq!(ann.closed().await.0, 3005);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_disconnect_leaves_no_connection_that_was_there_before() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    for round in 0..10 {
        let user = format!("user{round}");
        let claims = json!({"sub": user});
        let connecting = (0..6).map(|index| {
            let addr = if index % 2 == 0 { a.addr } else { b.addr };
            Raw::try_connect(addr, &claims)
        });
        let connecting = futures_util::future::join_all(connecting);
        let path = format!("/v1/users/{user}/disconnect");
        let early = command(a.addr, &path, json!({}));
        let (connected, _) = tokio::join!(connecting, early);
        command(b.addr, &path, json!({})).await;
        for mut client in connected.into_iter().flatten() {
            assert_eq!(client.closed().await.0, 3503);
        }
        let (_, left) = rest(a.addr, "GET", &format!("/v1/users/{user}"), Value::Null).await;
        assert_eq!(left["status"], "offline");
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_revoked_token_is_worth_nothing_on_any_node() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for (revocation, revoked, good) in [
        (
            json!({"kind": "token", "value": "t1"}),
            json!({"sub": "ann", "jti": "t1", "iat": now + 9}),
            json!({"sub": "ann", "jti": "t2", "iat": now + 9}),
        ),
        (
            json!({"kind": "user", "value": "ann", "before": now}),
            json!({"sub": "ann", "iat": now - 1}),
            json!({"sub": "ann", "iat": now}),
        ),
        (
            json!({"kind": "before", "before": now - 50}),
            json!({"sub": "bob"}),
            json!({"sub": "bob", "iat": now - 50}),
        ),
    ] {
        let mut spared = Raw::connect(b.addr, &good).await;
        let (mut on_a, mut on_b) = (
            Raw::connect(a.addr, &revoked).await,
            Raw::connect(b.addr, &revoked).await,
        );
        let until = now + 60;
        let mut body = revocation.clone();
        body["until"] = until.into();
        let entry = command(a.addr, "/v1/revocations", body).await;
        for client in [&mut on_a, &mut on_b] {
            assert_eq!(client.closed().await.0, 3500, "{revocation}");
        }
        for edge in [&a, &b] {
            let refused = Raw::try_connect(edge.addr, &revoked).await;
            assert_eq!(refused.err().map(|why| why.0), Some(3500), "{revocation}");
        }
        let late = Edge::start(&[nats.url()]).await;
        let refused = Raw::try_connect(late.addr, &revoked).await;
        assert_eq!(
            refused.err().map(|why| why.0),
            Some(3500),
            "a node that came later"
        );
        spared
            .send(json!({"id": 2, "history": {"channel": "public:x"}}))
            .await;
        assert!(spared.hear().await.is_ok(), "{revocation}");
        let path = format!("/v1/revocations/{}", entry["id"].as_str().unwrap());
        assert_eq!(rest(late.addr, "DELETE", &path, Value::Null).await.0, 200);
        Raw::connect(late.addr, &revoked).await;
        late.stop().await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_revocation_is_felt_within_a_second_on_all_nodes() {
    const CLIENTS: usize = 100;
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    // A machine that is busy with other tests may be late: not three times in a row.
    let mut took = Vec::new();
    for round in 0..3 {
        let claims = json!({"sub": "ann", "jti": format!("timed{round}")});
        let connecting = (0..CLIENTS).map(|index| {
            let addr = if index % 2 == 0 { a.addr } else { b.addr };
            Raw::connect(addr, &claims)
        });
        let mut clients = futures_util::future::join_all(connecting).await;
        let since = Instant::now();
        let body = json!({"kind": "token", "value": claims["jti"]});
        command(a.addr, "/v1/revocations", body).await;
        let closing = clients.iter_mut().map(Raw::closed);
        for (code, _) in futures_util::future::join_all(closing).await {
            assert_eq!(code, 3500);
        }
        let refused = Raw::try_connect(b.addr, &claims).await;
        assert_eq!(refused.err().map(|why| why.0), Some(3500));
        took.push(since.elapsed());
        if since.elapsed() < Duration::from_secs(1) {
            return;
        }
    }
    panic!("{took:?}");
}

#[tokio::test]
async fn a_revoked_key_takes_its_tokens_with_it_and_no_others() {
    let nats = NatsServer::start().await;
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let start = async || {
        let builder = Edge::builder().nats(&[nats.url()]);
        let builder = builder.set("apps.0.auth.public_keys", &pair.public_key_pem());
        builder.start().await
    };
    let (a, b) = (start().await, start().await);
    let claims = json!({"sub": "ann"});
    let old = token::token(&claims);
    let new = jsonwebtoken::encode(
        &Header::new(Algorithm::EdDSA),
        &claims,
        &EncodingKey::from_ed_der(&pair.serialize_der()),
    );
    let new = new.unwrap();
    let mut revoked = Raw::with_token(b.addr, &old)
        .await
        .unwrap_or_else(|why| panic!("{why:?}"));
    let mut spared = Raw::with_token(b.addr, &new)
        .await
        .unwrap_or_else(|why| panic!("{why:?}"));
    let hash = digest(&SHA256, TOKEN_SECRET);
    let fingerprint: String = hash.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let body = json!({"kind": "key", "value": fingerprint});
    command(a.addr, "/v1/revocations", body).await;
    assert_eq!(revoked.closed().await.0, 3500);
    for edge in [&a, &b] {
        let refused = Raw::with_token(edge.addr, &old).await;
        assert_eq!(refused.err().map(|why| why.0), Some(3500));
        assert!(Raw::with_token(edge.addr, &new).await.is_ok());
    }
    spared
        .send(json!({"id": 2, "history": {"channel": "public:x"}}))
        .await;
    assert!(spared.hear().await.is_ok());
}

#[tokio::test]
async fn a_revocation_leaves_no_connection_that_raced_with_it() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    for round in 0..10 {
        let claims = json!({"sub": "ann", "jti": format!("race{round}")});
        let connecting = (0..8).map(|index| {
            let addr = if index % 2 == 0 { a.addr } else { b.addr };
            Raw::try_connect(addr, &claims)
        });
        let body = json!({"kind": "token", "value": claims["jti"]});
        let (connected, _) = tokio::join!(
            futures_util::future::join_all(connecting),
            command(a.addr, "/v1/revocations", body)
        );
        for client in connected {
            let code = match client {
                Ok(mut client) => client.closed().await.0,
                Err((code, _)) => code,
            };
            assert_eq!(code, 3500);
        }
    }
}

#[tokio::test]
async fn a_revocation_ends_when_it_says() {
    let nats = NatsServer::start().await;
    let (a, b) = two(&nats).await;
    let claims = json!({"sub": "ann", "jti": "t1"});
    let until = token::in_seconds(3);
    let body = json!({"kind": "token", "value": "t1", "until": until});
    command(a.addr, "/v1/revocations", body).await;
    let refused = Raw::try_connect(b.addr, &claims).await;
    assert_eq!(refused.err().map(|why| why.0), Some(3500));
    holds("its time is over", || token::in_seconds(0) > until).await;
    for edge in [&a, &b] {
        Raw::connect(edge.addr, &claims).await;
        let (_, listed) = rest(edge.addr, "GET", "/v1/revocations", Value::Null).await;
        assert_eq!(listed["revocations"], json!([]), "nothing of it is left");
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_and_the_others_have_done_it() {
    let nats = NatsServer::start().await;
    let urls = [nats.url()];
    // A lease of an hour: it is silent, not gone.
    let builder = || {
        let builder = Edge::builder().nats(&urls).set("cluster.lease", "1h");
        builder.set("cluster.ask_timeout", "500ms")
    };
    let (a, b) = (builder().start().await, builder().start().await);
    let silent = builder().spawn().await;
    for edge in [&a, &b] {
        holds("three nodes", || edge.nodes().live().len() == 3).await;
    }
    let known = [a.nodes().me().0, b.nodes().me().0];
    let live = a.nodes().live();
    let id = live.iter().find(|node| !known.contains(&node.id)).unwrap().id;
    let ann = json!({"sub": "ann"});
    let (mut on_b, mut on_silent) = (
        Raw::connect(b.addr, &ann).await,
        Raw::connect(silent.addr, &ann).await,
    );
    silent.pause(true);
    let missing = json!([id.to_string()]);
    let (_, unknown) = rest(a.addr, "GET", "/v1/users/bob", Value::Null).await;
    assert_eq!(
        unknown,
        json!({"status": "unknown", "connections": 0, "missing_nodes": missing})
    );
    let body = json!({"code": 4500, "reason": "now"});
    let done = command(a.addr, "/v1/users/ann/disconnect", body).await;
    assert_eq!(done, json!({"connections": 1, "missing_nodes": missing}));
    assert_eq!(on_b.closed().await.0, 4500);
    assert_eq!(a.metric("slipstream_user_commands_unanswered_total"), 2.0);
    // The same over Centrifugo's API, and what it says of channels and nodes.
    let (_, done) = rest(a.addr, "POST", "/api/disconnect", json!({"user": "ann"})).await;
    assert_eq!(done, json!({"result": {"missing_nodes": missing}}));
    let (_, nodes) = rest(a.addr, "GET", "/v1/nodes", Value::Null).await;
    assert_eq!(nodes["missing_nodes"], missing);
    let nodes = nodes["nodes"].as_array().unwrap();
    let numbers = nodes.iter().map(|node| !node["connections"].is_null());
    assert_eq!(numbers.filter(|known| *known).count(), 2);
    let (_, channels) = rest(a.addr, "GET", "/v1/channels", Value::Null).await;
    assert_eq!(channels, json!({"channels": [], "missing_nodes": missing}));
    let (_, channels) = rest(a.addr, "POST", "/api/channels", json!({})).await;
    assert_eq!(channels["error"]["code"], 100, "not to be told apart from all");
    // What it was told while it was silent it does when it goes on: nothing was taken back.
    silent.pause(false);
    assert_eq!(on_silent.closed().await.0, 4500);
    let (_, offline) = rest(a.addr, "GET", "/v1/users/ann", Value::Null).await;
    assert_eq!(
        offline,
        json!({"status": "offline", "connections": 0, "missing_nodes": []})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_asked_at_once_are_all_answered() {
    let nats = NatsServer::start().await;
    let (a, _b) = two(&nats).await;
    let asking = (0..100).map(|_| rest(a.addr, "GET", "/v1/users/ann", Value::Null));
    for (status, answer) in futures_util::future::join_all(asking).await {
        assert_eq!(status, 200);
        assert_eq!(answer["status"], "offline", "{answer}");
    }
}

#[tokio::test]
async fn who_does_not_read_does_nothing_more_once_it_is_disconnected() {
    let nats = NatsServer::start().await;
    let edge = Edge::start(&[nats.url()]).await;
    let mut ann = Raw::connect(edge.addr, &json!({"sub": "ann"})).await;
    ann.send(json!({"id": 2, "subscribe": {"channel": "public:much"}}))
        .await;
    ann.hear().await.unwrap();
    // More than sockets hold.
    let text = "x".repeat(50_000);
    for _ in 0..300 {
        let body = json!({"data": text});
        command(edge.addr, "/v1/channels/public:much/publications", body).await;
    }
    let bytes = || edge.metric("slipstream_mailbox_bytes");
    holds("it is behind", || bytes() > 50_000.0).await;
    let done = command(edge.addr, "/v1/users/ann/disconnect", json!({})).await;
    assert_eq!(done["connections"], 1);
    ann.send(json!({"id": 3, "publish": {"channel": "public:proof", "data": 1}}))
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let path = "/v1/channels/public:proof/publications";
    let (_, history) = rest(edge.addr, "GET", path, Value::Null).await;
    assert_eq!(history["publications"], json!([]));
    // What is in front of the end still comes.
    assert_eq!(ann.closed().await.0, 3503);
    let (_, history) = rest(edge.addr, "GET", path, Value::Null).await;
    assert_eq!(history["publications"], json!([]));
}

#[tokio::test]
async fn a_revocation_reaches_a_node_that_was_cut_off_when_it_is_back() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    let a = Edge::start(&[nats.url()]).await;
    let cut = Edge::builder()
        .nats(&proxy.urls())
        .set("nats.ping_interval", "300ms")
        .start()
        .await;
    holds("the nodes know each other", || a.nodes().live().len() == 2).await;
    let claims = json!({"sub": "ann", "jti": "t1"});
    let mut ann = Raw::connect(cut.addr, &claims).await;
    proxy.set(Weather::BlackHole);
    let body = json!({"kind": "token", "value": "t1"});
    command(a.addr, "/v1/revocations", body).await;
    ann.send(json!({"id": 2, "presence_stats": {"channel": "nowhere:a"}}))
        .await;
    assert!(ann.hear().await.is_ok(), "nobody could tell it");
    proxy.set(Weather::Clear);
    assert_eq!(ann.closed().await.0, 3500);
    let refused = Raw::try_connect(cut.addr, &claims).await;
    assert_eq!(refused.err().map(|why| why.0), Some(3500));
}

#[tokio::test]
async fn what_is_published_to_a_user_arrives_and_is_recovered_on_another_node() {
    let nats = NatsServer::start().await;
    let more = r#"
[[apps.namespaces]]
name = "user"
history = "std"
recovery = true
subscribe = "token"
user_limited = true
"#;
    let start = async || {
        let builder = Edge::builder().nats(&[nats.url()]).file(more);
        builder.set("apps.0.personal_namespace", "user").start().await
    };
    let (a, b) = (start().await, start().await);
    let token = token::token(&json!({"sub": "ann"}));
    let connect = async |addr, subs: Value| {
        let request = json!({"token": token, "subs": subs});
        Raw::answered(addr, request)
            .await
            .unwrap_or_else(|why| panic!("{why:?}"))
    };
    let publish = async |text: &str| {
        let path = "/v1/channels/user%3A%23ann/publications";
        command(a.addr, path, json!({"data": text})).await
    };
    let (mut ann, answer) = connect(b.addr, json!({})).await;
    assert_eq!(answer["subs"]["user:#ann"]["recoverable"], true);
    let position = publish("one").await;
    let push = ann.hear().await.unwrap();
    assert_eq!(push["push"]["channel"], "user:#ann");
    assert_eq!(push["push"]["pub"]["data"], "one");
    drop(ann);
    publish("two").await;
    publish("three").await;
    let since = json!({"recover": true, "offset": position["offset"], "epoch": position["epoch"]});
    let (_ann, answer) = connect(a.addr, json!({"user:#ann": since})).await;
    let personal = &answer["subs"]["user:#ann"];
    assert_eq!(personal["recovered"], true, "{answer}");
    let missed = personal["publications"].as_array().unwrap();
    let missed: Vec<_> = missed.iter().map(|publication| &publication["data"]).collect();
    assert_eq!(missed, ["two", "three"]);
}
