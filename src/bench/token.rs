//! Connection tokens for authenticated connections.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use super::BenchError;

/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize)]
struct Claims {
    sub: String,
    exp: u64,
}

/// Signs tokens with HS256, one user per connection.
pub(crate) struct Signer(EncodingKey);

impl Signer {
    pub(crate) fn new(secret: &str) -> Self {
        Self(EncodingKey::from_secret(secret.as_bytes()))
    }

    pub(crate) fn token(&self, connection: usize) -> Result<String, BenchError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            sub: format!("bench-{connection}"),
            exp: (now + LIFETIME).as_secs(),
        };
        jsonwebtoken::encode(&Header::default(), &claims, &self.0)
            .map_err(|_| BenchError::Usage("the token secret cannot sign".into()))
    }
}
