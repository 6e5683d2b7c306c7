//! Live copies: at most once, bounded, and with faults also late or twice.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    NodeIndex,
    broker::{Broker, Nodes},
    faults::{CopyFault, Script},
};
use crate::{
    log::{Copies, Copy, LogEvent, Route},
    model::ChannelKey,
};

/// Copies buffered per subscription, until a test says otherwise.
const DEFAULT_CAPACITY: usize = 512;

/// The most copies that are held back; later ones are lost.
const MAX_HELD: usize = 10_000;

/// All subscriptions of all nodes.
pub(super) struct Live {
    pub(super) faults: Script<CopyFault>,
    pub(super) capacity: usize,
    subscribers: HashMap<Arc<str>, Vec<Subscriber>>,
    held: VecDeque<(Subscriber, Copy)>,
    next_id: u64,
}

#[derive(Clone)]
struct Subscriber {
    id: u64,
    node: NodeIndex,
    key: ChannelKey,
    copies: mpsc::Sender<Copy>,
}

/// One subscription; dropping it ends it.
pub(super) struct Subscription {
    broker: Weak<Broker>,
    address: Arc<str>,
    id: u64,
    copies: mpsc::Receiver<Copy>,
}

// === impl Live ===

impl Default for Live {
    fn default() -> Self {
        Self {
            faults: Script::default(),
            capacity: DEFAULT_CAPACITY,
            subscribers: HashMap::new(),
            held: VecDeque::new(),
            next_id: 0,
        }
    }
}

impl Live {
    pub(super) fn subscribe(&mut self, broker: &Arc<Broker>, node: NodeIndex, route: &Route) -> Subscription {
        let (sender, copies) = mpsc::channel(self.capacity.max(1));
        let (id, address) = (self.next_id, Arc::from(route.address()));
        self.next_id += 1;
        let subscribers = self.subscribers.entry(Arc::clone(&address)).or_default();
        subscribers.push(Subscriber {
            id,
            node,
            key: route.key().clone(),
            copies: sender,
        });
        Subscription {
            broker: Arc::downgrade(broker),
            address,
            id,
            copies,
        }
    }

    /// Sends a copy to all subscribers of an address, each as its faults have it.
    pub(super) fn fan_out(&mut self, nodes: &Nodes, address: &str, copy: &Copy) {
        for subscriber in self.subscribers.get(address).into_iter().flatten() {
            match self.faults.next(subscriber.node, Some(&subscriber.key), |_| true) {
                None => subscriber.send(nodes, copy.clone()),
                Some(CopyFault::Drop) => {}
                Some(CopyFault::Repeat) => {
                    subscriber.send(nodes, copy.clone());
                    subscriber.send(nodes, copy.clone());
                }
                Some(CopyFault::Hold) if self.held.len() < MAX_HELD => {
                    self.held.push_back((subscriber.clone(), copy.clone()));
                }
                Some(CopyFault::Hold) => {}
            }
        }
    }

    /// Sends what was held, in its order, and holds nothing more.
    pub(super) fn release(&mut self, nodes: &Nodes) {
        self.faults.cancel(|fault| matches!(fault, CopyFault::Hold));
        for (subscriber, copy) in self.held.drain(..) {
            subscriber.send(nodes, copy);
        }
    }

    /// Loses what is on its way to a node.
    pub(super) fn lose(&mut self, node: NodeIndex) {
        self.held.retain(|(subscriber, _)| subscriber.node != node);
    }

    /// How many subscriptions a node has, or all nodes have.
    pub(super) fn count(&self, node: Option<NodeIndex>) -> usize {
        let all = self.subscribers.values().flatten();
        all.filter(|subscriber| node.is_none_or(|node| subscriber.node == node))
            .count()
    }

    fn unsubscribe(&mut self, address: &str, id: u64) {
        if let Some(subscribers) = self.subscribers.get_mut(address) {
            subscribers.retain(|subscriber| subscriber.id != id);
            if subscribers.is_empty() {
                self.subscribers.remove(address);
            }
        }
    }
}

// === impl Subscriber ===

impl Subscriber {
    fn send(&self, nodes: &Nodes, copy: Copy) {
        if !nodes.connected(self.node) {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.copies.try_send(copy) {
            nodes.emit(self.node, LogEvent::SlowConsumer);
        }
    }
}

// === impl Subscription ===

impl Copies for Subscription {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Copy>> {
        self.copies.poll_recv(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.upgrade() {
            broker.state().live.unsubscribe(&self.address, self.id);
        }
    }
}
