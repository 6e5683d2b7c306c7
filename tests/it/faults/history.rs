//! What is stored goes away, goes back, or ages.

use std::{path::Path, time::Duration};

use crate::support::{
    checker::{check, check_to_end},
    client::{Client, Seen},
    edge::{Builder, Edge},
    http,
    nats::{NatsServer, SHARDS},
    proxy::{Proxy, Weather},
    publisher::Publisher,
    until,
};

const NEWS: &str = "public:news";

/// Streams that keep their messages for two seconds.
fn short_lived(nats: &NatsServer) -> Builder {
    Edge::builder()
        .nats(&[nats.url()])
        .set("log.classes.0.max_age", "2s")
        .set("log.classes.0.duplicate_window", "2s")
        .set("log.classes.0.shards", "1")
        .set("log.clock_margin", "50ms")
        .set("drain.linger", "1s")
        .set("channel.check_interval", "250ms")
}

/// A client that has subscribed to a channel.
async fn subscriber(edge: &Edge, channel: &str) -> Client {
    let client = Client::connect(edge.addr).await;
    client.subscribe(channel).await;
    client
}

/// Waits until the client's recovery is answered so often, and says how the last one was.
async fn recovered(client: &Client, channel: &str, times: usize) -> bool {
    let channel = channel.to_owned();
    client
        .wait("the recovery is answered", move |record| {
            let recoveries = record.channels.get(&channel)?.recoveries();
            (recoveries.len() >= times).then(|| recoveries[times - 1])
        })
        .await
}

/// Waits until the client has been told that it may have missed something.
async fn told(client: &Client, channel: &str) {
    let channel = channel.to_owned();
    client
        .wait("told that it may have missed something", move |record| {
            record
                .channels
                .get(&channel)?
                .recoveries()
                .contains(&false)
                .then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_streams_are_created_anew_under_live_subscriptions() {
    let nats = NatsServer::start().await;
    let (one, two) = (Edge::start(&[nats.url()]).await, Edge::start(&[nats.url()]).await);
    let clients = [subscriber(&one, NEWS).await, subscriber(&two, NEWS).await];
    let away = subscriber(&two, NEWS).await;
    let publisher = Publisher::start(one.addr);
    let before = publisher.many(NEWS, 50).await;
    away.wait_for(NEWS, before.offset).await;
    away.go_offline().await;
    let load = publisher.steadily(&[NEWS], Duration::from_millis(5));

    for stream in SHARDS {
        nats.recreate(stream).await;
    }
    for client in &clients {
        told(client, NEWS).await;
    }
    load.stop().await;
    let after = publisher.one(NEWS).await;
    assert_ne!(after.epoch, before.epoch, "another epoch");
    away.reconnect_to(one.addr).await;
    assert!(!recovered(&away, NEWS, 1).await);
    publisher.one(NEWS).await;
    for client in clients.iter().chain([&away]) {
        check_to_end(client, NEWS, publisher.published()).await;
        assert_eq!(client.position(NEWS).1, after.epoch);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_the_store_is_restored_from_an_older_copy_under_edges_that_know_better() {
    let mut nats = NatsServer::start().await;
    let copy = tempfile::tempdir().unwrap();
    let (one, two) = (Edge::start(&[nats.url()]).await, Edge::start(&[nats.url()]).await);
    let clients = [subscriber(&one, NEWS).await, subscriber(&two, NEWS).await];
    let publisher = Publisher::start(one.addr);
    let kept = publisher.many(NEWS, 20).await;
    nats.stop().await;
    copy_folder(&nats.store_dir(), copy.path());
    nats.restart().await;
    let lost = publisher.many(NEWS, 30).await;
    assert_eq!(
        kept.epoch, lost.epoch,
        "an outage alone is no reason for another epoch"
    );
    for client in &clients {
        client.wait_for(NEWS, lost.offset).await;
    }

    nats.stop().await;
    std::fs::remove_dir_all(nats.store_dir()).unwrap();
    copy_folder(copy.path(), &nats.store_dir());
    nats.restart().await;
    for client in &clients {
        told(client, NEWS).await;
    }
    let after = publisher.one(NEWS).await;
    assert_ne!(after.epoch, lost.epoch, "the sequence went back: another epoch");
    for client in &clients {
        check_to_end(client, NEWS, publisher.published()).await;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_the_streams_are_restored_without_the_registry_and_the_edges_are_new() {
    restored_without_the_registry(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_the_streams_are_restored_and_have_grown_past_the_mark_before_an_edge_looks() {
    restored_without_the_registry(true).await;
}

async fn restored_without_the_registry(grown: bool) {
    let mut nats = NatsServer::start().await;
    let copy = tempfile::tempdir().unwrap();
    let edge = Edge::start(&[nats.url()]).await;
    let client = subscriber(&edge, NEWS).await;
    let publisher = Publisher::start(edge.addr);
    publisher.many(NEWS, 20).await;
    nats.stop().await;
    copy_folder(&nats.store_dir(), copy.path());
    nats.restart().await;
    let lost = publisher.many(NEWS, 30).await;
    client.wait_for(NEWS, lost.offset).await;
    client.go_offline().await;
    // The drain writes the mark.
    edge.stop().await;

    nats.stop().await;
    for stream in SHARDS {
        let path = Path::new("jetstream/$G/streams").join(stream);
        std::fs::remove_dir_all(nats.store_dir().join(&path)).unwrap();
        copy_folder(&copy.path().join(&path), &nats.store_dir().join(&path));
    }
    nats.restart().await;
    if grown {
        for shard in 0..SHARDS.len() {
            nats.store(&format!("h-slipstream.std.{shard}.dev.public.other"), 60)
                .await;
        }
    }
    let edge = Edge::start(&[nats.url()]).await;
    publisher.move_to(edge.addr);
    publisher.many(NEWS, 40).await;
    client.reconnect_to(edge.addr).await;
    assert!(!recovered(&client, NEWS, 1).await);
    publisher.one(NEWS).await;
    check_to_end(&client, NEWS, publisher.published()).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l15_history_is_removed_and_rings_forget_it() {
    let nats = NatsServer::start().await;
    let (one, two) = (Edge::start(&[nats.url()]).await, Edge::start(&[nats.url()]).await);
    let live = [subscriber(&one, NEWS).await, subscriber(&two, NEWS).await];
    let [early, late] = [subscriber(&one, NEWS).await, subscriber(&one, NEWS).await];
    let publisher = Publisher::start(one.addr);
    let first = publisher.many(NEWS, 10).await;
    early.wait_for(NEWS, first.offset).await;
    early.go_offline().await;
    let second = publisher.many(NEWS, 10).await;
    for client in live.iter().chain([&late]) {
        client.wait_for(NEWS, second.offset).await;
    }

    http::remove_history(one.addr, NEWS).await;
    let third = publisher.many(NEWS, 2).await;
    late.wait_for(NEWS, third.offset).await;
    late.go_offline().await;
    let fourth = publisher.many(NEWS, 3).await;
    for client in &live {
        client.wait_for(NEWS, fourth.offset).await;
    }
    for edge in [&one, &two] {
        early.begin_subscribe("public:none", None);
        early.reconnect_to(edge.addr).await;
        assert!(!recovered(&early, NEWS, 1).await, "what it missed is gone");
    }
    late.reconnect_to(two.addr).await;
    assert!(
        recovered(&late, NEWS, 1).await,
        "it has missed nothing of what is gone"
    );
    assert_eq!(third.epoch, first.epoch, "the epoch stays");
    let reply = live[1]
        .command(serde_json::json!({"history": {"channel": NEWS, "limit": 100}}))
        .await;
    let kept = reply["history"]["publications"].as_array().unwrap().len();
    assert_eq!(kept, 5, "{reply}");
    publisher.one(NEWS).await;
    for client in live.iter().chain([&early, &late]) {
        check_to_end(client, NEWS, publisher.published()).await;
    }
    for client in &live {
        assert_eq!(
            client.channel(NEWS).subscribes(),
            1,
            "a live subscription goes on"
        );
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l6_retention_passes_the_offset_of_a_client() {
    let nats = NatsServer::start().await;
    let edge = short_lived(&nats).start().await;
    let client = subscriber(&edge, NEWS).await;
    let publisher = Publisher::start(edge.addr);
    let seen = publisher.one(NEWS).await;
    client.wait_for(NEWS, seen.offset).await;
    client.go_offline().await;
    // No tail is left that could vouch.
    edge.stop().await;
    let edge = short_lived(&nats).start().await;
    publisher.move_to(edge.addr);
    publisher.one(NEWS).await;
    nats.outlive("slipstream_std_0").await;

    client.reconnect_to(edge.addr).await;
    assert!(
        !recovered(&client, NEWS, 1).await,
        "one has expired that it had not seen"
    );
    publisher.one(NEWS).await;
    check_to_end(&client, NEWS, publisher.published()).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_retention_takes_nothing_from_a_client_that_has_seen_it() {
    let nats = NatsServer::start().await;
    let edge = short_lived(&nats).start().await;
    let client = subscriber(&edge, NEWS).await;
    let publisher = Publisher::start(edge.addr);
    let seen = publisher.one(NEWS).await;
    client.wait_for(NEWS, seen.offset).await;
    // Others publish; the client's own channel is quiet, and what it has seen expires.
    publisher.one("public:other").await;
    nats.outlive("slipstream_std_0").await;
    client.go_offline().await;
    client.reconnect_to(edge.addr).await;
    assert!(recovered(&client, NEWS, 1).await, "the tail vouches for it");
    publisher.one(NEWS).await;
    check_to_end(&client, NEWS, publisher.published()).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_a_channel_that_keeps_few_loses_what_a_client_has_not_seen() {
    const FEW: &str = "few:news";
    let nats = NatsServer::start().await;
    // More than the channel keeps: 3.
    for (missed, expected) in [(2, true), (3, false), (7, false)] {
        let edge = Edge::start(&[nats.url()]).await;
        let client = subscriber(&edge, FEW).await;
        let publisher = Publisher::start(edge.addr);
        let seen = publisher.many(FEW, 4).await;
        client.wait_for(FEW, seen.offset).await;
        client.go_offline().await;
        edge.stop().await;
        let edge = Edge::start(&[nats.url()]).await;
        publisher.move_to(edge.addr);
        publisher.many(FEW, missed).await;
        client.reconnect_to(edge.addr).await;
        assert_eq!(recovered(&client, FEW, 1).await, expected, "{missed} missed");
        publisher.one(FEW).await;
        check_to_end(&client, FEW, publisher.published()).await;
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_a_per_subject_limit_is_hit_before_a_sweep() {
    const KEPT: usize = 200;
    let nats = NatsServer::start().await;
    // Reads wait for each other, so that a sweep is worth it.
    let narrow = Edge::builder()
        .nats(&[nats.url()])
        .set("log.classes.1.max_per_channel", &KEPT.to_string())
        .set("catchup.page_bytes", "4KiB")
        .set("catchup.in_flight_bytes", "4KiB")
        .set("catchup.sweep_from", "4");
    let edge = narrow.clone().start().await;
    let [early, late] = [Client::connect(edge.addr).await, Client::connect(edge.addr).await];
    let publisher = Publisher::start(edge.addr);
    let trimmed = [("few:under", KEPT - 1), ("few:at", KEPT), ("few:over", KEPT + 50)];
    let swept: Vec<_> = (0..60).map(|n| format!("few:{n}")).collect();
    for (channel, _) in trimmed {
        early.subscribe(channel).await;
        let seen = publisher.one(channel).await;
        early.wait_for(channel, seen.offset).await;
    }
    early.go_offline().await;
    for (channel, missed) in trimmed {
        publisher.many(channel, missed).await;
    }
    for channel in &swept {
        late.subscribe(channel).await;
        let seen = publisher.one(channel).await;
        late.wait_for(channel, seen.offset).await;
    }
    late.go_offline().await;
    edge.stop().await;
    let edge = narrow.start().await;
    publisher.move_to(edge.addr);
    for channel in &swept {
        publisher.many(channel, 2).await;
    }

    early.move_to(edge.addr);
    late.move_to(edge.addr);
    for channel in &swept {
        assert!(recovered(&late, channel, 1).await, "{channel}");
    }
    for (channel, missed) in trimmed {
        assert_eq!(recovered(&early, channel, 1).await, missed < KEPT, "{channel}");
    }
    for (channel, _) in trimmed {
        publisher.one(channel).await;
        check_to_end(&early, channel, publisher.published()).await;
    }
    for channel in &swept {
        check_to_end(&late, channel, publisher.published()).await;
    }
    let swept = edge.metric("slipstream_catchup_publications_total{source=\"sweep\"}");
    assert!(swept > 0.0, "there was no sweep");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_a_per_subject_limit_is_hit_during_a_sweep() {
    /// More than the whole shard has when the sweep begins: it would prove everything.
    const KEPT: usize = 600;
    const SWEPT: usize = 40;
    const MISSED: usize = 8;
    const SIZE: usize = 3_000;
    const OVER: &str = "few:over";
    const UNDER: &str = "few:under";
    let nats = NatsServer::start().await;
    let road = Proxy::nats(&nats.url()).await;
    let on = |urls: &[String]| {
        Edge::builder()
            .nats(urls)
            .set("log.classes.1.max_per_channel", &KEPT.to_string())
            .set("channel.subscribe_timeout", "4s")
            .set("catchup.page_bytes", "4KiB")
            .set("catchup.in_flight_bytes", "4KiB")
            .set("catchup.sweep_from", "4")
    };
    let near = on(&[nats.url()]).start().await;
    let publisher = Publisher::start(near.addr);
    let many: Vec<_> = (0..SWEPT).map(|n| format!("few:{n}")).collect();
    // What the second has missed is stored behind what the first has: the sweep comes to it last.
    let crowd = subscriber_of(&near, &publisher, many.iter().map(String::as_str)).await;
    let pair = subscriber_of(&near, &publisher, [OVER, UNDER]).await;
    for channel in many.iter().map(String::as_str).chain([OVER, UNDER]) {
        publisher.many_of(channel, MISSED, SIZE).await;
    }

    // A page at a time, and each takes a while.
    let far = on(&road.urls()).start().await;
    road.set(Weather::Late(Duration::from_millis(20)));
    let fed = async |at_least: usize| {
        until("a sweep feeds the first ones", || async {
            let fed = far.metric("slipstream_catchup_publications_total{source=\"sweep\"}");
            (fed >= at_least as f64).then_some(())
        })
        .await;
    };
    crowd.move_to(far.addr);
    fed(1).await;
    pair.move_to(far.addr);
    // It goes on long enough for the two to get on board.
    fed(10 * MISSED).await;
    road.set(Weather::BlackHole);
    publisher.many(OVER, KEPT).await;
    publisher.many(UNDER, KEPT - MISSED - 1).await;
    for channel in [OVER, UNDER] {
        let answered = pair.channel(channel).recoveries();
        assert_eq!(answered, [false; 0], "the sweep has come to {channel} already");
    }
    road.set(Weather::Clear);

    assert!(!recovered(&pair, OVER, 1).await, "some have gone unseen");
    assert!(recovered(&pair, UNDER, 1).await, "all are there");
    for channel in &many {
        assert!(recovered(&crowd, channel, 1).await, "{channel}");
        publisher.one(channel).await;
        check_to_end(&crowd, channel, publisher.published()).await;
    }
    for channel in [OVER, UNDER] {
        publisher.one(channel).await;
        check_to_end(&pair, channel, publisher.published()).await;
    }
    near.stop().await;
    far.stop().await;
}

/// A client that has seen one publication of each of these channels, and has gone.
async fn subscriber_of(
    edge: &Edge,
    publisher: &Publisher,
    channels: impl IntoIterator<Item = &str>,
) -> Client {
    let client = Client::connect(edge.addr).await;
    for channel in channels {
        client.subscribe(channel).await;
        let seen = publisher.one(channel).await;
        client.wait_for(channel, seen.offset).await;
    }
    client.go_offline().await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l9_the_first_subscriber_of_an_empty_channel_drops_and_misses_one() {
    let nats = NatsServer::start().await;
    let (one, two) = (Edge::start(&[nats.url()]).await, Edge::start(&[nats.url()]).await);
    let publisher = Publisher::start(one.addr);
    // Traffic elsewhere, so that the shards are not empty.
    publisher.many("public:a", 5).await;
    publisher.many("public:b", 5).await;
    let client = subscriber(&one, NEWS).await;
    client.go_offline().await;
    publisher.one(NEWS).await;
    client.reconnect_to(two.addr).await;
    assert!(recovered(&client, NEWS, 1).await);
    check_to_end(&client, NEWS, publisher.published()).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_a_quiet_channel_older_than_max_age_survives_a_rolling_restart() {
    let nats = NatsServer::start().await;
    let mut edge = short_lived(&nats).start().await;
    let client = subscriber(&edge, NEWS).await;
    let publisher = Publisher::start(edge.addr);
    let seen = publisher.one(NEWS).await;
    client.wait_for(NEWS, seen.offset).await;
    for round in 1..=3 {
        publisher.one("public:other").await;
        nats.outlive("slipstream_std_0").await;
        let next = short_lived(&nats).start().await;
        client.follow_to(next.addr);
        publisher.move_to(next.addr);
        // The client comes back when the old node has nobody left; it must not have gone by then.
        let ((), recovered) = tokio::join!(edge.stop(), recovered(&client, NEWS, round));
        assert!(recovered, "restart {round}");
        edge = next;
    }
    let last = publisher.one(NEWS).await;
    client.wait_for(NEWS, last.offset).await;
    check(&client, NEWS, publisher.published());
    let missed = client.channel(NEWS).seen;
    assert!(!missed.contains(&Seen::Unsubscribed(2500)));
    edge.stop().await;
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
