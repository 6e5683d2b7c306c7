//! Snapshots: other nodes are asked by name for what they hold, until they answer or are gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

use super::{Presence, hearing::react};
use crate::{
    log::NodeMessage,
    model::{ChannelKey, NodeId},
    presence::{
        view::Heard,
        wire::{self, Place, Question},
    },
};

/// How long a question waits for others.
const GATHER: Duration = Duration::from_millis(2);
/// Channels in one question.
const BATCH: usize = 256;
/// Questions under way to one node. A node that does not answer keeps nobody from asking others.
const AT_ONCE: usize = 4;
/// How long an answer may take. Then the question is asked again.
const ANSWER: Duration = Duration::from_secs(1);
/// After an answer that was not whole in time the next may take twice as long, this often: half a minute if it
/// had begun. If it had not, the node may be gone, or its answer be behind those to earlier questions.
const MOST_DOUBLINGS: u32 = 5;
const MOST_DOUBLINGS_UNHEARD: u32 = 3;
/// Between two questions for the same.
const AGAIN: Duration = Duration::from_millis(100);

/// What other nodes are to be asked for. Bounded by the channels and nodes there are.
#[derive(Default)]
pub(super) struct Asking {
    open: Mutex<HashMap<NodeId, Open>>,
    wake: Notify,
}

#[derive(Default)]
struct Open {
    channels: HashSet<ChannelKey>,
    under_way: usize,
    /// How often the time for its answers has been doubled.
    doublings: u32,
}

impl Asking {
    /// Asks `node` for a channel soon.
    pub(super) fn ask(&self, node: NodeId, key: ChannelKey) {
        self.open.lock().entry(node).or_default().channels.insert(key);
        self.wake.notify_one();
    }

    /// Up to a batch of what one node is to be asked for.
    fn take(&self) -> Option<(NodeId, Vec<ChannelKey>, Duration)> {
        let mut open = self.open.lock();
        let mut nodes = open.iter_mut();
        let (id, node) = nodes.find(|(_, node)| node.under_way < AT_ONCE && !node.channels.is_empty())?;
        node.under_way += 1;
        let batch: Vec<_> = node.channels.iter().take(BATCH).cloned().collect();
        for key in &batch {
            node.channels.remove(key);
        }
        Some((*id, batch, ANSWER * 2_u32.pow(node.doublings)))
    }

    /// An answer was in time.
    fn was_in_time(&self, id: NodeId) {
        if let Some(node) = self.open.lock().get_mut(&id) {
            node.doublings = node.doublings.saturating_sub(1);
        }
    }

    /// An answer was not.
    fn was_late(&self, id: NodeId, had_begun: bool) {
        let most = if had_begun {
            MOST_DOUBLINGS
        } else {
            MOST_DOUBLINGS_UNHEARD
        };
        if let Some(node) = self.open.lock().get_mut(&id)
            && node.doublings < most
        {
            node.doublings += 1;
        }
    }

    /// A batch that was taken is done with.
    fn done(&self, id: NodeId) {
        let mut open = self.open.lock();
        if let Some(node) = open.get_mut(&id) {
            node.under_way -= 1;
            if node.under_way == 0 && node.channels.is_empty() {
                open.remove(&id);
            }
        }
        drop(open);
        self.wake.notify_one();
    }
}

pub(super) fn start(presence: &Arc<Presence>) {
    presence.tasks.spawn(run(presence.clone()));
}

async fn run(presence: Arc<Presence>) {
    loop {
        presence.asking.wake.notified().await;
        sleep(GATHER).await;
        while let Some((node, keys, wait)) = presence.asking.take() {
            let presence = presence.clone();
            presence.tasks.clone().spawn(async move {
                ask(&presence, node, keys, wait).await;
                presence.asking.done(node);
            });
        }
    }
}

async fn ask(presence: &Arc<Presence>, node: NodeId, mut keys: Vec<ChannelKey>, wait: Duration) {
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
    // Parts come in their order, or the answer is not whole.
    let enough = |parts: &[NodeMessage]| parts.last().is_some_and(|part| wire::is_last(&part.data));
    let parts = presence
        .nodes
        .ask_node(node, wire::ASK, data.into(), wait, &enough)
        .await;
    let parts: Vec<_> = parts.into_iter().map(|part| part.data).collect();
    match wire::read_answers(&parts, keys.len()) {
        Some(answer) => {
            presence.asking.was_in_time(node);
            let answered = answer.channels.len();
            for (key, members) in keys.iter().zip(answer.channels) {
                presence.channels.with(key, |entry| {
                    react(presence, key, node, entry, |view, seen| {
                        view.on_snapshot(node, answer.incarnation, answer.version, &members, seen)
                    });
                });
            }
            // What did not fit is no failure, and is asked for at once.
            for key in keys.split_off(answered) {
                presence.asking.ask(node, key);
            }
        }
        None => {
            presence.metrics.presence_unanswered.inc();
            presence.asking.was_late(node, !parts.is_empty());
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
        // From now on the others are told, whether their leases are known or not.
        self.asked.store(true, Ordering::Release);
        // Before the first channel is read: of what comes while they are read the deltas tell again.
        let version = self.version.load(Ordering::Acquire);
        let keys: Option<Vec<_>> = asked.channels.iter().take(BATCH).map(Place::key).collect();
        let Some(keys) = keys else { return };
        let members = keys.iter().map(|key| {
            let held = self
                .channels
                .with(key, |entry| entry.owner.snapshot(version).members);
            held.unwrap_or_default()
        });
        for part in wire::answers(self.nodes.me().1, version, members) {
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
