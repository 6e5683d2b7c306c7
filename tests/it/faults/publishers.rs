//! Publishers that are too many at once, and backends whose edge dies.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::support::{
    checker::check_to_end,
    client::Client,
    edge::Edge,
    http,
    nats::NatsServer,
    publisher::{Acked, Published, Publisher},
    within,
};

const STORM: &str = "public:storm";
const CALM: &str = "public:calm";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_publishers_is_refused_and_others_are_not() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("apps.0.namespaces.0.rate", "100")
        .start()
        .await;
    let witness = Client::connect(edge.addr).await;
    witness.subscribe(STORM).await;
    witness.subscribe(CALM).await;
    let published = Published::default();
    let calm = Publisher::start_into(edge.addr, published.clone());
    let load = calm.steadily(&[CALM], Duration::from_millis(20));

    let by_socket = join_all((0..4).map(|n| storm_by_socket(edge.addr, n, published.clone())));
    let by_rest = join_all((0..200).map(|n| storm_by_rest(edge.addr, n, published.clone())));
    let (by_socket, by_rest) = within(async { tokio::join!(by_socket, by_rest) }).await;
    let refused: usize = by_socket.iter().sum();
    assert!(
        refused > 1_000,
        "of 4,000 at once 100 a second are taken: {refused}"
    );
    assert!(by_rest.into_iter().filter(|refused| *refused).count() > 50);

    load.stop().await;
    assert_eq!(calm.refused(), 0, "another channel does not notice");
    for channel in [STORM, CALM] {
        check_to_end(&witness, channel, &published).await;
    }
    assert_eq!(witness.record().connects, 1);
    edge.stop().await;
}

/// Publishes 1,000 at once; returns how many were refused with 111.
async fn storm_by_socket(addr: SocketAddr, storm: usize, published: Published) -> usize {
    let stream = TcpStream::connect(addr).await.unwrap();
    let url = format!("ws://{addr}/connection/websocket");
    let (mut socket, _) = client_async(url, stream).await.unwrap();
    let id_of = |n: u64| format!("storm-{storm}-{n}");
    let mut lines = vec![json!({"id": 1, "connect": {}}).to_string()];
    lines.extend(
        (2..1_002)
            .map(|n| json!({"id": n, "publish": {"channel": STORM, "data": {"id": id_of(n)}}}).to_string()),
    );
    for frame in lines.chunks(100) {
        socket.send(Message::text(frame.join("\n"))).await.unwrap();
    }
    let (mut refused, mut waiting) = (0, lines.len());
    while waiting > 0 {
        let Some(Ok(Message::Text(frame))) = socket.next().await else {
            panic!("a storm is no reason to close");
        };
        for line in frame.split('\n').filter(|line| !line.is_empty()) {
            let reply: Value = serde_json::from_str(line).unwrap();
            let Some(n) = reply["id"].as_u64() else { continue };
            waiting -= 1;
            if let Some(error) = reply.get("error") {
                assert_eq!((&error["code"], &error["temporary"]), (&json!(111), &json!(true)));
                refused += 1;
            } else if n > 1 {
                published.add(STORM, acked(id_of(n), &reply["publish"]));
            }
        }
    }
    refused
}

/// Publishes one; whether it was refused with 429.
async fn storm_by_rest(addr: SocketAddr, n: usize, published: Published) -> bool {
    let id = format!("rest-{n}");
    let response = http::publish(addr, STORM, &json!({"data": {"id": id}}))
        .await
        .unwrap();
    match response.status {
        200..=299 => {
            published.add(STORM, acked(id, &response.body));
            false
        }
        429 => {
            let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
            assert!(wait > 0, "{response:?}");
            assert!(response.body["error"]["code"].is_string(), "{response:?}");
            true
        }
        _ => panic!("{response:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l14_a_backend_whose_edge_is_killed_publishes_on_at_the_other_by_rest() {
    let mut nats = NatsServer::start().await;
    let mut one = Edge::builder().nats(&[nats.url()]).spawn().await;
    let two = Edge::start(&[nats.url()]).await;
    let witness = Client::connect(two.addr).await;
    witness.subscribe(CALM).await;
    let published = Published::default();
    let mut edges = [one.addr, two.addr].into_iter().cycle();
    let mut edge = edges.next().unwrap();
    let mut failed = 0;
    for n in 0..300 {
        match n {
            100 => one.kill(),
            // While it restarts, publications are refused or their outcome is unknown.
            200 => nats.restart().await,
            _ => {}
        }
        let id = format!("n-{n}");
        let body = json!({"data": {"id": id}, "idempotency_key": id});
        let acked = loop {
            match http::publish(edge, CALM, &body).await {
                Some(response) if matches!(response.status, 200..=299) => break acked(id, &response.body),
                Some(response) => assert!(matches!(response.status, 503 | 504), "{response:?}"),
                None => {}
            }
            failed += 1;
            edge = edges.next().unwrap();
        };
        published.add(CALM, acked);
    }
    assert!(failed > 0);
    check_to_end(&witness, CALM, &published).await;
    let all: std::collections::BTreeSet<_> = published.of(CALM).iter().map(|acked| acked.offset).collect();
    assert_eq!(all.len(), 300, "each is stored once");
    assert_eq!(witness.channel(CALM).offsets().len(), 300);
    two.stop().await;
}

fn acked(id: String, result: &Value) -> Acked {
    Acked {
        id,
        offset: result["offset"].as_u64().unwrap(),
        epoch: result["epoch"].as_str().unwrap().to_owned(),
        duplicate: result["duplicate"] == true,
    }
}
