//! L11: when tails are compared with the log, with what, and what comes of it.

use std::time::Duration;

use slipstream::{
    log::{
        ReadError,
        memory::{Request, Target},
    },
    telemetry::CheckOutcome,
};

use super::setting::{Reader, SHARD, Setting, on, publish, publish_many, publish_with};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn l11_a_new_interest_is_checked_after_a_second() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting.faults.drop_copies(on(&node, &route), 1);
    let lost = publish(&node, &route).await;
    setting.pass(SECOND / 2).await;
    assert_eq!(reader.read(), (vec![], false));
    setting.pass(SECOND).await;
    assert_eq!(reader.read(), (vec![lost], false));
}

#[tokio::test(start_paused = true)]
async fn l11_after_an_election_tails_are_checked_within_one_to_two_seconds() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting.pass(2 * SECOND).await;
    setting.faults.drop_copies(on(&node, &route), 1);
    let lost = publish(&node, &route).await;
    setting.faults.elect_leader(SHARD);
    setting.pass(Duration::from_millis(900)).await;
    assert_eq!(reader.read(), (vec![], false), "all nodes have heard of it");
    setting.pass(Duration::from_millis(1_200)).await;
    assert_eq!(reader.read(), (vec![lost], false));
}

#[tokio::test(start_paused = true)]
async fn l11_copies_that_overflow_are_checked_for_at_once() {
    let setting = Setting::plain();
    setting.faults.set_subscription_capacity(4);
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting.pass(2 * SECOND).await;
    let sent: Vec<_> = (0..30)
        .map(|_| {
            node.hub
                .publish(&route, &crate::hubs::record(0, 0), None)
                .unwrap()
        })
        .collect();
    let mut offsets = Vec::new();
    for published in sent {
        offsets.push(published.await.unwrap().position.unwrap().offset);
    }
    // No later copy tells of the last ones.
    assert_eq!(reader.read_on(&setting).await, (offsets, false));
}

#[tokio::test(start_paused = true)]
async fn l11_a_shard_that_has_not_moved_is_not_asked_about_its_channels() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let _reader = Reader::fresh(&node, &route).await;
    publish(&node, &route).await;
    setting.pass(25 * SECOND).await;
    let here = Target::node(node.index());
    let broken = ReadError::Failed("not to be asked".to_owned());
    setting.faults.fail(here, Request::LastOf, broken, 1_000);
    setting.pass(40 * SECOND).await;
    let checks = |outcome| node.metrics.checks.of(outcome).get();
    assert!(checks(CheckOutcome::Unmoved) >= 3);
    assert_eq!(checks(CheckOutcome::Failed), 0);
    publish(&node, &route).await;
    setting.pass(15 * SECOND).await;
    assert!(checks(CheckOutcome::Failed) > 0, "now it is");
}

#[tokio::test(start_paused = true)]
async fn l11_only_a_replica_that_has_come_as_far_as_the_leader_is_believed() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting.pass(2 * SECOND).await;
    setting.faults.hold_replica(SHARD, 1);
    setting.faults.answer_from(SHARD, Some(1));
    setting.faults.drop_copies(on(&node, &route), 1);
    let lost = publish(&node, &route).await;
    setting.pass(15 * SECOND).await;
    assert_eq!(reader.read(), (vec![], false), "it says that nothing is there");
    setting.faults.answer_from(SHARD, Some(2));
    setting.pass(SECOND).await;
    assert_eq!(reader.read(), (vec![lost], false));
}

#[tokio::test(start_paused = true)]
async fn l11_a_quiet_tail_moves_with_its_shard() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("quiet"));
    let reader = Reader::fresh(&node, &route).await;
    let last = *publish_many(&node, &setting.route("busy"), 5)
        .await
        .last()
        .unwrap();
    let before = Reader::fresh(&node, &route).await;
    assert_eq!(before.offset, reader.offset);
    setting.pass(15 * SECOND).await;
    let after = Reader::fresh(&node, &route).await;
    assert_eq!(after.offset, last);
    // From there on it vouches, also when the shard keeps nothing any more.
    setting.faults.trim(SHARD, last + 1);
    let back = Reader::resume(&node, &route, last, &after.epoch).await;
    assert!(back.recovered && back.missed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn l11_a_quiet_tail_that_retention_has_passed_is_told_unless_another_vouches() {
    for vouched in [false, true] {
        let setting = Setting::plain();
        let (node, other, route) = (setting.node(), setting.node(), setting.route("quiet"));
        let mut reader = Reader::fresh(&node, &route).await;
        let _there = if vouched {
            Some(Reader::fresh(&other, &route).await)
        } else {
            None
        };
        setting.pass(2 * SECOND).await;
        // It is not checked for a while; the other node is.
        setting
            .faults
            .hold_answers(Target::node(node.index()), Request::Info);
        let last = *publish_many(&other, &setting.route("busy"), 5)
            .await
            .last()
            .unwrap();
        setting.pass(15 * SECOND).await;
        setting.faults.trim(SHARD, last + 1);
        setting.faults.release_answers();
        setting.pass(15 * SECOND).await;
        assert_eq!(reader.read(), (vec![], !vouched), "vouched: {vouched}");
        if vouched {
            let next = publish(&other, &route).await;
            assert_eq!(reader.read_on(&setting).await, (vec![next], false));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn l11_a_nudge_of_what_is_known_is_ignored() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    let mut here = Reader::fresh(&one, &route).await;
    setting.pass(2 * SECOND).await;
    let first = publish_with(&one, &route, Some("key"), 0).await.unwrap();
    setting.breathe().await;
    // A gap could not be read now.
    setting
        .faults
        .hold_answers(Target::node(one.index()), Request::Read);
    let again = publish_with(&two, &route, Some("key"), 0).await.unwrap();
    assert!(again.duplicate);
    let next = publish(&two, &route).await;
    setting.breathe().await;
    let first = first.position.unwrap().offset;
    assert_eq!(here.read(), (vec![first, next], false));
}

#[tokio::test(start_paused = true)]
async fn l11_a_tail_that_lingers_is_checked_like_any_other() {
    let mut setting = Setting::plain();
    setting.bounds.channel.linger = 60 * SECOND;
    setting.bounds.channel.ring_idle = 60 * SECOND;
    let (node, route) = (setting.node(), setting.route("a"));
    let reader = Reader::fresh(&node, &route).await;
    let seen = publish(&node, &route).await;
    setting.pass(2 * SECOND).await;
    let epoch = reader.epoch.clone();
    drop(reader);
    setting.faults.drop_copies(on(&node, &route), 1);
    let lost = publish(&node, &route).await;
    setting.pass(15 * SECOND).await;
    setting.faults.trim(SHARD, lost + 1);
    let back = Reader::resume(&node, &route, seen, &epoch).await;
    assert_eq!((back.recovered, back.missed.clone()), (true, vec![lost]));
}
