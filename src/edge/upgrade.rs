//! From an HTTP request to a bare websocket.

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    sockopt::ClientOptions,
    websocket::handshake::{Handshake, HandshakeError},
};

/// Why a connection was lost between the answer `101` and the first frame.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// It ended before the answer was written.
    #[error("the connection ended during the upgrade")]
    Ended(#[source] hyper::Error),
    /// Something other than the listener accepted it.
    #[error("the connection is not a bare tcp connection")]
    NotTcp,
    /// The kernel refused the options.
    #[error("the socket's options cannot be set")]
    Options(#[source] std::io::Error),
}

/// A request that becomes a websocket.
#[derive(Debug)]
pub struct Accepted {
    /// The answer, `101 Switching Protocols`: the handler returns it.
    pub response: Response,
    /// The connection, for a task of its own.
    pub socket: PendingSocket,
}

/// A connection whose HTTP part ends when the answer has been written.
#[derive(Debug)]
pub struct PendingSocket {
    upgrade: OnUpgrade,
    options: ClientOptions,
}

/// Judges an upgrade request.
///
/// # Errors
/// The request is no acceptable upgrade, see [`Handshake::check`]; the error is a response.
pub fn accept_websocket(
    request: &mut Parts,
    allowed_origins: &[String],
    options: ClientOptions,
) -> Result<Accepted, HandshakeError> {
    let handshake = Handshake::check(request, allowed_origins)?;
    let upgrade = request
        .extensions
        .remove::<OnUpgrade>()
        .ok_or(HandshakeError::NotUpgradable)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = handshake.response_headers();
    Ok(Accepted {
        response,
        socket: PendingSocket { upgrade, options },
    })
}

impl PendingSocket {
    /// The bare socket, its options set, and the bytes that came behind the request.
    ///
    /// Not to be awaited in the handler, whose answer it waits for. What it gives owns nothing of
    /// the HTTP server, whose task and buffers are gone by then: from here on a connection costs
    /// what its own task makes of it.
    ///
    /// # Errors
    /// The connection has ended, or was not accepted by the [`Listener`](super::listener::Listener).
    pub async fn ready(self) -> Result<(TcpStream, Bytes), UpgradeError> {
        let upgraded = self.upgrade.await.map_err(UpgradeError::Ended)?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| UpgradeError::NotTcp)?;
        let stream = parts.io.into_inner();
        self.options.apply(&stream).map_err(UpgradeError::Options)?;
        // A copy, because the original keeps the HTTP server's whole read buffer alive.
        Ok((stream, Bytes::copy_from_slice(&parts.read_buf)))
    }
}

impl IntoResponse for HandshakeError {
    fn into_response(self) -> Response {
        let status = self.status();
        let code = match status {
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::UPGRADE_REQUIRED => "upgrade_required",
            StatusCode::FORBIDDEN => "forbidden",
            _ => "bad_request",
        };
        let body = serde_json::json!({ "error": { "code": code, "message": self.to_string() } });
        let mut response = (status, Json(body)).into_response();
        for (name, value) in self.headers() {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
