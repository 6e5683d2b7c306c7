//! Closes the gap of a tail (L7, L8): reads what is missing, or asks whether anything can be.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::telemetry::{CatchupKind, GapOutcome};

use super::{
    hub::{Body, Channel, Hub},
    reader::{Proven, Refused},
    tail::Need,
};

const CROWDED: Duration = Duration::from_millis(50);

/// Works on the tail's gap until it has none, or begins anew.
pub(super) async fn close(hub: Arc<Hub>, channel: Arc<Channel>) {
    hub.metrics.catchups.of(CatchupKind::Gap).inc();
    loop {
        let (need, incarnation) = {
            let mut body = channel.body.lock();
            let Body::Durable(durable) = &mut *body else {
                return;
            };
            let need = durable.tail.need();
            if need == Need::Nothing {
                durable.closing_gap = false;
                break;
            }
            (need, durable.incarnation)
        };
        let Some(keeper) = &channel.keeper else { return };
        let answer = match need {
            Need::Nothing => continue,
            Need::Floor { position, .. } => {
                let fresh = keeper.fresh().await;
                if fresh.incarnation != incarnation {
                    wait_for_restart(&channel, incarnation).await;
                    continue;
                }
                if hub.with_tail(&channel, incarnation, |durable| {
                    durable.tail.on_floor(fresh.floor)
                }) != Some(false)
                {
                    continue;
                }
                hub.ask_peers(&channel.route, &fresh.epoch, position).await
            }
            Need::Read { from, target } => {
                match hub
                    .read_proven(&channel.route, keeper, incarnation, from, target)
                    .await
                {
                    Ok(proven) => Some(proven),
                    Err(Refused::Unproven(_)) => match keeper.epoch() {
                        Some(epoch) => hub.ask_peers(&channel.route, &epoch, from).await,
                        None => None,
                    },
                    Err(Refused::Crowded) => {
                        sleep(CROWDED).await;
                        continue;
                    }
                    Err(Refused::Epoch) => {
                        wait_for_restart(&channel, incarnation).await;
                        continue;
                    }
                }
            }
        };
        hub.with_tail(&channel, incarnation, |durable| match answer {
            Some(Proven { messages, covered_to }) if covered_to > durable.tail.whole_to() => {
                durable.tail.on_read(messages, covered_to);
            }
            _ => durable.tail.lose(),
        });
    }
    hub.metrics.gaps.of(GapOutcome::Closed).inc();
}

/// The tail's pump is about to begin it anew in the new epoch.
async fn wait_for_restart(channel: &Channel, incarnation: u64) {
    loop {
        let begun = channel.begun.notified();
        {
            let body = channel.body.lock();
            match &*body {
                Body::Durable(durable) if durable.incarnation == incarnation => {}
                _ => return,
            }
        }
        channel.control.notify_one();
        let _ = tokio::time::timeout(Duration::from_millis(100), begun).await;
    }
}

impl Hub {
    /// Does something to a tail of this incarnation, then what it asks for. `None` if it has begun
    /// anew or is closed.
    pub(super) fn with_tail<T>(
        self: &Arc<Self>,
        channel: &Arc<Channel>,
        incarnation: u64,
        act: impl FnOnce(&mut super::hub::Durable) -> T,
    ) -> Option<T> {
        let mut body = channel.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return None;
        };
        if durable.incarnation != incarnation || !durable.tail.has_begun() {
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
