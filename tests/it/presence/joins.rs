//! Joins, leaves and changes that all nodes see.

use std::time::Duration;

use bytes::Bytes;
use slipstream::presence::Membership;

use super::setting::{Node, quick};
use crate::support::{holds, nats::NatsServer};

#[tokio::test]
async fn a_storm_of_joins_and_of_leaves_ends_the_same_on_all_nodes() {
    let nats = NatsServer::start().await;
    let nodes: [Node; 3] = Node::cluster(&quick(&[nats.url()])).await;
    let mut members: Vec<Membership> = Vec::new();
    for i in 0..3_000 {
        // Two tabs each.
        members.push(nodes[i % 3].join("public:storm", &format!("c{i:04}"), &format!("u{}", i / 2)));
    }
    for node in &nodes {
        node.sees("public:storm", 3_000, 1_500).await;
    }
    let all = nodes[0].members("public:storm").await;
    assert_eq!(all.len(), 3_000);
    for node in &nodes[1..] {
        assert!(node.members("public:storm").await == all);
    }
    // Every other one leaves while others come.
    let mut stay = Vec::new();
    for (i, membership) in members.into_iter().enumerate() {
        if i % 2 == 0 {
            membership.leave();
        } else {
            stay.push(membership);
        }
        if i % 10 == 0 {
            stay.push(nodes[i % 3].join("public:storm", &format!("d{i:04}"), ""));
        }
    }
    for node in &nodes {
        // Those without a user count as one.
        node.sees("public:storm", 1_800, 1_501).await;
    }
    let all = nodes[0].members("public:storm").await;
    for node in &nodes[1..] {
        assert!(node.members("public:storm").await == all);
    }
    stay.into_iter().for_each(Membership::leave);
    for node in &nodes {
        node.sees("public:storm", 0, 0).await;
    }
}

#[tokio::test]
async fn a_user_with_tabs_on_two_nodes_counts_once_until_the_last_one_leaves() {
    let nats = NatsServer::start().await;
    let [one, two]: [Node; 2] = Node::cluster(&quick(&[nats.url()])).await;
    let first = one.join("public:tabs", "c1", "ann");
    let second = two.join("public:tabs", "c2", "ann");
    for node in [&one, &two] {
        node.sees("public:tabs", 2, 1).await;
    }
    first.leave();
    for node in [&one, &two] {
        node.sees("public:tabs", 1, 1).await;
    }
    second.leave();
    for node in [&one, &two] {
        node.sees("public:tabs", 0, 0).await;
    }
}

#[tokio::test]
async fn joins_changes_and_leaves_are_heard_on_all_nodes_in_their_order() {
    let nats = NatsServer::start().await;
    let [one, two]: [Node; 2] = Node::cluster(&quick(&[nats.url()])).await;
    let (_listening, far) = two.listen("public:room");
    let (mut ann, near) = one.join_and_hear("public:room", "c1", "ann");
    near.hears(&["join c1 ann"]).await;
    far.hears(&["join c1 ann"]).await;
    ann.update_state(Some(Bytes::from_static(b"{\"typing\":true}")))
        .unwrap();
    let typing = "update c1 ann {\"typing\":true}";
    far.hears(&["join c1 ann", typing]).await;
    let bob = two.join("public:room", "c2", "bob");
    near.hears(&["join c1 ann", typing, "join c2 bob"]).await;
    ann.update_state(None).unwrap();
    ann.leave();
    // What is gathered says how things are: a change and then a leave is a leave.
    far.hears(&["join c1 ann", typing, "join c2 bob", "leave c1 ann"])
        .await;
    bob.leave();
    far.hears(&[
        "join c1 ann",
        typing,
        "join c2 bob",
        "leave c1 ann",
        "leave c2 bob",
    ])
    .await;
    assert_eq!(
        near.heard(),
        ["join c1 ann", typing, "join c2 bob", "update c1 ann"],
        "who has left hears nothing of it, and nothing after it"
    );
}

#[tokio::test]
async fn a_user_who_comes_back_within_the_grace_never_leaves() {
    let nats = NatsServer::start().await;
    let [one, two]: [Node; 2] = Node::cluster(&quick(&[nats.url()])).await;
    let (_here, near) = one.listen("public:tunnel");
    let (_there, far) = two.listen("public:tunnel");
    let mut events = vec!["join c0 ann".to_owned()];
    let mut connection = one.join("public:tunnel", "c0", "ann");
    // From node to node, and once to the same.
    for (i, node) in [(1, &two), (2, &one), (3, &one), (4, &two)] {
        for ear in [&near, &far] {
            ear.hears(&events.iter().map(String::as_str).collect::<Vec<_>>())
                .await;
        }
        drop(connection);
        connection = node.join("public:tunnel", &format!("c{i}"), "ann");
        events.push(format!("join c{i} ann"));
        events.push(format!("leave c{} ann", i - 1));
    }
    for (node, ear) in [(&one, &near), (&two, &far)] {
        ear.hears(&events.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        node.sees("public:tunnel", 1, 1).await;
    }
}

#[tokio::test]
async fn who_is_lost_for_longer_than_the_grace_leaves_and_who_says_goodbye_at_once() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()]).set("presence.grace", "700ms");
    let [one, two]: [Node; 2] = Node::cluster(&quick).await;
    let (_there, far) = two.listen("public:door");
    let lost = one.join("public:door", "lost", "ann");
    let nobody = one.join("public:door", "nobody", "");
    let gone = one.join("public:door", "gone", "bob");
    two.sees("public:door", 3, 3).await;
    let begun = std::time::Instant::now();
    drop(lost);
    drop(nobody);
    gone.leave();
    holds("a leave", || far.heard().len() > 3).await;
    assert_eq!(far.heard()[3], "leave gone bob");
    // Nobody else without a user ends the grace of one.
    let _other = two.join("public:door", "other", "");
    two.sees("public:door", 1, 1).await;
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let mut heard = far.heard().split_off(4);
    heard.sort();
    assert_eq!(heard, ["join other", "leave lost ann", "leave nobody"]);
}
