//! Messages between nodes: core NATS, at most once, all nodes that listen on a topic.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Client, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

use crate::log::{NodeMessage, NodeMessages};

/// A subscription to one topic.
#[derive(Debug)]
pub(super) struct Topic(pub(super) Subscriber);

impl NodeMessages for Topic {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<NodeMessage>> {
        Pin::new(&mut self.0).poll_next(cx).map(|message| {
            message.map(|message| NodeMessage {
                data: message.payload,
                reply: message.reply.map(Subject::into_string),
            })
        })
    }
}

/// Sends without waiting. A message that finds the connection's queue full is lost, as any of these
/// may be.
pub(super) fn send(client: &Client, subject: String, data: Bytes) {
    let publish = client.publish(Subject::from(subject), data);
    if tokio::task::unconstrained(publish).now_or_never().is_none() {
        tracing::debug!("a message to other nodes was dropped: the connection to NATS takes no more");
    }
}

/// Asks, and collects answers until `wait` is over or `enough` is true of them.
pub(super) async fn ask(
    client: &Client,
    subject: String,
    data: Bytes,
    wait: Duration,
    enough: &(dyn Fn(&[Bytes]) -> bool + Send + Sync),
) -> Vec<Bytes> {
    let until = Instant::now() + wait;
    let mut answers = Vec::new();
    let inbox = client.new_inbox();
    let asked = timeout_at(until, async {
        let replies = client.subscribe(inbox.clone()).await.ok()?;
        client
            .publish_with_reply(Subject::from(subject), Subject::from(inbox), data)
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
        answers.push(reply.payload);
        if enough(&answers) {
            break;
        }
    }
    answers
}
