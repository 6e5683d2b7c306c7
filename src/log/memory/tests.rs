use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{
    log::{Ack, Copy},
    model::{AppId, ChannelName, Epoch},
};

const CLASS: &str = "hour";

fn class() -> ClassName {
    ClassName::new(CLASS).unwrap()
}

fn cluster() -> MemoryCluster {
    MemoryLog::cluster(vec![ClassSpec {
        replicas: 2,
        ..ClassSpec::new(class(), 1)
    }])
}

fn route(log: &MemoryLog, name: &str) -> Route {
    let key = ChannelKey {
        app: AppId::new("dev").unwrap(),
        name: ChannelName::new(name).unwrap(),
    };
    log.route(&key, Some(&class())).unwrap()
}

fn record() -> Record {
    Record {
        kind: Kind::Json,
        data: Bytes::from_static(b"1"),
        info: None,
        tags: Vec::new(),
    }
}

async fn publish(log: &MemoryLog, route: &Route) -> Offset {
    let ack = log.publish(route, &record(), None).unwrap();
    ack.await.unwrap().seq
}

async fn subscribe(log: &MemoryLog, route: &Route) -> Box<dyn Copies> {
    log.subscribe(route).await.unwrap()
}

/// The copies that have come.
fn come(copies: &mut Box<dyn Copies>) -> Vec<(Offset, Offset)> {
    let mut cx = Context::from_waker(Waker::noop());
    std::iter::from_fn(|| match copies.poll_next(&mut cx) {
        Poll::Ready(Some(Copy { stored, prev })) => Some((stored.seq, prev)),
        Poll::Ready(None) | Poll::Pending => None,
    })
    .collect()
}

/// The answer, if it has come.
fn now<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    let mut cx = Context::from_waker(Waker::noop());
    match std::pin::Pin::new(future).poll(&mut cx) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn copies_are_lost_repeated_and_late_as_told() {
    let cluster = cluster();
    let (faults, log, other) = (cluster.faults(), cluster.node(), cluster.node());
    let (a, b) = (route(&log, "a"), route(&log, "b"));
    let mut here = subscribe(&log, &a).await;
    let mut there = subscribe(&other, &a).await;
    let mut of_b = subscribe(&log, &b).await;

    faults.drop_copies(Target::channel(a.key()).and_node(0), 1);
    for route in [&a, &b, &a] {
        publish(&log, route).await;
    }
    assert_eq!(come(&mut here), [(3, 1)], "prev tells of the one that was lost");
    assert_eq!(come(&mut there), [(1, 0), (3, 1)]);
    assert_eq!(come(&mut of_b), [(2, 0)]);

    faults.repeat_copies(Target::node(0), 1);
    publish(&log, &a).await;
    publish(&log, &a).await;
    assert_eq!(come(&mut here), [(4, 3), (4, 3), (5, 4)]);
    assert_eq!(come(&mut there), [(4, 3), (5, 4)]);
    faults.replay_copy(ShardId(0), 3);
    assert_eq!(come(&mut here), [(3, 1)], "as it was sent first");

    faults.hold_copies(Target::node(0));
    publish(&log, &a).await;
    publish(&log, &a).await;
    assert_eq!(come(&mut here), []);
    faults.release_copies();
    publish(&log, &a).await;
    assert_eq!(come(&mut here), [(6, 5), (7, 6), (8, 7)]);
}

#[tokio::test]
async fn a_full_subscription_drops_and_says_so() {
    let cluster = cluster();
    let (faults, log) = (cluster.faults(), cluster.node());
    let mut events = log.events();
    faults.set_subscription_capacity(2);
    let a = route(&log, "a");
    let mut copies = subscribe(&log, &a).await;
    for _ in 0..3 {
        publish(&log, &a).await;
    }
    assert_eq!(come(&mut copies), [(1, 0), (2, 1)]);
    assert_eq!(events.recv().await.unwrap(), LogEvent::SlowConsumer);
}

#[tokio::test]
async fn subscriptions_end_when_dropped_and_with_the_log() {
    let cluster = cluster();
    let (faults, log) = (cluster.faults(), cluster.node());
    let a = route(&log, "a");
    let first = subscribe(&log, &a).await;
    let mut second = subscribe(&log, &a).await;
    drop(first);
    assert_eq!(
        (faults.subscriptions(None), faults.subscriptions(Some(0))),
        (1, 1)
    );
    drop((cluster, faults, log));
    assert!(poll_fn(|cx| second.poll_next(cx)).await.is_none());
}

#[tokio::test]
async fn l14_publishes_fail_before_after_and_in_between() {
    let cluster = cluster();
    let (faults, log) = (cluster.faults(), cluster.node());
    let a = route(&log, "a");
    let mut copies = subscribe(&log, &a).await;
    let send = |id| log.publish(&a, &record(), Some(id));

    faults.refuse_publishes(Target::all(), PublishError::Unavailable("full"), 1);
    assert!(matches!(send("1"), Err(PublishError::Unavailable("full"))));
    faults.refuse_publishes(Target::all(), PublishError::Unknown, 1);
    assert!(matches!(send("1").unwrap().await, Err(PublishError::Unknown)));
    assert_eq!(log.info(ShardId(0)).await.unwrap().last_seq, 0);

    faults.lose_acks(Target::all(), 1);
    assert!(matches!(send("1").unwrap().await, Err(PublishError::Unknown)));
    assert_eq!(come(&mut copies), [(1, 0)]);
    faults.crash_before_republish(Target::all(), 1);
    assert!(matches!(send("2").unwrap().await, Err(PublishError::Unknown)));
    for (id, seq) in [("1", 1), ("2", 2)] {
        let duplicate = true;
        assert_eq!(send(id).unwrap().await.unwrap(), Ack { seq, duplicate });
    }
    assert_eq!(come(&mut copies), [], "2 is stored, and nobody was told");
}

#[tokio::test]
async fn l4_acks_and_answers_are_overtaken_when_held() {
    let cluster = cluster();
    let (faults, log) = (cluster.faults(), cluster.node());
    let a = route(&log, "a");
    let mut copies = subscribe(&log, &a).await;
    faults.hold_acks(Target::all());
    faults.hold_answers(Target::all(), Request::Info);

    let mut info = log.info(ShardId(0));
    assert!(now(&mut info).is_none());
    let mut ack = log.publish(&a, &record(), None).unwrap();
    assert!(now(&mut ack).is_none());
    assert_eq!(come(&mut copies), [(1, 0)]);
    assert_eq!(
        log.read(&a, 0, 10, 1_000).await.unwrap().messages.len(),
        1,
        "reads pass"
    );

    faults.release_answers();
    assert_eq!(now(&mut ack).unwrap().unwrap().seq, 1);
    assert_eq!(
        now(&mut info).unwrap().unwrap().last_seq,
        0,
        "as it was when asked"
    );
    assert_eq!(log.info(ShardId(0)).await.unwrap().last_seq, 1);
}

#[tokio::test]
async fn requests_fail_as_often_as_told() {
    let cluster = cluster();
    let (faults, log, other) = (cluster.faults(), cluster.node(), cluster.node());
    let a = route(&log, "a");
    faults.fail(
        Target::node(0),
        Request::Info,
        ReadError::NotNow("no leader".into()),
        2,
    );
    faults.fail(Target::channel(a.key()), Request::Read, ReadError::NoAnswer, 1);
    for _ in 0..2 {
        assert!(matches!(log.info(ShardId(0)).await, Err(ReadError::NotNow(_))));
        assert!(other.info(ShardId(0)).await.is_ok());
    }
    assert!(log.info(ShardId(0)).await.is_ok());
    assert!(log.read(&route(&log, "b"), 0, 1, 1).await.is_ok());
    assert!(matches!(log.read(&a, 0, 1, 1).await, Err(ReadError::NoAnswer)));
    assert!(log.read(&a, 0, 1, 1).await.is_ok());
    assert!(matches!(log.info(ShardId(7)).await, Err(ReadError::Failed(_))));
}

#[tokio::test]
async fn a_node_without_connection_hears_nothing_and_gets_no_answer() {
    let cluster = cluster();
    let (faults, log, other) = (cluster.faults(), cluster.node(), cluster.node());
    let a = route(&log, "a");
    let (mut events, mut copies) = (log.events(), subscribe(&log, &a).await);
    let mut messages = log.listen("topic").await.unwrap();
    faults.hold_answers(Target::all(), Request::Read);
    let mut read = log.read(&a, 0, 10, 1_000);
    assert!(now(&mut read).is_none());

    faults.disconnect(0);
    assert!(!log.connected() && other.connected());
    assert_eq!(events.recv().await.unwrap(), LogEvent::Disconnected);
    assert!(matches!(now(&mut read), Some(Err(ReadError::NoAnswer))));
    assert!(matches!(
        log.publish(&a, &record(), None),
        Err(PublishError::Unavailable(_))
    ));
    assert!(matches!(log.info(ShardId(0)).await, Err(ReadError::NoAnswer)));
    publish(&other, &a).await;
    other.tell("topic", Bytes::from_static(b"lost"));
    let entry = EpochEntry {
        created: "then".into(),
        token: Epoch::new("token"),
        mark_seq: 1,
        mark_time_ms: 1,
    };
    assert!(other.set_epoch(ShardId(0), &entry, 0).await.unwrap());

    faults.reconnect(0);
    assert_eq!(events.recv().await.unwrap(), LogEvent::Connected);
    let epoch = LogEvent::Epoch(ShardId(0), entry);
    assert_eq!(
        events.recv().await.unwrap(),
        epoch,
        "a watch catches up, copies do not"
    );
    publish(&other, &a).await;
    assert_eq!(come(&mut copies), [(2, 1)]);
    other.tell("topic", Bytes::from_static(b"heard"));
    let message = poll_fn(|cx| messages.poll_next(cx)).await.unwrap();
    assert_eq!(message.data, "heard");
}

#[tokio::test]
async fn l15_without_its_ack_a_removal_leaves_the_history() {
    let cluster = cluster();
    let (faults, log) = (cluster.faults(), cluster.node());
    let a = route(&log, "a");
    publish(&log, &a).await;
    faults.lose_acks(Target::all(), 1);
    assert!(matches!(log.remove(&a).await, Err(PublishError::Unknown)));
    let page = log.read(&a, 0, 10, 1_000).await.unwrap();
    assert_eq!(
        page.messages.len(),
        2,
        "the tombstone is stored, nothing is purged"
    );
    assert_eq!(log.remove(&a).await.unwrap(), 3);
    let page = log.read(&a, 0, 10, 1_000).await.unwrap();
    assert_eq!(page.messages.len(), 1);
}

#[tokio::test]
async fn shards_are_trimmed_recreated_and_restored() {
    let cluster = cluster();
    let (faults, log) = (cluster.faults(), cluster.node());
    let (a, shard) = (route(&log, "a"), ShardId(0));
    let mut events = log.events();
    for _ in 0..3 {
        publish(&log, &a).await;
    }
    let copy = faults.snapshot(shard).unwrap();
    assert_eq!(faults.store_unreadable(&a, true), 4);
    faults.trim(shard, 3);
    let info = async || log.info(shard).await.unwrap();
    assert_eq!((info().await.first_seq, info().await.last_seq), (3, 4));

    faults.restore(shard, &copy);
    assert_eq!((info().await.first_seq, info().await.last_seq), (1, 3));
    let then = log.time_at(shard, 3).await.unwrap();
    faults.regress(shard, 2);
    publish(&log, &a).await;
    assert_ne!(
        log.time_at(shard, 3).await.unwrap(),
        then,
        "another message stands at 3"
    );

    let created = info().await.created;
    faults.recreate(shard);
    assert_ne!(info().await.created, created);
    assert_eq!(info().await.last_seq, 0);

    publish(&log, &a).await;
    faults.advance(24 * 3_600_000);
    assert_eq!((info().await.first_seq, info().await.last_seq), (2, 1));
    faults.elect_leader(shard);
    assert_eq!(events.recv().await.unwrap(), LogEvent::LeaderElected(shard));
}

#[tokio::test]
async fn replicas_lag_until_released() {
    let cluster = cluster();
    let (faults, log) = (cluster.faults(), cluster.node());
    let (a, shard) = (route(&log, "a"), ShardId(0));
    faults.hold_replica(shard, 1);
    faults.answer_from(shard, Some(1));
    publish(&log, &a).await;
    publish(&log, &a).await;
    let up_to = async || log.last_of(shard, std::slice::from_ref(&a)).await.unwrap();
    assert_eq!((up_to().await.up_to, &up_to().await.last[..]), (0, &[None][..]));
    assert_eq!(log.read_leader(&a, 2).await.unwrap().unwrap().seq, 2);
    faults.depose_leader(shard, Some(1));
    assert_eq!(log.read_leader(&a, 1).await.unwrap(), None);
    faults.depose_leader(shard, None);
    faults.catch_up_replica(shard, 1, 1);
    assert_eq!(
        (up_to().await.up_to, &up_to().await.last[..]),
        (1, &[Some(1)][..])
    );
    faults.skew_replica(shard, 1, 48 * 3_600_000);
    faults.release_replica(shard, 1);
    assert_eq!((up_to().await.up_to, &up_to().await.last[..]), (2, &[None][..]));
}

#[tokio::test(start_paused = true)]
async fn nodes_ask_each_other_and_messages_get_lost() {
    let cluster = cluster();
    let (faults, log, other) = (cluster.faults(), cluster.node(), cluster.node());
    let mut messages = other.listen("topic").await.unwrap();
    let wait = Duration::from_millis(200);
    let answering = async {
        let message = poll_fn(|cx| messages.poll_next(cx)).await.unwrap();
        other.answer(&message.reply.unwrap(), message.data);
    };
    let question = Bytes::from_static(b"?");
    let (answers, ()) = tokio::join!(log.ask("topic", question.clone(), wait, &|_| true), answering);
    assert_eq!((answers[0].from, &*answers[0].data), (other.node(), &b"?"[..]));

    faults.lose_node_messages(Target::node(1), 1);
    let answers = log.ask("topic", question, wait, &|_| true).await;
    assert!(answers.is_empty());
    other.answer("inbox/1", Bytes::new());
}
