//! Presence over WebSockets and REST, on two and three nodes: who is there, and who is told of it.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use slipstream::model::{AppId, ChannelName};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use crate::support::{
    edge::{Builder, Edge},
    holds,
    nats::NatsServer,
    proxy::{Proxy, Weather},
    token, within,
};

/// A client that says what it is told to, and keeps what it hears.
struct Raw {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heard: Vec<Value>,
    client: String,
    last_id: u32,
}

impl Raw {
    async fn connect(addr: SocketAddr, user: &str) -> Self {
        let url = format!("ws://{addr}/connection/websocket");
        let (socket, _) = within(tokio_tungstenite::connect_async(url)).await.unwrap();
        let mut raw = Self {
            socket,
            heard: Vec::new(),
            client: String::new(),
            last_id: 0,
        };
        let request = match user {
            "" => json!({}),
            user => json!({ "token": token::token(&json!({ "sub": user, "info": { "name": user } })) }),
        };
        let reply = raw.command(json!({ "connect": request })).await;
        raw.client = reply["connect"]["client"].as_str().unwrap().to_owned();
        raw
    }

    async fn member(addr: SocketAddr, user: &str) -> Self {
        let mut raw = Self::connect(addr, user).await;
        let reply = raw.subscribe("here:a").await;
        assert!(reply["error"].is_null(), "{reply}");
        raw
    }

    async fn subscribe(&mut self, channel: &str) -> Value {
        self.command(json!({ "subscribe": { "channel": channel, "join_leave": true } }))
            .await
    }

    /// Sends a command; its reply.
    async fn command(&mut self, mut command: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        command["id"] = id.into();
        let message = Message::text(command.to_string());
        within(self.socket.send(message)).await.unwrap();
        loop {
            let heard = self.hear().await;
            if heard["id"] == id {
                return heard;
            }
            self.heard.push(heard);
        }
    }

    async fn hear(&mut self) -> Value {
        loop {
            let message = within(self.socket.next()).await.unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let mut lines = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            let first = lines.next().unwrap();
            // One reply a message is the rule; pushes that came with it are kept.
            for more in lines {
                self.heard.push(more);
            }
            return first;
        }
    }

    /// The next push of this kind: who it is of.
    async fn next(&mut self, kind: &str) -> Value {
        loop {
            let at = self.heard.iter().position(|heard| !heard["push"][kind].is_null());
            if let Some(at) = at {
                return self.heard.remove(at)["push"][kind]["info"].take();
            }
            let heard = self.hear().await;
            self.heard.push(heard);
        }
    }

    async fn stats(&mut self, channel: &str) -> (u64, u64) {
        let reply = self
            .command(json!({ "presence_stats": { "channel": channel } }))
            .await;
        let stats = &reply["presence_stats"];
        let count = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("{reply}"));
        (count("num_clients"), count("num_users"))
    }

    /// Says goodbye.
    async fn close(mut self) {
        within(self.socket.close(None)).await.unwrap();
        // Until the server has, too.
        while within(self.socket.next())
            .await
            .is_some_and(|message| message.is_ok())
        {}
    }
}

const NAMESPACES: &str = r#"
[[apps.namespaces]]
name = "here"
history = "std"
recovery = true
subscribe = "anyone"
publish = "anyone"
presence = true
join_leave = "wanted"

[[apps.namespaces]]
name = "open"
subscribe = "anyone"
presence = true
read_presence = "anyone"
join_leave = "all"
"#;

fn builder(urls: &[String]) -> Builder {
    Edge::builder()
        .nats(urls)
        .file(NAMESPACES)
        .set("presence.flush_interval", "10ms")
        .set("presence.grace", "1s")
        .set("presence.digest_interval", "500ms")
        .set("presence.linger", "2s")
        .set("cluster.lease", "1s")
        .set("cluster.renew_interval", "100ms")
}

/// What the service of a node says: connections, users, whether that is all.
async fn counts(edge: &Edge, channel: &str) -> (usize, usize, bool) {
    let app = AppId::new("dev").unwrap();
    let channel = ChannelName::new(channel).unwrap();
    let stats = within(edge.presence().stats(&app, &channel)).await.unwrap();
    (stats.connections, stats.users, stats.complete)
}

async fn count(edges: &[&Edge], channel: &str, expected: (usize, usize)) {
    for edge in edges {
        crate::support::until("as many members", || async {
            let (connections, users, complete) = counts(edge, channel).await;
            (complete && (connections, users) == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn members_see_each_other_on_all_nodes() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).start().await;
    let two = builder(&[nats.url()]).start().await;
    let mut ann = Raw::member(one.addr, "ann").await;
    let own = ann.next("join").await;
    assert_eq!(
        own["client"],
        ann.client.as_str(),
        "its own join, behind the reply"
    );

    let mut bob = Raw::member(two.addr, "bob").await;
    let joined = ann.next("join").await;
    assert_eq!(
        joined,
        json!({ "user": "bob", "client": bob.client, "conn_info": { "name": "bob" } })
    );
    // The same user on another node counts once.
    let tab = Raw::member(two.addr, "ann").await;
    ann.next("join").await;
    assert_eq!(ann.stats("here:a").await, (3, 2));
    count(&[&one, &two], "here:a", (3, 2)).await;
    let reply = bob.command(json!({ "presence": { "channel": "here:a" } })).await;
    let members = reply["presence"]["presence"].as_object().unwrap();
    assert_eq!(members.len(), 3);
    assert_eq!(members[&ann.client]["user"], "ann");

    let gone = tab.client.clone();
    tab.close().await;
    assert_eq!(ann.next("leave").await["client"], gone.as_str());
    let reply = bob
        .command(json!({ "unsubscribe": { "channel": "here:a" } }))
        .await;
    assert!(reply["error"].is_null());
    assert_eq!(ann.next("leave").await["user"], "bob");
    assert_eq!(ann.stats("here:a").await, (1, 1));
}

#[tokio::test]
async fn who_may_ask_is_what_the_rule_says() {
    let nats = NatsServer::start().await;
    let edge = builder(&[nats.url()]).start().await;
    let mut client = Raw::connect(edge.addr, "").await;
    for (channel, code) in [("here:a", 103), ("public:a", 108), ("nowhere:a", 102), ("", 107)] {
        for what in ["presence", "presence_stats"] {
            let reply = client.command(json!({ what: { "channel": channel } })).await;
            assert_eq!(reply["error"]["code"], code, "{what} {channel}");
        }
    }
    assert_eq!(client.stats("open:nobody").await, (0, 0));
    let reply = client
        .command(json!({ "presence": { "channel": "open:nobody" } }))
        .await;
    assert_eq!(reply["presence"], json!({ "presence": {} }));
}

#[tokio::test]
async fn a_lost_connection_stays_for_the_grace_time_unless_its_user_is_back() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).set("presence.grace", "1h").start().await;
    let two = builder(&[nats.url()]).start().await;
    let mut watcher = Raw::member(two.addr, "watcher").await;
    let phone = Raw::member(one.addr, "phone").await;
    let (lost, socket) = (phone.client.clone(), phone.socket);
    watcher.next("join").await;
    watcher.next("join").await;
    // Without a word, as in a tunnel.
    drop(socket);
    count(&[&one, &two], "here:a", (2, 2)).await;
    // Back on the other node: the lost connection is not waited for, and the user never left.
    let back = Raw::member(two.addr, "phone").await;
    assert_eq!(watcher.next("join").await["client"], back.client.as_str());
    assert_eq!(watcher.next("leave").await["client"], lost.as_str());
    count(&[&one, &two], "here:a", (2, 2)).await;
    // One that does not come back.
    drop(back.socket);
    assert_eq!(watcher.next("leave").await["client"], back.client.as_str());
    count(&[&one, &two], "here:a", (1, 1)).await;
}

#[tokio::test]
async fn the_members_of_a_killed_node_leave_once_when_its_lease_is_over() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).start().await;
    let mut killed = builder(&[nats.url()]).spawn().await;
    let mut watcher = Raw::member(one.addr, "watcher").await;
    watcher.next("join").await;
    let mut members = Vec::new();
    for i in 0..5 {
        members.push(Raw::member(killed.addr, &format!("u{i}")).await);
        watcher.next("join").await;
    }
    count(&[&one], "here:a", (6, 6)).await;
    killed.kill();
    let mut left = Vec::new();
    for _ in 0..5 {
        left.push(watcher.next("leave").await["client"].as_str().unwrap().to_owned());
    }
    left.sort();
    let mut expected: Vec<_> = members.iter().map(|member| member.client.clone()).collect();
    expected.sort();
    assert_eq!(left, expected);
    count(&[&one], "here:a", (1, 1)).await;
    assert!(
        !watcher
            .heard
            .iter()
            .any(|heard| !heard["push"]["leave"].is_null())
    );
}

#[tokio::test]
async fn an_outage_of_nats_makes_nobody_leave() {
    let mut nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).start().await;
    let two = builder(&[nats.url()]).start().await;
    let mut ann = Raw::member(one.addr, "ann").await;
    ann.next("join").await;
    let _bob = Raw::member(two.addr, "bob").await;
    ann.next("join").await;
    nats.stop().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    nats.restart().await;
    holds("connected again", || {
        one.log().connected() && two.log().connected()
    })
    .await;
    let _cid = Raw::member(two.addr, "cid").await;
    assert_eq!(ann.next("join").await["user"], "cid");
    count(&[&one, &two], "here:a", (3, 3)).await;
    assert!(!ann.heard.iter().any(|heard| !heard["push"]["leave"].is_null()));
}

#[tokio::test]
async fn what_was_lost_on_the_way_is_found_by_the_digest() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    let one = builder(&proxy.urls()).start().await;
    let two = builder(&[nats.url()]).start().await;
    let _ann = Raw::member(one.addr, "ann").await;
    count(&[&one, &two], "here:a", (1, 1)).await;
    // Long enough for the change and some digests.
    let lose_some = async || {
        let lost = proxy.lost();
        holds("lost", || proxy.lost() >= lost + 3).await;
        proxy.losses().presence(false);
    };
    proxy.losses().presence(true);
    let bob = Raw::member(two.addr, "bob").await;
    lose_some().await;
    count(&[&one], "here:a", (2, 2)).await;
    // And a leave.
    proxy.losses().presence(true);
    bob.close().await;
    lose_some().await;
    count(&[&one], "here:a", (1, 1)).await;
    assert!(one.metric("slipstream_presence_holes_total") >= 1.0);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_until_it_is_gone() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()])
        .set("presence.query_timeout", "300ms")
        .start()
        .await;
    let stalled = builder(&[nats.url()]).spawn().await;
    let _ann = Raw::member(stalled.addr, "ann").await;
    stalled.pause(true);
    let app = AppId::new("dev").unwrap();
    let channel = ChannelName::new("open:quiet").unwrap();
    let stats = within(one.presence().stats(&app, &channel)).await.unwrap();
    assert!(!stats.complete);
    assert_eq!(stats.missing.len(), 1);
    let mut client = Raw::connect(one.addr, "").await;
    let reply = client
        .command(json!({ "presence_stats": { "channel": "open:quiet" } }))
        .await;
    assert_eq!(
        reply["error"]["code"], 100,
        "not to be told apart from a full answer"
    );
    // Its lease ends: then the answer is whole without it.
    count(&[&one], "here:a", (0, 0)).await;
    // It comes back as another incarnation, with whom it has.
    stalled.pause(false);
    count(&[&one], "here:a", (1, 1)).await;
}

#[tokio::test]
async fn a_node_cut_off_is_gone_for_the_others_and_comes_back_with_its_members() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    let one = builder(&[nats.url()]).start().await;
    let cut = builder(&proxy.urls())
        .set("nats.ping_interval", "300ms")
        .start()
        .await;
    let mut ann = Raw::member(one.addr, "ann").await;
    ann.next("join").await;
    let bob = Raw::member(cut.addr, "bob").await;
    assert_eq!(ann.next("join").await["user"], "bob");
    proxy.set(Weather::BlackHole);
    assert_eq!(ann.next("leave").await["user"], "bob");
    proxy.set(Weather::Clear);
    let again = ann.next("join").await;
    assert_eq!(again["client"], bob.client.as_str());
    count(&[&one, &cut], "here:a", (2, 2)).await;
}

#[tokio::test]
async fn a_node_that_starts_in_the_middle_knows_all() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).start().await;
    let mut members = Vec::new();
    for i in 0..50 {
        members.push(Raw::member(one.addr, &format!("u{}", i % 10)).await);
    }
    let two = builder(&[nats.url()]).start().await;
    assert_eq!(counts(&two, "here:a").await, (50, 10, true));
    let app = AppId::new("dev").unwrap();
    let channel = ChannelName::new("here:a").unwrap();
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = two.presence().members(&app, &channel, after.as_deref(), 20);
        let page = within(page).await.unwrap();
        assert!(page.complete);
        paged.extend(page.members.iter().map(|member| member.client.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut expected: Vec<_> = members.iter().map(|member| member.client.clone()).collect();
    expected.sort();
    assert_eq!(paged, expected);
}

#[tokio::test]
async fn above_join_leave_max_only_the_numbers_change() {
    let nats = NatsServer::start().await;
    let edge = builder(&[nats.url()])
        .set("presence.join_leave_max", "2")
        .start()
        .await;
    let mut ann = Raw::member(edge.addr, "ann").await;
    ann.next("join").await;
    let _bob = Raw::member(edge.addr, "bob").await;
    ann.next("join").await;
    let _cid = Raw::member(edge.addr, "cid").await;
    let dan = Raw::member(edge.addr, "dan").await;
    assert_eq!(ann.stats("here:a").await, (4, 4));
    dan.close().await;
    count(&[&edge], "here:a", (3, 3)).await;
    assert!(ann.heard.is_empty(), "{:?}", ann.heard);
}

#[tokio::test]
async fn bounds_refuse_members_and_spare_the_others() {
    let nats = NatsServer::start().await;
    let edge = builder(&[nats.url()])
        .set("presence.max_members", "2")
        .set("presence.max_info_bytes", "40B")
        .start()
        .await;
    let mut ann = Raw::member(edge.addr, "ann").await;
    let mut large = Raw::connect(edge.addr, &"x".repeat(60)).await;
    assert_eq!(large.subscribe("here:a").await["error"]["code"], 106);
    assert!(
        large.subscribe("public:a").await["error"].is_null(),
        "nobody sees it there"
    );
    let bob = Raw::member(edge.addr, "bob").await;
    let mut cid = Raw::connect(edge.addr, "cid").await;
    assert_eq!(cid.subscribe("here:a").await["error"]["code"], 106);
    assert!(
        cid.subscribe("here:b").await["error"].is_null(),
        "another channel"
    );
    assert_eq!(ann.stats("here:a").await, (2, 2));
    bob.close().await;
    count(&[&edge], "here:a", (1, 1)).await;
    assert!(cid.subscribe("here:a").await["error"].is_null());
    let hit = |limit: &str| {
        edge.metric(&format!(
            "slipstream_limits_hit_total{{app=\"dev\",limit=\"{limit}\"}}"
        ))
    };
    assert_eq!((hit("presence_members"), hit("presence_info")), (1.0, 1.0));
}
