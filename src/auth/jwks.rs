//! A JWK set fetched over HTTP: cached, refreshed when keys rotate, at a bounded rate.
//!
//! What to do is decided by [`Cache`], which is pure; this file does it. A fetch is a task of its
//! own, so that a client that goes away cannot cancel what others wait for.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

mod cache;
mod fetch;

use self::cache::{Cache, Step};
use super::{key::KeySet, token::Token};
use crate::{config::AuthConfig, model::TokenError, task::Tasks};

#[derive(Debug)]
pub(super) struct Jwks {
    shared: Arc<Shared>,
    tasks: Tasks,
}

#[derive(Debug)]
struct Shared {
    source: fetch::Source,
    cache: Mutex<Cache>,
    /// Changes when a fetch has ended, however.
    ended: watch::Sender<()>,
}

impl Jwks {
    pub(super) fn new(url: reqwest::Url, config: &AuthConfig, client: reqwest::Client, tasks: Tasks) -> Self {
        let source = fetch::Source {
            client,
            url,
            timeout: config.jwks_timeout,
            max_bytes: config.jwks_max_bytes,
            max_keys: config.jwks_max_keys,
        };
        let cache = Mutex::new(Cache::new(
            config.jwks_ttl,
            config.jwks_min_refresh,
            config.jwks_max_stale,
        ));
        Self {
            shared: Arc::new(Shared {
                source,
                cache,
                ended: watch::Sender::new(()),
            }),
            tasks,
        }
    }

    /// The set to verify `token` with. Waits for at most one fetch.
    pub(super) async fn keys_for(&self, token: &Token<'_>) -> Result<Arc<KeySet>, TokenError> {
        let mut ended = self.shared.ended.subscribe();
        let mut waited = false;
        loop {
            let decision = self
                .shared
                .cache
                .lock()
                .decide(Instant::now(), waited, |keys| token.has_key_in(keys));
            if decision.fetch {
                self.fetch();
            }
            match decision.step {
                Step::Use(keys) => return Ok(keys),
                Step::Refuse(why) => return Err(why),
                Step::Wait => {
                    // No error: the sender lives as long as `self`.
                    let _ = ended.changed().await;
                    waited = true;
                }
            }
        }
    }

    fn fetch(&self) {
        let ending = Ending {
            shared: self.shared.clone(),
            keys: None,
        };
        self.tasks.spawn(async move {
            let mut ending = ending;
            match ending.shared.source.fetch().await {
                Ok(keys) => {
                    tracing::debug!(
                        jwks.host = ending.shared.source.host(),
                        jwks.keys = keys.len(),
                        "jwk set fetched"
                    );
                    ending.keys = Some(keys);
                }
                Err(error) => {
                    tracing::warn!(jwks.host = ending.shared.source.host(), %error, "jwk set not fetched");
                }
            }
        });
    }
}

/// Ends a fetch, also if its task is stopped: nobody may wait for ever.
struct Ending {
    shared: Arc<Shared>,
    keys: Option<KeySet>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.cache.lock().fetched(Instant::now(), self.keys.take());
        self.shared.ended.send_replace(());
    }
}
