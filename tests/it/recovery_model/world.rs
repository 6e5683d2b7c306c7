//! Plays a script: real nodes over a log in memory, clients, and the truth about what was stored.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use parking_lot::Mutex;
use slipstream::{
    channel::Published,
    log::{
        Log, PublishError, ReadError, Route, ShardId, ShardInfo,
        memory::{ClassSpec, Faults, MemoryCluster, MemoryLog, Request, Target},
    },
    model::Offset,
};
use tokio::time::sleep;

use super::{
    client::{Client, Told},
    reality::{Realities, Reality, Thing},
    script::{Ask, Claim, Class, Notice, Script, Step, Trouble},
};
use crate::hubs::{Bounds, Node, class, record};

/// From the last fault on, so much time must suffice to make everyone whole: two checks and some
/// retries.
const HEALING: Duration = Duration::from_secs(60);

/// What happened in a case, to see that scripts do what they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) steps: u64,
    pub(crate) stored: u64,
    pub(crate) told: Told,
}

impl Summary {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.stored += other.stored;
        self.told.add(&other.told);
    }
}

struct World {
    bounds: Bounds,
    cluster: MemoryCluster,
    faults: Faults,
    /// A node without a hub, and without faults: it knows the truth.
    observer: MemoryLog,
    nodes: Vec<Node>,
    routes: Vec<Route>,
    clients: Vec<Client>,
    truth: Realities,
    /// The replica that answers for the leader, by shard.
    deposed: Vec<Option<usize>>,
    acks: Arc<Mutex<Vec<Acked>>>,
    retries: Vec<Publish>,
    next_id: u64,
    stored: u64,
}

#[derive(Clone, Debug)]
struct Publish {
    channel: usize,
    id: u64,
    key: Option<String>,
    padding: usize,
}

struct Acked {
    publish: Publish,
    /// Where it was stored by this very attempt.
    stored: Option<Offset>,
    outcome: Result<Published, PublishError>,
}

pub(crate) async fn play(script: &Script) -> Result<Summary, String> {
    let mut world = World::new(script);
    world.breathe().await;
    if script.eager {
        for client in 0..script.clients {
            for channel in 0..script.channels.len() {
                world.subscribe(client, channel, client, Claim::Own)?;
            }
        }
        world.breathe().await;
    }
    for (at, step) in script.steps.iter().enumerate() {
        world
            .step(step)
            .await
            .map_err(|error| format!("step {at}, {step:?}: {error}"))?;
    }
    world
        .heal()
        .await
        .map_err(|error| format!("in the end: {error}"))?;
    let mut summary = Summary {
        steps: script.steps.len() as u64,
        stored: world.stored,
        told: Told::default(),
    };
    for client in &world.clients {
        summary.told.add(&client.told);
    }
    Ok(summary)
}

fn classes(script: &Script) -> Vec<ClassSpec> {
    let spec = |name: &str| ClassSpec {
        max_age: Duration::from_mins(30),
        replicas: script.replicas,
        ..ClassSpec::new(class(name), script.shards)
    };
    vec![
        spec("std"),
        ClassSpec {
            max_per_channel: Some(4),
            ..spec("few")
        },
        ClassSpec {
            max_bytes: 700,
            ..spec("tight")
        },
    ]
}

impl World {
    fn new(script: &Script) -> Self {
        let cluster = MemoryLog::cluster(classes(script));
        let observer = cluster.node();
        let bounds = Bounds::small();
        let mut truth = Realities::default();
        for spec in observer.shards() {
            truth.shards.push(Reality::new(spec.class.as_str() != "std"));
        }
        let mut routes = Vec::new();
        for (index, of) in script.channels.iter().enumerate() {
            let name = match of {
                Class::Std => "std",
                Class::Few => "few",
                Class::Tight => "tight",
            };
            let route = crate::hubs::route(&observer, &format!("c{index}"), Some(&class(name)));
            truth.shard_of.push(usize::from(route.shard().unwrap().0));
            routes.push(route);
        }
        Self {
            nodes: (0..script.nodes)
                .map(|_| Node::start(&cluster, &bounds))
                .collect(),
            faults: cluster.faults(),
            clients: (0..script.clients).map(|_| Client::new(routes.len())).collect(),
            deposed: vec![None; truth.shards.len()],
            bounds,
            cluster,
            observer,
            routes,
            truth,
            acks: Arc::default(),
            retries: Vec::new(),
            next_id: 1,
            stored: 0,
        }
    }

    /// Lets everything happen that can happen now.
    async fn breathe(&self) {
        self.faults.advance(1);
        sleep(Duration::from_millis(1)).await;
    }

    async fn wait(&mut self, time: Duration) -> Result<(), String> {
        let mut left = time;
        while !left.is_zero() {
            let part = left.min(Duration::from_millis(500));
            left -= part;
            self.faults.advance(i64::try_from(part.as_millis()).unwrap());
            sleep(part).await;
            self.act(false)?;
        }
        Ok(())
    }

    /// What clients and publishers do by themselves. `all`: also slow clients read.
    fn act(&mut self, all: bool) -> Result<(), String> {
        let acks = std::mem::take(&mut *self.acks.lock());
        for acked in acks {
            self.on_ack(acked)?;
        }
        for shard in 0..self.truth.shards.len() {
            self.truth.shards[shard].last = self.info(shard).last_seq;
        }
        for client in &mut self.clients {
            client.settle()?;
            if all || !client.slow {
                client.read(&self.truth)?;
            }
            let Some(node) = client.node else { continue };
            for channel in 0..self.routes.len() {
                if client.places[channel].wants && client.is_away(channel) && client.may_retry(channel) {
                    let last = self.truth.of(channel).last;
                    client.subscribe(
                        &self.nodes[node],
                        &self.routes[channel],
                        channel,
                        Claim::Own,
                        last,
                    );
                }
            }
        }
        Ok(())
    }

    fn on_ack(&mut self, acked: Acked) -> Result<(), String> {
        let Acked {
            publish,
            stored,
            outcome,
        } = acked;
        match outcome {
            Ok(published) => {
                let position = published.position.ok_or("no position")?;
                let Some(key) = publish.key.as_ref().filter(|_| published.duplicate) else {
                    if stored != Some(position.offset) {
                        return Err(format!(
                            "{publish:?} stored at {stored:?}, acknowledged {position:?}"
                        ));
                    }
                    return Ok(());
                };
                let known = self.truth.of(publish.channel).with_key(publish.channel, key);
                if !known.contains(&position.offset) && !self.truth.of(publish.channel).lossy {
                    return Err(format!("duplicate of {position:?}, stored at {known:?}"));
                }
            }
            Err(PublishError::Unknown) if publish.key.is_some() => self.retries.push(publish),
            Err(_) => {}
        }
        Ok(())
    }

    /// Asks the true leader.
    fn info(&self, shard: usize) -> ShardInfo {
        let id = ShardId(u16::try_from(shard).unwrap());
        self.faults.depose_leader(id, None);
        let info = self.observer.info(id).now_or_never().unwrap().unwrap();
        self.faults.depose_leader(id, self.deposed[shard]);
        info
    }

    fn epoch(&self, shard: usize) -> Option<(String, Offset)> {
        let id = ShardId(u16::try_from(shard).unwrap());
        let entry = self.observer.epoch(id).now_or_never().unwrap().unwrap();
        entry.map(|(entry, _)| (entry.token.to_string(), entry.mark_seq))
    }

    fn channel(&self, channel: usize) -> usize {
        channel % self.routes.len()
    }

    fn shard(&self, channel: usize) -> (usize, ShardId) {
        let shard = self.truth.shard_of[self.channel(channel)];
        (shard, ShardId(u16::try_from(shard).unwrap()))
    }

    fn node(&self, node: usize) -> usize {
        node % self.nodes.len()
    }

    fn target(&self, node: usize) -> Target {
        Target::node(self.nodes[self.node(node)].index())
    }

    fn target_of(&self, node: usize, channel: usize) -> Target {
        Target::channel(self.routes[self.channel(channel)].key())
            .and_node(self.nodes[self.node(node)].index())
    }

    fn new_publish(&mut self, channel: usize, key: Option<String>, padding: usize) -> Publish {
        let id = self.next_id;
        self.next_id += 1;
        let channel = self.channel(channel);
        Publish {
            channel,
            id,
            key,
            padding,
        }
    }

    fn publish(&mut self, node: usize, publish: Publish) {
        let shard = self.truth.shard_of[publish.channel];
        let before = self.info(shard).last_seq;
        let route = &self.routes[publish.channel];
        let record = record(publish.id, publish.padding);
        let node = &self.nodes[self.node(node)];
        let sent = node.hub.publish(route, &record, publish.key.as_deref());
        let after = self.info(shard).last_seq;
        let stored = (after > before).then_some(after);
        if let Some(seq) = stored {
            self.stored += 1;
            let thing = Thing::Publication {
                id: publish.id,
                key: publish.key.clone(),
            };
            self.truth
                .of_mut(publish.channel)
                .store(seq, publish.channel, thing);
        }
        let acks = self.acks.clone();
        let Ok(acknowledged) = sent else { return };
        node.tasks.spawn(async move {
            let outcome = acknowledged.await;
            acks.lock().push(Acked {
                publish,
                stored,
                outcome,
            });
        });
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        self.apply(step).await?;
        self.breathe().await;
        self.act(false)
    }

    async fn apply(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Publish {
                channel,
                node,
                key,
                trouble,
            } => {
                if let Some(publish) = self.retries.pop() {
                    self.publish(node, publish);
                }
                let target = self.target_of(node, channel);
                match trouble {
                    None => {}
                    Some(Trouble::LoseAck) => self.faults.lose_acks(target, 1),
                    Some(Trouble::CrashBeforeRepublish) => self.faults.crash_before_republish(target, 1),
                    Some(Trouble::Refuse) => {
                        self.faults
                            .refuse_publishes(target, PublishError::Refused("as told".into()), 1);
                    }
                }
                let publish = self.new_publish(channel, key.map(|key| format!("key{key}")), 10);
                self.publish(node, publish);
            }
            Step::Burst {
                channel,
                node,
                count,
                padding,
            } => {
                for _ in 0..count {
                    let publish = self.new_publish(channel, None, padding.into());
                    self.publish(node, publish);
                }
            }
            Step::Subscribe {
                client,
                channel,
                node,
                claim,
            } => self.subscribe(client, channel, node, claim)?,
            Step::Leave { client, channel } => {
                let (at, channel) = (client % self.clients.len(), self.channel(channel));
                self.clients[at].read(&self.truth)?;
                self.clients[at].leave(channel);
            }
            Step::HangUp { client } => {
                let at = client % self.clients.len();
                self.clients[at].hang_up();
            }
            Step::Slow { client, slow } => {
                let at = client % self.clients.len();
                self.clients[at].slow = slow;
            }
            Step::Drain { client } => {
                let at = client % self.clients.len();
                self.clients[at].read(&self.truth)?;
            }
            Step::Wait(ms) => self.wait(Duration::from_millis(ms.into())).await?,
            Step::Remove { channel, node } => self.remove(channel, node),
            Step::RestartNode { node, drained } => self.restart(node, drained).await,
            Step::Recreate { channel } => {
                let (shard, id) = self.shard(channel);
                let epoch = self.epoch(shard).map(|(token, _)| token);
                self.faults.recreate(id);
                self.truth.shards[shard].go_back(0, epoch);
            }
            Step::Regress { channel, by, notice } => self.regress(channel, by.into(), notice).await?,
            _ => self.fault(step),
        }
        Ok(())
    }

    fn subscribe(&mut self, client: usize, channel: usize, node: usize, claim: Claim) -> Result<(), String> {
        let (channel, node) = (self.channel(channel), self.node(node));
        let at = client % self.clients.len();
        let client = &mut self.clients[at];
        client.settle()?;
        let node = *client.node.get_or_insert(node);
        if client.is_away(channel) {
            let last = self.truth.of(channel).last;
            client.subscribe(&self.nodes[node], &self.routes[channel], channel, claim, last);
        }
        Ok(())
    }

    fn remove(&mut self, channel: usize, node: usize) {
        let (shard, _) = self.shard(channel);
        let channel = self.channel(channel);
        let before = self.info(shard).last_seq;
        let node = &self.nodes[self.node(node)];
        // It is stored when it is first polled, or not at all.
        let _ = node.hub.remove_history(&self.routes[channel]).now_or_never();
        let after = self.info(shard).last_seq;
        if after > before {
            let reality = &mut self.truth.shards[shard];
            reality.store(after, channel, Thing::Tombstone);
            reality.lossy = true;
        }
    }

    async fn restart(&mut self, node: usize, drained: bool) {
        let at = self.node(node);
        for client in &mut self.clients {
            if client.node == Some(at) {
                client.hang_up();
            }
        }
        if drained {
            let marks = self.nodes[at].hub.write_marks();
            let _ = tokio::time::timeout(Duration::from_secs(1), marks).await;
        }
        self.nodes[at] = Node::start(&self.cluster, &self.bounds);
    }

    /// The shard loses its last messages, after the nodes have seen them and the mark is written.
    async fn regress(&mut self, channel: usize, by: u64, notice: Notice) -> Result<(), String> {
        let (shard, id) = self.shard(channel);
        self.deposed.fill(None);
        self.faults.heal();
        self.wait(Duration::from_secs(3)).await?;
        self.ask_all(id).await?;
        self.wait(Duration::from_secs(3)).await?;
        let last = self.info(shard).last_seq;
        let epoch = self.epoch(shard);
        if epoch.as_ref().is_none_or(|(_, mark)| *mark != last) {
            return Err(format!("the mark is at {epoch:?}, the shard at {last}"));
        }
        let back_to = last.saturating_sub(by);
        if back_to == last {
            return Ok(());
        }
        self.faults.regress(id, back_to);
        self.truth.shards[shard].go_back(back_to, epoch.map(|(token, _)| token));
        match notice {
            Notice::Reconnect => {
                for node in &self.nodes {
                    self.faults.disconnect(node.index());
                }
                self.breathe().await;
                for node in &self.nodes {
                    self.faults.reconnect(node.index());
                }
            }
            // As a check does; without tails there is none.
            Notice::Check => self.ask_all(id).await?,
            Notice::Publish => {
                let publish = self.new_publish(channel, None, 0);
                self.publish(0, publish);
            }
        }
        Ok(())
    }

    /// All nodes ask the leader of a shard.
    async fn ask_all(&self, shard: ShardId) -> Result<(), String> {
        for node in &self.nodes {
            let fresh = node.hub.keeper(shard).unwrap().fresh();
            tokio::time::timeout(Duration::from_secs(5), fresh)
                .await
                .map_err(|_| "the keeper does not answer")?;
        }
        Ok(())
    }

    fn fault(&mut self, step: &Step) {
        let faults = &self.faults;
        match *step {
            Step::DropCopies { node, channel, count } => {
                faults.drop_copies(self.target_of(node, channel), count.into());
            }
            Step::RepeatCopies { node, channel, count } => {
                faults.repeat_copies(self.target_of(node, channel), count.into());
            }
            Step::HoldCopies { node, channel } => faults.hold_copies(self.target_of(node, channel)),
            Step::ReleaseCopies => faults.release_copies(),
            Step::ReplayCopy { channel, back } => {
                let (shard, id) = self.shard(channel);
                let seq = self.info(shard).last_seq.saturating_sub(back.into());
                faults.replay_copy(id, seq);
            }
            Step::HoldReplica { channel, replica } => faults.hold_replica(self.shard(channel).1, replica),
            Step::ReleaseReplica { channel, replica } => {
                faults.release_replica(self.shard(channel).1, replica);
            }
            Step::AnswerFrom { channel, replica } => faults.answer_from(self.shard(channel).1, replica),
            Step::Depose { channel, replica } => {
                let (shard, id) = self.shard(channel);
                faults.depose_leader(id, replica);
                self.deposed[shard] = replica;
            }
            Step::Skew { channel, replica, ms } => {
                faults.skew_replica(self.shard(channel).1, replica, ms.into());
            }
            Step::Fail { node, ask, count } => {
                faults.fail(self.target(node), request(ask), ReadError::NoAnswer, count.into());
            }
            Step::HoldAnswers { node, ask } => faults.hold_answers(self.target(node), request(ask)),
            Step::HoldAcks { node } => faults.hold_acks(self.target(node)),
            Step::ReleaseAnswers => faults.release_answers(),
            Step::LoseNodeMessages { count } => faults.lose_node_messages(Target::all(), count.into()),
            Step::Disconnect { node } => faults.disconnect(self.nodes[self.node(node)].index()),
            Step::Reconnect { node } => faults.reconnect(self.nodes[self.node(node)].index()),
            Step::ElectLeader { channel } => faults.elect_leader(self.shard(channel).1),
            Step::Jump { seconds } => {
                faults.advance(i64::from(seconds) * 1_000);
                for reality in &mut self.truth.shards {
                    reality.lossy = true;
                }
            }
            Step::Trim { channel, keep } => {
                let (shard, id) = self.shard(channel);
                let below = (self.info(shard).last_seq + 1).saturating_sub(keep.into());
                faults.trim(id, below);
                self.truth.shards[shard].lossy = true;
            }
            Step::Unreadable { channel, malformed } => {
                let at = self.channel(channel);
                let seq = faults.store_unreadable(&self.routes[at], malformed);
                let thing = if malformed { Thing::Nothing } else { Thing::Opaque };
                let reality = self.truth.of_mut(at);
                reality.store(seq, at, thing);
                reality.lossy |= !malformed;
            }
            _ => {}
        }
    }

    /// The faults end. After some time everyone has everything.
    async fn heal(&mut self) -> Result<(), String> {
        self.deposed.fill(None);
        self.faults.heal();
        for client in &mut self.clients {
            client.slow = false;
            if client.node.is_none() {
                client.node = Some(0);
            }
        }
        self.act(true)?;
        self.wait(HEALING).await?;
        for (at, client) in self.clients.iter().enumerate() {
            for channel in 0..self.routes.len() {
                if let Some(complaint) = client.complaint(channel, self.truth.of(channel)) {
                    return Err(format!("client {at} {complaint}"));
                }
            }
        }
        Ok(())
    }
}

fn request(ask: Ask) -> Request {
    match ask {
        Ask::Read => Request::Read,
        Ask::ReadLeader => Request::ReadLeader,
        Ask::Info => Request::Info,
        Ask::LastOf => Request::LastOf,
        Ask::Subscribe => Request::Subscribe,
        Ask::TimeAt => Request::TimeAt,
        Ask::Epoch => Request::Epoch,
        Ask::SetEpoch => Request::SetEpoch,
    }
}
