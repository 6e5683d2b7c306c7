//! What a test can make go wrong in a log in memory.

mod script;

use std::sync::Arc;

pub(super) use script::{CopyFault, Gate, Gates, PublishFault, RequestFault, Script};

use super::{
    broker::{Broker, Snapshot},
    shard::Shard,
};
use crate::{
    log::{Body, LogEvent, PublishError, ReadError, Route, ShardId, StreamName},
    model::{ChannelKey, Offset},
};

/// A node of the cluster: its place in the order in which the nodes were made.
pub type NodeIndex = usize;

/// Whom a fault hits.
#[derive(Clone, Debug, Default)]
pub struct Target {
    node: Option<NodeIndex>,
    channel: Option<ChannelKey>,
}

impl Target {
    /// Everyone.
    pub fn all() -> Self {
        Self::default()
    }

    /// One node.
    pub fn node(node: NodeIndex) -> Self {
        Self::all().and_node(node)
    }

    /// One channel, on all nodes. Requests about a whole shard are about no channel.
    pub fn channel(key: &ChannelKey) -> Self {
        Self {
            node: None,
            channel: Some(key.clone()),
        }
    }

    /// The same, on one node.
    pub fn and_node(self, node: NodeIndex) -> Self {
        let node = Some(node);
        Self { node, ..self }
    }

    fn hits(&self, node: NodeIndex, key: Option<&ChannelKey>) -> bool {
        self.node.is_none_or(|wanted| wanted == node)
            && self.channel.as_ref().is_none_or(|wanted| Some(wanted) == key)
    }
}

/// The requests of [`crate::log::Log`] that can fail or be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// [`crate::log::Log::subscribe`]
    Subscribe,
    /// [`crate::log::Log::info`]
    Info,
    /// [`crate::log::Log::read`]
    Read,
    /// [`crate::log::Log::read_leader`]
    ReadLeader,
    /// [`crate::log::Log::time_at`]
    TimeAt,
    /// [`crate::log::Log::last_of`]
    LastOf,
    /// [`crate::log::Log::sweep`]
    Sweep,
    /// [`crate::log::Log::epoch`]
    Epoch,
    /// [`crate::log::Log::set_epoch`]
    SetEpoch,
    /// [`crate::log::Log::listen`]
    Listen,
}

/// Controls of a log in memory. Faults with a number are used up; those that hold last until they
/// are released. Of several faults that hit, the oldest acts. Cheap to clone.
#[derive(Clone)]
pub struct Faults {
    broker: Arc<Broker>,
}

impl Faults {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// Loses the next `count` live copies (one for each subscription that would get it).
    pub fn drop_copies(&self, target: Target, count: u32) {
        self.broker
            .state()
            .live
            .faults
            .add(target, CopyFault::Drop, count);
    }

    /// Sends the next `count` live copies twice.
    pub fn repeat_copies(&self, target: Target, count: u32) {
        self.broker
            .state()
            .live
            .faults
            .add(target, CopyFault::Repeat, count);
    }

    /// Holds live copies back until [`Faults::release_copies`].
    pub fn hold_copies(&self, target: Target) {
        self.broker
            .state()
            .live
            .faults
            .add(target, CopyFault::Hold, u32::MAX);
    }

    /// Sends all copies held back, in their order.
    pub fn release_copies(&self) {
        let state = &mut *self.broker.state();
        state.live.release(&state.nodes);
    }

    /// Sends the live copy of a stored message once more, as a new leader may.
    pub fn replay_copy(&self, shard: ShardId, seq: Offset) {
        let state = &mut *self.broker.state();
        let copy = state.shard(shard).ok().and_then(|(shard, now_ms)| {
            let message = shard.leader(now_ms).at(seq)?;
            Some((message.address.clone(), message.copy()))
        });
        if let Some((address, copy)) = copy {
            state.live.fan_out(&state.nodes, &address, &copy);
        }
    }

    /// Sets the buffer of later subscriptions, in copies.
    pub fn set_subscription_capacity(&self, copies: usize) {
        self.broker.state().live.capacity = copies;
    }

    /// How many live subscriptions there are, of one node or of all.
    pub fn subscriptions(&self, node: Option<NodeIndex>) -> usize {
        self.broker.state().live.count(node)
    }

    /// Fails the next `count` requests of a kind; they ask nobody.
    pub fn fail(&self, target: Target, request: Request, error: ReadError, count: u32) {
        let fault = RequestFault::Fail(request, error);
        self.broker.state().requests.add(target, fault, count);
    }

    /// Holds the answers to requests of a kind until [`Faults::release_answers`]. They say what was
    /// true when they were asked.
    pub fn hold_answers(&self, target: Target, request: Request) {
        let fault = RequestFault::Hold(request);
        self.broker.state().requests.add(target, fault, u32::MAX);
    }

    /// Holds acknowledgements until [`Faults::release_answers`]; copies are not held.
    pub fn hold_acks(&self, target: Target) {
        self.broker
            .state()
            .publishes
            .add(target, PublishFault::Hold, u32::MAX);
    }

    /// Lets all answers and acknowledgements through.
    pub fn release_answers(&self) {
        let state = &mut *self.broker.state();
        state
            .requests
            .cancel(|fault| matches!(fault, RequestFault::Hold(_)));
        state
            .publishes
            .cancel(|fault| matches!(fault, PublishFault::Hold));
        state.gates.open_all();
    }

    /// Refuses the next `count` publishes: nothing is stored.
    pub fn refuse_publishes(&self, target: Target, error: PublishError, count: u32) {
        let fault = PublishFault::Refuse(error);
        self.broker.state().publishes.add(target, fault, count);
    }

    /// Loses the next `count` acknowledgements: stored and sent out, but the outcome is unknown.
    pub fn lose_acks(&self, target: Target, count: u32) {
        self.broker
            .state()
            .publishes
            .add(target, PublishFault::LoseAck, count);
    }

    /// Kills the leader between commit and republish for the next `count` publishes: stored, but no
    /// copies and no acknowledgement. A retry with the same id is a duplicate.
    pub fn crash_before_republish(&self, target: Target, count: u32) {
        self.broker
            .state()
            .publishes
            .add(target, PublishFault::Crash, count);
    }

    /// Cuts a node's connection: its copies, answers and messages are lost until it is back.
    pub fn disconnect(&self, node: NodeIndex) {
        self.broker.state().disconnect(node);
    }

    /// Brings a node's connection back, with all its subscriptions.
    pub fn reconnect(&self, node: NodeIndex) {
        self.broker.state().reconnect(node);
    }

    /// Loses the next `count` messages and answers of nodes on their way to a hearer.
    pub fn lose_node_messages(&self, target: Target, count: u32) {
        self.broker.state().topics.losses.add(target, (), count);
    }

    /// Tells all nodes that a shard has a new leader.
    pub fn elect_leader(&self, shard: ShardId) {
        self.broker
            .state()
            .nodes
            .emit_all(&LogEvent::LeaderElected(shard));
    }

    /// Lets a replica (1 and above) lag: it applies nothing more until it is released.
    pub fn hold_replica(&self, shard: ShardId, replica: usize) {
        self.with_shard(shard, |shard| shard.hold(replica, true));
    }

    /// Lets a lagging replica apply what it missed up to and including `seq`.
    pub fn catch_up_replica(&self, shard: ShardId, replica: usize, seq: Offset) {
        self.with_shard(shard, |shard| shard.catch_up(replica, seq));
    }

    /// Ends a replica's lag.
    pub fn release_replica(&self, shard: ShardId, replica: usize) {
        self.with_shard(shard, |shard| shard.hold(replica, false));
    }

    /// Sets how far (ms) the clock of a replica (1 and above) is ahead of the leader's.
    pub fn skew_replica(&self, shard: ShardId, replica: usize, ahead_ms: i64) {
        self.with_shard(shard, |shard| shard.skew(replica, ahead_ms));
    }

    /// Sets which replica answers reads by any replica; `None` = each in turn.
    pub fn answer_from(&self, shard: ShardId, replica: Option<usize>) {
        self.with_shard(shard, |shard| shard.answer_from(replica));
    }

    /// Lets a replica answer info and leader reads, as a deposed leader does that does not know it
    /// yet; `None` = the leader answers.
    pub fn depose_leader(&self, shard: ShardId, replica: Option<usize>) {
        self.with_shard(shard, |shard| shard.depose(replica));
    }

    /// The time, ms since 1970.
    pub fn now_ms(&self) -> i64 {
        self.broker.state().now_ms
    }

    /// Moves the time.
    pub fn advance(&self, ms: i64) {
        self.broker.state().now_ms += ms.max(0);
    }

    /// Removes everything of a shard below a sequence, as a byte limit does.
    pub fn trim(&self, shard: ShardId, below: Offset) {
        self.with_shard(shard, |shard| shard.trim(below));
    }

    /// Removes everything of a shard below a sequence while the next page that is read, or swept, is
    /// put together: behind its first `after` messages.
    pub fn tear_page(&self, shard: ShardId, after: u32, below: Offset) {
        self.with_shard(shard, |shard| shard.tear(after, below));
    }

    /// Deletes and creates a shard's stream: another `created`, sequences from 1.
    pub fn recreate(&self, shard: ShardId) {
        self.broker.state().recreate(shard);
    }

    /// Copies a shard as it is; `None` if there is no such shard.
    pub fn snapshot(&self, shard: ShardId) -> Option<Snapshot> {
        let mut state = self.broker.state();
        state
            .shard(shard)
            .ok()
            .map(|(shard, _)| Snapshot(shard.snapshot()))
    }

    /// Puts an older copy in a shard's place: the same `created`, sequences go back. The clock moves
    /// by 1 ms, so that no later message has the time stamp of the one it replaces.
    pub fn restore(&self, shard: ShardId, snapshot: &Snapshot) {
        self.advance(1);
        self.with_shard(shard, |shard| shard.restore(&snapshot.0));
    }

    /// Forgets everything a shard stored after `last_seq`: like [`Faults::restore`] without a copy
    /// made in time.
    pub fn regress(&self, shard: ShardId, last_seq: Offset) {
        self.advance(1);
        self.with_shard(shard, |shard| shard.regress(last_seq));
    }

    /// Stores a message that cannot be understood on a durable channel and sends its copy out.
    /// Answers its sequence; 0 if it was not stored.
    pub fn store_unreadable(&self, route: &Route, malformed: bool) -> Offset {
        let state = &mut *self.broker.state();
        let body = Body::Unreadable { malformed };
        let stored = state.append(route.shard(), route.address(), body, None);
        let Ok((ack, Some(copy))) = stored else {
            return 0;
        };
        state.live.fan_out(&state.nodes, route.address(), &copy);
        ack.seq
    }

    /// Sets how many bytes one of the deployment's own streams may hold; `None` = as many as come.
    pub fn limit_stream(&self, stream: StreamName, max_bytes: Option<u64>) {
        self.broker.state().works.of(stream).limit(max_bytes);
    }

    /// Ends all faults: what is held goes on, replicas catch up, clocks agree, nodes are connected.
    pub fn heal(&self) {
        self.release_copies();
        self.release_answers();
        let state = &mut *self.broker.state();
        state.heal();
    }

    fn with_shard(&self, shard: ShardId, change: impl FnOnce(&mut Shard)) {
        let mut state = self.broker.state();
        if let Ok((shard, _)) = state.shard(shard) {
            change(shard);
        }
    }
}
