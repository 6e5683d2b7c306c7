use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{auth::key::KeySet, model::TokenError};

/// A fetched set and when the next may be fetched. Pure: the caller brings the time and does the
/// fetching.
#[derive(Debug)]
pub(super) struct Cache {
    ttl: Duration,
    min_refresh: Duration,
    max_stale: Duration,
    current: Option<(Arc<KeySet>, Instant)>,
    /// When the last fetch was started.
    started: Option<Instant>,
    fetching: bool,
    /// Whether the last fetch that ended brought no set.
    failed: bool,
}

/// What to do for a token.
#[derive(Debug)]
pub(super) struct Decision {
    /// Start a fetch; the cache counts it as started.
    pub(super) fetch: bool,
    /// What the token's verification does.
    pub(super) step: Step,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Verify with this set.
    Use(Arc<KeySet>),
    /// Wait for the fetch, then ask again.
    Wait,
    /// There is no key to verify with.
    Refuse(TokenError),
}

impl Cache {
    pub(super) fn new(ttl: Duration, min_refresh: Duration, max_stale: Duration) -> Self {
        Self {
            ttl,
            min_refresh,
            max_stale,
            current: None,
            started: None,
            fetching: false,
            failed: false,
        }
    }

    /// Decides for a token whose key is in a set if `has_key` says so. `waited`: it has waited for a
    /// fetch and does not wait for another.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        waited: bool,
        has_key: impl Fn(&KeySet) -> bool,
    ) -> Decision {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let due = !self.fetching && self.started.as_ref().is_none_or(|at| age(at) >= self.min_refresh);
        let usable = self
            .current
            .as_ref()
            .filter(|(_, at)| age(at) < self.ttl.saturating_add(self.max_stale));
        let may_wait = !waited && (self.fetching || due);
        let (fetch, step) = match usable {
            Some((keys, at)) if has_key(keys) => {
                let fresh = age(at) < self.ttl;
                // Refreshed ahead of time, so that nobody waits while tokens keep coming; and if the
                // source is down, only the first who finds that out waits.
                let early = age(at) >= self.ttl / 5 * 4;
                let wait = !fresh && may_wait && !self.failed;
                (
                    due && early,
                    if wait { Step::Wait } else { Step::Use(keys.clone()) },
                )
            }
            _ if may_wait => (due, Step::Wait),
            // The source itself said that there is no such key.
            Some(_) if !self.failed => (
                false,
                Step::Refuse(TokenError::Invalid("no key for its algorithm and key id")),
            ),
            _ => (false, Step::Refuse(TokenError::Unavailable)),
        };
        if fetch {
            self.started = Some(now);
            self.fetching = true;
        }
        Decision { fetch, step }
    }

    /// A fetch has ended, with a set or without.
    pub(super) fn fetched(&mut self, now: Instant, keys: Option<KeySet>) {
        self.fetching = false;
        self.failed = keys.is_none();
        if let Some(keys) = keys {
            self.current = Some((Arc::new(keys), now));
        }
    }
}

#[cfg(test)]
mod tests;
