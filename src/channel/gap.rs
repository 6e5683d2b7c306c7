//! Closes the gap of a tail (L7, L8): reads what is missing, or asks whether anything can be.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::telemetry::{CatchupKind, GapOutcome};

use super::{
    hub::{Body, Channel, Hub, Life},
    reader::{Proven, Refused},
    tail::Need,
};

const CROWDED: Duration = Duration::from_millis(50);
const RESTART: Duration = Duration::from_millis(100);

/// Works on the tail's gap until it has none, or begins anew.
pub(super) async fn close(hub: Arc<Hub>, channel: Arc<Channel>) {
    hub.metrics.catchups.of(CatchupKind::Gap).inc();
    let mut lost = false;
    loop {
        let (need, life) = {
            let mut body = channel.body.lock();
            let Body::Durable(durable) = &mut *body else {
                return;
            };
            let need = durable.tail.need();
            if need == Need::Nothing {
                durable.closing_gap = false;
                break;
            }
            (need, durable.life)
        };
        let Some(keeper) = &channel.keeper else { return };
        let answer = match need {
            Need::Nothing => continue,
            Need::Floor { position, .. } => {
                let fresh = keeper.fresh().await;
                if fresh.incarnation != life.incarnation {
                    channel.restart().await;
                    continue;
                }
                if hub.with_tail(&channel, life, |durable| durable.tail.on_floor(fresh.floor)) != Some(false)
                {
                    continue;
                }
                hub.ask_peers_beyond(&channel.route, keeper, life.incarnation, position)
                    .await
            }
            Need::Read { from, target } => {
                match hub
                    .read_proven(&channel.route, keeper, life.incarnation, from, target, u32::MAX)
                    .await
                {
                    Ok(proven) => Some(proven),
                    Err(Refused::Unproven(_)) => {
                        hub.ask_peers_beyond(&channel.route, keeper, life.incarnation, from)
                            .await
                    }
                    Err(Refused::Crowded) => {
                        sleep(CROWDED).await;
                        continue;
                    }
                    Err(Refused::Epoch) => {
                        channel.restart().await;
                        continue;
                    }
                }
            }
        };
        let closer = hub.with_tail(&channel, life, |durable| match answer {
            Some(Proven {
                messages, covered_to, ..
            }) if covered_to > durable.tail.whole_to() => {
                durable.tail.on_read(messages, covered_to);
                true
            }
            _ => {
                lost = true;
                false
            }
        });
        if closer == Some(false) {
            let fresh = keeper.fresh().await;
            if fresh.incarnation == life.incarnation {
                hub.with_tail(&channel, life, |durable| durable.tail.lose(fresh.last_seq));
            }
        }
    }
    channel.begun.notify_waiters();
    if !lost {
        // What was lost is counted where its subscribers are told.
        hub.metrics.gaps.of(GapOutcome::Closed).inc();
    }
}

impl Channel {
    /// The tail is of an old epoch, its pump is about to begin it anew: waits for that a while.
    async fn restart(&self) {
        let _ = timeout(RESTART, self.begun.notified()).await;
    }
}

impl Hub {
    /// Does something to a tail in this life of it, then what it asks for. `None` if it has begun
    /// anew or is closed.
    pub(super) fn with_tail<T>(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        life: Life,
        act: impl FnOnce(&mut super::hub::Durable) -> T,
    ) -> Option<T> {
        let mut body = channel.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return None;
        };
        if durable.life != life || !durable.tail.has_begun() {
            return None;
        }
        let result = act(durable);
        self.charge_ring(channel, durable);
        let effects = durable.tail.take_effects();
        drop(body);
        self.settle(channel, effects);
        Some(result)
    }
}
