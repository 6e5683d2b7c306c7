//! Nodes for tests: real hubs over one log in memory, without sockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use slipstream::{
    channel::{Budgets, Encoder, Entry, Hub},
    config::{CatchupConfig, ChannelConfig, LogConfig},
    log::{
        Log, Route,
        memory::{MemoryCluster, MemoryLog, NodeIndex},
    },
    model::{AppId, ChannelKey, ChannelName, ClassName, Kind, Offset, Publication, Record},
    task::Tasks,
    telemetry::Metrics,
};

/// Frames are `{"channel":"..","pub":{"offset":1,"data":..}}`; the body is the inner object.
pub(crate) const ENCODER: Encoder = Encoder { publication, body };

fn publication(channel: &ChannelName, publication: &Publication) -> Arc<Entry> {
    let data = std::str::from_utf8(&publication.record.data).unwrap();
    let object = format!(r#"{{"offset":{},"data":{data}}}"#, publication.offset);
    body(
        channel,
        publication.offset,
        publication.time_ms,
        object.as_bytes(),
    )
}

fn body(channel: &ChannelName, offset: Offset, time_ms: i64, body: &[u8]) -> Arc<Entry> {
    let mut frame = format!(r#"{{"channel":"{channel}","pub":"#).into_bytes();
    let start = u32::try_from(frame.len()).unwrap();
    frame.extend_from_slice(body);
    let end = u32::try_from(frame.len()).unwrap();
    frame.push(b'}');
    Entry::new(offset, time_ms, Bytes::from(frame), start..end)
}

pub(crate) fn app() -> AppId {
    AppId::new("dev").unwrap()
}

pub(crate) fn class(name: &str) -> ClassName {
    ClassName::new(name).unwrap()
}

/// A publication's content.
pub(crate) fn record(id: u64, padding: usize) -> Record {
    let data = format!(r#"[{id},"{}"]"#, "x".repeat(padding));
    Record {
        kind: Kind::Json,
        data: Bytes::from(data),
        info: None,
        tags: Vec::new(),
    }
}

/// The bounds of a node, small enough to be reached in a short script.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) log: LogConfig,
    pub(crate) channel: ChannelConfig,
    pub(crate) catchup: CatchupConfig,
}

impl Bounds {
    pub(crate) fn small() -> Self {
        Self {
            log: LogConfig {
                prefix: "test".into(),
                classes: Vec::new(),
                max_in_flight: 1_000,
                ack_timeout: Duration::from_secs(5),
                mark_interval: Duration::from_secs(1),
                clock_margin: Duration::from_secs(5),
                streams: crate::support::nats::log_config().streams,
            },
            channel: ChannelConfig {
                max_tails: 100,
                eager_subscribers: 0,
                linger: Duration::from_secs(5),
                ring_messages: 4,
                ring_bytes: 4_000,
                rings_bytes: 100_000,
                ring_idle: Duration::from_secs(15),
                gap_bytes: 800,
                subscribe_timeout: Duration::from_secs(3),
                check_interval: Duration::from_secs(10),
                check_after_interest: Duration::from_secs(1),
                peer_wait: Duration::from_millis(200),
            },
            catchup: CatchupConfig {
                page_messages: 3,
                page_bytes: 400,
                in_flight_bytes: 500,
                ahead_bytes: 800,
                leader_reads: 4,
                max_waiting: 1_000,
                short_reads: 3,
                sweep_from: 2,
                sweep_bytes: 2_000,
                sweep_linger: Duration::from_secs(5),
            },
        }
    }
}

/// One node: a hub on a connection of its own.
pub(crate) struct Node {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    /// What the hub runs on.
    pub(crate) tasks: Tasks,
}

impl Node {
    pub(crate) fn start(cluster: &MemoryCluster, bounds: &Bounds) -> Self {
        let log = Arc::new(cluster.node());
        let tasks = Tasks::default();
        let metrics = Arc::new(Metrics::new());
        let budgets = Budgets::new(bounds.channel.rings_bytes);
        budgets.set(&app(), 0);
        let hub = Hub::start(
            log.clone(),
            &bounds.log,
            &bounds.channel,
            &bounds.catchup,
            Arc::new(budgets),
            ENCODER,
            metrics.clone(),
            &tasks,
        );
        Self {
            log,
            hub,
            metrics,
            tasks,
        }
    }

    pub(crate) fn index(&self) -> NodeIndex {
        self.log.node_index()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stop();
        self.log.faults().disconnect(self.index());
    }
}

pub(crate) fn route(log: &MemoryLog, channel: &str, class: Option<&ClassName>) -> Route {
    let key = ChannelKey {
        app: app(),
        name: ChannelName::new(channel).unwrap(),
    };
    log.route(&key, class).unwrap()
}
