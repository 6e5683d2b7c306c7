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
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::patience::Patience;
use crate::{config::NatsConfig, task::Tasks};

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
    patience: Mutex<Patience>,
    /// How long an answer of many messages may take as long as they come.
    most: Duration,
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
            patience: Mutex::new(Patience::new(nats.request_timeout, nats.request_timeout_max)),
            most: nats.request_timeout_max,
        })
    }

    /// The one message that answers a request, if it comes in time.
    pub(super) async fn one(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Message, Unanswered> {
        let (request, mut done) = self.register(1, false);
        let answer = self.in_time(async |limit| {
            let answer = timeout(limit, async {
                self.send(&request, subject, headers, payload).await?;
                (&mut done).await.map_err(|_| Unanswered::Silence)
            });
            answer.await.unwrap_or(Err(Unanswered::Silence))
        });
        let message = answer.await?.pop();
        match message {
            Some(message) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Unanswered::NoResponders)
            }
            Some(message) => Ok(message),
            None => Err(Unanswered::Silence),
        }
    }

    /// The messages that answer a request, the last one with a status, if no pause between them is
    /// too long. At most `most` before the status.
    pub(super) async fn many(
        &self,
        subject: String,
        payload: Bytes,
        most: usize,
    ) -> Result<Vec<Message>, Unanswered> {
        let (request, mut done) = self.register(most.saturating_add(1), true);
        let answer = self.in_time(async |silence| {
            timeout(silence, self.send(&request, subject, HeaderMap::new(), payload))
                .await
                .map_err(|_| Unanswered::Silence)??;
            let mut seen = 0;
            loop {
                if let Ok(answer) = timeout(silence, &mut done).await {
                    return answer.map_err(|_| Unanswered::Silence);
                }
                let received = request.received();
                if received == seen {
                    return Err(Unanswered::Silence);
                }
                seen = received;
            }
        });
        let messages = timeout(self.most, answer)
            .await
            .map_err(|_| Unanswered::Silence)??;
        match messages.last().and_then(|message| message.status) {
            Some(StatusCode::NO_RESPONDERS) => Err(Unanswered::NoResponders),
            _ => Ok(messages),
        }
    }

    /// Sends a message to itself: when it is back, the server has handled all that was sent over this
    /// connection before.
    pub(super) async fn round_trip(&self) -> Result<(), Unanswered> {
        let (request, mut done) = self.register(1, false);
        self.in_time(async |limit| {
            let back = timeout(limit, async {
                let subject = format!("{}{}", self.prefix, request.number);
                let sent = self.client.publish(Subject::from(subject), Bytes::new()).await;
                sent.map_err(|_| Unanswered::Silence)?;
                (&mut done).await.map_err(|_| Unanswered::Silence)
            });
            back.await.unwrap_or(Err(Unanswered::Silence))
        })
        .await
        .map(drop)
    }

    /// Tells a request how long to wait, and learns from what becomes of it.
    async fn in_time<T>(
        &self,
        request: impl AsyncFnOnce(Duration) -> Result<T, Unanswered>,
    ) -> Result<T, Unanswered> {
        let limit = self.patience.lock().limit();
        let began = Instant::now();
        let answer = request(limit).await;
        match &answer {
            Ok(_) => self.patience.lock().answered(began.elapsed()),
            Err(Unanswered::Silence) => self.patience.lock().gave_up(limit),
            Err(Unanswered::NoResponders) => {}
        }
        answer
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

impl Request<'_> {
    fn received(&self) -> usize {
        let waiting = self.inbox.waiting.lock();
        waiting
            .get(&self.number)
            .map_or(0, |waiting| waiting.messages.len())
    }
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
