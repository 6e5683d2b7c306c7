//! Nodes among each other: leases through crashes, stalls, partitions and outages, and what nodes
//! believe of what is said in their name.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use slipstream::{
    cluster::{NodeEvent, NodeInfo, NodeState, Nodes},
    model::{Incarnation, NodeId},
};
use tokio::{
    sync::broadcast::Receiver,
    time::{Instant, sleep},
};

use crate::support::{
    edge::{Builder, Edge},
    holds,
    nats::NatsServer,
    proxy::{Proxy, Weather},
    within,
};

/// Leases of a second, so that nobody has to wait for long.
fn quick(urls: &[String]) -> Builder {
    Edge::builder()
        .nats(urls)
        .set("cluster.lease", "1s")
        .set("cluster.renew_interval", "100ms")
}

fn names(nodes: &Nodes) -> Vec<(NodeId, u32)> {
    let live = nodes.live();
    let mut names: Vec<_> = live
        .iter()
        .map(|node| (node.id, node.incarnation.number()))
        .collect();
    names.sort();
    names
}

/// What has been told so far.
fn told(events: &mut Receiver<NodeEvent>) -> Vec<NodeEvent> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

async fn see(nodes: &Arc<Nodes>, count: usize) {
    holds("as many nodes", || nodes.live().len() == count).await;
}

#[tokio::test]
async fn nodes_see_each_other_and_who_leaves_in_order_is_gone_at_once() {
    let nats = NatsServer::start().await;
    // A lease of an hour: nobody is gone by waiting.
    let builder = || {
        let builder = Edge::builder().nats(&[nats.url()]);
        builder.set("cluster.lease", "1h").set("node.name", "tester")
    };
    let one = builder().start().await;
    let two = builder().start().await;
    let mut events = one.nodes().events();
    // One that starts in the middle knows all at once.
    let three = builder().set("cluster.address", "10.0.0.7:8000").start().await;
    assert!(three.nodes().is_current());
    for edge in [&one, &two, &three] {
        see(edge.nodes(), 3).await;
        assert_eq!(names(edge.nodes()), names(three.nodes()));
        assert_eq!(edge.metric("slipstream_nodes"), 3.0);
    }
    let (id, incarnation) = three.nodes().me();
    assert!(one.nodes().is_live(id, incarnation));
    assert!(!one.nodes().is_live(id, incarnation.next()));
    holds("its state", || {
        let live = one.nodes().live();
        let seen = live.iter().find(|node| node.id == id).unwrap();
        seen.state == NodeState::Ready && seen.address == "10.0.0.7:8000" && seen.name == "tester"
    })
    .await;

    three.stop().await;
    see(one.nodes(), 2).await;
    see(two.nodes(), 2).await;
    let events = told(&mut events);
    assert_eq!(
        events,
        [NodeEvent::Up(id, incarnation), NodeEvent::Down(id, incarnation)]
    );
}

#[tokio::test]
async fn a_killed_node_is_gone_for_all_when_its_lease_is_over() {
    let nats = NatsServer::start().await;
    let one = quick(&[nats.url()]).start().await;
    let two = quick(&[nats.url()]).start().await;
    let mut killed = quick(&[nats.url()]).spawn().await;
    see(one.nodes(), 3).await;
    see(two.nodes(), 3).await;
    let mut events = [one.nodes().events(), two.nodes().events()];
    killed.kill();
    for (edge, events) in [&one, &two].into_iter().zip(&mut events) {
        see(edge.nodes(), 2).await;
        let told = told(events);
        assert!(
            matches!(told[..], [NodeEvent::Down(_, Incarnation::FIRST)]),
            "{told:?}"
        );
    }
    let ended = |edge: &Edge| edge.metric("slipstream_leases_ended_total");
    assert_eq!(
        ended(&one) + ended(&two),
        1.0,
        "one of them has ended it, for all"
    );
}

#[tokio::test]
async fn a_killed_node_is_gone_within_its_lease_and_a_second() {
    // As configured by default.
    let lease = Duration::from_secs(10);
    let nats = NatsServer::start().await;
    let edge = || Edge::builder().nats(&[nats.url()]);
    let one = edge().start().await;
    let two = edge().start().await;
    // A machine that is busy with other tests may be late: not three times in a row.
    let mut took = Vec::new();
    for _ in 0..3 {
        let mut killed = edge().spawn().await;
        see(one.nodes(), 3).await;
        see(two.nodes(), 3).await;
        killed.kill();
        let since = Instant::now();
        see(one.nodes(), 2).await;
        see(two.nodes(), 2).await;
        let elapsed = since.elapsed();
        // It had renewed at most an interval ago.
        assert!(elapsed > lease - Duration::from_millis(1_500), "{elapsed:?}");
        took.push(elapsed);
        if elapsed < lease + Duration::from_secs(1) {
            let listed = slipstream::cluster::list(one.log().clone(), Duration::from_secs(20)).await;
            let gone = |node: &&NodeInfo| node.state == NodeState::Gone;
            assert_eq!(listed.unwrap().iter().filter(gone).count(), took.len());
            return;
        }
    }
    panic!("{took:?}");
}

#[tokio::test]
async fn a_lease_that_was_given_back_is_not_taken_again() {
    let nats = NatsServer::start().await;
    let one = Edge::builder().nats(&[nats.url()]).start().await;
    for _ in 0..10 {
        // Always renewing; a lease of an hour would stay.
        let builder = quick(&[nats.url()]).set("cluster.renew_interval", "1ms");
        builder.set("cluster.lease", "1h").start().await.stop().await;
    }
    let listed = slipstream::cluster::list(one.log().clone(), Duration::from_secs(20)).await;
    assert_eq!(listed.unwrap().len(), 1);
}

#[tokio::test]
async fn an_outage_of_nats_of_five_leases_takes_nobodys() {
    outage(&quick, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_outage_of_nats_of_a_minute_takes_nobodys() {
    let by_default = |urls: &[String]| Edge::builder().nats(urls);
    outage(&by_default, Duration::from_secs(60)).await;
}

async fn outage(builder: &dyn Fn(&[String]) -> Builder, length: Duration) {
    let mut nats = NatsServer::start().await;
    let urls = [nats.url()];
    let edges = [
        builder(&urls).start().await,
        builder(&urls).start().await,
        builder(&urls).start().await,
    ];
    for edge in &edges {
        see(edge.nodes(), 3).await;
    }
    let before = names(edges[0].nodes());
    let mut events = edges.each_ref().map(|edge| edge.nodes().events());
    nats.stop().await;
    sleep(length).await;
    nats.restart().await;
    // Everybody renews again, for longer than a lease.
    let renewed = |edge: &Edge| {
        let live = edge.nodes().live();
        live.iter().map(|node| node.renewed_ms).min().unwrap()
    };
    let back = renewed(&edges[0]).max(renewed(&edges[1])) + i64::try_from(length.as_millis()).unwrap();
    holds("renewed", || {
        edges.iter().all(|edge| renewed(edge) > back + 1_500)
    })
    .await;
    for (edge, events) in edges.iter().zip(&mut events) {
        assert_eq!(told(events), [], "nobody was gone");
        assert_eq!(names(edge.nodes()), before);
    }
}

#[tokio::test]
async fn a_node_cut_off_from_nats_is_gone_and_comes_back_as_another_incarnation() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    let one = quick(&[nats.url()]).start().await;
    let two = quick(&[nats.url()]).start().await;
    let cut = quick(&proxy.urls())
        .set("nats.ping_interval", "300ms")
        .start()
        .await;
    let (id, _) = cut.nodes().me();
    for edge in [&one, &two, &cut] {
        see(edge.nodes(), 3).await;
    }
    let mut events = [one.nodes().events(), two.nodes().events()];
    let mut own = cut.nodes().events();
    proxy.set(Weather::BlackHole);
    see(one.nodes(), 2).await;
    see(two.nodes(), 2).await;
    // The others are all there, as far as it can know.
    assert_eq!(cut.nodes().live().len(), 3);
    proxy.set(Weather::Clear);
    for (edge, events) in [&one, &two].into_iter().zip(&mut events) {
        see(edge.nodes(), 3).await;
        let told = told(events);
        let expected = [
            NodeEvent::Down(id, Incarnation::FIRST),
            NodeEvent::Up(id, Incarnation::new(2)),
        ];
        assert_eq!(told, expected);
    }
    // Others can know of it a moment before it tells its own.
    let mut own_told = Vec::new();
    holds("it knows of its new incarnation", || {
        own_told.extend(told(&mut own));
        !own_told.is_empty()
    })
    .await;
    assert_eq!(
        own_told,
        [NodeEvent::Me(Incarnation::new(2))],
        "it has seen nobody go"
    );
    assert_eq!(cut.nodes().me(), (id, Incarnation::new(2)));
}

#[tokio::test]
async fn a_stalled_node_is_gone_and_comes_back_as_another_incarnation() {
    let nats = NatsServer::start().await;
    let one = quick(&[nats.url()]).start().await;
    let stalled = quick(&[nats.url()]).spawn().await;
    see(one.nodes(), 2).await;
    let mut events = one.nodes().events();
    stalled.pause(true);
    see(one.nodes(), 1).await;
    // As long again: what it does when it goes on may not depend on being found early.
    sleep(Duration::from_secs(2)).await;
    stalled.pause(false);
    see(one.nodes(), 2).await;
    let told = told(&mut events);
    let [NodeEvent::Down(gone, first), NodeEvent::Up(back, second)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(gone, back);
    assert_eq!((first.number(), second.number()), (1, 2));
}

#[tokio::test]
async fn all_that_answer_are_heard_and_the_others_named() {
    let nats = NatsServer::start().await;
    let one = quick(&[nats.url()]).start().await;
    let two = quick(&[nats.url()]).start().await;
    let mute = quick(&[nats.url()]).set("cluster.lease", "1h").start().await;
    for edge in [&one, &two, &mute] {
        see(edge.nodes(), 3).await;
    }
    let log = two.log().clone();
    let mut questions = within(log.listen("test")).await.unwrap();
    let answering = async {
        let question = std::future::poll_fn(|cx| questions.poll_next(cx)).await.unwrap();
        assert_eq!(question.from, one.nodes().me().0);
        log.answer(&question.reply.unwrap(), question.data);
    };
    let question = Bytes::from_static(b"?");
    let wait = Duration::from_millis(500);
    let asking = one.nodes().ask_all("test", question.clone(), wait);
    let (answers, ()) = within(async { tokio::join!(asking, answering) }).await;
    assert_eq!(answers.answers, [(two.nodes().me().0, question)]);
    assert_eq!(answers.missing, [mute.nodes().me().0]);
}

#[tokio::test]
async fn what_others_say_in_a_nodes_name_is_ignored_and_counted() {
    let nats = NatsServer::start().await;
    let edge = quick(&[nats.url()]).start().await;
    let other = quick(&[nats.url()]).start().await;
    let spy = async_nats::connect(nats.url()).await.unwrap();
    let mut heard = spy.subscribe("n.slipstream.nudge").await.unwrap();
    let refused = |reason: &str| {
        edge.metric(&format!(
            "slipstream_node_messages_refused_total{{reason=\"{reason}\"}}"
        ))
    };
    let send = async |payload: Bytes| spy.publish("n.slipstream.nudge", payload).await.unwrap();

    // A sequence far ahead, from nobody: a node that believed it would wait for it for ever.
    send(Bytes::from_static(
        br#"{"place":{"app":"dev","channel":"public:a","class":"std"},"epoch":"e","offset":9007199254740991}"#,
    ))
    .await;
    holds("malformed", || refused("malformed") == 1.0).await;
    // What the spy hears of itself proves that it will hear the other node.
    within(heard.next()).await.unwrap();
    other.log().tell("nudge", Bytes::from_static(b"{}"));
    let genuine = within(heard.next()).await.unwrap().payload;

    let mut changed = genuine.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    send(changed.into()).await;
    holds("forged", || refused("forged") == 1.0).await;
    send(genuine.clone()).await;
    holds("repeated", || refused("repeated") == 1.0).await;
    send(genuine.slice(..20)).await;
    send(Bytes::new()).await;
    holds("malformed", || refused("malformed") == 3.0).await;
    assert_eq!((refused("forged"), refused("repeated")), (1.0, 1.0));
}

#[tokio::test]
async fn an_operator_can_list_them() {
    let nats = NatsServer::start().await;
    let one = quick(&[nats.url()]).set("node.name", "one").start().await;
    let two = quick(&[nats.url()]).set("node.name", "two").start().await;
    see(one.nodes(), 2).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, quick(&[nats.url()]).toml()).unwrap();
    let list = async |more: &'static str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_slipstream"));
        command
            .args(["nodes", "--config", file.to_str().unwrap()])
            .args(more.split_whitespace());
        command.env("SLIPSTREAM__NATS__SERVERS", nats.url());
        let output = within(command.output()).await.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let table = list("").await;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    for (line, edge) in lines[1..].iter().zip([&one, &two]) {
        assert!(line.starts_with(&edge.nodes().me().0.to_string()), "{table}");
        assert!(line.contains(&edge.addr.to_string()), "{table}");
    }
    let json: serde_json::Value = serde_json::from_str(&list("--json").await).unwrap();
    assert_eq!(
        (&json[0]["name"], &json[1]["state"]),
        (&"one".into(), &"ready".into())
    );
}
