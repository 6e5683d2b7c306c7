//! Requests and their answers over one wildcard subscription of an async-nats connection. Why not
//! its own requests: those that time out stay in its map for ever.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{Client, HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::patience::{Unanswered, Waits};
use crate::{config::NatsConfig, task::Tasks};

/// The answers to one connection's requests.
#[derive(Debug)]
pub(super) struct Inbox {
    client: Client,
    /// With its dot: what stands before a request's number.
    prefix: String,
    next: AtomicU64,
    waiting: Arc<Mutex<Waiting>>,
    waits: Waits,
}

/// By number. There are as many as there are callers: their number is bounded there.
type Waiting = HashMap<u64, oneshot::Sender<Message>>;

impl Inbox {
    /// Subscribes, and starts the task that sorts the answers.
    pub(super) async fn start(
        client: Client,
        nats: &NatsConfig,
        tasks: &Tasks,
    ) -> Result<Self, async_nats::SubscribeError> {
        let prefix = format!("{}.", client.new_inbox());
        let mut answers = client.subscribe(format!("{prefix}*")).await?;
        let waiting = Arc::new(Mutex::new(HashMap::new()));
        tasks.spawn({
            let (waiting, prefix) = (waiting.clone(), prefix.clone());
            async move {
                while let Some(answer) = answers.next().await {
                    sort(&waiting, &prefix, answer);
                }
            }
        });
        Ok(Self {
            client,
            prefix,
            next: AtomicU64::new(0),
            waiting,
            waits: Waits::new(nats),
        })
    }

    /// The one message that answers a request, if it comes in time.
    pub(super) async fn one(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Message, Unanswered> {
        let (request, done) = self.register();
        let answer = self.waits.within(async |limit| {
            let answer = timeout(limit, async {
                self.send(&request, subject, headers, payload).await?;
                done.await.map_err(|_| Unanswered::Silence)
            });
            answer.await.unwrap_or(Err(Unanswered::Silence))
        });
        match answer.await? {
            message if message.status == Some(StatusCode::NO_RESPONDERS) => Err(Unanswered::NoResponders),
            message => Ok(message),
        }
    }

    /// Sends a message to itself: when it is back, the server has handled all that was sent over this
    /// connection before.
    pub(super) async fn round_trip(&self) -> Result<(), Unanswered> {
        let (request, done) = self.register();
        let back = self.waits.within(async |limit| {
            let back = timeout(limit, async {
                let subject = format!("{}{}", self.prefix, request.number);
                let sent = self.client.publish(Subject::from(subject), Bytes::new()).await;
                sent.map_err(|_| Unanswered::Silence)?;
                done.await.map_err(|_| Unanswered::Silence)
            });
            back.await.unwrap_or(Err(Unanswered::Silence))
        });
        back.await.map(drop)
    }

    fn register(&self) -> (Request<'_>, oneshot::Receiver<Message>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        self.waiting.lock().insert(number, done);
        (Request { inbox: self, number }, answer)
    }

    async fn send(
        &self,
        request: &Request<'_>,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), Unanswered> {
        let reply = format!("{}{}", self.prefix, request.number);
        self.client
            .publish_with_reply_and_headers(Subject::from(subject), Subject::from(reply), headers, payload)
            .await
            .map_err(|_| Unanswered::Silence)
    }
}

/// A registered request: unregistered when dropped, whether answered, given up or cancelled.
struct Request<'a> {
    inbox: &'a Inbox,
    number: u64,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.inbox.waiting.lock().remove(&self.number);
    }
}

fn sort(waiting: &Mutex<Waiting>, prefix: &str, answer: Message) {
    let number = answer
        .subject
        .strip_prefix(prefix)
        .and_then(|number| number.parse().ok());
    let waiter = number.and_then(|number: u64| waiting.lock().remove(&number));
    if let Some(waiter) = waiter {
        // Nobody waits any more if this fails.
        let _ = waiter.send(answer);
    }
}
