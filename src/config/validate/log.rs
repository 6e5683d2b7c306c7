//! Relations of retention classes.

use std::time::Duration;

use super::{Checks, format_size, format_time};
use crate::{config::Config, model::History};

/// JetStream accepts no shorter window.
const MIN_DUPLICATE_WINDOW: Duration = Duration::from_millis(100);
/// Shard numbers are 16 bits wide for the whole deployment; a stream costs the server memory.
const MAX_SHARDS: u16 = 1024;
/// How much of a budget of bytes may come at once: what comes in this time.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So many checks must happen within the life of a publication (rule L6).
const CHECKS_PER_LIFE: u32 = 6;

pub(super) fn relations(config: &Config, checks: &mut Checks<'_>) {
    let log = &config.log;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    checks.that(
        matches!(log.prefix.len(), 1..=32) && log.prefix.bytes().all(plain),
        &["log.prefix"],
        || "must be 1 to 32 of letters, digits, '-' and '_': stream names begin with it".to_owned(),
    );
    checks.not_zero(&[("log.max_in_flight", log.max_in_flight)]);
    checks.not_zero(&[
        ("log.ack_timeout", log.ack_timeout),
        ("log.mark_interval", log.mark_interval),
    ]);
    for (name, stream) in [
        ("usage", &log.streams.usage),
        ("overflow", &log.streams.overflow),
        ("events", &log.streams.events),
    ] {
        let key = |key: &str| format!("log.streams.{name}.{key}");
        checks.that(stream.max_bytes > 0, &[&key("max_bytes")], || {
            "must not be 0".to_owned()
        });
        checks.that(matches!(stream.replicas, 1 | 3 | 5), &[&key("replicas")], || {
            "must be 1, 3 or 5: an even number of copies adds no safety".to_owned()
        });
        window(&key, stream.duplicate_window, stream.max_age, checks);
    }
    checks.that(!log.classes.is_empty(), &["log.classes"], || {
        "must define at least one class".to_owned()
    });
    checks.unique(log.classes.iter().map(|class| &class.name), |index| {
        format!("log.classes[{index}].name")
    });
    for (index, class) in log.classes.iter().enumerate() {
        let key = |name: &str| format!("log.classes[{index}].{name}");
        checks.that(matches!(class.shards, 1..=MAX_SHARDS), &[&key("shards")], || {
            format!("must be 1 to {MAX_SHARDS}")
        });
        checks.that(class.max_bytes > 0, &[&key("max_bytes")], || {
            "must not be 0".to_owned()
        });
        checks.that(matches!(class.replicas, 1 | 3 | 5), &[&key("replicas")], || {
            "must be 1, 3 or 5: an even number of copies adds no safety".to_owned()
        });
        let least = config.channel.check_interval.saturating_mul(CHECKS_PER_LIFE);
        checks.that(
            class.max_age >= least,
            &[&key("max_age"), "channel.check_interval"],
            || {
                format!(
                    "must be at least 6 times channel.check_interval ({})",
                    format_time(least)
                )
            },
        );
        checks.shorter(
            ("log.clock_margin", log.clock_margin),
            (&key("max_age"), class.max_age),
        );
        window(&key, class.duplicate_window, class.max_age, checks);
        budgets(config, index, checks);
    }
}

/// A window in which JetStream knows repeats, within the life of what it knows them by.
fn window(key: &dyn Fn(&str) -> String, window: Duration, max_age: Duration, checks: &mut Checks<'_>) {
    checks.that(
        window >= MIN_DUPLICATE_WINDOW,
        &[&key("duplicate_window")],
        || "must be at least 100ms".to_owned(),
    );
    checks.that(
        window <= max_age,
        &[&key("duplicate_window"), &key("max_age")],
        || format!("must not be more than its max_age ({})", format_time(max_age)),
    );
}

/// Rule L2: the bytes of a class are a safety net above what its apps may store in its time, as bytes
/// are charged: with all that the store adds. That is what the rate lets through while a publication
/// lives, and once a second's worth that may come at once. Apps without a budget cannot be summed up;
/// for them there is only the alarm.
fn budgets(config: &Config, index: usize, checks: &mut Checks<'_>) {
    let class = &config.log.classes[index];
    let uses = |app: &&crate::config::AppConfig| {
        app.namespaces
            .iter()
            .any(|(_, rule)| rule.history == History::Class(class.name.clone()))
    };
    let rates = config
        .apps
        .iter()
        .filter(uses)
        .map(|app| u128::from(app.limits.publish_bytes));
    let lives_ms = class.max_age.as_millis() + AT_ONCE.as_millis();
    let promised = rates.sum::<u128>().saturating_mul(lives_ms) / 1000;
    let room = u128::from(class.max_bytes) * u128::from(class.shards);
    let key = format!("log.classes[{index}]");
    checks.that(promised <= room, &[&key, "apps"], || {
        let promised = u64::try_from(promised).unwrap_or(u64::MAX);
        format!(
            "has less room (shards times max_bytes) than its apps may store within max_age by limits.publish_bytes \
             ({}); raise max_bytes or lower the budgets",
            format_size(promised)
        )
    });
}
