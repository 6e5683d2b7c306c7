//! What is to be sent, collected until everybody who is ready to publish has done so.
//!
//! async-nats writes as soon as its task runs, and tokio runs a task that was just woken next: one
//! publication would be one write, one read of nats-server, one turn of its stream. Here the first
//! one wakes a task that steps behind all others that can run, and takes what has come meanwhile:
//! under load most of the work per publication is shared, and a lone one is delayed by a turn of
//! the scheduler.

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};

use super::pending::Token;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Vec<Outgoing>>,
    filled: Notify,
    limit: usize,
}

/// In the order in which it is sent.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A message, and whose acknowledgement it asks for.
    Publication {
        token: Token,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
    },
    /// Somebody waits until all before it has been handed to the connection.
    Mark(oneshot::Sender<()>),
}

/// There are as many as may wait.
#[derive(Debug)]
pub(super) struct Full;

impl Outbox {
    /// An empty one for at most `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            limit,
        }
    }

    /// Puts a message behind the others.
    pub(super) fn push(&self, outgoing: Outgoing) -> Result<(), Full> {
        let mut queue = self.queue.lock();
        if queue.len() >= self.limit {
            return Err(Full);
        }
        queue.push(outgoing);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for messages and takes all of them into `batch`, which is empty.
    pub(super) async fn take(&self, batch: &mut Vec<Outgoing>) {
        self.filled.notified().await;
        yield_now().await;
        std::mem::swap(&mut *self.queue.lock(), batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Outgoing {
        Outgoing::Mark(oneshot::channel().0)
    }

    #[tokio::test]
    async fn all_that_is_ready_is_taken_at_once() {
        let outbox = Outbox::new(8);
        let mut batch = Vec::new();
        let others = async {
            for _ in 0..3 {
                outbox.push(mark()).unwrap();
                yield_now().await;
            }
        };
        outbox.push(mark()).unwrap();
        tokio::join!(outbox.take(&mut batch), others);
        let first = batch.len();
        assert!(first >= 2, "{first}");
        batch.clear();
        outbox.take(&mut batch).await;
        assert_eq!(first + batch.len(), 4);
    }

    #[tokio::test]
    async fn no_more_than_the_limit_wait() {
        let outbox = Outbox::new(2);
        outbox.push(mark()).unwrap();
        outbox.push(mark()).unwrap();
        outbox.push(mark()).unwrap_err();
        let mut batch = Vec::new();
        outbox.take(&mut batch).await;
        assert_eq!(batch.len(), 2);
        outbox.push(mark()).unwrap();
    }
}
