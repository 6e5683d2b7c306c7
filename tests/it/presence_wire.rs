//! Presence over WebSockets and REST, on two and three nodes: who is there, and who is told of it.

mod faults;

use serde_json::{Value, json};
use slipstream::model::{AppId, ChannelName};

use crate::support::{
    edge::{Builder, Edge},
    holds,
    nats::NatsServer,
    raw::Raw,
    within,
};

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

pub(super) fn builder(urls: &[String]) -> Builder {
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
pub(super) async fn counts(edge: &Edge, channel: &str) -> (usize, usize, bool) {
    let app = AppId::new("dev").unwrap();
    let channel = ChannelName::new(channel).unwrap();
    let stats = within(edge.presence().stats(&app, &channel)).await.unwrap();
    (stats.connections, stats.users, stats.complete)
}

pub(super) async fn count(edges: &[&Edge], channel: &str, expected: (usize, usize)) {
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

#[tokio::test]
async fn a_refresh_changes_what_the_others_see() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).start().await;
    let two = builder(&[nats.url()]).start().await;
    let mut ann = Raw::member(one.addr, "ann").await;
    let mut bob = Raw::member(two.addr, "bob").await;
    count(&[&one, &two], "here:a", (2, 2)).await;
    let body = json!({ "info": { "name": "Anna" } }).to_string();
    let done = crate::support::http::request(two.addr, "POST", "/v1/users/ann/refresh", &body).await;
    assert_eq!(done.unwrap().body["connections"], 1);
    assert_eq!(bob.next("update").await["conn_info"], json!({ "name": "Anna" }));
    let reply = ann.command(json!({ "presence": { "channel": "here:a" } })).await;
    assert_eq!(
        reply["presence"]["presence"][&ann.client]["conn_info"],
        json!({ "name": "Anna" })
    );
    // What is too large for presence is not shown; the refresh is done all the same.
    let large = json!({ "info": "x".repeat(5_000) }).to_string();
    let done = crate::support::http::request(two.addr, "POST", "/v1/users/ann/refresh", &large).await;
    assert_eq!(done.unwrap().body["connections"], 1);
    holds("it is counted", || {
        one.metric("slipstream_limits_hit_total{app=\"dev\",limit=\"presence_info\"}") == 1.0
    })
    .await;
    assert_eq!(ann.stats("here:a").await, (2, 2));
}

#[tokio::test]
async fn a_member_shows_a_state_that_the_others_see() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()])
        .set("presence.max_state_bytes", "100B")
        .start()
        .await;
    let two = builder(&[nats.url()]).start().await;
    let mut ann = Raw::member(one.addr, "ann").await;
    ann.next("join").await;
    let mut bob = Raw::member(two.addr, "bob").await;
    ann.next("join").await;
    bob.next("join").await;
    let update = |channel: &str, state: Value| {
        let data = json!({ "channel": channel, "state": state });
        json!({ "rpc": { "method": "slipstream.presence.update", "data": data } })
    };
    let reply = ann.command(update("here:a", json!({ "typing": true }))).await;
    assert_eq!(reply["rpc"], json!({ "data": {} }));
    let shown = bob.next("update").await;
    assert_eq!(
        (&shown["user"], &shown["state"]),
        (&json!("ann"), &json!({ "typing": true }))
    );
    let reply = bob.command(json!({ "presence": { "channel": "here:a" } })).await;
    let members = &reply["presence"]["presence"];
    assert_eq!(members[&ann.client]["state"], json!({ "typing": true }));
    assert!(members[&bob.client]["state"].is_null());

    for (channel, state, code) in [
        ("here:a", json!("x".repeat(100)), 106),
        ("here:other", json!(1), 103),
        ("public:a", json!(1), 108),
        ("nowhere:a", json!(1), 102),
        ("", json!(1), 107),
    ] {
        let reply = ann.command(update(channel, state)).await;
        assert_eq!(reply["error"]["code"], code, "{channel}");
    }
    // So deep that a parser of the message that tells of it would give up.
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    let reply = ann
        .command(update("here:a", serde_json::from_str(&deep).unwrap()))
        .await;
    assert_eq!(reply["error"]["code"], 106);
    let malformed = json!({ "rpc": { "method": "slipstream.presence.update", "data": 7 } });
    assert_eq!(ann.command(malformed).await["error"]["code"], 107);
    // More often than it may.
    let mut refused = 0;
    for i in 0..20 {
        let reply = ann.command(update("here:a", json!(i))).await;
        refused += usize::from(reply["error"]["code"] == 111);
    }
    assert!(refused > 0);
    assert_eq!(counts(&two, "here:a").await, (2, 2, true));
}

#[tokio::test]
async fn channels_of_users_are_theirs_alone() {
    let nats = NatsServer::start().await;
    let more = r#"
[[apps.namespaces]]
name = "user"
history = "std"
recovery = true
subscribe = "token"
user_limited = true
"#;
    let edge = builder(&[nats.url()])
        .file(more)
        .set("apps.0.personal_namespace", "user")
        .start()
        .await;
    let mut ann = Raw::connect(edge.addr, "ann").await;
    let mut bob = Raw::connect(edge.addr, "bob").await;
    let publish = async |from: &mut Raw| {
        let data = json!({ "channel": "user:#ann", "data": 1 });
        from.command(json!({ "publish": data })).await
    };
    assert_eq!(publish(&mut bob).await["error"]["code"], 103, "by backends only");
    assert_eq!(bob.subscribe("user:#ann").await["error"]["code"], 103);
    assert_eq!(
        ann.subscribe("user:#ann").await["error"]["code"],
        105,
        "it is already"
    );
    // Whose id would divide in the name has no channel that others are named by.
    let mut both = Raw::connect(edge.addr, "ann,bob").await;
    assert_eq!(both.subscribe("user:#ann,bob").await["error"]["code"], 103);
    for client in [&mut ann, &mut bob] {
        assert!(client.subscribe("user:dialog#ann,bob").await["error"].is_null());
    }
}
