//! Messages between nodes: core NATS, at most once, all nodes that listen on a topic. Signed
//! (`seal.rs`): what is not a node's is counted and dropped here, and nobody else sees it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::seal::{Heard, Seal};
use crate::{
    log::{NodeMessage, NodeMessages, Refused, RefusedMessages},
    model::NodeId,
};

/// This node among the others.
#[derive(Debug)]
pub(super) struct Peers {
    client: Client,
    seal: Seal,
    malformed: AtomicU64,
    forged: AtomicU64,
    repeated: AtomicU64,
}

/// A subscription to one topic.
#[derive(Debug)]
pub(super) struct Topic {
    peers: Arc<Peers>,
    subscriber: Subscriber,
    heard: Heard,
}

impl Peers {
    pub(super) fn new(client: Client, seal: Seal) -> Self {
        Self {
            client,
            seal,
            malformed: AtomicU64::new(0),
            forged: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.seal.node()
    }

    pub(super) fn refused(&self) -> RefusedMessages {
        RefusedMessages {
            malformed: self.malformed.load(Ordering::Relaxed),
            forged: self.forged.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
        }
    }

    pub(super) fn topic(self: &Arc<Self>, subscriber: Subscriber) -> Topic {
        Topic {
            peers: self.clone(),
            subscriber,
            heard: Heard::default(),
        }
    }

    /// Sends without waiting. A message that finds the connection's queue full is lost, as any of these
    /// may be.
    pub(super) fn send(&self, subject: String, data: &[u8]) {
        let sealed = self.seal.seal(&subject, data);
        let publish = self.client.publish(Subject::from(subject), sealed);
        if tokio::task::unconstrained(publish).now_or_never().is_none() {
            tracing::debug!("a message to other nodes was dropped: the connection to NATS takes no more");
        }
    }

    /// Asks, and collects answers until `wait` is over or `enough` is true of them.
    pub(super) async fn ask(
        &self,
        subject: String,
        data: Bytes,
        wait: Duration,
        enough: &(dyn Fn(&[NodeMessage]) -> bool + Send + Sync),
    ) -> Vec<NodeMessage> {
        let until = Instant::now() + wait;
        let mut answers = Vec::new();
        let inbox = self.client.new_inbox();
        let asked = timeout_at(until, async {
            let replies = self.client.subscribe(inbox.clone()).await.ok()?;
            // Counted as late as can be: what is counted later may overtake it.
            let sealed = self.seal.seal(&subject, &data);
            self.client
                .publish_with_reply(Subject::from(subject), Subject::from(inbox), sealed)
                .await
                .ok()?;
            Some(replies)
        });
        let Ok(Some(mut replies)) = asked.await else {
            return answers;
        };
        while let Ok(Some(reply)) = timeout_at(until, replies.next()).await {
            if reply.status == Some(StatusCode::NO_RESPONDERS) {
                break;
            }
            // The inbox has been asked once, so no answer of another question can be repeated to it.
            let Some(answer) = self.open(reply, None) else {
                continue;
            };
            answers.push(answer);
            if enough(&answers) {
                break;
            }
        }
        answers
    }

    /// The message, unless it is to be dropped.
    fn open(&self, message: Message, heard: Option<&mut Heard>) -> Option<NodeMessage> {
        let refuse = |why| {
            let counter = match why {
                Refused::Malformed => &self.malformed,
                Refused::Forged => &self.forged,
                Refused::Repeated => &self.repeated,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match self.seal.open(&message.subject, message.payload) {
            Ok(opened) if heard.is_none_or(|heard| heard.is_new(&opened)) => Some(NodeMessage {
                from: opened.from,
                data: opened.payload,
                reply: message.reply.map(Subject::into_string),
            }),
            Ok(_) => {
                refuse(Refused::Repeated);
                None
            }
            Err(why) => {
                refuse(why);
                None
            }
        }
    }
}

impl NodeMessages for Topic {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<NodeMessage>> {
        loop {
            match Pin::new(&mut self.subscriber).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(message)) => {
                    if let Some(message) = self.peers.open(message, Some(&mut self.heard)) {
                        return Poll::Ready(Some(message));
                    }
                }
            }
        }
    }
}
