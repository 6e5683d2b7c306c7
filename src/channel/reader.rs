//! Reads of the log that prove what they bring (L8, L10), bounded and fair between apps.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    config::CatchupConfig,
    log::{Log, Page, ReadError, Route, ShardId, Stored, Sweep},
    model::Offset,
    telemetry::{CatchupSource, Held, Limit, Metrics},
};

use super::{
    entry::Message,
    gate::{Gate, Grant},
    hub::Hub,
    keeper::Keeper,
    recovery::{Found, Judged, Target, Unproven, covered_to, floor_holds, judge},
};

const PAUSE: Duration = Duration::from_millis(2);
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MOST: Duration = Duration::from_millis(500);
/// How long a leader may deny what is known to exist: longer than an election takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bounds what is asked of the log at once.
pub(super) struct Reader {
    log: Arc<dyn Log>,
    config: CatchupConfig,
    bytes: Gate,
    leaders: Gate,
    ahead: Gate,
    metrics: Arc<Metrics>,
}

/// Everything of a channel after a position, up to `covered_to`.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) messages: Vec<Message>,
    pub(super) covered_to: Offset,
    /// Who had it.
    pub(super) source: CatchupSource,
}

impl Proven {
    /// Counts what a cursor gets of it.
    pub(super) fn count(&self, metrics: &Metrics) {
        let found = self.messages.len() as u64;
        metrics.catchup_publications.of(self.source).inc_by(found);
    }
}

/// A page that is kept for its reader.
pub(super) struct Kept<'a> {
    _grant: Grant<'a>,
    _held: Held,
}

/// How a read gets its turn.
enum Turn<'a> {
    /// By itself.
    Alone(Grant<'a>),
    /// A sweep has brought what it wants.
    Swept(Proven),
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Unproven(#[from] Unproven),
    #[error("too many reads are waiting")]
    Crowded,
    #[error("the epoch has changed")]
    Epoch,
}

impl Reader {
    pub(super) fn new(log: Arc<dyn Log>, config: &CatchupConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            log,
            bytes: Gate::new(config.in_flight_bytes, config.max_waiting),
            leaders: Gate::new(config.leader_reads, config.max_waiting),
            ahead: Gate::new(config.ahead_bytes, 0),
            config: config.clone(),
            metrics,
        }
    }

    /// One read of any replica, within the bounds. Tried again until there is an answer.
    pub(super) async fn read(
        &self,
        route: &Route,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> Result<Page, Refused> {
        let grant = self.enter(&self.bytes, route, max_bytes as usize).await?;
        self.read_granted(grant, route, from, max_messages, max_bytes)
            .await
    }

    async fn read_granted(
        &self,
        grant: Grant<'_>,
        route: &Route,
        from: Offset,
        max_messages: u32,
        max_bytes: u32,
    ) -> Result<Page, Refused> {
        let mut grant = Some(grant);
        let mut pause = RETRY_FIRST;
        loop {
            let answer = {
                let _grant = match grant.take() {
                    Some(grant) => grant,
                    None => self.enter(&self.bytes, route, max_bytes as usize).await?,
                };
                self.log.read(route, from, max_messages, max_bytes).await
            };
            match answer {
                Ok(page) => return Ok(page),
                Err(ReadError::NoAnswer | ReadError::NotNow(_) | ReadError::Failed(_)) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
            }
        }
    }

    /// The first message at or after `from`, as the leader has it. Tried again until it answers.
    pub(super) async fn read_leader(&self, route: &Route, from: Offset) -> Result<Option<Stored>, Refused> {
        let mut pause = RETRY_FIRST;
        loop {
            let answer = {
                let free = self.leaders.try_enter(1);
                let _grant = match free {
                    Some(grant) => grant,
                    None => {
                        self.metrics.catchup_leader_waits.inc();
                        self.enter(&self.leaders, route, 1).await?
                    }
                };
                self.log.read_leader(route, from).await
            };
            if let Ok(found) = answer {
                return Ok(found);
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    /// One page of everything in a shard.
    pub(super) async fn sweep(
        &self,
        shard: ShardId,
        from: Offset,
        max_messages: u32,
    ) -> Result<Sweep, ReadError> {
        self.log
            .sweep(shard, from, max_messages, self.sweep_page_bytes())
            .await
    }

    /// Bytes of a page of a sweep.
    pub(super) fn sweep_page_bytes(&self) -> u32 {
        self.config.page_bytes.saturating_mul(2)
    }

    /// How many reads wait for their turn, and the bytes asked for by those that have it.
    pub(super) fn load(&self) -> (usize, usize) {
        self.bytes.load()
    }

    /// From how many waiting readers of a shard on a sweep is thought of.
    pub(super) fn sweep_from(&self) -> usize {
        self.config.sweep_from
    }

    /// Bytes that one sweep may keep.
    pub(super) fn sweep_bytes(&self) -> usize {
        self.config.sweep_bytes
    }

    /// How long what a sweep has read is kept.
    pub(super) fn sweep_linger(&self) -> Duration {
        self.config.sweep_linger
    }

    /// Messages and bytes of a page.
    pub(super) fn page_size(&self) -> (u32, u32) {
        (self.config.page_messages, self.config.page_bytes)
    }

    /// Leave to keep a whole page that its reader may have no room for yet; `None` if as much is kept
    /// as may be.
    pub(super) fn keep_page(&self) -> Option<Kept<'_>> {
        let grant = self.ahead.try_enter(self.config.page_bytes as usize)?;
        Some(Kept {
            _grant: grant,
            _held: Held::new(&self.metrics.catchup_pages_ahead),
        })
    }

    /// Pages that may end early before the leader is asked.
    pub(super) fn short_reads(&self) -> u32 {
        self.config.short_reads
    }

    async fn enter<'a>(&self, gate: &'a Gate, route: &Route, units: usize) -> Result<Grant<'a>, Refused> {
        gate.enter(&route.key().app, units).await.map_err(|_| {
            let app = self.metrics.app(&route.key().app);
            app.limits_hit.of(Limit::CatchupWaiting).inc();
            Refused::Crowded
        })
    }
}

impl Hub {
    /// A page of the channel from `position` (a watermark of `incarnation`) on, proven to be
    /// everything up to what it covers. Waits as long as the log does not answer.
    pub(super) async fn read_proven(
        &self,
        route: &Route,
        keeper: &Keeper,
        incarnation: u64,
        position: Offset,
        target: Target,
        max_bytes: u32,
    ) -> Result<Proven, Refused> {
        let config = &self.reader.config;
        let limit = keeper.spec().max_per_channel;
        // At least one message besides that at the position.
        let max_messages = config.page_messages.max(2);
        let mut max_bytes = max_bytes.clamp(1, config.page_bytes);
        let mut grant = match self
            .turn(route, keeper, incarnation, position, target, max_bytes)
            .await?
        {
            Turn::Swept(proven) if keeper.incarnation() == incarnation => {
                keeper.saw(proven.covered_to, incarnation);
                return Ok(proven);
            }
            Turn::Swept(_) => return Err(Refused::Epoch),
            Turn::Alone(grant) => Some(grant),
        };
        let began = Instant::now();
        let mut short = 0;
        loop {
            let page = match grant.take() {
                Some(grant) => {
                    self.reader
                        .read_granted(grant, route, position, max_messages, max_bytes)
                        .await?
                }
                None => self.reader.read(route, position, max_messages, max_bytes).await?,
            };
            if let Some(last) = page.messages.last() {
                // A leader that does not know of it has been deposed: its floor proves nothing (L5).
                keeper.saw(last.seq, incarnation);
            }
            // What has to be there still, if nothing is to have gone from behind it meanwhile.
            let spanned = match &page.messages[..] {
                [first, _, ..] => Some((first.seq, first.time_ms)),
                [] | [_] => None,
            };
            let found = Found {
                messages: page
                    .messages
                    .into_iter()
                    .map(|stored| self.message(route, stored))
                    .collect(),
                pending: page.pending,
            };
            let mut judged = judge(position, found, limit)?;
            if judged.messages.is_empty() && !judged.ends && max_bytes < u32::MAX {
                // The message at the position fills the page.
                max_bytes = max_bytes.saturating_mul(4);
                continue;
            }
            let mut covered = covered_to(position, &judged, target);
            if covered.is_none() && short < config.short_reads {
                // A replica that lags; another one may answer next.
                short += 1;
                sleep(PAUSE * short).await;
                continue;
            }
            if covered.is_none() {
                covered = self
                    .finish_with_leader(route, position, &mut judged, target, limit)
                    .await?;
                if let Some(last) = judged.messages.last() {
                    keeper.saw(last.offset(), incarnation);
                }
            }
            if let Some((seq, time_ms)) = spanned
                && !self.is_still_kept(route, keeper, seq, time_ms).await?
            {
                judged.torn(limit)?;
            }
            if judged.needs_floor || covered.is_none() {
                let fresh = keeper.fresh().await;
                if fresh.incarnation != incarnation {
                    return Err(Refused::Epoch);
                }
                let retained = floor_holds(position, fresh.floor);
                let exists = target.last.is_some_and(|last| last <= fresh.last_seq);
                if covered.is_none() && retained && exists && began.elapsed() < PATIENCE {
                    // What is known to exist cannot have gone: this was the answer of a leader that
                    // has been deposed.
                    short = 0;
                    sleep(RETRY_MOST).await;
                    continue;
                }
                // What was known to exist and is gone without a trace was removed.
                if !retained || covered.is_none() {
                    return Err(Unproven::Expired.into());
                }
            }
            if keeper.incarnation() != incarnation {
                return Err(Refused::Epoch);
            }
            if let Some(covered_to) = covered {
                keeper.saw(covered_to, incarnation);
                if target.last.is_some_and(|last| last <= covered_to)
                    && let Some(sweeper) = self.sweeper(keeper.spec().id)
                {
                    // A page that does not come to the end scans less, and a sweep had not been better.
                    sweeper.spend(position, keeper.seen());
                }
                return Ok(Proven {
                    source: CatchupSource::Log,
                    messages: judged.messages,
                    covered_to,
                });
            }
        }
    }

    /// Whether no replica has let go of a message that one of them had. A page is put together message
    /// by message, and what goes meanwhile goes oldest first: as long as the first of a page is there,
    /// nothing is missing from between the others.
    async fn is_still_kept(
        &self,
        route: &Route,
        keeper: &Keeper,
        seq: Offset,
        time_ms: i64,
    ) -> Result<bool, Refused> {
        // A replica's clock may be ahead of the leader's.
        if time_ms < keeper.kept_since_ms() {
            return Ok(false);
        }
        let found = self.reader.read_leader(route, seq).await?;
        Ok(found.is_some_and(|found| found.seq == seq))
    }

    /// Waits until it may read alone. While there is a queue for that, a sweep may come by and bring
    /// what is wanted.
    async fn turn(
        &self,
        route: &Route,
        keeper: &Keeper,
        incarnation: u64,
        position: Offset,
        target: Target,
        max_bytes: u32,
    ) -> Result<Turn<'_>, Refused> {
        let reader = &self.reader;
        let bytes = max_bytes as usize;
        let sweeper = route.shard().and_then(|shard| self.sweeper(shard));
        let (Some(sweeper), Some(_)) = (sweeper, target.last) else {
            return Ok(Turn::Alone(reader.enter(&reader.bytes, route, bytes).await?));
        };
        if let Some(proven) = self
            .swept_before(keeper, incarnation, route, position, target)
            .await
        {
            return Ok(Turn::Swept(proven));
        }
        let last_seq = keeper.seen();
        if !sweeper.is_due(position, last_seq, reader.sweep_from(), incarnation)
            && let Some(grant) = reader.bytes.try_enter(bytes)
        {
            return Ok(Turn::Alone(grant));
        }
        let mut ticket = sweeper.wait(route, position, target, reader.sweep_from());
        tokio::select! {
            biased;
            swept = ticket.answered() => {
                if let Some(proven) = swept {
                    return Ok(Turn::Swept(proven));
                }
            }
            grant = async {
                sweeper.rest().await;
                reader.enter(&reader.bytes, route, bytes).await
            } => {
                let grant = grant?;
                if ticket.withdraw() {
                    return Ok(Turn::Alone(grant));
                }
                // A sweep has it on board: others may have this turn.
                drop(grant);
                if let Some(proven) = ticket.answered().await {
                    return Ok(Turn::Swept(proven));
                }
            }
        }
        Ok(Turn::Alone(reader.enter(&reader.bytes, route, bytes).await?))
    }

    /// The replicas lag: the rest of the page from the leader, message by message. `None` if what
    /// was known to exist, or what the rest continues, is not there.
    async fn finish_with_leader(
        &self,
        route: &Route,
        position: Offset,
        judged: &mut Judged,
        target: Target,
        limit: Option<u64>,
    ) -> Result<Option<Offset>, Refused> {
        let base = judged.messages.last().map_or(position, Message::offset);
        // Otherwise nothing is stored at the base, and the floor has to prove it.
        let overlaps = !judged.needs_floor || !judged.messages.is_empty();
        if !overlaps && limit.is_some() {
            // How many follow the position the leader does not say.
            return Err(Unproven::Trimmed.into());
        }
        let mut covered = None;
        for _ in 0..self.reader.config.leader_reads {
            let last = judged.messages.last().map_or(position, Message::offset);
            let Some(next) = self.reader.read_leader(route, last + 1).await? else {
                return Ok(None);
            };
            let next = self.message(route, next);
            match next {
                Message::Opaque(_) if judged.messages.is_empty() => return Err(Unproven::Opaque.into()),
                Message::Opaque(_) => {
                    covered = Some(last);
                    break;
                }
                Message::Tombstone(_) if judged.needs_floor => return Err(Unproven::Removed.into()),
                next => judged.messages.push(next),
            }
            // A page's worth, if it does not reach: the next one goes on from here.
            let page_end = judged.messages.last().map(Message::offset);
            covered = covered_to(position, judged, target);
            if covered.is_some() {
                break;
            }
            covered = page_end;
        }
        if overlaps {
            // Messages go oldest first: as long as this one is stored, none behind it has gone.
            let still = self.reader.read_leader(route, base).await?;
            if still.is_none_or(|found| found.seq != base) {
                return Ok(None);
            }
        }
        Ok(covered)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::{
        config::{Config, Sources},
        log::memory::{ClassSpec, MemoryLog},
        model::{AppId, ChannelKey, ChannelName, ClassName},
    };

    #[tokio::test]
    async fn a_read_from_a_leader_waits_for_its_turn_and_is_counted() {
        let class = ClassName::new("std").unwrap();
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(vec![ClassSpec::new(class.clone(), 1)]));
        let metrics = Arc::new(Metrics::new());
        let mut config = Config::load(&Sources::default()).unwrap().catchup;
        config.leader_reads = 1;
        let reader = Reader::new(log.clone(), &config, metrics.clone());
        let key = ChannelKey {
            app: AppId::new("a").unwrap(),
            name: ChannelName::new("chat:x").unwrap(),
        };
        let route = log.route(&key, Some(&class)).unwrap();
        let other = reader.leaders.try_enter(1).unwrap();
        let mut read = Box::pin(reader.read_leader(&route, 1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(read.as_mut().poll(&mut cx).is_pending());
        assert_eq!(metrics.catchup_leader_waits.get(), 1);
        drop(other);
        assert!(read.await.unwrap().is_none_or(|found| found.seq > 0));
        assert!(reader.read_leader(&route, 1).await.is_ok());
        assert_eq!(metrics.catchup_leader_waits.get(), 1, "it was free");
    }
}
