//! L13: pages of history against what is stored.

use proptest::{collection::vec, prelude::*};
use slipstream::{
    channel::HistoryRead,
    log::memory::{Request, Target},
    model::Offset,
};

use super::setting::{SHARD, Setting, publish, publish_many};

#[derive(Clone, Debug)]
enum Event {
    Publish(usize),
    Malformed,
    Wait(u16),
    Remove,
    TrimTo(u8),
    HoldReplica,
    ReleaseReplica,
}

/// What should be stored of the channel: offset and time.
#[derive(Default)]
struct Model {
    stored: Vec<(Offset, i64)>,
    /// Everything of the channel up to here may have gone.
    gone_to: Offset,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        10 => (0..2_usize).prop_map(Event::Publish),
        1 => Just(Event::Malformed),
        3 => (1..5_000_u16).prop_map(Event::Wait),
        1 => Just(Event::Remove),
        1 => (0..12_u8).prop_map(Event::TrimTo),
        1 => Just(Event::HoldReplica),
        1 => Just(Event::ReleaseReplica),
    ];
    vec(event, 1..60)
}

async fn play(events: Vec<Event>, limit: usize) -> Result<(), TestCaseError> {
    let setting = Setting::new(|class| class.replicas = 2);
    let node = setting.node();
    let routes = [setting.route("a"), setting.route("b")];
    let route = &routes[0];
    let mut model = Model::default();
    let mut ever = vec![0];
    for event in events {
        match event {
            Event::Publish(channel) => {
                let offset = publish(&node, &routes[channel]).await;
                ever.push(offset);
                if channel == 0 {
                    model.stored.push((offset, setting.faults.now_ms()));
                }
            }
            Event::Malformed => {
                setting.faults.store_unreadable(route, true);
            }
            Event::Wait(ms) => setting.faults.advance(ms.into()),
            // What goes is served as long as a replica lags: here none does then.
            Event::Remove => {
                setting.faults.release_replica(SHARD, 1);
                let offset = node.hub.remove_history(route).await.unwrap();
                model.stored.clear();
                model.gone_to = offset;
            }
            Event::TrimTo(back) => {
                setting.faults.release_replica(SHARD, 1);
                let below = setting.last_seq().await.saturating_sub(back.into());
                setting.faults.trim(SHARD, below);
                if below > 0 {
                    model.stored.retain(|(offset, _)| *offset >= below);
                    model.gone_to = model.gone_to.max(below - 1);
                }
            }
            Event::HoldReplica => setting.faults.hold_replica(SHARD, 1),
            Event::ReleaseReplica => setting.faults.release_replica(SHARD, 1),
        }
    }
    for &since in &ever {
        forward(&setting, &node, &model, since, limit).await?;
        backward(&setting, &node, &model, since, limit).await?;
    }
    by_time(&setting, &node, &model, limit).await
}

/// Pages forward from `since` to the end.
async fn forward(
    setting: &Setting,
    node: &crate::hubs::Node,
    model: &Model,
    since: Offset,
    limit: usize,
) -> Result<(), TestCaseError> {
    let expected: Vec<_> = model
        .stored
        .iter()
        .map(|(offset, _)| *offset)
        .filter(|it| *it > since)
        .collect();
    let mut got = Vec::new();
    let mut at = since;
    loop {
        let read = HistoryRead {
            since: Some(at),
            limit,
            ..HistoryRead::default()
        };
        let page = node.hub.history(&setting.route("a"), read).await.unwrap();
        prop_assert!(page.publications.len() <= limit);
        prop_assert!(
            page.gap || at >= model.gone_to || at != since,
            "gap after {}",
            since
        );
        let before = got.len();
        got.extend(page.publications.iter().map(|it| it.offset));
        let Some(last) = got.last().filter(|_| got.len() > before && page.more) else {
            prop_assert!(!page.more, "more, but nothing came");
            break;
        };
        at = *last;
    }
    prop_assert_eq!(got, expected, "after {}", since);
    Ok(())
}

/// Pages backward from `since` to the beginning.
async fn backward(
    setting: &Setting,
    node: &crate::hubs::Node,
    model: &Model,
    since: Offset,
    limit: usize,
) -> Result<(), TestCaseError> {
    let expected: Vec<_> = model
        .stored
        .iter()
        .rev()
        .map(|(offset, _)| *offset)
        .filter(|it| *it < since)
        .collect();
    let mut got = Vec::new();
    let mut at = since;
    loop {
        let read = HistoryRead {
            since: Some(at),
            limit,
            reverse: true,
            ..HistoryRead::default()
        };
        let page = node.hub.history(&setting.route("a"), read).await.unwrap();
        prop_assert!(page.publications.len() <= limit);
        got.extend(page.publications.iter().map(|it| it.offset));
        match page.publications.last() {
            Some(last) if page.more => at = last.offset,
            _ => break,
        }
    }
    prop_assert_eq!(got, expected, "before {}", since);
    Ok(())
}

async fn by_time(
    setting: &Setting,
    node: &crate::hubs::Node,
    model: &Model,
    limit: usize,
) -> Result<(), TestCaseError> {
    let times: Vec<_> = model.stored.iter().map(|(_, time)| *time).collect();
    for (&from, &to) in times.iter().zip(times.iter().skip(times.len() / 2)) {
        let inside = model.stored.iter().filter(|(_, time)| (from..to).contains(time));
        let mut expected: Vec<_> = inside.map(|(offset, _)| *offset).collect();
        for reverse in [false, true] {
            let read = HistoryRead {
                from_ms: Some(from),
                to_ms: Some(to),
                limit,
                reverse,
                ..HistoryRead::default()
            };
            let page = node.hub.history(&setting.route("a"), read).await.unwrap();
            let got: Vec<_> = page.publications.iter().map(|it| it.offset).collect();
            if reverse {
                expected.reverse();
            }
            prop_assert!(expected.starts_with(&got), "{got:?} of {expected:?}");
            prop_assert_eq!(
                page.more,
                got.len() < expected.len(),
                "{:?} of {:?}",
                got,
                expected
            );
        }
    }
    Ok(())
}

#[test]
fn l13_pages_hold_what_is_stored_in_both_directions_and_by_time() {
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(events in events(), limit in 1..12_usize)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(events, limit))?;
    });
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_named_only_if_something_may_be_missing() {
    let setting = Setting::plain();
    let (node, route) = (setting.node(), setting.route("a"));
    let offsets = publish_many(&node, &route, 6).await;
    setting.faults.trim(SHARD, offsets[3]);
    for (since, gap) in [
        (None, false),
        (Some(offsets[1]), true),
        (Some(offsets[2]), false),
        (Some(offsets[4]), false),
    ] {
        let read = HistoryRead {
            since,
            limit: 10,
            ..HistoryRead::default()
        };
        let page = node.hub.history(&route, read).await.unwrap();
        assert_eq!(page.gap, gap, "{since:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn history_waits_for_a_leader_that_counts() {
    let setting = Setting::new(|class| class.replicas = 3);
    let (node, route) = (setting.node(), setting.route("a"));
    publish(&node, &route).await;
    setting.faults.hold_replica(SHARD, 1);
    let last = publish(&node, &route).await;
    setting.faults.depose_leader(SHARD, Some(1));
    let read = HistoryRead {
        limit: 10,
        ..HistoryRead::default()
    };
    assert!(node.hub.history(&route, read.clone()).await.is_err());
    setting.faults.depose_leader(SHARD, None);
    setting.faults.hold_copies(Target::all());
    let page = node.hub.history(&route, read).await.unwrap();
    assert_eq!(page.publications.last().map(|it| it.offset), Some(last));
}

#[tokio::test(start_paused = true)]
async fn l8a_a_page_that_retention_tears_has_no_hole() {
    // (after which of nine, newest first, which of the reads is torn, the first that is kept then;
    // what is in the page, whether a gap is named, whether there is more)
    for (since, reverse, read, kept, got, gap, more) in [
        (None, false, 0, 3, 3..9, false, false),
        (Some(0), false, 0, 1, 1..9, false, false),
        (Some(0), false, 0, 3, 3..9, true, false),
        (None, false, 1, 5, 0..3, false, true),
        (None, true, 1, 4, 4..9, false, false),
    ] {
        let setting = Setting::plain();
        let (node, route) = (setting.node(), setting.route("a"));
        let offsets = publish_many(&node, &route, 9).await;
        let history = HistoryRead {
            since: since.map(|since: usize| offsets[since]),
            limit: 20,
            reverse,
            ..HistoryRead::default()
        };
        if read > 0 {
            setting.faults.hold_answers(Target::all(), Request::Read);
        } else {
            setting.faults.tear_page(SHARD, 1, offsets[kept]);
        }
        let coming = node.hub.history(&route, history);
        tokio::pin!(coming);
        let second = std::time::Duration::from_secs(1);
        let page = if read > 0 {
            let held = tokio::time::timeout(second, coming.as_mut()).await;
            assert!(held.is_err(), "the first read is held");
            setting.faults.tear_page(SHARD, 1, offsets[kept]);
            setting.faults.release_answers();
            coming.await
        } else {
            coming.await
        };
        let page = page.unwrap();
        let mut expected = offsets[got].to_vec();
        if reverse {
            expected.reverse();
        }
        let publications: Vec<_> = page.publications.iter().map(|it| it.offset).collect();
        assert_eq!(
            (publications, page.gap, page.more),
            (expected, gap, more),
            "{since:?} {reverse} {kept}"
        );
    }
}
