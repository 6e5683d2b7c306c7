//! What tenants may have, use, and have waiting.

use std::time::Duration;

use super::Secret;

/// `[tenants]`
#[derive(Clone, Debug)]
pub struct TenantsConfig {
    /// Apps of a team.
    pub max_apps: usize,
    /// Deleted apps that an account has made.
    pub max_deleted_apps: usize,
    /// Names that the namespaces of an app have had, those of today included.
    pub max_past_namespaces: usize,
    /// Keys of an app.
    pub max_keys: usize,
    /// Earlier versions of an app that are kept.
    pub max_versions: usize,
    /// The most that an app may have of settings and keys, bytes as nodes are told of them.
    pub max_record_bytes: usize,
    /// Namespaces of an app.
    pub max_namespaces: usize,
    /// Allowed origins of an app.
    pub max_origins: usize,
    /// Public keys of an app.
    pub max_public_keys: usize,
    /// The most that an app may have for `max_queued`.
    pub max_queued: u64,
    /// The most bytes of payloads that an app may have waiting.
    pub max_queued_bytes: u64,
    /// The most that an app may have for `rate_channels` and `rate_users`.
    pub max_rate_keys: usize,
    /// Versions of the schema of a namespace.
    pub max_schemas: usize,
    /// The largest schema as JSON, bytes.
    pub max_schema_bytes: usize,
    /// The most values that a schema has, with its references replaced.
    pub max_schema_nodes: usize,
    /// The most work that a payload may be to its schema, units.
    pub max_schema_work: u64,
    /// The same of all payloads of an app on a node, units a second; 0 = unlimited.
    pub schema_work_rate: u64,
    /// What secrets at rest are sealed with: the first seals, all open.
    pub sealing_keys: Vec<Secret>,
    /// Whether an app may name URLs that are not public.
    pub private_urls: bool,
}

/// `[quotas]`
#[derive(Clone, Debug)]
pub struct QuotasConfig {
    /// How often the nodes tell each other what their clients want, and share anew.
    pub interval: Duration,
    /// How often a node adds up what it has taken of a month.
    pub flush_interval: Duration,
    /// From how much of a quota on it is warned of, percent.
    pub warn_at: u32,
    /// How long the same warning is not repeated, those of a month apart.
    pub warn_pause: Duration,
}

/// `[queue]`
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// How often the stream is asked what waits, and other nodes are told.
    pub check_interval: Duration,
    /// After this time without being done a publication is given to another node.
    pub ack_wait: Duration,
    /// How long a publication waits at most.
    pub max_age: Duration,
    /// Apps that a node publishes for at once.
    pub max_drains: usize,
    /// Channels whose backlog a node tells apart.
    pub max_channels: usize,
}

/// `[usage]`
#[derive(Clone, Debug)]
pub struct UsageConfig {
    /// How often a node reports.
    pub flush_interval: Duration,
    /// Records that a node keeps until NATS has them.
    pub max_waiting: usize,
    /// Namespaces of an app that are told apart.
    pub max_namespaces: usize,
    /// Documents of a record that a worker writes at once.
    pub fold_concurrency: usize,
    /// How long a worker may take for a record before another one takes it.
    pub fold_timeout: Duration,
    /// The longest pause before a record is tried again.
    pub max_retry_delay: Duration,
    /// How long the sums of minutes are kept.
    pub keep_minutes: Duration,
    /// How long the sums of hours are kept.
    pub keep_hours: Duration,
    /// How long the sums of days are kept.
    pub keep_days: Duration,
    /// How often a worker removes what is too old.
    pub sweep_interval: Duration,
    /// Rows of an answer.
    pub max_rows: usize,
}
