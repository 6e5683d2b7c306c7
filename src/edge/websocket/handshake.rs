//! The opening handshake (RFC 6455, 4.2), on a request's head: no body, no I/O.

use aws_lc_rs::digest;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{
        ALLOW, CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    request::Parts,
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};

use crate::edge::origin;

/// The sub-protocol that names Centrifuge's JSON dialect.
const JSON: &str = "centrifuge-json";
/// The sub-protocol that names Centrifuge's Protobuf dialect.
const PROTOBUF: &str = "centrifuge-protobuf";

/// What is appended to the key before it is hashed (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// RFC 6455's own example key (4.1) has bits set behind its last byte, so they are let pass.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Why an upgrade is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// 405.
    #[error("a websocket is opened with GET")]
    Method,
    /// 400: an upgrade needs HTTP/1.1.
    #[error("a websocket is opened over HTTP/1.1")]
    HttpVersion,
    /// 426: `Upgrade` or `Connection` do not ask for it.
    #[error("this address speaks websocket: an upgrade is required")]
    NotAnUpgrade,
    /// 426: `Sec-WebSocket-Version` is missing or another one.
    #[error("the websocket version must be 13")]
    WebSocketVersion,
    /// 400: `Sec-WebSocket-Key` is missing, repeated or not 16 bytes.
    #[error("the header sec-websocket-key must be one value of 16 bytes in base64")]
    Key,
    /// 403: the app's list does not have it.
    #[error("the origin is not allowed")]
    Origin,
    /// 400: the client insists on Protobuf.
    #[error("the protobuf protocol is not served: use centrifuge-json")]
    Protobuf,
    /// 400: the HTTP server cannot hand over the connection.
    #[error("the connection cannot be upgraded")]
    NotUpgradable,
}

impl HandshakeError {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAnUpgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::HttpVersion | Self::Key | Self::Protobuf | Self::NotUpgradable => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that belong to the status.
    pub fn headers(self) -> &'static [(HeaderName, &'static str)] {
        const ALLOWED: &[(HeaderName, &str)] = &[(ALLOW, "GET")];
        const REQUIRED: &[(HeaderName, &str)] = &[
            (CONNECTION, "upgrade"),
            (UPGRADE, "websocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
        ];
        match self {
            Self::Method => ALLOWED,
            Self::NotAnUpgrade | Self::WebSocketVersion => REQUIRED,
            _ => &[],
        }
    }
}

/// A request that may become a websocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    accept: HeaderValue,
    protocol: Option<&'static str>,
}

impl Handshake {
    /// Judges a request's head. `allowed_origins` is the app's list, see [`origin::is_allowed`]; a
    /// request without `Origin` does not come from a browser and is let pass.
    ///
    /// # Errors
    /// The first of the reasons that applies, in the order of [`HandshakeError`].
    pub fn check(request: &Parts, allowed_origins: &[String]) -> Result<Self, HandshakeError> {
        let headers = &request.headers;
        if request.method != Method::GET {
            return Err(HandshakeError::Method);
        }
        if request.version < Version::HTTP_11 {
            return Err(HandshakeError::HttpVersion);
        }
        if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
            return Err(HandshakeError::NotAnUpgrade);
        }
        if single(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err(HandshakeError::WebSocketVersion);
        }
        let key = single(headers, &SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
        if KEY_BASE64.decode(key).ok().is_none_or(|key| key.len() != 16) {
            return Err(HandshakeError::Key);
        }
        if headers.contains_key(ORIGIN)
            && !single(headers, &ORIGIN).is_some_and(|origin| origin::is_allowed(origin, allowed_origins))
        {
            return Err(HandshakeError::Origin);
        }
        let protocol = has_token(headers, &SEC_WEBSOCKET_PROTOCOL, JSON).then_some(JSON);
        if protocol.is_none() && wants_protobuf(request) {
            return Err(HandshakeError::Protobuf);
        }
        Ok(Self {
            accept: accept(key)?,
            protocol,
        })
    }

    /// The headers of the answer `101 Switching Protocols`. No extension is among them.
    pub fn response_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        headers
    }
}

/// The proof that the server has read the key (RFC 6455, 4.2.2).
fn accept(key: &str) -> Result<HeaderValue, HandshakeError> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    HeaderValue::try_from(KEY_BASE64.encode(hash.finish())).map_err(|_| HandshakeError::Key)
}

/// By sub-protocol, or by one of the two query parameters that stand for it.
fn wants_protobuf(request: &Parts) -> bool {
    has_token(&request.headers, &SEC_WEBSOCKET_PROTOCOL, PROTOBUF)
        || request.uri.query().is_some_and(|query| {
            query
                .split('&')
                .any(|pair| matches!(pair, "format=protobuf" | "cf_protocol=protobuf"))
        })
}

/// The value of a header that may be there only once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        None
    } else {
        value.to_str().ok()
    }
}

/// Whether a header, a comma-separated list over any number of lines, has `token` in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests;
