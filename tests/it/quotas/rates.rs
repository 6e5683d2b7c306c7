//! A rate that three nodes share, while load goes from one to another, and while NATS is away.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{edge, edges, hit, used};
use crate::{
    doors::{Entered, Guest, enter},
    support::{edge::Edge, holds, nats::NatsServer, within},
};

const RATE: u64 = 100;
const QUOTA: &str = "quotas.messages_per_second = 100";

/// Connections of the app `a` to each node, which publish as fast as they are answered.
async fn guests(edges: &[Edge]) -> Vec<Guest> {
    let mut guests = Vec::new();
    for edge in edges {
        let entered = enter(edge.addr, "/apps/a/connection/websocket", None, None).await;
        guests.push(entered.guest());
    }
    guests
}

/// Publishes once; whether it was taken.
async fn publish(guest: &mut Guest) -> bool {
    let reply = guest
        .command(json!({"publish": {"channel": "x", "data": 1}}))
        .await
        .unwrap();
    reply.get("error").is_none()
}

/// Publishes through these for a while, each again and again; how many were taken.
async fn storm(guests: &mut [&mut Guest], time: Duration) -> u64 {
    let until = Instant::now() + time;
    let storms = guests.iter_mut().map(|guest| async {
        let mut taken = 0;
        while Instant::now() < until {
            taken += u64::from(publish(guest).await);
            // Several times the rate is asked for.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        taken
    });
    futures_util::future::join_all(storms).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_a_rate_wherever_the_load_is() {
    let nats = NatsServer::start().await;
    let edges = edges(&nats, QUOTA).await;
    let mut guests = guests(&edges).await;
    let [one, two, three] = &mut guests[..] else {
        panic!()
    };
    let began = Instant::now();
    let second = Duration::from_secs(1);
    // On one node, on all three, on another one, on two.
    let mut taken = Vec::new();
    taken.push(storm(&mut [one], 3 * second).await);
    taken.push(storm(&mut [one, two, three], 3 * second).await);
    taken.push(storm(&mut [two], 3 * second).await);
    taken.push(storm(&mut [one, three], 3 * second).await);
    let passed = began.elapsed();
    let all: u64 = taken.iter().sum();
    // The documented bound: a second's worth at once, and one for each node.
    let most = RATE as f64 * (passed.as_secs_f64() + 1.0) + 3.0;
    assert!((all as f64) <= most, "{taken:?} in {passed:?}");
    // Load that moves finds most of the rate: it takes two rounds to follow.
    assert!(
        all as f64 >= 0.6 * RATE as f64 * passed.as_secs_f64(),
        "{taken:?} in {passed:?}"
    );
    assert!(
        edges
            .iter()
            .all(|edge| hit(edge, "a", "quota_messages_per_second") > 0.0)
    );
    // It was used up, of which the first of them has warned once.
    assert!(edges.iter().any(|edge| used(edge, "messages_per_second") >= 80.0));
    let warnings = |edge: &Edge| edge.metric("slipstream_quota_warnings_total");
    assert_eq!(edges.iter().map(warnings).sum::<f64>(), 1.0);
    // The other app has no quota.
    for edge in &edges {
        let entered = enter(edge.addr, "/apps/b/connection/websocket", None, None).await;
        let mut other = entered.guest();
        for _ in 0..RATE {
            assert!(publish(&mut other).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_stay_while_nats_is_away_and_move_again_after() {
    let mut nats = NatsServer::start().await;
    let quotas = format!("{QUOTA}\nquotas.peak_connections = 6");
    let edges = [
        edge(&nats, &quotas).start().await,
        edge(&nats, &quotas).start().await,
    ];
    holds("they have shared the connections", || {
        edges.iter().all(|edge| edge.nodes().others().len() == 1)
    })
    .await;
    let mut guests = guests(&edges).await;
    let [one, two] = &mut guests[..] else { panic!() };
    let second = Duration::from_secs(1);
    let before = storm(&mut [one], 3 * second).await;
    assert!(before > 2 * RATE, "{before}");
    nats.kill().await;
    tokio::time::sleep(second).await;
    // Nobody can be asked for more: each node has the half that it had.
    let mut here = vec![1; 2];
    for (edge, count) in edges.iter().zip(&mut here) {
        let mut more = Vec::new();
        loop {
            match enter(edge.addr, "/apps/a/connection/websocket", None, None).await {
                Entered::In(guest) => more.push(guest),
                Entered::Refused(503) => break,
                other => panic!("{other:?}"),
            }
        }
        *count += more.len();
    }
    assert_eq!(here, [3, 3]);
    within(nats.restart()).await;
    within(async {
        while !publish(one).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let began = Instant::now();
    let after = storm(&mut [one, two], 4 * second).await;
    let most = RATE as f64 * (began.elapsed().as_secs_f64() + 1.0) + 3.0;
    assert!(after as f64 <= most && after > 2 * RATE, "{after}");
}
