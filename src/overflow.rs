//! The slow way into the log: publications that came too soon for a rate wait in a stream of the deployment,
//! and are published at the app's rate, late rather than never.
//!
//! *Order.* While a node knows of publications of a channel that wait, what it publishes to that channel waits
//! behind them. It knows at once of its own, by their notices of those of other nodes, and by asking the stream
//! of what it has missed. One message of an app is delivered at a time, to one node, and only when it is
//! published is it taken out: so what waits is published in the order in which it was queued.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::{
    apps::{App, Apps, Throttled},
    channel::{Hub, PublishFailure},
    config::QueueConfig,
    log::{Ack, AckFuture, Log, PublishError, ReadError, StreamName, Waiting, WorkStream},
    model::{AppId, ChannelName, Offset, Record},
    random,
    task::Tasks,
    telemetry::{Limit, Metrics, PublishOutcome},
};

mod backlog;
mod census;
mod drain;
mod message;
mod turns;
mod watch;

use backlog::{Appended, Backlogs};
use census::Census;
use drain::Held;
use message::{Notice, Queued};
use turns::Turns;

/// What nodes tell each other on.
const TOPIC: &str = "overflow";
/// The last part of each key: filters want one more part behind what they name.
const LAST_PART: &str = "q";
/// 6 bits each: a key that nobody else has.
const KEY_CHARACTERS: usize = 22;
/// When to come again if the queue is full.
const RETRY: Duration = Duration::from_secs(1);

/// Why a publication does not wait.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotQueued {
    /// As many wait as may.
    #[error(transparent)]
    Full(#[from] Throttled),
    /// The log did not take it, or did not answer.
    #[error(transparent)]
    Log(#[from] PublishFailure),
}

/// What waits of all apps, on this node.
pub struct Overflow {
    log: Arc<dyn Log>,
    stream: Arc<dyn WorkStream>,
    hub: Arc<Hub>,
    apps: Apps,
    config: QueueConfig,
    backlogs: Mutex<Backlogs>,
    /// [`Backlogs::len`], for who only wants to know that it is 0.
    places: AtomicUsize,
    /// Whose turn it is to be published for. Locked before `backlogs`, where both are.
    turns: Mutex<Turns<Held>>,
    /// An app has come to wait for its turn.
    crowded: Notify,
    /// The stream refused the last append since it holds as much as it may. Only for the log.
    is_full: AtomicBool,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

impl Overflow {
    /// Publishes what waits from now on, and knows of what is there already as far as the stream answers.
    pub async fn start(
        log: Arc<dyn Log>,
        hub: Arc<Hub>,
        apps: Apps,
        config: &QueueConfig,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let overflow = Arc::new(Self {
            stream: log.work_stream(StreamName::Overflow),
            log,
            hub,
            apps,
            config: config.clone(),
            backlogs: Mutex::new(Backlogs::new(config.max_channels, config.check_interval)),
            places: AtomicUsize::new(0),
            turns: Mutex::new(Turns::new(config.max_drains)),
            crowded: Notify::new(),
            is_full: AtomicBool::new(false),
            metrics,
            tasks: tasks.clone(),
        });
        overflow.find_at_start().await;
        tasks.spawn(overflow.clone().hear());
        tasks.spawn(overflow.clone().tell_again());
        tasks.spawn(overflow.clone().watch());
        overflow
    }

    /// Whether a publication to the channel must wait behind others.
    pub fn is_waited_for(&self, app: &AppId, channel: &ChannelName) -> bool {
        self.places.load(Ordering::Acquire) > 0 && self.backlogs.lock().has(app, channel)
    }

    /// Queues a publication that has been checked. It has its place in the order of this node when this
    /// returns; the future tells whether it waits, and where.
    ///
    /// # Errors
    ///
    /// [`NotQueued`].
    pub fn append(
        self: &Arc<Self>,
        app: &App,
        channel: &ChannelName,
        record: &Record,
        idempotency_key: Option<&str>,
    ) -> Result<impl Future<Output = Result<Ack, NotQueued>> + Send + use<>, NotQueued> {
        let most = match app.limits.max_queued {
            0 => u64::MAX,
            most => most,
        };
        let begun = self.with(|backlogs| {
            let begun = backlogs.begin(&app.id, channel, most, Instant::now());
            // Told in the order in which it happens, or another node could take what waits to be published.
            if begun == Ok(true) {
                self.log.tell(TOPIC, Notice::queued(&app.id, channel).encode());
            }
            begun
        });
        if begun.is_err() {
            return Err(full(Limit::Queued).into());
        }
        let appending = Appending {
            overflow: self.clone(),
            app: app.id.clone(),
            channel: channel.clone(),
            appended: Appended::Unknown,
        };
        match self.send(&app.id, channel, record, idempotency_key) {
            Ok(sent) => {
                self.drain(&app.id);
                Ok(appending.end(sent))
            }
            Err(error) => {
                appending.refused();
                Err(error.into())
            }
        }
    }

    fn send(
        &self,
        app: &AppId,
        channel: &ChannelName,
        record: &Record,
        idempotency_key: Option<&str>,
    ) -> Result<AckFuture, PublishError> {
        let queued = Queued {
            record: record.clone(),
            key: idempotency_key.map_or_else(|| random::name(KEY_CHARACTERS), str::to_owned),
        };
        let unwritten = || PublishError::Refused("it cannot be written".to_owned());
        let data = queued.encode().ok_or_else(unwritten)?;
        let id = idempotency_key.map(|key| Hub::dedup_id(app, channel, key));
        self.stream
            .append(&[app.as_str(), channel.as_str(), LAST_PART], id.as_deref(), data)
    }

    /// What waits of a channel.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn waiting(&self, app: &AppId, channel: &ChannelName) -> Result<Waiting, ReadError> {
        self.stream.waiting(&[app.as_str(), channel.as_str()]).await
    }

    fn drained(&self, backlogs: &mut Backlogs, app: &AppId, channel: &ChannelName, seq: Offset) {
        if backlogs.drained(app, channel, seq) {
            self.log.tell(TOPIC, Notice::idle(app, channel).encode());
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Backlogs) -> T) -> T {
        let mut backlogs = self.backlogs.lock();
        let result = act(&mut backlogs);
        self.places.store(backlogs.len(), Ordering::Release);
        self.metrics
            .queue_channels
            .set(i64::try_from(backlogs.len()).unwrap_or(i64::MAX));
        result
    }
}

fn full(limit: Limit) -> Throttled {
    Throttled {
        limit,
        retry_after: RETRY,
    }
}

/// An append that is not acknowledged. Whoever asked may go away: what has become of it is unknown then.
struct Appending {
    overflow: Arc<Overflow>,
    app: AppId,
    channel: ChannelName,
    appended: Appended,
}

impl Appending {
    fn refused(mut self) {
        self.appended = Appended::Refused;
    }

    async fn end(mut self, sent: AckFuture) -> Result<Ack, NotQueued> {
        let ack = sent.await;
        self.appended = match &ack {
            // Nothing was appended now.
            Ok(ack) if ack.duplicate => Appended::Refused,
            Ok(ack) => Appended::At(ack.seq),
            Err(PublishError::Unknown) => Appended::Unknown,
            Err(_) => Appended::Refused,
        };
        match ack {
            Ok(ack) => {
                if !ack.duplicate && self.overflow.is_full.swap(false, Ordering::Relaxed) {
                    info!("the queue has room again");
                }
                let app = self.overflow.metrics.app(&self.app);
                app.publishes.of(PublishOutcome::Queued).inc();
                Ok(ack)
            }
            Err(PublishError::Full) => {
                if !self.overflow.is_full.swap(true, Ordering::Relaxed) {
                    warn!("the queue is full: log.streams.overflow.max_bytes");
                }
                Err(full(Limit::QueueBytes).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        let (app, channel) = (&self.app, &self.channel);
        self.overflow.with(|backlogs| {
            if backlogs.end(app, channel, self.appended, Instant::now()) {
                self.overflow.log.tell(TOPIC, Notice::idle(app, channel).encode());
            }
        });
    }
}

impl std::fmt::Debug for Overflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overflow").finish_non_exhaustive()
    }
}
