//! L10: pages that end early, and retention that passes readers.

use slipstream::{channel::MailboxLimits, log::memory::Target};

use super::setting::{Reader, SHARD, Setting, publish_many, publish_with};

#[tokio::test(start_paused = true)]
async fn l10_after_short_reads_the_leader_has_the_rest() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (writer, route) = (setting.node(), setting.route("a"));
    let _tail = Reader::fresh(&writer, &route).await;
    let first = publish_many(&writer, &route, 3).await;
    setting.faults.hold_replica(SHARD, 1);
    setting.faults.answer_from(SHARD, Some(1));
    let mut offsets = first.clone();
    offsets.extend(publish_many(&writer, &route, 9).await);
    setting.breathe().await;
    let epoch = setting.epoch().await;
    let mut reader = Reader::resume(&writer, &route, offsets[0], &epoch).await;
    let mut got = reader.missed.clone();
    let (more, told) = reader.read_on(&setting).await;
    got.extend(more);
    assert_eq!((reader.recovered, told), (true, false));
    assert_eq!(got, offsets[1..]);
}

#[tokio::test(start_paused = true)]
async fn l10_what_the_leader_adds_must_continue_what_the_replica_gave() {
    let setting = Setting::new(|class| {
        class.replicas = 3;
        class.max_per_channel = Some(4);
    });
    let (node, route) = (setting.node(), setting.route("a"));
    let first = publish_many(&node, &route, 2).await;
    setting.faults.hold_replica(SHARD, 1);
    setting.faults.answer_from(SHARD, Some(1));
    let _tail = Reader::fresh(&node, &route).await;
    publish_many(&node, &route, 8).await;
    setting.breathe().await;
    // The replica still has what the limit has pushed out at the leader.
    let reader = Reader::resume(&node, &route, first[0], &setting.epoch().await).await;
    assert_eq!((reader.recovered, reader.missed), (false, vec![]));
}

#[tokio::test(start_paused = true)]
async fn l10_a_slow_reader_that_retention_passes_between_two_pages_is_told() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let limits = MailboxLimits {
        soft: 300,
        hard: 1 << 20,
    };
    let mut slow = Reader::with_limits(&node, &route, None, limits).await.unwrap();
    let offsets = publish_many(&node, &route, 40).await;
    setting.breathe().await;
    let (mut got, _) = slow.read();
    setting.breathe().await;
    got.extend(slow.read().0);
    assert!(!got.is_empty() && got.len() < 20, "{got:?}");
    setting.faults.trim(SHARD, offsets[30]);
    let (more, told) = slow.read_on(&setting).await;
    got.extend(more);
    assert!(told && offsets.starts_with(&got), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_catches_up_at_its_own_pace_whatever_the_size() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let limits = MailboxLimits {
        soft: 1_000,
        hard: 1 << 20,
    };
    let mut slow = Reader::with_limits(&node, &route, None, limits).await.unwrap();
    let mut offsets = Vec::new();
    // Larger than half of the mailbox, than all of it, than a page (400), and small ones between.
    for padding in [600, 10, 10, 3_000, 600, 10, 900, 900, 10, 10, 10, 600] {
        let published = publish_with(&node, &route, None, padding).await.unwrap();
        offsets.push(published.position.unwrap().offset);
        setting.breathe().await;
    }
    assert_eq!(slow.read_on(&setting).await, (offsets, false));
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_are_tried_again() {
    use slipstream::log::{ReadError, memory::Request};
    let setting = Setting::plain();
    let (writer, route) = (setting.node(), setting.route("a"));
    let offsets = publish_many(&writer, &route, 8).await;
    let epoch = setting.epoch().await;
    drop(writer);
    let node = setting.node();
    for request in [Request::Subscribe, Request::Info, Request::LastOf, Request::Read] {
        let target = Target::node(node.index());
        setting.faults.fail(target, request, ReadError::NoAnswer, 3);
    }
    let mut reader = Reader::resume(&node, &route, offsets[0], &epoch).await;
    let mut got = reader.missed.clone();
    got.extend(reader.read_on(&setting).await.0);
    assert_eq!((reader.recovered, got), (true, offsets[1..].to_vec()));
}
