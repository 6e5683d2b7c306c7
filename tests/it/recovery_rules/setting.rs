//! A log, nodes and readers.

use std::{sync::Arc, task::Waker, time::Duration};

use bytes::Bytes;
use slipstream::{
    channel::{Mailbox, MailboxLimits, Outlet, Published, Resume, SubscribeError, Subscription},
    log::{
        EpochEntry, Log, PublishError, Route, ShardId,
        memory::{ClassSpec, Faults, MemoryCluster, MemoryLog, Target},
    },
    model::{Epoch, Offset, Position},
};
use tokio::time::{sleep, timeout};

use crate::hubs::{Bounds, Node, class, record, route};

pub(super) const SHARD: ShardId = ShardId(0);

/// One shard of one class, and channels in it.
pub(super) struct Setting {
    pub(super) cluster: MemoryCluster,
    pub(super) faults: Faults,
    pub(super) bounds: Bounds,
    observer: MemoryLog,
}

impl Setting {
    pub(super) fn new(change: impl FnOnce(&mut ClassSpec)) -> Self {
        let mut spec = ClassSpec {
            max_age: Duration::from_mins(10),
            ..ClassSpec::new(class("std"), 1)
        };
        change(&mut spec);
        let cluster = MemoryLog::cluster(vec![spec]);
        Self {
            faults: cluster.faults(),
            observer: cluster.node(),
            bounds: Bounds::small(),
            cluster,
        }
    }

    pub(super) fn plain() -> Self {
        Self::new(|_| {})
    }

    pub(super) fn node(&self) -> Node {
        Node::start(&self.cluster, &self.bounds)
    }

    pub(super) fn route(&self, channel: &str) -> Route {
        route(&self.observer, channel, Some(&class("std")))
    }

    pub(super) fn ephemeral(&self, channel: &str) -> Route {
        route(&self.observer, channel, None)
    }

    /// Lets time pass for everyone.
    pub(super) async fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let part = left.min(Duration::from_secs(1));
            left -= part;
            self.faults.advance(i64::try_from(part.as_millis()).unwrap());
            sleep(part).await;
        }
    }

    /// Lets everything happen that needs no time.
    pub(super) async fn breathe(&self) {
        self.pass(Duration::from_millis(5)).await;
    }

    pub(super) async fn epoch(&self) -> String {
        self.entry().await.0.token.to_string()
    }

    /// What the registry has of the shard, and its revision.
    pub(super) async fn entry(&self) -> (EpochEntry, u64) {
        self.observer.epoch(SHARD).await.unwrap().unwrap()
    }

    pub(super) async fn last_seq(&self) -> Offset {
        self.observer.info(SHARD).await.unwrap().last_seq
    }
}

pub(super) async fn publish(node: &Node, route: &Route) -> Offset {
    publish_with(node, route, None, 0)
        .await
        .unwrap()
        .position
        .unwrap()
        .offset
}

pub(super) async fn publish_many(node: &Node, route: &Route, count: u64) -> Vec<Offset> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(publish(node, route).await);
    }
    offsets
}

pub(super) async fn publish_with(
    node: &Node,
    route: &Route,
    key: Option<&str>,
    padding: usize,
) -> Result<Published, PublishError> {
    let published = node.hub.publish(route, &record(0, padding), key)?;
    timeout(Duration::from_secs(5), published)
        .await
        .expect("an answer")
}

/// The channel on one node.
pub(super) fn on(node: &Node, route: &Route) -> Target {
    Target::channel(route.key()).and_node(node.index())
}

/// A client with one subscription.
pub(super) struct Reader {
    mailbox: Arc<Mailbox>,
    subscription: Option<Subscription>,
    pub(super) recovered: bool,
    pub(super) missed: Vec<Offset>,
    pub(super) offset: Offset,
    pub(super) epoch: String,
}

impl Reader {
    pub(super) async fn fresh(node: &Node, route: &Route) -> Self {
        Self::subscribe(node, route, None).await.unwrap()
    }

    pub(super) async fn resume(node: &Node, route: &Route, offset: Offset, epoch: &str) -> Self {
        Self::subscribe(node, route, Some((offset, epoch))).await.unwrap()
    }

    pub(super) async fn subscribe(
        node: &Node,
        route: &Route,
        position: Option<(Offset, &str)>,
    ) -> Result<Self, SubscribeError> {
        let limits = MailboxLimits {
            soft: 600,
            hard: 1 << 20,
        };
        Self::with_limits(node, route, position, limits).await
    }

    pub(super) async fn with_limits(
        node: &Node,
        route: &Route,
        position: Option<(Offset, &str)>,
        limits: MailboxLimits,
    ) -> Result<Self, SubscribeError> {
        let mailbox = Arc::new(Mailbox::held(limits, None));
        mailbox.open(Bytes::new());
        let outlet = Outlet::new(mailbox.clone(), route.key().name.clone(), 1);
        let resume = Resume {
            position: position.map(|(offset, epoch)| Position {
                offset,
                epoch: Epoch::new(epoch),
            }),
            reject_unrecovered: false,
        };
        let mut reader = Self {
            mailbox,
            subscription: None,
            recovered: false,
            missed: Vec::new(),
            offset: 0,
            epoch: String::new(),
        };
        let subscribing = node.hub.subscribe(route, resume, outlet, |subscribed| {
            reader.recovered = subscribed.recovered;
            reader.missed = subscribed.missed.iter().map(|entry| entry.offset).collect();
            if let Some(position) = subscribed.position {
                reader.offset = position.offset;
                reader.epoch = position.epoch.to_string();
            }
        });
        let subscription = timeout(Duration::from_secs(4), subscribing)
            .await
            .expect("an answer")?;
        reader.subscription = Some(subscription);
        Ok(reader)
    }

    /// The publications that have come, and whether the subscription has ended for want of some.
    pub(super) fn read(&mut self) -> (Vec<Offset>, bool) {
        let mut offsets = Vec::new();
        let mut told = false;
        loop {
            let taken = self.mailbox.take(Waker::noop());
            if taken.frames.is_empty() && taken.notices.is_empty() {
                return (offsets, told);
            }
            let bytes = taken.frames.iter().map(Bytes::len).sum();
            for frame in taken.frames.iter().filter(|frame| !frame.is_empty()) {
                let push: serde_json::Value = serde_json::from_slice(frame).unwrap();
                offsets.push(push["pub"]["offset"].as_u64().unwrap());
            }
            told |= !taken.notices.is_empty();
            self.mailbox.written(bytes);
        }
    }

    /// Reads while its feeder works.
    pub(super) async fn read_on(&mut self, setting: &Setting) -> (Vec<Offset>, bool) {
        let (mut offsets, mut told) = self.read();
        for _ in 0..50 {
            setting.breathe().await;
            let more = self.read();
            offsets.extend(more.0);
            told |= more.1;
        }
        (offsets, told)
    }
}
