//! Publishes what waits, one message of an app after the other.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::{LAST_PART, Notice, Overflow, Queued, TOPIC};
use crate::{
    apps::{App, Late},
    channel::PublishFailure,
    log::{ConsumeOptions, WorkMessage},
    model::{AppId, ChannelName},
    telemetry::QueueOutcome,
};

/// After a failure of the log.
const PAUSE: Duration = Duration::from_millis(200);
/// The consumer of an app is forgotten when nobody has asked it for so long.
const FORGET: Duration = Duration::from_secs(3_600);
/// The longest that a message is put off at once.
const LONGEST: Duration = Duration::from_secs(60);

/// What becomes of a message.
enum Done {
    /// It is in the log.
    Published,
    /// It never will be.
    Never(&'static str),
    /// Not now: after so long.
    Later(Duration),
}

impl Overflow {
    /// Publishes for an app until nothing waits, if this node does not yet, and has the room.
    pub(super) fn drain(self: &Arc<Self>, id: &AppId) {
        let mut draining = self.draining.lock();
        let known = draining.iter().any(|known| known == id);
        if known || draining.len() >= self.config.max_drains || self.apps.get(id.as_str()).is_none() {
            return;
        }
        draining.push(id.clone());
        drop(draining);
        let draining = Draining {
            overflow: self.clone(),
            app: id.clone(),
        };
        self.tasks.spawn(async move { draining.run().await });
    }
}

/// An app that this node publishes for. Dropping it lets another task do that.
struct Draining {
    overflow: Arc<Overflow>,
    app: AppId,
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.overflow.draining.lock().retain(|app| *app != self.app);
    }
}

impl Draining {
    async fn run(self) {
        let overflow = &self.overflow;
        let options = ConsumeOptions {
            durable: self.app.as_str().to_owned(),
            prefix: vec![self.app.as_str().to_owned()],
            // What follows is not even delivered before this one is settled: that makes the order.
            max_ack_pending: 1,
            ack_wait: overflow.config.ack_wait,
            forget_after: Some(FORGET),
        };
        let mut consumer = match overflow.stream.consume(options).await {
            Ok(consumer) => consumer,
            Err(error) => {
                debug!(app = %self.app, %error, "what waits cannot be read now");
                // The next round tries again.
                return;
            }
        };
        while let Some(app) = overflow.apps.get(self.app.as_str()) {
            match consumer.pull(1, overflow.config.check_interval).await {
                Ok(messages) if messages.is_empty() => {
                    if !overflow.with(|backlogs| backlogs.has_app(&self.app)) {
                        return;
                    }
                }
                Ok(messages) => {
                    for message in &messages {
                        self.settle(&app, message).await;
                    }
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn settle(&self, app: &App, message: &WorkMessage) {
        let overflow = &self.overflow;
        let channel = match message.key.as_slice() {
            [_, channel, last] if last == LAST_PART => ChannelName::new(channel).ok(),
            _ => None,
        };
        let done = match &channel {
            Some(channel) => self.publish(app, channel, message).await,
            None => Done::Never("its key is not one of the queue"),
        };
        let count = |outcome| overflow.metrics.queue.of(outcome).inc();
        let settled = match done {
            Done::Published => {
                count(QueueOutcome::Published);
                message.ack().await
            }
            Done::Never(why) => {
                warn!(app = %self.app, seq = message.seq, why, "a publication that waited was dropped");
                count(QueueOutcome::Dropped);
                message.term().await
            }
            Done::Later(after) => {
                count(QueueOutcome::Deferred);
                // If that fails it comes again all the same.
                let _ = message.nak(after).await;
                return;
            }
        };
        if let (Ok(()), Some(channel)) = (settled, channel) {
            overflow.with(|backlogs| overflow.drained(backlogs, &self.app, &channel, message.seq));
            let notice = Notice::drained(&self.app, &channel, message.seq);
            overflow.log.tell(TOPIC, notice.encode());
        }
    }

    /// Waits for the rate, at most half the time after which the message is given to somebody else.
    async fn publish(&self, app: &App, channel: &ChannelName, message: &WorkMessage) -> Done {
        let hub = &self.overflow.hub;
        let Some(Queued { record, key }) = Queued::decode(&message.data) else {
            return Done::Never("it is not in a form that is known here");
        };
        let Some(rule) = app.rules.rule(channel) else {
            return Done::Never("its namespace does not exist any more");
        };
        if record.data.len() > rule.max_size {
            return Done::Never("it is larger than its namespace allows now");
        }
        let Some(route) = hub.route(&app.id, channel, &rule.history) else {
            return Done::Never("its retention class does not exist");
        };
        let until = Instant::now() + self.overflow.config.ack_wait / 2;
        let bytes = hub.stored_bytes(&route, &record, Some(&key));
        if let Err(wait) = admitted(app, channel, bytes, until).await {
            return Done::Later(wait.min(LONGEST));
        }
        store(until, || async {
            hub.publish(&route, &record, Some(&key))?.await
        })
        .await
    }
}

/// With its key a repeat is stored once, so an unknown outcome is tried again. Never after `until`: the message
/// may be somebody else's then, and those behind it published.
async fn store<T, F>(until: Instant, attempt: impl Fn() -> F) -> Done
where
    F: Future<Output = Result<T, PublishFailure>>,
{
    while Instant::now() <= until {
        match attempt().await {
            Ok(_) => return Done::Published,
            Err(PublishFailure::Refused(_)) => return Done::Never("the log refused it"),
            Err(_) => sleep(PAUSE).await,
        }
    }
    Done::Later(PAUSE)
}

/// Waits until the app's rates admit it; or answers how long that would take from now.
async fn admitted(app: &App, channel: &ChannelName, bytes: u64, until: Instant) -> Result<(), Duration> {
    let mut late = Late::default();
    while let Err(throttled) = app.admit_late(channel, bytes, &mut late) {
        let wait = throttled.retry_after;
        if Instant::now() + wait > until {
            return Err(wait);
        }
        sleep(wait).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_be_given_to_another_node_is_not_published_any_more() {
        let attempts = AtomicUsize::new(0);
        let fails = || async {
            attempts.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(PublishFailure::Unknown)
        };
        let until = Instant::now() + 2 * PAUSE;
        assert!(matches!(store(until, fails).await, Done::Later(_)));
        assert_eq!(attempts.load(Ordering::Relaxed), 3);
        // The node stood still between the delivery and the first attempt.
        assert!(matches!(store(until, fails).await, Done::Later(_)));
        assert_eq!(attempts.load(Ordering::Relaxed), 3);
    }
}
