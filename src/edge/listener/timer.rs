//! Two deadlines where hyper has one.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

/// The clock of one connection's heads.
///
/// hyper arms one deadline, its `header_read_timeout`, whenever it begins to wait for a request's
/// head: on a new connection, and on a kept-alive one as soon as a response is complete. The
/// first is a deadline for headers, the second mostly for silence, so that one figure cannot be
/// right for both. This timer takes hyper's deadline for the first head and `idle_timeout` for
/// each further one. A client that trickles a further head thus gains nothing over an idle one.
#[derive(Debug)]
pub(super) struct HeadTimer {
    idle_timeout: Duration,
    is_first: AtomicBool,
}

impl HeadTimer {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            is_first: AtomicBool::new(true),
        }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        // Relaxed: a connection has one task.
        if self.is_first.swap(false, Ordering::Relaxed) {
            TokioTimer::new().sleep_until(deadline)
        } else {
            TokioTimer::new().sleep(self.idle_timeout)
        }
    }
}
