//! Pages of stored history, in both directions (L13), for those who ask and do not subscribe.

use std::sync::Arc;

use tokio::time::timeout;

use crate::{
    log::Route,
    model::{Epoch, Offset, Position, Publication},
};

use super::{
    entry::Message,
    hub::Hub,
    keeper::Keeper,
    reader::Refused,
    recovery::{Found, floor_holds, judge},
    shard::Fresh,
};

/// Probes of a reverse search: each halves the range, or quadruples it.
const MAX_PROBES: u32 = 40;

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
        let fresh = keeper.fresh().await;
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
            .last_stored(route, &fresh)
            .await
            .ok_or(HistoryError::TimedOut)?;
        let gathered = match last {
            None => Gathered::default(),
            Some(last) if read.reverse => self.backward(route, keeper, &read, last).await?,
            Some(last) => self.forward(route, keeper, &read, last).await?,
        };
        let gap = gathered.gap || (last.is_none() && self.is_gap_at(keeper, &read).await);
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
            let Ok(first) = self.log.first_since(keeper.spec().id, from_ms).await else {
                return Err(HistoryError::TimedOut);
            };
            // Clocks may differ between replicas, so the times themselves are compared below.
            let Some(first) = first else { return Ok(gathered) };
            at = at.max(first.saturating_sub(1));
        }
        // Also with a time: what is retained does not tell what the time left out.
        if let Some(since) = read.since.filter(|since| *since < last) {
            gathered.gap = self.gap_after(route, keeper, since).await?;
        }
        while at < last {
            let found = self.page_after(route, at, last).await?;
            let Some(end) = found.last().map(Message::offset) else {
                break;
            };
            at = end;
            for message in found {
                let Message::Publication(publication) = message else {
                    continue;
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

    /// Whether something after `since` is no longer retained.
    async fn gap_after(&self, route: &Route, keeper: &Keeper, since: Offset) -> Result<bool, HistoryError> {
        let page = self.reader.read(route, since, 2, 1).await.map_err(refused)?;
        let messages = page
            .messages
            .into_iter()
            .map(|stored| Message::of(stored, |it| it))
            .collect();
        let found = Found {
            messages,
            pending: page.pending,
        };
        Ok(match judge(since, found, keeper.spec().max_per_channel) {
            Ok(judged) if !judged.needs_floor => false,
            Ok(_) => !floor_holds(since, keeper.fresh().await.floor),
            Err(_) => true,
        })
    }

    /// Messages after `at`, at least one, unless the last one has gone.
    async fn page_after(
        &self,
        route: &Route,
        at: Offset,
        last: Offset,
    ) -> Result<Vec<Message<Publication>>, HistoryError> {
        let (max_messages, max_bytes) = self.reader.page_size();
        for _ in 0..=self.reader.short_reads() {
            let page = self
                .reader
                .read(route, at + 1, max_messages, max_bytes)
                .await
                .map_err(refused)?;
            let ends_below = page.pending == 0 && page.messages.last().is_none_or(|end| end.seq < last);
            if !ends_below {
                return Ok(page
                    .messages
                    .into_iter()
                    .map(|stored| Message::of(stored, |it| it))
                    .collect());
            }
        }
        // The replicas lag: the leader knows.
        let next = self.reader.read_leader(route, at + 1).await.map_err(refused)?;
        Ok(next
            .into_iter()
            .map(|stored| Message::of(stored, |it| it))
            .collect())
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
        if let Some(to_ms) = read.to_ms {
            let first = self.log.first_since(keeper.spec().id, to_ms).await;
            match first {
                Ok(Some(first)) => end = end.min(first),
                Ok(None) => {}
                Err(_) => return Err(HistoryError::TimedOut),
            }
        }
        let behind = if end > last {
            0
        } else {
            self.count_from(route, end).await?
        };
        let wanted = read.limit as u64;
        // `low` has at least as many as wanted (or is the beginning), `high` has fewer.
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
        let mut newest = std::collections::VecDeque::new();
        let mut more = low > 1;
        let mut at = low.saturating_sub(1);
        'pages: while at < last {
            let found = self.page_after(route, at, last).await?;
            let Some(page_end) = found.last().map(Message::offset) else {
                break;
            };
            at = page_end;
            for message in found {
                if message.offset() >= end {
                    break 'pages;
                }
                let Message::Publication(publication) = message else {
                    continue;
                };
                if read.from_ms.is_some_and(|from| publication.time_ms < from) {
                    more = false;
                    continue;
                }
                newest.push_back(publication);
                if newest.len() > read.limit {
                    newest.pop_front();
                    more = true;
                }
            }
        }
        let mut gathered = Gathered {
            more,
            ..Gathered::default()
        };
        for publication in newest.into_iter().rev() {
            if gathered.bytes >= self.limits.page_bytes {
                gathered.more = true;
                break;
            }
            gathered.push(publication);
        }
        Ok(gathered)
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
