//! The counts of months, added up by all nodes in a bucket that they share.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::{sync::watch, time::timeout};
use tracing::warn;

use super::{
    meter::Meter,
    meters::Meters,
    month::{Addition, MonthOf, Stored},
};
use crate::{
    cluster::Nodes,
    log::{Bucket, BucketEntry, BucketName, Change, Changes, Log, ReadError},
    model::{AppId, NodeId},
    task::Tasks,
};

/// Attempts of one write while other nodes are faster; then it is for the next time.
const TRIES: usize = 8;
/// Apps whose counts are written at once.
const AT_ONCE: usize = 16;
/// How long a count stays that nobody adds to: longer than any month.
const STAYS: Duration = Duration::from_hours(24 * 40);

/// See the module's documentation.
pub(super) struct Months {
    bucket: Arc<dyn Bucket>,
    nodes: Arc<Nodes>,
    meters: Arc<Meters>,
    me: NodeId,
}

impl Months {
    pub(super) fn new(log: &Arc<dyn Log>, nodes: Arc<Nodes>, meters: Arc<Meters>) -> Self {
        Self {
            bucket: log.bucket(BucketName::Months),
            me: log.node(),
            nodes,
            meters,
        }
    }

    /// Reads all counts, and follows them from now on.
    pub(super) async fn start(&self, patience: Duration, tasks: &Tasks) {
        let current = watch::Sender::new(false);
        let mut is_current = current.subscribe();
        tasks.spawn(follow(self.bucket.watch(), self.meters.clone(), self.me, current));
        let read = timeout(patience, is_current.wait_for(|current| *current)).await;
        if !matches!(read, Ok(Ok(_))) {
            warn!("the month's counts of apps are not known yet; going on without");
        }
    }

    /// It is this time, ms since 1970.
    pub(super) fn turn(&self, ms: i64) {
        let (month, left) = MonthOf::at(ms);
        let now = Instant::now();
        let ends = now.checked_add(left).unwrap_or(now);
        for (_, _, meter) in self.meters.limited() {
            meter.month(|known| known.turn(month, ends));
        }
    }

    /// Stores what was admitted since the last time.
    pub(super) async fn flush(&self) {
        let all = self.meters.limited().into_iter().filter_map(|(app, _, meter)| {
            let (addition, known) = meter.month(|month| (month.addition(), month.is_known()))?;
            (addition.is_some() || !known).then_some((app, meter, addition))
        });
        stream::iter(all)
            .for_each_concurrent(AT_ONCE, |(app, meter, addition)| async move {
                let done = match addition {
                    Some(addition) => self.add(&app, &meter, &addition).await,
                    None => self.read(&app, &meter).await.map(|_| ()),
                };
                if let Err(why) = done {
                    // It stays what is to be added, and is tried again.
                    tracing::debug!(%app, %why, "the count of a month was not stored");
                }
            })
            .await;
    }

    async fn add(&self, app: &AppId, meter: &Meter, addition: &Addition) -> Result<(), ReadError> {
        for _ in 0..TRIES {
            let (before, revision) = self.read(app, meter).await?;
            let under_way = meter.month(|month| month.addition()).flatten();
            if under_way != Some(*addition) {
                // An earlier attempt had done it.
                return Ok(());
            }
            let lives = |node| self.lives(node);
            let Some(stored) = Stored::with(before.as_ref(), self.me, addition, lives) else {
                meter.month(|month| month.give_up(addition));
                return Ok(());
            };
            if self.write(app, meter, &stored, revision).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes down that this node warns of the month; false if another has, or it cannot be written.
    pub(super) async fn mark_warned(&self, app: &AppId, meter: &Meter) -> bool {
        for _ in 0..TRIES {
            let Ok((before, revision)) = self.read(app, meter).await else {
                return false;
            };
            // What was counted but not stored yet is stored first.
            let Some(before) = before else { return false };
            let seen = meter.month(|month| (month.current(), month.is_warned(), month.limit()));
            let Some((Some(month), false, limit)) = seen else {
                return false;
            };
            if before.month != month {
                return false;
            }
            let stored = Stored {
                warned: limit,
                ..before
            };
            match self.write(app, meter, &stored, revision).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(_) => return false,
            }
        }
        false
    }

    async fn read(&self, app: &AppId, meter: &Meter) -> Result<(Option<Stored>, u64), ReadError> {
        let entry = self.bucket.get(app.as_str()).await?;
        let stored = parse(&entry);
        meter.month(|month| match &stored {
            Some(stored) => month.on_read(stored, entry.revision, self.me),
            None => month.on_nothing(),
        });
        Ok((stored, entry.revision))
    }

    /// False if another node was faster.
    async fn write(
        &self,
        app: &AppId,
        meter: &Meter,
        stored: &Stored,
        revision: u64,
    ) -> Result<bool, ReadError> {
        let value = serde_json::to_vec(stored).map_err(|error| ReadError::Failed(error.to_string()))?;
        let set = self.bucket.set(app.as_str(), value.into(), revision, Some(STAYS));
        let Some(revision) = set.await? else {
            return Ok(false);
        };
        meter.month(|month| month.on_stored(stored, revision, self.me));
        Ok(true)
    }

    fn lives(&self, node: NodeId) -> bool {
        // Before the leases are known everybody may live.
        !self.nodes.is_current()
            || node == self.me
            || self.nodes.others().iter().any(|(other, _)| *other == node)
    }
}

async fn follow(
    mut changes: Box<dyn Changes>,
    meters: Arc<Meters>,
    me: NodeId,
    current: watch::Sender<bool>,
) {
    while let Some(change) = poll_fn(|cx| changes.poll_next(cx)).await {
        match change {
            Change::Begin => {}
            Change::Entry { key, entry } => {
                let app = AppId::new(&key).ok();
                let meter = app.and_then(|app| meters.get(&app));
                if let (Some(meter), Some(stored)) = (meter, parse(&entry)) {
                    meter.month(|month| month.on_stored(&stored, entry.revision, me));
                }
            }
            Change::Current => {
                current.send_replace(true);
            }
        }
    }
}

fn parse(entry: &BucketEntry) -> Option<Stored> {
    serde_json::from_slice(entry.value.as_ref()?).ok()
}
