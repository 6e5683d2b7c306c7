use std::{sync::Arc, time::Duration};

use async_nats::{
    HeaderMap, Message, Subject, Subscriber,
    jetstream::{self, AckKind, message::Info},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::NatsWorkStream;
use crate::log::{
    BoxFuture, ConsumeOptions, Consumer, ReadError, WorkMessage,
    nats::{api::ApiError, inbox::Inbox, subject},
    work::{Settle, Verdict},
};

/// How long a request for what is there stays open. NATS does not end one when it has given what it may, but
/// more is there (as many as may are delivered and not settled): it ends by this.
const LINGER: Duration = Duration::from_millis(50);

/// Takes part in a durable pull consumer.
pub(super) struct NatsConsumer {
    of: NatsWorkStream,
    options: ConsumeOptions,
    /// As NATS has its name.
    durable: String,
    /// What this one's pulls are answered on, with its dot.
    inbox: String,
    answers: Subscriber,
    pulls: u64,
    /// Whether the consumer is thought to be there.
    exists: bool,
}

/// A message that no node can have appended.
struct Foreign {
    seq: u64,
    settle: Delivery,
}

/// How a pull ended.
enum End {
    /// As asked for, or nothing more is there.
    Enough,
    /// With this error.
    Failed(ReadError),
}

impl NatsConsumer {
    pub(super) async fn start(of: NatsWorkStream, options: ConsumeOptions) -> Result<Self, ReadError> {
        let inbox = format!("{}.", of.client.new_inbox());
        let answers = subscribe(&of, &inbox).await?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let mut durable = String::with_capacity(options.durable.len());
        subject::escape(&mut durable, options.durable.as_bytes(), plain);
        let mut consumer = Self {
            of,
            options,
            durable,
            inbox,
            answers,
            pulls: 0,
            exists: false,
        };
        consumer.create().await?;
        Ok(consumer)
    }

    /// Creates the consumer, or makes it what the options say.
    async fn create(&mut self) -> Result<(), ReadError> {
        #[derive(serde::Deserialize)]
        struct Created {}
        let prefix: Vec<_> = self.options.prefix.iter().map(String::as_str).collect();
        let request = json!({
            "stream_name": self.of.stream,
            "config": {
                "durable_name": self.durable,
                "name": self.durable,
                "filter_subject": self.of.below(&prefix),
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "replay_policy": "instant",
                "max_deliver": -1,
                "max_ack_pending": self.options.max_ack_pending,
                "ack_wait": nanos(self.options.ack_wait),
                "inactive_threshold": self.options.forget_after.map_or(0, nanos),
            },
        });
        let what = format!("CONSUMER.DURABLE.CREATE.{}.{}", self.of.stream, self.durable);
        let Created {} = self.of.api.call(&what, &request).await?;
        self.exists = true;
        Ok(())
    }

    /// One request for messages: those that are there, or with `wait` the first to come.
    async fn request(
        &mut self,
        max: u32,
        wait: Option<Duration>,
        messages: &mut Vec<WorkMessage>,
    ) -> Result<(), ReadError> {
        self.pulls += 1;
        let reply = format!("{}{}", self.inbox, self.pulls);
        let request = match wait {
            Some(wait) => json!({ "batch": max, "expires": nanos(wait) }),
            None => json!({ "batch": max, "no_wait": true, "expires": nanos(LINGER) }),
        };
        let until = Instant::now() + wait.unwrap_or(LINGER) + self.of.patience;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.of.stream, self.durable);
        let payload = Bytes::from(request.to_string());
        let sent = timeout_at(until, async {
            let (subject, reply) = (Subject::from(subject), Subject::from(reply.clone()));
            self.of.client.publish_with_reply(subject, reply, payload).await
        });
        if !matches!(sent.await, Ok(Ok(()))) {
            return Err(ReadError::NoAnswer);
        }
        let most = messages.len() + max as usize;
        while messages.len() < most {
            let answer = match timeout_at(until, self.answers.next()).await {
                Ok(Some(answer)) => answer,
                // The connection was cut, or is about to be found so.
                Err(_) => return Err(ReadError::NoAnswer),
                Ok(None) => {
                    self.answers = subscribe(&self.of, &self.inbox).await?;
                    return Err(ReadError::NoAnswer);
                }
            };
            match answer.status {
                // What an earlier pull had asked for is as good.
                None => {
                    let last = self.deliver(answer, messages).await;
                    if last && wait.is_none() {
                        return Ok(());
                    }
                }
                Some(_) if answer.subject.as_str() != reply => {}
                Some(status) => match self.end(status.as_u16(), answer.description.as_deref()) {
                    End::Enough => return Ok(()),
                    End::Failed(error) => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Takes a message; whether none is behind it.
    async fn deliver(&self, message: Message, messages: &mut Vec<WorkMessage>) -> bool {
        let Some((delivery, pending)) = self.delivery(message) else {
            return false;
        };
        match delivery {
            Ok(message) => messages.push(message),
            Err(Foreign { seq, settle }) => {
                tracing::warn!(
                    stream = self.of.stream,
                    seq,
                    "a message without a key was taken out"
                );
                // It comes again if this fails.
                let _ = settle.settle(Verdict::Term).await;
            }
        }
        pending == 0
    }

    /// The message and how many are behind it; the message is an error if no node can have appended it.
    fn delivery(&self, message: Message) -> Option<(Result<WorkMessage, Foreign>, u64)> {
        let settle = Delivery {
            inbox: self.of.inbox.clone(),
            reply: message.reply.clone()?.into_string(),
        };
        let tokens = message.subject.strip_prefix(&self.of.root);
        let key = tokens.and_then(|tokens| subject::key_parts(tokens.strip_prefix('.')?));
        let data = message.payload.clone();
        let message = jetstream::Message {
            message,
            context: jetstream::new(self.of.client.clone()),
        };
        let Info {
            stream_sequence: seq,
            delivered,
            published,
            pending,
            ..
        } = message.info().ok()?;
        let message = match key {
            Some(key) => Ok(WorkMessage {
                seq,
                delivered: u64::try_from(delivered).unwrap_or(1),
                time_ms: (published.unix_timestamp_nanos() / 1_000_000) as i64,
                key,
                data,
                settle: Arc::new(settle),
            }),
            None => Err(Foreign { seq, settle }),
        };
        Some((message, pending))
    }

    fn end(&mut self, status: u16, description: Option<&str>) -> End {
        let why = description.unwrap_or_default();
        match status {
            // Nothing is there; the time is over.
            404 | 408 => End::Enough,
            409 if why.contains("Deleted") => {
                self.exists = false;
                End::Failed(ReadError::NotNow("the consumer was deleted".to_owned()))
            }
            409 => End::Failed(ReadError::NotNow(why.to_owned())),
            // Nobody listens: it is gone, or its leader is.
            503 => {
                self.exists = false;
                End::Failed(ReadError::NotNow("there is no such consumer now".to_owned()))
            }
            _ => End::Failed(ReadError::Failed(format!("{status} {why}"))),
        }
    }
}

impl Consumer for NatsConsumer {
    fn pull(&mut self, max: u32, wait: Duration) -> BoxFuture<'_, Result<Vec<WorkMessage>, ReadError>> {
        Box::pin(async move {
            if !self.exists {
                self.create().await?;
            }
            let max = max.max(1);
            let mut messages = Vec::new();
            let mut pulled = self.request(max, None, &mut messages).await;
            if pulled.is_ok() && messages.is_empty() && wait > LINGER {
                pulled = self.request(1, Some(wait - LINGER), &mut messages).await;
                if pulled.is_ok() && !messages.is_empty() && max > 1 {
                    pulled = self.request(max - 1, None, &mut messages).await;
                }
            }
            match pulled {
                // What was delivered is; the next pull will tell.
                Err(error) if messages.is_empty() => Err(error),
                _ => Ok(messages),
            }
        })
    }
}

async fn subscribe(of: &NatsWorkStream, inbox: &str) -> Result<Subscriber, ReadError> {
    timeout(of.patience, of.client.subscribe(format!("{inbox}*")))
        .await
        .map_err(|_| ReadError::NoAnswer)?
        .map_err(|error| ReadError::Failed(error.to_string()))
}

/// How one delivery is settled.
struct Delivery {
    inbox: Arc<Inbox>,
    reply: String,
}

impl Settle for Delivery {
    fn settle(&self, verdict: Verdict) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            let kind = match verdict {
                Verdict::Ack => AckKind::Ack,
                Verdict::Nak(delay) => AckKind::Nak(Some(delay)),
                Verdict::Term => AckKind::Term,
            };
            let settled = self.inbox.one(self.reply.clone(), HeaderMap::new(), kind.into());
            settled.await.map_err(ApiError::from)?;
            Ok(())
        })
    }
}

/// JetStream's unit of durations. A duration beyond 584 years is as good as 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
