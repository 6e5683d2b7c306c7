//! Pages of stored history, in both directions (L13), for those who ask and do not subscribe.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    log::{Route, Stored},
    model::{Epoch, Offset, Position, Publication},
    telemetry::Measure,
};

use super::{
    entry::Message,
    hub::Hub,
    keeper::Keeper,
    reader::Refused,
    recovery::{floor_holds, given_since, is_withheld},
    shard::Fresh,
};

/// Probes of a reverse search: each halves the range, or quadruples it.
const MAX_PROBES: u32 = 40;
const RETRY: Duration = Duration::from_millis(50);

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct HistoryRead {
    /// Forward: only after this offset. Reverse: only before it.
    pub since: Option<Offset>,
    /// The epoch that `since` belongs to; `None` = whatever it is.
    pub epoch: Option<Epoch>,
    /// Only what was stored at or after this time, ms since 1970.
    pub from_ms: Option<i64>,
    /// Only what was stored before this time, ms since 1970.
    pub to_ms: Option<i64>,
    /// Publications in the page; 0 = only where the channel's top is.
    pub limit: usize,
    /// Newest first.
    pub reverse: bool,
}

/// A page of history.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The publications, in the order asked for.
    pub publications: Vec<Publication>,
    /// Everything up to here is in the log: the shard's last sequence, and its epoch.
    pub top: Position,
    /// Something between `since` and the first publication is no longer retained.
    pub gap: bool,
    /// There is more in this direction.
    pub more: bool,
}

/// Why there is no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The channel keeps no history.
    #[error("the channel keeps no history")]
    NoHistory,
    /// `epoch` is not the shard's.
    #[error("the position belongs to another epoch")]
    OtherEpoch,
    /// No answer in time, or too many are asking.
    #[error("the log did not answer in time")]
    TimedOut,
}

/// What is read, and how far.
#[derive(Clone, Copy)]
struct Source<'a> {
    route: &'a Route,
    keeper: &'a Keeper,
    /// The epoch that its sequences belong to.
    incarnation: u64,
    /// The channel's last message.
    last: Offset,
    /// What was stored before this time (ms since 1970) is not given.
    given_since_ms: Option<i64>,
}

/// Messages of a channel after some place.
struct HistoryMessages {
    messages: Vec<Message<Publication>>,
    /// They are all there ever were after it.
    whole: bool,
    /// Retention has taken some of them while they were read.
    passed: bool,
}

/// A page being gathered.
#[derive(Default)]
struct Gathered {
    publications: Vec<Publication>,
    bytes: usize,
    gap: bool,
    more: bool,
}

impl Hub {
    /// Reads a page of a channel's history.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    pub async fn history(&self, route: &Route, read: HistoryRead) -> Result<HistoryPage, HistoryError> {
        let keeper = route
            .shard()
            .and_then(|shard| self.keeper(shard))
            .ok_or(HistoryError::NoHistory)?;
        let page = timeout(
            self.config.subscribe_timeout,
            self.read_history(route, keeper, read),
        );
        let page = page.await.unwrap_or(Err(HistoryError::TimedOut))?;
        let key = route.key();
        let usage = self.metrics.app(&key.app).usage.namespace(key.name.namespace());
        usage.add(Measure::HistoryReads, 1);
        Ok(page)
    }

    async fn read_history(
        &self,
        route: &Route,
        keeper: &Arc<Keeper>,
        read: HistoryRead,
    ) -> Result<HistoryPage, HistoryError> {
        loop {
            let fresh = keeper.fresh().await;
            let page = self.read_history_at(route, keeper, &read, &fresh).await;
            // Otherwise the sequences read are of no epoch that can be named.
            if keeper.incarnation() == fresh.incarnation {
                return page;
            }
        }
    }

    async fn read_history_at(
        &self,
        route: &Route,
        keeper: &Arc<Keeper>,
        read: &HistoryRead,
        fresh: &Fresh,
    ) -> Result<HistoryPage, HistoryError> {
        if read
            .epoch
            .as_ref()
            .is_some_and(|epoch| !epoch.is_empty() && *epoch != fresh.epoch)
        {
            return Err(HistoryError::OtherEpoch);
        }
        let top = Position {
            offset: fresh.last_seq,
            epoch: fresh.epoch.clone(),
        };
        if read.limit == 0 {
            return Ok(HistoryPage {
                publications: Vec::new(),
                top,
                gap: false,
                more: false,
            });
        }
        let given_since_ms = self.given_since_ms(route, keeper);
        let read = &HistoryRead {
            from_ms: read.from_ms.max(given_since_ms),
            ..read.clone()
        };
        let last = self
            .last_stored(route, fresh)
            .await
            .ok_or(HistoryError::TimedOut)?;
        let source = Source {
            route,
            keeper,
            incarnation: fresh.incarnation,
            last: last.map_or(0, |last| last.min(top.offset)),
            given_since_ms,
        };
        let gathered = match last {
            None => Gathered::default(),
            Some(_) if read.reverse => self.backward(source, read).await?,
            Some(_) => self.forward(source, read).await?,
        };
        let gap = gathered.gap || (last.is_none() && self.is_gap_at(keeper, read).await);
        Ok(HistoryPage {
            publications: gathered.publications,
            top,
            gap,
            more: gathered.more,
        })
    }

    /// The time before which nothing of a channel's history is given: its app has a quota for that.
    pub(super) fn given_since_ms(&self, route: &Route, keeper: &Keeper) -> Option<i64> {
        let most = self.meters.history_kept(&route.key().app);
        given_since(self.log.now_ms(), keeper.spec().max_age, most)
    }

    /// Nothing is stored: whether something after `since` may have been.
    async fn is_gap_at(&self, keeper: &Keeper, read: &HistoryRead) -> bool {
        match read.since {
            Some(since) if !read.reverse => !floor_holds(since, keeper.fresh().await.floor),
            _ => false,
        }
    }

    /// The channel's last message, as of `fresh`.
    async fn last_stored(&self, route: &Route, fresh: &Fresh) -> Option<Option<Offset>> {
        let shard = route.shard()?;
        let last = self.last_of(shard, std::slice::from_ref(route), fresh).await?;
        last.into_iter().next()
    }

    async fn forward(&self, source: Source<'_>, read: &HistoryRead) -> Result<Gathered, HistoryError> {
        let last = source.last;
        let mut gathered = Gathered::default();
        let mut at = read.since.unwrap_or(0);
        if let Some(from_ms) = read.from_ms {
            // Clocks may differ between replicas, so the times themselves are compared below.
            let first = self.first_since(source.keeper, from_ms).await;
            let first = first.map_or(Offset::MAX, |first| first.saturating_sub(1));
            if let Some(since) = read.since.filter(|since| *since < first.min(last)) {
                // What is retained does not tell what the time left out.
                let page = self.page_after(source, since).await?;
                gathered.gap = !page.whole || is_withheld(&page.messages, source.given_since_ms);
            }
            at = at.max(first);
        }
        // Without a place to begin at nothing can be missing before the first.
        let follows = read.since == Some(at);
        while at < last {
            let page = self.page_after(source, at).await?;
            if !page.whole && !gathered.publications.is_empty() {
                // Retention has passed this read; who goes on from here is told of the gap.
                gathered.more = true;
                return Ok(gathered);
            }
            gathered.gap |= follows && !page.whole;
            let Some(end) = page.messages.last().map(Message::offset) else {
                break;
            };
            at = end;
            for message in page.messages.into_iter().filter(|it| it.offset() <= last) {
                let publication = match message {
                    Message::Publication(publication) => publication,
                    Message::Opaque(_) => {
                        gathered.gap = true;
                        continue;
                    }
                    Message::Tombstone(_) | Message::Malformed(_) => continue,
                };
                if read.to_ms.is_some_and(|to| publication.time_ms >= to) {
                    return Ok(gathered);
                }
                if read.from_ms.is_some_and(|from| publication.time_ms < from) {
                    continue;
                }
                if gathered.publications.len() == read.limit || gathered.bytes >= self.limits.page_bytes {
                    gathered.more = true;
                    return Ok(gathered);
                }
                gathered.push(publication);
            }
        }
        Ok(gathered)
    }

    /// Messages after `at`, at least one, unless the last one has gone. Pages overlap by one message:
    /// what is stored at `at` itself proves that nothing behind it has been taken away.
    async fn page_after(&self, source: Source<'_>, at: Offset) -> Result<HistoryMessages, HistoryError> {
        let (max_messages, mut max_bytes) = self.reader.page_size();
        // Moves on only past what retention has taken.
        let mut from = at;
        let mut short = 0;
        while short <= self.reader.short_reads() {
            let page = self
                .reader
                .read(source.route, from, max_messages.max(2), max_bytes)
                .await
                .map_err(refused)?;
            let (pending, count) = (page.pending, page.messages.len());
            let end = page.messages.last().map(|end| end.seq);
            if let Some(end) = end {
                source.keeper.saw(end, source.incarnation);
            }
            let anchored = page.messages.first().is_some_and(|first| first.seq == at);
            let behind = count - usize::from(anchored);
            if behind == 0 && pending > 0 && max_bytes < u32::MAX {
                // The message at `at` fills the page.
                max_bytes = max_bytes.saturating_mul(4);
                continue;
            }
            if pending == 0 && end.is_none_or(|end| end < source.last) {
                short += 1;
                continue;
            }
            let kept = self.kept_of(source, page.messages).await?;
            let passed = from > at || kept.len() < behind;
            if let (true, Some(end)) = (kept.is_empty(), end.filter(|end| *end < source.last)) {
                from = end + 1;
                continue;
            }
            let anchored = kept.first().is_some_and(|first| first.seq == at);
            let messages: Vec<_> = kept
                .into_iter()
                .skip(usize::from(anchored))
                .map(|stored| Message::of(stored, |it| it))
                .collect();
            let whole = anchored
                || !passed
                    && self
                        .is_whole_after(source, at, &messages, count as u64 + pending)
                        .await;
            return Ok(HistoryMessages {
                messages,
                whole,
                passed,
            });
        }
        // The replicas lag: the leader knows.
        let next = self
            .reader
            .read_leader(source.route, from.max(at + 1))
            .await
            .map_err(refused)?;
        let messages: Vec<_> = next
            .into_iter()
            .map(|stored| Message::of(stored, |it| it))
            .collect();
        let passed = from > at;
        let anchor = self.reader.read_leader(source.route, at).await.map_err(refused)?;
        let anchored = anchor.is_some_and(|anchor| anchor.seq == at);
        let whole = !passed && (anchored || self.is_whole_after(source, at, &messages, u64::MAX).await);
        Ok(HistoryMessages {
            messages,
            whole,
            passed,
        })
    }

    /// Those of a page between which surely nothing is missing. A page is put together message by
    /// message, and what goes meanwhile goes oldest first: behind what is still kept there is no hole.
    async fn kept_of(&self, source: Source<'_>, page: Vec<Stored>) -> Result<Vec<Stored>, HistoryError> {
        let [first, _, ..] = &page[..] else {
            return Ok(page);
        };
        let at = first.seq;
        let first_kept = || async {
            let found = self.reader.read_leader(source.route, at).await;
            Ok(found.map_err(refused)?.map_or(Offset::MAX, |found| found.seq))
        };
        let mut kept_from = first_kept().await?;
        if kept_from > at {
            // It may be a leader that has been deposed, and does not know of the page at all.
            source.keeper.fresh().await;
            kept_from = first_kept().await?;
        }
        // A replica's clock may be ahead of the leader's.
        let since_ms = source.keeper.kept_since_ms();
        let gone = |stored: &Stored| stored.seq < kept_from || stored.time_ms < since_ms;
        Ok(page.into_iter().skip_while(gone).collect())
    }

    /// Whether messages that were read after `at`, where nothing is stored, are all there ever were;
    /// `count` is how many follow it.
    async fn is_whole_after(
        &self,
        source: Source<'_>,
        at: Offset,
        messages: &[Message<Publication>],
        count: u64,
    ) -> bool {
        let removed = messages
            .iter()
            .any(|message| matches!(message, Message::Tombstone(_)));
        let limit = source.keeper.spec().max_per_channel;
        let trimmed = limit.is_some_and(|limit| count >= limit);
        !removed && !trimmed && floor_holds(at, source.keeper.fresh().await.floor)
    }

    /// The first message of the shard stored since then. Tried again until the leader answers.
    async fn first_since(&self, keeper: &Keeper, time_ms: i64) -> Option<Offset> {
        loop {
            match self.log.first_since(keeper.spec().id, time_ms).await {
                Ok(first) => return first,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// There is no reverse read: finds by counting where to begin, reads forward, turns it round.
    async fn backward(&self, source: Source<'_>, read: &HistoryRead) -> Result<Gathered, HistoryError> {
        let last = source.last;
        let mut end = read.since.unwrap_or(last + 1).min(last + 1);
        if let Some(to_ms) = read.to_ms
            && let Some(first) = self.first_since(source.keeper, to_ms).await
        {
            end = end.min(first);
        }
        let mut gathered = Gathered::default();
        // Again, if what was counted were tombstones and the like.
        while end > 1 {
            let wanted = read.limit - gathered.publications.len();
            let low = self.place_before(source.route, end, last, wanted as u64).await?;
            let (newest, whole) = self.between(source, low..end, wanted + 1).await?;
            for publication in newest.into_iter().rev() {
                if read.from_ms.is_some_and(|from| publication.time_ms < from) {
                    return Ok(gathered);
                }
                if gathered.publications.len() == read.limit || gathered.bytes >= self.limits.page_bytes {
                    gathered.more = true;
                    return Ok(gathered);
                }
                gathered.push(publication);
            }
            if !whole {
                break;
            }
            end = low;
        }
        Ok(gathered)
    }

    /// A place before `end` such that more than `wanted` messages of the channel, but not many more,
    /// stand in between; 1 if there are not so many.
    async fn place_before(
        &self,
        route: &Route,
        end: Offset,
        last: Offset,
        wanted: u64,
    ) -> Result<Offset, HistoryError> {
        let behind = if end > last {
            0
        } else {
            self.count_from(route, end).await?
        };
        // From `low` on there are more than wanted (or it is the beginning), from `high` on fewer.
        let (mut low, mut high, mut step) = (1, end, wanted.max(16));
        let mut probes = 0;
        while high > 1 && probes < MAX_PROBES {
            probes += 1;
            let probe = high.saturating_sub(step).max(1);
            let count = self.count_from(route, probe).await?.saturating_sub(behind);
            if count > wanted {
                low = probe;
                break;
            }
            high = probe;
            step = step.saturating_mul(4);
        }
        while high - low > 1 && probes < MAX_PROBES {
            probes += 1;
            let probe = low + (high - low) / 2;
            let count = self.count_from(route, probe).await?.saturating_sub(behind);
            if count > wanted {
                low = probe;
                // Close enough: reading a few too many is cheaper than another probe.
                if count <= wanted + wanted / 2 + 16 {
                    break;
                }
            } else {
                high = probe;
            }
        }
        Ok(low)
    }

    /// The newest publications in a range, at most `count`, ascending. False if retention has passed
    /// the read: then there is nothing older.
    async fn between(
        &self,
        source: Source<'_>,
        range: Range<Offset>,
        count: usize,
    ) -> Result<(VecDeque<Publication>, bool), HistoryError> {
        let mut newest = VecDeque::new();
        let mut whole = true;
        let mut at = range.start.saturating_sub(1);
        let mut begun = false;
        while at < source.last {
            let page = self.page_after(source, at).await?;
            if page.passed || (begun && !page.whole) {
                // What was gathered is gone, too.
                newest.clear();
                whole = false;
            }
            begun = true;
            let Some(page_end) = page.messages.last().map(Message::offset) else {
                break;
            };
            at = page_end;
            for message in page.messages {
                if message.offset() >= range.end {
                    return Ok((newest, whole));
                }
                if let Message::Publication(publication) = message {
                    newest.push_back(publication);
                }
                if newest.len() > count {
                    newest.pop_front();
                }
            }
        }
        Ok((newest, whole))
    }

    /// How many messages the channel has at or after `from`, as far as one replica knows.
    async fn count_from(&self, route: &Route, from: Offset) -> Result<u64, HistoryError> {
        let page = self.reader.read(route, from, 1, 1).await.map_err(refused)?;
        Ok(page.messages.len() as u64 + page.pending)
    }
}

impl Gathered {
    fn push(&mut self, publication: Publication) {
        self.bytes += publication.record.data.len();
        self.publications.push(publication);
    }
}

fn refused(_: Refused) -> HistoryError {
    HistoryError::TimedOut
}
