//! Publishing and removing (L14, L15): in order, bounded, and honest about what is not known.

use std::{future::Future, sync::Arc};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::time::{Instant, timeout};

use crate::{
    log::{Ack, PublishError, ReadError, Route},
    model::{AppId, ChannelKey, ChannelName, Offset, Position, Record},
    quota::Size,
    telemetry::{AppMetrics, Held, Limit, Measure, PublishOutcome},
};

use super::hub::Hub;

/// What a publish came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it is stored; `None` on an ephemeral channel.
    pub position: Option<Position>,
    /// It had been stored by an earlier publish with the same idempotency key.
    pub duplicate: bool,
    /// It is not published yet but waits, at this place of the queue.
    pub queued: Option<Offset>,
}

/// Whether a publish has stored something, or may have: of how it came out.
pub fn may_be_stored(outcome: &Result<Published, PublishFailure>) -> bool {
    match outcome {
        Ok(published) => !published.duplicate,
        Err(PublishError::Unknown) => true,
        Err(PublishError::Unavailable(_) | PublishError::Refused(_) | PublishError::Full) => false,
    }
}

/// Why a publish was not acknowledged.
pub type PublishFailure = PublishError;

/// The length of a message id.
const DEDUP_ID_BYTES: usize = 24;

impl Hub {
    /// What a publication takes of what its shard may store, and so of its app's budget, and how long.
    pub fn size(&self, route: &Route, record: &Record, idempotency_key: Option<&str>) -> Size {
        let keeper = route.shard().and_then(|shard| self.keeper(shard));
        Size {
            bytes: self
                .log
                .stored_bytes(route, record, idempotency_key.map(|_| DEDUP_ID_BYTES)),
            kept: keeper.map(|keeper| keeper.spec().max_age),
        }
    }

    /// The id that a publish with an idempotency key has, on every stream.
    pub fn dedup_id(app: &AppId, channel: &ChannelName, idempotency_key: &str) -> String {
        let channel = ChannelKey {
            app: app.clone(),
            name: channel.clone(),
        };
        dedup_id(&channel, idempotency_key)
    }

    /// Whether the last that the channel has stored was published with this key, not before `since_ms`. False on
    /// an ephemeral channel.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn is_last(
        &self,
        route: &Route,
        idempotency_key: &str,
        since_ms: i64,
    ) -> Result<bool, ReadError> {
        if route.shard().is_none() {
            return Ok(false);
        }
        let Some((id, time_ms)) = self.log.last_id(route).await? else {
            return Ok(false);
        };
        Ok(time_ms >= since_ms && id == dedup_id(route.key(), idempotency_key))
    }

    /// Publishes. The publication has its place in the order when this returns; the future tells
    /// what became of it.
    ///
    /// # Errors
    ///
    /// [`PublishError::Unavailable`]: nothing was sent.
    pub fn publish(
        self: &Arc<Self>,
        route: &Route,
        record: &Record,
        idempotency_key: Option<&str>,
    ) -> Result<impl Future<Output = Result<Published, PublishFailure>> + Send + use<>, PublishFailure> {
        let app = self.metrics.app(&route.key().app);
        let keeper = route.shard().and_then(|shard| self.keeper(shard)).cloned();
        let sending = keeper.as_ref().map(|keeper| keeper.sending());
        let dedup_id = idempotency_key.map(|key| dedup_id(route.key(), key));
        let began = Instant::now();
        let count = |app: &AppMetrics, error: &PublishError| {
            app.publishes.of(outcome(error)).inc();
        };
        let sent = self.log.publish(route, record, dedup_id.as_deref());
        let acknowledged = sent.inspect_err(|error| {
            count(&app, error);
            let in_flight = usize::try_from(self.metrics.publishes_in_flight.get());
            if in_flight.is_ok_and(|in_flight| in_flight >= self.log_in_flight) {
                app.limits_hit.of(Limit::LogInFlight).inc();
            }
        })?;
        // Also given back if nobody asks what became of it.
        let in_flight = Held::new(&self.metrics.publishes_in_flight);
        let bytes = record.data.len() as u64;
        let usage = app.usage.namespace(route.key().name.namespace());
        let used = move || {
            usage.add(Measure::MessagesIn, 1);
            usage.add(Measure::BytesIn, bytes);
        };
        let hub = self.clone();
        // Only what has an id can have been stored before.
        let repeatable = dedup_id.map(|_| route.clone());
        Ok(async move {
            let ack = acknowledged.await.inspect_err(|error| count(&app, error))?;
            drop(in_flight);
            hub.metrics.publish_seconds.observe(began.elapsed().as_secs_f64());
            let (Some(keeper), Some(sending)) = (keeper, sending) else {
                app.publishes.of(PublishOutcome::Ephemeral).inc();
                used();
                return Ok(Published {
                    position: None,
                    duplicate: false,
                    queued: None,
                });
            };
            if keeper.acknowledged(sending, &ack) {
                // The sequence went back. The message is stored, but in which epoch is not known
                // before the keeper has replaced it. Boxed, as what is rare: every publish would have
                // to be as large.
                Box::pin(keeper.went_back(sending)).await;
            }
            let kind = if ack.duplicate {
                PublishOutcome::Duplicate
            } else {
                PublishOutcome::Stored
            };
            app.publishes.of(kind).inc();
            if !ack.duplicate {
                used();
            }
            let epoch = match keeper.proven_epoch() {
                Some(epoch) => epoch,
                // It is stored, but an offset means nothing without its epoch.
                None => {
                    Box::pin(timeout(hub.config.subscribe_timeout, keeper.fresh()))
                        .await
                        .map_err(|_| PublishError::Unknown)?
                        .epoch
                }
            };
            if !ack.duplicate {
                app.publish_bytes.inc_by(bytes);
            } else if let (Some(route), Some(epoch)) = (repeatable, keeper.epoch_since(sending)) {
                hub.nudge_all(&route, &epoch, ack.seq);
            }
            let position = Position {
                offset: ack.seq,
                epoch,
            };
            Ok(Published {
                position: Some(position),
                duplicate: ack.duplicate,
                queued: None,
            })
        })
    }

    /// Removes the channel's history (L15). Answers where: everything at or below is gone.
    ///
    /// # Errors
    ///
    /// [`PublishError`], as for a publish.
    pub async fn remove_history(&self, route: &Route) -> Result<Offset, PublishFailure> {
        let keeper = route.shard().and_then(|shard| self.keeper(shard));
        let sending = keeper.map(|keeper| keeper.sending());
        let seq = self.log.remove(route).await?;
        if let (Some(keeper), Some(sending)) = (keeper, sending) {
            let ack = Ack {
                seq,
                duplicate: false,
            };
            if keeper.acknowledged(sending, &ack) {
                keeper.went_back(sending).await;
            }
        }
        Ok(seq)
    }
}

fn outcome(error: &PublishError) -> PublishOutcome {
    match error {
        PublishError::Unavailable(_) => PublishOutcome::Unavailable,
        PublishError::Refused(_) | PublishError::Full => PublishOutcome::Refused,
        PublishError::Unknown => PublishOutcome::Unknown,
    }
}

/// The message id of an idempotency key: ids are per stream, so app and channel are part of it, and
/// of fixed length, so that a key's length costs the server nothing.
fn dedup_id(channel: &ChannelKey, key: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [channel.app.as_str(), channel.name.as_str(), key] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    // Three bytes are four letters.
    URL_SAFE_NO_PAD.encode(&hash.finish().as_ref()[..DEDUP_ID_BYTES / 4 * 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l14_an_id_names_app_channel_and_key_and_nothing_shorter() {
        let id = |app, channel, key| {
            let key_of = ChannelKey {
                app: AppId::new(app).unwrap(),
                name: ChannelName::new(channel).unwrap(),
            };
            dedup_id(&key_of, key)
        };
        let one = id("a", "b:c", "k");
        assert_eq!(one.len(), DEDUP_ID_BYTES);
        assert_eq!(one, id("a", "b:c", "k"));
        for other in [
            id("ab", ":c".trim_start_matches(':'), "k"),
            id("a", "b:ck", ""),
            id("a", "b:c", "k2"),
        ] {
            assert_ne!(one, other);
        }
    }
}
