//! L4, L5: incarnations, and whose answers count.

use std::time::Duration;

use slipstream::{
    channel::SubscribeError,
    log::{
        ReadError,
        memory::{Request, Target},
    },
};
use tokio::time::timeout;

use super::setting::{Reader, SHARD, Setting, publish, publish_many, publish_with};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn l4_a_stream_created_anew_tells_everyone() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    publish_many(&node, &route, 3).await;
    let mut live = Reader::fresh(&node, &route).await;
    setting.faults.recreate(SHARD);
    setting.pass(15 * SECOND).await;
    assert_eq!(live.read(), (vec![], true));

    let offset = publish(&node, &route).await;
    setting.breathe().await;
    let back = Reader::resume(&node, &route, live.offset, &live.epoch).await;
    assert_ne!(back.epoch, live.epoch);
    assert_eq!((back.recovered, back.offset), (false, offset));
}

#[tokio::test(start_paused = true)]
async fn l4_an_acknowledgement_that_goes_back_replaces_the_epoch_on_all_nodes() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    publish_many(&one, &route, 5).await;
    let mut here = Reader::fresh(&one, &route).await;
    let mut there = Reader::fresh(&two, &route).await;
    setting.faults.regress(SHARD, 3);
    let published = publish_with(&one, &route, None, 0)
        .await
        .unwrap()
        .position
        .unwrap();
    setting.breathe().await;
    assert!(here.read().1 && there.read().1);
    assert_eq!(published.offset, 4);
    assert_eq!(published.epoch.as_str(), setting.epoch().await);
    for node in [&one, &two] {
        let back = Reader::resume(node, &route, 5, &here.epoch).await;
        assert_eq!((back.recovered, back.offset), (false, 4));
    }
}

#[tokio::test(start_paused = true)]
async fn l4_the_mark_tells_a_node_that_was_away_that_the_store_went_back_and_grew_again() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    publish_many(&node, &route, 5).await;
    let reader = Reader::fresh(&node, &route).await;
    setting.pass(3 * SECOND).await;
    drop(node);
    setting.faults.regress(SHARD, 2);
    let other = setting.node();
    // It has seen nothing but the registry, and the store is as long as it was before it looks.
    for _ in 0..5 {
        let lost = Target::node(other.index());
        setting.faults.lose_acks(lost, 1);
        let _ = publish_with(&other, &route, None, 0).await;
    }
    let back = Reader::resume(&other, &route, reader.offset, &reader.epoch).await;
    assert!(!back.recovered && back.epoch != reader.epoch);
}

#[tokio::test(start_paused = true)]
async fn l4_pipelined_publishes_with_duplicates_are_no_false_alarm() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&one, &route).await;
    let epoch = setting.epoch().await;
    setting.faults.hold_acks(Target::all());
    setting.faults.hold_copies(Target::node(two.index()));
    let mut sent = Vec::new();
    for index in 0..200 {
        let node = if index % 3 == 0 { &two } else { &one };
        let key = format!("key {}", index % 50);
        let record = crate::hubs::record(index, 0);
        sent.push(node.hub.publish(&route, &record, Some(&key)).unwrap());
    }
    setting.faults.release_answers();
    setting.faults.release_copies();
    let mut duplicates = 0;
    for published in sent.into_iter().rev() {
        duplicates += u32::from(published.await.unwrap().duplicate);
    }
    setting.pass(15 * SECOND).await;
    assert_eq!((duplicates, setting.epoch().await), (150, epoch));
    let (got, told) = reader.read_on(&setting).await;
    assert_eq!((got.len(), told), (50, false));
}

#[tokio::test(start_paused = true)]
async fn l4_a_mark_that_moves_while_it_is_compared_is_no_false_alarm() {
    let setting = Setting::plain();
    let (writer, route) = (setting.node(), setting.route("a"));
    publish(&writer, &route).await;
    setting.pass(3 * SECOND).await;
    let epoch = setting.epoch().await;
    let starting = setting.node();
    setting
        .faults
        .hold_answers(Target::node(starting.index()), Request::TimeAt);
    let keeper = starting.hub.keeper(SHARD).unwrap().clone();
    let fresh = keeper.fresh();
    tokio::pin!(fresh);
    assert!(timeout(SECOND, fresh.as_mut()).await.is_err(), "it is held");
    publish(&writer, &route).await;
    setting.pass(3 * SECOND).await;
    setting.faults.release_answers();
    let fresh = timeout(5 * SECOND, fresh).await.expect("an answer");
    assert_eq!(fresh.epoch.as_str(), epoch);
    assert_eq!(setting.epoch().await, epoch);
}

#[tokio::test(start_paused = true)]
async fn l4_a_node_that_missed_two_epochs_knows_the_last() {
    let setting = Setting::plain();
    let (here, away, route) = (setting.node(), setting.node(), setting.route("a"));
    publish_many(&here, &route, 5).await;
    let mut reader = Reader::fresh(&away, &route).await;
    setting.faults.disconnect(away.index());
    for last in [3, 2] {
        setting.faults.regress(SHARD, last);
        publish(&here, &route).await;
    }
    setting.faults.reconnect(away.index());
    setting.pass(SECOND).await;
    assert!(reader.read().1);
    let known = away.hub.keeper(SHARD).unwrap().epoch().unwrap();
    assert_eq!(known.as_str(), setting.epoch().await);
}

#[tokio::test(start_paused = true)]
async fn l4_copies_of_the_old_stream_do_not_enter_the_new_epoch() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    publish(&two, &route).await;
    setting
        .faults
        .hold_answers(Target::node(one.index()), Request::Info);
    // Its tail subscribes and waits for the leader, copies come, the stream is created anew.
    assert!(Reader::subscribe(&one, &route, None).await.is_err());
    publish_many(&two, &route, 3).await;
    setting.faults.recreate(SHARD);
    setting.faults.release_answers();
    setting.pass(SECOND).await;
    let reader = Reader::fresh(&one, &route).await;
    assert_eq!(reader.offset, setting.last_seq().await);
}

#[tokio::test(start_paused = true)]
async fn l4_a_check_does_not_wait_for_the_old_stream() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let offset = publish_many(&node, &route, 3).await[0];
    let epoch = setting.epoch().await;
    let target = Target::node(node.index());
    setting
        .faults
        .fail(target, Request::LastOf, ReadError::NoAnswer, 1_000);
    let position = Some((offset, epoch.as_str()));
    assert!(Reader::subscribe(&node, &route, position).await.is_err());
    // The check under way compares with a sequence that the new stream does not have.
    setting.faults.recreate(SHARD);
    setting.faults.heal();
    setting.pass(SECOND).await;
    let back = Reader::resume(&node, &route, offset, &epoch).await;
    assert!(!back.recovered && back.epoch != epoch);
}

#[tokio::test(start_paused = true)]
async fn l5_a_deposed_leader_proves_nothing() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (node, route) = (setting.node(), setting.route("a"));
    publish_many(&node, &route, 3).await;
    setting.faults.hold_replica(SHARD, 1);
    publish_many(&node, &route, 3).await;
    setting.faults.depose_leader(SHARD, Some(1));
    let keeper = node.hub.keeper(SHARD).unwrap();
    assert!(timeout(2 * SECOND, keeper.fresh()).await.is_err());
    let before = setting.last_seq().await;
    assert!(before < 6, "the observer, too, asks the deposed leader");
    setting.faults.depose_leader(SHARD, None);
    let fresh = timeout(2 * SECOND, keeper.fresh()).await.expect("an answer");
    assert!(fresh.last_seq >= 6);
    assert!(fresh.last_seq < 30, "anchors are not written without a pause");
}

#[tokio::test(start_paused = true)]
async fn l5_a_node_that_knows_nothing_does_not_believe_a_deposed_leader_either() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (first, route) = (setting.node(), setting.route("a"));
    publish_many(&first, &route, 3).await;
    setting.faults.hold_replica(SHARD, 1);
    let last = *publish_many(&first, &route, 3).await.last().unwrap();
    let reader = Reader::fresh(&first, &route).await;
    // Its mark is not written: the new node cannot know how far the shard has come.
    drop(first);
    let second = setting.node();
    setting.faults.depose_leader(SHARD, Some(1));
    let position = Some((last, reader.epoch.as_str()));
    let refused = Reader::subscribe(&second, &route, position).await;
    assert_eq!(
        refused.err(),
        Some(SubscribeError::TimedOut),
        "never recovered:false"
    );
    setting.faults.depose_leader(SHARD, None);
    let back = Reader::resume(&second, &route, last, &reader.epoch).await;
    assert!(back.recovered && back.missed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn l5_a_leader_that_does_not_know_of_what_was_read_proves_no_floor() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (writer, route) = (setting.node(), setting.route("a"));
    let old = publish_many(&writer, &route, 2).await;
    let epoch = setting.epoch().await;
    setting.faults.hold_replica(SHARD, 1);
    let new = publish_many(&writer, &route, 6).await;
    setting.faults.trim(SHARD, new[2]);
    drop(writer);
    // All that the node asks first has not come as far as that.
    let node = setting.node();
    setting.faults.depose_leader(SHARD, Some(1));
    setting.faults.answer_from(SHARD, Some(1));
    let target = Target::node(node.index());
    setting.faults.fail(target, Request::Read, ReadError::NoAnswer, 1);
    let position = Some((old[0], epoch.as_str()));
    let coming = Reader::subscribe(&node, &route, position);
    tokio::pin!(coming);
    let soon = timeout(Duration::from_millis(9), coming.as_mut()).await;
    assert!(soon.is_err(), "its read is tried again");
    // This page begins behind what has gone, and the deposed leader still has all of that.
    setting.faults.answer_from(SHARD, Some(2));
    let refused = timeout(5 * SECOND, coming).await.expect("an answer");
    assert_eq!(refused.err(), Some(SubscribeError::TimedOut));
    setting.faults.depose_leader(SHARD, None);
    let back = Reader::resume(&node, &route, old[0], &epoch).await;
    assert_eq!((back.recovered, back.missed), (false, vec![]));
}

#[tokio::test(start_paused = true)]
async fn l5_a_leader_that_does_not_know_of_what_a_nudge_names_proves_no_floor() {
    // The deposed leader has so many of those that have gone since and those that are read at first.
    for known in [0, 5] {
        let setting = Setting::new(|class| class.replicas = 3);
        let (writer, node, route) = (setting.node(), setting.node(), setting.route("a"));
        publish_many(&writer, &route, 2).await;
        let mut live = Reader::fresh(&node, &route).await;
        setting.faults.drop_copies(Target::node(node.index()), 100);
        let mut new = publish_many(&writer, &route, known).await;
        setting.faults.hold_replica(SHARD, 1);
        new.extend(publish_many(&writer, &route, 5 - known).await);
        publish_with(&writer, &route, Some("key"), 0).await.unwrap();
        setting.faults.trim(SHARD, new[2]);
        setting.faults.depose_leader(SHARD, Some(1));
        setting.faults.answer_from(SHARD, Some(2));
        let again = publish_with(&writer, &route, Some("key"), 0).await.unwrap();
        assert!(again.duplicate, "it nudges");
        assert_eq!(live.read_on(&setting).await, (vec![], false), "{known}");
        setting.faults.heal();
        setting.pass(2 * SECOND).await;
        assert_eq!(live.read_on(&setting).await, (vec![], true), "{known}");
    }
}
