//! Every task of the process is spawned here: counted, so that drain can wait for it, and stopped
//! by one token.

use std::future::Future;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::{future::FutureExt, sync::CancellationToken, task::TaskTracker};

/// Does what takes a thread for milliseconds, here and now: the other tasks of this thread go on elsewhere
/// meanwhile, if there are other threads.
pub fn long<T>(work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match runtime {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The tasks of one node. Cheap to clone; two nodes in one process have one each.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs `future` to its end, or until the node has drained.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let future = self.tracker.track_future(future);
        // Not `select!` in an async block: that would hold the future twice, before and after it
        // is moved, and there are as many of some as there are channels.
        tokio::spawn(future.with_cancellation_token_owned(self.stop.clone()));
    }

    /// Runs `future` to its end; [`Tasks::stop`] does not reach it. For those that are told to end
    /// in another way, and of which there are so many that the difference counts.
    #[expect(clippy::disallowed_methods, reason = "this is the other place")]
    pub fn spawn_unstopped(&self, future: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tracker.track_future(future));
    }

    /// Runs `work` on a thread where it may block, and waits for it; [`Tasks::stop`] does not reach it. If
    /// the caller goes away it runs to its end all the same. The caller bounds how many there are. `None` if
    /// it panicked, or the runtime is ending.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let work = tokio::task::spawn_blocking(work);
        self.tracker.track_future(work).await.ok()
    }

    /// How many tasks are running.
    pub fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until all tasks have ended by themselves. More may be spawned meanwhile.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Ends all tasks at their next await.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}
