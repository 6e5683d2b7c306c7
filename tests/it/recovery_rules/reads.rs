//! L10: pages that end early, and retention that passes readers.

use slipstream::{
    channel::MailboxLimits,
    log::memory::{Request, Target},
};

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
async fn l10_if_what_was_known_has_gone_the_floor_decides() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (node, route) = (setting.node(), setting.route("a"));
    let offsets = publish_many(&node, &route, 9).await;
    let _tail = Reader::fresh(&node, &route).await;
    setting.faults.hold_replica(SHARD, 1);
    setting.faults.answer_from(SHARD, Some(1));
    // More than the ring keeps, and gone from the leader.
    let last = *publish_many(&node, &route, 9).await.last().unwrap();
    setting.breathe().await;
    setting.faults.trim(SHARD, last + 1);
    // The replica has the position, but may have let go of what followed when it answered.
    let back = Reader::resume(&node, &route, offsets[0], &setting.epoch().await).await;
    assert_eq!((back.recovered, back.missed), (false, vec![]));
}

#[tokio::test(start_paused = true)]
async fn l8a_what_goes_while_a_page_is_put_together_is_not_passed_over() {
    // (which goes, of nine, after the first of a page has been read; whether the client is told)
    for (below, recovered) in [(0, true), (1, true), (2, false), (5, false)] {
        let setting = Setting::plain();
        let writer = setting.node();
        let route = setting.route("a");
        let offsets = publish_many(&writer, &route, 9).await;
        let epoch = setting.epoch().await;
        drop(writer);
        let node = setting.node();
        setting.faults.tear_page(SHARD, 1, offsets[below]);
        let mut back = Reader::resume(&node, &route, offsets[0], &epoch).await;
        let mut got = back.missed.clone();
        let (more, told) = back.read_on(&setting).await;
        got.extend(more);
        let expected = if recovered { &offsets[1..] } else { &[] };
        assert_eq!(
            (back.recovered, got.as_slice(), told),
            (recovered, expected, false),
            "below {below}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn l10_what_is_asked_for_at_once_is_bounded() {
    let setting = Setting::plain();
    let writer = setting.node();
    let routes: Vec<_> = (0..10).map(|n| setting.route(&format!("c{n}"))).collect();
    let mut positions = Vec::new();
    for route in &routes {
        positions.push(publish_many(&writer, route, 2).await[0]);
    }
    let epoch = setting.epoch().await;
    let node = setting.node();
    let here = Target::node(node.index());
    for request in [Request::Read, Request::Sweep] {
        setting.faults.hold_answers(here.clone(), request);
    }
    let coming = routes
        .iter()
        .zip(&positions)
        .map(|(route, position)| Reader::resume(&node, route, *position, &epoch));
    let coming = futures_util::future::join_all(coming);
    tokio::pin!(coming);
    let second = std::time::Duration::from_secs(1);
    assert!(tokio::time::timeout(second, coming.as_mut()).await.is_err());
    let (_, in_flight) = node.hub.catchup_load();
    assert!((1..=500).contains(&in_flight), "{in_flight} bytes");
    setting.faults.release_answers();
    for reader in tokio::time::timeout(second, coming).await.unwrap() {
        assert!(reader.recovered && reader.missed.len() == 1);
    }
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
    let (more, mut told) = slow.read_on(&setting).await;
    got.extend(more);
    // Other nodes are asked meanwhile, for the page that is read ahead too.
    for _ in 0..5 {
        let (more, later) = slow.read_on(&setting).await;
        got.extend(more);
        told |= later;
    }
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
    use slipstream::log::ReadError;
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
