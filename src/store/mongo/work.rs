use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, oneshot};

use super::{super::StoreError, late};
use crate::{config::StoreConfig, task::Tasks};

/// Runs operations of the driver: so many at once, so many more that wait.
pub(super) struct Work {
    tasks: Tasks,
    timeout: Duration,
    under_way: Arc<Semaphore>,
    /// One for each that is under way or waits for it.
    admitted: Arc<Semaphore>,
}

impl Work {
    pub(super) fn new(config: &StoreConfig, tasks: &Tasks) -> Self {
        let admitted = config.max_in_flight.saturating_add(config.queue);
        Self {
            tasks: tasks.clone(),
            timeout: config.timeout,
            under_way: Arc::new(Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS))),
            admitted: Arc::new(Semaphore::new(admitted.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Runs `operation`. It runs to its end also when its answer is late: a future of the driver that is
    /// dropped can leave a connection in a state that the next operation pays for (RUST-937). It counts as
    /// under way until then.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if too many wait, or the answer is late.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Ok(admitted) = self.admitted.clone().try_acquire_owned() else {
            return Err(StoreError::Unavailable("its queue is full".to_owned()));
        };
        let answered = async {
            let Ok(under_way) = self.under_way.clone().acquire_owned().await else {
                return Err(StoreError::Unavailable("it is being closed".to_owned()));
            };
            let (answer, answered) = oneshot::channel();
            self.tasks.spawn_unstopped(async move {
                let outcome = operation.await;
                drop((under_way, admitted));
                // Nobody may wait any more.
                let _ = answer.send(outcome);
            });
            answered
                .await
                .unwrap_or_else(|_| Err(StoreError::Failed("its task has ended".to_owned())))
        };
        tokio::time::timeout(self.timeout, answered)
            .await
            .unwrap_or_else(|_| Err(late(self.timeout)))
    }
}
