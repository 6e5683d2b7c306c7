//! Who may come in: tokens of clients ([`Verifier`]) and keys of backends ([`ApiKeys`]).
//!
//! Knows nothing of connections: what a token permits is for the session to decide. Tokens and keys
//! are never logged and never part of an error.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

mod api_key;
mod claims;
mod jwks;
mod key;
mod token;

pub use api_key::{ApiKeys, KeyHash, PresentedKey, presented_key};
pub use claims::token_id;

use self::{
    claims::Expected,
    jwks::Jwks,
    key::KeySet,
    token::{Token, Unverified, Verified},
};
use crate::{
    config::{AuthConfig, Secret},
    model::{AppId, ConnectClaims, SubscribeClaims, TokenError},
    task::Tasks,
};

/// Why tokens cannot be verified as configured.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// One of `public_keys`, counted from 0.
    #[error("public key {0} is not an RSA, P-256, P-384 or Ed25519 public key in PEM")]
    PublicKey(usize),
    /// `jwks_url`.
    #[error("jwks_url is not a URL")]
    Url,
    /// The client that fetches JWK sets cannot be made, for example for want of CA certificates.
    #[error("no HTTP client for jwks_url: {0}")]
    Client(#[source] reqwest::Error),
}

/// The client that fetches JWK sets: made at the first need, shared by all apps. A node without
/// `jwks_url` needs no CA certificates.
#[derive(Debug, Default)]
pub struct HttpClient(OnceLock<reqwest::Client>);

impl HttpClient {
    fn get(&self) -> Result<reqwest::Client, AuthError> {
        if let Some(client) = self.0.get() {
            return Ok(client.clone());
        }
        // reqwest asks for the process's provider. An error says that there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            // A redirect would let whoever answers choose where keys come from.
            .redirect(reqwest::redirect::Policy::none())
            // The configuration alone steers the node, not HTTP_PROXY.
            .no_proxy()
            .user_agent(concat!("slipstream/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(AuthError::Client)?;
        Ok(self.0.get_or_init(|| client).clone())
    }
}

/// The app that a token says it is for, in its claim `app`. **Nothing of it is verified**: it tells
/// whose keys to verify the token with, and no more; [`Verifier`] then holds the token to it, and to
/// the length that the app allows. Until then the frame that it came in bounds it.
pub fn named_app(token: &str) -> Option<String> {
    claims::app(&Token::parse(token).ok()?.unverified_payload()?)
}

/// A secret of an app that its backends sign tokens with (HS256/384/512).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// What tokens name it by (`kid`), and it is revoked by.
    pub id: String,
    /// At least 32 bytes.
    pub secret: Secret,
    /// Seconds since 1970 until which it is good; `None` = for good.
    pub until: Option<i64>,
}

/// Verifies the tokens of one app.
#[derive(Debug)]
pub struct Verifier {
    local: KeySet,
    jwks: Option<Jwks>,
    max_token_bytes: usize,
    expected: Expected,
}

/// Whether a node could verify tokens as `config` says.
///
/// # Errors
///
/// If a key or the URL of the set is unusable.
pub fn check(config: &AuthConfig) -> Result<(), AuthError> {
    KeySet::local(config.hmac_secret.as_ref(), &config.public_keys)?;
    url_of_set(config).map(|_| ())
}

fn url_of_set(config: &AuthConfig) -> Result<Option<reqwest::Url>, AuthError> {
    let url = config.jwks_url.as_deref().map(reqwest::Url::parse);
    url.transpose().map_err(|_| AuthError::Url)
}

impl Verifier {
    /// Verifies as `config` says. JWK sets are fetched with `http`, by tasks of `tasks`, when the
    /// first token needs one.
    ///
    /// # Errors
    ///
    /// If a key or the URL of the set is unusable.
    pub fn new(config: &AuthConfig, http: &HttpClient, tasks: &Tasks) -> Result<Self, AuthError> {
        let local = KeySet::local(config.hmac_secret.as_ref(), &config.public_keys)?;
        let jwks = match url_of_set(config)? {
            Some(url) => Some(Jwks::new(url, config, http.get()?, tasks.clone())),
            None => None,
        };
        let expected = Expected {
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            app: None,
            leeway: i64::try_from(config.leeway.as_secs()).unwrap_or(i64::MAX),
        };
        Ok(Self {
            local,
            jwks,
            max_token_bytes: config.max_token_bytes,
            expected,
        })
    }

    /// Also verifies with these keys, which may be many: a token that names one by its id is tried with
    /// that one alone.
    pub fn with_keys(mut self, keys: &[SigningKey]) -> Self {
        self.local.add(keys);
        self
    }

    /// What its own keys are called, those of a JWK set left out.
    pub fn key_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.local.names()
    }

    /// Also refuses tokens whose claim `app` names another app than this one.
    pub fn of_app(mut self, app: &AppId) -> Self {
        self.expected.app = Some(app.clone());
        self
    }

    /// Verifies a connection token. Ready at the first poll unless a JWK set must be fetched first.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub async fn connect(&self, token: &str) -> Result<ConnectClaims, TokenError> {
        let Verified { payload, key } = self.payload(token).await?;
        let mut claims = claims::connect(&payload, &self.expected, unix_now())?;
        claims.facts.key = key;
        Ok(claims)
    }

    /// Verifies a subscription token, as [`Verifier::connect`] does. Whether it is for this user,
    /// channel and connection is not checked here.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub async fn subscribe(&self, token: &str) -> Result<SubscribeClaims, TokenError> {
        let Verified { payload, key } = self.payload(token).await?;
        let mut claims = claims::subscribe(&payload, &self.expected, unix_now())?;
        claims.facts.key = key;
        Ok(claims)
    }

    /// The claims of `token` as JSON, once a key has been found that it is signed with.
    async fn payload(&self, token: &str) -> Result<Verified, TokenError> {
        if token.len() > self.max_token_bytes {
            return Err(TokenError::Invalid("too long"));
        }
        let token = Token::parse(token)?;
        let unverified = match token.verify(&self.local) {
            Ok(verified) => return Ok(verified),
            Err(why) => why,
        };
        match &self.jwks {
            // A set never has symmetric keys, so it cannot help.
            Some(jwks) if !token.is_symmetric() => {
                let keys = jwks.keys_for(&token).await?;
                token.verify(&keys).map_err(Unverified::into)
            }
            _ => Err(unverified.into()),
        }
    }
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
