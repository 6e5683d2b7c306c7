//! Publishing, live copies, removal.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use slipstream::{
    log::{Ack, Body, ShardId},
    model::{ClassName, ClientInfo, Kind, Record},
};

use super::suite::{Suite, body, key, next_copy, record, sequences, settled, soon};

pub(super) async fn shards_are_numbered(suite: &Suite) {
    let mut streams = HashSet::new();
    for (index, spec) in suite.log.shards().iter().enumerate() {
        assert_eq!(usize::from(spec.id.0), index);
        assert!(
            streams.insert(spec.stream.clone()),
            "two shards are {}",
            spec.stream
        );
    }
    let route = suite.route("numbered");
    let ShardId(index) = route.shard().unwrap();
    assert_eq!(suite.log.shards()[usize::from(index)].class, suite.class);
    assert_eq!(route, suite.route("numbered"), "a channel stays where it is");
    let nowhere = ClassName::new("nosuchclass").unwrap();
    assert!(
        suite
            .log
            .route(&key(&suite.app, "numbered"), Some(&nowhere))
            .is_none()
    );
    assert!(suite.log.connected());
    soon(suite.log.flush()).await;
}

pub(super) async fn sequences_ascend_over_channels(suite: &Suite) {
    let shard = suite.route("ascend").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "ascend", 3);
    let mut last = 0;
    for route in routes.iter().cycle().take(9) {
        let seq = suite.publish(route, "x").await;
        assert!(seq > last, "{seq} after {last}");
        last = seq;
    }
}

/// Records of all forms: with everything that a record may have, and with nothing.
fn all_forms() -> [Record; 4] {
    let json = |text: &'static str| Bytes::from_static(text.as_bytes());
    let everything = Record {
        kind: Kind::Json,
        data: json(r#"{"text":"ü 𝄞 \n","n":[1,2.5,null]}"#),
        info: Some(ClientInfo {
            client: "0193-client".into(),
            user: "jörg <j@example>\r\nNats-Msg-Id: forged".into(),
            conn_info: Some(json(r#"{"name":"Jörg"}"#)),
            chan_info: Some(json("[]")),
        }),
        tags: vec![
            ("plain".into(), "value".into()),
            ("ключ: %0D%0A".into(), "значение\r\nNats-Rollup: all".into()),
            (String::new(), String::new()),
            ("plain".into(), " again ".into()),
        ],
    };
    let bytes = Record {
        kind: Kind::Bytes,
        data: Bytes::from_static(&[0, 255, b'\r', b'\n', 0]),
        info: Some(ClientInfo::default()),
        tags: Vec::new(),
    };
    let nothing = Record {
        kind: Kind::Bytes,
        data: Bytes::new(),
        info: None,
        tags: Vec::new(),
    };
    [record("x"), everything, bytes, nothing]
}

/// What an app's budget is charged with is what the store takes, to the byte.
pub(super) async fn l2_a_publication_costs_what_is_charged(suite: &Suite) {
    let id = format!("{}-cost", suite.app);
    for name in ["cost", "cost:ü.with a long name", "cost:."] {
        let route = suite.route(name);
        let shard = route.shard().unwrap();
        for (record, id) in all_forms()
            .iter()
            .zip([None, Some(format!("{id}-{name}")), None, None])
        {
            let before = soon(suite.log.info(shard)).await.unwrap().bytes;
            let charged = suite
                .log
                .stored_bytes(&route, record, id.as_ref().map(String::len));
            soon(suite.log.publish(&route, record, id.as_deref()).unwrap())
                .await
                .unwrap();
            let after = soon(suite.log.info(shard)).await.unwrap().bytes;
            assert_eq!(after - before, charged, "{name}: {record:?}");
        }
    }
}

pub(super) async fn copies_carry_the_record_exactly(suite: &Suite) {
    let route = suite.route("exactly");
    let mut copies = suite.subscribe(&route).await;
    let (mut prev, mut stored) = (0, Vec::new());
    for record in all_forms() {
        let ack = soon(suite.log.publish(&route, &record, None).unwrap())
            .await
            .unwrap();
        let copy = next_copy(&mut *copies).await;
        assert_eq!((copy.stored.seq, copy.prev), (ack.seq, prev));
        assert!(copy.stored.time_ms > 0);
        assert_eq!(copy.stored.body, Body::Publication(record));
        prev = ack.seq;
        stored.push(copy.stored);
    }
    let page = suite.read(&route, 0, stored.len()).await;
    assert_eq!(page.messages, stored, "what is read is what came live");
}

pub(super) async fn copies_go_to_every_subscription(suite: &Suite) {
    let route = suite.route("every");
    let mut first = suite.subscribe(&route).await;
    suite.publish(&route, "1").await;
    let mut second = suite.subscribe(&route).await;
    let seq = suite.publish(&route, "2").await;
    assert_eq!(next_copy(&mut *first).await.stored.body, body("1"));
    assert_eq!(next_copy(&mut *first).await.stored.seq, seq);
    assert_eq!(next_copy(&mut *second).await.stored.seq, seq, "from then on");
    drop(first);
    let seq = suite.publish(&route, "3").await;
    assert_eq!(
        next_copy(&mut *second).await.stored.seq,
        seq,
        "also when another ends"
    );
}

pub(super) async fn prev_is_the_last_stored_of_the_channel(suite: &Suite) {
    let shard = suite.route("prev").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "prev", 2);
    let mut copies = suite.subscribe(&routes[0]).await;
    let mut prev = 0;
    for n in 0..3 {
        suite.publish(&routes[1], "of another channel").await;
        let seq = suite.publish(&routes[0], &format!("{n}")).await;
        let copy = next_copy(&mut *copies).await;
        assert_eq!((copy.prev, copy.stored.seq), (prev, seq));
        prev = seq;
    }
}

pub(super) async fn l14_a_repeat_is_answered_with_the_first(suite: &Suite) {
    let shard = suite.route("repeat").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "repeat", 2);
    let id = format!("{}-id", suite.app);
    let mut copies = suite.subscribe(&routes[0]).await;
    let first = suite.publish_with(&routes[0], "1", Some(&id)).await;
    assert!(!first.duplicate);
    suite.publish(&routes[1], "between").await;
    let repeat = Ack {
        seq: first.seq,
        duplicate: true,
    };
    for text in ["1", "another payload"] {
        assert_eq!(suite.publish_with(&routes[0], text, Some(&id)).await, repeat);
    }
    let other = suite.publish_with(&routes[0], "2", Some(&format!("{id}2"))).await;
    assert!(!other.duplicate && other.seq > first.seq);

    assert_eq!(next_copy(&mut *copies).await.stored.seq, first.seq);
    let next = next_copy(&mut *copies).await;
    assert_eq!(
        (next.stored.seq, next.prev),
        (other.seq, first.seq),
        "repeats send nothing"
    );
    let page = suite.read(&routes[0], 0, 2).await;
    assert_eq!(sequences(&page), [first.seq, other.seq]);
}

pub(super) async fn l14_synchronous_publishes_keep_their_order(suite: &Suite) {
    let route = suite.route("order");
    let mut copies = suite.subscribe(&route).await;
    let texts: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let publish = |text: &String| suite.log.publish(&route, &record(text), None).unwrap();
    let acks: Vec<_> = texts.iter().map(publish).collect();
    let (mut last, mut expected) = (0, Vec::new());
    for (ack, text) in acks.into_iter().zip(&texts) {
        let seq = soon(ack).await.unwrap().seq;
        assert!(seq > last, "{seq} after {last}");
        let copy = next_copy(&mut *copies).await;
        assert_eq!((copy.stored.seq, &copy.stored.body), (seq, &body(text)));
        last = seq;
        expected.push(seq);
    }
    let page = suite.read(&route, 0, texts.len()).await;
    assert_eq!(sequences(&page), expected);
}

pub(super) async fn l15_removal_leaves_a_tombstone(suite: &Suite) {
    let shard = suite.route("removal").shard().unwrap();
    let routes = suite.routes_in(shard, &suite.app, "removal", 2);
    let kept = suite.publish(&routes[1], "kept").await;
    let mut copies = suite.subscribe(&routes[0]).await;
    let mut last = 0;
    for text in ["1", "2", "3"] {
        last = suite.publish(&routes[0], text).await;
        next_copy(&mut *copies).await;
    }

    let tombstone = soon(suite.log.remove(&routes[0])).await.unwrap();
    assert!(tombstone > last);
    let copy = next_copy(&mut *copies).await;
    assert_eq!((copy.stored.seq, copy.prev), (tombstone, last));
    assert_eq!(copy.stored.body, Body::Tombstone);
    let page = suite.read(&routes[0], 0, 1).await;
    assert_eq!(page.messages, [copy.stored]);
    assert_eq!(sequences(&suite.read(&routes[1], 0, 1).await), [kept]);

    let after = suite.publish(&routes[0], "after").await;
    let copy = next_copy(&mut *copies).await;
    assert_eq!((copy.stored.seq, copy.prev), (after, tombstone));
    let page = suite.read(&routes[0], 0, 2).await;
    assert_eq!(sequences(&page), [tombstone, after]);
}

pub(super) async fn l16_ephemeral_channels_store_nothing(suite: &Suite) {
    let route = suite.ephemeral("ephemeral");
    assert_eq!(route.shard(), None);
    let lost = suite.publish_with(&route, "nobody subscribed", None).await;
    let none = Ack {
        seq: 0,
        duplicate: false,
    };
    assert_eq!(lost, none);
    // It may be on its way still, on another connection than the subscription will be.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut copies = suite.subscribe(&route).await;
    for text in ["1", "2"] {
        assert_eq!(suite.publish_with(&route, text, None).await, none);
        let copy = next_copy(&mut *copies).await;
        assert_eq!((copy.stored.seq, copy.prev), (0, 0));
        assert_eq!(copy.stored.body, body(text));
        assert!(copy.stored.time_ms > 0);
    }
    for spec in suite.log.shards() {
        let last = soon(suite.log.info(spec.id)).await.unwrap().last_seq;
        let sweep = settled(
            async || {
                suite
                    .log
                    .sweep(spec.id, last.saturating_sub(9), 100, 1 << 20)
                    .await
            },
            |sweep| sweep.messages.last().is_none_or(|(_, stored)| stored.seq >= last),
        )
        .await;
        let found = sweep
            .messages
            .iter()
            .any(|(address, _)| *address == route.address());
        assert!(!found, "{sweep:?}");
    }
}
