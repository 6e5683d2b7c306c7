//! What the tests of usage share.

use std::{sync::Arc, time::Duration};

use slipstream::{
    config::{Config, Secret, Sources, StoreConfig, UsageConfig},
    model::{AppId, NodeId},
    store::{self, Store},
    task::Tasks,
    telemetry::Measure,
    usage::{AppRecord, FORMAT, Group, Record, Row, Step, Window, query},
};
use tempfile::TempDir;

use crate::support::{mongowire::Mongowire, nats::TestLog};

/// Midnight, UTC.
pub(super) const START_MS: i64 = 1_795_910_400_000;

/// A store of its own.
pub(super) struct Place {
    /// Where it is, for other processes.
    pub(super) url: String,
    pub(super) store: Arc<dyn Store>,
    pub(super) tasks: Tasks,
    _folder: TempDir,
}

impl Place {
    pub(super) async fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        Self::at(url, folder).await
    }

    pub(super) async fn database(server: &Mongowire) -> Self {
        Self::at(server.fresh_database(), tempfile::tempdir().unwrap()).await
    }

    async fn at(url: String, folder: TempDir) -> Self {
        let config = StoreConfig {
            url: Some(Secret::new(url.clone())),
            timeout: Duration::from_secs(2),
            queue: 1_000,
            max_in_flight: 16,
            readers: 2,
        };
        let tasks = Tasks::default();
        Self {
            url,
            store: store::open(&config, &tasks).await.unwrap(),
            tasks,
            _folder: folder,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// The defaults, with short pauses.
pub(super) fn usage_config() -> UsageConfig {
    UsageConfig {
        max_retry_delay: Duration::from_millis(500),
        fold_timeout: Duration::from_secs(10),
        ..Config::load(&Sources::default()).unwrap().usage
    }
}

/// What a node reports of ten seconds that begin so long after [`START_MS`].
pub(super) fn record(node: u64, sequence: i64, after_seconds: i64, apps: Vec<AppRecord>) -> Record {
    let from_ms = START_MS + after_seconds * 1_000;
    Record {
        format: FORMAT,
        node: NodeId::new(node),
        sequence,
        from_ms,
        to_ms: from_ms + 10_000,
        apps,
    }
}

/// What the app `shop` used.
pub(super) fn app_record(messages: i64, peak: i64, namespaces: &[(&str, i64)]) -> AppRecord {
    let counts = |messages| [("messages_in".to_owned(), messages)].into();
    let namespaces = namespaces.iter();
    AppRecord {
        app: "shop".to_owned(),
        counts: counts(messages),
        peak_connections: peak,
        namespaces: namespaces
            .map(|(name, messages)| ((*name).to_owned(), counts(*messages)))
            .collect(),
        keys: [("k".to_owned(), START_MS)].into(),
    }
}

/// What the app `dev` used in these days.
pub(super) async fn days(place: &Place, group: Group) -> Vec<Row> {
    rows_of(place, "dev", Step::Day, group).await
}

/// What an app used around now.
pub(super) async fn rows_of(place: &Place, app: &str, step: Step, group: Group) -> Vec<Row> {
    let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let window = Window {
        from_ms: now_ms - 2 * 86_400_000,
        to_ms: now_ms + 86_400_000,
        step,
        group,
    };
    let app = AppId::new(app).unwrap();
    query(&*place.store, &app, window, 10_000).await.unwrap()
}

/// The sum over days, in case midnight is near.
pub(super) async fn sum(place: &Place, measure: Measure) -> i64 {
    let days = days(place, Group::None).await;
    days.iter().map(|row| row.get(measure)).sum()
}

/// The log of nodes with this configuration.
pub(super) async fn log_of(config: &Config) -> TestLog {
    TestLog::start_with(&config.nats, &config.log).await.unwrap()
}
