//! Apps from the control plane: what this node serves follows a bucket. Without the control plane, and
//! without its store, all goes on as it was; a node that starts meanwhile comes up from the bucket.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::poll_fn,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tracing::{info, warn};

use super::{App, AppRecord, Apps, Opener};
use crate::{
    config::Config,
    log::{self, BucketEntry, BucketName, Changes, Log},
    model::AppId,
    task::{self, Tasks},
    telemetry::Metrics,
};

/// How often it is looked for metrics of apps that are gone.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);

/// What connections of an app must feel at once. What else has changed they find when they ask for
/// something ([`Apps::generation`]).
#[derive(Clone, Debug)]
pub enum Change {
    /// It is served from now on, or as it is now.
    Served(Arc<App>),
    /// It is served no more.
    Removed,
    /// It verifies tokens with these keys no more.
    KeysRevoked(HashSet<Arc<str>>),
}

/// Told after a change has taken effect for whoever comes.
pub type OnChange = Box<dyn Fn(&AppId, &Change) + Send + Sync>;

/// The bucket could not be read in time: which apps there are is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the apps could not be read from NATS in time")]
pub struct NotRead;

/// Keeps [`Apps`] as the bucket has them. One per node.
pub struct Feed {
    apps: Apps,
    /// What settings are checked against.
    node: Config,
    open: Opener,
    on_change: OnChange,
    current: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

/// What a record came to: an app, none, or nothing that can be used.
enum Reading {
    App(Arc<App>),
    /// It cannot be used, and the app as it was has lost keys.
    Narrowed(Arc<App>),
    Removed,
    Refused,
}

impl Feed {
    /// Reads the apps of the bucket, and follows it from now on.
    ///
    /// # Errors
    ///
    /// [`NotRead`] after `patience`.
    #[expect(clippy::too_many_arguments, reason = "called once, by the composition root")]
    pub async fn start(
        log: &Arc<dyn Log>,
        apps: Apps,
        node: &Config,
        open: Opener,
        on_change: OnChange,
        patience: Duration,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<(), NotRead> {
        let current = watch::Sender::new(false);
        let mut is_current = current.subscribe();
        let feed = Self {
            apps,
            node: Config {
                apps: Vec::new(),
                ..node.clone()
            },
            open,
            on_change,
            current,
            metrics,
        };
        feed.count();
        tasks.spawn(forget(feed.apps.clone(), feed.metrics.clone()));
        tasks.spawn(feed.watch(log.bucket(BucketName::Apps).watch()));
        match timeout(patience, is_current.wait_for(|current| *current)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NotRead),
        }
    }

    async fn watch(self, mut changes: Box<dyn Changes>) {
        // What has been told since the last beginning, until all has been: it takes effect together.
        let mut pass: Option<HashMap<AppId, Reading>> = None;
        while let Some(change) = poll_fn(|cx| changes.poll_next(cx)).await {
            match change {
                log::Change::Begin => pass = Some(HashMap::new()),
                log::Change::Entry { key, entry } => {
                    let Ok(id) = AppId::new(&key) else { continue };
                    if self.apps.is_fixed(&id) {
                        warn!(app = %id, "an app of the control plane has the id of one in the configuration file, which stays");
                        continue;
                    }
                    // With schemas to be compiled it can take long.
                    let reading = task::long(|| self.read(&id, &entry));
                    match &mut pass {
                        Some(pass) => drop(pass.insert(id, reading)),
                        None => self.apply(HashMap::from([(id, reading)])),
                    }
                }
                log::Change::Current => {
                    if let Some(mut told) = pass.take() {
                        for app in self.apps.all() {
                            // Removed while nothing was heard.
                            if !self.apps.is_fixed(&app.id) {
                                told.entry(app.id.clone()).or_insert(Reading::Removed);
                            }
                        }
                        self.apply(told);
                    }
                    self.current.send_replace(true);
                }
            }
        }
    }

    fn read(&self, id: &AppId, entry: &BucketEntry) -> Reading {
        let Some(json) = &entry.value else {
            return Reading::Removed;
        };
        let record = match AppRecord::parse(json) {
            Ok(record) => record,
            Err(why) => return self.refuse(id, &why.to_string()),
        };
        let built = record
            .read(id, &self.node, &self.open)
            .map_err(|why| why.to_string());
        let built = built.and_then(|(config, credentials)| {
            let app = self.apps.build(config, credentials, record.version);
            app.map_err(|why| why.to_string())
        });
        match built {
            Ok(app) => Reading::App(app),
            Err(why) => {
                // A key that was revoked or ended must not go on because of something else in the record.
                let refused = self.refuse(id, &why);
                self.apps.narrow(id, &record).map_or(refused, Reading::Narrowed)
            }
        }
    }

    fn refuse(&self, id: &AppId, why: &str) -> Reading {
        self.metrics.app_records_refused.inc();
        warn!(app = %id, why, "what the control plane says of an app cannot be used; it stays as it was, but for keys that are revoked or ended");
        Reading::Refused
    }

    fn apply(&self, readings: HashMap<AppId, Reading>) {
        let mut changes = Vec::new();
        let mut felt = Vec::new();
        for (id, reading) in readings {
            let before = self.apps.get(id.as_str());
            let version = before.as_ref().map(|before| before.version);
            match reading {
                // Told again.
                Reading::App(app) if version == Some(app.version) => {}
                Reading::Refused => {}
                Reading::Removed => {
                    if before.is_some() {
                        felt.push((id.clone(), Change::Removed));
                        changes.push((id, None));
                    }
                }
                Reading::App(app) | Reading::Narrowed(app) => {
                    if let Some(before) = before {
                        let revoked: HashSet<_> = before
                            .key_names()
                            .filter(|key| app.has_retired(key))
                            .cloned()
                            .collect();
                        if !revoked.is_empty() {
                            felt.push((id.clone(), Change::KeysRevoked(revoked)));
                        }
                    }
                    felt.push((id.clone(), Change::Served(app.clone())));
                    changes.push((id, Some(app)));
                }
            }
        }
        if changes.is_empty() {
            return;
        }
        let count = changes.len();
        self.apps.apply(changes);
        self.count();
        for (id, change) in felt {
            (self.on_change)(&id, &change);
        }
        info!(changed = count, apps = self.apps.len(), "apps have changed");
    }

    fn count(&self) {
        let apps = i64::try_from(self.apps.len()).unwrap_or(i64::MAX);
        self.metrics.apps_served.set(apps);
    }
}

/// Lets go of the metrics of apps that were removed: their names would stay as long as the node.
async fn forget(apps: Apps, metrics: Arc<Metrics>) {
    let mut rounds = interval(FORGET_INTERVAL);
    loop {
        rounds.tick().await;
        metrics.forget(|id| id.as_str() == AppId::UNNAMED || apps.get(id.as_str()).is_some());
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("apps", &self.apps)
            .finish_non_exhaustive()
    }
}
