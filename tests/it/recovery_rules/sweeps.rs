//! L12: many who come back at once.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use slipstream::{
    log::{
        Route,
        memory::{ClassSpec, Request, Target},
    },
    model::Offset,
    telemetry::CatchupSource,
};
use tokio::time::timeout;

use super::setting::{Reader, SHARD, Setting, publish, publish_many};
use crate::hubs::Node;

const SECOND: Duration = Duration::from_secs(1);
const CHANNELS: usize = 6;

/// Clients of several channels that have missed something each, and a node that has no tails.
struct Storm {
    setting: Setting,
    routes: Vec<Route>,
    positions: Vec<Offset>,
    missed: Vec<Vec<Offset>>,
    epoch: String,
}

impl Storm {
    async fn new(change: impl FnOnce(&mut ClassSpec)) -> Self {
        let mut setting = Setting::new(change);
        setting.bounds.catchup.sweep_bytes = 100_000;
        let writer = setting.node();
        let routes: Vec<_> = (0..CHANNELS).map(|n| setting.route(&format!("c{n}"))).collect();
        let mut positions = Vec::new();
        for route in &routes {
            positions.push(publish(&writer, route).await);
        }
        let mut missed = Vec::new();
        for route in &routes {
            missed.push(publish_many(&writer, route, 2).await);
        }
        Self {
            epoch: setting.epoch().await,
            setting,
            routes,
            positions,
            missed,
        }
    }

    /// All come back at once, while nobody's own read is answered. Answers with those who are
    /// there all the same, and then with all; each as (recovered, everything it got).
    async fn breaks(&self, node: &Node) -> (Vec<usize>, Vec<(bool, Vec<Offset>)>) {
        let faults = &self.setting.faults;
        faults.hold_answers(Target::node(node.index()), Request::Read);
        let mut coming: FuturesUnordered<_> = (0..CHANNELS)
            .map(|n| async move {
                let resuming = Reader::resume(node, &self.routes[n], self.positions[n], &self.epoch);
                (n, resuming.await)
            })
            .collect();
        let mut readers: Vec<Option<Reader>> = (0..CHANNELS).map(|_| None).collect();
        let mut early = Vec::new();
        while let Ok(Some((n, reader))) = timeout(SECOND, coming.next()).await {
            early.push(n);
            readers[n] = Some(reader);
        }
        faults.release_answers();
        while let Some((n, reader)) = coming.next().await {
            readers[n] = Some(reader);
        }
        early.sort_unstable();
        let mut got = Vec::new();
        for reader in &mut readers {
            let reader = reader.as_mut().unwrap();
            let mut offsets = reader.missed.clone();
            offsets.extend(reader.read_on(&self.setting).await.0);
            got.push((reader.recovered, offsets));
        }
        (early, got)
    }

    fn whole(&self) -> Vec<(bool, Vec<Offset>)> {
        self.missed.iter().map(|missed| (true, missed.clone())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn l12_one_sweep_feeds_all_who_wait() {
    let storm = Storm::new(|_| {}).await;
    let node = storm.setting.node();
    let (early, got) = storm.breaks(&node).await;
    assert_eq!(got, storm.whole());
    assert!(early.len() >= CHANNELS - 1, "one may read alone: {early:?}");
    let swept = node.metrics.catchup_publications.of(CatchupSource::Sweep).get();
    assert!(swept >= 2 * (CHANNELS - 1) as u64, "{swept}");
}

#[tokio::test(start_paused = true)]
async fn l12_the_floor_proves_those_whose_place_the_sweep_did_not_pass() {
    let storm = Storm::new(|_| {}).await;
    // What they have seen is gone, and nothing else: the last is at the floor, the others below.
    storm.setting.faults.trim(SHARD, storm.missed[0][0]);
    let (_, got) = storm.breaks(&storm.setting.node()).await;
    let mut expected: Vec<_> = vec![(false, vec![]); CHANNELS - 1];
    expected.push((true, storm.missed[CHANNELS - 1].clone()));
    assert_eq!(got, expected);
}

#[tokio::test(start_paused = true)]
async fn l12_a_tombstone_sends_its_channel_to_a_read_of_its_own() {
    let storm = Storm::new(|_| {}).await;
    let node = storm.setting.node();
    node.hub.remove_history(&storm.routes[2]).await.unwrap();
    let (early, got) = storm.breaks(&storm.setting.node()).await;
    let mut expected = storm.whole();
    expected[2] = (false, vec![]);
    assert_eq!(got, expected);
    assert!(early.len() >= CHANNELS - 2, "{early:?}");
}

#[tokio::test(start_paused = true)]
async fn l12_where_channels_keep_few_the_sweep_proves_only_what_cannot_have_lost_any() {
    for (more, recovered) in [(0, true), (17, true), (18, false), (25, false)] {
        let storm = Storm::new(|class| class.max_per_channel = Some(20)).await;
        let busy = storm.setting.node();
        let later = publish_many(&busy, &storm.routes[3], more).await;
        let (_, got) = storm.breaks(&storm.setting.node()).await;
        let mut expected = storm.whole();
        expected[3].1.extend(later);
        if !recovered {
            expected[3] = (false, vec![]);
        }
        assert_eq!(got, expected, "{more} more");
    }
}

#[tokio::test(start_paused = true)]
async fn l12_what_goes_while_a_sweep_reads_is_not_passed_over() {
    let storm = Storm::new(|_| {}).await;
    // The sweep has passed all positions when the first channels lose what they have missed.
    let torn = storm.missed[3][0];
    let passed = u32::try_from(CHANNELS).unwrap();
    storm.setting.faults.tear_page(SHARD, passed - 1, torn);
    let (_, got) = storm.breaks(&storm.setting.node()).await;
    for (n, (recovered, offsets)) in got.iter().enumerate() {
        let whole = (true, storm.missed[n].clone());
        assert!(
            !recovered && offsets.is_empty() || (*recovered, offsets.clone()) == whole,
            "{n}: {offsets:?}"
        );
        assert!(!recovered || n >= 3, "{n} has lost something");
    }
}

#[tokio::test(start_paused = true)]
async fn l5_a_leader_that_does_not_know_of_what_was_swept_proves_no_floor() {
    let storm = Storm::new(|class| class.replicas = 3).await;
    let faults = &storm.setting.faults;
    faults.hold_replica(SHARD, 1);
    publish(&storm.setting.node(), &storm.routes[2]).await;
    faults.trim(SHARD, storm.missed[3][0]);
    // It still has all that has gone. The replicas take turns, and the look is its own.
    faults.depose_leader(SHARD, Some(1));
    let node = storm.setting.node();
    let coming = storm.breaks(&node);
    tokio::pin!(coming);
    let healed = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        faults.depose_leader(SHARD, None);
        std::future::pending::<()>().await;
    };
    let (_, got) = tokio::select! {
        got = coming => got,
        () = healed => unreachable!(),
    };
    assert_eq!(got[2], (false, vec![]), "what it has missed is gone");
}

#[tokio::test(start_paused = true)]
async fn l12_who_comes_back_to_one_channel_waits_for_one_read() {
    let storm = Storm::new(|_| {}).await;
    let (node, route) = (storm.setting.node(), &storm.routes[0]);
    storm
        .setting
        .faults
        .hold_answers(Target::node(node.index()), Request::Read);
    let coming: FuturesUnordered<_> = (0..20)
        .map(|_| Reader::resume(&node, route, storm.positions[0], &storm.epoch))
        .collect();
    let coming = coming.collect::<Vec<_>>();
    tokio::pin!(coming);
    assert!(timeout(SECOND, coming.as_mut()).await.is_err());
    let (waiting, bytes) = node.hub.catchup_load();
    assert!(bytes > 0 && waiting == 0, "the others ask for nothing");
    storm.setting.faults.release_answers();
    for reader in timeout(SECOND, coming).await.unwrap() {
        assert_eq!((reader.recovered, &reader.missed), (true, &storm.missed[0]));
    }
}
