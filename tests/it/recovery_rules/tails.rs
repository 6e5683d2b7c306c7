//! L7, L11, L14, L15, L16: what a tail makes of copies, checks, nudges and removals.

use std::time::Duration;

use slipstream::{
    channel::MailboxLimits,
    log::{
        PublishError,
        memory::{Request, Target},
    },
};

use super::setting::{Reader, SHARD, Setting, on, publish, publish_many, publish_with};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn l7_whatever_becomes_of_copies_the_reader_gets_each_once() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    let here = || on(&node, &route);
    let mut expected = Vec::new();
    let trouble: [&dyn Fn(); 5] = [
        &|| {},
        &|| setting.faults.drop_copies(here(), 1),
        &|| setting.faults.repeat_copies(here(), 3),
        &|| setting.faults.drop_copies(here(), 3),
        &|| setting.faults.hold_copies(here()),
    ];
    for make in trouble {
        make();
        expected.extend(publish_many(&node, &route, 4).await);
        setting.faults.release_copies();
        setting.breathe().await;
        setting.faults.replay_copy(SHARD, expected[0]);
    }
    assert_eq!(reader.read_on(&setting).await, (expected, false));
}

#[tokio::test(start_paused = true)]
async fn l7_a_first_copy_without_a_predecessor_needs_the_floor() {
    // (what the shard has lost before the copy comes, whether the reader is told)
    for (trimmed, told) in [(false, false), (true, true)] {
        let setting = Setting::plain();
        let (node, route) = (setting.node(), setting.route("a"));
        publish_many(&node, &setting.route("other"), 3).await;
        let mut reader = Reader::fresh(&node, &route).await;
        if trimmed {
            setting.faults.drop_copies(on(&node, &route), 1);
            let lost = publish(&node, &route).await;
            setting.faults.trim(SHARD, lost + 1);
        }
        let offset = publish(&node, &route).await;
        let got = if told { vec![] } else { vec![offset] };
        assert_eq!(reader.read_on(&setting).await, (got, told), "trimmed: {trimmed}");
    }
}

#[tokio::test(start_paused = true)]
async fn l7_interest_comes_before_the_watermark() {
    let setting = Setting::plain();
    let (node, other, route) = (setting.node(), setting.node(), setting.route("a"));
    let before = publish(&other, &route).await;
    setting
        .faults
        .hold_answers(Target::node(node.index()), Request::Info);
    let coming = Reader::fresh(&node, &route);
    tokio::pin!(coming);
    assert!(tokio::time::timeout(SECOND, coming.as_mut()).await.is_err());
    // Stored after the leader was asked how far it is.
    let meanwhile = publish(&other, &route).await;
    setting.faults.release_answers();
    let mut reader = coming.await;
    let next = publish(&other, &route).await;
    let (got, told) = reader.read_on(&setting).await;
    let expected: Vec<_> = [meanwhile, next]
        .into_iter()
        .filter(|offset| *offset > reader.offset)
        .collect();
    assert!(reader.offset >= before);
    assert_eq!((got, told), (expected, false));
}

#[tokio::test(start_paused = true)]
async fn l7_a_first_copy_behind_one_that_did_not_come_is_a_gap() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    publish(&node, &route).await;
    let mut reader = Reader::fresh(&node, &route).await;
    setting.faults.drop_copies(on(&node, &route), 2);
    let offsets = publish_many(&node, &route, 3).await;
    assert_eq!(reader.read_on(&setting).await, (offsets, false));
}

#[tokio::test(start_paused = true)]
async fn l7_a_copy_whose_predecessor_has_gone_continues_if_the_floor_holds() {
    // (what has gone beyond the predecessor, whether the reader is told)
    for (beyond, told) in [(false, false), (true, true)] {
        let setting = Setting::plain();
        let (node, route) = (setting.node(), setting.route("a"));
        let mut reader = Reader::fresh(&node, &route).await;
        let mut expected = vec![publish(&node, &route).await];
        setting.breathe().await;
        let mut gone = expected[0];
        if beyond {
            setting.faults.drop_copies(on(&node, &route), 1);
            gone = publish(&node, &route).await;
        }
        setting.faults.trim(SHARD, gone + 1);
        let next = publish(&node, &route).await;
        if !told {
            expected.push(next);
        }
        assert_eq!(
            reader.read_on(&setting).await,
            (expected, told),
            "beyond: {beyond}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn l7_a_burst_beyond_all_buffers_is_read_from_the_log() {
    let setting = Setting::plain();
    setting.faults.set_subscription_capacity(4);
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting
        .faults
        .hold_answers(Target::node(node.index()), Request::Read);
    let mut expected = Vec::new();
    for _ in 0..60 {
        let sent = node.hub.publish(&route, &crate::hubs::record(0, 40), None);
        expected.push(sent.unwrap());
    }
    setting.breathe().await;
    expected.push(
        node.hub
            .publish(&route, &crate::hubs::record(0, 40), None)
            .unwrap(),
    );
    setting.breathe().await;
    setting.faults.release_answers();
    let mut offsets = Vec::new();
    for published in expected {
        offsets.push(published.await.unwrap().position.unwrap().offset);
    }
    let got = reader.read_on(&setting).await;
    assert_eq!(got, (offsets, false));
}

#[tokio::test(start_paused = true)]
async fn l7_a_publication_of_a_newer_program_ends_who_would_miss_it() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    let first = publish(&node, &route).await;
    setting.faults.store_unreadable(&route, true);
    let second = publish(&node, &route).await;
    assert_eq!(reader.read_on(&setting).await, (vec![first, second], false));
    setting.faults.store_unreadable(&route, false);
    publish(&node, &route).await;
    assert_eq!(reader.read_on(&setting).await, (vec![], true));
}

#[tokio::test(start_paused = true)]
async fn l11_the_last_copy_before_a_silence_is_found_by_the_check() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting.pass(2 * SECOND).await;
    setting.faults.drop_copies(on(&node, &route), 1);
    let lost = publish(&node, &route).await;
    setting.breathe().await;
    assert_eq!(reader.read(), (vec![], false));
    setting.pass(15 * SECOND).await;
    assert_eq!(reader.read(), (vec![lost], false));
}

#[tokio::test(start_paused = true)]
async fn l11_a_tail_that_had_a_gap_at_the_check_is_checked_again_though_nothing_moved() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting.pass(2 * SECOND).await;
    setting
        .faults
        .hold_answers(Target::node(node.index()), Request::Read);
    setting.faults.drop_copies(on(&node, &route), 1);
    let mut expected = publish_many(&node, &route, 2).await;
    setting.breathe().await;
    setting.faults.drop_copies(on(&node, &route), 1);
    expected.push(publish(&node, &route).await);
    setting.pass(15 * SECOND).await;
    setting.faults.release_answers();
    setting.pass(15 * SECOND).await;
    let (got, told) = reader.read_on(&setting).await;
    assert_eq!((got, told), (expected, false));
}

#[tokio::test(start_paused = true)]
async fn l11_a_reconnect_finds_what_was_published_meanwhile() {
    let setting = Setting::plain();
    let (node, other, route) = (setting.node(), setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    setting.faults.disconnect(node.index());
    let lost = publish(&other, &route).await;
    setting.faults.reconnect(node.index());
    assert_eq!(reader.read_on(&setting).await, (vec![lost], false));
}

#[tokio::test(start_paused = true)]
async fn l14_without_a_key_nothing_is_sent_a_second_time() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut reader = Reader::fresh(&node, &route).await;
    let before = setting.last_seq().await;
    setting.faults.lose_acks(Target::node(node.index()), 1);
    let lost = publish_with(&node, &route, None, 0).await;
    assert!(matches!(lost, Err(PublishError::Unknown)), "{lost:?}");
    setting.pass(15 * SECOND).await;
    assert_eq!(setting.last_seq().await, before + 1);
    assert_eq!(reader.read(), (vec![before + 1], false));
}

#[tokio::test(start_paused = true)]
async fn l14_a_duplicate_nudges_all_tails() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    let mut here = Reader::fresh(&one, &route).await;
    let mut there = Reader::fresh(&two, &route).await;
    setting.pass(2 * SECOND).await;
    setting
        .faults
        .crash_before_republish(Target::node(one.index()), 1);
    let crashed = publish_with(&one, &route, Some("key"), 0).await;
    assert!(matches!(crashed, Err(PublishError::Unknown)));
    // Its client tries again elsewhere.
    let again = publish_with(&two, &route, Some("key"), 0).await.unwrap();
    assert!(again.duplicate);
    let offset = again.position.unwrap().offset;
    setting.breathe().await;
    assert_eq!(here.read(), (vec![offset], false));
    assert_eq!(there.read(), (vec![offset], false));
}

#[tokio::test(start_paused = true)]
async fn l14_a_duplicate_of_an_old_epoch_nudges_nobody() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    publish_many(&one, &route, 5).await;
    publish_with(&one, &route, Some("key"), 0).await.unwrap();
    setting.faults.hold_acks(Target::node(one.index()));
    let held = one.hub.publish(&route, &crate::hubs::record(0, 0), Some("key"));
    setting.faults.recreate(SHARD);
    let mut reader = Reader::fresh(&two, &route).await;
    setting.faults.release_answers();
    let _ = held.unwrap().await;
    let offset = publish(&two, &route).await;
    assert_eq!(reader.read_on(&setting).await, (vec![offset], false));
}

#[tokio::test(start_paused = true)]
async fn l15_removal_ends_only_those_who_have_not_read_it() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let mut live = Reader::fresh(&node, &route).await;
    let limits = MailboxLimits {
        soft: 100,
        hard: 1 << 20,
    };
    let mut slow = Reader::with_limits(&node, &route, None, limits).await.unwrap();
    let before = publish_many(&node, &route, 12).await;
    assert_eq!(live.read_on(&setting).await, (before.clone(), false));
    node.hub.remove_history(&route).await.unwrap();
    let after = publish(&node, &route).await;
    assert_eq!(live.read_on(&setting).await, (vec![after], false));

    let (got, told) = slow.read_on(&setting).await;
    assert!(told && before.starts_with(&got), "{got:?}");
    let back = Reader::resume(&node, &route, before[3], &live.epoch).await;
    assert_eq!((back.recovered, back.missed), (false, vec![]));
    let up_to_date = Reader::resume(&node, &route, after, &live.epoch).await;
    assert!(up_to_date.recovered);
}

#[tokio::test(start_paused = true)]
async fn l16_a_slow_reader_of_an_ephemeral_channel_is_told() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.ephemeral("a"));
    let mut quick = Reader::fresh(&node, &route).await;
    let mut slow = Reader::fresh(&node, &route).await;
    let mut got = 0;
    for _ in 0..40 {
        publish_with(&node, &route, None, 40).await.unwrap();
        setting.breathe().await;
        got += quick.read().0.len();
    }
    assert_eq!((got, quick.read().1), (40, false));
    let (some, told) = slow.read();
    assert!(told && !some.is_empty() && some.len() < 40);
}
