use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    fold::Folder,
    record::{QUEUES, Record, RecordError},
};
use crate::{
    config::UsageConfig,
    log::{ConsumeOptions, Consumer, Log, ReadError, StreamName, WorkMessage, WorkStream},
    store::{Collection, Store, StoreError},
    task::Tasks,
    telemetry::Metrics,
};

/// How long one pull waits for a record.
const PULL_WAIT: Duration = Duration::from_secs(20);
/// Between two pulls that fail.
const PULL_AGAIN: Duration = Duration::from_secs(1);
/// The first pause before a record is tried again; doubled each time.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Expired documents that are removed at once.
const SWEEP: usize = 1_000;

/// Adds up in the store what nodes report. There may be many in a deployment: each queue of records is one
/// worker's at a time, record by record.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// Starts to work, until `tasks` are stopped.
    pub fn start(
        log: &dyn Log,
        store: &Arc<dyn Store>,
        config: &UsageConfig,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        let stream = log.work_stream(StreamName::Usage);
        for queue in 0..QUEUES {
            let queue = Queue {
                stream: stream.clone(),
                name: queue.to_string(),
                folder: Folder::new(store.clone(), config, metrics.clone()),
                metrics: metrics.clone(),
                config: config.clone(),
            };
            tasks.spawn(queue.work());
        }
        tasks.spawn(sweep(store.clone(), config.sweep_interval));
        Self
    }
}

/// The records of some of the nodes.
struct Queue {
    stream: Arc<dyn WorkStream>,
    name: String,
    folder: Folder,
    metrics: Arc<Metrics>,
    config: UsageConfig,
}

impl Queue {
    async fn work(self) {
        let mut failing = false;
        loop {
            let consuming = self.stream.consume(ConsumeOptions {
                durable: format!("fold-{}", self.name),
                prefix: vec![self.name.clone()],
                // The store takes a node's records in their order only. So the next one is not given to
                // anybody before this one is settled.
                max_ack_pending: 1,
                ack_wait: self.config.fold_timeout,
                forget_after: None,
            });
            let error = match consuming.await {
                Ok(mut consumer) => {
                    failing = false;
                    self.pull_all(&mut *consumer).await
                }
                Err(error) => error,
            };
            if !failing {
                tracing::warn!(%error, queue = self.name, "records of usage cannot be read now");
            }
            failing = true;
            sleep(PULL_AGAIN).await;
        }
    }

    /// Works until a pull fails.
    async fn pull_all(&self, consumer: &mut dyn Consumer) -> ReadError {
        loop {
            match consumer.pull(1, PULL_WAIT).await {
                Ok(messages) => {
                    for message in messages {
                        self.settle(&message).await;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn settle(&self, message: &WorkMessage) {
        let settled = match Record::parse(&message.data) {
            Ok(record) => {
                match tokio::time::timeout(self.config.fold_timeout, self.folder.fold(&record)).await {
                    Ok(Ok(())) => {
                        self.metrics.usage_folded.inc();
                        message.ack().await
                    }
                    Ok(Err(error)) => self.delay(message, &error.to_string()).await,
                    Err(_) => {
                        self.delay(message, "it took longer than usage.fold_timeout")
                            .await
                    }
                }
            }
            // Whoever can read it is to have it: its records come in order, so all wait for that.
            Err(error @ RecordError::Newer(_)) => self.delay(message, &error.to_string()).await,
            Err(error) => {
                self.metrics.usage_refused.inc();
                tracing::error!(seq = message.seq, %error, "a record of usage was refused");
                message.term().await
            }
        };
        if let Err(error) = settled {
            // It comes again, and adds nothing then.
            tracing::debug!(seq = message.seq, %error, "a record of usage could not be settled");
        }
    }

    async fn delay(&self, message: &WorkMessage, why: &str) -> Result<(), ReadError> {
        self.metrics.usage_delayed.inc();
        let doublings = u32::try_from(message.delivered.saturating_sub(1)).map_or(16, |times| times.min(16));
        let delay = (FIRST_DELAY * (1 << doublings)).min(self.config.max_retry_delay);
        if message.delivered == 1 {
            tracing::warn!(seq = message.seq, why, "a record of usage waits");
        }
        message.nak(delay).await
    }
}

/// Removes sums that are too old.
async fn sweep(store: Arc<dyn Store>, interval: Duration) {
    loop {
        sleep(interval).await;
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now_ms.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
        loop {
            match store.sweep(Collection::Usage, now_ms, SWEEP).await {
                Ok(swept) if swept >= SWEEP => {}
                Ok(_) => break,
                Err(StoreError::Unavailable(_)) => break,
                Err(error) => {
                    tracing::warn!(%error, "old sums of usage were not removed");
                    break;
                }
            }
        }
    }
}
