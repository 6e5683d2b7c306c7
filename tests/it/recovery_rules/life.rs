//! Tails come and go: nothing is left behind, and everything is bounded.

use std::time::Duration;

use slipstream::{channel::TooManyTails, log::memory::Target, telemetry::Limit};

use super::setting::{Reader, SHARD, Setting, publish, publish_many};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn churn_leaves_nothing_behind() {
    let setting = Setting::plain();
    let node = setting.node();
    let routes: Vec<_> = (0..50).map(|index| setting.route(&format!("c{index}"))).collect();
    publish(&node, &routes[0]).await;
    setting.pass(SECOND).await;
    let tasks = node.tasks.count();
    for round in 0..200 {
        for route in &routes {
            drop(Reader::fresh(&node, route).await);
        }
        assert!(
            node.hub.tails() <= 50 && node.tasks.count() <= tasks + 51,
            "{round}"
        );
        if round % 10 == 0 {
            setting.breathe().await;
        }
    }
    setting.pass(12 * SECOND).await;
    assert_eq!(node.hub.tails(), 0);
    assert_eq!(setting.faults.subscriptions(Some(node.index())), 0);
    assert_eq!(node.tasks.count(), tasks);
}

#[tokio::test(start_paused = true)]
async fn a_tail_lingers_and_serves_who_comes_back() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let reader = Reader::fresh(&node, &route).await;
    let offsets = publish_many(&node, &route, 3).await;
    drop(reader);
    setting.pass(3 * SECOND).await;
    setting.faults.trim(SHARD, offsets[2] + 1);
    let back = Reader::resume(&node, &route, offsets[0], &setting.epoch().await).await;
    assert_eq!(
        (back.recovered, back.missed.clone()),
        (true, offsets[1..].to_vec())
    );
    setting.pass(8 * SECOND).await;
    assert_eq!(node.hub.tails(), 1, "it has a member again");
    drop(back);
    setting.pass(8 * SECOND).await;
    assert_eq!(node.hub.tails(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_has_no_more_tails_than_it_may() {
    let mut setting = Setting::plain();
    setting.bounds.channel.max_tails = 2;
    let node = setting.node();
    let _a = Reader::fresh(&node, &setting.route("a")).await;
    let b = Reader::fresh(&node, &setting.route("b")).await;
    let refused = Reader::subscribe(&node, &setting.route("c"), None).await;
    assert_eq!(refused.err(), Some(TooManyTails(Limit::Tails).into()));
    drop(b);
    setting.pass(8 * SECOND).await;
    Reader::fresh(&node, &setting.route("c")).await;
}

#[tokio::test(start_paused = true)]
async fn subscribes_that_time_out_leave_no_waiters_behind() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    publish(&node, &route).await;
    setting.pass(SECOND).await;
    let tasks = node.tasks.count();
    setting.faults.disconnect(node.index());
    for _ in 0..20 {
        assert!(Reader::subscribe(&node, &route, None).await.is_err());
    }
    assert!(node.tasks.count() <= tasks + 2);
    setting.faults.reconnect(node.index());
    setting.pass(8 * SECOND).await;
    assert_eq!((node.hub.tails(), node.tasks.count()), (0, tasks));
}

#[tokio::test(start_paused = true)]
async fn an_app_over_its_budget_loses_its_own_ring_and_recovers_from_the_log() {
    let mut setting = Setting::plain();
    setting.bounds.channel.rings_bytes = 600;
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    let offsets = publish_many(&node, &route, 8).await;
    assert_eq!(reader.read_on(&setting).await, (offsets.clone(), false));
    let metrics = node.metrics.app(&crate::hubs::app());
    assert!((0..=600).contains(&metrics.ring_bytes.get()));
    let mut back = Reader::resume(&node, &route, offsets[0], &setting.epoch().await).await;
    let mut got = back.missed.clone();
    got.extend(back.read_on(&setting).await.0);
    assert_eq!((back.recovered, got), (true, offsets[1..].to_vec()));
    drop((reader, back));
    setting.pass(8 * SECOND).await;
    assert_eq!(metrics.ring_bytes.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn l15_a_ring_serves_nothing_older_than_its_class_keeps() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let _live = Reader::fresh(&node, &route).await;
    let offsets = publish_many(&node, &route, 3).await;
    setting.breathe().await;
    setting.faults.advance(11 * 60 * 1_000);
    setting.faults.lose_node_messages(Target::all(), 10);
    let back = Reader::resume(&node, &route, offsets[0], &setting.epoch().await).await;
    assert_eq!((back.recovered, back.missed), (false, vec![]));
}
