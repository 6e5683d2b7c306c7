use std::time::{Duration, Instant};

/// Admission by queue delay, in the manner of CoDel (RFC 8289): a queue that is long for a moment does
/// its work, one that stays long means more comes than is done. What is measured is how long each that
/// was admitted had to wait before it was served.
///
/// While every wait was above the target for an interval, nobody is admitted but one in each interval,
/// whose wait tells whether it is over.
#[derive(Clone, Debug)]
pub struct DelayGate {
    target: Duration,
    interval: Duration,
    /// Since when all waits have been above the target.
    above: Option<Instant>,
    /// The last wait that was above.
    last: Option<Instant>,
    /// Shut: when the next one is let in.
    next: Option<Instant>,
}

impl DelayGate {
    /// An open gate. A target of zero never shuts it.
    pub fn new(target: Duration, interval: Duration) -> Self {
        Self {
            target,
            interval: interval.max(Duration::from_millis(1)),
            above: None,
            last: None,
            next: None,
        }
    }

    /// One that was admitted has waited for `wait`.
    pub fn waited(&mut self, now: Instant, wait: Duration) {
        if self.target.is_zero() {
            return;
        }
        if wait <= self.target {
            (self.above, self.next) = (None, None);
            return;
        }
        // Two slow ones with nothing in between say nothing about the time between them.
        let goes_on = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) <= self.interval);
        self.last = Some(now);
        let since = *self.above.get_or_insert(now);
        if self.next.is_some() {
            return;
        }
        if !goes_on {
            self.above = Some(now);
        } else if now.saturating_duration_since(since) >= self.interval {
            self.next = now.checked_add(self.interval);
        }
    }

    /// Whether one more may come.
    ///
    /// # Errors
    ///
    /// When to come again.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.next {
            Some(next) if now < next => Err(next.saturating_duration_since(now)),
            Some(_) => {
                self.next = now.checked_add(self.interval);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether it is shut.
    pub fn is_shut(&self) -> bool {
        self.next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn gate() -> DelayGate {
        DelayGate::new(ms(10), ms(100))
    }

    #[test]
    fn it_shuts_when_waits_stay_long_and_opens_when_one_is_short() {
        let (start, mut gate) = (Instant::now(), gate());
        for (at, wait, shut) in [
            (0, 50, false),
            (60, 50, false),
            (99, 50, false),
            (100, 50, true),
            (110, 50, true),
            (120, 10, false),
            (130, 50, false),
            (229, 50, false),
            (230, 50, true),
        ] {
            gate.waited(start + ms(at), ms(wait));
            assert_eq!(gate.is_shut(), shut, "at {at} ms");
        }
    }

    #[test]
    fn while_shut_one_is_let_in_for_each_interval() {
        let (start, mut gate) = (Instant::now(), gate());
        for at in [0, 50, 100] {
            gate.waited(start + ms(at), ms(50));
        }
        assert_eq!(gate.admit(start + ms(120)), Err(ms(80)));
        assert_eq!(gate.admit(start + ms(200)), Ok(()));
        assert_eq!(gate.admit(start + ms(200)), Err(ms(100)));
        // It waited long, too.
        gate.waited(start + ms(290), ms(90));
        assert_eq!(gate.admit(start + ms(299)), Err(ms(1)));
        assert_eq!(gate.admit(start + ms(300)), Ok(()));
        gate.waited(start + ms(301), ms(1));
        assert_eq!(gate.admit(start + ms(301)), Ok(()));
    }

    #[test]
    fn slow_ones_far_apart_are_no_queue() {
        let (start, mut gate) = (Instant::now(), gate());
        for at in (0..100).map(|n| n * 101) {
            gate.waited(start + ms(at), ms(500));
            assert!(!gate.is_shut());
        }
    }

    #[test]
    fn a_target_of_zero_is_off() {
        let (start, mut gate) = (Instant::now(), DelayGate::new(ms(0), ms(100)));
        for at in 0..500 {
            gate.waited(start + ms(at), ms(5000));
        }
        assert_eq!(gate.admit(start), Ok(()));
    }

    proptest! {
        /// It never shuts without an interval of nothing but long waits, never locks out for longer than
        /// an interval, and one short wait always opens it.
        #[test]
        fn it_never_locks_out(events in prop::collection::vec((0_u64..80, 0_u64..20), 1..200)) {
            let (start, mut gate) = (Instant::now(), gate());
            let (mut at, mut long_since) = (0, None);
            for (gap, wait) in events {
                at += gap;
                let now = start + ms(at);
                if let Err(again) = gate.admit(now) {
                    prop_assert!(again <= ms(100));
                    prop_assert!(gate.clone().admit(now + again).is_ok());
                }
                gate.waited(now, ms(wait));
                if wait <= 10 {
                    long_since = None;
                    prop_assert!(!gate.is_shut());
                } else {
                    let since = *long_since.get_or_insert(at);
                    prop_assert!(!gate.is_shut() || at - since >= 100);
                }
            }
        }
    }
}
