//! What the log says when NATS does not answer.

use std::time::Duration;

use slipstream::{
    config::LogConfig,
    log::{EpochEntry, Log, LogEvent, PublishError, ReadError},
    model::Epoch,
};

use super::{event, next, publish, record, route, subscribe, text};
use crate::support::{
    nats::{Cluster, NatsServer, TestLog, log_config, nats_config},
    until, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_is_used_again() {
    let mut server = NatsServer::start().await;
    let log = TestLog::start(&[server.url()]).await;
    let mut events = log.events();
    let route = route(&log, "std", "chat:x");
    let mut copies = subscribe(&log, &route).await;
    let first = publish(&log, &route, "one").await;
    assert_eq!(next(&mut copies).await.stored.seq, first);

    server.kill().await;
    event(&mut events, |event| *event == LogEvent::Disconnected).await;
    until("no connection takes a publication", || async {
        (!log.connected()).then_some(())
    })
    .await;
    let refused = until("the publish connection notices", || async {
        log.publish(&route, &record("lost"), None).err()
    })
    .await;
    assert!(matches!(refused, PublishError::Unavailable(_)), "{refused}");
    assert!(matches!(
        within(log.read(&route, 0, 1, 1_000)).await,
        Err(ReadError::NoAnswer)
    ));

    assert!(server.store_dir().is_dir(), "what is stored outlives the process");
    server.restart().await;
    event(&mut events, |event| *event == LogEvent::Connected).await;
    until("all connections are back", || async {
        log.connected().then_some(())
    })
    .await;
    // The live connection has subscribed again before it asks anything.
    until("the shard answers", || async {
        log.info(route.shard().unwrap()).await.ok()
    })
    .await;
    let second = publish(&log, &route, "two").await;
    let copy = until_copy(&mut copies, "two").await;
    assert_eq!((copy.stored.seq, copy.prev >= first), (second, true));
}

/// The copy with this text; a publication that was on its way when the server died may be before.
async fn until_copy(copies: &mut Box<dyn slipstream::log::Copies>, wanted: &str) -> slipstream::log::Copy {
    loop {
        let copy = next(copies).await;
        if text(&copy.stored.body) == wanted {
            return copy;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_epochs_are_watched_across_a_restart_of_the_server() {
    let mut server = NatsServer::start().await;
    let one = TestLog::start(&[server.url()]).await;
    let two = TestLog::start(&[server.url()]).await;
    let shard = one.shards()[0].id;
    let mut entry = EpochEntry {
        created: "c".to_owned(),
        token: Epoch::new("t"),
        mark_seq: 1,
        mark_time_ms: 2,
    };
    let mut events = two.events();
    assert!(within(one.set_epoch(shard, &entry, 0)).await.unwrap());
    event(&mut events, |event| matches!(event, LogEvent::Epoch(..))).await;

    server.kill().await;
    server.restart().await;
    let (stored, revision) = until("the registry answers", || async { one.epoch(shard).await.ok() })
        .await
        .expect("the entry is stored");
    assert_eq!(stored, entry);
    entry.mark_seq = 3;
    assert!(within(one.set_epoch(shard, &entry, revision)).await.unwrap());
    event(&mut events, |event| {
        *event == LogEvent::Epoch(shard, entry.clone())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l14_a_frozen_server_leaves_the_outcome_unknown_and_the_flight_bounded() {
    let server = NatsServer::start().await;
    let config = LogConfig {
        max_in_flight: 4,
        ack_timeout: Duration::from_millis(400),
        ..log_config()
    };
    let log = TestLog::start_with(&nats_config(&[server.url()]), &config)
        .await
        .unwrap();
    let route = route(&log, "std", "chat:x");
    publish(&log, &route, "zero").await;

    server.pause();
    let acks: Vec<_> = (0..4)
        .map(|n| log.publish(&route, &record(format!("{n}")), None).unwrap())
        .collect();
    let refused = log.publish(&route, &record("too many"), None).err().unwrap();
    assert!(matches!(refused, PublishError::Unavailable(_)), "{refused}");
    assert_eq!(log.in_flight(), 4);
    for ack in acks {
        assert!(matches!(within(ack).await, Err(PublishError::Unknown)));
    }
    assert_eq!(log.in_flight(), 0);
    assert!(matches!(
        within(log.read(&route, 0, 1, 1_000)).await,
        Err(ReadError::NoAnswer)
    ));
    assert!(matches!(
        within(log.info(route.shard().unwrap())).await,
        Err(ReadError::NoAnswer)
    ));

    server.resume();
    // The four were sent, so they are stored now; their late acknowledgements disturb nobody.
    until("the server answers", || async {
        log.info(route.shard().unwrap()).await.ok()
    })
    .await;
    publish(&log, &route, "after").await;
    let page = until("the shard is read", || async {
        log.read(&route, 0, 10, 1_000).await.ok()
    })
    .await;
    let texts: Vec<_> = page.messages.iter().map(|stored| text(&stored.body)).collect();
    assert_eq!(texts, ["zero", "0", "1", "2", "3", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_is_refused_before_it_is_sent() {
    let server = NatsServer::start_with("max_payload: 4096").await;
    let log = TestLog::start(&[server.url()]).await;
    let route = route(&log, "std", "chat:x");
    let refused = log
        .publish(&route, &record("x".repeat(5_000)), None)
        .err()
        .unwrap();
    assert!(matches!(refused, PublishError::Refused(_)), "{refused}");
    assert_eq!(log.in_flight(), 0);
    publish(&log, &route, "fine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_copies_is_reported_and_finds_the_gap() {
    let server = NatsServer::start().await;
    let mut nats = nats_config(&[server.url()]);
    nats.subscription_capacity = 8;
    let log = TestLog::start_with(&nats, &log_config()).await.unwrap();
    let mut events = log.events();
    let route = route(&log, "std", "chat:x");
    let mut copies = subscribe(&log, &route).await;
    for n in 0..50 {
        publish(&log, &route, &format!("{n}")).await;
    }
    event(&mut events, |event| *event == LogEvent::SlowConsumer).await;
    let mut last = 0;
    let gap = within(async {
        loop {
            // Room again: the copies that follow tell what they follow.
            let copy = match futures_util::poll!(std::pin::pin!(next(&mut copies))) {
                std::task::Poll::Ready(copy) => copy,
                std::task::Poll::Pending => {
                    publish(&log, &route, "more").await;
                    continue;
                }
            };
            if copy.prev != last {
                return copy.prev > last;
            }
            last = copy.stored.seq;
        }
    })
    .await;
    assert!(gap);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l5_an_election_is_told_and_a_leaderless_shard_does_not_answer() {
    let mut cluster = Cluster::start(3).await;
    let mut config = log_config();
    config.classes.truncate(1);
    config.classes[0].shards = 1;
    config.classes[0].replicas = 3;
    let log = TestLog::start_with(&nats_config(&cluster.urls()), &config)
        .await
        .unwrap();
    let route = route(&log, "std", "chat:x");
    let shard = route.shard().unwrap();
    let stream = log.shards()[0].stream.clone();
    let mut events = log.events();
    let mut copies = subscribe(&log, &route).await;
    let first = publish(&log, &route, "one").await;

    cluster.step_down(&stream).await;
    event(&mut events, |event| *event == LogEvent::LeaderElected(shard)).await;
    let second = until("the new leader takes publications", || async {
        log.publish(&route, &record("two"), Some("two")).ok()?.await.ok()
    })
    .await;
    assert_eq!(next(&mut copies).await.stored.seq, first);
    let copy = next(&mut copies).await;
    assert_eq!(
        (text(&copy.stored.body), copy.stored.seq, copy.prev),
        ("two", second.seq, first)
    );
    let info = until("the new leader answers", || async { log.info(shard).await.ok() }).await;
    assert_eq!(info.last_seq, second.seq);

    let leader = cluster.leader_of(&stream).await;
    cluster.servers[leader].kill().await;
    cluster.servers[(leader + 1) % 3].kill().await;
    // The member left over answers once it knows that it has no leader, or not at all: never as one.
    let why = until("the shard is known to be without a leader", || async {
        match log.info(shard).await {
            Err(ReadError::NotNow(why)) => Some(why),
            Err(ReadError::NoAnswer) | Ok(_) => None,
            Err(ReadError::Failed(why)) => panic!("{why}"),
        }
    })
    .await;
    assert!(!why.is_empty());
    cluster.servers[leader].restart().await;
    let info = until("a leader answers again", || async { log.info(shard).await.ok() }).await;
    assert!(info.last_seq >= second.seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lame_duck_is_left_for_another_server() {
    let cluster = Cluster::start(3).await;
    let mut config = log_config();
    config.classes.truncate(1);
    config.classes[0].replicas = 3;
    // The first server is the one connected to, if it is the only one known at first.
    let log = TestLog::start_with(&nats_config(&cluster.urls()[..1]), &config)
        .await
        .unwrap();
    let mut events = log.events();
    cluster.servers[0].lame_duck();
    event(&mut events, |event| *event == LogEvent::Disconnected).await;
    event(&mut events, |event| *event == LogEvent::Connected).await;
    until("all connections have moved", || async {
        log.connected().then_some(())
    })
    .await;
    let route = route(&log, "std", "chat:x");
    until("publications are taken", || async {
        log.publish(&route, &record("x"), Some("x")).ok()?.await.ok()
    })
    .await;
}
