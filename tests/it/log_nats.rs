//! The NATS log against a real nats-server: what only it can get wrong. What every log must do is
//! the conformance suite's.

mod connections;
mod faults;
mod setup;
mod work;

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use slipstream::{
    log::{Body, Copies, Copy, Log, LogEvent, NodeMessage, Route, nats::NatsLog},
    model::{AppId, ChannelKey, ChannelName, ClassName, Epoch, Kind, Record},
};

use crate::support::{
    nats::{NatsServer, TestLog, fresh_log},
    within,
};

fn key(app: &str, name: &str) -> ChannelKey {
    ChannelKey {
        app: AppId::new(app).unwrap(),
        name: ChannelName::new(name).unwrap(),
    }
}

fn route(log: &NatsLog, class: &str, name: &str) -> Route {
    log.route(&key("dev", name), ClassName::new(class).as_ref())
        .unwrap()
}

fn record(text: impl Into<String>) -> Record {
    Record {
        kind: Kind::Bytes,
        data: Bytes::from(text.into()),
        info: None,
        tags: Vec::new(),
    }
}

/// Subscribes, and asks something over the same connection: then the server has the subscription.
async fn subscribe(log: &NatsLog, route: &Route) -> Box<dyn Copies> {
    let copies = within(log.subscribe(route)).await.unwrap();
    within(log.info(route.shard().unwrap())).await.unwrap();
    copies
}

async fn publish(log: &NatsLog, route: &Route, text: &str) -> u64 {
    within(log.publish(route, &record(text), None).unwrap())
        .await
        .unwrap()
        .seq
}

async fn next(copies: &mut Box<dyn Copies>) -> Copy {
    within(poll_fn(|cx| copies.poll_next(cx)))
        .await
        .expect("the subscription has ended")
}

fn text(body: &Body) -> &str {
    match body {
        Body::Publication(record) => std::str::from_utf8(&record.data).unwrap(),
        other => panic!("no publication: {other:?}"),
    }
}

async fn event(
    events: &mut tokio::sync::broadcast::Receiver<LogEvent>,
    wanted: impl Fn(&LogEvent) -> bool,
) -> LogEvent {
    within(async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_acknowledged_copied_and_read() {
    let (_server, log) = fresh_log().await;
    let route = route(&log, "std", "chat:room.1");
    let shard = route.shard().unwrap();
    let mut copies = subscribe(&log, &route).await;

    let first = publish(&log, &route, "one").await;
    let second = publish(&log, &route, "two").await;
    let one = next(&mut copies).await;
    let two = next(&mut copies).await;
    assert_eq!(
        (text(&one.stored.body), one.stored.seq, one.prev),
        ("one", first, 0)
    );
    assert_eq!(
        (text(&two.stored.body), two.stored.seq, two.prev),
        ("two", second, first)
    );

    let page = within(log.read(&route, 0, 10, 1 << 20)).await.unwrap();
    assert_eq!(page.messages, [one.stored.clone(), two.stored.clone()]);
    assert_eq!(page.pending, 0);
    let page = within(log.read(&route, first, 1, 1 << 20)).await.unwrap();
    assert_eq!((page.messages.len(), page.pending), (1, 1));
    assert!(
        within(log.read(&route, second + 1, 10, 1 << 20))
            .await
            .unwrap()
            .messages
            .is_empty()
    );

    assert_eq!(
        within(log.read_leader(&route, first + 1)).await.unwrap(),
        Some(two.stored.clone())
    );
    assert_eq!(within(log.read_leader(&route, second + 1)).await.unwrap(), None);
    assert_eq!(
        within(log.time_at(shard, second)).await.unwrap(),
        Some(two.stored.time_ms)
    );
    assert_eq!(within(log.time_at(shard, second + 9)).await.unwrap(), None);

    let info = within(log.info(shard)).await.unwrap();
    assert_eq!((info.first_seq, info.last_seq), (1, second));
    assert!(!info.created.is_empty() && info.bytes > 0 && info.first_time_ms <= one.stored.time_ms);

    let sweep = within(log.sweep(shard, 0, 100, 1 << 20)).await.unwrap();
    let ours: Vec<_> = sweep
        .messages
        .iter()
        .filter(|(address, _)| address == route.address())
        .collect();
    assert_eq!(
        ours.iter().map(|(_, stored)| stored.seq).collect::<Vec<_>>(),
        [first, second]
    );
    assert_eq!(NatsLog::channel_at(&ours[0].0).as_ref(), Some(route.key()));
    // The anchor is in the sweep too, as no channel's message.
    assert_eq!(sweep.messages.len(), 3);
    assert_eq!(NatsLog::channel_at(&sweep.messages[0].0), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l11_last_of_says_how_far_the_replica_is_even_of_empty_channels() {
    let (_server, log) = fresh_log().await;
    let busy = route(&log, "few", "chat:busy");
    let shard = busy.shard().unwrap();
    let quiet = route(&log, "few", "chat:quiet");

    let anchored = within(log.info(shard)).await.unwrap().last_seq;
    let last = within(log.last_of(shard, std::slice::from_ref(&quiet)))
        .await
        .unwrap();
    assert_eq!((last.up_to, last.last), (anchored, vec![None]));
    let seq = publish(&log, &busy, "x").await;
    let last = within(log.last_of(shard, &[quiet.clone(), busy.clone(), quiet]))
        .await
        .unwrap();
    assert_eq!((last.up_to, last.last), (seq, vec![None, Some(seq), None]));

    let many: Vec<_> = (0..1_000)
        .map(|n| route(&log, "few", &format!("chat:{n}")))
        .collect();
    let mut acks = Vec::new();
    for (n, route) in many.iter().enumerate() {
        acks.push(log.publish(route, &record(format!("{n}")), None).unwrap());
    }
    let mut seqs = Vec::new();
    for ack in acks {
        seqs.push(Some(within(ack).await.unwrap().seq));
    }
    assert_eq!(within(log.last_of(shard, &many)).await.unwrap().last, seqs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l11_large_last_messages_do_not_come_all_at_once() {
    let (_server, log) = fresh_log().await;
    let big = "x".repeat(900_000);
    let mut routes = Vec::new();
    let mut seqs = Vec::new();
    for n in 0..12 {
        let route = route(&log, "few", &format!("chat:{n}"));
        if n != 5 {
            seqs.push(Some(publish(&log, &route, &big).await));
        } else {
            seqs.push(None);
        }
        routes.push(route);
    }
    let last = within(log.last_of(routes[0].shard().unwrap(), &routes))
        .await
        .unwrap();
    assert_eq!((last.up_to, &last.last), (seqs[11].unwrap(), &seqs));
    let one = within(log.last_of(routes[0].shard().unwrap(), &routes[2..3]))
        .await
        .unwrap();
    assert_eq!(one.last, seqs[2..3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l14_publishes_are_pipelined_in_order_and_copied_in_order() {
    let (_server, log) = fresh_log().await;
    let route = route(&log, "std", "chat:fast");
    let mut copies = subscribe(&log, &route).await;
    let mut previous = 0;
    for burst in 0..10 {
        let acks: Vec<_> = (0..300)
            .map(|n| {
                log.publish(&route, &record(format!("{burst}.{n}")), None)
                    .unwrap()
            })
            .collect();
        let mut seqs = Vec::new();
        for ack in acks {
            seqs.push(within(ack).await.unwrap().seq);
        }
        assert!(seqs.is_sorted());
        for (n, seq) in seqs.into_iter().enumerate() {
            let copy = next(&mut copies).await;
            assert_eq!(
                (text(&copy.stored.body), copy.stored.seq),
                (format!("{burst}.{n}").as_str(), seq)
            );
            assert_eq!(copy.prev, previous);
            previous = seq;
        }
    }
    assert_eq!(log.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l14_the_same_id_is_stored_once() {
    let (_server, log) = fresh_log().await;
    let route = route(&log, "std", "chat:once");
    let first = within(log.publish(&route, &record("a"), Some("id-1")).unwrap())
        .await
        .unwrap();
    let again = within(log.publish(&route, &record("b"), Some("id-1")).unwrap())
        .await
        .unwrap();
    assert_eq!(
        (first.duplicate, again.duplicate, again.seq),
        (false, true, first.seq)
    );
    assert!(
        log.publish(&route, &record("c"), Some("a\r\nNats-Rollup: all"))
            .is_err()
    );
    let page = within(log.read(&route, 0, 10, 1 << 20)).await.unwrap();
    assert_eq!(page.messages.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_a_page_ends_at_its_bytes_and_says_what_is_left() {
    let (_server, log) = fresh_log().await;
    let route = route(&log, "std", "chat:big");
    let big = "x".repeat(10_000);
    for _ in 0..20 {
        publish(&log, &route, &big).await;
    }
    let (mut from, mut seen) = (0, 0);
    while seen < 20 {
        let page = within(log.read(&route, from, 100, 45_000)).await.unwrap();
        assert!(matches!(page.messages.len(), 1..=5), "{}", page.messages.len());
        seen += page.messages.len() as u64;
        assert_eq!(page.pending, 20 - seen);
        from = page.messages.last().unwrap().seq + 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l16_ephemeral_messages_are_copied_and_never_stored() {
    let (_server, log) = fresh_log().await;
    let route = log.route(&key("dev", "live:cursor"), None).unwrap();
    assert_eq!(route.shard(), None);
    let mut copies = within(log.subscribe(&route)).await.unwrap();
    let ack = within(log.publish(&route, &record("x"), None).unwrap())
        .await
        .unwrap();
    assert_eq!((ack.seq, ack.duplicate), (0, false));
    let copy = next(&mut copies).await;
    assert_eq!((text(&copy.stored.body), copy.stored.seq, copy.prev), ("x", 0, 0));
    assert!(within(log.read(&route, 0, 10, 1_000)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_no_name_meets_another() {
    let (_server, log) = fresh_log().await;
    let keys = [
        key("dev", "chat:a"),
        key("other", "chat:a"),
        key("dev", "chat:a.>"),
        key("dev", "chat:*"),
        key("dev", "chat:>"),
        key("dev", "chat:a b"),
        key("dev", "chat:\"\\é%"),
        key("dev", "chat:.a."),
        key("dev", "chat.a"),
        key("dev", "chat.a:a"),
        key("dev", "$JS.API:INFO"),
        key("dev", &".".repeat(255)),
        key("dev", &"é".repeat(127)),
    ];
    let class = ClassName::new("few").unwrap();
    let mut subscribed = Vec::new();
    for key in &keys {
        let route = log.route(key, Some(&class)).unwrap();
        let copies = subscribe(&log, &route).await;
        subscribed.push((route, copies));
    }
    for (route, _) in &subscribed {
        publish(&log, route, route.address()).await;
    }
    for (route, copies) in &mut subscribed {
        let copy = next(copies).await;
        assert_eq!((text(&copy.stored.body), copy.prev), (route.address(), 0));
        let page = within(log.read(route, 0, 10, 1 << 20)).await.unwrap();
        assert_eq!(page.messages, [copy.stored]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l15_removal_leaves_a_tombstone_and_nothing_below() {
    let (_server, log) = fresh_log().await;
    let (gone, kept) = (route(&log, "few", "chat:gone"), route(&log, "few", "chat:kept"));
    publish(&log, &gone, "secret").await;
    publish(&log, &kept, "fine").await;
    let mut copies = subscribe(&log, &gone).await;

    let tombstone = within(log.remove(&gone)).await.unwrap();
    let copy = next(&mut copies).await;
    assert_eq!((copy.stored.body, copy.stored.seq), (Body::Tombstone, tombstone));
    let page = within(log.read(&gone, 0, 10, 1_000)).await.unwrap();
    let left: Vec<_> = page
        .messages
        .iter()
        .map(|stored| (stored.seq, &stored.body))
        .collect();
    assert_eq!(left, [(tombstone, &Body::Tombstone)]);
    assert_eq!(
        within(log.read(&kept, 0, 10, 1_000))
            .await
            .unwrap()
            .messages
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_an_epoch_is_changed_by_one_node_and_seen_by_all() {
    let server = NatsServer::start().await;
    let one = TestLog::start(&[server.url()]).await;
    let two = TestLog::start(&[server.url()]).await;
    let mut events = two.events();
    let shard = one.shards()[1].id;
    assert_eq!(within(one.epoch(shard)).await.unwrap(), None);

    let mut entry = slipstream::log::EpochEntry {
        created: "2026-11-22T05:55:00.123456789Z".to_owned(),
        token: Epoch::new("abc"),
        mark_seq: 7,
        mark_time_ms: 1,
    };
    assert!(within(one.set_epoch(shard, &entry, 0)).await.unwrap());
    assert!(!within(two.set_epoch(shard, &entry, 0)).await.unwrap());
    let seen = event(&mut events, |event| matches!(event, LogEvent::Epoch(..))).await;
    assert_eq!(seen, LogEvent::Epoch(shard, entry.clone()));

    let (stored, revision) = within(two.epoch(shard)).await.unwrap().unwrap();
    assert_eq!(stored, entry);
    entry.mark_seq = 8;
    assert!(within(two.set_epoch(shard, &entry, revision)).await.unwrap());
    assert!(!within(one.set_epoch(shard, &entry, revision)).await.unwrap());
    let seen = event(&mut events, |event| matches!(event, LogEvent::Epoch(..))).await;
    assert_eq!(seen, LogEvent::Epoch(shard, entry));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_tell_ask_and_answer() {
    let server = NatsServer::start().await;
    let one = TestLog::start(&[server.url()]).await;
    let two = Arc::new(TestLog::start(&[server.url()]).await);
    let mut listening = within(two.listen("vouch")).await.unwrap();

    one.tell("vouch", Bytes::from_static(b"hello"));
    let message = within(poll_fn(|cx| listening.poll_next(cx))).await.unwrap();
    assert_eq!(
        (message.data, message.reply),
        (Bytes::from_static(b"hello"), None)
    );

    let answering = two.clone();
    let answer = async move {
        let message = within(poll_fn(|cx| listening.poll_next(cx))).await.unwrap();
        answering.answer(&message.reply.unwrap(), message.data);
    };
    let enough = |answers: &[NodeMessage]| answers.len() == 1;
    let ask = one.ask(
        "vouch",
        Bytes::from_static(b"?"),
        Duration::from_secs(10),
        &enough,
    );
    let (answers, ()) = within(async { tokio::join!(ask, answer) }).await;
    assert_eq!((answers[0].from, &*answers[0].data), (two.node(), &b"?"[..]));

    let none = one.ask("nobody", Bytes::new(), Duration::from_secs(10), &|_| false);
    assert!(within(none).await.is_empty());
}
