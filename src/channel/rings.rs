//! What rings cost, and when they let publications go: each within its own bounds, all of an app
//! and of the node within a budget, and none that nobody reads from.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::hub::{Body, Channel, Durable, Hub};
use crate::telemetry::RingEviction;

impl Hub {
    /// Lets rings go that nobody has used for a while, and what is older than its class keeps.
    pub(super) async fn run_rings(self: Arc<Self>) {
        let every = (self.config.ring_idle / 4).max(Duration::from_millis(250));
        loop {
            sleep(every).await;
            for keeper in self.keepers() {
                let oldest_ms = keeper.oldest_ms();
                for channel in self.channels_of(keeper.spec().id) {
                    self.trim_ring(&channel, oldest_ms);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn trim_ring(&self, channel: &Channel, oldest_ms: i64) {
        let mut body = channel.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return;
        };
        if durable.tail.ring().is_empty() {
            return;
        }
        let held = durable.tail.ring().len();
        let why = if durable.ring_used.elapsed() >= self.config.ring_idle {
            durable.tail.ring_mut().evict_all();
            RingEviction::Idle
        } else {
            durable.tail.ring_mut().evict_older(oldest_ms);
            RingEviction::Age
        };
        let evicted = held - durable.tail.ring().len();
        self.metrics.ring_evictions.of(why).inc_by(evicted as u64);
        self.charge_ring(channel, durable);
    }

    /// Settles what a ring costs with its app's budget; an app over its budget loses its own.
    pub(super) fn charge_ring(&self, channel: &Channel, durable: &mut Durable) {
        let bytes = durable.tail.ring().bytes();
        let before = durable.ring_charged;
        if bytes == before {
            return;
        }
        let app = &channel.route.key().app;
        if bytes < before {
            self.budgets.give_back(app, before - bytes);
            durable.ring_charged = bytes;
        } else if self.budgets.take(app, bytes - before) {
            durable.ring_charged = bytes;
        } else {
            let held = durable.tail.ring().len();
            durable.tail.ring_mut().evict_all();
            self.budgets.give_back(app, before);
            durable.ring_charged = 0;
            self.metrics
                .ring_evictions
                .of(RingEviction::Budget)
                .inc_by(held as u64);
            channel.app.limits_hit.of(self.budgets.bound(app)).inc();
        }
        let change = i64::try_from(durable.ring_charged).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
        channel.app.ring_bytes.inc_by(change);
    }
}
