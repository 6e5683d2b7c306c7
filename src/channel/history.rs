//! Pages of stored history, in both directions (L13), for those who ask and do not subscribe.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    log::Route,
    model::{Epoch, Offset, Position, Publication},
};

use super::{entry::Message, hub::Hub, keeper::Keeper, reader::Refused, recovery::floor_holds, shard::Fresh};

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

/// Messages of a channel after some place.
struct HistoryMessages {
    messages: Vec<Message<Publication>>,
    /// They are all there ever were after it.
    whole: bool,
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
        timeout(
            self.config.subscribe_timeout,
            self.read_history(route, keeper, read),
        )
        .await
        .unwrap_or(Err(HistoryError::TimedOut))
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
        let last = self
            .last_stored(route, fresh)
            .await
            .ok_or(HistoryError::TimedOut)?;
        let gathered = match last {
            None => Gathered::default(),
            Some(last) if read.reverse => self.backward(route, keeper, read, last.min(top.offset)).await?,
            Some(last) => self.forward(route, keeper, read, last.min(top.offset)).await?,
        };
        let gap = gathered.gap || (last.is_none() && self.is_gap_at(keeper, read).await);
        Ok(HistoryPage {
            publications: gathered.publications,
            top,
            gap,
            more: gathered.more,
        })
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

    async fn forward(
        &self,
        route: &Route,
        keeper: &Keeper,
        read: &HistoryRead,
        last: Offset,
    ) -> Result<Gathered, HistoryError> {
        let mut gathered = Gathered::default();
        let mut at = read.since.unwrap_or(0);
        if let Some(from_ms) = read.from_ms {
            // Clocks may differ between replicas, so the times themselves are compared below.
            let Some(first) = self.first_since(keeper, from_ms).await else {
                return Ok(gathered);
            };
            let first = first.saturating_sub(1);
            if let Some(since) = read.since.filter(|since| *since < first.min(last)) {
                // What is retained does not tell what the time left out.
                gathered.gap = !self.page_after(route, keeper, since, last).await?.whole;
            }
            at = at.max(first);
        }
        // Without a place to begin at nothing can be missing before the first.
        let follows = read.since == Some(at);
        while at < last {
            let page = self.page_after(route, keeper, at, last).await?;
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
    async fn page_after(
        &self,
        route: &Route,
        keeper: &Keeper,
        at: Offset,
        last: Offset,
    ) -> Result<HistoryMessages, HistoryError> {
        let (max_messages, mut max_bytes) = self.reader.page_size();
        let mut short = 0;
        while short <= self.reader.short_reads() {
            let page = self
                .reader
                .read(route, at, max_messages.max(2), max_bytes)
                .await
                .map_err(refused)?;
            let pending = page.pending;
            let anchored = page.messages.first().is_some_and(|first| first.seq == at);
            let count = page.messages.len();
            let messages: Vec<_> = page
                .messages
                .into_iter()
                .skip(usize::from(anchored))
                .map(|stored| Message::of(stored, |it| it))
                .collect();
            if messages.is_empty() && pending > 0 && max_bytes < u32::MAX {
                // The message at `at` fills the page.
                max_bytes = max_bytes.saturating_mul(4);
                continue;
            }
            if pending == 0 && messages.last().is_none_or(|end| end.offset() < last) {
                short += 1;
                continue;
            }
            let whole = anchored
                || self
                    .is_whole_after(keeper, at, &messages, count as u64 + pending)
                    .await;
            return Ok(HistoryMessages { messages, whole });
        }
        // The replicas lag: the leader knows.
        let next = self.reader.read_leader(route, at + 1).await.map_err(refused)?;
        let messages: Vec<_> = next
            .into_iter()
            .map(|stored| Message::of(stored, |it| it))
            .collect();
        let anchor = self.reader.read_leader(route, at).await.map_err(refused)?;
        let whole = anchor.is_some_and(|anchor| anchor.seq == at)
            || self.is_whole_after(keeper, at, &messages, u64::MAX).await;
        Ok(HistoryMessages { messages, whole })
    }

    /// Whether messages that were read after `at`, where nothing is stored, are all there ever were;
    /// `count` is how many follow it.
    async fn is_whole_after(
        &self,
        keeper: &Keeper,
        at: Offset,
        messages: &[Message<Publication>],
        count: u64,
    ) -> bool {
        let removed = messages
            .iter()
            .any(|message| matches!(message, Message::Tombstone(_)));
        let trimmed = keeper.spec().max_per_channel.is_some_and(|limit| count >= limit);
        !removed && !trimmed && floor_holds(at, keeper.fresh().await.floor)
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
    async fn backward(
        &self,
        route: &Route,
        keeper: &Keeper,
        read: &HistoryRead,
        last: Offset,
    ) -> Result<Gathered, HistoryError> {
        let mut end = read.since.unwrap_or(last + 1).min(last + 1);
        if let Some(to_ms) = read.to_ms
            && let Some(first) = self.first_since(keeper, to_ms).await
        {
            end = end.min(first);
        }
        let mut gathered = Gathered::default();
        // Again, if what was counted were tombstones and the like.
        while end > 1 {
            let wanted = read.limit - gathered.publications.len();
            let low = self.place_before(route, end, last, wanted as u64).await?;
            let (newest, whole) = self.between(route, keeper, low..end, last, wanted + 1).await?;
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
        route: &Route,
        keeper: &Keeper,
        range: Range<Offset>,
        last: Offset,
        count: usize,
    ) -> Result<(VecDeque<Publication>, bool), HistoryError> {
        let mut newest = VecDeque::new();
        let mut whole = true;
        let mut at = range.start.saturating_sub(1);
        let mut begun = false;
        while at < last {
            let page = self.page_after(route, keeper, at, last).await?;
            if begun && !page.whole {
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
