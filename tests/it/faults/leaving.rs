//! Nodes, clients and connections that go, on purpose or for a moment, and come back.

use std::time::Duration;

use crate::support::{
    checker::{check, check_to_end},
    client::Client,
    edge::Edge,
    nats::NatsServer,
    proxy::Proxy,
    publisher::Publisher,
};

const BUSY: &str = "public:busy";
const EVERY: Duration = Duration::from_millis(2);

/// Waits until the client has seen so many publications of [`BUSY`].
async fn has_seen(client: &Client, count: usize) {
    client
        .wait(format!("{count} publications"), |record| {
            (record.channels.get(BUSY)?.offsets().len() >= count).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_drains_under_load_and_its_clients_resume_on_another() {
    let nats = NatsServer::start().await;
    let leaving = Edge::builder()
        .nats(&[nats.url()])
        .set("telemetry.filter", "info");
    let mut leaving = leaving.spawn().await;
    let staying = Edge::start(&[nats.url()]).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let client = Client::connect(leaving.addr).await;
        client.subscribe(BUSY).await;
        client.follow_to(staying.addr);
        clients.push(client);
    }
    let publisher = Publisher::start(staying.addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    has_seen(&clients[0], 50).await;

    assert_eq!(leaving.terminate().await, Some(0), "{}", leaving.output());
    assert!(leaving.output().contains("drained"), "{}", leaving.output());
    for client in &clients {
        client
            .wait("resumed", |record| {
                (record.channels[BUSY].recoveries().len() == 1).then_some(())
            })
            .await;
    }
    load.stop().await;
    publisher.one(BUSY).await;
    for client in &clients {
        check_to_end(client, BUSY, publisher.published()).await;
        assert_eq!(client.record().closes, [3001]);
        assert_eq!(client.channel(BUSY).recoveries(), [true]);
    }
    staying.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_left_is_silent_and_comes_back_whole() {
    const LEFT: &str = "public:left";
    let nats = NatsServer::start().await;
    let edge = Edge::start(&[nats.url()]).await;
    let client = Client::connect(edge.addr).await;
    client.subscribe(LEFT).await;
    let publisher = Publisher::start(edge.addr);
    let first = publisher.one(LEFT).await;
    client.wait_for(LEFT, first.offset).await;

    client.unsubscribe(LEFT).await;
    let last = publisher.many(LEFT, 3).await;
    assert_eq!(client.channel(LEFT).offsets(), [first.offset]);
    client.begin_subscribe(LEFT, Some(client.position(LEFT)));
    client.wait_for(LEFT, last.offset).await;
    check(&client, LEFT, publisher.published());
    assert_eq!(client.channel(LEFT).recoveries(), [true]);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_nats_are_cut_again_and_again() {
    let nats = NatsServer::start().await;
    let link = Proxy::nats(&nats.url()).await;
    let (good, bad) = (Edge::start(&[nats.url()]).await, Edge::start(&link.urls()).await);
    let client = Client::connect(bad.addr).await;
    client.subscribe(BUSY).await;
    let publisher = Publisher::start(good.addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    for _ in 0..5 {
        let seen = client.channel(BUSY).offsets().len();
        has_seen(&client, seen + 50).await;
        link.cut().await;
    }
    load.stop().await;
    publisher.one(BUSY).await;
    check_to_end(&client, BUSY, publisher.published()).await;
    assert_eq!(
        client.channel(BUSY).subscribes(),
        1,
        "the client has noticed nothing"
    );
    good.stop().await;
    bad.stop().await;
}
