//! Readers that are slow, stop, or are far behind; subscriptions that come and go.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::interval};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    checker::check_to_end,
    client::Client,
    edge::Edge,
    nats::{NatsServer, SHARDS, WITH_SYSTEM_ACCOUNT},
    proxy::{Proxy, Weather},
    publisher::Publisher,
    until, within,
};

const FEED: &str = "public:feed";

async fn subscriber(addr: std::net::SocketAddr) -> Client {
    let client = Client::connect(addr).await;
    client.subscribe(FEED).await;
    client
}

/// With the intervals and the kernel's buffers that a node has by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reader_at_20_kb_a_second_for_2_minutes_is_kept_and_nobody_else_notices() {
    const SECONDS: usize = 120;
    const A_SECOND: usize = 100;
    const SIZE: usize = 4_000;
    const MAILBOX: f64 = (128 << 10) as f64;
    const PAGE: f64 = (256 << 10) as f64;
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("edge.send_buffer", "0B")
        .set("edge.notsent_lowat", "128KiB")
        .spawn()
        .await;
    let narrow = Proxy::start(edge.addr).await;
    narrow.set(Weather::Slow(20_000));
    let slow = subscriber(narrow.addr()).await;
    let fast = [subscriber(edge.addr).await, subscriber(edge.addr).await];
    let publisher = Publisher::start(edge.addr);
    publisher.many_of(FEED, A_SECOND, SIZE).await;
    let before = edge.resident();
    let mut most_queued: f64 = 0.0;

    let mut ticks = interval(Duration::from_secs(1));
    for _ in 0..SECONDS {
        ticks.tick().await;
        let last = publisher.many_of(FEED, A_SECOND, SIZE).await;
        // They have everything at once, each second, though another has it much later.
        for client in &fast {
            client.wait_for(FEED, last.offset).await;
        }
        most_queued = most_queued.max(edge.metric("slipstream_mailbox_bytes").await);
    }
    let grown = edge.resident().saturating_sub(before);
    let behind = publisher.published().of(FEED).len() - slow.channel(FEED).offsets().len();
    assert!(behind * SIZE > 40_000_000, "it is far behind: {}", slow.summary());
    assert!(most_queued > 0.0, "it has waited for room");
    assert!(most_queued <= MAILBOX + PAGE, "{most_queued} bytes were queued");
    assert!(
        grown < 16 << 20,
        "{grown} bytes more for the 45 MB that one reader has not taken"
    );
    let pings = slow.record().pings;
    assert!(pings >= 3, "pings go ahead of what is queued: {pings}");

    narrow.set(Weather::Clear);
    for client in fast.iter().chain([&slow]) {
        check_to_end(client, FEED, publisher.published()).await;
        let summary = client.summary();
        assert_eq!(client.record().connects, 1, "nobody is closed: {summary}");
        assert_eq!(client.channel(FEED).subscribes(), 1, "{summary}");
    }
}

/// A pong comes when the client has worked through what the kernel had taken before the ping: here
/// after ten seconds, and for five of them at a time the socket takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_whose_pong_is_late_behind_the_buffer_of_the_kernel_is_alive() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("edge.send_buffer", "0B")
        .set("edge.notsent_lowat", "256KiB")
        .set("edge.ping_interval", "5s")
        .set("edge.pong_timeout", "3500ms")
        .set("edge.write_timeout", "6s")
        .start()
        .await;
    let narrow = Proxy::start(edge.addr).await;
    narrow.set(Weather::Slow(25_000));
    let slow = subscriber(narrow.addr()).await;
    let publisher = Publisher::start(edge.addr);
    publisher.many_of(FEED, 200, 4_000).await;
    slow.wait("pinged, or closed", |record| {
        (record.pings > 0 || !record.connected).then_some(())
    })
    .await;
    narrow.set(Weather::Clear);
    check_to_end(&slow, FEED, publisher.published()).await;
    assert_eq!(slow.record().closes, [0_u16; 0]);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_is_closed_and_comes_back_whole() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("edge.write_timeout", "1s")
        .start()
        .await;
    let link = Proxy::start(edge.addr).await;
    let stuck = subscriber(link.addr()).await;
    let others = [subscriber(edge.addr).await, subscriber(edge.addr).await];
    let publisher = Publisher::start(edge.addr);
    publisher.one(FEED).await;
    link.set(Weather::BlackHole);
    let load = publisher.steadily(&[FEED], Duration::from_millis(2));
    // Enough to fill what the kernel takes.
    publisher.many_of(FEED, 1_500, 8_000).await;
    until("it is closed", || async {
        (edge.metric("slipstream_connections_closed_total{app=\"dev\",code=\"3009\"}") >= 1.0).then_some(())
    })
    .await;
    for client in &others {
        assert_eq!(client.record().connects, 1);
    }
    link.set(Weather::Clear);
    load.stop().await;
    publisher.one(FEED).await;
    for client in others.iter().chain([&stuck]) {
        check_to_end(client, FEED, publisher.published()).await;
        assert!(
            client
                .channel(FEED)
                .recoveries()
                .iter()
                .all(|recovered| *recovered)
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_a_catch_up_is_larger_than_the_buffers_of_the_nats_connections() {
    let nats = NatsServer::start().await;
    let small = |nats: &NatsServer| {
        Edge::builder()
            .nats(&[nats.url()])
            .set("nats.subscription_capacity", "16")
            .set("nats.command_capacity", "16")
            .set("catchup.page_messages", "64")
            .set("catchup.page_bytes", "64KiB")
            .set("catchup.in_flight_bytes", "128KiB")
    };
    let edge = small(&nats).start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(subscriber(edge.addr).await);
    }
    let publisher = Publisher::start(edge.addr);
    let first = publisher.one(FEED).await;
    for client in &clients {
        client.wait_for(FEED, first.offset).await;
        client.go_offline().await;
    }
    edge.stop().await;
    let edge = small(&nats).start().await;
    publisher.move_to(edge.addr);
    publisher.many_of(FEED, 5_000, 2_000).await;
    // Live copies overflow as well while the clients catch up.
    let load = publisher.steadily(&[FEED], Duration::from_millis(1));
    for client in &clients {
        client.reconnect_to(edge.addr).await;
    }
    let last = publisher.one(FEED).await;
    for client in &clients {
        client.wait_for(FEED, last.offset).await;
    }
    load.stop().await;
    for client in &clients {
        check_to_end(client, FEED, publisher.published()).await;
        assert_eq!(client.channel(FEED).recoveries(), [true]);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_retention_by_age_passes_a_slow_cursor_between_two_pages() {
    passed_between_two_pages(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_retention_by_bytes_passes_a_slow_cursor_between_two_pages() {
    passed_between_two_pages(false).await;
}

/// `by_age`: what is stored grows too old; otherwise it has to make room.
async fn passed_between_two_pages(by_age: bool) {
    let nats = NatsServer::start().await;
    let edge = || {
        let edge = Edge::builder().nats(&[nats.url()]);
        if by_age {
            edge.set("log.classes.0.max_age", "15s")
                .set("log.classes.0.duplicate_window", "15s")
        } else {
            edge
        }
    };
    let old = edge().start().await;
    let client = subscriber(old.addr).await;
    let publisher = Publisher::start(old.addr);
    let first = publisher.one(FEED).await;
    client.wait_for(FEED, first.offset).await;
    client.go_offline().await;
    publisher.many_of(FEED, 2_000, 2_000).await;
    // No ring reaches back to it.
    old.stop().await;
    let edge = edge().start().await;
    publisher.move_to(edge.addr);

    let narrow = Proxy::start(edge.addr).await;
    narrow.set(Weather::Slow(100_000));
    client.reconnect_to(narrow.addr()).await;
    client
        .wait("pages come", |record| {
            (record.channels[FEED].offsets().len() > 100).then_some(())
        })
        .await;
    for stream in SHARDS {
        if by_age {
            nats.outlive(stream).await;
        } else {
            nats.trim(stream, 1).await;
        }
    }
    narrow.set(Weather::Clear);
    client
        .wait("told that it missed something", |record| {
            let recoveries = record.channels[FEED].recoveries();
            (recoveries == [true, false]).then_some(())
        })
        .await;
    let seen = client.channel(FEED).offsets().len();
    assert!(seen < 1_900, "it was behind: {seen}");
    publisher.one(FEED).await;
    check_to_end(&client, FEED, publisher.published()).await;
    assert!(client.record().closes.is_empty(), "only the subscription is told");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_subscribes_and_unsubscribes_a_second_leave_nothing() {
    const SOCKETS: usize = 4;
    const ROUNDS: usize = 100;
    const AT_ONCE: usize = 50;
    let nats = NatsServer::start_with(WITH_SYSTEM_ACCOUNT).await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("channel.linger", "500ms")
        .start()
        .await;
    let witness = subscriber(edge.addr).await;
    let publisher = Publisher::start(edge.addr);
    publisher.one(FEED).await;
    let subscriptions = nats.subscriptions().await;
    let load = publisher.steadily(&[FEED], Duration::from_millis(5));

    let churn = (0..SOCKETS).map(|socket| churn(edge.addr, socket, ROUNDS, AT_ONCE));
    within(futures_util::future::join_all(churn)).await;
    load.stop().await;
    check_to_end(&witness, FEED, publisher.published()).await;
    assert_eq!(witness.record().connects, 1);
    until("the tails are gone", || async {
        (edge.tails() == 1).then_some(())
    })
    .await;
    assert_eq!(edge.metric("slipstream_subscriptions{app=\"dev\"}"), 1.0);
    assert_eq!(
        edge.metric("slipstream_ring_bytes"),
        edge.metric("slipstream_ring_bytes{app=\"dev\"}")
    );
    until("the subscriptions at NATS are gone", || async {
        (nats.subscriptions().await <= subscriptions).then_some(())
    })
    .await;
    edge.stop().await;
}

/// Every 100 ms subscribes to channels of its own, and leaves those of before.
async fn churn(addr: std::net::SocketAddr, socket: usize, rounds: usize, at_once: usize) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut socket_of, _) = client_async(format!("ws://{addr}/connection/websocket"), stream)
        .await
        .unwrap();
    socket_of
        .send(Message::text(r#"{"id":1,"connect":{}}"#))
        .await
        .unwrap();
    let mut id = 1;
    let mut waiting = 1;
    let mut ticks = interval(Duration::from_millis(100));
    let channels = |round: usize| (0..at_once).map(move |n| format!("public:churn-{socket}-{round}-{n}"));
    for round in 0..=rounds {
        ticks.tick().await;
        let leave = round.checked_sub(1).into_iter().flat_map(channels);
        let join = (round < rounds).then_some(round).into_iter().flat_map(channels);
        let commands = leave
            .map(|channel| json!({"unsubscribe": {"channel": channel}}))
            .chain(join.map(|channel| json!({"subscribe": {"channel": channel}})));
        let lines: Vec<_> = commands
            .map(|mut command| {
                id += 1;
                command["id"] = id.into();
                command.to_string()
            })
            .collect();
        waiting += lines.len();
        socket_of.send(Message::text(lines.join("\n"))).await.unwrap();
        while waiting > 0 {
            let Some(Ok(Message::Text(frame))) = socket_of.next().await else {
                panic!("the connection ended in round {round}");
            };
            for line in frame.split('\n').filter(|line| !line.is_empty()) {
                if line == "{}" {
                    // On a busy machine it takes long enough for a ping.
                    socket_of.send(Message::text("{}")).await.unwrap();
                    continue;
                }
                let reply: Value = serde_json::from_str(line).unwrap();
                assert!(reply.get("error").is_none(), "{reply}");
                waiting -= usize::from(reply.get("id").is_some());
            }
        }
    }
}
