//! What presence costs: nodes in this process with nothing but presence, on a real nats-server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{BenchError, args::PresenceArgs, process, report, stats::Histogram};
use crate::{
    cluster::{About, Nodes},
    config::{Config, Sources},
    log::nats::NatsLog,
    model::{AppId, ChannelName},
    presence::{Encoders, Member, Membership, Presence, PresenceError},
    task::Tasks,
    telemetry::Metrics,
};

/// Nothing may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nobody listens, so nothing is encoded.
const ENCODERS: Encoders = Encoders {
    join: |_, _| Bytes::new(),
    leave: |_, _| Bytes::new(),
    update: |_, _| Bytes::new(),
};

struct Node {
    nodes: Arc<Nodes>,
    presence: Arc<Presence>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

struct Bench {
    nodes: Vec<Node>,
    app: AppId,
    prefix: String,
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Process(error.to_string())
}

/// `bench presence`.
pub(crate) fn run(args: &PresenceArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(measure(args))?;
    report::write_json(&result, args.json.as_deref())
}

async fn measure(args: &PresenceArgs) -> Result<Value, BenchError> {
    let bench = Bench::start(args).await?;
    let storm = bench.storm(args.members).await?;
    eprintln!("storm: {storm}");
    let idle = bench.idle(args.channels, args.idle).await?;
    eprintln!("idle: {idle}");
    for node in &bench.nodes {
        node.nodes.close().await;
        node.tasks.stop();
    }
    Ok(json!({ "nodes": args.nodes, "members": args.members, "storm": storm, "idle": idle }))
}

impl Bench {
    async fn start(args: &PresenceArgs) -> Result<Self, BenchError> {
        let sources = Sources {
            file: None,
            env: Vec::new(),
            overrides: vec![
                ("nats.servers".to_owned(), args.nats.clone()),
                (
                    "log.prefix".to_owned(),
                    format!("bench-presence-{}", super::run_tag()),
                ),
            ],
        };
        let config = Config::load(&sources).map_err(failed)?;
        let mut nodes = Vec::new();
        for _ in 0..args.nodes {
            nodes.push(Node::start(&config).await?);
        }
        let bench = Self {
            nodes,
            app: AppId::new("bench").map_err(failed)?,
            prefix: "public:bench".to_owned(),
        };
        until(async || {
            bench
                .nodes
                .iter()
                .all(|node| node.nodes.live().len() == bench.nodes.len())
        })
        .await?;
        Ok(bench)
    }

    /// Everybody joins one channel, as fast as a node takes them.
    async fn storm(&self, members: usize) -> Result<Value, BenchError> {
        let channel = self.channel("storm")?;
        // All nodes are interested before it begins, so that what is told is what counts.
        for node in &self.nodes {
            node.presence.stats(&self.app, &channel).await.map_err(failed)?;
        }
        let (cpu, rss, told) = (
            process::own_cpu()?,
            process::rss_kib(std::process::id())?,
            self.told(),
        );
        let begun = Instant::now();
        let mut held = Vec::with_capacity(members);
        for number in 0..members {
            held.push(self.join(number, &channel)?);
        }
        let joined = begun.elapsed();
        for node in &self.nodes {
            let all = async || {
                let stats = node.presence.stats(&self.app, &channel).await;
                stats.is_ok_and(|stats| stats.connections == members && stats.complete)
            };
            until(all).await?;
        }
        let seen = begun.elapsed();
        let used = process::own_cpu()?.saturating_sub(cpu);
        let grown = process::rss_kib(std::process::id())?.saturating_sub(rss);
        let bytes = self.told() - told;
        let places = (members * self.nodes.len()).max(1);
        let pages = self.pages(&channel).await?;
        let first = self.first_answers().await?;
        held.into_iter().for_each(Membership::leave);
        for node in &self.nodes {
            let none = async || {
                let stats = node.presence.stats(&self.app, &channel).await;
                stats.is_ok_and(|stats| stats.connections == 0)
            };
            until(none).await?;
        }
        Ok(json!({
            "joined_ms": joined.as_millis(), "seen_by_all_ms": seen.as_millis(),
            "cpu_ms": used.as_millis(), "told_bytes_per_join": bytes / members.max(1) as u64,
            "kib_per_member_and_node": grown as f64 / places as f64,
            "page_of_100_us": pages, "first_answer_us": first,
        }))
    }

    /// Pages of 100 of a channel that is known.
    async fn pages(&self, channel: &ChannelName) -> Result<Value, BenchError> {
        let mut took = Histogram::default();
        for number in 0..500 {
            let node = self.node(number)?;
            let begun = Instant::now();
            let page = node
                .presence
                .members(&self.app, channel, None, 100)
                .await
                .map_err(failed)?;
            took.record(us(begun.elapsed()));
            if !page.complete {
                return Err(BenchError::Wrong("a page was not complete".to_owned()));
            }
        }
        Ok(quantiles(&took))
    }

    /// Questions for channels of which a node knows nothing: the others are asked.
    async fn first_answers(&self) -> Result<Value, BenchError> {
        let mut took = Histogram::default();
        for number in 0..300 {
            let channel = self.channel(&format!("first-{number}"))?;
            let _there = self.join(number, &channel)?;
            let asked = self.node(number + 1)?;
            let begun = Instant::now();
            let stats = asked.presence.stats(&self.app, &channel).await.map_err(failed)?;
            took.record(us(begun.elapsed()));
            if !stats.complete || stats.connections != 1 {
                return Err(BenchError::Wrong("an answer was not right".to_owned()));
            }
        }
        Ok(quantiles(&took))
    }

    /// Many channels of one and two members, in which nothing happens.
    async fn idle(&self, channels: usize, length: Duration) -> Result<Value, BenchError> {
        let rss = process::rss_kib(std::process::id())?;
        let mut held = Vec::new();
        let begun = Instant::now();
        for number in 0..channels {
            let channel = self.channel(&format!("idle-{number}"))?;
            held.push(self.join(number, &channel)?);
            if number % 2 == 0 {
                held.push(self.join(number + 1, &channel)?);
            }
        }
        let last = self.channel(&format!("idle-{}", channels.saturating_sub(1)))?;
        let node = self.node(channels.saturating_sub(1))?;
        until(async || {
            let stats = node.presence.stats(&self.app, &last).await;
            stats.is_ok_and(|stats| stats.complete)
        })
        .await?;
        let joined = begun.elapsed();
        // What came late, and the first digests.
        sleep(Duration::from_secs(15)).await;
        let grown = process::rss_kib(std::process::id())?.saturating_sub(rss);
        let (cpu, told, begun) = (process::own_cpu()?, self.told(), Instant::now());
        sleep(length).await;
        let seconds = begun.elapsed().as_secs_f64();
        let used = process::own_cpu()?.saturating_sub(cpu);
        Ok(json!({
            "channels": channels, "members": held.len(), "joined_ms": joined.as_millis(),
            "kib_per_member": grown as f64 / held.len().max(1) as f64,
            "cpu_percent_of_a_core_and_node": used.as_secs_f64() / seconds * 100.0 / self.nodes.len() as f64,
            "told_bytes_a_second_and_node": (self.told() - told) as f64 / seconds / self.nodes.len() as f64,
        }))
    }

    fn node(&self, number: usize) -> Result<&Node, BenchError> {
        let node = self.nodes.get(number % self.nodes.len().max(1));
        node.ok_or_else(|| BenchError::Usage("there are no nodes".to_owned()))
    }

    fn channel(&self, name: &str) -> Result<ChannelName, BenchError> {
        ChannelName::new(&format!("{}-{name}", self.prefix)).map_err(failed)
    }

    fn join(&self, number: usize, channel: &ChannelName) -> Result<Membership, BenchError> {
        let member = Member {
            client: format!("{number:08x}-6c1f-4d0e-9d5e-1f0c5a7b9e21").into(),
            user: format!("user-{number}").into(),
            joined_ms: 0,
            conn_info: Some(Bytes::from(format!("{{\"name\":\"Member number {number}\"}}"))),
            chan_info: None,
            state: None,
        };
        let presence = &self.node(number)?.presence;
        let admitted = presence.admit(&self.app, channel, member, None);
        let admitted = admitted.map_err(|error: PresenceError| failed(error))?;
        Ok(admitted.join(None))
    }

    /// Bytes that all nodes have told each other.
    fn told(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| node.metrics.presence_bytes.get())
            .sum()
    }
}

impl Node {
    async fn start(config: &Config) -> Result<Self, BenchError> {
        let tasks = Tasks::default();
        let metrics = Arc::new(Metrics::new());
        let secret = config.cluster.secret.as_ref();
        let log = NatsLog::start(&config.nats, &config.log, secret, &[], &tasks)
            .await
            .map_err(failed)?;
        let about = About {
            name: "bench".to_owned(),
            address: String::new(),
        };
        let patience = config.nats.start_timeout;
        let nodes = Nodes::start(
            log.clone(),
            &config.cluster,
            about,
            patience,
            metrics.clone(),
            &tasks,
        )
        .await;
        let presence = Presence::start(
            nodes.clone(),
            log,
            &config.presence,
            ENCODERS,
            metrics.clone(),
            &tasks,
        )
        .await;
        Ok(Self {
            nodes,
            presence,
            metrics,
            tasks,
        })
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn quantiles(took: &Histogram) -> Value {
    json!({ "p50": took.quantile(0.5), "p99": took.quantile(0.99) })
}

async fn until(holds: impl AsyncFn() -> bool) -> Result<(), BenchError> {
    let begun = Instant::now();
    while !holds().await {
        if begun.elapsed() > PATIENCE {
            return Err(BenchError::Stalled("members were not seen".to_owned()));
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
