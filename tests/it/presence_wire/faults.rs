//! Nodes that die, stall, or are cut off, messages that are lost, clients that flap and flood.

use std::time::Duration;

use serde_json::json;
use slipstream::model::{AppId, ChannelName};

use super::{builder, count, counts};
use crate::support::{
    holds,
    nats::NatsServer,
    proxy::{Proxy, Weather},
    raw::Raw,
    within,
};

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
async fn an_outage_of_nats_of_5_s_makes_nobody_leave() {
    outage(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_outage_of_nats_of_60_s_makes_nobody_leave() {
    outage(Duration::from_secs(60)).await;
}

async fn outage(length: Duration) {
    let mut nats = NatsServer::start().await;
    // The clients of these tests answer no pings.
    let builder = || builder(&[nats.url()]).set("edge.ping_interval", "10m");
    let one = builder().start().await;
    let two = builder().start().await;
    let mut ann = Raw::member(one.addr, "ann").await;
    ann.next("join").await;
    let _bob = Raw::member(two.addr, "bob").await;
    ann.next("join").await;
    nats.stop().await;
    tokio::time::sleep(length).await;
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
    let lose = async |number| {
        holds("lost", || proxy.losses().deltas() >= number).await;
        proxy.losses().presence(false);
    };
    proxy.losses().presence(true);
    let bob = Raw::member(two.addr, "bob").await;
    lose(1).await;
    count(&[&one], "here:a", (2, 2)).await;
    // And a leave.
    proxy.losses().presence(true);
    bob.close().await;
    lose(2).await;
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
async fn the_members_of_a_node_that_stalls_for_20_s_leave_once_and_come_back_once() {
    let nats = NatsServer::start().await;
    // The lease is the default's.
    let builder = || {
        let builder = builder(&[nats.url()]);
        builder
            .set("cluster.lease", "10s")
            .set("cluster.renew_interval", "1s")
            .set("edge.ping_interval", "10m")
    };
    let one = builder().start().await;
    let stalled = builder().spawn().await;
    holds("two nodes", || one.nodes().live().len() == 2).await;
    let mut ann = Raw::member(one.addr, "ann").await;
    ann.next("join").await;
    let mut bob = Raw::member(stalled.addr, "bob").await;
    assert_eq!(ann.next("join").await["user"], "bob");
    stalled.pause(true);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(counts(&one, "here:a").await, (1, 1, true));
    stalled.pause(false);
    assert_eq!(ann.next("leave").await["user"], "bob");
    assert_eq!(ann.next("join").await["client"], bob.client.as_str());
    count(&[&one], "here:a", (2, 2)).await;
    // Its connections are as they were, and it has seen nobody go.
    assert_eq!(bob.stats("here:a").await, (2, 2));
    let told = |client: &Raw, what: &str| {
        let heard = client.heard.iter();
        heard.filter(|heard| !heard["push"][what].is_null()).count()
    };
    assert_eq!((told(&ann, "join"), told(&ann, "leave")), (0, 0), "nothing more");
    assert_eq!(told(&bob, "leave"), 0);
}

#[tokio::test]
async fn a_storm_of_joins_on_three_processes_is_seen_by_all_and_a_killed_ones_members_leave_once() {
    const EACH: usize = 100;
    let nats = NatsServer::start().await;
    let start = || {
        let builder = builder(&[nats.url()]).set("presence.join_leave_max", "1000");
        builder.spawn()
    };
    let [one, two, mut dies] = [start().await, start().await, start().await];
    let mut watcher = Raw::member(one.addr, "watcher").await;
    let join = async |addr, user: &'static str| {
        let members = (0..EACH).map(|i| Raw::member(addr, if i % 2 == 0 { "all" } else { user }));
        futures_util::future::join_all(members).await
    };
    let (_on_one, mut on_two, on_third) = tokio::join!(
        join(one.addr, "one"),
        join(two.addr, "two"),
        join(dies.addr, "third")
    );
    let mut elsewhere = Raw::member(dies.addr, "elsewhere").await;
    for client in [&mut watcher, &mut on_two[0], &mut elsewhere] {
        client.sees("here:a", (3 * EACH as u64 + 2, 6)).await;
    }
    let lost = on_third.iter().chain([&elsewhere]);
    let mut lost: Vec<_> = lost.map(|member| member.client.clone()).collect();
    dies.kill();
    for client in [&mut watcher, &mut on_two[0]] {
        client.sees("here:a", (2 * EACH as u64 + 1, 4)).await;
    }
    // Each once: what is told of it is in front of the number.
    let told = watcher.heard.iter();
    let told = told.filter_map(|heard| heard["push"]["leave"]["info"]["client"].as_str());
    let mut left: Vec<_> = told.map(str::to_owned).collect();
    left.sort();
    lost.sort();
    assert_eq!(left, lost);
}

#[tokio::test]
async fn a_user_whose_connection_flaps_between_nodes_never_seems_to_be_away() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).set("presence.grace", "20s").start().await;
    let two = builder(&[nats.url()]).set("presence.grace", "20s").start().await;
    let mut ann = Raw::member(one.addr, "ann").await;
    ann.next("join").await;
    let mut gone = Vec::new();
    let mut phone = Raw::member(two.addr, "phone").await;
    for round in 0..20 {
        let addr = if round % 2 == 0 { one.addr } else { two.addr };
        // Lost without a word; the next comes before anybody has noticed, or just after.
        gone.push(phone.client.clone());
        drop(phone);
        if round % 3 == 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        phone = Raw::member(addr, "phone").await;
        let (_, users) = ann.stats("here:a").await;
        assert_eq!(users, 2, "round {round}");
    }
    ann.sees("here:a", (2, 2)).await;
    let told = |kind: &str| {
        let heard = ann.heard.iter();
        let clients = heard.filter_map(|heard| heard["push"][kind]["info"]["client"].as_str());
        let mut clients: Vec<_> = clients.map(str::to_owned).collect();
        clients.sort();
        clients
    };
    // Who came and went between two messages of a node, nobody need hear of.
    let (mut left, came) = (told("leave"), told("join"));
    assert!(left.iter().all(|client| gone.contains(client)));
    left.push(phone.client);
    left.sort();
    assert_eq!(left, came, "who was told of has left once, and the last is there");
}

#[tokio::test]
async fn a_flood_of_joins_and_leaves_ends_as_it_should_and_disturbs_nobody() {
    let nats = NatsServer::start().await;
    let one = builder(&[nats.url()]).start().await;
    let two = builder(&[nats.url()]).start().await;
    let mut ann = Raw::member(one.addr, "ann").await;
    let mut flood = Raw::connect(two.addr, "flood").await;
    for _ in 0..300 {
        let joined = flood.subscribe("here:a").await;
        assert!(joined["error"].is_null(), "{joined}");
        let left = flood
            .command(json!({ "unsubscribe": { "channel": "here:a" } }))
            .await;
        assert!(left["error"].is_null(), "{left}");
    }
    ann.sees("here:a", (1, 1)).await;
    let _bob = Raw::member(two.addr, "bob").await;
    count(&[&one, &two], "here:a", (2, 2)).await;
    // What came and went between two messages of its node nobody need hear of; what was told goes in pairs.
    let told = |kind: &str| {
        let heard = ann.heard.iter();
        let users = heard.filter(|heard| heard["push"][kind]["info"]["user"] == "flood");
        users.count()
    };
    assert_eq!(told("join"), told("leave"));
    assert!(two.metric("slipstream_presence_bytes_total") < 1_000_000.0);
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
