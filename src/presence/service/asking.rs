//! Snapshots: other nodes are asked by name for what they hold, until they answer or are gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::sleep,
};

use super::{Presence, hearing::react};
use crate::{
    log::NodeMessage,
    model::{ChannelKey, NodeId},
    presence::{
        view::Heard,
        wire::{self, Held, Place, Question},
    },
};

/// How long a question waits for others.
const GATHER: Duration = Duration::from_millis(2);
/// Channels in one question.
const BATCH: usize = 256;
/// Questions under way.
const AT_ONCE: usize = 16;
/// How long an answer may take. Then the question is asked again.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two questions for the same.
const AGAIN: Duration = Duration::from_millis(100);

/// What other nodes are to be asked for. Bounded by the channels and nodes there are.
pub(super) struct Asking {
    open: Mutex<HashMap<NodeId, HashSet<ChannelKey>>>,
    wake: Notify,
    at_once: Arc<Semaphore>,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            wake: Notify::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Asking {
    /// Asks `node` for a channel soon.
    pub(super) fn ask(&self, node: NodeId, key: ChannelKey) {
        self.open.lock().entry(node).or_default().insert(key);
        self.wake.notify_one();
    }

    /// Up to a batch of what one node is to be asked for.
    fn take(&self) -> Option<(NodeId, Vec<ChannelKey>)> {
        let mut open = self.open.lock();
        let node = *open.keys().next()?;
        let keys = open.get_mut(&node)?;
        let batch: Vec<_> = keys.iter().take(BATCH).cloned().collect();
        for key in &batch {
            keys.remove(key);
        }
        if keys.is_empty() {
            open.remove(&node);
        }
        Some((node, batch))
    }
}

pub(super) fn start(presence: &Arc<Presence>) {
    presence.tasks.spawn(run(presence.clone()));
}

async fn run(presence: Arc<Presence>) {
    loop {
        presence.asking.wake.notified().await;
        sleep(GATHER).await;
        while let Some((node, keys)) = presence.asking.take() {
            let Ok(place) = presence.asking.at_once.clone().acquire_owned().await else {
                return;
            };
            let presence = presence.clone();
            presence.tasks.clone().spawn(async move {
                ask(&presence, node, keys).await;
                drop(place);
            });
        }
    }
}

async fn ask(presence: &Arc<Presence>, node: NodeId, mut keys: Vec<ChannelKey>) {
    // Who has heard meanwhile, or does not want to know any more, does not ask.
    keys.retain(|key| presence.is_missing(node, key));
    let question = Question {
        channels: keys.iter().map(Place::of).collect(),
    };
    let Ok(data) = serde_json::to_vec(&question) else {
        return;
    };
    if keys.is_empty() {
        return;
    }
    let enough = |parts: &[NodeMessage]| parts.iter().any(|part| wire::is_last(&part.data));
    let parts = presence
        .nodes
        .ask_node(node, wire::ASK, data.into(), ANSWER, &enough)
        .await;
    let parts: Vec<_> = parts.into_iter().map(|part| part.data).collect();
    match wire::read_answers(&parts, keys.len()) {
        Some(Held {
            incarnation,
            version,
            channels,
        }) => {
            for (key, members) in keys.iter().zip(channels) {
                presence.channels.with(key, |entry| {
                    react(presence, key, node, entry, |view, seen| {
                        view.on_snapshot(node, incarnation, version, &members, seen)
                    });
                });
            }
        }
        None => {
            presence.metrics.presence_unanswered.inc();
        }
    }
    keys.retain(|key| presence.is_missing(node, key));
    if !keys.is_empty() {
        sleep(AGAIN).await;
        for key in keys {
            presence.asking.ask(node, key);
        }
    }
}

impl Presence {
    /// Whether a node has not been heard of a channel that somebody wants to know of.
    fn is_missing(&self, node: NodeId, key: &ChannelKey) -> bool {
        let missing = self.channels.with(key, |entry| entry.view.is_missing(node));
        missing == Some(true)
    }

    /// Answers another node.
    pub(super) fn answer(&self, question: &NodeMessage) {
        let (Ok(asked), Some(reply)) = (
            serde_json::from_slice::<Question<'_>>(&question.data),
            &question.reply,
        ) else {
            return;
        };
        // Before the first channel is read: of what comes while they are read the deltas tell again.
        let version = self.version.load(Ordering::Acquire);
        let members = |place: &Place<'_>| {
            let held = self
                .channels
                .with(&place.key()?, |entry| entry.owner.snapshot(version).members);
            Some(held.unwrap_or_default())
        };
        let channels: Option<Vec<_>> = asked.channels.iter().take(BATCH).map(members).collect();
        let Some(channels) = channels else { return };
        for part in wire::answers(self.nodes.me().1, version, &channels) {
            self.metrics.presence_bytes.inc_by(part.len() as u64);
            self.log.answer(reply, part);
        }
    }
}

/// What becomes of a message: `Ask` leads to a question.
pub(super) fn ask_if(presence: &Presence, heard: Heard, node: NodeId, key: &ChannelKey) {
    if heard == Heard::Ask {
        presence.metrics.presence_holes.inc();
        presence.asking.ask(node, key.clone());
    }
}
