//! How fast a worker adds up what nodes report: synthetic records, straight into a store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{BenchError, args::UsageArgs, report};
use crate::{
    config::{Config, Secret, Sources},
    model::NodeId,
    store::{self, Collection, Query},
    task::Tasks,
    telemetry::{Measure, Metrics},
    usage::{AppRecord, FORMAT, Folder, Record},
};

/// When the first record begins, ms since 1970.
const START_MS: i64 = 1_700_000_040_000;
/// What a record covers.
const INTERVAL_MS: i64 = 10_000;

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Process(error.to_string())
}

/// `bench usage`.
pub(crate) fn run(args: &UsageArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(measure(args))?;
    report::write_json(&result, args.json.as_deref())
}

async fn measure(args: &UsageArgs) -> Result<Value, BenchError> {
    let mut config = Config::load(&Sources::default()).map_err(failed)?;
    config.usage.fold_concurrency = args.concurrency;
    config.store.timeout = Duration::from_secs(60);
    let file = std::env::temp_dir().join(format!("slipstream-bench-usage-{}.db", super::run_tag()));
    let own = args.store.is_none();
    let url = args
        .store
        .clone()
        .unwrap_or_else(|| format!("sqlite:{}", file.display()));
    config.store.url = Some(Secret::new(url));
    let tasks = Tasks::default();
    let store = store::open(&config.store, &tasks).await.map_err(failed)?;
    let metrics = Arc::new(Metrics::new());
    let folder = Folder::new(store.clone(), &config.usage, metrics.clone());

    let begun = Instant::now();
    for sequence in 1..=i64::from(args.records) {
        // Nodes take turns, as in a queue.
        let record = record(args, sequence);
        folder.fold(&record).await.map_err(failed)?;
    }
    let took = begun.elapsed();
    // The same once more: what comes again.
    let begun = Instant::now();
    folder
        .fold(&record(args, i64::from(args.records)))
        .await
        .map_err(failed)?;
    let repeated = begun.elapsed();

    let query = Query {
        limit: 1_000,
        ..Query::default()
    };
    let some = store.list(Collection::Usage, query).await.map_err(failed)?;
    let documents = store.count(Collection::Usage).await.map_err(failed)?;
    tasks.stop();
    drop((folder, store));
    if own {
        for end in ["", "-wal", "-shm"] {
            // What is not there need not be removed.
            let _ = std::fs::remove_file(format!("{}{end}", file.display()));
        }
    }
    if some.is_empty() || metrics.usage_refused.get() > 0 {
        return Err(BenchError::Wrong("not everything was added up".to_owned()));
    }
    let additions = u64::from(args.records) * u64::from(args.apps) * (3 + 3 * u64::from(args.namespaces));
    let a_second = |count: f64| report::round(count / took.as_secs_f64().max(f64::MIN_POSITIVE));
    Ok(json!({
        "records": args.records,
        "apps_per_record": args.apps,
        "namespaces_per_app": args.namespaces,
        "concurrency": args.concurrency,
        "seconds": report::round(took.as_secs_f64()),
        "records_per_s": a_second(f64::from(args.records)),
        "apps_per_s": a_second(f64::from(args.records) * f64::from(args.apps)),
        "buckets_per_s": a_second(additions as f64),
        "repeated_record_ms": report::round(repeated.as_secs_f64() * 1_000.0),
        "documents": documents,
    }))
}

/// A record of one of the nodes, of which each has the next ten seconds.
fn record(args: &UsageArgs, sequence: i64) -> Record {
    let nodes = i64::from(args.nodes.max(1));
    let (node, turn) = (sequence % nodes, sequence / nodes);
    let from_ms = START_MS + turn * INTERVAL_MS;
    let counts = || {
        let all = Measure::ALL.iter().take(9);
        all.map(|measure| (measure.as_str().to_owned(), sequence))
            .collect()
    };
    let app = |number: u32| AppRecord {
        app: format!("bench-{number}"),
        counts: counts(),
        peak_connections: 1 + sequence,
        namespaces: (0..args.namespaces)
            .map(|namespace| (format!("=n{namespace}"), counts()))
            .collect(),
        ..AppRecord::default()
    };
    Record {
        format: FORMAT,
        node: NodeId::new(node.unsigned_abs() + 1),
        sequence,
        from_ms,
        to_ms: from_ms + INTERVAL_MS,
        apps: (0..args.apps).map(app).collect(),
    }
}
