use std::time::Duration;

use crate::auth::key::KeySet;

/// The largest answer that is read. Sets have a few KiB.
const MAX_SET_BYTES: usize = 256 * 1024;

/// Where a set is fetched from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) client: reqwest::Client,
    pub(super) url: reqwest::Url,
    pub(super) timeout: Duration,
}

/// Why no set was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer: {0}")]
    Request(#[source] reqwest::Error),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the answer has more than {MAX_SET_BYTES} bytes")]
    TooLarge,
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
            if body.len() + chunk.len() > MAX_SET_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        KeySet::fetched(&body).ok_or(FetchError::NotASet)
    }
}
