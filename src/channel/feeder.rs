//! Feeds a subscription that is behind, at the pace of its socket, until it is live again.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    model::Offset,
    telemetry::{CatchupKind, CatchupSource, Held},
};

use super::{
    cursor::CursorKey,
    hub::{Body, Channel, Durable, Hub, Life},
    keeper::Keeper,
    mailbox::Mailbox,
    reader::{Kept, Proven, Refused},
    recovery::Target,
    tail::{Fed, Feed},
};

const CROWDED: Duration = Duration::from_millis(50);
/// Who takes longer for a page does not wait for the log: reading ahead would gain it nothing.
const KEEPS_UP: Duration = Duration::from_millis(50);

/// Runs until the subscription is live, or ends. `kind` says why it is behind.
pub(super) async fn feed(hub: Arc<Hub>, channel: Arc<Channel>, key: CursorKey, kind: CatchupKind) {
    let began = Instant::now();
    hub.metrics.catchups.of(kind).inc();
    let slow = (kind == CatchupKind::SlowReader).then(|| Held::new(&channel.app.slow_readers));
    if let Some((mailbox, keeper)) = channel.mailbox_of(key).zip(channel.keeper.as_deref()) {
        let feeder = Feeder {
            hub: &hub,
            channel: &channel,
            key,
            keeper,
            mailbox: &mailbox,
        };
        // It has ended, which is all there is to know.
        let _ = feeder.run().await;
    }
    drop(slow);
    hub.metrics.catchup_seconds.observe(began.elapsed().as_secs_f64());
}

struct Feeder<'a> {
    hub: &'a Arc<Hub>,
    channel: &'a Arc<Channel>,
    key: CursorKey,
    keeper: &'a Keeper,
    mailbox: &'a Mailbox,
}

/// What was read for the cursor: everything after `from`.
struct Page<'a> {
    from: Offset,
    life: Life,
    read: Proven,
    /// If it may be more than the mailbox takes.
    _kept: Option<Kept<'a>>,
}

/// Why feeding stops.
enum Stop {
    /// The subscription is live.
    Live,
    /// It has ended, or its tail begins anew and ends it.
    Gone,
}

impl<'a> Feeder<'a> {
    async fn run(&self) -> Result<(), Stop> {
        let mut keeps_up = true;
        loop {
            let mut page = self.next_page(keeps_up).await?;
            loop {
                let kept = if keeps_up {
                    self.hub.reader.keep_page()
                } else {
                    None
                };
                // The next page is on its way while this one is written.
                let (took, ahead) = tokio::try_join!(self.give(&page), self.read_ahead(&page, kept))?;
                keeps_up = took < KEEPS_UP;
                match ahead {
                    Some(ahead) => page = ahead,
                    None => break,
                }
            }
        }
    }

    /// Feeds from the ring as far as it goes. Otherwise reads the next page.
    async fn next_page(&self, keeps_up: bool) -> Result<Page<'a>, Stop> {
        let mut next = 0;
        loop {
            self.mailbox.room_for(next).await;
            let (step, life) = self.feed_from_ring()?;
            let (from, target) = match step {
                Feed::Live => return Err(Stop::Live),
                Feed::Gone => return Err(Stop::Gone),
                Feed::Full(bytes) => {
                    next = bytes;
                    continue;
                }
                Feed::Read { from, target } => (from, target),
            };
            let kept = if keeps_up {
                self.hub.reader.keep_page()
            } else {
                None
            };
            match self.read(life, from, target, kept).await {
                Ok(Some(page)) => return Ok(page),
                Ok(None) => {
                    self.with_tail(life, |durable| durable.tail.end(self.key))?;
                    return Err(Stop::Gone);
                }
                Err(Refused::Crowded) => sleep(CROWDED).await,
                Err(Refused::Unproven(_) | Refused::Epoch) => return Err(Stop::Gone),
            }
        }
    }

    fn feed_from_ring(&self) -> Result<(Feed, Life), Stop> {
        let mut body = self.channel.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return Err(Stop::Gone);
        };
        durable.ring_used = Instant::now();
        durable.tail.ring_mut().evict_older(self.keeper.oldest_ms());
        let step = durable.tail.feed(self.key);
        let effects = durable.tail.take_effects();
        let life = durable.life;
        drop(body);
        self.hub
            .metrics
            .catchup_publications
            .of(CatchupSource::Ring)
            .inc_by(effects.delivered);
        self.hub.settle(self.channel, effects);
        Ok((step, life))
    }

    /// Reads a page after `from`. Without leave to keep what the mailbox does not take, reads no more
    /// than that. `None` if nobody can prove that nothing is missing.
    async fn read(
        &self,
        life: Life,
        from: Offset,
        target: Target,
        kept: Option<Kept<'a>>,
    ) -> Result<Option<Page<'a>>, Refused> {
        let room = match kept {
            Some(_) => u32::MAX,
            None => u32::try_from(self.mailbox.space()).unwrap_or(u32::MAX),
        };
        let (hub, route) = (self.hub, &self.channel.route);
        let read = hub.read_proven(route, self.keeper, life.incarnation, from, target, room);
        let read = match read.await {
            Ok(proven) => Some(proven),
            Err(Refused::Unproven(_)) => {
                hub.ask_peers_beyond(route, self.keeper, life.incarnation, from)
                    .await
            }
            Err(refused) => return Err(refused),
        };
        let advances = read.filter(|read| read.covered_to > from);
        Ok(advances.map(|read| Page {
            from,
            life,
            read,
            _kept: kept,
        }))
    }

    /// The page after this one, if there is leave to keep it and it has to be read. What goes wrong
    /// shows again when it is due.
    async fn read_ahead(&self, page: &Page<'a>, kept: Option<Kept<'a>>) -> Result<Option<Page<'a>>, Stop> {
        let from = page.read.covered_to;
        let target = self.with_tail(page.life, |durable| durable.tail.reads_after(self.key, from))?;
        let (Some(target), Some(kept)) = (target, kept) else {
            return Ok(None);
        };
        let read = self.read(page.life, from, target, Some(kept)).await;
        Ok(read.unwrap_or_default())
    }

    /// Gives the cursor a page as its mailbox takes it; says how long that took.
    async fn give(&self, page: &Page<'a>) -> Result<Duration, Stop> {
        let began = Instant::now();
        page.read.count(&self.hub.metrics);
        let mut next = 0;
        loop {
            self.mailbox.room_for(next).await;
            let Page { from, life, read, .. } = page;
            let fed = self.with_tail(*life, |durable| {
                durable
                    .tail
                    .on_fed(self.key, *from, &read.messages, read.covered_to)
            })?;
            match fed {
                Fed::Taken => return Ok(began.elapsed()),
                Fed::Full(bytes) => next = bytes,
                Fed::Gone => return Err(Stop::Gone),
            }
        }
    }

    fn with_tail<T>(&self, life: Life, act: impl FnOnce(&mut Durable) -> T) -> Result<T, Stop> {
        self.hub.with_tail(self.channel, life, act).ok_or(Stop::Gone)
    }
}

impl Channel {
    fn mailbox_of(&self, key: CursorKey) -> Option<Arc<Mailbox>> {
        let mut body = self.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return None;
        };
        durable.tail.outlet_of(key).map(|outlet| outlet.mailbox().clone())
    }
}
