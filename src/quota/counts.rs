//! Counts of apps, added up by all nodes in a bucket that they share.

use std::{future::poll_fn, marker::PhantomData, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::timeout};
use tracing::warn;

use super::{meter::Meter, meters::Meters};
use crate::{
    cluster::Nodes,
    log::{Bucket, BucketEntry, BucketName, Change, Changes, Log, ReadError},
    model::{AppId, NodeId},
    task::Tasks,
};

/// Attempts of one write while other nodes are faster; then it is for the next time.
pub(super) const TRIES: usize = 8;
/// Apps whose counts are written at once.
const AT_ONCE: usize = 16;

/// What this node knows of a count of an app: the decisions, pure.
pub(super) trait Count: 'static {
    /// The count as it is stored, for all nodes.
    type Stored: Serialize + DeserializeOwned + Send + Sync;
    /// What a node is about to add.
    type Addition: Clone + PartialEq + Send + Sync;

    /// Where it is stored.
    const BUCKET: BucketName;

    /// That of a meter's app, if there is a quota for it.
    fn of<T>(meter: &Meter, with: impl FnOnce(&mut Self) -> T) -> Option<T>;

    /// What is to be stored now: what could not be before, or else all that is not.
    fn addition(&mut self) -> Option<Self::Addition>;

    /// What is to be stored instead of `before` at this time (ms since 1970), so that `addition` of the node `me`
    /// is in it; `None` if it is already, or must not be.
    fn with(
        before: Option<&Self::Stored>,
        me: NodeId,
        addition: &Self::Addition,
        ms: i64,
        lives: impl Fn(NodeId) -> bool,
    ) -> Option<Self::Stored>;

    /// How long a count stays that nobody adds to, from this time on.
    fn stays(stored: &Self::Stored, ms: i64) -> Duration;

    /// What the leader has stored now.
    fn on_read(&mut self, stored: &Self::Stored, revision: u64, me: NodeId);

    /// This is stored, by whichever node. It may be told late, and again.
    fn on_stored(&mut self, stored: &Self::Stored, revision: u64, me: NodeId);

    /// Nothing is stored yet.
    fn on_nothing(&mut self);

    /// Whether somebody has looked what is stored.
    fn is_known(&self) -> bool;

    /// What was to be added will not be.
    fn give_up(&mut self, addition: &Self::Addition);
}

/// See the module's documentation.
pub(super) struct Counts<C> {
    log: Arc<dyn Log>,
    bucket: Arc<dyn Bucket>,
    nodes: Arc<Nodes>,
    meters: Arc<Meters>,
    me: NodeId,
    count: PhantomData<fn() -> C>,
}

impl<C: Count> Counts<C> {
    pub(super) fn new(log: &Arc<dyn Log>, nodes: Arc<Nodes>, meters: Arc<Meters>) -> Self {
        Self {
            bucket: log.bucket(C::BUCKET),
            me: log.node(),
            log: log.clone(),
            nodes,
            meters,
            count: PhantomData,
        }
    }

    /// Reads all counts, and follows them from now on.
    pub(super) async fn start(&self, patience: Duration, tasks: &Tasks) {
        let current = watch::Sender::new(false);
        let mut is_current = current.subscribe();
        let meters = self.meters.clone();
        tasks.spawn(follow::<C>(self.bucket.watch(), meters, self.me, current));
        let read = timeout(patience, is_current.wait_for(|current| *current)).await;
        if !matches!(read, Ok(Ok(_))) {
            let bucket = C::BUCKET.as_str();
            warn!(bucket, "the counts of apps are not known yet; going on without");
        }
    }

    /// Stores what was counted since the last time.
    pub(super) async fn flush(&self) {
        let all = self.meters.limited().into_iter().filter_map(|(app, _, meter)| {
            let (addition, known) = C::of(&meter, |count| (count.addition(), count.is_known()))?;
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
                    tracing::debug!(%app, bucket = C::BUCKET.as_str(), %why, "a count was not stored");
                }
            })
            .await;
    }

    async fn add(&self, app: &AppId, meter: &Meter, addition: &C::Addition) -> Result<(), ReadError> {
        for _ in 0..TRIES {
            let (before, revision) = self.read(app, meter).await?;
            let under_way = C::of(meter, C::addition).flatten();
            if under_way.as_ref() != Some(addition) {
                // An earlier attempt had done it.
                return Ok(());
            }
            let lives = |node| self.lives(node);
            let ms = self.log.now_ms();
            let Some(stored) = C::with(before.as_ref(), self.me, addition, ms, lives) else {
                C::of(meter, |count| count.give_up(addition));
                return Ok(());
            };
            if self.write(app, meter, &stored, revision).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) async fn read(
        &self,
        app: &AppId,
        meter: &Meter,
    ) -> Result<(Option<C::Stored>, u64), ReadError> {
        let entry = self.bucket.get(app.as_str()).await?;
        let stored = parse::<C>(&entry);
        C::of(meter, |count| match &stored {
            Some(stored) => count.on_read(stored, entry.revision, self.me),
            None => count.on_nothing(),
        });
        Ok((stored, entry.revision))
    }

    /// False if another node was faster.
    pub(super) async fn write(
        &self,
        app: &AppId,
        meter: &Meter,
        stored: &C::Stored,
        revision: u64,
    ) -> Result<bool, ReadError> {
        let value = serde_json::to_vec(stored).map_err(|error| ReadError::Failed(error.to_string()))?;
        let stays = C::stays(stored, self.log.now_ms());
        let set = self.bucket.set(app.as_str(), value.into(), revision, Some(stays));
        let Some(revision) = set.await? else {
            return Ok(false);
        };
        C::of(meter, |count| count.on_stored(stored, revision, self.me));
        Ok(true)
    }

    fn lives(&self, node: NodeId) -> bool {
        // Before the leases are known everybody may live.
        !self.nodes.is_current()
            || node == self.me
            || self.nodes.others().iter().any(|(other, _)| *other == node)
    }
}

async fn follow<C: Count>(
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
                if let (Some(meter), Some(stored)) = (meter, parse::<C>(&entry)) {
                    C::of(&meter, |count| count.on_stored(&stored, entry.revision, me));
                }
            }
            Change::Current => {
                current.send_replace(true);
            }
        }
    }
}

fn parse<C: Count>(entry: &BucketEntry) -> Option<C::Stored> {
    serde_json::from_slice(entry.value.as_ref()?).ok()
}
