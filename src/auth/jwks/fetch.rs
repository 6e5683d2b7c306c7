use std::time::Duration;

use crate::auth::key::KeySet;

/// Where a set is fetched from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) client: reqwest::Client,
    pub(super) url: reqwest::Url,
    pub(super) timeout: Duration,
    /// The largest answer that is read.
    pub(super) max_bytes: usize,
    /// The most keys that are used.
    pub(super) max_keys: usize,
}

/// Why no set was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer: {0}")]
    Request(#[source] reqwest::Error),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("the answer is not a JWK set")]
    NotASet,
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        // Its query may hold a secret.
        Self::Request(error.without_url())
    }
}

impl Source {
    /// The host, for logs.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or("")
    }

    /// Fetches the set once.
    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        // The timeout of reqwest spans the body too.
        let mut response = self
            .client
            .get(self.url.clone())
            .timeout(self.timeout)
            .send()
            .await?;
        if response.status() != 200 {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(FetchError::TooLarge(self.max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        let keys = KeySet::fetched(&body, self.max_keys).ok_or(FetchError::NotASet)?;
        if keys.len() == self.max_keys {
            tracing::warn!(
                jwks.host = self.host(),
                jwks.keys = keys.len(),
                "jwk set has as many keys as are used; what comes behind them is not"
            );
        }
        Ok(keys)
    }
}
