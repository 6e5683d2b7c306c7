//! Faults of a cluster of three nats-servers, where every shard has three replicas.

use std::{collections::BTreeSet, time::Duration};

use crate::support::{
    checker::check_to_end,
    client::{Client, Record, Seen},
    edge::{Builder, Edge},
    nats::Cluster,
    proxy::Proxy,
    publisher::{Acked, Published, Publisher},
    until, within,
};

const BUSY: &str = "public:busy";
const STREAM: &str = "slipstream_std_0";
const EVERY: Duration = Duration::from_millis(2);

/// An edge with one shard of three replicas.
fn edge(urls: &[String]) -> Builder {
    Edge::builder()
        .nats(urls)
        .set("log.classes.0.shards", "1")
        .set("log.classes.0.replicas", "3")
}

async fn subscriber(edge: &Edge, channel: &str) -> Client {
    let client = Client::connect(edge.addr).await;
    client.subscribe(channel).await;
    client
}

/// Waits until the client has seen so many publications of [`BUSY`].
async fn has_seen(client: &Client, count: usize) {
    client
        .wait(format!("{count} publications"), |record| {
            (record.channels.get(BUSY)?.offsets().len() > count).then_some(())
        })
        .await;
}

/// Nobody was told that it may have missed something, or lost its connection.
fn unharmed(client: &Client) {
    let Record {
        connects,
        timeouts,
        channels,
        ..
    } = client.record();
    assert_eq!((connects, timeouts), (1, 0), "{}", client.summary());
    assert!(
        !channels[BUSY].recoveries().contains(&false),
        "{}",
        client.summary()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_leaders_step_down_under_load() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (
        edge(&cluster.urls()[..1]).start().await,
        edge(&cluster.urls()[1..2]).start().await,
    );
    let clients = [subscriber(&one, BUSY).await, subscriber(&two, BUSY).await];
    let publisher = Publisher::start(one.addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    for round in 1..=3 {
        has_seen(&clients[1], round * 200).await;
        cluster.step_down(STREAM).await;
    }
    load.stop().await;
    publisher.one(BUSY).await;
    for client in &clients {
        check_to_end(client, BUSY, publisher.published()).await;
        unharmed(client);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_the_leader_is_killed_under_load() {
    let mut cluster = Cluster::start(3).await;
    let (one, two) = (
        edge(&cluster.urls()).start().await,
        edge(&cluster.urls()).start().await,
    );
    let clients = [subscriber(&one, BUSY).await, subscriber(&two, BUSY).await];
    let publisher = Publisher::start(one.addr);
    let load = publisher.steadily(&[BUSY], EVERY);
    has_seen(&clients[0], 300).await;
    let leader = cluster.leader_of(STREAM).await;
    cluster.servers[leader].kill().await;
    // The first one that a new leader acknowledges.
    publisher.one(BUSY).await;
    let late = subscriber(&two, BUSY).await;
    cluster.servers[leader].restart().await;
    load.stop().await;
    publisher.one(BUSY).await;
    for client in clients.iter().chain([&late]) {
        check_to_end(client, BUSY, publisher.published()).await;
        unharmed(client);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_follower_is_frozen_for_ten_seconds_and_thaws_while_clients_resume() {
    let cluster = Cluster::start(3).await;
    edge(&cluster.urls()).start().await.stop().await;
    let leader = cluster.leader_of(STREAM).await;
    let follower = cluster.other_than(&[leader]);
    let url = [cluster.servers[leader].url()];
    let first = edge(&url).start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(subscriber(&first, BUSY).await);
    }
    let publisher = Publisher::start(first.addr);
    let seen = publisher.many(BUSY, 10).await;
    for client in &clients {
        client.wait_for(BUSY, seen.offset).await;
        client.go_offline().await;
    }
    // An edge without a ring: whoever comes back is read from the log, from any replica.
    let second = edge(&url).start().await;
    first.stop().await;
    publisher.move_to(second.addr);

    cluster.servers[follower].pause();
    let frozen = tokio::time::Instant::now();
    let load = publisher.steadily(&[BUSY], Duration::from_millis(1));
    tokio::time::sleep_until(frozen + Duration::from_secs(10)).await;
    cluster.servers[follower].resume();
    for client in &clients {
        client.move_to(second.addr);
    }
    load.stop().await;
    publisher.one(BUSY).await;
    for client in &clients {
        check_to_end(client, BUSY, publisher.published()).await;
        assert_eq!(client.channel(BUSY).recoveries().last(), Some(&true));
    }
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_minority_is_parted_from_the_rest() {
    let cluster = Cluster::start_partable(3).await;
    edge(&cluster.urls()).start().await.stop().await;
    // The old leader is in the minority, with an edge.
    let minority = cluster.leader_of(STREAM).await;
    let majority = cluster.other_than(&[minority]);
    let (cut, whole) = (
        edge(&[cluster.servers[minority].url()]).start().await,
        edge(&[cluster.servers[majority].url()]).start().await,
    );
    let clients = [subscriber(&cut, BUSY).await, subscriber(&whole, BUSY).await];
    let publisher = Publisher::start(whole.addr);
    let behind = Publisher::start_into(cut.addr, publisher.published().clone());
    let load = publisher.steadily(&[BUSY], EVERY);
    has_seen(&clients[0], 100).await;

    cluster.part(minority, true);
    let inside = behind.begin(BUSY, 0);
    // The majority elects, and goes on.
    let before = clients[1].channel(BUSY).offsets().len();
    publisher.one(BUSY).await;
    has_seen(&clients[1], before + 200).await;
    let late = Client::connect(cut.addr).await;
    late.begin_subscribe(BUSY, None);
    cluster.part(minority, false);
    late.subscribe(BUSY).await;
    inside.await.unwrap();
    load.stop().await;
    publisher.one(BUSY).await;
    for client in clients.iter().chain([&late]) {
        check_to_end(client, BUSY, publisher.published()).await;
        unharmed(client);
    }
    cut.stop().await;
    whole.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_the_leader_is_killed_between_commit_and_republish_and_the_retry_is_a_duplicate() {
    const QUIET: &str = "public:quiet";
    let mut cluster = Cluster::start(3).await;
    edge(&cluster.urls()).start().await.stop().await;
    let leader = cluster.leader_of(STREAM).await;
    let follower = cluster.other_than(&[leader]);
    // What dies with the leader, the copies and the acknowledgement, is lost on the way.
    let (to_one, to_two) = (
        Proxy::nats(&cluster.servers[follower].url()).await,
        Proxy::nats(&cluster.servers[follower].url()).await,
    );
    // Not the checks: the retry itself must tell the tails (L11).
    let with_rare_checks = |urls: &[String]| edge(urls).set("channel.check_interval", "60s");
    let one = with_rare_checks(&to_one.urls()).start().await;
    let two = with_rare_checks(&to_two.urls()).start().await;
    let clients = [subscriber(&one, QUIET).await, subscriber(&two, QUIET).await];
    let publisher = Publisher::start(one.addr);
    let first = publisher.one(QUIET).await;
    for client in &clients {
        client.wait_for(QUIET, first.offset).await;
    }

    let (_, stored) = cluster.servers[follower].range(STREAM).await;
    to_one.losses().all(true);
    to_two.losses().copies(true);
    let acked = publisher.begin(QUIET, 0);
    until("it is stored", || async {
        (cluster.servers[follower].range(STREAM).await.1 > stored).then_some(())
    })
    .await;
    cluster.servers[leader].kill().await;
    until("the copy is lost", || async {
        (to_two.lost() == 1).then_some(())
    })
    .await;
    to_one.losses().all(false);
    to_two.losses().copies(false);
    publisher.move_to(two.addr);
    let acked = within(acked).await.unwrap();
    assert!(acked.duplicate && acked.offset > first.offset, "{acked:?}");
    for client in &clients {
        check_to_end(client, QUIET, publisher.published()).await;
        assert_eq!(client.channel(QUIET).subscribes(), 1, "{}", client.summary());
    }
    one.stop().await;
    two.stop().await;
}

/// Every publication has a key, and whatever is not acknowledged is sent again, at the other edge. The
/// kills fall where they fall: before the commit, after it, between two copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_leaders_are_killed_again_and_again_and_retries_at_the_other_edge_are_stored_once() {
    /// Kills at least, and at most until one has come between a commit and its acknowledgement.
    const KILLS: std::ops::Range<usize> = 3..10;
    let mut cluster = Cluster::start(3).await;
    let edges = [
        edge(&cluster.urls()).start().await,
        edge(&cluster.urls()).start().await,
    ];
    let clients = [
        subscriber(&edges[0], BUSY).await,
        subscriber(&edges[1], BUSY).await,
    ];
    let published = Published::default();
    let publishers = [
        Publisher::start_into(edges[0].addr, published.clone()),
        Publisher::start_into(edges[1].addr, published.clone()),
    ];
    let (_, epoch) = clients[0].position(BUSY);
    let mut acked = Vec::new();
    for kill in 0..KILLS.end {
        let retried = acked.iter().any(|acked: &Acked| acked.duplicate);
        if kill >= KILLS.start && retried {
            break;
        }
        let leader = cluster.leader_of(STREAM).await;
        // More than can be in flight, of both.
        let sent: Vec<_> = (0..1_000).map(|n| publishers[n % 2].begin(BUSY, 200)).collect();
        // Somewhere among them.
        has_seen(&clients[1], acked.len() + 100 * (kill + 1)).await;
        cluster.servers[leader].kill().await;
        for (n, publisher) in publishers.iter().enumerate() {
            publisher.move_to(edges[(n + kill + 1) % 2].addr);
        }
        for sent in sent {
            acked.push(within(sent).await.unwrap());
        }
        cluster.servers[leader].restart().await;
    }
    assert!(
        acked.iter().any(|acked| acked.duplicate),
        "no retry was a duplicate"
    );
    let offsets: BTreeSet<_> = acked.iter().map(|acked| acked.offset).collect();
    assert_eq!(
        offsets.len(),
        acked.len(),
        "each is stored once, with its own offset"
    );
    let last = publishers[0].one(BUSY).await;
    assert_eq!(last.epoch, epoch, "the epoch stays");
    for client in &clients {
        check_to_end(client, BUSY, &published).await;
        unharmed(client);
        let seen = client.channel(BUSY).offsets().len();
        assert_eq!(seen, acked.len() + 1, "nothing besides: {}", client.summary());
    }
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_heavy_traffic_with_duplicates_and_elections_is_no_reason_for_another_epoch() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (
        edge(&cluster.urls()).start().await,
        edge(&cluster.urls()).start().await,
    );
    let clients = [subscriber(&one, BUSY).await, subscriber(&two, BUSY).await];
    let (_, epoch) = clients[0].position(BUSY);
    let publisher = Publisher::start(one.addr);
    let twin = publisher.twin(two.addr);
    let others = [
        Publisher::start_into(one.addr, publisher.published().clone()),
        Publisher::start_into(two.addr, publisher.published().clone()),
    ];
    let loads: Vec<_> = [&publisher, &twin, &others[0], &others[1]]
        .map(|publisher| publisher.steadily(&[BUSY], Duration::from_millis(1)))
        .into();
    for round in 1..=2 {
        has_seen(&clients[0], round * 1_000).await;
        cluster.step_down(STREAM).await;
    }
    for load in loads {
        load.stop().await;
    }
    let last = publisher.one(BUSY).await;
    assert_eq!(last.epoch, epoch, "the epoch stays");
    for client in &clients {
        check_to_end(client, BUSY, publisher.published()).await;
        unharmed(client);
        assert_eq!(client.position(BUSY).1, epoch);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_clients_subscribe_while_there_is_no_leader_for_seven_seconds() {
    let cluster = Cluster::start(3).await;
    edge(&cluster.urls()).start().await.stop().await;
    // The leader and one follower freeze; the other follower serves the edges.
    let leader = cluster.leader_of(STREAM).await;
    let left = cluster.other_than(&[leader]);
    let frozen = [leader, cluster.other_than(&[leader, left])];
    let url = [cluster.servers[left].url()];
    let (old, new) = (edge(&url).start().await, edge(&url).start().await);
    let resuming = subscriber(&old, BUSY).await;
    let publisher = Publisher::start(new.addr);
    let seen = publisher.many(BUSY, 10).await;
    resuming.wait_for(BUSY, seen.offset).await;
    resuming.go_offline().await;
    publisher.many(BUSY, 10).await;
    old.stop().await;
    let fresh = Client::connect(new.addr).await;

    let began = tokio::time::Instant::now();
    for member in frozen {
        cluster.servers[member].pause();
    }
    fresh.begin_subscribe(BUSY, None);
    resuming.reconnect_to(new.addr).await;
    for client in [&fresh, &resuming] {
        client
            .wait("error 100", |record| {
                record.channels[BUSY]
                    .seen
                    .contains(&Seen::Refused(100))
                    .then_some(())
            })
            .await;
    }
    tokio::time::sleep_until(began + Duration::from_secs(7)).await;
    for member in frozen {
        cluster.servers[member].resume();
    }
    for client in [&fresh, &resuming] {
        client
            .wait("subscribed", |record| {
                record.channels[BUSY].subscribed.then_some(())
            })
            .await;
    }
    publisher.one(BUSY).await;
    for client in [&fresh, &resuming] {
        check_to_end(client, BUSY, publisher.published()).await;
        assert_eq!(client.record().timeouts, 0, "no reconnects: {}", client.summary());
        assert_eq!(client.record().closes, [0_u16; 0]);
        assert!(!client.channel(BUSY).recoveries().contains(&false));
    }
    new.stop().await;
}
