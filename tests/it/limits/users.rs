//! What one user may do, over all its connections to a node.

use serde_json::json;

use super::{SECRET, edge, guest, hit, path, publish};
use crate::{
    doors::{Entered, enter, http, token},
    support::{nats::NatsServer, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections_and_no_more() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.max_connections_per_user = 2").start().await;
    let first = guest(&edge, "a", Some("ann")).await;
    let mut second = guest(&edge, "a", Some("ann")).await;
    let ann = token(&json!({ "sub": "ann" }), SECRET);
    let third = enter(edge.addr, &path("a"), None, Some(&ann)).await;
    assert!(matches!(third, Entered::Closed(3504)), "{third:?}");
    assert_eq!(hit(&edge, "a", "user_connections"), 1.0);
    // Those that are there stay, and others are others: another user, nobody, the user of another app.
    assert_eq!(publish(&mut second, "x").await, Ok(0));
    let mut others = Vec::new();
    for (app, user) in [("a", Some("bob")), ("a", None), ("a", None), ("a", None)] {
        others.push(guest(&edge, app, user).await);
    }
    for _ in 0..5 {
        others.push(guest(&edge, "b", Some("ann")).await);
    }
    // A place that is left is free.
    drop(first);
    until("there is a place again", || async {
        let entered = enter(edge.addr, &path("a"), None, Some(&ann)).await;
        matches!(entered, Entered::In(_)).then_some(())
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connects_of_a_user_at_once_are_no_way_around_it() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.max_connections_per_user = 3").start().await;
    let ann = token(&json!({ "sub": "ann" }), SECRET);
    let path = path("a");
    let storm = (0..40).map(|_| enter(edge.addr, &path, None, Some(&ann)));
    let entered = futures_util::future::join_all(storm).await;
    let count = |is: fn(&Entered) -> bool| entered.iter().filter(|it| is(it)).count();
    assert_eq!(count(|it| matches!(it, Entered::In(_))), 3);
    assert_eq!(count(|it| matches!(it, Entered::Closed(3504))), 37);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_s_publications_are_limited_over_all_its_connections() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.user_publish_rate = 5").start().await;
    let mut one = guest(&edge, "a", Some("ann")).await;
    let mut two = guest(&edge, "a", Some("ann")).await;
    let mut other = guest(&edge, "a", Some("bob")).await;
    while publish(&mut one, "x").await == Ok(0) {}
    // The time may have given one back since.
    let mut refused = 0;
    for _ in 0..5 {
        refused += usize::from(publish(&mut two, "x").await == Ok(111));
    }
    assert!(refused >= 3, "{refused}");
    assert_eq!(hit(&edge, "a", "user_publish_rate"), 1.0 + refused as f64);
    // Another user, and those without one, have their own; a backend has none; it is no abuse.
    assert_eq!(publish(&mut other, "x").await, Ok(0));
    let (mut nobody, mut no_one) = (guest(&edge, "a", None).await, guest(&edge, "a", None).await);
    while publish(&mut nobody, "x").await == Ok(0) {}
    assert_eq!(publish(&mut no_one, "x").await, Ok(0));
    for _ in 0..30 {
        let key = ("x-api-key", "the-key-of-a");
        let body = json!({"channel": "x", "data": "x"});
        let (status, answer) = http(edge.addr, "POST /api/publish", &[key], &body).await;
        assert_eq!((status, answer.get("error")), (200, None));
    }
    let mut tenant = guest(&edge, "b", Some("ann")).await;
    for _ in 0..30 {
        assert_eq!(publish(&mut tenant, "x").await, Ok(0));
    }
    assert_eq!(hit(&edge, "b", "user_publish_rate"), 0.0);
    edge.stop().await;
}
