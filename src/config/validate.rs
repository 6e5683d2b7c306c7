//! Relations between keys: what cannot be seen at one key alone.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
    time::Duration,
};

use super::{
    Config, Problem,
    units::{format_size, format_time},
};

mod apps;
mod control;
mod log;
mod usage;

/// Collects problems. A relation with a key that already has one is passed over: it was checked
/// with a default in the place of a value that could not be read, and would mislead.
struct Checks<'a> {
    origins: &'a BTreeMap<String, String>,
    /// The keys with problems before the relations were checked.
    wrong: Vec<String>,
    problems: &'a mut Vec<Problem>,
}

impl Checks<'_> {
    /// Notes `message` for the first of `keys` unless `holds`. `keys` are all the keys it is about,
    /// or tables of them.
    fn that(&mut self, holds: bool, keys: &[&str], message: impl FnOnce() -> String) {
        if holds
            || keys
                .iter()
                .any(|key| self.wrong.iter().any(|wrong| overlap(key, wrong)))
        {
            return;
        }
        let Some(key) = keys.first() else { return };
        let problem = Problem {
            key: (*key).to_owned(),
            origin: self.origin(key),
            message: message(),
        };
        self.problems.push(problem);
    }

    /// Where `key` was given, or else the nearest table around it.
    fn origin(&self, key: &str) -> Option<String> {
        let mut path = key;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return Some(origin.clone());
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Notes every name at `path(index)` that stands there a second time.
    fn unique<N: Eq + Hash>(&mut self, names: impl Iterator<Item = N>, path: impl Fn(usize) -> String) {
        let mut first = HashMap::new();
        for (index, name) in names.enumerate() {
            let earlier = *first.entry(name).or_insert(index);
            let (here, there) = (path(index), path(earlier));
            self.that(earlier == index, &[&here, &there], || {
                format!("is the same as {there}; it must be unique")
            });
        }
    }

    fn not_zero<N: Default + PartialEq>(&mut self, keys: &[(&str, N)]) {
        for (key, value) in keys {
            self.that(*value != N::default(), &[key], || "must not be 0".to_owned());
        }
    }

    fn sizes_in_order(&mut self, small: (&str, u64), large: (&str, u64)) {
        self.that(small.1 <= large.1, &[small.0, large.0], || {
            format!("must not be more than {} ({})", large.0, format_size(large.1))
        });
    }

    fn shorter(&mut self, short: (&str, Duration), long: (&str, Duration)) {
        self.that(short.1 < long.1, &[short.0, long.0], || {
            format!("must be less than {} ({})", long.0, format_time(long.1))
        });
    }
}

/// Whether one of two paths is the other, or a table around it.
fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Checks all relations of `config`. `origins` says where keys were given.
pub(super) fn relations(config: &Config, origins: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    let wrong = problems
        .iter()
        .map(|problem| problem.key.clone())
        .filter(|key| !key.is_empty())
        .collect();
    let mut checks = Checks {
        origins,
        wrong,
        problems,
    };
    http(config, &mut checks);
    nats(config, &mut checks);
    log::relations(config, &mut checks);
    channel(config, &mut checks);
    edge(config, &mut checks);
    cluster(config, &mut checks);
    users(config, &mut checks);
    quotas(config, &mut checks);
    presence(config, &mut checks);
    queue(config, &mut checks);
    tenants(config, &mut checks);
    store(config, &mut checks);
    usage::relations(config, &mut checks);
    control::relations(config, &mut checks);
    drain(config, &mut checks);
    telemetry(config, &mut checks);
    apps::relations(config, &mut checks);
}

/// Checks an app that comes as a document, on a node that is configured as `config` is.
pub(super) fn document(
    config: &Config,
    app: &super::AppConfig,
    path: &str,
    signs: bool,
    problems: &mut Vec<Problem>,
) {
    let wrong = problems.iter().map(|problem| problem.key.clone()).collect();
    let mut checks = Checks {
        origins: &BTreeMap::new(),
        wrong,
        problems,
    };
    apps::alone(config, app, path, signs, &mut checks);
}

fn tenants(config: &Config, checks: &mut Checks<'_>) {
    let most = config.tenants.max_apps;
    checks.that((1..=1_000).contains(&most), &["tenants.max_apps"], || {
        "must be 1 to 1000".to_owned()
    });
    checks.not_zero(&[
        ("tenants.max_versions", config.tenants.max_versions),
        ("tenants.max_past_namespaces", config.tenants.max_past_namespaces),
    ]);
    let most = config.tenants.max_deleted_apps;
    checks.that((1..=1_000).contains(&most), &["tenants.max_deleted_apps"], || {
        "must be 1 to 1000".to_owned()
    });
    let most = config.tenants.max_record_bytes;
    checks.that(
        (1_024..=900 * 1024).contains(&most),
        &["tenants.max_record_bytes"],
        || "must be 1KiB to 900KiB".to_owned(),
    );
}

fn quotas(config: &Config, checks: &mut Checks<'_>) {
    let quotas = &config.quotas;
    let within = |time: Duration, least: Duration| (least..=Duration::from_mins(1)).contains(&time);
    for (key, time) in [
        ("quotas.interval", quotas.interval),
        ("quotas.flush_interval", quotas.flush_interval),
    ] {
        checks.that(within(time, Duration::from_millis(100)), &[key], || {
            "must be 100ms to 1m".to_owned()
        });
    }
    checks.that(quotas.warn_at <= 100, &["quotas.warn_at"], || {
        "must be at most 100 (percent)".to_owned()
    });
}

fn queue(config: &Config, checks: &mut Checks<'_>) {
    let queue = &config.queue;
    checks.not_zero(&[
        ("queue.check_interval", queue.check_interval),
        ("queue.ack_wait", queue.ack_wait),
        ("queue.max_age", queue.max_age),
    ]);
    // Until NATS removes it somebody has the time to look at it.
    checks.that(
        queue.max_age <= config.log.streams.overflow.max_age / 2,
        &["queue.max_age", "log.streams.overflow.max_age"],
        || "must be at most half the max_age of log.streams.overflow".to_owned(),
    );
    checks.not_zero(&[
        ("queue.max_drains", queue.max_drains),
        ("queue.max_channels", queue.max_channels),
    ]);
}

fn users(config: &Config, checks: &mut Checks<'_>) {
    let (users, revocations) = (&config.users, &config.revocations);
    checks.not_zero(&[("revocations.default_ttl", revocations.default_ttl)]);
    checks.not_zero(&[
        ("users.max_payload_bytes", users.max_payload_bytes),
        ("users.max_in_flight", users.max_in_flight),
        ("users.max_waiting", users.max_waiting),
        ("revocations.max_per_app", revocations.max_per_app),
    ]);
    checks.that(
        users.max_payload_bytes <= MAX_USER_PAYLOAD,
        &["users.max_payload_bytes"],
        || format!("must be at most {}", format_size(MAX_USER_PAYLOAD as u64)),
    );
    checks.that(
        users.max_payload_bytes <= config.edge.mailbox_max_bytes / 2,
        &["users.max_payload_bytes", "edge.mailbox_max_bytes"],
        || "users.max_payload_bytes must be at most half of edge.mailbox_max_bytes".to_owned(),
    );
    checks.that(
        revocations.default_ttl <= revocations.max_ttl,
        &["revocations.default_ttl", "revocations.max_ttl"],
        || "revocations.default_ttl must not be longer than revocations.max_ttl".to_owned(),
    );
}

/// Two of them, with all that JSON adds, fit into a message of NATS as it comes (1 MiB).
const MAX_USER_PAYLOAD: usize = 256 * 1024;
/// The most that a member may show: what nodes tell each other of it is one message of NATS, which takes 1 MiB
/// by default.
const MAX_MEMBER: usize = 256 * 1024;

/// hyper refuses a smaller buffer for the head of a request.
const MIN_HEADER_BYTES: usize = 8 * 1024;

fn http(config: &Config, checks: &mut Checks<'_>) {
    let http = &config.http;
    checks.not_zero(&[("http.backlog", http.backlog)]);
    checks.not_zero(&[
        ("http.header_timeout", http.header_timeout),
        ("http.idle_timeout", http.idle_timeout),
        ("http.body_timeout", http.body_timeout),
    ]);
    checks.not_zero(&[
        ("http.max_body_bytes", http.max_body_bytes),
        ("http.max_json_depth", http.max_json_depth),
        ("http.max_answer_bytes", http.max_answer_bytes),
        ("http.max_history_bytes", http.max_history_bytes),
        ("http.max_in_flight", http.max_in_flight),
        ("http.max_surveys", http.max_surveys),
        ("http.max_surveys_per_app", http.max_surveys_per_app),
    ]);
    checks.that(
        http.max_header_bytes >= MIN_HEADER_BYTES,
        &["http.max_header_bytes"],
        || format!("must be at least {}", format_size(MIN_HEADER_BYTES as u64)),
    );
}

fn nats(config: &Config, checks: &mut Checks<'_>) {
    let nats = &config.nats;
    checks.that(!nats.servers.is_empty(), &["nats.servers"], || {
        "must name at least one server".to_owned()
    });
    for (index, server) in nats.servers.iter().enumerate() {
        let key = format!("nats.servers[{index}]");
        let rest = server
            .strip_prefix("nats://")
            .or_else(|| server.strip_prefix("tls://"));
        checks.that(rest.is_some_and(|rest| !rest.is_empty()), &[&key], || {
            "must be a URL like nats://127.0.0.1:4222 or tls://nats.example:4222".to_owned()
        });
        // `config show` prints URLs, so they must not carry secrets.
        checks.that(rest.is_none_or(|rest| !rest.contains('@')), &[&key], || {
            "must not hold a user or password; use nats.user and nats.password, or nats.token".to_owned()
        });
    }
    checks.that(
        nats.user.is_some() == nats.password.is_some(),
        &["nats.user", "nats.password"],
        || "goes with nats.password: give both or neither".to_owned(),
    );
    let ways = [
        nats.user.is_some(),
        nats.token.is_some(),
        nats.credentials.is_some(),
    ];
    checks.that(ways.iter().filter(|way| **way).count() <= 1, &["nats"], || {
        "has more than one of user, token and credentials; keep one".to_owned()
    });
    checks.not_zero(&[
        ("nats.subscription_capacity", nats.subscription_capacity),
        ("nats.watch_capacity", nats.watch_capacity),
        ("nats.command_capacity", nats.command_capacity),
    ]);
    checks.not_zero(&[
        ("nats.connect_timeout", nats.connect_timeout),
        ("nats.ping_interval", nats.ping_interval),
        ("nats.request_timeout", nats.request_timeout),
    ]);
    checks.not_zero(&[("nats.answer_bytes", nats.answer_bytes)]);
    checks.shorter(
        ("nats.request_timeout", nats.request_timeout),
        ("channel.subscribe_timeout", config.channel.subscribe_timeout),
    );
    checks.that(
        nats.request_timeout <= nats.request_timeout_max,
        &["nats.request_timeout", "nats.request_timeout_max"],
        || "must not be more than nats.request_timeout_max".to_owned(),
    );
}

/// SDKs give up a subscribe after 5 s; the answer must come before.
const SDK_PATIENCE: Duration = Duration::from_secs(5);

fn channel(config: &Config, checks: &mut Checks<'_>) {
    let (channel, catchup) = (&config.channel, &config.catchup);
    checks.not_zero(&[
        ("channel.max_tails", channel.max_tails),
        ("channel.ring_messages", channel.ring_messages),
        ("channel.gap_bytes", channel.gap_bytes),
        ("catchup.leader_reads", catchup.leader_reads),
        ("catchup.max_waiting", catchup.max_waiting),
        ("catchup.sweep_from", catchup.sweep_from),
        ("catchup.sweep_bytes", catchup.sweep_bytes),
    ]);
    checks.not_zero(&[
        ("catchup.page_messages", catchup.page_messages),
        ("catchup.page_bytes", catchup.page_bytes),
        ("catchup.short_reads", catchup.short_reads),
    ]);
    checks.not_zero(&[
        ("channel.ring_idle", channel.ring_idle),
        ("channel.check_interval", channel.check_interval),
    ]);
    checks.that(
        channel.subscribe_timeout < SDK_PATIENCE,
        &["channel.subscribe_timeout"],
        || "must be less than 5s, after which SDKs give a subscribe up".to_owned(),
    );
    let subscribe_timeout = ("channel.subscribe_timeout", channel.subscribe_timeout);
    checks.shorter(("channel.peer_wait", channel.peer_wait), subscribe_timeout);
    checks.sizes_in_order(
        ("channel.ring_bytes", channel.ring_bytes as u64),
        ("channel.rings_bytes", channel.rings_bytes as u64),
    );
    checks.sizes_in_order(
        ("catchup.page_bytes", catchup.page_bytes.into()),
        ("catchup.in_flight_bytes", catchup.in_flight_bytes as u64),
    );
    checks.that(
        catchup.sweep_bytes as u64 >= 4 * u64::from(catchup.page_bytes),
        &["catchup.sweep_bytes", "catchup.page_bytes"],
        || "must be at least four times catchup.page_bytes".to_owned(),
    );
}

fn edge(config: &Config, checks: &mut Checks<'_>) {
    let edge = &config.edge;
    checks.not_zero(&[
        ("edge.max_connections", edge.max_connections),
        ("edge.max_message_bytes", edge.max_message_bytes),
        ("edge.max_channels", edge.max_channels),
        ("edge.max_in_flight", edge.max_in_flight),
        ("edge.mailbox_bytes", edge.mailbox_bytes),
    ]);
    checks.not_zero(&[
        ("edge.connect_timeout", edge.connect_timeout),
        ("edge.pong_timeout", edge.pong_timeout),
        ("edge.write_timeout", edge.write_timeout),
        ("edge.close_timeout", edge.close_timeout),
        ("edge.drain_window", edge.drain_window),
        ("edge.connect_delay_interval", edge.connect_delay_interval),
    ]);
    for (index, proxy) in edge.trusted_proxies.iter().enumerate() {
        checks.that(
            is_network(proxy),
            &[&format!("edge.trusted_proxies[{index}]")],
            || "must be an address or a network, like \"10.0.0.7\" or \"10.0.0.0/8\"".to_owned(),
        );
    }
    checks.shorter(
        ("edge.pong_timeout", edge.pong_timeout),
        ("edge.ping_interval", edge.ping_interval),
    );
    checks.sizes_in_order(
        ("edge.mailbox_bytes", edge.mailbox_bytes as u64),
        ("edge.mailbox_max_bytes", edge.mailbox_max_bytes as u64),
    );
    checks.that(
        edge.max_in_flight <= config.log.max_in_flight,
        &["edge.max_in_flight", "log.max_in_flight"],
        || {
            format!(
                "must not be more than log.max_in_flight ({}), which all connections share",
                config.log.max_in_flight
            )
        },
    );
}

/// The least bytes of `cluster.secret`: what HMAC-SHA256 is worth.
const MIN_CLUSTER_SECRET: usize = 32;

fn cluster(config: &Config, checks: &mut Checks<'_>) {
    let cluster = &config.cluster;
    checks.not_zero(&[
        ("cluster.renew_interval", cluster.renew_interval),
        ("cluster.ask_timeout", cluster.ask_timeout),
    ]);
    let whole = Duration::from_secs(1);
    checks.that(
        cluster.show_gone.is_zero() || cluster.show_gone >= whole,
        &["cluster.show_gone"],
        || "must be 0s or at least 1s".to_owned(),
    );
    checks.that(
        cluster.lease >= 3 * cluster.renew_interval,
        &["cluster.lease", "cluster.renew_interval"],
        || "must be at least three times cluster.renew_interval".to_owned(),
    );
    let secret = cluster.secret.as_ref();
    checks.that(
        secret.is_none_or(|secret| secret.expose().len() >= MIN_CLUSTER_SECRET),
        &["cluster.secret"],
        || format!("must have at least {MIN_CLUSTER_SECRET} bytes: `openssl rand -hex 32` makes one"),
    );
}

fn presence(config: &Config, checks: &mut Checks<'_>) {
    let presence = &config.presence;
    checks.not_zero(&[
        ("presence.flush_interval", presence.flush_interval),
        ("presence.digest_interval", presence.digest_interval),
        ("presence.query_timeout", presence.query_timeout),
        ("presence.linger", presence.linger),
    ]);
    checks.not_zero(&[
        ("presence.max_members", presence.max_members),
        ("presence.max_info_bytes", presence.max_info_bytes),
        ("presence.max_channels", presence.max_channels),
    ]);
    checks.that(
        presence.linger > presence.digest_interval,
        &["presence.linger", "presence.digest_interval"],
        || "must be longer than presence.digest_interval, so that all hear that nobody is left".to_owned(),
    );
    checks.that(
        presence.max_info_bytes.saturating_add(presence.max_state_bytes) <= MAX_MEMBER,
        &["presence.max_info_bytes", "presence.max_state_bytes"],
        || format!("must be at most {} together", format_size(MAX_MEMBER as u64)),
    );
}

/// More threads than this read nothing faster.
const MAX_READERS: usize = 64;

fn store(config: &Config, checks: &mut Checks<'_>) {
    let store = &config.store;
    // Never quoted: it may hold a password.
    let url = store.url.as_ref().map_or("", |url| url.expose());
    let known = ["sqlite:", "mongodb://"]
        .iter()
        .any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    checks.that(url.is_empty() || known, &["store.url"], || {
        "must be like \"sqlite:/var/lib/slipstream/store.db\" or \"mongodb://db.example/slipstream\" (mongodb+srv is not supported: name the hosts)".to_owned()
    });
    checks.not_zero(&[("store.timeout", store.timeout)]);
    checks.not_zero(&[
        ("store.queue", store.queue),
        ("store.max_in_flight", store.max_in_flight),
        ("store.readers", store.readers),
    ]);
    checks.that(
        u32::try_from(store.max_in_flight).is_ok(),
        &["store.max_in_flight"],
        || format!("must be at most {}", u32::MAX),
    );
    checks.that(store.readers <= MAX_READERS, &["store.readers"], || {
        format!("must be at most {MAX_READERS}")
    });
}

fn is_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

fn drain(config: &Config, checks: &mut Checks<'_>) {
    let drain = &config.drain;
    let planned = drain
        .grace
        .saturating_add(drain.duration)
        .saturating_add(drain.linger);
    checks.that(
        planned < drain.deadline,
        &["drain.deadline", "drain.grace", "drain.duration", "drain.linger"],
        || {
            format!(
                "must be more than drain.grace, drain.duration and drain.linger together ({})",
                format_time(planned)
            )
        },
    );
}

fn telemetry(config: &Config, checks: &mut Checks<'_>) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.telemetry.filter);
    checks.that(filter.is_ok(), &["telemetry.filter"], || {
        "must be a filter like \"info\" or \"warn,slipstream=debug\"".to_owned()
    });
}
