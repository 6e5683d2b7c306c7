//! The doors of a node, as anybody may push them: any path, any token, any key.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::support::within;

/// How an attempt to connect ended.
#[derive(Debug)]
pub(crate) enum Entered {
    /// Connected.
    In(Box<Guest>),
    /// The connection was closed with this code.
    Closed(u16),
    /// The handshake was answered with this status.
    Refused(u16),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Guest {
    socket: WebSocketStream<TcpStream>,
    last_id: u64,
    /// Pushes that came while a reply was awaited.
    pushes: Vec<Value>,
}

/// A token with these claims.
pub(crate) fn token(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// Connects at `path`, the query included.
pub(crate) async fn enter(
    addr: SocketAddr,
    path: &str,
    origin: Option<&str>,
    token: Option<&str>,
) -> Entered {
    let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    let stream = within(TcpStream::connect(addr)).await.unwrap();
    let socket = match within(client_async(request, stream)).await {
        Ok((socket, _)) => socket,
        Err(Error::Http(response)) => return Entered::Refused(response.status().as_u16()),
        Err(error) => panic!("{path}: {error}"),
    };
    let mut guest = Guest {
        socket,
        last_id: 0,
        pushes: Vec::new(),
    };
    let connect = token.map_or_else(|| json!({}), |token| json!({ "token": token }));
    match guest.command(json!({ "connect": connect })).await {
        Ok(reply) => {
            assert!(reply.get("connect").is_some(), "{path}: {reply}");
            Entered::In(Box::new(guest))
        }
        Err(code) => Entered::Closed(code),
    }
}

impl Entered {
    /// The connection.
    pub(crate) fn guest(self) -> Guest {
        match self {
            Self::In(guest) => *guest,
            other => panic!("{other:?}"),
        }
    }
}

impl Guest {
    /// Sends a command and returns its reply, or the close code if there is none.
    pub(crate) async fn command(&mut self, mut command: Value) -> Result<Value, u16> {
        self.last_id += 1;
        command["id"] = self.last_id.into();
        // It fails if the connection is closed already, which the next read tells.
        let _ = self.socket.send(Message::text(command.to_string())).await;
        loop {
            for reply in self.frame().await? {
                if reply["id"] == self.last_id {
                    return Ok(reply);
                }
                self.pushes.push(reply);
            }
        }
    }

    /// Subscribes; the code of the error, if it is one.
    pub(crate) async fn subscribe(&mut self, request: Value) -> Result<(), u64> {
        let reply = self.command(json!({ "subscribe": request })).await.unwrap();
        match reply["error"]["code"].as_u64() {
            Some(code) => Err(code),
            None => Ok(()),
        }
    }

    /// The next `count` publications, as (channel, data).
    pub(crate) async fn publications(&mut self, count: usize) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        loop {
            for push in std::mem::take(&mut self.pushes) {
                if let Some(data) = push["push"]["pub"]["data"].as_str() {
                    let channel = push["push"]["channel"].as_str().unwrap();
                    seen.push((channel.to_owned(), data.to_owned()));
                }
            }
            if seen.len() >= count {
                return seen;
            }
            self.pushes = self.frame().await.unwrap();
        }
    }

    /// The code that it is closed with, whatever comes before.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.frame().await {
                return code;
            }
        }
    }

    async fn frame(&mut self) -> Result<Vec<Value>, u16> {
        loop {
            match within(self.socket.next()).await {
                // A ping is answered as it is.
                Some(Ok(Message::Text(ping))) if ping.as_str() == "{}" => {
                    let _ = self.socket.send(Message::text("{}")).await;
                }
                Some(Ok(Message::Text(text))) => {
                    let lines = text.split('\n').filter(|line| !line.is_empty());
                    return Ok(lines.map(|line| serde_json::from_str(line).unwrap()).collect());
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(0, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(0),
            }
        }
    }
}

/// An HTTP request with these header lines: the status and the JSON of the answer.
pub(crate) async fn http(
    addr: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str("content-type: application/json\r\n");
    }
    head.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let mut stream = within(TcpStream::connect(addr)).await.unwrap();
    within(stream.write_all(head.as_bytes())).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A channel's path, everything escaped.
pub(crate) fn publications(channel: &str) -> String {
    let escaped: String = channel.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/v1/channels/{escaped}/publications")
}
