//! Messages between nodes: topics that all listeners hear, and inboxes for answers.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    NodeIndex,
    broker::{Broker, Nodes},
    faults::Script,
    id_of,
};
use crate::log::{LogEvent, NodeMessage, NodeMessages};

/// Messages buffered per listener and answers per question.
const CAPACITY: usize = 1_024;

/// All listeners and open questions of all nodes.
#[derive(Default)]
pub(super) struct Topics {
    /// Messages and answers to lose on the way to a node.
    pub(super) losses: Script<()>,
    listeners: HashMap<String, Vec<Hearer<NodeMessage>>>,
    inboxes: HashMap<String, Hearer<NodeMessage>>,
    next_id: u64,
}

struct Hearer<T> {
    id: u64,
    node: NodeIndex,
    messages: mpsc::Sender<T>,
}

/// One listener; dropping it ends it.
pub(super) struct Listener {
    broker: Weak<Broker>,
    topic: String,
    id: u64,
    messages: mpsc::Receiver<NodeMessage>,
}

/// Where the answers to one question arrive; dropping it ends the question.
pub(super) struct Inbox {
    broker: Weak<Broker>,
    address: String,
    answers: mpsc::Receiver<NodeMessage>,
}

// === impl Topics ===

impl Topics {
    pub(super) fn listen(&mut self, broker: &Arc<Broker>, node: NodeIndex, topic: &str) -> Listener {
        let (sender, messages) = mpsc::channel(CAPACITY);
        let id = self.next_id();
        let listeners = self.listeners.entry(topic.into()).or_default();
        listeners.push(Hearer {
            id,
            node,
            messages: sender,
        });
        Listener {
            broker: Arc::downgrade(broker),
            topic: topic.into(),
            id,
            messages,
        }
    }

    pub(super) fn open_inbox(&mut self, broker: &Arc<Broker>, node: NodeIndex) -> Inbox {
        let (messages, answers) = mpsc::channel(CAPACITY);
        let id = self.next_id();
        let address = format!("inbox/{id}");
        self.inboxes
            .insert(address.clone(), Hearer { id, node, messages });
        Inbox {
            broker: Arc::downgrade(broker),
            address,
            answers,
        }
    }

    pub(super) fn tell(
        &mut self,
        nodes: &Nodes,
        from: NodeIndex,
        topic: &str,
        data: &Bytes,
        reply: Option<&str>,
    ) {
        for listener in self.listeners.get(topic).into_iter().flatten() {
            let message = NodeMessage {
                from: id_of(from),
                data: data.clone(),
                reply: reply.map(String::from),
            };
            listener.send(nodes, &mut self.losses, message);
        }
    }

    pub(super) fn answer(&mut self, nodes: &Nodes, from: NodeIndex, reply: &str, data: Bytes) {
        if let Some(inbox) = self.inboxes.get(reply) {
            let message = NodeMessage {
                from: id_of(from),
                data,
                reply: None,
            };
            inbox.send(nodes, &mut self.losses, message);
        }
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

// === impl Hearer ===

impl<T> Hearer<T> {
    fn send(&self, nodes: &Nodes, losses: &mut Script<()>, message: T) {
        let lost = !nodes.connected(self.node) || losses.next(self.node, None, |()| true).is_some();
        if lost {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.messages.try_send(message) {
            nodes.emit(self.node, LogEvent::SlowConsumer);
        }
    }
}

// === impl Listener ===

impl NodeMessages for Listener {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<NodeMessage>> {
        self.messages.poll_recv(cx)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(broker) = self.broker.upgrade() else {
            return;
        };
        let topics = &mut broker.state().topics;
        if let Some(listeners) = topics.listeners.get_mut(&self.topic) {
            listeners.retain(|listener| listener.id != self.id);
            if listeners.is_empty() {
                topics.listeners.remove(&self.topic);
            }
        }
    }
}

// === impl Inbox ===

impl Inbox {
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn next(&mut self) -> Option<NodeMessage> {
        self.answers.recv().await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.upgrade() {
            broker.state().topics.inboxes.remove(&self.address);
        }
    }
}
