use std::time::{Duration, Instant};

/// Of how much below the threshold a quota must be used for a warning to be given again.
const CALM_PERCENT: u64 = 10;

/// When to warn of a quota: once, and again only after it was used clearly less for a moment, and not for
/// a while. Pure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarm {
    raised: bool,
    last: Option<Instant>,
}

impl Alarm {
    /// So many percent are used; whether to warn now. `warn_at` is not 0.
    pub fn judge(&mut self, percent: u64, warn_at: u64, now: Instant, pause: Duration) -> bool {
        if percent < warn_at.saturating_sub(CALM_PERCENT).max(1) {
            self.raised = false;
        }
        if percent < warn_at || self.raised {
            return false;
        }
        self.raised = true;
        let rested = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= pause);
        if rested {
            self.last = Some(now);
        }
        rested
    }
}

/// How much of `limit` is `used`, in percent.
pub fn percent(used: u64, limit: u64) -> u64 {
    match limit {
        0 => 100,
        limit => u64::try_from(u128::from(used) * 100 / u128::from(limit)).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_warns_once_and_again_only_after_a_calm_and_a_pause() {
        let (start, pause, mut alarm) = (Instant::now(), Duration::from_secs(100), Alarm::default());
        for (at, percent, warns) in [
            (0, 79, false),
            (1, 80, true),
            (2, 100, false),
            (3, 75, false),
            (4, 85, false),
            // Calm, but it was warned of a moment ago.
            (5, 69, false),
            (6, 80, false),
            (105, 90, false),
            (106, 0, false),
            (107, 80, true),
        ] {
            let now = start + Duration::from_secs(at);
            assert_eq!(alarm.judge(percent, 80, now, pause), warns, "at {at} s");
        }
    }

    #[test]
    fn a_part_is_percent() {
        assert_eq!([percent(4, 5), percent(1, 3), percent(9, 0)], [80, 33, 100]);
        assert_eq!(percent(u64::MAX, 1), u64::MAX);
    }
}
