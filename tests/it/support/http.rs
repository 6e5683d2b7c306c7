//! Requests of a backend, each on a connection of its own.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{edge::API_KEY, within};

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    /// `null` if it is not JSON.
    pub(crate) body: Value,
}

impl Response {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// Publishes by REST; `None` if the edge does not answer.
pub(crate) async fn publish(addr: SocketAddr, channel: &str, body: &Value) -> Option<Response> {
    let path = format!("/v1/channels/{channel}/publications");
    request(addr, "POST", &path, &body.to_string()).await
}

/// Removes the history of a channel.
pub(crate) async fn remove_history(addr: SocketAddr, channel: &str) {
    let path = format!("/v1/channels/{channel}/publications");
    let response = request(addr, "DELETE", &path, "").await.unwrap();
    assert!(matches!(response.status, 200..=299), "{response:?}");
}

/// A page that is no JSON; `None` if the connection ends before it.
pub(crate) async fn page(addr: SocketAddr, path: &str) -> Option<String> {
    let answer = exchange(addr, "GET", path, &[("X-API-Key", API_KEY)], "").await?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// One request with the tests' API key; `None` if the connection ends before the answer.
pub(crate) async fn request(addr: SocketAddr, method: &str, path: &str, body: &str) -> Option<Response> {
    request_with(addr, method, path, API_KEY, body).await
}

/// The same with another key.
pub(crate) async fn request_with(
    addr: SocketAddr,
    method: &str,
    path: &str,
    key: &str,
    body: &str,
) -> Option<Response> {
    send(addr, method, path, &[("X-API-Key", key)], body).await
}

/// One request with these headers; `None` if the connection ends before the answer.
pub(crate) async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Response> {
    let answer = exchange(addr, method, path, headers, body).await?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response {
        status,
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    })
}

async fn exchange(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<String> {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    within(async {
        let mut stream = TcpStream::connect(addr).await.ok()?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    })
    .await
}
