//! Requests and their answers over one wildcard subscription per connection. An answer is one
//! message, or many that end with a status.
//!
//! Why not requests of async-nats: those that time out stay in its map for ever, and it knows no
//! answers of many messages. Why not a subscription per read: two commands and a channel for each.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use crate::task::Tasks;

/// A request that has no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nothing (more) came in time.
    #[error("no answer")]
    Silence,
    /// Nobody listens on the request's subject.
    #[error("no server takes this request")]
    NoResponders,
}

/// The answers to one connection's requests.
#[derive(Debug)]
pub(super) struct Inbox {
    client: Client,
    /// With its dot: what stands before a request's number.
    prefix: String,
    next: AtomicU64,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
}

/// A request that waits. There are as many as there are callers: their number is bounded there.
#[derive(Debug)]
struct Waiting {
    messages: Vec<Message>,
    /// At most so many messages are kept; the answer is given up if more come.
    most: usize,
    /// Whether a status ends the answer, or the first message is all of it.
    many: bool,
    done: oneshot::Sender<Vec<Message>>,
}

impl Inbox {
    /// Subscribes, and starts the task that sorts the answers.
    pub(super) async fn start(client: Client, tasks: &Tasks) -> Result<Self, async_nats::SubscribeError> {
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
        })
    }

    /// The one message that answers a request, if it comes within `limit`.
    pub(super) async fn one(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, Unanswered> {
        let (request, mut done) = self.register(1, false);
        let answer = timeout(limit, async {
            self.send(&request, subject, headers, payload).await?;
            (&mut done).await.map_err(|_| Unanswered::Silence)
        });
        let message = answer.await.map_err(|_| Unanswered::Silence)??.pop();
        match message {
            Some(message) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Unanswered::NoResponders)
            }
            Some(message) => Ok(message),
            None => Err(Unanswered::Silence),
        }
    }

    /// The messages that answer a request, the last one with a status, if all are there within `limit`.
    /// At most `most` before the status.
    pub(super) async fn many(
        &self,
        subject: String,
        payload: Bytes,
        most: usize,
        limit: Duration,
    ) -> Result<Vec<Message>, Unanswered> {
        let (request, done) = self.register(most.saturating_add(1), true);
        let answer = timeout(limit, async {
            self.send(&request, subject, HeaderMap::new(), payload).await?;
            done.await.map_err(|_| Unanswered::Silence)
        });
        let messages = answer.await.map_err(|_| Unanswered::Silence)??;
        match messages.last().and_then(|message| message.status) {
            Some(StatusCode::NO_RESPONDERS) => Err(Unanswered::NoResponders),
            _ => Ok(messages),
        }
    }

    /// Sends a message to itself: when it is back, the server has handled all that was sent over this
    /// connection before.
    pub(super) async fn round_trip(&self, limit: Duration) -> Result<(), Unanswered> {
        let (request, mut done) = self.register(1, false);
        let back = timeout(limit, async {
            let subject = format!("{}{}", self.prefix, request.number);
            let sent = self.client.publish(Subject::from(subject), Bytes::new()).await;
            sent.map_err(|_| Unanswered::Silence)?;
            (&mut done).await.map_err(|_| Unanswered::Silence)
        });
        back.await.map_err(|_| Unanswered::Silence)?.map(drop)
    }

    fn register(&self, most: usize, many: bool) -> (Request<'_>, oneshot::Receiver<Vec<Message>>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        let waiting = Waiting {
            messages: Vec::new(),
            most,
            many,
            done,
        };
        self.waiting.lock().insert(number, waiting);
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

fn sort(waiting: &Mutex<HashMap<u64, Waiting>>, prefix: &str, answer: Message) {
    let number = answer
        .subject
        .strip_prefix(prefix)
        .and_then(|number| number.parse().ok());
    let Some(number) = number else {
        return;
    };
    let mut waiting = waiting.lock();
    let Some(request) = waiting.get_mut(&number) else {
        // It came too late.
        return;
    };
    let last = !request.many || answer.status.is_some();
    request.messages.push(answer);
    let too_many = request.messages.len() > request.most;
    if (last || too_many)
        && let Some(request) = waiting.remove(&number)
        && !too_many
    {
        // Nobody waits any more if this fails.
        let _ = request.done.send(request.messages);
    }
}
