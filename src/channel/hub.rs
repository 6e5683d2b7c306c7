//! All channels of a node: which have a tail, and who keeps it.
//!
//! A tail exists while someone is interested (a subscription, a join under way) and lingers a while
//! after. Its state has one owner, [`Channel`], behind a short lock that is never held across an
//! await; tasks that wait for the log hold none.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::Instant,
};
use tracing::warn;

use crate::{
    config::{CatchupConfig, ChannelConfig, LogConfig},
    log::{Log, LogEvent, Route, ShardId},
    model::{AppId, ChannelKey, ChannelName, Epoch, History, Offset, Publication},
    quota::{self, Meters, Place},
    task::Tasks,
    telemetry::{AppMetrics, DropReason, Label, Limit, Measure, Metrics, Tally},
};

use super::{
    budget::Budgets,
    checks::{Checks, Due},
    cursor::Cursors,
    entry::Entry,
    keeper::Keeper,
    linger::Lingering,
    listing::Known,
    outlet::Outlet,
    peers::asking::Asking,
    reader::Reader,
    ring::RingLimits,
    sweeper::Sweeper,
    tail::{Tail, TailLimits},
};

/// The channels of a node. One per node; everything about it is bounded by its configuration.
pub struct Hub {
    pub(super) log: Arc<dyn Log>,
    pub(super) config: ChannelConfig,
    /// Publications that the log takes without acknowledgements.
    pub(super) log_in_flight: usize,
    pub(super) limits: TailLimits,
    pub(super) reader: Reader,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
    pub(super) budgets: Arc<Budgets>,
    pub(super) encoder: Encoder,
    /// By shard; the last one is for ephemeral channels.
    pub(super) partitions: Vec<Partition>,
    tails: AtomicUsize,
    pub(super) lingering: Lingering,
    pub(super) asking: Asking,
    channels_made: AtomicU64,
    pub(super) meters: Arc<Meters>,
}

pub(super) struct Partition {
    keeper: Option<Arc<Keeper>>,
    checks: Option<Checks>,
    sweeper: Option<Sweeper>,
    pub(super) channels: Mutex<Known>,
}

/// One channel with a tail.
pub struct Channel {
    pub(super) route: Route,
    pub(super) keeper: Option<Arc<Keeper>>,
    pub(super) app: Arc<AppMetrics>,
    /// Counts what its namespace uses.
    pub(super) usage: Arc<Tally>,
    pub(super) body: Mutex<Body>,
    /// Wakes its pump: it is to stop, or to start over.
    pub(super) control: Notify,
    /// Wakes those who wait for it to begin, or to be whole.
    pub(super) begun: Notify,
    /// One read of the log for a join at a time: what it brings serves the next.
    pub(super) reading: tokio::sync::Mutex<()>,
    /// Subscriptions and joins under way. Changed under the partition's lock only.
    members: AtomicUsize,
    /// Names it among the channels this hub has had.
    pub(super) number: u64,
    /// Counts it among those that the app may have.
    _place: Option<Place>,
}

impl Channel {
    /// Counts what was put into mailboxes.
    pub(super) fn delivered(&self, publications: u64, bytes: u64) {
        if publications > 0 {
            self.app.deliveries.inc_by(publications);
            self.usage.add(Measure::MessagesOut, publications);
            self.usage.add(Measure::BytesOut, bytes);
        }
    }
}

/// What a channel holds.
pub(super) enum Body {
    /// A tail, and the epoch its offsets belong to.
    Durable(Box<Durable>),
    /// Whoever is there gets what comes.
    Ephemeral(Ephemeral),
    /// Nothing any more.
    Closed,
}

#[derive(Default)]
pub(super) struct Ephemeral {
    pub(super) cursors: Cursors<Outlet>,
    /// Copies come from now on: before that nobody is told to be subscribed.
    pub(super) begun: bool,
}

pub(super) struct Durable {
    pub(super) tail: Tail<Outlet>,
    pub(super) epoch: Epoch,
    pub(super) life: Life,
    /// A task is closing the tail's gap.
    pub(super) closing_gap: bool,
    /// When its ring was last read or written.
    pub(super) ring_used: Instant,
    /// What its ring has been charged for.
    pub(super) ring_charged: usize,
}

/// Tells apart what a tail was told before and after it began anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    /// The shard's incarnation in which it began.
    pub(super) incarnation: u64,
    /// How often it has begun.
    pub(super) begun: u64,
}

/// Keeps a channel's tail as long as it lives.
pub struct Interest {
    hub: Arc<Hub>,
    channel: Arc<Channel>,
}

/// Encodes publications of a channel for the wire, transport header included. The hub does not
/// know the dialects.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// From a publication.
    pub publication: fn(&ChannelName, &Publication) -> Arc<Entry>,
    /// From offset, time (ms) and a publication's object as [`Entry::body`] gives it.
    pub body: fn(&ChannelName, Offset, i64, &[u8]) -> Arc<Entry>,
}

/// There are as many tails as there may be, by this limit: of the node, or of the app's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many tails as there may be: {}", .0.as_str())]
pub struct TooManyTails(pub Limit);

impl Hub {
    /// A hub over `log`. It runs on `tasks` from now on.
    #[expect(clippy::too_many_arguments, reason = "called once, by the composition root")]
    pub fn start(
        log: Arc<dyn Log>,
        log_config: &LogConfig,
        config: &ChannelConfig,
        catchup: &CatchupConfig,
        (rings, meters): (Arc<Budgets>, Arc<Meters>),
        encoder: Encoder,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let mut partitions = Vec::new();
        let mut due = Vec::new();
        for spec in log.shards() {
            let keeper = Arc::new(Keeper::new(
                log.clone(),
                spec.clone(),
                log_config.clock_margin,
                &metrics,
            ));
            let (checks, receiver) = Checks::new();
            due.push((spec.id, receiver));
            tasks.spawn(keeper.clone().run());
            tasks.spawn(keeper.clone().run_marks(log_config.mark_interval));
            partitions.push(Partition {
                keeper: Some(keeper),
                checks: Some(checks),
                sweeper: Some(Sweeper::new()),
                channels: Mutex::default(),
            });
        }
        partitions.push(Partition {
            keeper: None,
            checks: None,
            sweeper: None,
            channels: Mutex::default(),
        });
        let limits = TailLimits {
            ring: RingLimits {
                messages: config.ring_messages,
                bytes: config.ring_bytes,
            },
            gap_bytes: config.gap_bytes,
            page_bytes: catchup.page_bytes as usize,
        };
        let hub = Arc::new(Self {
            reader: Reader::new(log.clone(), catchup, metrics.clone()),
            log,
            config: config.clone(),
            log_in_flight: log_config.max_in_flight,
            limits,
            metrics,
            tasks: tasks.clone(),
            budgets: rings,
            encoder,
            partitions,
            tails: AtomicUsize::new(0),
            lingering: Lingering::default(),
            asking: Asking::default(),
            channels_made: AtomicU64::new(0),
            meters,
        });
        for (shard, receiver) in due {
            tasks.spawn(super::checks::run(hub.clone(), shard, receiver));
            tasks.spawn(super::sweeper::run(hub.clone(), shard));
        }
        tasks.spawn(super::linger::run(hub.clone()));
        tasks.spawn(hub.clone().run_rings());
        tasks.spawn(hub.clone().run_events(hub.log.events()));
        for keeper in hub.keepers() {
            tasks.spawn(hub.clone().follow_epoch(keeper.clone(), keeper.incarnations()));
        }
        tasks.spawn(super::peers::run(hub.clone()));
        hub
    }

    /// Where a channel lives. `None` if its class does not exist.
    pub fn route(&self, app: &AppId, channel: &ChannelName, history: &History) -> Option<Route> {
        let key = ChannelKey {
            app: app.clone(),
            name: channel.clone(),
        };
        let class = match history {
            History::None => None,
            History::Class(class) => Some(class),
        };
        self.log.route(&key, class)
    }

    /// Keeps a tail on the channel, started if there is none.
    pub fn interest(self: &Arc<Self>, route: &Route) -> Result<Interest, TooManyTails> {
        let partition = self.partition(route.shard());
        let mut channels = partition.channels.lock();
        let channel = if let Some(channel) = channels.get(route.key()) {
            channel.members.fetch_add(1, Ordering::Relaxed);
            channel.clone()
        } else {
            if self.tails.load(Ordering::Relaxed) >= self.config.max_tails {
                return Err(TooManyTails(Limit::Tails));
            }
            let place = match self.meters.get(&route.key().app) {
                Some(meter) => match meter.take(quota::Kind::Channels) {
                    None => return Err(TooManyTails(Limit::QuotaChannels)),
                    place => place,
                },
                None => None,
            };
            self.tails.fetch_add(1, Ordering::Relaxed);
            let channel = Arc::new(self.channel(route, partition, place));
            channel.app.tails.inc();
            channels.insert(route.key(), channel.clone());
            drop(channels);
            self.tasks
                .spawn(super::interest::pump(self.clone(), channel.clone()));
            channel
        };
        Ok(Interest {
            hub: self.clone(),
            channel,
        })
    }

    /// The channel, if it has a tail on this node.
    pub fn channel_of(&self, route: &Route) -> Option<Arc<Channel>> {
        self.partition(route.shard())
            .channels
            .lock()
            .get(route.key())
            .cloned()
    }

    /// The keeper of a shard.
    pub fn keeper(&self, shard: ShardId) -> Option<&Arc<Keeper>> {
        self.partitions.get(usize::from(shard.0))?.keeper.as_ref()
    }

    /// All keepers.
    pub fn keepers(&self) -> impl Iterator<Item = &Arc<Keeper>> {
        self.partitions
            .iter()
            .filter_map(|partition| partition.keeper.as_ref())
    }

    /// How many channels have a tail here.
    pub fn tails(&self) -> usize {
        self.tails.load(Ordering::Relaxed)
    }

    /// Catch-up reads that wait for their turn, and the bytes that others have asked the log for.
    pub fn catchup_load(&self) -> (usize, usize) {
        self.reader.load()
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Writes the epoch marks: the last act before the node goes (L4).
    pub async fn write_marks(&self) {
        join_all(self.keepers().map(|keeper| keeper.write_last_mark())).await;
    }

    pub(super) fn checks(&self, shard: ShardId) -> Option<&Checks> {
        self.partitions.get(usize::from(shard.0))?.checks.as_ref()
    }

    pub(super) fn sweeper(&self, shard: ShardId) -> Option<&Sweeper> {
        self.partitions.get(usize::from(shard.0))?.sweeper.as_ref()
    }

    pub(super) fn channels_of(&self, shard: ShardId) -> Vec<Arc<Channel>> {
        self.partition(Some(shard))
            .channels
            .lock()
            .values()
            .cloned()
            .collect()
    }

    fn partition(&self, shard: Option<ShardId>) -> &Partition {
        let last = self.partitions.len() - 1;
        &self.partitions[shard.map_or(last, |shard| usize::from(shard.0).min(last))]
    }

    fn channel(&self, route: &Route, partition: &Partition, place: Option<Place>) -> Channel {
        let body = match &partition.keeper {
            Some(_) => Body::Durable(Box::new(Durable {
                tail: Tail::new(self.limits),
                epoch: Epoch::new(""),
                life: Life::default(),
                closing_gap: false,
                ring_used: Instant::now(),
                ring_charged: 0,
            })),
            None => Body::Ephemeral(Ephemeral::default()),
        };
        let app = self.metrics.app(&route.key().app);
        Channel {
            route: route.clone(),
            keeper: partition.keeper.clone(),
            usage: app.usage.namespace(route.key().name.namespace()),
            app,
            body: Mutex::new(body),
            control: Notify::new(),
            begun: Notify::new(),
            reading: tokio::sync::Mutex::new(()),
            members: AtomicUsize::new(1),
            number: self.channels_made.fetch_add(1, Ordering::Relaxed),
            _place: place,
        }
    }

    /// The last member of a channel may have left.
    fn release(&self, channel: &Arc<Channel>) {
        {
            let _channels = self.partition(channel.route.shard()).channels.lock();
            if channel.members.fetch_sub(1, Ordering::Relaxed) > 1 {
                return;
            }
        }
        self.lingering.add(channel, Instant::now() + self.config.linger);
    }

    /// Ends the channel's tail, unless it has members again.
    pub(super) fn end_if_idle(&self, channel: &Arc<Channel>) {
        {
            let mut channels = self.partition(channel.route.shard()).channels.lock();
            let known = channels
                .get(channel.route.key())
                .is_some_and(|known| Arc::ptr_eq(known, channel));
            if channel.members.load(Ordering::Relaxed) > 0 || !known {
                return;
            }
            channels.remove(channel.route.key());
        }
        self.tails.fetch_sub(1, Ordering::Relaxed);
        channel.app.tails.dec();
        let closed = std::mem::replace(&mut *channel.body.lock(), Body::Closed);
        if let Body::Durable(durable) = closed {
            self.budgets
                .give_back(&channel.route.key().app, durable.ring_charged);
            channel
                .app
                .ring_bytes
                .dec_by(i64::try_from(durable.ring_charged).unwrap_or(i64::MAX));
        }
        channel.control.notify_one();
        channel.begun.notify_waiters();
    }

    /// Follows what the log's connection notices.
    async fn run_events(self: Arc<Self>, mut events: broadcast::Receiver<LogEvent>) {
        let mut was_away = false;
        loop {
            use tokio::sync::broadcast::error::RecvError;
            let event = match events.recv().await {
                Ok(event) => {
                    self.count_event(&event, &mut was_away);
                    event
                }
                Err(RecvError::Lagged(missed)) => {
                    self.metrics.drops.of(DropReason::Event).inc_by(missed);
                    warn!(
                        missed,
                        "events of the NATS connection were missed; checking all shards"
                    );
                    self.keepers().for_each(|keeper| keeper.on_gap_in_events());
                    LogEvent::SlowConsumer
                }
                Err(RecvError::Closed) => return,
            };
            for keeper in self.keepers() {
                keeper.on_event(&event);
            }
            match event {
                LogEvent::Connected | LogEvent::SlowConsumer => {
                    for partition in &self.partitions {
                        if let Some(checks) = &partition.checks {
                            checks.want(Due::All);
                        }
                    }
                }
                LogEvent::LeaderElected(shard) => {
                    if let Some(checks) = self.checks(shard) {
                        checks.want(Due::AllSpread);
                    }
                }
                LogEvent::Epoch(..) | LogEvent::Disconnected => {}
            }
        }
    }

    fn count_event(&self, event: &LogEvent, was_away: &mut bool) {
        match event {
            LogEvent::Disconnected => *was_away = true,
            LogEvent::Connected if *was_away => {
                *was_away = false;
                self.metrics.nats_reconnects.inc();
            }
            LogEvent::SlowConsumer => {
                self.metrics.drops.of(DropReason::SlowConsumer).inc();
            }
            LogEvent::Connected | LogEvent::LeaderElected(_) | LogEvent::Epoch(..) => {}
        }
    }

    /// Has the tails of a shard begin anew in each new epoch.
    async fn follow_epoch(self: Arc<Self>, keeper: Arc<Keeper>, mut incarnations: watch::Receiver<u64>) {
        while incarnations.changed().await.is_ok() {
            for channel in self.channels_of(keeper.spec().id) {
                if channel.is_outdated() {
                    channel.control.notify_one();
                }
            }
        }
    }
}

impl Interest {
    /// The channel.
    pub(super) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.hub.release(&self.channel);
    }
}

impl Channel {
    /// Its route.
    pub fn route(&self) -> &Route {
        &self.route
    }
}
