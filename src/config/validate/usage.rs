use std::time::Duration;

use super::Checks;
use crate::config::Config;

/// A record belongs to one minute, so it should not be longer.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(1);
const MAX_NAMESPACES: usize = 1_000;
const MAX_ROWS: usize = 100_000;

pub(super) fn relations(config: &Config, checks: &mut Checks<'_>) {
    let usage = &config.usage;
    checks.that(
        INTERVALS.contains(&usage.flush_interval),
        &["usage.flush_interval"],
        || "must be 1s to 1m".to_owned(),
    );
    checks.not_zero(&[
        ("usage.max_waiting", usage.max_waiting),
        ("usage.fold_concurrency", usage.fold_concurrency),
    ]);
    checks.that(
        usage.max_namespaces <= MAX_NAMESPACES,
        &["usage.max_namespaces"],
        || format!("must be at most {MAX_NAMESPACES}"),
    );
    checks.that(
        (1..=MAX_ROWS).contains(&usage.max_rows),
        &["usage.max_rows"],
        || format!("must be 1 to {MAX_ROWS}"),
    );
    checks.not_zero(&[
        ("usage.max_retry_delay", usage.max_retry_delay),
        ("usage.keep_minutes", usage.keep_minutes),
        ("usage.keep_hours", usage.keep_hours),
        ("usage.keep_days", usage.keep_days),
        ("usage.sweep_interval", usage.sweep_interval),
    ]);
    checks.shorter(
        ("store.timeout", config.store.timeout),
        ("usage.fold_timeout", usage.fold_timeout),
    );
}
