//! What a node measures. Handles are typed fields: using one is an atomic operation (a short lock
//! for a histogram), never a lookup by name. `docs/operations.md` explains each one.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::RwLock;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};

use super::{
    labels::{
        AuthFailure, ByLabel, CatchupKind, CatchupSource, CheckOutcome, DropReason, GapOutcome, LoginOutcome,
        MailOutcome, NodeState, QueueOutcome, RefusedBody, RefusedHandshake, RefusedMessage, RingEviction,
        StatusClass, UserCommand,
    },
    registry::{Builder, Exporter, Labels, MetricInfo},
    usage::Limits as UsageLimits,
};
use crate::model::AppId;

mod families;

use families::{AppFamilies, ShardFamilies};
pub use families::{AppMetrics, ShardMetrics};

/// Buckets for what takes from microseconds (a fan-out) to seconds (an election), in seconds.
const LATENCY: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0,
    10.0,
];

/// The metrics of one node.
#[derive(Debug)]
pub struct Metrics {
    exporter: Exporter,
    app_families: AppFamilies,
    shard_families: ShardFamilies,
    apps: RwLock<HashMap<AppId, Arc<AppMetrics>>>,
    shards: RwLock<HashMap<String, Arc<ShardMetrics>>>,
    closed: Family<Labels, Counter>,
    sources: Sources,
    usage_limits: Arc<UsageLimits>,

    /// 1 while `/readyz` says so.
    pub ready: Gauge,
    /// Tasks running.
    pub tasks: Gauge,
    /// Handshakes turned away.
    pub handshakes_refused: ByLabel<RefusedHandshake, Counter>,
    /// From a handshake to the turn of its connection, seconds.
    pub connect_delay_seconds: Histogram,
    /// Bodies of requests that were not read.
    pub bodies_refused: ByLabel<RefusedBody, Counter>,
    /// HTTP requests, WebSocket handshakes included.
    pub http_requests: ByLabel<StatusClass, Counter>,
    /// How long an HTTP request took, seconds.
    pub http_seconds: Histogram,
    /// From the arrival of a live copy to its place in the last mailbox, seconds.
    pub fanout_seconds: Histogram,
    /// From a publish to its acknowledgement, seconds.
    pub publish_seconds: Histogram,
    /// Publications sent to the log and not yet acknowledged.
    pub publishes_in_flight: Gauge,
    /// Bytes queued for clients.
    pub mailbox_bytes: Gauge,
    /// Cursors that were behind.
    pub catchups: ByLabel<CatchupKind, Counter>,
    /// Publications delivered by catch-ups.
    pub catchup_publications: ByLabel<CatchupSource, Counter>,
    /// How long a catch-up took, seconds.
    pub catchup_seconds: Histogram,
    /// Reads waiting for their turn.
    pub catchup_waiting: Gauge,
    /// Bytes asked of the log and not yet received.
    pub catchup_in_flight_bytes: Gauge,
    /// Pages kept for readers that keep up.
    pub catchup_pages_ahead: Gauge,
    /// Reads from leaders that found `catchup.leader_reads` in use.
    pub catchup_leader_waits: Counter,
    /// Sweeps whose window lost messages to `catchup.sweep_bytes`.
    pub catchup_windows_trimmed: Counter,
    /// Gaps of tails.
    pub gaps: ByLabel<GapOutcome, Counter>,
    /// Checks of shards.
    pub checks: ByLabel<CheckOutcome, Counter>,
    /// What was dropped.
    pub drops: ByLabel<DropReason, Counter>,
    /// Publications that left a ring.
    pub ring_evictions: ByLabel<RingEviction, Counter>,
    /// 1 while connected to NATS.
    pub nats_connected: Gauge,
    /// Connections made to NATS again.
    pub nats_reconnects: Counter,
    /// Nodes that hold a lease, this one included, by what they do.
    pub nodes: ByLabel<NodeState, Gauge>,
    /// Which life this node is in: 1, and one more each time its lease had ended.
    pub incarnation: Gauge,
    /// Renewals of this node's lease that failed.
    pub lease_renewals_failed: Counter,
    /// Leases of other nodes that this one has ended.
    pub leases_ended: Counter,
    /// Apps that are served.
    pub apps_served: Gauge,
    /// What the control plane said of an app that could not be used.
    pub app_records_refused: Counter,
    /// Messages that said to be another node's and were not accepted.
    pub node_messages_refused: ByLabel<RefusedMessage, Counter>,
    /// Channels whose members this node knows.
    pub presence_channels: Gauge,
    /// Bytes told to other nodes about members.
    pub presence_bytes: Counter,
    /// What other nodes said of members and did not arrive, as far as it was found.
    pub presence_holes: Counter,
    /// Questions for members that another node did not answer.
    pub presence_unanswered: Counter,
    /// Tokens and keys that were not accepted.
    pub auth_failures: ByLabel<AuthFailure, Counter>,
    /// Users with connections.
    pub users: Gauge,
    /// Commands to users that came to this node's API.
    pub user_commands: ByLabel<UserCommand, Counter>,
    /// Nodes that did not answer such a command.
    pub user_commands_unanswered: Counter,
    /// Messages of other nodes about users that could not be read.
    pub user_messages_unreadable: Counter,
    /// Messages of other nodes about quotas that could not be read.
    pub quota_messages_unreadable: Counter,
    /// Nodes that did not say what they have of an app.
    pub survey_unanswered: Counter,
    /// Revocations that hold.
    pub revocations: Gauge,
    /// Connections closed because their token was revoked.
    pub revoked_connections: Counter,
    /// Channels of which publications wait in the queue, as far as this node knows.
    pub queue_channels: Gauge,
    /// Apps that wait until others have been published for from the queue.
    pub queue_apps_waiting: Gauge,
    /// Publications that had waited in the queue, by this node.
    pub queue: ByLabel<QueueOutcome, Counter>,
    /// Attempts to sign in.
    pub logins: ByLabel<LoginOutcome, Counter>,
    /// Passwords that were not looked at because too many were waiting.
    pub passwords_refused: Counter,
    /// Requests of the control API over a rate.
    pub control_limited: Counter,
    /// Tries to send a letter.
    pub mails: ByLabel<MailOutcome, Counter>,
    /// Letters that wait.
    pub mail_waiting: Gauge,
    /// Records of usage that this node has not reported yet.
    pub usage_waiting: Gauge,
    /// Tries to report a record that failed.
    pub usage_reports_failed: Counter,
    /// Records of usage that could not be reported, and are lost.
    pub usage_lost: Counter,
    /// Records of usage added up in the store.
    pub usage_folded: Counter,
    /// Records of usage that the store could not take now; they come again.
    pub usage_delayed: Counter,
    /// Records of usage, or parts of them, that cannot be added up.
    pub usage_refused: Counter,
}

/// What is measured only when somebody looks.
#[derive(Default)]
struct Sources(RwLock<Vec<Source>>);

type Source = Box<dyn Fn(&Metrics) + Send + Sync>;

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sources").field(&self.0.read().len()).finish()
    }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A node's metrics, all at zero.
    pub fn new() -> Self {
        let mut b = Builder::default();
        let build: Family<Labels, Gauge> =
            b.family("slipstream_build_info", "Always 1; the label is the version.");
        build
            .get_or_create_owned(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())])
            .set(1);
        Self {
            app_families: AppFamilies::new(&mut b),
            shard_families: ShardFamilies::new(&mut b),
            apps: RwLock::default(),
            shards: RwLock::default(),
            sources: Sources::default(),
            usage_limits: Arc::default(),
            closed: b.family(
                "slipstream_connections_closed_total",
                "Connections closed, by close code.",
            ),
            ready: b.gauge("slipstream_ready", "1 while the node is ready."),
            tasks: b.gauge("slipstream_tasks", "Tasks running."),
            handshakes_refused: b.counters("slipstream_handshakes_refused_total", "Handshakes turned away."),
            connect_delay_seconds: b.histogram(
                "slipstream_connect_delay_seconds",
                "From a handshake to the turn of its connection.",
                &LATENCY,
            ),
            bodies_refused: b.counters(
                "slipstream_http_bodies_refused_total",
                "Bodies of requests not read.",
            ),
            http_requests: b.counters("slipstream_http_requests_total", "HTTP requests answered."),
            http_seconds: b.histogram(
                "slipstream_http_seconds",
                "Time to answer an HTTP request.",
                &LATENCY,
            ),
            fanout_seconds: b.histogram(
                "slipstream_fanout_seconds",
                "From the arrival of a live copy to its place in the last mailbox.",
                &LATENCY,
            ),
            publish_seconds: b.histogram(
                "slipstream_publish_seconds",
                "From a publish to its acknowledgement by the log.",
                &LATENCY,
            ),
            publishes_in_flight: b.gauge(
                "slipstream_publishes_in_flight",
                "Publications sent to the log and not yet acknowledged.",
            ),
            mailbox_bytes: b.gauge("slipstream_mailbox_bytes", "Bytes queued for clients."),
            catchups: b.counters("slipstream_catchups_total", "Cursors that were behind."),
            catchup_publications: b.counters(
                "slipstream_catchup_publications_total",
                "Publications delivered by catch-ups.",
            ),
            catchup_seconds: b.histogram(
                "slipstream_catchup_seconds",
                "How long a catch-up took.",
                &LATENCY,
            ),
            catchup_waiting: b.gauge("slipstream_catchup_waiting", "Reads waiting for their turn."),
            catchup_in_flight_bytes: b.gauge(
                "slipstream_catchup_in_flight_bytes",
                "Bytes asked of the log and not yet received.",
            ),
            catchup_pages_ahead: b.gauge(
                "slipstream_catchup_pages_ahead",
                "Pages kept for readers that keep up.",
            ),
            catchup_leader_waits: b.counter(
                "slipstream_catchup_leader_waits_total",
                "Reads from leaders that had to wait for their turn.",
            ),
            catchup_windows_trimmed: b.counter(
                "slipstream_catchup_windows_trimmed_total",
                "Sweeps whose window was too small for what they read.",
            ),
            gaps: b.counters("slipstream_gaps_total", "Gaps in the live copies of a tail."),
            checks: b.counters("slipstream_checks_total", "Checks of shards for lost copies."),
            drops: b.counters("slipstream_drops_total", "What was dropped."),
            ring_evictions: b.counters(
                "slipstream_ring_evictions_total",
                "Publications that left a ring.",
            ),
            nats_connected: b.gauge("slipstream_nats_connected", "1 while connected to NATS."),
            nats_reconnects: b.counter(
                "slipstream_nats_reconnects_total",
                "Connections made to NATS again.",
            ),
            nodes: b.gauges("slipstream_nodes", "Nodes that hold a lease, this one included."),
            incarnation: b.gauge(
                "slipstream_incarnation",
                "Which life this node is in: one more each time its lease had ended.",
            ),
            lease_renewals_failed: b.counter(
                "slipstream_lease_renewals_failed_total",
                "Renewals of this node's lease that failed.",
            ),
            apps_served: b.gauge("slipstream_apps", "Apps that are served."),
            app_records_refused: b.counter(
                "slipstream_app_records_refused_total",
                "Changes of apps that could not be used; the app stays as it was.",
            ),
            leases_ended: b.counter(
                "slipstream_leases_ended_total",
                "Leases of other nodes that this one has ended.",
            ),
            node_messages_refused: b.counters(
                "slipstream_node_messages_refused_total",
                "Messages that said to be another node's and were not accepted.",
            ),
            presence_channels: b.gauge(
                "slipstream_presence_channels",
                "Channels whose members this node knows.",
            ),
            presence_bytes: b.counter(
                "slipstream_presence_bytes_total",
                "Bytes told to other nodes about members.",
            ),
            presence_holes: b.counter(
                "slipstream_presence_holes_total",
                "What other nodes said of members and did not arrive.",
            ),
            presence_unanswered: b.counter(
                "slipstream_presence_unanswered_total",
                "Questions for members that another node did not answer.",
            ),
            auth_failures: b.counters(
                "slipstream_auth_failures_total",
                "Tokens and keys that were not accepted.",
            ),
            users: b.gauge("slipstream_users", "Users with connections."),
            user_commands: b.counters("slipstream_user_commands_total", "Commands to users."),
            user_commands_unanswered: b.counter(
                "slipstream_user_commands_unanswered_total",
                "Nodes that did not answer a command to a user.",
            ),
            user_messages_unreadable: b.counter(
                "slipstream_user_messages_unreadable_total",
                "Messages of other nodes about users that could not be read.",
            ),
            quota_messages_unreadable: b.counter(
                "slipstream_quota_messages_unreadable_total",
                "Messages of other nodes about quotas that could not be read.",
            ),
            survey_unanswered: b.counter(
                "slipstream_survey_unanswered_total",
                "Nodes that did not say which channels or numbers of an app they have.",
            ),
            revocations: b.gauge("slipstream_revocations", "Revocations that are known."),
            revoked_connections: b.counter(
                "slipstream_revoked_connections_total",
                "Connections closed because their token was revoked.",
            ),
            queue_channels: b.gauge(
                "slipstream_queue_channels",
                "Channels of which publications wait in the queue, as far as the node knows.",
            ),
            queue_apps_waiting: b.gauge(
                "slipstream_queue_apps_waiting",
                "Apps with publications in the queue that wait until the node has published for others.",
            ),
            queue: b.counters(
                "slipstream_queue_total",
                "Publications that had waited in the queue and were taken by the node.",
            ),
            logins: b.counters("slipstream_logins_total", "Attempts of people to sign in."),
            control_limited: b.counter(
                "slipstream_control_limited_total",
                "Requests of the control API over control.account_rate, control.address_rate or control.idempotency_rate",
            ),
            passwords_refused: b.counter(
                "slipstream_passwords_refused_total",
                "Passwords that were not looked at because too many were waiting.",
            ),
            mails: b.counters("slipstream_mails_total", "Tries to send a letter."),
            mail_waiting: b.gauge("slipstream_mail_waiting", "Letters that wait."),
            usage_waiting: b.gauge("slipstream_usage_waiting", "Records of usage not reported yet."),
            usage_reports_failed: b.counter(
                "slipstream_usage_reports_failed_total",
                "Tries to report a record of usage that failed.",
            ),
            usage_lost: b.counter("slipstream_usage_lost_total", "Records of usage that are lost."),
            usage_folded: b.counter(
                "slipstream_usage_folded_total",
                "Records of usage added up in the store.",
            ),
            usage_delayed: b.counter(
                "slipstream_usage_delayed_total",
                "Records of usage that the store could not take.",
            ),
            usage_refused: b.counter(
                "slipstream_usage_refused_total",
                "Records of usage, or parts of them, that cannot be added up.",
            ),
            exporter: b.finish(),
        }
    }

    /// The metrics of `app`. Look them up once per connection or channel and keep them. Call it
    /// only with apps that exist, since the label stays until [`Metrics::forget`].
    pub fn app(&self, app: &AppId) -> Arc<AppMetrics> {
        if let Some(known) = self.apps.read().get(app) {
            return Arc::clone(known);
        }
        let mut apps = self.apps.write();
        let new = || Arc::new(self.app_families.of(app, &self.usage_limits));
        Arc::clone(apps.entry(app.clone()).or_insert_with(new))
    }

    /// The metrics of all apps that have any.
    pub fn apps(&self) -> Vec<(AppId, Arc<AppMetrics>)> {
        let apps = self.apps.read();
        apps.iter().map(|(id, app)| (id.clone(), app.clone())).collect()
    }

    /// Forgets the metrics of apps that are not there any more, once nobody holds them and all that they have used
    /// was taken.
    pub fn forget(&self, is_there: impl Fn(&AppId) -> bool) {
        // Nobody gets hold of them meanwhile.
        self.apps.write().retain(|id, app| {
            let keep = is_there(id) || Arc::strong_count(app) > 1 || !app.usage.is_idle();
            if !keep {
                self.app_families.remove(id);
            }
            keep
        });
    }

    /// Tells so many namespaces of each app apart in what it uses, from now on.
    pub fn set_usage_namespaces(&self, most: usize) {
        self.usage_limits.set_namespaces(most);
    }

    /// Subscriptions of all apps.
    pub fn subscriptions(&self) -> u64 {
        let apps = self.apps.read();
        let all = apps.values().map(|app| app.subscriptions.get());
        u64::try_from(all.sum::<i64>()).unwrap_or(0)
    }

    /// The metrics of the shard whose stream is called `stream`.
    pub fn shard(&self, stream: &str) -> Arc<ShardMetrics> {
        if let Some(known) = self.shards.read().get(stream) {
            return Arc::clone(known);
        }
        let mut shards = self.shards.write();
        let new = || Arc::new(self.shard_families.of(stream));
        Arc::clone(shards.entry(stream.to_owned()).or_insert_with(new))
    }

    /// Counts a connection of `app` that ended. `code` is the close code this node sent, of which
    /// there are few; `None` if the client or the network ended it, whatever code that sent.
    pub fn connection_closed(&self, app: &AppId, code: Option<u16>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.closed
            .get_or_create_owned(&vec![("app", app.to_string()), ("code", code)])
            .inc();
    }

    /// Has `measure` set what is too dear, or too far off, to be kept up to date all the time: it is
    /// called before each [`Metrics::encode`]. It must not own what owns these metrics.
    pub fn on_scrape(&self, measure: impl Fn(&Self) + Send + Sync + 'static) {
        self.sources.0.write().push(Box::new(measure));
    }

    /// All metrics in the OpenMetrics text format, for `/metrics`.
    pub fn encode(&self) -> String {
        for measure in self.sources.0.read().iter() {
            measure(self);
        }
        self.exporter.encode()
    }

    /// Every metric there is, also those without a value yet.
    pub fn described(&self) -> &[MetricInfo] {
        self.exporter.described()
    }
}

/// Counts itself in a gauge as long as it lives: for things that must never stay counted when they
/// are gone.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Adds one to `gauge` until dropped.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
