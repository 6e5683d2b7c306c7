//! The HTTP listener and the upgrade, over loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use futures_util::{SinkExt, StreamExt};
use hyper_util::service::TowerToHyperService;
use slipstream::{
    config::HttpConfig,
    edge::{listener::Listener, sockopt::ClientOptions, upgrade::accept_websocket},
    task::Tasks,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_util::sync::CancellationToken;

use crate::websocket::{
    echo::{close_code, echo, soon},
    frames::masked,
};

mod exhausted;

const OPTIONS: ClientOptions = ClientOptions {
    send_buffer: 65_536,
    notsent_lowat: 16_384,
};

/// A listener with a few routes, stopped when dropped.
struct Server {
    address: SocketAddr,
    tasks: Tasks,
    stop: CancellationToken,
    shared: Arc<Shared>,
}

/// What the routes have: `/slow` says that it has `begun` and answers once told to `go_on`.
#[derive(Default)]
struct Shared {
    tasks: Tasks,
    begun: Notify,
    go_on: Notify,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.stop();
    }
}

fn config() -> HttpConfig {
    HttpConfig {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        backlog: 4_096,
        header_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        body_timeout: Duration::from_secs(60),
        max_header_bytes: 16 * 1024,
        max_body_bytes: 1024 * 1024,
        max_json_depth: 128,
        max_answer_bytes: 1024 * 1024,
        max_history_bytes: 1024 * 1024,
        max_in_flight: 64,
        max_surveys: 8,
        max_surveys_per_app: 8,
        expose_operations: true,
    }
}

fn start(config: &HttpConfig) -> Server {
    let listener = Listener::bind(config).unwrap();
    let address = listener.local_addr();
    let (tasks, stop) = (Tasks::default(), CancellationToken::new());
    let shared = Arc::new(Shared {
        tasks: tasks.clone(),
        ..Shared::default()
    });
    let router = Router::new()
        .route(
            "/peer",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
        )
        .route("/echo", post(|body: String| async { body }))
        .route("/slow", get(slow))
        .route("/websocket", any(websocket))
        .with_state(Arc::clone(&shared));
    tasks.spawn(listener.serve(TowerToHyperService::new(router), tasks.clone(), stop.clone()));
    Server {
        address,
        tasks,
        stop,
        shared,
    }
}

async fn slow(State(shared): State<Arc<Shared>>) -> &'static str {
    shared.begun.notify_one();
    shared.go_on.notified().await;
    "done"
}

async fn websocket(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut head, _) = request.into_parts();
    match accept_websocket(&mut head, &["https://app.example.com".to_owned()], OPTIONS) {
        Ok(accepted) => {
            shared.tasks.spawn(async move {
                let (stream, leftover) = accepted.socket.ready().await.unwrap();
                let socket = socket2::SockRef::from(&stream);
                assert!(socket.tcp_nodelay().unwrap());
                // Linux doubles what is asked for, for its own bookkeeping.
                assert_eq!(socket.send_buffer_size().unwrap(), 2 * OPTIONS.send_buffer);
                assert_eq!(socket.tcp_notsent_lowat().unwrap(), OPTIONS.notsent_lowat);
                let _ = echo(stream, &leftover).await;
            });
            accepted.response
        }
        Err(error) => error.into_response(),
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` on a new connection and reads until the server closes it.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        send(&mut stream, request).await;
        read_to_end(&mut stream).await
    }
}

async fn send(stream: &mut TcpStream, text: &str) {
    soon(stream.write_all(text.as_bytes())).await.unwrap();
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A server that closes with input unread resets the connection: that is an end, too.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until what has come ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = String::new();
    while !answer.ends_with(end) {
        answer.push(char::from(soon(stream.read_u8()).await.unwrap()));
    }
    answer
}

const UPGRADE: &str = "GET /websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn requests_are_served_with_the_peers_address() {
    let server = start(&config());
    let mut stream = server.connect().await;
    let peer = stream.local_addr().unwrap().to_string();
    for _ in 0..3 {
        send(&mut stream, "GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = read_until(&mut stream, &peer).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    send(
        &mut stream,
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
    )
    .await;
    assert!(read_to_end(&mut stream).await.ends_with("\r\n\r\nhi"));
}

#[tokio::test]
async fn a_head_must_come_within_its_deadline() {
    let server = start(&HttpConfig {
        header_timeout: Duration::from_millis(50),
        ..config()
    });
    for part in ["", "G", "GET /peer HTTP/1.1\r\nHost: x\r\nX-Slow:"] {
        assert_eq!(server.exchange(part).await, "", "{part:?}");
    }
    soon(async {
        // All but the accept loop.
        while server.tasks.count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_trickled_head_does_not_move_its_deadline() {
    let server = start(&HttpConfig {
        header_timeout: Duration::from_millis(50),
        ..config()
    });
    let mut stream = server.connect().await;
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    soon(async {
        send(&mut stream, "GET /peer HTTP/1.1\r\n").await;
        while stream.write_all(b"A: b\r\n").await.is_ok() {
            ticks.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_silent_kept_alive_connection_is_closed() {
    let server = start(&HttpConfig {
        idle_timeout: Duration::from_millis(50),
        ..config()
    });
    let answer = server.exchange("GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn silence_between_requests_may_last_longer_than_a_head() {
    let server = start(&HttpConfig {
        header_timeout: Duration::from_millis(50),
        ..config()
    });
    let mut stream = server.connect().await;
    let peer = stream.local_addr().unwrap().to_string();
    for _ in 0..2 {
        send(&mut stream, "GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await;
        read_until(&mut stream, &peer).await;
        // There is no event to wait for: that nothing happens is what is tested.
        let end = tokio::time::timeout(Duration::from_millis(150), stream.read_u8()).await;
        assert!(end.is_err(), "{end:?}");
    }
}

#[tokio::test]
async fn large_heads_are_refused() {
    let server = start(&config());
    let cases = [
        ("one long header", format!("X: {}\r\n", "x".repeat(17_000))),
        ("many headers", "X: y\r\n".repeat(101)),
    ];
    for (name, headers) in cases {
        let answer = server
            .exchange(&format!("GET /peer HTTP/1.1\r\nHost: x\r\n{headers}\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{name}: {answer}");
    }
    let answer = server.exchange("this is not http\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_websocket_is_upgraded_and_bare() {
    let server = start(&config());
    let mut request = format!("ws://{}/websocket?app=dev", server.address)
        .into_client_request()
        .unwrap();
    let headers = request.headers_mut();
    headers.insert("origin", "https://app.example.com".parse().unwrap());
    headers.insert("sec-websocket-protocol", "centrifuge-json".parse().unwrap());
    let (mut client, response) = soon(tokio_tungstenite::client_async(request, server.connect().await))
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "centrifuge-json");
    assert!(!response.headers().contains_key("sec-websocket-extensions"));
    soon(client.send(Message::text("hello"))).await.unwrap();
    assert_eq!(
        soon(client.next()).await.unwrap().unwrap(),
        Message::text("hello")
    );
    // The accept loop and the websocket's own task: hyper's is gone.
    soon(async {
        while server.tasks.count() > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(client.close(None)).await.unwrap();
    assert!(matches!(
        soon(client.next()).await,
        Some(Ok(Message::Close(None)))
    ));
    assert!(soon(client.next()).await.is_none());
}

#[tokio::test]
async fn frames_that_come_with_the_request_are_not_lost() {
    let server = start(&config());
    let mut stream = server.connect().await;
    let early = [
        UPGRADE.as_bytes(),
        &masked(0x81, b"early"),
        &masked(0x88, b"\x03\xe8"),
    ]
    .concat();
    soon(stream.write_all(&early)).await.unwrap();
    let mut answer = Vec::new();
    stream.shutdown().await.unwrap();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let frames = answer[body..].strip_prefix(b"\x81\x05early").unwrap();
    assert_eq!(close_code(frames), Some(1000));
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer() {
    let server = start(&config());
    let cases = [
        (
            "no upgrade",
            "GET /websocket HTTP/1.1\r\nHost: x\r\n".to_owned(),
            426,
        ),
        ("post", UPGRADE.replace("GET", "POST"), 405),
        ("version", UPGRADE.replace("Version: 13", "Version: 8"), 426),
        ("key", UPGRADE.replace("dGhl", "d"), 400),
        (
            "origin",
            UPGRADE.replace("Host: x", "Host: x\r\nOrigin: https://evil.example"),
            403,
        ),
        ("http/1.0", UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), 400),
    ];
    for (name, request, status) in cases {
        let request = request.trim_end();
        // A refused upgrade leaves an ordinary connection, which this header closes.
        let separator = if request.contains("Connection:") {
            ""
        } else {
            "\r\nConnection: close"
        };
        let request = format!("{request}{separator}\r\n\r\n").replace("Upgrade\r\n", "Upgrade, close\r\n");
        let answer = server.exchange(&request).await.to_ascii_lowercase();
        let version = if name == "http/1.0" {
            "http/1.0"
        } else {
            "http/1.1"
        };
        assert!(
            answer.starts_with(&format!("{version} {status} ")),
            "{name}: {answer}"
        );
        assert!(answer.contains(r#"{"error":{"code":""#), "{name}: {answer}");
        assert_eq!(
            answer.contains("sec-websocket-version: 13\r\n"),
            status == 426,
            "{name}: {answer}"
        );
    }
}

#[tokio::test]
async fn stopping_finishes_what_is_in_progress() {
    let server = start(&config());
    let mut idle = server.connect().await;
    let peer = idle.local_addr().unwrap().to_string();
    send(&mut idle, "GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut idle, &peer).await;
    let mut busy = server.connect().await;
    send(&mut busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    soon(server.shared.begun.notified()).await;
    let (mut websocket, _) = soon(tokio_tungstenite::client_async(
        format!("ws://{}/websocket", server.address),
        server.connect().await,
    ))
    .await
    .unwrap();

    server.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    soon(async { while TcpStream::connect(server.address).await.is_ok() {} }).await;
    server.shared.go_on.notify_one();
    assert!(read_to_end(&mut busy).await.ends_with("done"));
    soon(websocket.send(Message::text("still here"))).await.unwrap();
    assert_eq!(
        soon(websocket.next()).await.unwrap().unwrap(),
        Message::text("still here")
    );
    soon(websocket.close(None)).await.unwrap();
    drop(websocket);
    soon(server.tasks.finished()).await;
}

#[tokio::test]
async fn stopping_ends_a_connection_that_has_not_asked_anything() {
    let server = start(&config());
    let mut silent = server.connect().await;
    // The accept loop and the connection.
    soon(async {
        while server.tasks.count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.stop.cancel();
    assert_eq!(read_to_end(&mut silent).await, "");
    soon(server.tasks.finished()).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let server = start(&config());
    let error = Listener::bind(&HttpConfig {
        listen: server.address,
        ..config()
    })
    .unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", server.address));
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn the_backlog_is_the_configured_one() {
    let server = start(&HttpConfig {
        backlog: 77,
        ..config()
    });
    let filter = format!("sport = :{}", server.address.port());
    // Where there is no `ss`, nothing else shows the backlog either.
    let Ok(output) = std::process::Command::new("ss").args(["-ltnH", &filter]).output() else {
        return;
    };
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(line.split_whitespace().nth(2), Some("77"), "{line}");
}
