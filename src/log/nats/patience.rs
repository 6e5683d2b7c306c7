//! How long an answer is waited for, as TCP does it (RFC 6298): at least as configured, longer while
//! answers take longer. A fixed time that the servers cannot keep under load would have every
//! request given up and asked again, for ever.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::NatsConfig;

/// A request that has no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nothing (more) came in time.
    #[error("no answer")]
    Silence,
    /// Nobody listens on the request's subject.
    #[error("no server takes this request")]
    NoResponders,
}

/// Tells the requests of one connection how long to wait.
#[derive(Debug)]
pub(super) struct Waits(Mutex<Patience>);

impl Waits {
    pub(super) fn new(nats: &NatsConfig) -> Self {
        Self(Mutex::new(Patience::new(
            nats.request_timeout,
            nats.request_timeout_max,
        )))
    }

    /// Makes a request, which is told how long to wait, and learns from what becomes of it.
    pub(super) async fn within<T>(
        &self,
        request: impl AsyncFnOnce(Duration) -> Result<T, Unanswered>,
    ) -> Result<T, Unanswered> {
        let limit = self.0.lock().limit();
        let began = Instant::now();
        let answer = request(limit).await;
        let took = began.elapsed();
        match &answer {
            Ok(_) => self.0.lock().answered(took),
            // Otherwise there was no connection to wait for.
            Err(Unanswered::Silence) if took >= limit => self.0.lock().gave_up(limit),
            Err(_) => {}
        }
        answer
    }
}

/// Estimates how long answers take. Pure.
#[derive(Debug)]
struct Patience {
    least: Duration,
    most: Duration,
    smoothed: Option<Duration>,
    variation: Duration,
    limit: Duration,
}

impl Patience {
    /// Never less than `least`, nor more than `most`.
    fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            smoothed: None,
            variation: Duration::ZERO,
            limit: least,
        }
    }

    /// How long to wait for an answer now.
    fn limit(&self) -> Duration {
        self.limit
    }

    /// An answer came after so long.
    fn answered(&mut self, took: Duration) {
        let smoothed = match self.smoothed {
            None => {
                self.variation = took / 2;
                took
            }
            Some(before) => {
                self.variation = (self.variation * 3 + before.abs_diff(took)) / 4;
                (before * 7 + took) / 8
            }
        };
        self.smoothed = Some(smoothed);
        self.limit = self.bounded(smoothed + self.variation * 4);
    }

    /// None came in `waited`. Many that waited at the same time count once.
    fn gave_up(&mut self, waited: Duration) {
        self.limit = self.limit.max(self.bounded(waited * 2));
    }

    fn bounded(&self, limit: Duration) -> Duration {
        limit.max(self.least).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_follows_what_answers_take_and_grows_without_them() {
        let mut patience = Patience::new(ms(300), ms(5_000));
        assert_eq!(patience.limit(), ms(300));
        patience.answered(ms(10));
        assert_eq!(patience.limit(), ms(300), "never less");
        for _ in 0..32 {
            patience.gave_up(ms(300));
        }
        assert_eq!(patience.limit(), ms(600), "all of them waited at the same time");
        patience.gave_up(ms(600));
        assert_eq!(patience.limit(), ms(1_200));
        patience.gave_up(ms(300));
        assert_eq!(patience.limit(), ms(1_200), "an old one");
        for _ in 0..20 {
            patience.answered(ms(700));
        }
        assert!((ms(700)..ms(1_100)).contains(&patience.limit()), "{patience:?}");
        for _ in 0..100 {
            patience.answered(ms(1));
        }
        assert_eq!(patience.limit(), ms(300));
        for _ in 0..9 {
            patience.gave_up(patience.limit());
        }
        assert_eq!(patience.limit(), ms(5_000), "never more");
    }
}
