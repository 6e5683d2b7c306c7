//! Two deadlines where hyper has one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;

/// The clock of one connection's heads.
///
/// hyper arms one deadline, its `header_read_timeout`, whenever it begins to wait for a request's
/// head: on a new connection, and on a kept-alive one as soon as a response is complete. The
/// first is a deadline for headers, the second mostly for silence, so that one figure cannot be
/// right for both. This timer takes hyper's deadline for the first head and `idle_timeout` for
/// each further one. A client that trickles a further head thus gains nothing over an idle one.
///
/// hyper also lets go of each deadline when it is met. The runtime's timer behind it is kept for the
/// next one: moving it to later is an atomic operation, where a new one takes a lock to be
/// registered and again to be removed, for every request.
#[derive(Debug)]
pub(super) struct HeadTimer {
    idle_timeout: Duration,
    kept: Kept,
}

/// The timer of a connection while hyper does not use it; absent before the first head.
type Kept = Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>;

/// A deadline that hyper holds.
struct HeadSleep {
    /// Present until it is dropped.
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    home: Kept,
}

impl HeadTimer {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            kept: Kept::default(),
        }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let kept = self.kept.lock().take();
        let sleep = match kept {
            None => Box::pin(tokio::time::sleep_until(deadline.into())),
            Some(mut sleep) => {
                let deadline = tokio::time::Instant::now() + self.idle_timeout;
                sleep.as_mut().reset(deadline);
                sleep
            }
        };
        Box::pin(HeadSleep {
            sleep: Some(sleep),
            home: self.kept.clone(),
        })
    }
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        *self.home.lock() = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_head_has_its_own_deadline() {
        let timer = HeadTimer::new(Duration::from_secs(60));
        for seconds in [10, 60, 60] {
            let began = Instant::now();
            timer.sleep(Duration::from_secs(10)).await;
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_met_counts_for_nothing() {
        let timer = HeadTimer::new(Duration::from_secs(60));
        for _ in 0..3 {
            let met = timeout(Duration::from_secs(9), timer.sleep(Duration::from_secs(10)));
            met.await.unwrap_err();
        }
        let began = Instant::now();
        timer.sleep(Duration::from_secs(10)).await;
        assert_eq!(began.elapsed().as_secs(), 60);
    }
}
