use std::time::Duration;

use super::{
    counts::{Count, Counts, TRIES},
    meter::Meter,
    month::{Addition, Month, Stored},
};
use crate::{
    log::BucketName,
    model::{AppId, NodeId},
};

/// How long a count stays that nobody adds to: longer than any month.
const STAYS: Duration = Duration::from_hours(24 * 40);

impl Count for Month {
    type Stored = Stored;
    type Addition = Addition;

    const BUCKET: BucketName = BucketName::Months;

    fn of<T>(meter: &Meter, with: impl FnOnce(&mut Self) -> T) -> Option<T> {
        meter.month(with)
    }

    fn addition(&mut self) -> Option<Addition> {
        self.addition()
    }

    fn with(
        before: Option<&Stored>,
        me: NodeId,
        addition: &Addition,
        _: i64,
        lives: impl Fn(NodeId) -> bool,
    ) -> Option<Stored> {
        Stored::with(before, me, addition, lives)
    }

    fn stays(_: &Stored, _: i64) -> Duration {
        STAYS
    }

    fn on_read(&mut self, stored: &Stored, revision: u64, me: NodeId) {
        self.on_read(stored, revision, me);
    }

    fn on_stored(&mut self, stored: &Stored, revision: u64, me: NodeId) {
        self.on_stored(stored, revision, me);
    }

    fn on_nothing(&mut self) {
        self.on_nothing();
    }

    fn is_known(&self) -> bool {
        self.is_known()
    }

    fn give_up(&mut self, addition: &Addition) {
        self.give_up(addition);
    }
}

impl Counts<Month> {
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
}
