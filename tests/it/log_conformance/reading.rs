//! Reads of what is stored.

use slipstream::{log::Body, model::Offset};

use super::suite::{Suite, body, sequences, settled, soon};

pub(super) async fn an_empty_channel_has_no_messages(suite: &Suite) {
    let route = suite.route("empty");
    let shard = route.shard().unwrap();
    for from in [0, 1, 1_000_000_000] {
        let page = soon(suite.log.read(&route, from, 10, 1 << 20)).await.unwrap();
        assert_eq!((page.messages, page.pending), (Vec::new(), 0));
        assert_eq!(soon(suite.log.read_leader(&route, from)).await.unwrap(), None);
    }
    let last = soon(suite.log.last_of(shard, &[route])).await.unwrap();
    assert_eq!(last.last, [None]);
}

pub(super) async fn a_read_starts_at_its_sequence(suite: &Suite) {
    let shard = suite.route("start").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "start", 2);
    let mut expected = Vec::new();
    for n in 0..4 {
        expected.push(suite.publish(&routes[0], &n.to_string()).await);
        suite.publish(&routes[1], "of another channel").await;
    }
    suite.read(&routes[0], 0, 4).await;
    for (from, found) in [
        (0, 4),
        (1, 4),
        (expected[0], 4),
        (expected[0] + 1, 3),
        (expected[2], 2),
        (expected[3], 1),
        (expected[3] + 1, 0),
        (expected[3] + 1_000_000, 0),
    ] {
        let page = suite.read(&routes[0], from, found).await;
        assert_eq!(sequences(&page), expected[4 - found..], "from {from}");
    }
}

pub(super) async fn a_page_ends_by_messages(suite: &Suite) {
    let route = suite.route("pages");
    let mut expected = Vec::new();
    for n in 0..7 {
        expected.push(suite.publish(&route, &n.to_string()).await);
    }
    let (mut found, mut from) = (Vec::new(), 0);
    for (count, pending) in [(3, 4), (3, 1), (1, 0)] {
        let page = settled(
            async || suite.log.read(&route, from, 3, 1 << 20).await,
            |page| page.messages.len() == count && page.pending == pending,
        )
        .await;
        found.extend(sequences(&page));
        from = found.last().unwrap() + 1;
    }
    assert_eq!(found, expected);
}

pub(super) async fn a_page_ends_by_bytes(suite: &Suite) {
    let route = suite.route("bytes");
    let text = "x".repeat(1_000);
    let mut expected = Vec::new();
    for _ in 0..10 {
        expected.push(suite.publish(&route, &text).await);
    }
    suite.read(&route, 0, 10).await;
    settled(
        async || suite.log.read(&route, expected[4], 10, 1).await,
        |page| sequences(page) == [expected[4]] && page.pending == 5,
    )
    .await;
    let (mut found, mut from, mut pages) = (Vec::<Offset>::new(), 0, 0);
    while found.len() < 10 {
        let left = 10 - found.len();
        let page = settled(
            async || suite.log.read(&route, from, 100, 2_500).await,
            |page| !page.messages.is_empty() && page.messages.len() as u64 + page.pending == left as u64,
        )
        .await;
        assert!(
            page.messages.len() < 10,
            "about 2,500 bytes are not all of 10,000"
        );
        found.extend(sequences(&page));
        from = found.last().unwrap() + 1;
        pages += 1;
    }
    assert_eq!(found, expected);
    assert!((2..=10).contains(&pages), "{pages}");
}

pub(super) async fn the_leader_reads_the_next(suite: &Suite) {
    let shard = suite.route("leader").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "leader", 2);
    let first = suite.publish(&routes[0], "1").await;
    let other = suite.publish(&routes[1], "of another channel").await;
    let last = suite.publish(&routes[0], "2").await;
    for (from, expected) in [
        (0, Some((first, body("1")))),
        (first, Some((first, body("1")))),
        (first + 1, Some((last, body("2")))),
        (other, Some((last, body("2")))),
        (last, Some((last, body("2")))),
        (last + 1, None),
    ] {
        let found = soon(suite.log.read_leader(&routes[0], from)).await.unwrap();
        let found = found.map(|stored| (stored.seq, stored.body));
        assert_eq!(found, expected, "from {from}: at once, without a second try");
    }
}

pub(super) async fn the_leader_knows_the_last_id(suite: &Suite) {
    let shard = suite.route("ids").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "ids", 2);
    let last = async || soon(suite.log.last_id(&routes[0])).await.unwrap();
    let last_id = async || last().await.map(|(id, _)| id);
    assert_eq!(last_id().await, None, "nothing is stored");
    for id in [Some("first"), Some("second"), None, Some("third")] {
        suite.publish_with(&routes[0], "x", id).await;
        assert_eq!(last_id().await.as_deref(), id);
    }
    suite.publish_with(&routes[1], "x", Some("other")).await;
    assert_eq!(last_id().await.as_deref(), Some("third"), "of another channel");
    let page = suite.read(&routes[0], 0, 4).await;
    assert_eq!(
        last().await.map(|(_, time)| time),
        page.messages.last().map(|message| message.time_ms)
    );
}

pub(super) async fn times_are_those_of_the_messages(suite: &Suite) {
    let route = suite.route("times");
    let shard = route.shard().unwrap();
    let first = suite.publish(&route, "1").await;
    let removed = suite.publish(&route, "2").await;
    for stored in suite.read(&route, first, 2).await.messages {
        let time = soon(suite.log.time_at(shard, stored.seq)).await.unwrap();
        assert_eq!(time, Some(stored.time_ms));
    }
    let last = soon(suite.log.remove(&route)).await.unwrap();
    for nothing in [removed, last + 1_000_000] {
        assert_eq!(soon(suite.log.time_at(shard, nothing)).await.unwrap(), None);
    }
}

pub(super) async fn last_of_a_thousand_channels(suite: &Suite) {
    let shard = suite.route("last").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "last", 1_000);
    let mut expected = vec![None; routes.len()];
    for at in [999, 0, 500, 499, 0] {
        expected[at] = Some(suite.publish(&routes[at], "x").await);
    }
    let newest = expected.iter().copied().max().flatten().unwrap();
    let answer = settled(
        async || suite.log.last_of(shard, &routes).await,
        |answer| answer.up_to >= newest,
    )
    .await;
    assert_eq!(answer.last, expected, "in the order asked");
    let absent = soon(suite.log.last_of(shard, &routes[1..3])).await.unwrap();
    assert_eq!(absent.last, [None, None]);
}

pub(super) async fn l12_a_sweep_sees_everything_in_order(suite: &Suite) {
    let shard = suite.route("sweep").shard().unwrap();
    let mine = suite.routes_in(shard, &suite.app, "sweep", 1).remove(0);
    let other = suite.routes_in(shard, &suite.other_app, "sweep", 1).remove(0);
    let start = suite.publish(&mine, "purged later").await;
    let first = suite.publish(&other, "of another app").await;
    let anchor = soon(suite.log.write_anchor(shard)).await.unwrap().seq;
    let tombstone = soon(suite.log.remove(&mine)).await.unwrap();
    let last = suite.publish(&mine, "after").await;

    let all = [first, anchor, tombstone, last];
    let sweep = settled(
        async || suite.log.sweep(shard, start, 100, 1 << 20).await,
        |sweep| sweep.messages.iter().map(|(_, stored)| stored.seq).eq(all) && sweep.pending == 0,
    )
    .await;
    let address = |at: usize| sweep.messages[at].0.as_str();
    let body_at = |at: usize| &sweep.messages[at].1.body;
    assert_eq!(
        (address(0), body_at(0)),
        (other.address(), &body("of another app"))
    );
    assert!(![mine.address(), other.address()].contains(&address(1)));
    assert_eq!((address(2), body_at(2)), (mine.address(), &Body::Tombstone));
    assert_eq!((address(3), body_at(3)), (mine.address(), &body("after")));

    for (from, found, pending) in [
        (start, &all[..2], 2),
        (anchor, &all[1..3], 1),
        (last, &all[3..], 0),
    ] {
        settled(
            async || suite.log.sweep(shard, from, 2, 1 << 20).await,
            |sweep| {
                let sequences = sweep.messages.iter().map(|(_, stored)| stored.seq);
                sequences.eq(found.iter().copied()) && sweep.pending == pending
            },
        )
        .await;
    }
    let beyond = soon(suite.log.sweep(shard, last + 1, 10, 1 << 20)).await.unwrap();
    assert_eq!((beyond.messages, beyond.pending), (Vec::new(), 0));
}

pub(super) async fn info_is_of_the_shard(suite: &Suite) {
    let route = suite.route("info");
    let shard = route.shard().unwrap();
    let first = suite.publish(&route, "1").await;
    let before = soon(suite.log.info(shard)).await.unwrap();
    assert_eq!(before.last_seq, first, "at once, without a second try");
    assert!(!before.created.is_empty());
    assert!((1..=first).contains(&before.first_seq));
    let first_time = soon(suite.log.time_at(shard, before.first_seq)).await.unwrap();
    assert_eq!(first_time, Some(before.first_time_ms));

    let last = suite.publish(&route, "2").await;
    let after = soon(suite.log.info(shard)).await.unwrap();
    assert_eq!(after.last_seq, last);
    assert_eq!(after.created, before.created);
    assert!(after.bytes > before.bytes);
}
