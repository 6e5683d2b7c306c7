//! The same on several threads: what the paused clock of the other tests orders is a race here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use slipstream::{
    log::{Route, memory::Target},
    model::Offset,
    task::Tasks,
};
use tokio::time::{Instant, sleep, timeout};

use super::setting::{Reader, Setting, publish_with};
use crate::hubs::Node;

const CHANNELS: usize = 3;
const EACH: u64 = 400;

struct Field {
    nodes: Vec<Node>,
    routes: Vec<Route>,
    epoch: String,
    /// What was acknowledged, by channel.
    stored: Vec<Mutex<Vec<Offset>>>,
    publishing: AtomicU64,
}

/// Comes and goes, now here and now there, and answers with all it got after position 0.
async fn reader(field: Arc<Field>, channel: usize, seed: u64) -> Vec<Offset> {
    let route = &field.routes[channel];
    let mut all: Vec<Offset> = Vec::new();
    let mut position = 0;
    let mut turn = seed;
    loop {
        turn = turn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(seed | 1);
        let node = &field.nodes[(turn >> 33) as usize % field.nodes.len()];
        let done = field.publishing.load(Ordering::SeqCst) == 0;
        let mut reader = Reader::resume(node, route, position, &field.epoch).await;
        assert!(reader.recovered, "nothing is gone");
        all.append(&mut reader.missed);
        position = reader.offset;
        let until = Instant::now() + Duration::from_millis(if done { 5_000 } else { (turn >> 40) % 40 });
        while Instant::now() < until {
            let (got, told) = reader.read();
            assert!(!told, "nothing is gone");
            position = got.last().copied().unwrap_or(position).max(position);
            all.extend(got);
            if done && all.len() == field.stored[channel].lock().len() {
                return all;
            }
            sleep(Duration::from_millis((turn >> 50) % 8)).await;
        }
        let stored = field.stored[channel].lock().len();
        assert!(!done, "stuck at {position} with {} of {stored}", all.len());
    }
}

async fn publisher(field: Arc<Field>, channel: usize) {
    for index in 0..EACH {
        let node = &field.nodes[index as usize % field.nodes.len()];
        let published = publish_with(node, &field.routes[channel], None, 30)
            .await
            .unwrap();
        field.stored[channel]
            .lock()
            .push(published.position.unwrap().offset);
        if index % 16 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    field.publishing.fetch_sub(1, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_come_and_go_get_each_publication_once() {
    let mut setting = Setting::plain();
    setting.bounds.channel.check_interval = Duration::from_millis(300);
    setting.bounds.channel.check_after_interest = Duration::from_millis(50);
    setting.bounds.channel.linger = Duration::from_millis(5);
    setting.bounds.catchup.sweep_bytes = 1_000_000;
    let nodes = vec![setting.node(), setting.node()];
    let routes: Vec<_> = (0..CHANNELS)
        .map(|index| setting.route(&format!("c{index}")))
        .collect();
    let first = Reader::fresh(&nodes[0], &routes[0]).await;
    let field = Arc::new(Field {
        stored: routes.iter().map(|_| Mutex::default()).collect(),
        publishing: AtomicU64::new(2 * CHANNELS as u64),
        epoch: first.epoch.clone(),
        nodes,
        routes,
    });
    drop(first);
    let tasks = Tasks::default();
    let (results, mut finished) = tokio::sync::mpsc::channel(64);
    for index in 0..12 {
        let (field, results) = (field.clone(), results.clone());
        tasks.spawn(async move {
            let channel = index % CHANNELS;
            let all = reader(field, channel, index as u64 + 1).await;
            results.send((channel, all)).await.unwrap();
        });
    }
    drop(results);
    for index in 0..2 * CHANNELS {
        tasks.spawn(publisher(field.clone(), index % CHANNELS));
    }
    let (faults, trouble) = (setting.faults.clone(), field.clone());
    tasks.spawn(async move {
        while trouble.publishing.load(Ordering::SeqCst) > 0 {
            faults.drop_copies(Target::all(), 3);
            faults.repeat_copies(Target::all(), 2);
            sleep(Duration::from_millis(3)).await;
            faults.hold_copies(Target::all());
            sleep(Duration::from_millis(1)).await;
            faults.release_copies();
        }
        faults.heal();
    });
    for _ in 0..12 {
        let (channel, all) = timeout(Duration::from_secs(20), finished.recv())
            .await
            .expect("an end")
            .expect("no reader failed");
        let mut expected = field.stored[channel].lock().clone();
        expected.sort_unstable();
        assert_eq!(all, expected, "channel {channel}");
    }
}
