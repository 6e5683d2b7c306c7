//! L4-L6: the mark, suspicions, questions to the leader, and how old a message may be.

use std::time::Duration;

use slipstream::{
    channel::SubscribeError,
    log::memory::{Request, Target},
};
use tokio::time::timeout;

use super::setting::{Reader, SHARD, Setting, publish, publish_many};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn l4_the_mark_is_written_while_the_shard_moves_and_at_drain() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let moved = publish(&node, &route).await;
    setting.pass(2 * SECOND).await;
    let (marked, revision) = setting.entry().await;
    assert_eq!(marked.mark_seq, moved);
    setting.pass(5 * SECOND).await;
    assert_eq!(setting.entry().await.1, revision, "it has not moved");

    let last = publish(&node, &route).await;
    assert_eq!(setting.entry().await.1, revision, "not with every message");
    // What a drain does.
    node.hub.write_marks().await;
    assert_eq!(setting.entry().await.0.mark_seq, last);
}

#[tokio::test(start_paused = true)]
async fn l4_a_node_that_is_connected_again_proves_nothing_until_it_has_found_the_mark() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let offsets = publish_many(&node, &route, 5).await;
    let mut live = Reader::fresh(&node, &setting.route("live")).await;
    setting.pass(3 * SECOND).await;
    setting.faults.disconnect(node.index());
    // While nobody looks, the store goes back and grows again.
    setting.faults.regress(SHARD, 2);
    for _ in 0..8 {
        setting.faults.store_unreadable(&setting.route("other"), true);
    }
    let here = Target::node(node.index());
    setting.faults.hold_answers(here, Request::TimeAt);
    setting.faults.reconnect(node.index());
    let position = Some((offsets[1], live.epoch.as_str()));
    let refused = Reader::subscribe(&node, &route, position).await;
    assert_eq!(refused.err(), Some(SubscribeError::TimedOut));

    setting.faults.release_answers();
    setting.pass(2 * SECOND).await;
    assert!(live.read().1, "told at once");
    let back = Reader::resume(&node, &route, offsets[1], &live.epoch).await;
    assert!(!back.recovered && back.epoch != live.epoch);
}

#[tokio::test(start_paused = true)]
async fn l4_a_mark_whose_message_has_gone_proves_nothing() {
    for removed in [false, true] {
        let setting = Setting::plain();
        let (node, route) = (setting.node(), setting.route("a"));
        publish_many(&node, &route, 5).await;
        setting.pass(3 * SECOND).await;
        let (marked, _) = setting.entry().await;
        drop(node);
        // By age, or with its channel's history.
        let node = setting.node();
        if removed {
            node.hub.remove_history(&route).await.unwrap();
        } else {
            setting.faults.trim(SHARD, marked.mark_seq + 1);
        }
        let fresh = timeout(SECOND, node.hub.keeper(SHARD).unwrap().fresh()).await;
        assert_eq!(fresh.expect("an answer").epoch, marked.token, "{removed}");
    }
}

#[tokio::test(start_paused = true)]
async fn l4_an_old_answer_and_an_old_copy_are_only_a_suspicion() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    let mut offsets = publish_many(&node, &route, 3).await;
    setting.faults.hold_replica(SHARD, 1);
    offsets.extend(publish_many(&node, &route, 3).await);
    setting.breathe().await;
    setting.faults.replay_copy(SHARD, offsets[0]);
    setting.faults.depose_leader(SHARD, Some(1));
    let keeper = node.hub.keeper(SHARD).unwrap();
    assert!(timeout(SECOND, keeper.fresh()).await.is_err());
    let stream = &keeper.spec().stream;
    assert!(node.metrics.shard(stream).epoch_suspicions.get() > 0);
    setting.faults.depose_leader(SHARD, None);
    let fresh = timeout(2 * SECOND, keeper.fresh()).await.expect("an answer");
    assert_eq!(fresh.epoch.as_str(), reader.epoch, "the epoch stays");
    assert!(
        fresh.last_seq > *offsets.last().unwrap(),
        "an anchor was written to be sure"
    );
    offsets.push(publish(&node, &route).await);
    assert_eq!(reader.read_on(&setting).await, (offsets, false));
}

#[tokio::test(start_paused = true)]
async fn l5_who_comes_while_a_question_is_under_way_waits_for_the_next() {
    let setting = Setting::plain();
    let (asking, other, route) = (setting.node(), setting.node(), setting.route("a"));
    publish(&other, &route).await;
    let keeper = asking.hub.keeper(SHARD).unwrap();
    timeout(SECOND, keeper.fresh()).await.expect("an answer");
    setting
        .faults
        .hold_answers(Target::node(asking.index()), Request::Info);
    let first = keeper.fresh();
    tokio::pin!(first);
    // Before another node's mark tells of what it has stored meanwhile.
    let moment = Duration::from_millis(10);
    assert!(timeout(moment, first.as_mut()).await.is_err(), "it is held");
    // Stored after the question: its answer does not know of it.
    let later = publish(&other, &route).await;
    let second = keeper.fresh();
    tokio::pin!(second);
    assert!(timeout(moment, second.as_mut()).await.is_err());
    setting.faults.release_answers();
    let (first, second) = tokio::join!(first, second);
    assert!(first.last_seq < later, "{first:?}");
    assert!(second.last_seq >= later, "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn l6_what_another_clock_may_have_let_go_counts_as_gone() {
    // The class keeps ten minutes; clocks may differ by five seconds.
    for (age, recovered) in [(10 * 60 - 8, true), (10 * 60 - 3, false)] {
        let setting = Setting::plain();
        let (writer, route) = (setting.node(), setting.route("a"));
        let offset = publish(&writer, &route).await;
        let epoch = setting.epoch().await;
        setting.faults.advance(age * 1_000);
        publish(&writer, &setting.route("other")).await;
        drop(writer);
        // Nothing is stored where the client stands, and the message behind it still is.
        let node = setting.node();
        let reader = Reader::resume(&node, &route, 0, &epoch).await;
        let missed = if recovered { vec![offset] } else { vec![] };
        assert_eq!(
            (reader.recovered, reader.missed.clone()),
            (recovered, missed),
            "{age} s old"
        );
    }
}
