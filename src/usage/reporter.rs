use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::record::{AppRecord, FORMAT, Record, parts};
use crate::{
    config::UsageConfig,
    log::{Log, PublishError, StreamName, WorkStream},
    model::{AppId, NodeId},
    task::Tasks,
    telemetry::Metrics,
};

/// Between the first failure to report and the next try; doubled up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Reports what the apps on this node use.
///
/// Takes the counters at full intervals of the clock and keeps the records until the usage stream has them,
/// `usage.max_waiting` at most. Beyond that nothing is taken: the counters go on, so that nothing is lost as
/// long as the node lives.
pub struct Reporter {
    stream: Arc<dyn WorkStream>,
    node: NodeId,
    metrics: Arc<Metrics>,
    max_waiting: usize,
    state: Mutex<State>,
    /// There is something to send.
    work: Notify,
    /// Something was sent.
    done: Notify,
}

struct State {
    waiting: VecDeque<(i64, Bytes)>,
    next_sequence: i64,
    from_ms: i64,
}

impl Reporter {
    /// Starts to report.
    pub fn start(log: &dyn Log, config: &UsageConfig, metrics: Arc<Metrics>, tasks: &Tasks) -> Arc<Self> {
        metrics.set_usage_namespaces(config.max_namespaces);
        let reporter = Arc::new(Self {
            stream: log.work_stream(StreamName::Usage),
            node: log.node(),
            metrics,
            max_waiting: config.max_waiting,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                next_sequence: 1,
                from_ms: now_ms(),
            }),
            work: Notify::new(),
            done: Notify::new(),
        });
        let interval = config.flush_interval;
        tasks.spawn({
            let reporter = reporter.clone();
            async move {
                loop {
                    sleep(until_next(now_ms(), interval)).await;
                    reporter.take(now_ms());
                }
            }
        });
        tasks.spawn(reporter.clone().send_all());
        reporter
    }

    /// Takes what has been counted, and waits until NATS has all of it, or for `limit`: for drain, when
    /// nothing is counted any more. What is left then is lost.
    pub async fn close(&self, limit: Duration) {
        self.take(now_ms());
        let sent = timeout(limit, async {
            loop {
                let done = self.done.notified();
                if self.state.lock().waiting.is_empty() {
                    // What was not taken because too much was waiting.
                    self.take(now_ms());
                    if self.state.lock().waiting.is_empty() {
                        return;
                    }
                }
                done.await;
            }
        });
        if sent.await.is_err() {
            let left = self.state.lock().waiting.len();
            self.metrics.usage_lost.inc_by(left as u64);
            tracing::warn!(records = left, "usage could not be reported before the node ends");
        }
    }

    /// Makes records of what has been counted, unless too many wait.
    fn take(&self, now_ms: i64) {
        let mut state = self.state.lock();
        if state.waiting.len() >= self.max_waiting {
            return;
        }
        let mut apps = Vec::new();
        for (id, app) in self.metrics.apps() {
            // What is no app's: connections that have not said yet whose they are.
            if id.as_str() != AppId::UNNAMED
                && let Some(used) = app.usage.take()
            {
                apps.push(AppRecord::new(&id, &used));
            }
        }
        let from_ms = state.from_ms.min(now_ms);
        state.from_ms = now_ms;
        for apps in parts(apps) {
            let record = Record {
                format: FORMAT,
                node: self.node,
                sequence: state.next_sequence,
                from_ms,
                to_ms: now_ms,
                apps,
            };
            // It is of texts and numbers.
            let json = serde_json::to_vec(&record).unwrap_or_default();
            state.waiting.push_back((record.sequence, json.into()));
            state.next_sequence += 1;
        }
        self.tell(&state);
    }

    fn tell(&self, state: &State) {
        let waiting = i64::try_from(state.waiting.len()).unwrap_or(i64::MAX);
        self.metrics.usage_waiting.set(waiting);
        self.work.notify_one();
        self.done.notify_waiters();
    }

    /// Sends one record after the other: each has its place before the next.
    async fn send_all(self: Arc<Self>) {
        let (queue, node) = (Record::queue(self.node), self.node.to_string());
        let mut pause = FIRST_PAUSE;
        loop {
            let first = self.state.lock().waiting.front().cloned();
            let Some((sequence, record)) = first else {
                self.work.notified().await;
                continue;
            };
            let id = format!("{node}.{sequence}");
            let sent = match self.stream.append(&[&queue, &node], Some(&id), record) {
                Ok(sent) => sent.await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(_) => {
                    self.sent();
                    pause = FIRST_PAUSE;
                }
                Err(PublishError::Refused(why)) => {
                    tracing::error!(sequence, why, "NATS refused a record of usage; it is lost");
                    self.metrics.usage_lost.inc();
                    self.sent();
                }
                Err(why) => {
                    self.metrics.usage_reports_failed.inc();
                    if pause == FIRST_PAUSE {
                        tracing::warn!(%why, "usage cannot be reported now; it is kept");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    fn sent(&self) {
        let mut state = self.state.lock();
        state.waiting.pop_front();
        self.tell(&state);
    }
}

/// To the next full interval of the clock.
fn until_next(now_ms: i64, interval: Duration) -> Duration {
    let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let left = interval_ms - now_ms.rem_euclid(interval_ms);
    Duration::from_millis(left.unsigned_abs())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
