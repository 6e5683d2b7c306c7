//! Threads that own a connection each and do what is queued for them.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{
    super::{OpenError, StoreError, queue::Queue},
    late,
    rows::failed,
};

/// Writes that share one transaction, and so one flush to the disk.
const GROUP: usize = 128;

type Jobs = Queue<Box<dyn Job>>;

/// Something to do on a connection, and somebody who waits for its outcome.
pub(super) trait Job: Send {
    /// Whether nobody waits any more.
    fn is_abandoned(&self) -> bool;
    /// Does it. False if it failed, and whatever it has changed must be undone.
    fn run(&mut self, db: &Connection) -> bool;
    /// Tells the outcome, or `error`: what it did could not be kept.
    fn finish(self: Box<Self>, error: Option<StoreError>);
}

struct Work<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Work<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, db: &Connection) -> bool {
        self.outcome = self.work.take().map(|work| work(db));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, error: Option<StoreError>) {
        let outcome = match (error, self.outcome) {
            // A job that failed by itself knows better why.
            (_, Some(Err(error))) | (Some(error), _) => Err(error),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(StoreError::Unavailable("it was not begun".to_owned())),
        };
        // Nobody may wait any more.
        let _ = self.answer.send(outcome);
    }
}

/// Threads that share a queue. When it is dropped they do what is in it, close their connections and end.
pub(super) struct Pool {
    jobs: Arc<Jobs>,
    timeout: Duration,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `count` threads, which open their connections by themselves.
    pub(super) async fn start(
        name: &str,
        count: usize,
        capacity: usize,
        timeout: Duration,
        open: Arc<dyn Fn() -> Result<Connection, OpenError> + Send + Sync>,
        serve: fn(&mut Connection, &Jobs),
    ) -> Result<Self, OpenError> {
        let mut pool = Self {
            jobs: Arc::new(Queue::new(capacity)),
            timeout,
            threads: Vec::new(),
        };
        let closes = Arc::new(Closes(pool.jobs.clone()));
        for index in 0..count {
            let (tell, opened) = oneshot::channel();
            let (jobs, open, closes) = (pool.jobs.clone(), open.clone(), closes.clone());
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    let mut db = match open() {
                        Ok(db) => db,
                        Err(error) => {
                            let _ = tell.send(Err(error));
                            return;
                        }
                    };
                    let _ = tell.send(Ok(()));
                    let _closes = closes;
                    serve(&mut db, &jobs);
                });
            pool.threads.push(thread.map_err(OpenError::Thread)?);
            opened
                .await
                .unwrap_or_else(|_| Err(StoreError::Failed("its thread has ended".to_owned()).into()))?;
        }
        Ok(pool)
    }

    /// Has `work` done by one of the threads.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the queue is full or the answer is late.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Work {
            work: Some(work),
            outcome: None,
            answer,
        };
        if !self.jobs.push(Box::new(job)) {
            return Err(StoreError::Unavailable("its queue is full".to_owned()));
        }
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Unavailable("its thread has ended".to_owned())),
            Err(_) => Err(late(self.timeout)),
        }
    }
}

/// Closes a queue when the last thread has ended, by a panic too: nobody must wait for what nobody does.
struct Closes(Arc<Jobs>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs.close();
        for thread in self.threads.drain(..) {
            // One that has panicked has nothing left to close.
            let _ = thread.join();
        }
    }
}

/// Reads until the queue is closed.
pub(super) fn read(db: &mut Connection, jobs: &Jobs) {
    while let Some(group) = jobs.pop(1) {
        for mut job in group {
            if !job.is_abandoned() {
                job.run(db);
                job.finish(None);
            }
        }
    }
}

/// Writes until the queue is closed: all that waits in one transaction, each in a savepoint of its own, so
/// that one that fails undoes nothing of the others. Nobody hears of an outcome before it is on the disk.
pub(super) fn write(db: &mut Connection, jobs: &Jobs) {
    while let Some(mut group) = jobs.pop(GROUP) {
        group.retain(|job| !job.is_abandoned());
        if group.is_empty() {
            continue;
        }
        let error = commit(db, &mut group).err();
        for job in group {
            job.finish(error.clone());
        }
    }
}

fn commit(db: &mut Connection, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let immediate = TransactionBehavior::Immediate;
    let mut transaction = db.transaction_with_behavior(immediate).map_err(failed)?;
    for job in group {
        let savepoint = transaction.savepoint().map_err(failed)?;
        if job.run(&savepoint) {
            savepoint.commit().map_err(failed)?;
        } else {
            drop(savepoint);
            // After some errors (a full disk, no memory) SQLite has rolled back all of it by itself: what came
            // next would be committed one by one, and then be said to have failed.
            if transaction.is_autocommit() {
                return Err(StoreError::Unavailable(
                    "the transaction was rolled back".to_owned(),
                ));
            }
        }
    }
    transaction.commit().map_err(failed)
}
