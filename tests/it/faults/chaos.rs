//! Everything at once: links that fail at random while everybody works. The seed is printed; set
//! `SLIPSTREAM_CHAOS_SEED` to have the same again, and `SLIPSTREAM_CHAOS_STEPS` to have more.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::{
    checker::check_to_end,
    client::Client,
    dice::Dice,
    edge::Edge,
    nats::NatsServer,
    proxy::{Proxy, Weather},
    publisher::Publisher,
};

const CHANNELS: [&str; 4] = ["public:a", "public:b", "public:c", "public:quiet"];
const STEPS: u64 = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_fail_at_random() {
    let mut dice = Dice::take();
    let mut nats = NatsServer::start().await;
    let roads = [Proxy::nats(&nats.url()).await, Proxy::nats(&nats.url()).await];
    let edges = [
        Edge::builder()
            .nats(&roads[0].urls())
            .set("channel.ring_messages", "20")
            .start()
            .await,
        Edge::start(&roads[1].urls()).await,
    ];
    let doors = [
        Proxy::start(edges[0].addr).await,
        Proxy::start(edges[1].addr).await,
    ];
    let mut clients = Vec::new();
    for n in 0..6 {
        let client = Client::connect(doors[n % 2].addr()).await;
        for channel in CHANNELS {
            client.subscribe(channel).await;
        }
        clients.push(client);
    }
    let one = Publisher::start(edges[0].addr);
    let two = Publisher::start_into(edges[1].addr, one.published().clone());
    let loads = [
        one.steadily(&CHANNELS[..3], Duration::from_millis(3)),
        two.steadily(&CHANNELS[1..], Duration::from_millis(20)),
    ];
    let steps = setting("SLIPSTREAM_CHAOS_STEPS").unwrap_or(STEPS);
    for _ in 0..steps {
        let which = dice.roll(2);
        match dice.roll(10) {
            0 => roads[which].cut().await,
            1 => roads[which].set(Weather::Late(Duration::from_millis(60))),
            2 => roads[which].set(Weather::BlackHole),
            3 => roads[which].losses().copies(true),
            4 => roads[which].losses().all(true),
            5 => doors[which].cut().await,
            6 => clients[dice.roll(6)].move_to(doors[which].addr()),
            7 => clients[dice.roll(6)].go_offline().await,
            8 => nats.restart().await,
            _ => doors[which].set(Weather::Slow(50_000)),
        }
        sleep(Duration::from_millis(50 + dice.roll(300) as u64)).await;
        if dice.roll(2) == 0 {
            for (road, door) in roads.iter().zip(&doors) {
                road.set(Weather::Clear);
                road.losses().copies(false);
                road.losses().all(false);
                door.set(Weather::Clear);
            }
        }
    }
    for (road, door) in roads.iter().zip(&doors) {
        road.set(Weather::Clear);
        road.losses().copies(false);
        road.losses().all(false);
        door.set(Weather::Clear);
    }
    for (n, client) in clients.iter().enumerate() {
        client.move_to(doors[n % 2].addr());
    }
    for load in loads {
        load.stop().await;
    }
    for client in &clients {
        for channel in CHANNELS {
            client
                .wait("subscribed", |record| {
                    record.channels[channel].subscribed.then_some(())
                })
                .await;
        }
    }
    for channel in CHANNELS {
        one.one(channel).await;
        for client in &clients {
            check_to_end(client, channel, one.published()).await;
            // Nothing was ever taken away: each position can be proven.
            assert!(
                !client.channel(channel).recoveries().contains(&false),
                "{}",
                client.summary()
            );
        }
    }
    for edge in edges {
        edge.stop().await;
    }
}
