//! Keeps each shard's anchor alive (L1): a message that is always there, so that `multi_last`
//! always has something to find (L11), and that a suspicion can be tested with (L4).

use std::{sync::Arc, time::Duration};

use super::{NatsLog, stamp};
use crate::log::{Log, ReadError, ShardSpec};

/// An anchor is rewritten once it is older than a third of the class's max_age, and looked at four
/// times as often: each of several nodes may fail a few times before it expires.
const REWRITE_AT: u32 = 3;
const LOOK_AT: u32 = 12;
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// After a look or a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Looks at all anchors, again and again.
pub(super) async fn keep_all(log: Arc<NatsLog>) {
    let mut due: Vec<_> = log.shards().iter().map(|_| tokio::time::Instant::now()).collect();
    let mut round = 0_u32;
    loop {
        round = round.wrapping_add(1);
        for (spec, due) in log.shards().iter().zip(&mut due) {
            let now = tokio::time::Instant::now();
            if *due <= now {
                *due = now
                    + match keep(&log, spec).await {
                        Ok(()) => pause(spec, round),
                        Err(why) => {
                            tracing::debug!(stream = %spec.stream, %why, "the anchor could not be kept");
                            RETRY.min(pause(spec, round))
                        }
                    };
            }
        }
        let Some(next) = due.iter().min() else {
            return;
        };
        tokio::time::sleep_until(*next).await;
    }
}

/// Writes the anchor if it is missing or old.
pub(super) async fn keep(log: &NatsLog, spec: &ShardSpec) -> Result<(), ReadError> {
    let last = log.anchor_time(spec.id).await?;
    let limit = i64::try_from((spec.max_age / REWRITE_AT).as_millis()).unwrap_or(i64::MAX);
    if last.is_some_and(|time_ms| stamp::now_ms().saturating_sub(time_ms) < limit) {
        return Ok(());
    }
    match log.write_anchor(spec.id).await {
        Ok(_) => Ok(()),
        Err(why) => Err(ReadError::NotNow(why.to_string())),
    }
}

/// Between two looks: a twelfth of max_age, less up to a fifth that differs between processes,
/// shards and rounds, so that the nodes do not all write the same anchor.
fn pause(spec: &ShardSpec, round: u32) -> Duration {
    let spread = std::process::id()
        .wrapping_mul(31)
        .wrapping_add(u32::from(spec.id.0).wrapping_mul(17))
        .wrapping_add(round.wrapping_mul(7))
        % 20;
    (spec.max_age / LOOK_AT).clamp(MIN_PAUSE, MAX_PAUSE) * (100 - spread) / 100
}
