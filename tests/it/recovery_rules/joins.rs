//! L8, L9: what proves a position, and what the reply says.

use std::time::Duration;

use futures_util::future::join_all;
use slipstream::{
    channel::SubscribeError,
    log::memory::{Request, Target},
};

use super::setting::{Reader, SHARD, Setting, on, publish, publish_many};

const SECOND: Duration = Duration::from_secs(1);

/// A node that has no tail of the channel, and the epoch.
async fn stored(setting: &Setting, count: u64) -> (crate::hubs::Node, Vec<u64>, String) {
    let (writer, route) = (setting.node(), setting.route("a"));
    let offsets = publish_many(&writer, &route, count).await;
    let epoch = setting.epoch().await;
    drop(writer);
    (setting.node(), offsets, epoch)
}

#[tokio::test(start_paused = true)]
async fn l8a_what_is_stored_at_the_position_proves_the_rest() {
    let setting = Setting::plain();
    let route = setting.route("a");
    let (node, offsets, epoch) = stored(&setting, 6).await;
    setting.faults.trim(SHARD, offsets[2]);
    let mut reader = Reader::resume(&node, &route, offsets[2], &epoch).await;
    let mut got = reader.missed.clone();
    got.extend(reader.read_on(&setting).await.0);
    assert_eq!((reader.recovered, got), (true, offsets[3..].to_vec()));
}

#[tokio::test(start_paused = true)]
async fn l8b_otherwise_the_floor_decides() {
    for (keep_from, recovered) in [(2, false), (1, true)] {
        let setting = Setting::plain();
        let route = setting.route("a");
        let (node, offsets, epoch) = stored(&setting, 6).await;
        // The client stands at 0: nothing is stored there.
        setting.faults.trim(SHARD, offsets[0] + keep_from - 1);
        let mut reader = Reader::resume(&node, &route, 0, &epoch).await;
        assert_eq!(reader.recovered, recovered, "kept from {keep_from}");
        let mut got = reader.missed.clone();
        got.extend(reader.read_on(&setting).await.0);
        assert_eq!(got, if recovered { offsets } else { vec![] });
    }
}

#[tokio::test(start_paused = true)]
async fn l8c_a_ring_proves_what_the_log_no_longer_has() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let _other = Reader::fresh(&node, &route).await;
    let offsets = publish_many(&node, &route, 3).await;
    setting.breathe().await;
    setting.faults.trim(SHARD, offsets[2] + 1);
    let reader = Reader::resume(&node, &route, offsets[0], &setting.epoch().await).await;
    assert_eq!((reader.recovered, reader.missed), (true, offsets[1..].to_vec()));
}

#[tokio::test(start_paused = true)]
async fn l8c_a_tail_of_another_node_vouches_and_one_that_lost_it_does_not() {
    for (lost, recovered) in [(false, true), (true, false)] {
        let setting = Setting::plain();
        let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
        let _there = Reader::fresh(&two, &route).await;
        let offsets = publish_many(&one, &route, 3).await;
        setting.breathe().await;
        setting.faults.trim(SHARD, offsets[2] + 1);
        if lost {
            setting.faults.lose_node_messages(Target::node(two.index()), 1);
        }
        let reader = Reader::resume(&one, &route, offsets[0], &setting.epoch().await).await;
        let missed = if recovered { offsets[1..].to_vec() } else { vec![] };
        assert_eq!((reader.recovered, reader.missed), (recovered, missed));
    }
}

/// One message carries the questions of all who come together: where it is lost, all of them are.
#[tokio::test(start_paused = true)]
async fn l8c_questions_to_other_nodes_are_sent_together() {
    for lost in [false, true] {
        let setting = Setting::plain();
        let (one, two) = (setting.node(), setting.node());
        let routes: Vec<_> = (0..5).map(|n| setting.route(&format!("c{n}"))).collect();
        let (mut there, mut first, mut last) = (Vec::new(), Vec::new(), 0);
        for route in &routes {
            there.push(Reader::fresh(&two, route).await);
            let offsets = publish_many(&one, route, 3).await;
            first.push(offsets[0]);
            last = offsets[2];
        }
        setting.breathe().await;
        setting.faults.trim(SHARD, last + 1);
        if lost {
            setting.faults.lose_node_messages(Target::node(two.index()), 1);
        }
        let epoch = setting.epoch().await;
        let back = routes
            .iter()
            .zip(first)
            .map(|(route, offset)| Reader::resume(&one, route, offset, &epoch));
        for reader in join_all(back).await {
            assert_eq!(reader.recovered, !lost);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn l8c_a_tail_of_another_node_vouches_while_it_lingers() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    let there = Reader::fresh(&two, &route).await;
    let offsets = publish_many(&one, &route, 3).await;
    setting.breathe().await;
    drop(there);
    setting.pass(SECOND).await;
    setting.faults.trim(SHARD, offsets[2] + 1);
    let reader = Reader::resume(&one, &route, offsets[0], &setting.epoch().await).await;
    assert_eq!((reader.recovered, reader.missed), (true, offsets[1..].to_vec()));
}

#[tokio::test(start_paused = true)]
async fn l8c_a_ring_vouches_back_to_what_it_let_go_and_no_further() {
    // (how many it gets, how long it is left alone, from which on it still vouches)
    for (count, idle, vouches_from) in [(3, 1, 0), (9, 1, 4), (3, 20, 2)] {
        let setting = Setting::plain();
        let (node, route) = (setting.node(), setting.route("a"));
        let _live = Reader::fresh(&node, &route).await;
        let offsets = publish_many(&node, &route, count).await;
        setting.pass(idle * SECOND).await;
        let last = *offsets.last().unwrap();
        setting.faults.trim(SHARD, last + 1);
        for (n, offset) in offsets.iter().enumerate() {
            let back = Reader::resume(&node, &route, *offset, &setting.epoch().await).await;
            let expected = n >= vouches_from;
            assert_eq!(back.recovered, expected, "{n} of {count} after {idle} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn l8_that_nothing_newer_is_stored_proves_nothing() {
    let setting = Setting::plain();
    let route = setting.route("a");
    let (node, offsets, epoch) = stored(&setting, 3).await;
    // What the client has seen, and what it has not.
    setting.faults.trim(SHARD, offsets[2] + 1);
    for (offset, recovered) in [(offsets[0], false), (offsets[1], false), (offsets[2], true)] {
        let reader = Reader::resume(&node, &route, offset, &epoch).await;
        assert_eq!((reader.recovered, reader.missed), (recovered, vec![]), "{offset}");
    }
}

#[tokio::test(start_paused = true)]
async fn l8_in_a_class_with_a_limit_fewer_than_that_may_follow() {
    let setting = Setting::new(|class| class.max_per_channel = Some(4));
    let route = setting.route("a");
    let (node, offsets, epoch) = stored(&setting, 6).await;
    // Four are stored: the last three after offsets[2], which is stored itself.
    let reader = Reader::resume(&node, &route, offsets[2], &epoch).await;
    assert!(reader.recovered);
    let node = setting.node();
    let reader = Reader::resume(&node, &route, offsets[1], &epoch).await;
    assert!(
        !reader.recovered,
        "offsets[1] has been pushed out: something may have followed it"
    );
}

#[tokio::test(start_paused = true)]
async fn l8_claims_are_never_proof() {
    let setting = Setting::plain();
    let route = setting.route("a");
    let (node, offsets, epoch) = stored(&setting, 3).await;
    for (offset, claimed) in [(1_000, epoch.as_str()), (offsets[1], ""), (offsets[1], "another")] {
        let reader = Reader::resume(&node, &route, offset, claimed).await;
        assert!(!reader.recovered, "{offset} {claimed:?}");
        assert_eq!(reader.epoch, epoch, "and the epoch stays");
    }
}

#[tokio::test(start_paused = true)]
async fn l9_quiet_and_empty_channels_resume() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("empty"));
    publish_many(&node, &setting.route("other"), 5).await;
    let reader = Reader::fresh(&node, &route).await;
    drop(node);
    let node = setting.node();
    let back = Reader::resume(&node, &route, reader.offset, &reader.epoch).await;
    assert!(back.recovered && back.missed.is_empty() && back.offset >= reader.offset);
}

#[tokio::test(start_paused = true)]
async fn l9_the_reply_names_the_last_it_holds_or_else_the_watermark() {
    let setting = Setting::plain();
    let route = setting.route("a");
    let (node, offsets, epoch) = stored(&setting, 9).await;
    publish_many(&node, &setting.route("other"), 3).await;
    let mut far = Reader::resume(&node, &route, offsets[0], &epoch).await;
    assert_eq!(far.missed.last(), Some(&far.offset), "a page that does not reach");
    assert!(far.offset < offsets[8]);
    let near = Reader::resume(&node, &route, offsets[7], &epoch).await;
    assert_eq!(near.missed, offsets[8..]);
    assert_eq!(near.offset, setting.last_seq().await, "W: all is there");
    let mut got = far.missed.clone();
    got.extend(far.read_on(&setting).await.0);
    assert_eq!(got, offsets[1..]);
}

#[tokio::test(start_paused = true)]
async fn l9_without_an_answer_the_client_keeps_its_position() {
    for request in [Request::Info, Request::LastOf, Request::Read] {
        let setting = Setting::plain();
        let route = setting.route("a");
        let (node, offsets, epoch) = stored(&setting, 6).await;
        setting.faults.hold_answers(Target::node(node.index()), request);
        let position = Some((offsets[0], epoch.as_str()));
        let refused = Reader::subscribe(&node, &route, position).await;
        assert_eq!(refused.err(), Some(SubscribeError::TimedOut), "{request:?}");
        setting.faults.release_answers();
        let reader = Reader::resume(&node, &route, offsets[0], &epoch).await;
        assert!(reader.recovered, "{request:?}");
        drop(reader);
        setting.pass(10 * SECOND).await;
        assert_eq!(node.hub.tails(), 0, "{request:?}: nothing is left behind");
    }
}

#[tokio::test(start_paused = true)]
async fn l9_a_client_ahead_of_its_tail_gets_nothing_twice_and_misses_nothing() {
    let setting = Setting::plain();
    let (one, two, route) = (setting.node(), setting.node(), setting.route("a"));
    let _there = Reader::fresh(&two, &route).await;
    setting.faults.hold_copies(on(&two, &route));
    let offsets = publish_many(&one, &route, 3).await;
    let epoch = setting.epoch().await;
    let mut reader = Reader::resume(&two, &route, offsets[1], &epoch).await;
    assert_eq!(
        (reader.recovered, reader.missed.clone(), reader.offset),
        (true, vec![], offsets[1])
    );
    setting.faults.release_copies();
    assert_eq!(reader.read_on(&setting).await, (vec![offsets[2]], false));
}

#[tokio::test(start_paused = true)]
async fn l9_a_quiet_channel_older_than_max_age_survives_a_rolling_restart() {
    let setting = Setting::plain();
    let (mut one, mut two) = (setting.node(), setting.node());
    let (route, busy) = (setting.route("quiet"), setting.route("busy"));
    let first = publish(&one, &route).await;
    let mut position = (first, setting.epoch().await);
    let mut readers = [
        Reader::fresh(&one, &route).await,
        Reader::fresh(&two, &route).await,
    ];
    for _ in 0..20 {
        setting.pass(60 * SECOND).await;
        publish(&two, &busy).await;
    }
    for _ in 0..2 {
        // The first goes: its clients come to the second, which has a tail since long ago.
        let back = Reader::resume(&two, &route, position.0, &position.1).await;
        assert!(back.recovered && back.missed.is_empty());
        drop(std::mem::replace(&mut one, setting.node()));
        // Clients come to the new one from the second before that goes, or with old positions.
        let old = Reader::resume(&one, &route, position.0, &position.1).await;
        assert!(old.recovered, "the other's tail vouches");
        position = (old.offset, old.epoch.clone());
        readers = [back, old];
        setting.pass(20 * SECOND).await;
        publish(&one, &busy).await;
        std::mem::swap(&mut one, &mut two);
    }
    let next = publish(&one, &route).await;
    setting.breathe().await;
    let got = readers.each_mut().map(|reader| reader.read());
    assert!(got.contains(&(vec![next], false)), "{got:?}");
}
