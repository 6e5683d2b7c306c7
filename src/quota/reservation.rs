use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::meter::Meter;

/// What a publication takes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of what its shard may store.
    pub bytes: u64,
    /// How long they are kept; `None` if nothing is stored.
    pub kept: Option<Duration>,
}

/// Room in an app's history for a publication that was admitted. It is given back when this is dropped, unless
/// the publication was sent: then it is used, until it is known that nothing was stored.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    /// `None` if no quota counts it.
    meter: Option<Arc<Meter>>,
    size: Size,
    stored: bool,
}

impl Reservation {
    /// Room that is charged to the meter.
    pub(super) fn of(meter: Option<Arc<Meter>>, size: Size) -> Self {
        Self {
            meter,
            size,
            stored: false,
        }
    }

    /// Whether the publication is stored, or may be. The last word counts.
    pub fn set_stored(&mut self, stored: bool) {
        self.stored = stored;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(meter) = &self.meter {
            let kept = self.size.kept.filter(|_| self.stored);
            meter.settle(self.size.bytes, kept, Instant::now());
        }
    }
}
