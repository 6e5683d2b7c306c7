//! Too many, too much, too often.

use bytes::Bytes;
use slipstream::presence::{Member, Membership, PresenceError};

use super::setting::{Ear, Node, app, member, name, quick};
use crate::support::{
    nats::NatsServer,
    proxy::{Proxy, Weather},
};

fn json(bytes: usize) -> Bytes {
    format!("\"{}\"", "x".repeat(bytes - 2)).into()
}

fn limit(node: &Node, limit: &str) -> f64 {
    node.metric(&format!(
        "slipstream_limits_hit_total{{app=\"dev\",limit=\"{limit}\"}}"
    ))
}

#[tokio::test]
async fn a_channel_has_no_more_members_than_it_may() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()]).set("presence.max_members", "3");
    let [one, two]: [Node; 2] = Node::cluster(&quick).await;
    let mut members: Vec<_> = ["a", "b", "c"]
        .map(|client| one.join("public:full", client, client))
        .into();
    let ear = Ear::new();
    let refused = one.try_join("public:full", member("d", "d"), Some(&ear));
    assert_eq!(refused.err(), Some(PresenceError::TooManyMembers));
    assert!(ear.heard().is_empty());
    // Those of other nodes count.
    two.sees("public:full", 3, 3).await;
    let refused = two.try_join("public:full", member("d", "d"), None);
    assert_eq!(refused.err(), Some(PresenceError::TooManyMembers));
    assert_eq!(limit(&one, "presence_members"), 1.0);
    assert_eq!(limit(&two, "presence_members"), 1.0);
    members.remove(0).leave();
    two.sees("public:full", 2, 2).await;
    let _d = two.join("public:full", "d", "d");
    for node in [&one, &two] {
        node.sees("public:full", 3, 3).await;
    }
}

#[tokio::test]
async fn a_node_knows_no_more_channels_than_it_may() {
    let nats = NatsServer::start().await;
    let node = Node::start(&quick(&[nats.url()]).set("presence.max_channels", "2")).await;
    let (_a, _b) = (node.join("public:a", "a", "a"), node.join("public:b", "b", "b"));
    let refused = node.try_join("public:c", member("c", "c"), None);
    assert_eq!(refused.err(), Some(PresenceError::TooManyChannels));
    let refused = node.presence.stats(&app(), &name("public:c")).await;
    assert_eq!(refused.err(), Some(PresenceError::TooManyChannels));
    let ear = Ear::new();
    let refused = node
        .presence
        .listen(&app(), &name("public:c"), ear.mailbox.clone());
    assert_eq!(refused.err(), Some(PresenceError::TooManyChannels));
    assert_eq!(limit(&node, "presence_channels"), 3.0);
    // Those it knows it goes on with.
    let _c = node.join("public:a", "c", "c");
    node.sees("public:a", 2, 2).await;
}

#[tokio::test]
async fn info_and_state_have_their_bounds_and_are_seen_as_they_are() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()])
        .set("presence.max_info_bytes", "100B")
        .set("presence.max_state_bytes", "50B");
    let [one, two]: [Node; 2] = Node::cluster(&quick).await;
    let shown = |conn: usize, chan: usize| Member {
        conn_info: Some(json(conn)),
        chan_info: Some(json(chan)),
        ..member("c", "ann")
    };
    let refused = one.try_join("public:info", shown(60, 41), None);
    assert_eq!(refused.err(), Some(PresenceError::InfoTooLarge));
    assert_eq!(limit(&one, "presence_info"), 1.0);
    one.sees("public:info", 0, 0).await;

    let mut ann = one.try_join("public:info", shown(60, 40), None).unwrap();
    let large = ann.update_state(Some(json(51)));
    assert_eq!(large, Err(PresenceError::StateTooLarge));
    assert_eq!(limit(&one, "presence_state"), 1.0);
    ann.update_state(Some(json(50))).unwrap();
    let expected = Member {
        state: Some(json(50)),
        ..shown(60, 40)
    };
    two.sees("public:info", 1, 1).await;
    crate::support::until("the state", async || {
        let page = two.page("public:info", None, 10).await;
        let seen = Member {
            joined_ms: 0,
            ..(*page.members[0]).clone()
        };
        (seen == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn states_change_no_more_often_than_they_may() {
    let nats = NatsServer::start().await;
    let node = Node::start(&quick(&[nats.url()]).set("presence.state_rate", "3")).await;
    let (mut ann, ear) = node.join_and_hear("public:fast", "c", "ann");
    let results: Vec<_> = (0..6)
        .map(|i| ann.update_state(Some(format!("{i}").into())))
        .collect();
    assert_eq!(results[..3], [Ok(()); 3]);
    // A slow machine may have earned one more.
    assert!(
        results[3..].contains(&Err(PresenceError::TooOften)),
        "{results:?}"
    );
    assert!(limit(&node, "presence_state_rate") >= 1.0);
    let heard = ear.heard();
    assert_eq!(heard[..2], ["join c ann", "update c ann 0"]);
    let taken = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(heard.len(), 1 + taken);
}

#[tokio::test]
async fn in_a_large_channel_only_the_numbers_change() {
    let nats = NatsServer::start().await;
    let quick = quick(&[nats.url()]).set("presence.join_leave_max", "3");
    let [one, two]: [Node; 2] = Node::cluster(&quick).await;
    let (_listening, far) = two.listen("public:crowd");
    let (_a, near) = one.join_and_hear("public:crowd", "a", "a");
    let _b = one.join("public:crowd", "b", "b");
    two.sees("public:crowd", 2, 2).await;
    let c = one.join("public:crowd", "c", "c");
    two.sees("public:crowd", 3, 3).await;
    let d = one.join("public:crowd", "d", "d");
    two.sees("public:crowd", 4, 4).await;
    let e = two.join("public:crowd", "e", "e");
    one.sees("public:crowd", 5, 5).await;
    e.leave();
    one.sees("public:crowd", 4, 4).await;
    for ear in [&near, &far] {
        let mut heard = ear.heard();
        // What is gathered has no order.
        heard.sort();
        assert_eq!(heard, ["join a a", "join b b", "join c c"]);
    }
    // The leave after which there are few enough is heard again.
    d.leave();
    c.leave();
    near.hears(&["join a a", "join b b", "join c c", "leave d d", "leave c c"])
        .await;
    two.sees("public:crowd", 2, 2).await;
}

#[tokio::test]
async fn members_with_as_much_info_as_they_may_come_all_at_once() {
    let nats = NatsServer::start().await;
    let [one, two, asked]: [Node; 3] = Node::cluster(&quick(&[nats.url()])).await;
    let (_listening, _ear) = two.listen("public:heavy");
    // Eight megabytes, told in messages of which NATS takes one megabyte each.
    let members: Vec<_> = (0..2_000)
        .map(|i| {
            let member = Member {
                conn_info: Some(json(4_096)),
                ..member(&format!("c{i:04}"), "u")
            };
            one.try_join("public:heavy", member, None).unwrap()
        })
        .collect();
    two.sees("public:heavy", 2_000, 1).await;
    // And answered, in parts.
    asked.sees("public:heavy", 2_000, 1).await;
    let page = asked.page("public:heavy", None, 1).await;
    assert_eq!(page.members[0].info_bytes(), 4_096);
    members.into_iter().for_each(Membership::leave);
    for node in [&two, &asked] {
        node.sees("public:heavy", 0, 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_takes_longer_is_given_the_time() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::nats(&nats.url()).await;
    let one = Node::start(&quick(&[nats.url()])).await;
    let far = Node::start(&quick(&proxy.urls()).set("cluster.lease", "1h")).await;
    for node in [&one, &far] {
        crate::support::holds("two nodes", || node.nodes.live().len() == 2).await;
    }
    let _members: Vec<_> = (0..500)
        .map(|i| {
            let member = Member {
                conn_info: Some(json(4_096)),
                ..member(&format!("c{i:04}"), "u")
            };
            one.try_join("public:far", member, None).unwrap()
        })
        .collect();
    // Two megabytes at 600 KB a second: more than the first question waits.
    proxy.set(Weather::Slow(600_000));
    far.sees("public:far", 500, 1).await;
    assert!(far.metric("slipstream_presence_unanswered_total") >= 1.0);
}

#[tokio::test]
async fn a_listener_that_does_not_read_loses_events_and_keeps_its_connection() {
    let nats = NatsServer::start().await;
    let node = Node::start(&quick(&[nats.url()])).await;
    let slow = Ear::with_room(50);
    let _listening = node
        .presence
        .listen(&app(), &name("public:slow"), slow.mailbox.clone())
        .unwrap();
    let _members: Vec<_> = (0..20)
        .map(|i| node.join("public:slow", &format!("c{i:02}"), "u"))
        .collect();
    assert!(!slow.mailbox.closing());
    assert_eq!(slow.heard().len(), 5, "ten bytes each");
    let dropped = node.metric("slipstream_drops_total{reason=\"presence_event\"}");
    assert_eq!(dropped, 15.0);
    node.sees("public:slow", 20, 1).await;
}
