//! Questions, on nodes that are interested and on those that are not.

use std::collections::BTreeMap;

use super::setting::{Node, bare, quick};
use crate::support::{holds, nats::NatsServer};

#[tokio::test]
async fn a_node_that_is_not_interested_asks_and_forgets_again() {
    let nats = NatsServer::start().await;
    let [one, two, asked]: [Node; 3] = Node::cluster(&quick(&[nats.url()])).await;
    let _ann = one.join("public:q", "c1", "ann");
    let _bob = two.join("public:q", "c2", "bob");
    let known = || asked.metric("slipstream_presence_channels");
    assert_eq!(known(), 0.0);
    let expected = BTreeMap::from([
        ("c1".to_owned(), "ann".to_owned()),
        ("c2".to_owned(), "bob".to_owned()),
    ]);
    let page = asked.page("public:q", None, 10).await;
    assert!(page.complete && page.missing.is_empty() && page.next.is_none());
    assert_eq!((page.connections, page.users), (2, 2));
    assert_eq!(asked.members("public:q").await, expected);
    // "None" is an answer as well.
    let nobody = asked.stats("public:nobody").await;
    assert!(nobody.complete);
    assert_eq!((nobody.connections, nobody.users), (0, 0));
    holds("nothing is known any more", || known() == 0.0).await;
    assert_eq!(asked.members("public:q").await, expected);
}

#[tokio::test]
async fn a_node_that_starts_in_the_middle_knows_everybody_at_its_first_answer() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()]);
    let [one, two]: [Node; 2] = Node::cluster(&quick).await;
    let _before: Vec<_> = (0..50)
        .flat_map(|i| {
            [
                one.join("public:m", &format!("a{i}"), &format!("u{i}")),
                two.join("public:m", &format!("b{i}"), &format!("u{i}")),
            ]
        })
        .collect();
    let late = Node::start(&quick).await;
    let stats = late.stats("public:m").await;
    assert!(stats.complete);
    assert_eq!((stats.connections, stats.users), (100, 50));
    // And it is heard by those that were there.
    let _own = late.join("public:m", "own", "me");
    for node in [&one, &two, &late] {
        node.sees("public:m", 101, 51).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_complete_names_the_nodes_that_are_missing() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()]).set("presence.query_timeout", "500ms");
    let [one, two]: [Node; 2] = Node::cluster(&quick).await;
    let _ann = one.join("public:half", "c1", "ann");
    // It holds a lease, and answers nobody.
    let (_log, mute, _metrics, tasks) = bare(&quick.config()).await;
    for node in [&one, &two] {
        holds("three nodes", || node.nodes.live().len() == 3).await;
    }
    let page = two.page("public:half", None, 10).await;
    assert!(!page.complete);
    assert_eq!(page.missing, [mute.me().0]);
    assert_eq!(page.members.len(), 1, "what is known is told");
    let stats = two.stats("public:half").await;
    assert!(!stats.complete);
    assert_eq!((stats.connections, stats.missing), (1, vec![mute.me().0]));
    // Once it is gone nobody waits for it.
    tasks.stop();
    two.sees("public:half", 1, 1).await;
}

#[tokio::test]
async fn ten_thousand_members_are_read_in_pages() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()]);
    let [one, two, asked]: [Node; 3] = Node::cluster(&quick).await;
    let _members: Vec<_> = (0..10_000)
        .map(|i| [&one, &two][i % 2].join("public:big", &format!("c{i:05}"), &format!("u{i}")))
        .collect();
    asked.sees("public:big", 10_000, 10_000).await;
    let mut read = Vec::new();
    let mut after: Option<Box<str>> = None;
    let mut pages = 0;
    loop {
        let page = asked.page("public:big", after.as_deref(), 999).await;
        assert!(page.complete && page.members.len() <= 999);
        assert_eq!((page.connections, page.users), (10_000, 10_000));
        read.extend(page.members.iter().map(|member| member.client.to_string()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 11);
    let expected: Vec<_> = (0..10_000).map(|i| format!("c{i:05}")).collect();
    assert!(read == expected);
}

#[tokio::test]
async fn channels_of_other_names_are_others() {
    let nats = NatsServer::start().await;
    let [one, two]: [Node; 2] = Node::cluster(&quick(&[nats.url()])).await;
    let _members: Vec<_> = (0..300)
        .map(|i| one.join(&format!("public:n{i}"), &format!("c{i}"), "ann"))
        .collect();
    for i in 0..300 {
        let members = two.members(&format!("public:n{i}")).await;
        assert_eq!(members.into_keys().collect::<Vec<_>>(), [format!("c{i}")]);
    }
}
