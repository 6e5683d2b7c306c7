//! What one connection may ask for.

use serde_json::json;

use super::{code, edge, guest, hit, path, publish};
use crate::{
    doors::enter,
    support::{nats::NatsServer, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_on_after_being_refused_is_closed_and_nobody_else_notices() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.command_rate = 5\nlimits.max_refusals = 3")
        .start()
        .await;
    let mut abuser = guest(&edge, "a", None).await;
    let mut neighbour = guest(&edge, "a", None).await;
    let mut tenant = guest(&edge, "b", None).await;
    // Until it is closed: five at once and some that the time allows, three that are refused.
    let (mut done, mut refused) = (0, 0);
    let closed = loop {
        match publish(&mut abuser, "x").await {
            Ok(0) => done += 1,
            Ok(code) => {
                assert_eq!(code, 111);
                refused += 1;
            }
            Err(closed) => break closed,
        }
    };
    assert_eq!((closed, refused), (3509, 3));
    assert!(done >= 5, "{done}");
    assert_eq!(
        (hit(&edge, "a", "command_rate"), hit(&edge, "a", "refusals")),
        (3.0, 1.0)
    );
    // The close is counted as what it is.
    let closed = "slipstream_connections_closed_total{app=\"a\",code=\"3509\"}";
    until("it is counted", || async {
        (edge.metric(closed) == 1.0).then_some(())
    })
    .await;
    // Another connection of the app has its own limit, and the other app has none.
    assert_eq!(publish(&mut neighbour, "x").await, Ok(0));
    for _ in 0..200 {
        assert_eq!(publish(&mut tenant, "x").await, Ok(0));
    }
    assert_eq!(hit(&edge, "b", "command_rate"), 0.0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_after_being_refused_once_keeps_its_connection() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.command_rate = 2\nlimits.max_refusals = 1")
        .start()
        .await;
    let mut polite = guest(&edge, "a", None).await;
    while publish(&mut polite, "x").await == Ok(0) {}
    assert_eq!(hit(&edge, "a", "command_rate"), 1.0);
    // What is refused costs nothing: it comes again after half a second, the rate's own time.
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        assert_eq!(publish(&mut polite, "x").await, Ok(0));
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_limited_and_an_unsubscribe_is_never_refused() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.command_bytes = \"1KiB\"\nlimits.max_refusals = 20")
        .start()
        .await;
    let mut guest = guest(&edge, "a", None).await;
    guest.subscribe(json!({"channel": "x"})).await.unwrap();
    // More than a second's worth is delayed, not locked out, and paid off: the next are refused.
    let large = "x".repeat(8000);
    let mut taken = false;
    for _ in 0..20 {
        match publish(&mut guest, &large).await {
            Ok(0) => {
                taken = true;
                break;
            }
            code => assert_eq!(code, Ok(111)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert!(taken);
    assert_eq!(publish(&mut guest, "x").await, Ok(111));
    let unsubscribe = json!({ "unsubscribe": { "channel": "x" } });
    assert_eq!(code(&guest.command(unsubscribe).await.unwrap()), 0);
    // It is done.
    assert!(hit(&edge, "a", "command_bytes") >= 2.0);
    assert_eq!(edge.metric("slipstream_subscriptions{app=\"a\"}"), 0.0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_limited_for_each_app() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.max_channels = 2").start().await;
    let mut a = enter(edge.addr, &path("a"), None, None).await.guest();
    let mut b = enter(edge.addr, &path("b"), None, None).await.guest();
    for (channel, result) in [("x", Ok(())), ("y", Ok(())), ("z", Err(106))] {
        assert_eq!(a.subscribe(json!({ "channel": channel })).await, result);
        assert_eq!(b.subscribe(json!({ "channel": channel })).await, Ok(()));
    }
    assert_eq!(
        (hit(&edge, "a", "channels"), hit(&edge, "b", "channels")),
        (1.0, 0.0)
    );
    edge.stop().await;
}
