//! Publishing with pipelined acknowledgements (L14), on a connection of its own, so that neither
//! live copies nor catch-up reads stand in an acknowledgement's way.
//!
//! All replies come to one wildcard inbox; the last token of the reply subject names the slot of
//! the publish that waits. This is cheaper than a request of async-nats, which formats an id, walks
//! a map and arms a timer for each message.

mod ack;
mod outbox;
mod pending;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Client, HeaderMap, Message, PublishErrorKind, StatusCode, Subject, connection::State};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::{
    outbox::{Full, Outbox, Outgoing},
    pending::{Pending, Token},
};
use crate::{
    log::{Ack, PublishError},
    task::Tasks,
};

type Waiter = oneshot::Sender<Result<Ack, PublishError>>;

/// Acknowledgements are timed in this many steps: a timeout is late by one at most.
const TICKS: u32 = 8;
/// Places in the outbox for those who wait until it has been handed over.
const MARKS: usize = 16;

/// The publishing side of the log.
#[derive(Debug)]
pub(super) struct Publisher {
    client: Client,
    pending: Arc<Mutex<Pending<Waiter>>>,
    outbox: Arc<Outbox>,
}

impl Publisher {
    /// Subscribes to the acknowledgements, and starts the task that sends and the two that hand out
    /// what became of it. The
    /// subscription capacity of `client` must be at least `max_in_flight`: then none can be lost.
    pub(super) async fn start(
        client: Client,
        max_in_flight: usize,
        ack_timeout: Duration,
        tasks: &Tasks,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = format!("{}.", client.new_inbox());
        let mut replies = client.subscribe(format!("{inbox}*")).await?;
        let pending = Arc::new(Mutex::new(Pending::new(max_in_flight, TICKS.into())));
        // Those that wait for an answer, and a few marks.
        let outbox = Arc::new(Outbox::new(max_in_flight.saturating_add(MARKS)));
        tasks.spawn({
            let (outbox, sender) = (
                outbox.clone(),
                Sender {
                    client: client.clone(),
                    inbox: inbox.clone(),
                    pending: pending.clone(),
                },
            );
            async move {
                let mut batch = Vec::new();
                loop {
                    outbox.take(&mut batch).await;
                    for outgoing in batch.drain(..) {
                        sender.send(outgoing).await;
                    }
                }
            }
        });
        tasks.spawn({
            let pending = pending.clone();
            async move {
                while let Some(reply) = replies.next().await {
                    acknowledge(&pending, &inbox, &reply);
                }
            }
        });
        tasks.spawn({
            let pending = pending.clone();
            async move {
                let mut ticks = tokio::time::interval((ack_timeout / TICKS).max(Duration::from_millis(1)));
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
        Ok(Self {
            client,
            pending,
            outbox,
        })
    }

    /// Publishes to a subject of a stream. Never waits: the message has its place in the
    /// order of all publishes when this returns, or an error says that it has not been sent.
    pub(super) fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Acknowledged, PublishError> {
        self.require_connection()?;
        // async-nats asks this, too, but only when the message is handed over.
        if wire_len(&headers) + payload.len() > self.client.max_payload() {
            return Err(too_large(&self.client));
        }
        let (waiter, answer) = oneshot::channel();
        let Some(token) = self.pending.lock().insert(waiter) else {
            return Err(PublishError::Unavailable(
                "too many publications are on their way",
            ));
        };
        let outgoing = Outgoing::Publication {
            token,
            subject: subject.into(),
            headers,
            payload,
        };
        if let Err(Full) = self.outbox.push(outgoing) {
            self.pending.lock().take(token);
            return Err(TAKES_NO_MORE);
        }
        Ok(Acknowledged(answer))
    }

    /// Waits until all that was published before is in the queue of the connection.
    pub(super) async fn handed_over(&self) {
        let (mark, passed) = oneshot::channel();
        if self.outbox.push(Outgoing::Mark(mark)).is_ok() {
            // It fails if the node stops: then nothing is sent any more.
            let _ = passed.await;
        }
    }

    /// Publishes to a subject that no stream stores (L16).
    pub(super) fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        self.require_connection()?;
        self.send_now(
            self.client
                .publish_with_headers(Subject::from(subject), headers, payload),
        )
    }

    /// Publications without an answer yet.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.lock().len()
    }

    /// async-nats would keep the message until it is connected again: that can be much later than
    /// anybody waits for it.
    fn require_connection(&self) -> Result<(), PublishError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err(PublishError::Unavailable("there is no connection to NATS")),
        }
    }

    /// Polls a publish of async-nats once. It only waits for a place in the connection's queue, so
    /// it is done or the queue is full. The task's budget must not look like a full queue.
    fn send_now(
        &self,
        publish: impl Future<Output = Result<(), async_nats::PublishError>>,
    ) -> Result<(), PublishError> {
        match tokio::task::unconstrained(publish).now_or_never() {
            Some(sent) => sent.map_err(|error| not_sent(&self.client, &error)),
            None => Err(TAKES_NO_MORE),
        }
    }
}

/// Hands messages to async-nats.
struct Sender {
    client: Client,
    /// The inbox with its dot: what stands before a token.
    inbox: String,
    pending: Arc<Mutex<Pending<Waiter>>>,
}

impl Sender {
    /// Waits if the queue of the connection is full: while that is so, the outbox fills up.
    async fn send(&self, outgoing: Outgoing) {
        let (token, subject, headers, payload) = match outgoing {
            Outgoing::Publication {
                token,
                subject,
                headers,
                payload,
            } => (token, subject, headers, payload),
            Outgoing::Mark(mark) => {
                // Nobody waits any more if this fails.
                let _ = mark.send(());
                return;
            }
        };
        let reply = Subject::from(reply_subject(&self.inbox, token));
        let sent = self
            .client
            .publish_with_reply_and_headers(subject, reply, headers, payload)
            .await;
        if let Err(error) = sent {
            // The lock must be free again before a waiter is woken.
            let waiter = self.pending.lock().take(token);
            if let Some(waiter) = waiter {
                let _ = waiter.send(Err(not_sent(&self.client, &error)));
            }
        }
    }
}

const TAKES_NO_MORE: PublishError = PublishError::Unavailable("the connection to NATS takes no more");

/// Why async-nats has not taken a message.
fn not_sent(client: &Client, error: &async_nats::PublishError) -> PublishError {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => too_large(client),
        PublishErrorKind::InvalidSubject => PublishError::Refused("not a NATS subject".to_owned()),
        PublishErrorKind::Send => PublishError::Unavailable("the connection to NATS is closed"),
    }
}

fn too_large(client: &Client) -> PublishError {
    let limit = client.max_payload();
    PublishError::Refused(format!("larger than the {limit} bytes that NATS takes"))
}

/// What headers take on the wire, which counts as payload: a version line, a line each, an empty one.
fn wire_len(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values
            .iter()
            .map(|value| name.len() + 2 + value.as_str().len() + 2)
    });
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
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

fn acknowledge(pending: &Mutex<Pending<Waiter>>, inbox: &str, reply: &Message) {
    let Some(token) = token_of(reply.subject.as_str(), inbox) else {
        return;
    };
    // The lock must be free again before a waiter is woken.
    let waiter = pending.lock().take(token);
    if let Some(waiter) = waiter {
        let outcome = if reply.status == Some(StatusCode::NO_RESPONDERS) {
            Err(PublishError::Unavailable("the shard has no leader"))
        } else {
            ack::parse(&reply.payload)
        };
        // Nobody waits any more if this fails.
        let _ = waiter.send(outcome);
    }
}

fn reply_subject(inbox: &str, token: Token) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut subject = String::with_capacity(inbox.len() + 16);
    subject.push_str(inbox);
    let digits = (Token::BITS - token.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        subject.push(char::from(HEX[(token >> (at * 4) & 15) as usize]));
    }
    subject
}

fn token_of(subject: &str, inbox: &str) -> Option<Token> {
    Token::from_str_radix(subject.strip_prefix(inbox)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_what_they_take() {
        let mut headers = HeaderMap::new();
        headers.insert("Slip", "1j");
        headers.append("More", "one");
        headers.append("More", "two");
        assert_eq!(
            wire_len(&headers),
            "NATS/1.0\r\nSlip: 1j\r\nMore: one\r\nMore: two\r\n\r\n".len()
        );
    }

    #[test]
    fn a_token_survives_the_reply_subject() {
        for token in [0, 1, 15, 16, 0xdead_beef, 7 << 32 | 3, Token::MAX] {
            let subject = reply_subject("_INBOX.x.", token);
            assert_eq!(subject, format!("_INBOX.x.{token:x}"));
            assert_eq!(token_of(&subject, "_INBOX.x."), Some(token));
        }
        assert_eq!(token_of("_INBOX.y.1", "_INBOX.x."), None);
        assert_eq!(token_of("_INBOX.x.", "_INBOX.x."), None);
    }
}
