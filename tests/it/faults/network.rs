//! Processes that die and links that fail, while everybody works.

use std::time::Duration;

use crate::support::{
    checker::{check, check_to_end},
    client::Client,
    edge::Edge,
    nats::NatsServer,
    proxy::{Proxy, Weather},
    publisher::Publisher,
    until, within,
};

const BUSY: &str = "public:busy";
const EVERY: Duration = Duration::from_millis(2);

/// Several clients of one edge on [`BUSY`].
async fn audience(edge: std::net::SocketAddr, size: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..size {
        let client = Client::connect(edge).await;
        client.subscribe(BUSY).await;
        clients.push(client);
    }
    clients
}

/// Waits until the client has seen so many publications of [`BUSY`].
async fn has_seen(client: &Client, count: usize) {
    client
        .wait(format!("{count} publications"), |record| {
            (record.channels.get(BUSY)?.seen.len() > count).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_is_killed_under_load_and_clients_resume_on_one_that_is_behind_them() {
    let nats = NatsServer::start().await;
    let slow_road = Proxy::nats(&nats.url()).await;
    let mut near = Edge::builder().nats(&[nats.url()]).spawn().await;
    let far = Edge::start(&slow_road.urls()).await;
    let clients = audience(near.addr, 8).await;
    let witness = audience(far.addr, 1).await.remove(0);
    let publisher = Publisher::start(near.addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    slow_road.set(Weather::Late(Duration::from_millis(100)));
    has_seen(&clients[0], 300).await;

    assert_eq!(near.output(), "", "nothing to warn of");
    near.kill();
    for client in &clients {
        client.move_to(far.addr);
    }
    publisher.move_to(far.addr);
    for client in &clients {
        client
            .wait("resumed", |record| {
                (record.channels[BUSY].recoveries().len() == 1).then_some(())
            })
            .await;
    }
    has_seen(&witness, 500).await;
    slow_road.set(Weather::Clear);
    load.stop().await;
    publisher.one(BUSY).await;
    for client in clients.iter().chain([&witness]) {
        check_to_end(client, BUSY, publisher.published()).await;
        assert!(
            client
                .channel(BUSY)
                .recoveries()
                .iter()
                .all(|recovered| *recovered)
        );
    }
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l11_a_retry_that_is_a_duplicate_tells_tails_of_the_lost_copy() {
    const QUIET: &str = "public:quiet";
    let nats = NatsServer::start().await;
    let roads = [Proxy::nats(&nats.url()).await, Proxy::nats(&nats.url()).await];
    // Not the checks: the retry itself must tell.
    let edge = |road: &Proxy| {
        Edge::builder()
            .nats(&road.urls())
            .set("channel.check_interval", "90s")
    };
    let (one, two) = (edge(&roads[0]).start().await, edge(&roads[1]).start().await);
    let mut clients = Vec::new();
    for edge in [&one, &two] {
        let client = Client::connect(edge.addr).await;
        client.subscribe(QUIET).await;
        clients.push(client);
    }
    let publisher = Publisher::start(one.addr);
    let first = publisher.one(QUIET).await;
    for client in &clients {
        client.wait_for(QUIET, first.offset).await;
    }
    until("the first checks are over", || async {
        let checked = |edge: &Edge| edge.metric("slipstream_checks_total") >= 1.0;
        (checked(&one) && checked(&two)).then_some(())
    })
    .await;
    roads[0].losses().all(true);
    roads[1].losses().copies(true);
    let acked = publisher.begin(QUIET, 0);
    until("the copy is lost", || async {
        (roads[1].lost() == 1).then_some(())
    })
    .await;
    roads[0].losses().all(false);
    roads[1].losses().copies(false);
    publisher.move_to(two.addr);
    assert!(within(acked).await.unwrap().duplicate);
    for client in &clients {
        check_to_end(client, QUIET, publisher.published()).await;
        assert_eq!(client.channel(QUIET).subscribes(), 1);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_is_drained_under_load_and_nobody_misses_anything() {
    let nats = NatsServer::start().await;
    let old = Edge::builder().nats(&[nats.url()]).spawn().await;
    let new = Edge::start(&[nats.url()]).await;
    let clients = audience(old.addr, 8).await;
    let publisher = Publisher::start(old.addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    has_seen(&clients[0], 100).await;
    for client in &clients {
        client.follow_to(new.addr);
    }
    publisher.move_to(new.addr);
    assert_eq!(old.terminate().await, Some(0));
    load.stop().await;
    publisher.one(BUSY).await;
    for client in &clients {
        check_to_end(client, BUSY, publisher.published()).await;
        assert_eq!(client.record().closes, [3001], "{}", client.summary());
        assert_eq!(client.channel(BUSY).recoveries(), [true]);
    }
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_lose_their_connection_again_and_again_see_everything_once() {
    let nats = NatsServer::start().await;
    let edges = [Edge::start(&[nats.url()]).await, Edge::start(&[nats.url()]).await];
    let links = [
        Proxy::start(edges[0].addr).await,
        Proxy::start(edges[1].addr).await,
    ];
    let clients = audience(links[0].addr(), 4).await;
    let publisher = Publisher::start(edges[0].addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    for round in 1..=10 {
        for client in &clients {
            client.follow_to(links[round % 2].addr());
        }
        links[(round + 1) % 2].cut().await;
        for client in &clients {
            client
                .wait("resumed", |record| {
                    (record.channels[BUSY].recoveries().len() == round).then_some(())
                })
                .await;
        }
        has_seen(&clients[0], round * 20).await;
    }
    load.stop().await;
    publisher.one(BUSY).await;
    for client in &clients {
        check_to_end(client, BUSY, publisher.published()).await;
        assert_eq!(client.channel(BUSY).recoveries(), [true; 10]);
    }
    let [one, two] = edges;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_server_is_stopped_for_five_seconds() {
    let mut nats = NatsServer::start().await;
    let (one, two) = (Edge::start(&[nats.url()]).await, Edge::start(&[nats.url()]).await);
    let mut clients = audience(one.addr, 3).await;
    clients.extend(audience(two.addr, 3).await);
    let publisher = Publisher::start(one.addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    has_seen(&clients[0], 100).await;

    nats.stop().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    nats.restart().await;
    publisher.one(BUSY).await;
    load.stop().await;
    publisher.one(BUSY).await;
    for client in &clients {
        check_to_end(client, BUSY, publisher.published()).await;
        assert!(
            client
                .channel(BUSY)
                .recoveries()
                .iter()
                .all(|recovered| *recovered)
        );
        assert!(
            client.record().closes.is_empty(),
            "an outage of NATS closes no connection"
        );
    }
    one.stop().await;
    two.stop().await;
}

/// One edge behind a link with this weather, for a while, under load. Nobody loses anything.
async fn bad_link(weather: Weather, long: Duration) {
    let nats = NatsServer::start().await;
    let link = Proxy::nats(&nats.url()).await;
    let (good, bad) = (Edge::start(&[nats.url()]).await, Edge::start(&link.urls()).await);
    let mut clients = audience(good.addr, 2).await;
    clients.extend(audience(bad.addr, 2).await);
    let publisher = Publisher::start(good.addr);
    let behind = Publisher::start_into(bad.addr, publisher.published().clone());
    let load = publisher.steadily(&[BUSY], EVERY);
    let load_behind = behind.steadily(&[BUSY], EVERY * 10);
    has_seen(&clients[3], 100).await;

    link.set(weather);
    tokio::time::sleep(long).await;
    // Somebody comes while it is bad.
    let late = Client::connect(bad.addr).await;
    late.begin_subscribe(BUSY, None);
    link.set(Weather::Clear);
    load_behind.stop().await;
    load.stop().await;
    late.subscribe("public:other").await;
    late.wait("subscribed at last", |record| {
        record.channels[BUSY].subscribed.then_some(())
    })
    .await;
    publisher.one(BUSY).await;
    for client in clients.iter().chain([&late]) {
        check_to_end(client, BUSY, publisher.published()).await;
        assert!(
            client
                .channel(BUSY)
                .recoveries()
                .iter()
                .all(|recovered| *recovered)
        );
        assert!(
            client.record().closes.is_empty(),
            "a bad link to NATS closes no connection"
        );
    }
    good.stop().await;
    bad.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_between_edge_and_nats_is_cut() {
    bad_link(Weather::Cut, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_between_edge_and_nats_is_delayed() {
    bad_link(Weather::Late(Duration::from_millis(250)), Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_between_edge_and_nats_is_a_black_hole() {
    bad_link(Weather::BlackHole, Duration::from_secs(6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_live_copy_of_a_quiet_channel_is_lost() {
    const QUIET: &str = "public:quiet";
    let nats = NatsServer::start().await;
    let link = Proxy::nats(&nats.url()).await;
    let (good, bad) = (Edge::start(&[nats.url()]).await, Edge::start(&link.urls()).await);
    let client = Client::connect(bad.addr).await;
    client.subscribe(QUIET).await;
    let publisher = Publisher::start(good.addr);
    let first = publisher.one(QUIET).await;
    client.wait_for(QUIET, first.offset).await;

    link.losses().copies(true);
    publisher.one(QUIET).await;
    until("the copy is lost", || async { (link.lost() == 1).then_some(()) }).await;
    link.losses().copies(false);
    check_to_end(&client, QUIET, publisher.published()).await;
    assert_eq!(
        client.channel(QUIET).subscribes(),
        1,
        "it is read, without a word to the client"
    );
    check(&client, QUIET, publisher.published());
    good.stop().await;
    bad.stop().await;
}
