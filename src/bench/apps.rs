//! What many apps cost a node, and how soon a change of one takes effect: apps that follow a bucket, on a
//! real nats-server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{BenchError, args::AppsArgs, process, report, stats::Histogram};
use crate::{
    apps::{AppRecord, Apps, FORMAT, Feed, KeyRecord},
    config::{Config, Sources},
    log::{Bucket, BucketName, Log, nats::NatsLog},
    model::Quotas,
    task::Tasks,
    telemetry::Metrics,
};

/// Nothing may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Writes under way at once.
const WRITES: usize = 64;

struct Node {
    apps: Apps,
    log: Arc<dyn Log>,
    tasks: Tasks,
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Process(error.to_string())
}

/// `bench apps`.
pub(crate) fn run(args: &AppsArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(measure(args))?;
    report::write_json(&result, args.json.as_deref())
}

async fn measure(args: &AppsArgs) -> Result<Value, BenchError> {
    let sources = Sources {
        overrides: vec![
            ("nats.servers".to_owned(), args.nats.clone()),
            (
                "log.prefix".to_owned(),
                format!("bench-apps-{}", super::run_tag()),
            ),
        ],
        ..Sources::default()
    };
    let config = Config::load(&sources).map_err(failed)?;
    let writer = Node::start(&config).await?;
    let bucket = writer.log.bucket(BucketName::Apps);
    let begun = Instant::now();
    stream::iter(0..args.apps)
        .map(|number| write(&*bucket, number, 1))
        .buffer_unordered(WRITES)
        .try_collect::<()>()
        .await?;
    let written = begun.elapsed();
    writer.serves(args.apps).await?;

    let pid = std::process::id();
    let (rss, cpu, begun) = (process::rss_kib(pid)?, process::own_cpu()?, Instant::now());
    let node = Node::start(&config).await?;
    let started = begun.elapsed();
    node.serves(args.apps).await?;
    let grown = process::rss_kib(pid)?.saturating_sub(rss);
    let used = process::own_cpu()?.saturating_sub(cpu);

    let mut effect = Histogram::default();
    for version in 0..args.changes {
        let begun = Instant::now();
        write(&*bucket, 0, u64::from(version) + 2).await?;
        for node in [&writer, &node] {
            while node
                .apps
                .get(&name(0))
                .is_none_or(|app| app.version != u64::from(version) + 2)
            {
                if begun.elapsed() > PATIENCE {
                    return Err(failed("a change did not take effect"));
                }
                sleep(Duration::from_micros(200)).await;
            }
        }
        effect.record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    for node in [writer, node] {
        node.log.flush().await;
        node.tasks.stop();
    }
    Ok(json!({
        "apps": args.apps,
        "written_ms": written.as_millis(),
        "start_ms": started.as_millis(),
        "start_cpu_ms": used.as_millis(),
        "kib_per_app": report::round(grown as f64 / f64::from(args.apps.max(1))),
        "change_to_effect_ms": { "p50": effect.quantile_ms(0.5), "p99": effect.quantile_ms(0.99) },
    }))
}

impl Node {
    async fn start(config: &Config) -> Result<Self, BenchError> {
        let tasks = Tasks::default();
        let log = NatsLog::start(&config.nats, &config.log, None, &[], &tasks);
        let log: Arc<dyn Log> = log.await.map_err(failed)?;
        let apps = Apps::new(Vec::new(), &config.tenants, tasks.clone()).map_err(failed)?;
        Feed::start(
            &log,
            apps.clone(),
            config,
            Box::new(|_, _, _| None),
            Box::new(|_, _| {}),
            PATIENCE,
            Arc::new(Metrics::new()),
            &tasks,
        )
        .await
        .map_err(failed)?;
        Ok(Self { apps, log, tasks })
    }

    async fn serves(&self, count: u32) -> Result<(), BenchError> {
        let begun = Instant::now();
        while self.apps.all().len() < count as usize {
            if begun.elapsed() > PATIENCE {
                return Err(failed("not all apps are served"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn name(number: u32) -> String {
    format!("app-{number}")
}

/// An app such as many are: a key, an origin, three namespaces, limits.
async fn write(bucket: &dyn Bucket, number: u32, version: u64) -> Result<(), BenchError> {
    let namespace = |name: &str, history: &str| json!({"name": name, "history": history, "subscribe": "anyone", "publish": "subscriber"});
    let record = AppRecord {
        format: FORMAT,
        version,
        settings: json!({
            "anonymous": true,
            "allowed_origins": [format!("https://{number}.example")],
            "limits": {"publish_rate": 100, "max_connections": 1000},
            "namespaces": [namespace("chat", "std"), namespace("live", "none"), namespace("", "std")],
        }),
        keys: vec![KeyRecord {
            id: "k1".to_owned(),
            hash: format!("{number:064x}"),
            secret: None,
            until: None,
        }],
        quotas: Quotas::default(),
    };
    let key = name(number);
    let value = serde_json::to_vec(&record)?;
    let revision = match version {
        1 => 0,
        _ => bucket.get(&key).await.map_err(failed)?.revision,
    };
    match bucket
        .set(&key, value.into(), revision, None)
        .await
        .map_err(failed)?
    {
        Some(_) => Ok(()),
        None => Err(failed("another has written the app")),
    }
}
