//! Publishing with pipelined acknowledgements (L14), on a link of its own, so that neither live copies
//! nor catch-up reads stand in an acknowledgement's way.
//!
//! All replies come to one wildcard inbox; the last token of the reply subject names the slot of
//! the publish that waits. This is cheaper than a request of async-nats, which formats an id, walks
//! a map and arms a timer for each message.

mod ack;
mod pending;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::HeaderMap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::pending::{Pending, Token};
use super::{
    error::StartError,
    format::Names,
    link::{Link, NotSent, Purpose, Raw},
};
use crate::{
    config::{LogConfig, NatsConfig},
    log::{Ack, PublishError},
    task::Tasks,
};

type Waiter = oneshot::Sender<Result<Ack, PublishError>>;

/// Acknowledgements are timed in this many steps: a timeout is late by one at most.
const TICKS: u32 = 8;

/// The publishing side of the log.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Link,
    pending: Arc<Mutex<Pending<Waiter>>>,
}

impl Publisher {
    /// Connects, and starts the task that watches the time.
    ///
    /// # Errors
    ///
    /// If no server can be reached now, or none accepts us.
    pub(super) async fn start(
        nats: &NatsConfig,
        log: &LogConfig,
        names: &Names,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let pending = Arc::new(Mutex::new(Pending::new(log.max_in_flight, TICKS.into())));
        let purpose = Purpose::Publish {
            // A publication waits to be written, so that queue is never what ends the flight of one.
            commands: nats.command_capacity.max(log.max_in_flight),
            on_answer: Box::new({
                let pending = pending.clone();
                move |token, reply| acknowledge(&pending, token, reply)
            }),
        };
        let link = Link::start(nats, names, purpose, tasks).await?;
        let tick = (log.ack_timeout / TICKS).max(Duration::from_millis(1));
        tasks.spawn({
            let pending = pending.clone();
            async move {
                let mut ticks = tokio::time::interval(tick);
                loop {
                    ticks.tick().await;
                    let expired = pending.lock().tick();
                    for waiter in expired {
                        // Nobody waits any more if this fails.
                        let _ = waiter.send(Err(PublishError::Unknown));
                    }
                }
            }
        });
        Ok(Self { link, pending })
    }

    /// Publishes to a subject of a stream. Never waits: the message has its place in the
    /// connection's queue when this returns, or an error says that it has not been sent.
    pub(super) fn publish(
        &self,
        subject: &str,
        headers: &HeaderMap,
        payload: &[u8],
    ) -> Result<Acknowledged, PublishError> {
        let (waiter, answer) = oneshot::channel();
        let Some(token) = self.pending.lock().insert(waiter) else {
            return Err(PublishError::Unavailable(
                "too many publications are on their way",
            ));
        };
        if let Err(error) = self.link.publish(subject, Some(token), headers, payload) {
            self.pending.lock().take(token);
            return Err(error.into());
        }
        Ok(Acknowledged(answer))
    }

    /// Publishes to a subject that no stream stores (L16).
    pub(super) fn send(
        &self,
        subject: &str,
        headers: &HeaderMap,
        payload: &[u8],
    ) -> Result<(), PublishError> {
        Ok(self.link.publish(subject, None, headers, payload)?)
    }

    /// Publications without an answer yet.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.lock().len()
    }

    /// Whether there is a connection now.
    pub(super) fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Resolves when the server has all that was published before, or `limit` is over.
    pub(super) async fn flush(&self, limit: Duration) {
        // Without a connection there is nothing to wait for.
        let _ = self.link.round_trip(limit).await;
    }
}

impl From<NotSent> for PublishError {
    fn from(error: NotSent) -> Self {
        match error {
            NotSent::Disconnected => Self::Unavailable("there is no connection to NATS"),
            NotSent::Full => Self::Unavailable("the connection to NATS takes no more"),
            NotSent::TooLarge(limit) => {
                Self::Refused(format!("larger than the {limit} bytes that NATS takes"))
            }
        }
    }
}

/// Resolves with the acknowledgement of one publish.
#[derive(Debug)]
pub(super) struct Acknowledged(oneshot::Receiver<Result<Ack, PublishError>>);

impl Future for Acknowledged {
    type Output = Result<Ack, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A waiter that was dropped belongs to a node that stops: it was sent, nothing is known.
        self.0
            .poll_unpin(cx)
            .map(|answer| answer.unwrap_or(Err(PublishError::Unknown)))
    }
}

fn acknowledge(pending: &Mutex<Pending<Waiter>>, token: Token, reply: &Raw) {
    // The lock must be free again before a waiter is woken.
    let waiter = pending.lock().take(token);
    if let Some(waiter) = waiter {
        let outcome = if reply.is_no_responders() {
            Err(PublishError::Unavailable("the shard has no leader"))
        } else {
            ack::parse(&reply.payload())
        };
        // Nobody waits any more if this fails.
        let _ = waiter.send(outcome);
    }
}
