//! What all connections of an engine have in common.

use std::time::Duration;

use crate::bench::{
    BenchError,
    args::{Api, Common},
    endpoint::Endpoint,
    token::Signer,
};

/// Servers, credentials and sizes.
pub(crate) struct Setup {
    /// WebSocket addresses, used in turn.
    pub(crate) targets: Vec<Endpoint>,
    /// Where publications are posted.
    pub(crate) http: Endpoint,
    pub(crate) api: Api,
    pub(crate) api_key: String,
    pub(crate) signer: Option<Signer>,
    /// Bytes of a publication.
    pub(crate) payload: usize,
    /// Connections on their way at once.
    pub(crate) connecting: usize,
    /// Added to a connection's index to number its user.
    pub(crate) first_user: usize,
    /// Whether positions are followed, so that subscriptions can resume.
    pub(crate) positions: bool,
    /// How long without any progress is a failure.
    pub(crate) patience: Duration,
}

impl Setup {
    pub(crate) fn new(common: &Common) -> Result<Self, BenchError> {
        let mut targets = common.target.clone();
        if let Some(app) = &common.app {
            targets = targets.into_iter().map(|t| t.with_query("app", app)).collect();
        }
        let http = match (&common.http, targets.first()) {
            (Some(http), _) => http.clone(),
            (None, Some(target)) => target.with_path("/"),
            (None, None) => return Err(BenchError::Usage("which server? give --target URL".into())),
        };
        Ok(Self {
            targets,
            http,
            api: common.api,
            api_key: common.api_key.clone(),
            signer: common.token_secret.as_deref().map(Signer::new),
            payload: common.payload,
            connecting: common.connecting as usize,
            first_user: 0,
            positions: false,
            patience: common.patience,
        })
    }

    /// The WebSocket handshake with a target.
    pub(super) fn upgrade(&self, target: u16) -> String {
        let Endpoint { host, path, .. } = &self.targets[usize::from(target)];
        // RFC 6455 section 1.3's own example key; nobody caches here.
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }
}
