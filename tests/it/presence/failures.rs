//! Nodes that die, are cut off, or do not hear what they are told.

use bytes::Bytes;
use slipstream::log::Log;

use super::setting::{Ear, Node, bare, quick};
use crate::support::{
    holds,
    nats::NatsServer,
    proxy::{Proxy, Weather},
};

fn leaves(ear: &Ear) -> usize {
    let heard = ear.heard();
    heard.iter().filter(|event| event.starts_with("leave")).count()
}

#[tokio::test]
async fn the_members_of_a_node_that_dies_leave_exactly_once() {
    let nats = NatsServer::start().await;
    let [one, two, dies]: [Node; 3] = Node::cluster(&quick(&[nats.url()])).await;
    let (_ann, near) = one.join_and_hear("public:death", "a", "ann");
    let (_listening, far) = two.listen("public:death");
    let _lost: Vec<_> = (0..20)
        .map(|i| dies.join("public:death", &format!("c{i}"), &format!("u{i}")))
        .collect();
    for node in [&one, &two] {
        node.sees("public:death", 21, 21).await;
    }
    let expected = one.members("public:death").await;
    assert_eq!(two.members("public:death").await, expected);
    dies.kill();
    for (node, ear) in [(&one, &near), (&two, &far)] {
        node.sees("public:death", 1, 1).await;
        assert_eq!(leaves(ear), 20);
        assert_eq!(ear.heard().len(), 41, "and nobody came again");
    }
    let after = Node::start(&quick(&[nats.url()])).await;
    after.sees("public:death", 1, 1).await;
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_found_by_the_digest() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    let one = Node::start(&quick(&[nats.url()])).await;
    let witness = Node::start(&quick(&[nats.url()])).await;
    let deaf = Node::start(&quick(&proxy.urls())).await;
    for node in [&one, &witness, &deaf] {
        holds("three nodes", || node.nodes.live().len() == 3).await;
    }
    let (_listening, ear) = deaf.listen("public:lost");
    let stays = one.join("public:lost", "stays", "s");
    let goes = one.join("public:lost", "goes", "g");
    deaf.sees("public:lost", 2, 2).await;

    // A change of a channel that is known, and the last leave of one.
    let last = one.join("public:last", "last", "l");
    deaf.sees("public:last", 1, 1).await;
    proxy.losses().presence(true);
    goes.leave();
    // The other nodes may have it well before the proxy: a digest that is lost is not enough.
    holds("lost", || proxy.losses().deltas() > 0).await;
    last.leave();
    let _comes = one.join("public:lost", "comes", "c");
    let _first = one.join("public:first", "first", "f");
    for (channel, count) in [("public:lost", 2), ("public:last", 0), ("public:first", 1)] {
        witness.sees(channel, count, count).await;
    }
    assert_eq!(ear.heard().len(), 2, "it has heard nothing of it");
    proxy.losses().presence(false);
    // Nothing else happens: only digests tell.
    deaf.sees("public:lost", 2, 2).await;
    deaf.sees("public:last", 0, 0).await;
    deaf.sees("public:first", 1, 1).await;
    let mut heard = ear.heard().split_off(2);
    heard.sort();
    assert_eq!(heard, ["join comes c", "leave goes g"]);
    let holes = deaf.metric("slipstream_presence_holes_total");
    assert!(holes >= 1.0, "{:?}", deaf.nodes.live());
    drop(stays);
}

#[tokio::test]
async fn a_node_that_was_cut_off_is_gone_and_comes_back_with_all_its_members() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    let one = Node::start(&quick(&[nats.url()])).await;
    let two = Node::start(&quick(&[nats.url()])).await;
    let cut = Node::start(&quick(&proxy.urls()).set("nats.ping_interval", "300ms")).await;
    for node in [&one, &two, &cut] {
        holds("three nodes", || node.nodes.live().len() == 3).await;
    }
    let (_ann, near) = one.join_and_hear("public:cut", "a", "ann");
    let bob = two.join("public:cut", "b", "bob");
    let (_cid, inside) = cut.join_and_hear("public:cut", "c", "cid");
    for node in [&one, &two, &cut] {
        node.sees("public:cut", 3, 3).await;
    }
    proxy.set(Weather::BlackHole);
    for node in [&one, &two] {
        node.sees("public:cut", 2, 2).await;
    }
    // Meanwhile one comes on each side, and one goes.
    let _dan = one.join("public:cut", "d", "dan");
    let _eve = cut.join("public:cut", "e", "eve");
    bob.leave();
    two.sees("public:cut", 2, 2).await;
    proxy.set(Weather::Clear);
    let expected = [("a", "ann"), ("c", "cid"), ("d", "dan"), ("e", "eve")];
    let expected = expected.map(|(client, user)| (client.to_owned(), user.to_owned()));
    for node in [&one, &two, &cut] {
        crate::support::until("the same members", async || {
            (node.members("public:cut").await == expected.clone().into()).then_some(())
        })
        .await;
    }
    let of = |ear: &Ear, client: &str| {
        let mut heard = ear.heard();
        heard.retain(|event| event.split(' ').nth(1) == Some(client));
        heard
    };
    assert_eq!(of(&near, "c"), ["join c cid", "leave c cid", "join c cid"]);
    assert_eq!(of(&near, "e"), ["join e eve"]);
    assert_eq!(of(&inside, "a"), ["join a ann"], "it has never left");
    assert_eq!(of(&inside, "b"), ["join b bob", "leave b bob"]);
}

#[tokio::test]
async fn a_node_that_was_disconnected_says_so_and_asks_everybody() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    // No digest helps, and nobody's lease ends.
    let builder = |urls: &[String]| {
        let builder = quick(urls)
            .set("cluster.lease", "1h")
            .set("presence.digest_interval", "1h");
        let builder = builder.set("presence.query_timeout", "300ms");
        builder.set("presence.linger", "2h")
    };
    let one = Node::start(&builder(&[nats.url()])).await;
    let cut = Node::start(&builder(&proxy.urls())).await;
    for node in [&one, &cut] {
        holds("two nodes", || node.nodes.live().len() == 2).await;
    }
    let (_ann, ear) = cut.join_and_hear("public:cut", "a", "ann");
    let bob = one.join("public:cut", "b", "bob");
    for node in [&one, &cut] {
        node.sees("public:cut", 2, 2).await;
    }
    proxy.set(Weather::Cut);
    holds("no connection", || !cut.log.connected()).await;
    let page = cut.page("public:cut", None, 10).await;
    assert!(!page.complete);
    assert_eq!(page.members.len(), 2, "what was known is told");
    bob.leave();
    let _cid = one.join("public:cut", "c", "cid");
    let _dan = one.join("public:cut", "d", "dan");
    let _eve = cut.join("public:cut", "e", "eve");
    proxy.set(Weather::Clear);
    for node in [&one, &cut] {
        node.sees("public:cut", 4, 4).await;
    }
    let mut heard = ear.heard();
    heard.sort();
    let expected = [
        "join a ann",
        "join b bob",
        "join c cid",
        "join d dan",
        "join e eve",
        "leave b bob",
    ];
    assert_eq!(heard, expected, "nobody has left who has not");
}

#[tokio::test]
async fn what_a_node_says_that_makes_no_sense_is_ignored() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()]).set("presence.query_timeout", "300ms");
    let [one, two]: [Node; 2] = Node::cluster(&quick).await;
    let (odd, nodes, _metrics, _tasks) = bare(&quick.config()).await;
    let _ann = one.join("public:sense", "c", "ann");
    // Signed by a node of the deployment, whose lease holds.
    holds("three nodes", || two.nodes.live().len() == 3).await;
    let incarnation = nodes.me().1.number();
    for partition in 0..256 {
        for text in [
            String::new(),
            "null".to_owned(),
            "{\"incarnation\":4294967296}".to_owned(),
            format!("{{\"incarnation\":{incarnation},\"deltas\":[{{}}]}}"),
            format!("{{\"incarnation\":{incarnation},\"digest\":{{\"at\":-1}}}}"),
            "[".repeat(100_000),
        ] {
            odd.tell(&format!("presence.{partition}"), Bytes::from(text));
        }
    }
    for text in ["", "{}", "{\"channels\":[[\"\",\"\"]]}", "{\"channels\":3}"] {
        let topic = format!("presence-ask.{}", one.nodes.me().0);
        odd.tell(&topic, Bytes::from_static(text.as_bytes()));
    }
    let _bob = two.join("public:sense", "d", "bob");
    for node in [&one, &two] {
        // The odd node is asked, too, and does not answer.
        crate::support::until("both", async || {
            (node.stats("public:sense").await.connections == 2).then_some(())
        })
        .await;
    }
}
