//! Feeds a subscription that is behind, at the pace of its socket, until it is live again.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::telemetry::{CatchupKind, CatchupSource, Held};

use super::{
    cursor::CursorKey,
    hub::{Body, Channel, Hub},
    reader::Refused,
    tail::{Fed, Feed},
};

const CROWDED: Duration = Duration::from_millis(50);

/// Runs until the subscription is live, or ends. `kind` says why it is behind.
pub(super) async fn feed(hub: Arc<Hub>, channel: Arc<Channel>, key: CursorKey, kind: CatchupKind) {
    let began = Instant::now();
    hub.metrics.catchups.of(kind).inc();
    let slow = (kind == CatchupKind::SlowReader).then(|| Held::new(&channel.app.slow_readers));
    feed_on(&hub, &channel, key).await;
    drop(slow);
    hub.metrics.catchup_seconds.observe(began.elapsed().as_secs_f64());
}

async fn feed_on(hub: &Arc<Hub>, channel: &Arc<Channel>, key: CursorKey) {
    let mut next = 0;
    loop {
        let Some(mailbox) = channel.mailbox_of(key) else {
            return;
        };
        mailbox.room_for(next).await;
        let (step, life, before) = {
            let mut body = channel.body.lock();
            let Body::Durable(durable) = &mut *body else {
                return;
            };
            durable.ring_used = Instant::now();
            if let Some(keeper) = &channel.keeper {
                durable.tail.ring_mut().evict_older(keeper.oldest_ms());
            }
            let step = durable.tail.feed(key);
            let effects = durable.tail.take_effects();
            let life = durable.life;
            drop(body);
            let delivered = effects.delivered;
            hub.settle(channel, effects);
            (step, life, delivered)
        };
        hub.metrics
            .catchup_publications
            .of(CatchupSource::Ring)
            .inc_by(before);
        let (from, target) = match step {
            Feed::Live | Feed::Gone => return,
            Feed::Full(bytes) => {
                next = bytes;
                continue;
            }
            Feed::Read { from, target } => (from, target),
        };
        // What does not fit would be read again.
        let room = u32::try_from(mailbox.space()).unwrap_or(u32::MAX);
        let Some(keeper) = &channel.keeper else { return };
        let read = match hub
            .read_proven(&channel.route, keeper, life.incarnation, from, target, room)
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
            // The tail begins anew and ends its cursors.
            Err(Refused::Epoch) => return,
        };
        let fed = hub.with_tail(channel, life, |durable| match read {
            Some(proven) if proven.covered_to > from => {
                proven.count(&hub.metrics);
                durable
                    .tail
                    .on_fed(key, from, &proven.messages, proven.covered_to)
            }
            _ => {
                durable.tail.end(key);
                Fed::Gone
            }
        });
        next = match fed {
            Some(Fed::Taken) => 0,
            Some(Fed::Full(bytes)) => bytes,
            Some(Fed::Gone) | None => return,
        };
    }
}

impl Channel {
    fn mailbox_of(&self, key: CursorKey) -> Option<Arc<super::mailbox::Mailbox>> {
        let mut body = self.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return None;
        };
        durable.tail.outlet_of(key).map(|outlet| outlet.mailbox().clone())
    }
}
