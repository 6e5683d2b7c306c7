//! What other nodes say: deltas, digests, questions, and that they come and go.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{sync::broadcast::error::RecvError, time::sleep};

use super::{Presence, asking::ask_if, channels::Entry};
use crate::{
    cluster::NodeEvent,
    log::{LogEvent, NodeMessage, NodeMessages},
    model::{ChannelKey, Incarnation, NodeId},
    presence::{
        view::{Heard, Seen, View},
        wire::{self, PARTITIONS, Told},
    },
};

const RETRY: Duration = Duration::from_millis(200);

/// Which partitions are heard. One that has been heard once stays so: there are few.
pub(super) struct Partitions(Vec<AtomicU8>);

const SILENT: u8 = 0;
const BEGINNING: u8 = 1;
const HEARD: u8 = 2;

impl Default for Partitions {
    fn default() -> Self {
        Self((0..PARTITIONS).map(|_| AtomicU8::new(SILENT)).collect())
    }
}

impl Partitions {
    /// Those that are heard.
    pub(super) fn heard(&self) -> impl Iterator<Item = u16> {
        let heard = |partition: &u16| self.0[usize::from(*partition)].load(Ordering::Acquire) == HEARD;
        (0..PARTITIONS).filter(heard)
    }
}

pub(super) async fn start(presence: &Arc<Presence>) {
    presence.tasks.spawn(follow_nodes(presence.clone()));
    presence.tasks.spawn(follow_log(presence.clone()));
    let topic = format!("{}.{}", wire::ASK, presence.nodes.me().0);
    // A node that asks before this one listens asks again.
    let questions = presence.log.listen(&topic).await.ok();
    presence
        .tasks
        .spawn(answer_questions(presence.clone(), topic, questions));
}

async fn answer_questions(
    presence: Arc<Presence>,
    topic: String,
    mut questions: Option<Box<dyn NodeMessages>>,
) {
    loop {
        while let Some(messages) = &mut questions
            && let Some(question) = poll_fn(|cx| messages.poll_next(cx)).await
        {
            presence.answer(&question);
        }
        sleep(RETRY).await;
        questions = presence.log.listen(&topic).await.ok();
    }
}

impl Presence {
    /// Asks nodes for a channel once its partition is heard: what changes after the answer is told.
    pub(super) fn ask_when_heard(self: &Arc<Self>, partition: u16, key: &ChannelKey, nodes: Vec<NodeId>) {
        let state = &self.partitions.0[usize::from(partition)];
        if state.load(Ordering::Acquire) == HEARD {
            for node in nodes {
                self.asking.ask(node, key.clone());
            }
            return;
        }
        let began = state.compare_exchange(SILENT, BEGINNING, Ordering::AcqRel, Ordering::Acquire);
        if began.is_ok() {
            self.tasks.spawn(hear(self.clone(), partition));
        } else if state.load(Ordering::Acquire) == HEARD {
            // It has begun in between, and may not have seen this channel.
            for node in nodes {
                self.asking.ask(node, key.clone());
            }
        }
    }

    fn is_heard(&self, hash: u64) -> bool {
        self.partitions.0[usize::from(wire::partition(hash))].load(Ordering::Acquire) == HEARD
    }

    fn ask_missing(&self, partition: u16) {
        self.channels.for_each_in(partition, |key, entry| {
            for node in entry.view.missing() {
                self.asking.ask(node, key.clone());
            }
        });
    }

    fn on_told(&self, partition: u16, message: &NodeMessage) {
        let from = message.from;
        if from == self.nodes.me().0 {
            return;
        }
        let Ok(told) = serde_json::from_slice::<Told<'_>>(&message.data) else {
            return;
        };
        let incarnation = told.incarnation;
        for delta in told.deltas {
            let Some((key, delta)) = delta.read() else {
                continue;
            };
            self.channels.with(&key, |entry| {
                react(self, &key, from, entry, |view, seen| {
                    view.on_delta(from, incarnation, &delta, seen)
                });
            });
        }
        if let Some(digest) = told.digest {
            let versions = wire::by_hash(&digest);
            self.channels.for_each_in(partition, |key, entry| {
                let version = versions.get(&entry.hash).copied();
                if entry.view.on_digest(from, incarnation, version, digest.at) {
                    ask_if(self, Heard::Ask, from, key);
                }
            });
        }
    }

    fn on_event(&self, event: NodeEvent) {
        match event {
            NodeEvent::Up(id, incarnation) => self.channels.for_each(|key, entry| {
                // It is asked once its partition is heard; until then it counts as missing.
                let ask = self.is_heard(entry.hash);
                react(self, key, id, entry, |view, seen| {
                    if view.node_up(id, incarnation, seen) && ask {
                        self.asking.ask(id, key.clone());
                    }
                    Heard::Ignored
                });
            }),
            NodeEvent::Down(id, incarnation) => self.channels.for_each(|key, entry| {
                react(self, key, id, entry, |view, seen| {
                    view.node_down(id, incarnation, seen);
                    Heard::Current
                });
            }),
            // The others have dropped what this node told them, and ask it.
            NodeEvent::Me(incarnation) => {
                let me = self.nodes.me().0;
                self.channels
                    .for_each(|_, entry| entry.view.set_own(me, incarnation));
            }
        }
    }

    /// The connection to NATS has been made anew: nobody knows what others said meanwhile.
    fn on_reconnected(&self) {
        let me = self.nodes.me().0;
        self.channels.for_each(|key, entry| {
            entry.view.doubt(me);
            if self.is_heard(entry.hash) {
                for node in entry.view.missing() {
                    self.asking.ask(node, key.clone());
                }
            }
        });
    }

    /// Events of nodes were missed: what they said is told again.
    fn catch_up_with_nodes(&self) {
        let others = self.nodes.others();
        let known = |id: NodeId, incarnation: Incarnation| others.contains(&(id, incarnation));
        let mut gone = Vec::new();
        self.channels.for_each(|_, entry| gone.extend(entry.view.nodes()));
        gone.sort_unstable();
        gone.dedup();
        let me = self.nodes.me();
        for (id, incarnation) in gone {
            if id != me.0 && !known(id, incarnation) {
                self.on_event(NodeEvent::Down(id, incarnation));
            }
        }
        for (id, incarnation) in others {
            self.on_event(NodeEvent::Up(id, incarnation));
        }
        self.on_event(NodeEvent::Me(me.1));
    }
}

/// Does what a message brings, and what follows from it.
pub(super) fn react(
    presence: &Presence,
    key: &ChannelKey,
    node: NodeId,
    entry: &mut Entry,
    act: impl FnOnce(&mut View, &mut Vec<Seen>) -> Heard,
) {
    let mut seen = Vec::new();
    let heard = act(&mut entry.view, &mut seen);
    // A user who is back on another node has not lost its connection for long.
    let me = presence.nodes.me().0;
    if node != me {
        let mut ended = Vec::new();
        for joined in &seen {
            if let Seen::Joined(member) = joined
                && !member.user.is_empty()
            {
                ended.extend(entry.owner.end_lingering_of(member));
            }
        }
        for member in ended {
            entry.view.remove_own(me, &member.client, &mut seen);
        }
    }
    presence.show(key, entry, &seen);
    presence.tell_later(key, entry);
    ask_if(presence, heard, node, key);
    if heard == Heard::Current {
        entry.heard.notify_waiters();
    }
}

/// Hears a partition for as long as the node runs.
async fn hear(presence: Arc<Presence>, partition: u16) {
    let topic = wire::topic(partition);
    loop {
        if let Ok(mut messages) = presence.log.listen(&topic).await {
            presence.partitions.0[usize::from(partition)].store(HEARD, Ordering::Release);
            presence.ask_missing(partition);
            while let Some(message) = poll_fn(|cx| messages.poll_next(cx)).await {
                presence.on_told(partition, &message);
            }
        }
        sleep(RETRY).await;
    }
}

async fn follow_nodes(presence: Arc<Presence>) {
    let mut events = presence.nodes.events();
    // What happened before this listened.
    presence.catch_up_with_nodes();
    loop {
        match events.recv().await {
            Ok(event) => presence.on_event(event),
            Err(RecvError::Lagged(_)) => presence.catch_up_with_nodes(),
            Err(RecvError::Closed) => return,
        }
    }
}

async fn follow_log(presence: Arc<Presence>) {
    let mut events = presence.log.events();
    loop {
        match events.recv().await {
            Ok(LogEvent::Connected) | Err(RecvError::Lagged(_)) => {
                presence.on_reconnected();
                // Nor do the others know what this node told them.
                presence.send_digests();
            }
            Ok(_) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
