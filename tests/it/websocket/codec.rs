//! The codec over loopback TCP, without the HTTP part.

use std::net::Ipv4Addr;

use futures_util::{SinkExt, StreamExt};
use slipstream::task::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{
            CloseFrame, Role,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use super::{
    echo::{CLOSE_PLEASE, LIMIT, close_code, echo, soon},
    frames::{masked, unmasked},
};

/// A connection to a fresh echo server, and the server's task.
async fn connect() -> (TcpStream, Tasks) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that goes away is part of the tests.
        let _ = echo(stream, &[]).await;
    });
    (TcpStream::connect(address).await.unwrap(), tasks)
}

async fn client() -> (WebSocketStream<TcpStream>, Tasks) {
    let (stream, tasks) = connect().await;
    (
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await,
        tasks,
    )
}

async fn next(client: &mut WebSocketStream<TcpStream>) -> Message {
    soon(client.next()).await.unwrap().unwrap()
}

fn part(opcode: Data, payload: &'static [u8], last: bool) -> Message {
    Message::Frame(Frame::message(payload, OpCode::Data(opcode), last))
}

#[tokio::test]
async fn messages_of_every_length_form_come_back() {
    let (mut client, _tasks) = client().await;
    for len in [0, 1, 125, 126, 127, 4_090, 65_535, 65_536, LIMIT] {
        let binary = Message::binary(vec![0xa5; len]);
        let text = Message::text("é".repeat(len / 2));
        for message in [binary, text] {
            soon(client.send(message.clone())).await.unwrap();
            assert_eq!(next(&mut client).await, message, "{len} bytes");
        }
    }
}

#[tokio::test]
async fn pipelined_messages_come_back_in_order() {
    let (mut client, _tasks) = client().await;
    for n in 0..2_000 {
        soon(client.feed(Message::text(n.to_string()))).await.unwrap();
    }
    soon(client.flush()).await.unwrap();
    for n in 0..2_000 {
        assert_eq!(next(&mut client).await, Message::text(n.to_string()));
    }
}

#[tokio::test]
async fn a_ping_inside_a_fragmented_message_is_answered_first() {
    let (mut client, _tasks) = client().await;
    soon(client.send(part(Data::Text, b"\xf0\x9f", false)))
        .await
        .unwrap();
    soon(client.send(Message::Ping("inside".into()))).await.unwrap();
    assert_eq!(next(&mut client).await, Message::Pong("inside".into()));
    soon(client.send(part(Data::Continue, b"", false))).await.unwrap();
    soon(client.send(part(Data::Continue, b"\xa6\x80", true)))
        .await
        .unwrap();
    assert_eq!(next(&mut client).await, Message::text("🦀"));
}

#[tokio::test]
async fn the_client_closes() {
    let cases = [
        (None, None),
        (Some((CloseCode::Normal, "done")), Some(CloseCode::Normal)),
        (Some((CloseCode::Iana(3000), "")), Some(CloseCode::Iana(3000))),
    ];
    for (sent, answered) in cases {
        let (mut client, tasks) = client().await;
        let frame = sent.map(|(code, reason)| CloseFrame {
            code,
            reason: reason.into(),
        });
        soon(client.close(frame)).await.unwrap();
        let Message::Close(answer) = next(&mut client).await else {
            panic!("a close frame")
        };
        assert_eq!(answer.map(|frame| frame.code), answered);
        assert!(soon(client.next()).await.is_none());
        drop(client);
        soon(tasks.finished()).await;
    }
}

#[tokio::test]
async fn the_server_closes() {
    let (mut client, tasks) = client().await;
    soon(client.send(Message::text(CLOSE_PLEASE))).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut client).await else {
        panic!("a close frame")
    };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (3001, "drain"));
    // The client answers by itself and then sees the end.
    assert!(soon(client.next()).await.is_none());
    drop(client);
    soon(tasks.finished()).await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_with_its_code() {
    let ping = |payload: &'static [u8], last| {
        let mut frame = Frame::ping(payload);
        frame.header_mut().is_final = last;
        Message::Frame(frame)
    };
    let reserved = {
        let mut frame = Frame::message("x", OpCode::Data(Data::Text), true);
        frame.header_mut().rsv1 = true;
        Message::Frame(frame)
    };
    let cases = [
        (
            "text that is not utf-8",
            part(Data::Text, b"\xc3\x28", true),
            1007,
        ),
        (
            "a continuation of nothing",
            part(Data::Continue, b"x", true),
            1002,
        ),
        ("a fragmented ping", ping(b"x", false), 1002),
        ("a ping of 126 bytes", ping(&[0; 126], true), 1002),
        ("a compressed frame", reserved, 1002),
        (
            "a message over the limit",
            Message::binary(vec![0; LIMIT + 1]),
            1009,
        ),
    ];
    for (name, message, code) in cases {
        let (mut client, tasks) = client().await;
        // The server closes at the header: it need not take the whole.
        soon(client.send(message)).await.unwrap();
        let Message::Close(Some(frame)) = next(&mut client).await else {
            panic!("{name}: a close frame")
        };
        assert_eq!(u16::from(frame.code), code, "{name}");
        drop(client);
        soon(tasks.finished()).await;
    }
}

#[tokio::test]
async fn raw_bytes_that_are_no_client_frames_are_closed() {
    let two_messages_at_once = [masked(0x01, b"a"), masked(0x81, b"b")].concat();
    let cases: [(&str, Vec<u8>, u16); 4] = [
        ("an unmasked frame", unmasked(0x81, b"Hello"), 1002),
        ("a request", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002),
        ("zeros", vec![0; 64], 1002),
        ("a message inside a message", two_messages_at_once, 1002),
    ];
    for (name, bytes, code) in cases {
        let (mut stream, tasks) = connect().await;
        soon(stream.write_all(&bytes)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(close_code(&answer), Some(code), "{name}");
        soon(tasks.finished()).await;
    }
}

#[tokio::test]
async fn half_a_frame_and_then_nothing_ends_quietly() {
    for bytes in [masked(0x81, b"Hello")[..8].to_vec(), vec![0x81], vec![]] {
        let (mut stream, tasks) = connect().await;
        soon(stream.write_all(&bytes)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty());
        soon(tasks.finished()).await;
    }
}
