//! The mark of an epoch: how far the store had come when a node last looked (L4). A store that has
//! gone back is found out by it.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::warn;

use super::{Keeper, RETRY_FIRST};
use crate::{log::EpochEntry, model::Offset};

/// How long a node that goes tries to write its marks.
const LAST_MARK: Duration = Duration::from_secs(3);

impl Keeper {
    /// Writes the mark every `every` while it moves (L4).
    pub async fn run_marks(self: Arc<Self>, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.write_mark().await;
        }
    }

    /// Writes the mark before the node goes. A connection may just be made anew: that is waited for,
    /// as what is not marked could be lost unnoticed.
    pub async fn write_last_mark(&self) {
        // What others store meanwhile is theirs to mark.
        let seen = self.seen();
        let written = async {
            while !self.is_marked(seen) {
                self.write_mark().await;
                if !self.is_marked(seen) {
                    sleep(RETRY_FIRST).await;
                }
            }
        };
        if timeout(LAST_MARK, written).await.is_err() {
            warn!(shard = %self.spec.stream, "the last mark could not be written");
        }
    }

    /// Whether the mark is at `seq` at least. There is none before an epoch is known.
    fn is_marked(&self, seq: Offset) -> bool {
        let state = self.state.lock();
        state.shard.epoch().is_none_or(|entry| seq <= entry.mark_seq)
    }

    /// Writes the mark if something has been stored since it was written.
    pub async fn write_mark(&self) {
        if self.is_marked(self.seen()) || !self.log.connected() {
            return;
        }
        let fresh = self.fresh().await;
        let Ok(info) = self.log.info(self.spec.id).await else {
            return;
        };
        let (entry, revision) = {
            let state = self.state.lock();
            let Some(known) = state.shard.epoch() else { return };
            let current = known.token == fresh.epoch && known.created == info.created;
            if !current || info.last_seq < fresh.last_seq || info.last_seq <= known.mark_seq {
                return;
            }
            let entry = EpochEntry {
                mark_seq: info.last_seq,
                mark_time_ms: info.last_time_ms,
                ..known.clone()
            };
            (entry, state.revision)
        };
        if self.log.set_epoch(self.spec.id, &entry, revision).await.is_ok() {
            // For its new revision, also if another node was faster. If this fails, the next does it.
            let _ = self.load().await;
        }
    }
}
