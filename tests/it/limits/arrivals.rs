//! Who may come, how fast, and from where.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, client::IntoClientRequest},
};

use super::{SECRET, edge, hit, path, publish};
use crate::{
    doors::{Entered, enter, token},
    support::{nats::NatsServer, until, within},
};

/// A handshake that came through, or the status and the `Retry-After` it was refused with.
type Shaken = Result<WebSocketStream<TcpStream>, (u16, Option<u64>)>;

async fn shake(addr: SocketAddr, forwarded: &[&str]) -> Shaken {
    let mut request = format!("ws://{addr}{}", path("a")).into_client_request().unwrap();
    for value in forwarded {
        request
            .headers_mut()
            .append("x-forwarded-for", value.parse().unwrap());
    }
    let stream = within(TcpStream::connect(addr)).await.unwrap();
    match within(client_async(request, stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let wait = response.headers().get("retry-after");
            let wait = wait.map(|wait| wait.to_str().unwrap().parse().unwrap());
            Err((response.status().as_u16(), wait))
        }
        Err(error) => panic!("{error}"),
    }
}

fn status(shaken: &Shaken) -> u16 {
    shaken.as_ref().map_or_else(|(status, _)| *status, |_| 101)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "")
        .set("edge.max_connections_per_ip", "2")
        .start()
        .await;
    // Nobody is trusted here: whatever they say they are one address.
    let first = shake(edge.addr, &[]).await;
    let second = shake(edge.addr, &["1.1.1.1"]).await;
    assert_eq!((status(&first), status(&second)), (101, 101));
    let third = shake(edge.addr, &["2.2.2.2"]).await.map(|_| ()).unwrap_err();
    assert_eq!(third.0, 429);
    assert!(third.1.is_some_and(|wait| wait > 0));
    assert_eq!(hit(&edge, "a", "ip_connections"), 1.0);
    drop(first);
    until("there is a place again", || async {
        shake(edge.addr, &[]).await.ok().map(drop)
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections_in_an_app() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.max_connections_per_ip = 2")
        .set("edge.trusted_proxies", "127.0.0.0/8")
        .start()
        .await;
    let first = shake(edge.addr, &["1.1.1.1"]).await;
    let second = shake(edge.addr, &["1.1.1.1"]).await;
    assert_eq!((status(&first), status(&second)), (101, 101));
    let third = shake(edge.addr, &["1.1.1.1"]).await.map(|_| ()).unwrap_err();
    assert!(
        third.0 == 429 && third.1.is_some_and(|wait| wait > 0),
        "{third:?}"
    );
    assert_eq!(hit(&edge, "a", "app_ip_connections"), 1.0);
    // Another address, and another app.
    let elsewhere = shake(edge.addr, &["2.2.2.2"]).await;
    assert_eq!(status(&elsewhere), 101);
    let other = enter(edge.addr, &path("b"), None, None).await.guest();
    drop((first, other));
    until("there is a place again", || async {
        shake(edge.addr, &["1.1.1.1"]).await.ok().map(drop)
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_only_the_token_names_counts_addresses_too() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "limits.max_connections_per_ip = 1").start().await;
    let of_a = token(&json!({ "sub": "u", "app": "a" }), SECRET);
    let by_token = || enter(edge.addr, "/connection/websocket", None, Some(&of_a));
    let first = by_token().await.guest();
    assert!(matches!(by_token().await, Entered::Closed(3504)));
    assert!(matches!(
        enter(edge.addr, &path("a"), None, None).await,
        Entered::Refused(429)
    ));
    assert_eq!(hit(&edge, "a", "app_ip_connections"), 2.0);
    drop(first);
    until("there is a place again", || async {
        match by_token().await {
            Entered::In(guest) => Some(guest),
            _ => None,
        }
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed_and_what_a_client_writes_is_not() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "")
        .set("edge.max_connections_per_ip", "1")
        .set("edge.trusted_proxies", "127.0.0.0/8,10.0.0.0/8")
        .start()
        .await;
    let mut open = Vec::new();
    for (forwarded, expected) in [
        (&["1.1.1.1"][..], 101),
        (&["1.1.1.1"], 429),
        // By another name.
        (&["::ffff:1.1.1.1"], 429),
        // It claims to be somebody else, in front of what the proxy has appended.
        (&["6.6.6.6, 1.1.1.1"], 429),
        (&["6.6.6.6", "1.1.1.1"], 429),
        (&["6.6.6.6, 1.1.1.1, 10.0.0.9"], 429),
        (&["2.2.2.2"], 101),
        (&["1.1.1.1, 2.2.2.2"], 429),
        // Of one network, and of another.
        (&["2001:db8:1:2::1"], 101),
        (&["2001:db8:1:2::2"], 429),
        (&["2001:db8:1:3::1"], 101),
        // The proxy itself.
        (&[], 101),
        (&["nonsense"], 429),
    ] {
        let shaken = shake(edge.addr, forwarded).await;
        assert_eq!(status(&shaken), expected, "{forwarded:?}");
        open.extend(shaken.ok());
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_connects_is_told_to_come_later() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "").set("edge.connect_rate", "10").start().await;
    let mut storm = JoinSet::new();
    for _ in 0..60 {
        let addr = edge.addr;
        storm.spawn(async move { shake(addr, &[]).await });
    }
    let shaken = within(storm.join_all()).await;
    let refused: Vec<_> = shaken.iter().filter_map(|it| it.as_ref().err()).collect();
    assert!(!refused.is_empty() && shaken.len() - refused.len() >= 10);
    assert!(
        refused
            .iter()
            .all(|(status, wait)| *status == 503 && *wait == Some(1))
    );
    assert_eq!(hit(&edge, "a", "connect_rate"), refused.len() as f64);
    // Who comes later is let in, and works.
    until("there is room again", || async {
        let entered = enter(edge.addr, &path("b"), None, None).await;
        let Entered::In(mut guest) = entered else {
            return None;
        };
        assert_eq!(publish(&mut guest, "x").await, Ok(0));
        Some(())
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_slow_to_serve_lets_nobody_in_until_it_is_fast_again() {
    let nats = NatsServer::start().await;
    let edge = edge(&nats, "")
        .set("edge.connect_delay_target", "20ms")
        .set("edge.connect_delay_interval", "200ms")
        .start()
        .await;
    let mut early = enter(edge.addr, &path("b"), None, None).await.guest();
    // Keep all threads busy, so that each task waits for its turn.
    let busy = Arc::new(AtomicBool::new(true));
    let mut hogs = JoinSet::new();
    for _ in 0..40 {
        let busy = busy.clone();
        hogs.spawn(async move {
            while busy.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                tokio::task::yield_now().await;
            }
        });
    }
    let addr = edge.addr;
    let mut accepted = Vec::new();
    let wait = loop {
        let mut storm = JoinSet::new();
        for _ in 0..10 {
            storm.spawn(async move { shake(addr, &[]).await });
        }
        let mut refused = None;
        for shaken in within(storm.join_all()).await {
            match shaken {
                Ok(socket) => accepted.push(socket),
                Err((status, wait)) => {
                    assert_eq!(status, 503);
                    refused = wait;
                }
            }
        }
        assert!(accepted.len() < 2_000, "it is never too much");
        if let Some(wait) = refused {
            break wait;
        }
    };
    assert!(wait >= 1);
    assert!(hit(&edge, "a", "connect_delay") >= 1.0);
    // Those that are in are served all the while.
    assert_eq!(publish(&mut early, "x").await, Ok(0));
    busy.store(false, Ordering::Relaxed);
    within(hogs.join_all()).await;
    let mut late = until("it lets others in", || async {
        match enter(edge.addr, &path("b"), None, None).await {
            Entered::In(guest) => Some(guest),
            Entered::Refused(503) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert_eq!(publish(&mut late, "x").await, Ok(0));
    edge.stop().await;
}
