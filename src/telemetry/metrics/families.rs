//! Metrics that there are one of for each app, or each shard.

use std::sync::Arc;

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::{
    model::AppId,
    telemetry::{
        labels::{ByLabel, Limit, PublishOutcome, QuotaName, RecoveryOutcome},
        registry::{Builder, Labels, by_label, remove_by_label},
        usage::{AppUsage, Limits as UsageLimits},
    },
};

/// The metrics of one app on this node.
#[derive(Debug)]
pub struct AppMetrics {
    /// Connections open.
    pub connections: Gauge,
    /// Connections opened.
    pub connections_opened: Counter,
    /// Subscriptions.
    pub subscriptions: Gauge,
    /// Channels with a tail.
    pub tails: Gauge,
    /// Bytes in rings.
    pub ring_bytes: Gauge,
    /// Publications by what became of them.
    pub publishes: ByLabel<PublishOutcome, Counter>,
    /// Bytes of payloads acknowledged.
    pub publish_bytes: Counter,
    /// Publications put into mailboxes.
    pub deliveries: Counter,
    /// Resumes by what they came to.
    pub recoveries: ByLabel<RecoveryOutcome, Counter>,
    /// Subscriptions that are behind because their reader is slow.
    pub slow_readers: Gauge,
    /// Limits that were met.
    pub limits_hit: ByLabel<Limit, Counter>,
    /// How much of its quotas is used on all nodes, percent.
    pub quota_used: ByLabel<QuotaName, Gauge>,
    /// Warnings of quotas that this node has given.
    pub quota_warnings: ByLabel<QuotaName, Counter>,
    /// What it uses.
    pub usage: AppUsage,
}

/// The metrics of one shard as this node sees it.
#[derive(Debug)]
pub struct ShardMetrics {
    /// The last sequence its leader told.
    pub last_sequence: Gauge,
    /// When its oldest message was stored, seconds since 1970; 0 if it is empty.
    pub oldest_seconds: Gauge,
    /// Bytes stored.
    pub bytes: Gauge,
    /// Bytes it may store.
    pub max_bytes: Gauge,
    /// 1 while this node proves nothing on it (L4).
    pub unproven: Gauge,
    /// Its epoch was replaced.
    pub epoch_changes: Counter,
    /// Something looked like going back and was examined (L4).
    pub epoch_suspicions: Counter,
}

#[derive(Debug)]
pub(super) struct AppFamilies {
    connections: Family<Labels, Gauge>,
    connections_opened: Family<Labels, Counter>,
    subscriptions: Family<Labels, Gauge>,
    tails: Family<Labels, Gauge>,
    ring_bytes: Family<Labels, Gauge>,
    publishes: Family<Labels, Counter>,
    publish_bytes: Family<Labels, Counter>,
    deliveries: Family<Labels, Counter>,
    recoveries: Family<Labels, Counter>,
    slow_readers: Family<Labels, Gauge>,
    limits_hit: Family<Labels, Counter>,
    quota_used: Family<Labels, Gauge>,
    quota_warnings: Family<Labels, Counter>,
}

#[derive(Debug)]
pub(super) struct ShardFamilies {
    last_sequence: Family<Labels, Gauge>,
    oldest_seconds: Family<Labels, Gauge>,
    bytes: Family<Labels, Gauge>,
    max_bytes: Family<Labels, Gauge>,
    unproven: Family<Labels, Gauge>,
    epoch_changes: Family<Labels, Counter>,
    epoch_suspicions: Family<Labels, Counter>,
}

// === impl AppMetrics ===

impl AppFamilies {
    pub(super) fn new(b: &mut Builder) -> Self {
        Self {
            connections: b.family("slipstream_connections", "Connections open."),
            connections_opened: b.family("slipstream_connections_opened_total", "Connections opened."),
            subscriptions: b.family("slipstream_subscriptions", "Subscriptions."),
            tails: b.family("slipstream_tails", "Channels with a tail."),
            ring_bytes: b.family("slipstream_ring_bytes", "Bytes in rings."),
            publishes: b.family(
                "slipstream_publishes_total",
                "Publications by what became of them.",
            ),
            publish_bytes: b.family("slipstream_publish_bytes_total", "Payload bytes acknowledged."),
            deliveries: b.family("slipstream_deliveries_total", "Publications put into mailboxes."),
            recoveries: b.family("slipstream_recoveries_total", "Resumes by what they came to."),
            slow_readers: b.family(
                "slipstream_slow_readers",
                "Subscriptions that are behind because their reader is slow.",
            ),
            limits_hit: b.family("slipstream_limits_hit_total", "Limits that were met."),
            quota_used: b.family(
                "slipstream_quota_used_percent",
                "How much of a quota is used on all nodes.",
            ),
            quota_warnings: b.family(
                "slipstream_quota_warnings_total",
                "Warnings of quotas that this node gave.",
            ),
        }
    }

    pub(super) fn of(&self, app: &AppId, usage: &Arc<UsageLimits>) -> AppMetrics {
        let labels = vec![("app", app.to_string())];
        AppMetrics {
            connections: self.connections.get_or_create_owned(&labels),
            connections_opened: self.connections_opened.get_or_create_owned(&labels),
            subscriptions: self.subscriptions.get_or_create_owned(&labels),
            tails: self.tails.get_or_create_owned(&labels),
            ring_bytes: self.ring_bytes.get_or_create_owned(&labels),
            publishes: by_label(&self.publishes, &labels),
            publish_bytes: self.publish_bytes.get_or_create_owned(&labels),
            deliveries: self.deliveries.get_or_create_owned(&labels),
            recoveries: by_label(&self.recoveries, &labels),
            slow_readers: self.slow_readers.get_or_create_owned(&labels),
            limits_hit: by_label(&self.limits_hit, &labels),
            quota_used: by_label(&self.quota_used, &labels),
            quota_warnings: by_label(&self.quota_warnings, &labels),
            usage: AppUsage::new(usage.clone()),
        }
    }

    /// They are not exported any more.
    pub(super) fn remove(&self, app: &AppId) {
        let labels = vec![("app", app.to_string())];
        for gauges in [
            &self.connections,
            &self.subscriptions,
            &self.tails,
            &self.ring_bytes,
            &self.slow_readers,
        ] {
            gauges.remove(&labels);
        }
        for counters in [&self.connections_opened, &self.publish_bytes, &self.deliveries] {
            counters.remove(&labels);
        }
        remove_by_label::<PublishOutcome, _>(&self.publishes, &labels);
        remove_by_label::<RecoveryOutcome, _>(&self.recoveries, &labels);
        remove_by_label::<Limit, _>(&self.limits_hit, &labels);
        remove_by_label::<QuotaName, _>(&self.quota_used, &labels);
        remove_by_label::<QuotaName, _>(&self.quota_warnings, &labels);
    }
}

// === impl ShardMetrics ===

impl ShardFamilies {
    pub(super) fn new(b: &mut Builder) -> Self {
        Self {
            last_sequence: b.family("slipstream_shard_last_sequence", "Last sequence the leader told."),
            oldest_seconds: b.family(
                "slipstream_shard_oldest_timestamp_seconds",
                "When the oldest message was stored, seconds since 1970; 0 if empty.",
            ),
            bytes: b.family("slipstream_shard_bytes", "Bytes stored."),
            max_bytes: b.family("slipstream_shard_max_bytes", "Bytes that may be stored."),
            unproven: b.family(
                "slipstream_shard_unproven",
                "1 while this node proves nothing on the shard.",
            ),
            epoch_changes: b.family("slipstream_epoch_changes_total", "Epochs replaced."),
            epoch_suspicions: b.family(
                "slipstream_epoch_suspicions_total",
                "Signs of a shard going back that were examined.",
            ),
        }
    }

    pub(super) fn of(&self, stream: &str) -> ShardMetrics {
        let labels = vec![("shard", stream.to_owned())];
        ShardMetrics {
            last_sequence: self.last_sequence.get_or_create_owned(&labels),
            oldest_seconds: self.oldest_seconds.get_or_create_owned(&labels),
            bytes: self.bytes.get_or_create_owned(&labels),
            max_bytes: self.max_bytes.get_or_create_owned(&labels),
            unproven: self.unproven.get_or_create_owned(&labels),
            epoch_changes: self.epoch_changes.get_or_create_owned(&labels),
            epoch_suspicions: self.epoch_suspicions.get_or_create_owned(&labels),
        }
    }
}
