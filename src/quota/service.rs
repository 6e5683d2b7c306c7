//! Shares the quotas of a node's apps with the other nodes, each round: what clients want is looked at, what
//! each node may admit is decided and told, and who nears a quota is warned.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use super::{
    alarm::{Alarm, percent},
    counts::Counts,
    kind::Kind,
    meter::Meter,
    meters::Meters,
    month::{Month, MonthOf},
    table::{Own, Table},
    window::Window,
    wire::Telling,
};
use crate::{
    cluster::Nodes,
    config::QuotasConfig,
    log::{Log, NodeMessage, hear},
    model::{AppId, Quotas},
    task::Tasks,
    telemetry::{Label, Metrics, QuotaName},
};

/// What nodes listen on.
const TOPIC: &str = "quotas";

/// A quota is nearly used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Whose.
    pub app: AppId,
    /// Which.
    pub quota: QuotaName,
    /// How much is used.
    pub used: u64,
    /// Of how much.
    pub limit: u64,
    /// When, ms since 1970.
    pub at: i64,
}

/// Who is told of warnings, beside the log and the metrics.
pub type OnWarning = Box<dyn Fn(&Warning) + Send + Sync>;

/// See the module's documentation. One per node.
pub struct Sharing {
    log: Arc<dyn Log>,
    nodes: Arc<Nodes>,
    meters: Arc<Meters>,
    months: Counts<Month>,
    histories: Counts<Window>,
    config: QuotasConfig,
    /// Never held while something else is awaited.
    state: Mutex<State>,
    on_warning: OnWarning,
    metrics: Arc<Metrics>,
}

struct State {
    table: Table,
    last: Instant,
    alarms: HashMap<(AppId, QuotaName), Alarm>,
}

/// How much of a quota is used.
#[derive(Clone, Copy)]
struct Used<'a> {
    app: &'a AppId,
    quota: QuotaName,
    /// In so many parts of a unit, like `limit`.
    used: u64,
    limit: u64,
    parts: u64,
}

impl Sharing {
    /// Has had the first round when this resolves: the node may admit then. The counts of months and histories
    /// are waited for as long as `patience`.
    #[expect(clippy::too_many_arguments, reason = "called once, by the composition root")]
    pub async fn start(
        log: Arc<dyn Log>,
        nodes: Arc<Nodes>,
        meters: Arc<Meters>,
        config: &QuotasConfig,
        on_warning: OnWarning,
        patience: Duration,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let (me, incarnation) = nodes.me();
        let sharing = Arc::new(Self {
            months: Counts::new(&log, nodes.clone(), meters.clone()),
            histories: Counts::new(&log, nodes.clone(), meters.clone()),
            log,
            nodes,
            meters,
            config: config.clone(),
            state: Mutex::new(State {
                table: Table::new(me, incarnation),
                last: Instant::now(),
                alarms: HashMap::new(),
            }),
            on_warning,
            metrics,
        });
        sharing.turn();
        tokio::join!(
            sharing.months.start(patience, tasks),
            sharing.histories.start(patience, tasks),
        );
        sharing.round();
        tasks.spawn(sharing.clone().listen());
        tasks.spawn(sharing.clone().keep_sharing());
        tasks.spawn(sharing.clone().keep_counting());
        sharing
    }

    /// Stores what the months and histories have come to: the node is stopping.
    pub async fn finish(&self) {
        // The first may only learn what is stored.
        self.flush().await;
        self.flush().await;
    }

    async fn flush(&self) {
        tokio::join!(self.months.flush(), self.histories.flush());
    }

    /// Looks at the calendar and the clock.
    fn turn(&self) {
        let (ms, now) = (self.log.now_ms(), Instant::now());
        let (month, left) = MonthOf::at(ms);
        let ends = now.checked_add(left).unwrap_or(now);
        for (_, _, meter) in self.meters.limited() {
            meter.month(|known| known.turn(month, ends));
            meter.history(|known| known.turn(ms, now));
        }
    }

    async fn listen(self: Arc<Self>) {
        hear(&*self.log, TOPIC, |message| self.on_message(message)).await;
    }

    fn on_message(&self, message: &NodeMessage) {
        if message.from == self.log.node() {
            return;
        }
        match Telling::decode(&message.data) {
            Some(telling) => self.state.lock().table.hear(message.from, telling),
            None => {
                self.metrics.quota_messages_unreadable.inc();
            }
        }
    }

    async fn keep_sharing(self: Arc<Self>) {
        let mut ticks = interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.turn();
            // Without a connection nobody can be asked for more: what there is stays.
            if self.log.connected() {
                self.round();
            }
        }
    }

    async fn keep_counting(self: Arc<Self>) {
        let mut ticks = interval(self.config.flush_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.log.connected() {
                self.flush().await;
            }
            self.warn_of_months().await;
        }
    }

    /// One round.
    fn round(&self) {
        let limited = self.meters.limited();
        let (_, incarnation) = self.nodes.me();
        let others = self.nodes.others();
        self.meters.set_nodes(others.len() + 1);
        let (warns, mut warnings) = (self.warns(), Vec::new());
        let tellings = {
            let mut state = self.state.lock();
            let now = Instant::now();
            let passed = now.saturating_duration_since(state.last);
            state.last = now;
            state.table.meet(incarnation, &others);
            state.table.decide(owns(&limited, passed));
            for (app, quotas, meter) in &limited {
                for (kind, limit) in shared(quotas) {
                    let key = (app.clone(), kind);
                    let Some(part) = state.table.part(&key) else {
                        continue;
                    };
                    let held = meter.set_part(kind, part, now);
                    if held > part {
                        state.table.hold(&key, held);
                    }
                    let used = state.table.used(&key).unwrap_or(0);
                    let used = Used {
                        app,
                        quota: kind.label(),
                        used,
                        limit,
                        parts: kind.parts(),
                    };
                    warnings.extend(self.judge(&mut state, used, warns, now));
                }
                let history = meter.history(|history| (history.used(now), history.limit()));
                if let Some((used, limit)) = history {
                    let used = Used {
                        app,
                        quota: QuotaName::HistoryBytes,
                        used,
                        limit,
                        parts: 1,
                    };
                    warnings.extend(self.judge(&mut state, used, warns, now));
                }
            }
            if state.alarms.len() > limited.len() * (Kind::ALL.len() + 1) {
                let known: HashSet<_> = limited.iter().map(|(app, _, _)| app).collect();
                state.alarms.retain(|(app, _), _| known.contains(app));
            }
            state.table.tell()
        };
        // Nobody is there to hear of nothing.
        if !others.is_empty() {
            for telling in tellings {
                self.log.tell(TOPIC, telling.encode());
            }
        }
        for warning in warnings {
            self.warn(&warning);
        }
    }

    /// Whether it is for this node to warn: the oldest one does, which has seen what was warned of.
    fn warns(&self) -> bool {
        let live = self.nodes.live();
        let oldest = live.iter().min_by_key(|node| (node.started_ms, node.id));
        oldest.is_some_and(|oldest| oldest.id == self.log.node())
    }

    /// How much of a quota is used, and whether to warn of that.
    fn judge(&self, state: &mut State, used: Used<'_>, warns: bool, now: Instant) -> Option<Warning> {
        let Used {
            app,
            quota,
            used,
            limit,
            parts,
        } = used;
        let used_percent = percent(used, limit);
        let gauge = i64::try_from(used_percent).unwrap_or(i64::MAX);
        self.metrics.app(app).quota_used.of(quota).set(gauge);
        let warn_at = u64::from(self.config.warn_at);
        if warn_at == 0 {
            return None;
        }
        let alarm = state.alarms.entry((app.clone(), quota)).or_default();
        // All nodes judge, so that whoever comes to be the oldest knows what was warned of.
        let is_due = alarm.judge(used_percent, warn_at, now, self.config.warn_pause);
        (is_due && warns).then(|| Warning {
            app: app.clone(),
            quota,
            used: used / parts,
            limit: limit / parts,
            at: self.log.now_ms(),
        })
    }

    /// Whoever can write down that it warns of a month does.
    async fn warn_of_months(&self) {
        let warns = self.warns();
        let warn_at = u64::from(self.config.warn_at);
        for (app, _, meter) in self.meters.limited() {
            let seen = meter.month(|month| (month.used(), month.limit(), month.is_warned()));
            let Some((used, limit, warned)) = seen else {
                continue;
            };
            let used_percent = percent(used, limit);
            let gauge = i64::try_from(used_percent).unwrap_or(i64::MAX);
            let quota = QuotaName::MessagesPerMonth;
            self.metrics.app(&app).quota_used.of(quota).set(gauge);
            let due = warn_at > 0 && used_percent >= warn_at && !warned && warns;
            if due && self.months.mark_warned(&app, &meter).await {
                self.warn(&Warning {
                    app,
                    quota,
                    used,
                    limit,
                    at: self.log.now_ms(),
                });
            }
        }
    }

    fn warn(&self, warning: &Warning) {
        let Warning {
            app,
            quota,
            used,
            limit,
            ..
        } = warning;
        self.metrics.app(app).quota_warnings.of(*quota).inc();
        info!(%app, quota = quota.as_str(), used, limit, "a quota is nearly used up");
        (self.on_warning)(warning);
    }
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The quotas of an app that nodes share.
fn shared(quotas: &Quotas) -> impl Iterator<Item = (Kind, u64)> {
    let of = |kind: Kind| Some((kind, kind.limit(quotas)?));
    Kind::ALL.into_iter().filter_map(of)
}

fn owns(limited: &[(AppId, Quotas, Arc<Meter>)], passed: Duration) -> Vec<Own> {
    let of = |(app, quotas, meter): &(AppId, Quotas, Arc<Meter>)| {
        let all = shared(quotas).map(|(kind, limit)| Own {
            key: (app.clone(), kind),
            limit,
            wish: meter.wish(kind, limit, passed),
        });
        all.collect::<Vec<_>>()
    };
    limited.iter().flat_map(of).collect()
}
