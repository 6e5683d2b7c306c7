//! Connections that are not what they should be: each ends soon, and nobody else notices.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::interval,
};

use crate::{
    support::{
        checker::check_to_end, client::Client, edge::Edge, nats::NatsServer, publisher::Publisher, until,
        within,
    },
    websocket::frames::{masked, unmasked},
};

const UPGRADE: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What the server must end the connection with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// A close frame with this code.
    Close(u16),
    /// An answer of HTTP with this status, or none at all, and no upgrade.
    Http,
}

/// What is sent, and then nothing more.
fn table() -> Vec<(&'static str, Vec<u8>, End)> {
    let upgraded = |frames: &[u8]| [UPGRADE, frames].concat();
    let half = |frame: Vec<u8>| frame[..frame.len() / 2].to_vec();
    let connect = masked(0x81, br#"{"id":1,"connect":{}}"#);
    let huge = masked(0x81, &vec![b' '; 300_000]);
    let endless: Vec<u8> = (0..40)
        .flat_map(|n| masked(if n == 0 { 0x01 } else { 0x00 }, &vec![b' '; 10_000]))
        .collect();
    let announced = [&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let mut noise: Vec<u8> = (0..4_096_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    vec![
        ("nothing", Vec::new(), End::Http),
        ("noise", noise.clone(), End::Http),
        (
            "half a request line",
            b"GET /connection/webso".to_vec(),
            End::Http,
        ),
        ("half a handshake", half(UPGRADE.to_vec()), End::Http),
        (
            "a header without end",
            [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 100_000]].concat(),
            End::Http,
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            End::Http,
        ),
        ("no word after the handshake", upgraded(&[]), End::Close(3502)),
        (
            "noise after the handshake",
            upgraded(&{
                noise[0] = 0xff;
                noise
            }),
            End::Close(1002),
        ),
        (
            "an unmasked frame",
            upgraded(&unmasked(0x81, br#"{"id":1,"connect":{}}"#)),
            End::Close(1002),
        ),
        ("an oversized frame", upgraded(&huge), End::Close(1009)),
        ("fragments without end", upgraded(&endless), End::Close(1009)),
        ("a length of 2^64", upgraded(&announced), End::Close(1002)),
        ("half a frame", upgraded(&half(connect.clone())), End::Close(3502)),
        (
            "bytes that are no text",
            upgraded(&masked(0x81, b"\xff\xfe")),
            End::Close(1007),
        ),
        (
            "a binary message",
            upgraded(&masked(0x82, b"\x00")),
            End::Close(3506),
        ),
        (
            "an unknown opcode",
            upgraded(&masked(0x83, b"")),
            End::Close(1002),
        ),
        ("a reserved bit", upgraded(&masked(0xc1, b"{}")), End::Close(1002)),
        (
            "a ping that is too long",
            upgraded(&masked(0x89, &[0; 126])),
            End::Close(1002),
        ),
        ("no JSON", upgraded(&masked(0x81, b"hello")), End::Close(3501)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_oversized_unmasked_and_half_frames_end_their_connection_only() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("http.header_timeout", "1s")
        .set("http.idle_timeout", "1s")
        .set("edge.connect_timeout", "1s")
        .start()
        .await;
    let witness = Client::connect(edge.addr).await;
    witness.subscribe("public:quiet").await;
    let publisher = Publisher::start(edge.addr);
    let load = publisher.steadily(&["public:quiet"], Duration::from_millis(5));
    let rows = table().into_iter().map(|(name, bytes, expected)| async move {
        let ended = within(ends_with(edge.addr, bytes)).await;
        (ended != expected).then(|| format!("{name}: {ended:?} instead of {expected:?}"))
    });
    let wrong: Vec<_> = futures_util::future::join_all(rows)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    load.stop().await;
    publisher.one("public:quiet").await;
    check_to_end(&witness, "public:quiet", publisher.published()).await;
    assert_eq!(witness.record().connects, 1);
    only_two_are_left(&edge).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_loris_is_ended_in_the_handshake_and_in_a_frame() {
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("http.header_timeout", "1s")
        .set("edge.connect_timeout", "1s")
        .start()
        .await;
    let witness = Client::connect(edge.addr).await;
    let publisher = Publisher::start(edge.addr);
    publisher.one("public:quiet").await;
    let connect = masked(0x81, br#"{"id":1,"connect":{}}"#);
    let frame = [UPGRADE, &connect].concat();
    let slow = (0..20).map(|n| {
        // Byte by byte from the start, or only from the frame on.
        let at_once = if n % 2 == 0 { 0 } else { UPGRADE.len() };
        let (first, rest) = (frame[..at_once].to_vec(), frame[at_once..].to_vec());
        trickle(edge.addr, first, rest)
    });
    within(futures_util::future::join_all(slow)).await;
    assert_eq!(witness.record().connects, 1);
    only_two_are_left(&edge).await;
    edge.stop().await;
}

/// The witness and the publisher.
async fn only_two_are_left(edge: &Edge) {
    until("the others are gone", || async {
        (edge.metric("slipstream_connections{app=\"dev\"}") == 2.0).then_some(())
    })
    .await;
}

async fn ends_with(addr: SocketAddr, bytes: Vec<u8>) -> End {
    let (mut from, mut to) = TcpStream::connect(addr).await.unwrap().into_split();
    let mut answer = Vec::new();
    // The server may close before it has taken everything.
    let (_, _) = tokio::join!(to.write_all(&bytes), from.read_to_end(&mut answer));
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    if !answer.starts_with(b"HTTP/1.1 101") {
        return End::Http;
    }
    let frame = &answer[head.unwrap() + 4..];
    assert_eq!(frame[0], 0x88, "a close frame: {frame:?}");
    End::Close(u16::from_be_bytes([frame[2], frame[3]]))
}

/// Sends a byte every 100 ms until the server has enough of it.
async fn trickle(addr: SocketAddr, first: Vec<u8>, rest: Vec<u8>) {
    let (mut from, mut to) = TcpStream::connect(addr).await.unwrap().into_split();
    to.write_all(&first).await.unwrap();
    let mut answer = Vec::new();
    let mut ticks = interval(Duration::from_millis(100));
    let send = async {
        for byte in rest {
            ticks.tick().await;
            if to.write_all(&[byte]).await.is_err() {
                return;
            }
        }
        panic!("it was let finish");
    };
    tokio::select! {
        () = send => {}
        _ = from.read_to_end(&mut answer) => {}
    }
}
