//! The apps this node serves: what each connection and request asks about its tenant.
//!
//! Apps come from the configuration file ([`Apps::new`]) and from the control plane by a bucket that the
//! node watches (`feed.rs`). The registry is read often and replaced whole; an [`App`] that somebody holds
//! stays as it was, and [`Apps::generation`] tells when to look again.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{
    auth::{ApiKeys, AuthError, HttpClient, KeyHash, PresentedKey, SigningKey, Verifier},
    config::{AppConfig, AuthConfig, LimitsConfig, TenantsConfig},
    limits::ConductRules,
    model::{AppId, ChannelName, ConnectClaims, Quotas, Rules, SubscribeClaims, TokenError},
    quota::{Allowance, Meter, Meters, Reservation, Size, tighter},
    schema::{self, Schemas},
    session::AppView,
    task::Tasks,
    telemetry::Limit,
};

mod feed;
mod publishing;
mod record;

pub use feed::{Change, Feed, NotRead, OnChange};
pub use publishing::{Late, Throttled};
use publishing::{Publishing, conduct};
pub use record::{AppRecord, Credentials, FORMAT, KeyRecord, Opener, RecordError, key_purpose};

/// One app.
pub struct App {
    /// Its id.
    pub id: AppId,
    /// What its channels may be used for.
    pub rules: Rules,
    /// What its sessions need to know.
    pub view: Arc<AppView>,
    /// Verifies its tokens; `None` = tokens are refused.
    pub verifier: Option<Arc<Verifier>>,
    /// The keys of its backends.
    pub api_keys: ApiKeys,
    /// Origins that browsers may connect from; empty = all.
    pub allowed_origins: Vec<String>,
    /// Its share of this node.
    pub limits: LimitsConfig,
    /// What each of its connections may do.
    pub conduct: ConductRules,
    /// What it may have on all nodes together.
    pub quotas: Quotas,
    /// What it has of that here.
    pub meter: Arc<Meter>,
    /// Which version of it this is; 0 if it is the configuration file's.
    pub version: u64,
    /// By namespace, of those that have any.
    schemas: HashMap<String, Schemas>,
    /// The most work that one of its payloads may be to its schema.
    pub max_schema_work: u64,
    auth: Option<AuthConfig>,
    signing_keys: Vec<SigningKey>,
    /// Keys that it has verified tokens with since this node started, and does so no more.
    retired_keys: HashSet<Arc<str>>,
    publishing: Arc<Mutex<Publishing>>,
}

/// Why the apps cannot be served as configured.
#[derive(Debug, thiserror::Error)]
#[error("app {app}: {source}")]
pub struct AppError {
    /// The app.
    pub app: AppId,
    /// What is wrong with it.
    pub source: Unusable,
}

/// What of an app cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// How its tokens are verified.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A schema.
    #[error("namespace {namespace:?}, schema version {version}, {why}")]
    Schema {
        /// The namespace.
        namespace: String,
        /// The version.
        version: u32,
        /// What is wrong with it.
        why: schema::Unusable,
    },
}

/// All apps of this node, by id. Cheap to clone; clones see changes.
#[derive(Clone)]
pub struct Apps {
    registry: Arc<ArcSwap<Registry>>,
    generation: Arc<AtomicU64>,
    /// Those of the configuration file, which nothing else changes.
    fixed: Arc<HashSet<AppId>>,
    unnamed: Arc<App>,
    meters: Arc<Meters>,
    base: Arc<Base>,
}

/// What apps are made with.
struct Base {
    http: HttpClient,
    max_schema_work: u64,
    schema_work_rate: u64,
    tasks: Tasks,
}

#[derive(Clone, Default)]
struct Registry {
    apps: HashMap<AppId, Arc<App>>,
    /// Whose key it is.
    keys: HashMap<KeyHash, AppId>,
    /// Some app has a rate that its callers are told of.
    have_rates: bool,
}

impl Registry {
    fn insert(&mut self, app: Arc<App>) {
        self.remove(&app.id);
        let hashes = app.api_keys.hashes();
        self.keys.extend(hashes.map(|hash| (hash, app.id.clone())));
        self.apps.insert(app.id.clone(), app);
    }

    fn look_for_rates(&mut self) {
        self.have_rates = self.apps.values().any(|app| app.has_rate());
    }

    fn remove(&mut self, id: &AppId) {
        let Some(app) = self.apps.remove(id) else { return };
        for hash in app.api_keys.hashes() {
            // Not that of another app which has the same key: that app's file or record is at fault.
            if self.keys.get(&hash) == Some(id) {
                self.keys.remove(&hash);
            }
        }
    }
}

const NO_TOKENS: TokenError = TokenError::Invalid("the app takes no tokens");

// === impl App ===

impl App {
    /// `before` is the app as it was: what has not changed goes on, such as rates and fetched keys.
    fn new(
        config: AppConfig,
        credentials: Credentials,
        version: u64,
        before: Option<&Self>,
        meter: Arc<Meter>,
        base: &Base,
    ) -> Result<Self, AppError> {
        let Credentials {
            api_keys,
            signing_keys,
        } = credentials;
        let same = before.filter(|before| before.auth == config.auth && before.signing_keys == signing_keys);
        let verifier = match (&config.auth, same) {
            (_, Some(before)) => before.verifier.clone(),
            (Some(auth), None) => {
                let verifier = Verifier::new(auth, &base.http, &base.tasks).map_err(|source| AppError {
                    app: config.id.clone(),
                    source: source.into(),
                })?;
                Some(Arc::new(verifier.with_keys(&signing_keys).of_app(&config.id)))
            }
            (None, None) => None,
        };
        let retired_keys = before.map_or_else(HashSet::new, |before| before.retired(verifier.as_deref()));
        let publishing = match before.filter(|before| before.has_rates(&config)) {
            Some(before) => before.publishing.clone(),
            None => {
                let work = base.schema_work_rate;
                let publishing = Publishing::new(&config.limits, &config.namespaces, work);
                Arc::new(Mutex::new(publishing))
            }
        };
        let schemas = schemas(&config, before)?;
        let rules: Rules = config.namespaces.into_iter().collect();
        let view = AppView {
            id: config.id.clone(),
            anonymous: config.anonymous,
            personal: config.personal_namespace,
            max_channels: match config.limits.max_channels {
                0 => usize::MAX,
                most => most,
            },
            rules: rules.clone(),
        };
        Ok(Self {
            publishing,
            quotas: config.quotas,
            meter,
            schemas,
            max_schema_work: base.max_schema_work,
            id: config.id,
            rules,
            view: Arc::new(view),
            verifier,
            api_keys,
            version,
            auth: config.auth,
            signing_keys,
            retired_keys,
            allowed_origins: config.allowed_origins,
            conduct: conduct(&config.limits),
            limits: config.limits,
        })
    }

    /// The app as it is, with its keys as `record` has them: without those that it does not name, and good as
    /// long as it says. `None` if that changes nothing.
    fn with_keys_of(&self, record: &AppRecord, base: &Base) -> Option<Self> {
        let api_keys = self.api_keys.only(|hash| record.until_of_hash(hash));
        let signing_keys = self.signing_keys.iter().filter_map(|key| {
            Some(SigningKey {
                until: record.until_of(&key.id)?,
                ..key.clone()
            })
        });
        let signing_keys: Vec<_> = signing_keys.collect();
        if signing_keys == self.signing_keys && api_keys == self.api_keys {
            return None;
        }
        let verifier = self.auth.as_ref().map(|auth| {
            // Its settings have made one before.
            let verifier = Verifier::new(auth, &base.http, &base.tasks).ok()?;
            Some(Arc::new(verifier.with_keys(&signing_keys).of_app(&self.id)))
        });
        let verifier = verifier.flatten();
        Some(Self {
            id: self.id.clone(),
            rules: self.rules.clone(),
            view: self.view.clone(),
            retired_keys: self.retired(verifier.as_deref()),
            verifier,
            api_keys,
            allowed_origins: self.allowed_origins.clone(),
            limits: self.limits.clone(),
            conduct: conduct(&self.limits),
            quotas: self.quotas.clone(),
            meter: self.meter.clone(),
            version: self.version,
            auth: self.auth.clone(),
            signing_keys,
            schemas: self.schemas.clone(),
            max_schema_work: self.max_schema_work,
            publishing: self.publishing.clone(),
        })
    }

    /// Keys that it has verified tokens with, and `next` does not.
    fn retired(&self, next: Option<&Verifier>) -> HashSet<Arc<str>> {
        let is_used = |key: &Arc<str>| next.is_some_and(|next| next.key_names().any(|name| name == key));
        let all = self.key_names().chain(&self.retired_keys);
        all.filter(|key| !is_used(key)).cloned().collect()
    }

    /// Stands for the app of a connection that has not named one yet: nothing is permitted, no token
    /// is genuine.
    fn unnamed() -> Self {
        let id = AppId::unnamed();
        let limits = LimitsConfig::default();
        Self {
            publishing: Arc::new(Mutex::new(Publishing::new(&limits, &[], 0))),
            rules: Rules::default(),
            view: Arc::new(AppView {
                id: id.clone(),
                anonymous: false,
                personal: None,
                max_channels: usize::MAX,
                rules: Rules::default(),
            }),
            id,
            verifier: None,
            api_keys: ApiKeys::default(),
            quotas: Quotas::default(),
            meter: Arc::default(),
            version: 0,
            auth: None,
            signing_keys: Vec::new(),
            schemas: HashMap::new(),
            max_schema_work: 0,
            retired_keys: HashSet::new(),
            allowed_origins: Vec::new(),
            conduct: conduct(&limits),
            limits,
        }
    }

    /// Whether `config` has the same rates.
    fn has_rates(&self, config: &AppConfig) -> bool {
        fn sorted<'a>(rates: impl Iterator<Item = (&'a str, u32)>) -> Vec<(&'a str, u32)> {
            let mut rates: Vec<_> = rates.filter(|(_, rate)| *rate > 0).collect();
            rates.sort_unstable();
            rates
        }
        let before = self.rules.iter().map(|(name, rule)| (name, rule.rate));
        let now = config.namespaces.iter();
        self.limits == config.limits
            && sorted(before) == sorted(now.map(|(name, rule)| (name.as_str(), rule.rate)))
    }

    /// What the keys are called that it verifies tokens with, those of a JWK set left out.
    fn key_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.verifier.iter().flat_map(|verifier| verifier.key_names())
    }

    /// Whether a token that was verified with this key, maybe a moment ago, would not be now.
    pub fn has_retired(&self, key: &str) -> bool {
        self.retired_keys.contains(key)
    }

    /// Verifies a connection token.
    ///
    /// # Errors
    ///
    /// See [`TokenError`]; also if the app takes no tokens, or the token names another app.
    pub async fn verify_connect(&self, token: &str) -> Result<ConnectClaims, TokenError> {
        match &self.verifier {
            Some(verifier) => verifier.connect(token).await,
            None => Err(NO_TOKENS),
        }
    }

    /// Verifies a subscription token.
    ///
    /// # Errors
    ///
    /// See [`TokenError`]; also if the app takes no tokens, or the token names another app.
    pub async fn verify_subscribe(&self, token: &str) -> Result<SubscribeClaims, TokenError> {
        match &self.verifier {
            Some(verifier) => verifier.subscribe(token).await,
            None => Err(NO_TOKENS),
        }
    }

    /// The schemas of a namespace, if it has any.
    pub fn schemas(&self, namespace: &str) -> Option<&Schemas> {
        // Most apps have none at all.
        if self.schemas.is_empty() {
            return None;
        }
        self.schemas.get(namespace)
    }

    /// Admits `count` publications of `size` together to `channel`, by the rates of the channel, of the
    /// user `by` (none: a backend) and of the app, and by its quotas: all or none. To be asked once for each
    /// attempt to publish, by whatever door. Answers with their room in the history.
    ///
    /// # Errors
    ///
    /// Which rate is exceeded, and when to come again. What is refused costs nothing.
    pub fn admit(
        &self,
        channel: &ChannelName,
        by: Option<&str>,
        count: u64,
        size: Size,
        now: Instant,
    ) -> Result<Reservation, Throttled> {
        self.meter.publish(count, size, now, || {
            self.publishing.lock().admit(channel, by, count, size.bytes, now)
        })
    }

    /// Whether its publications, or the requests of its backends, have a rate.
    fn has_rate(&self) -> bool {
        let quotas = &self.quotas;
        let any = quotas.messages_per_second.or(quotas.messages_per_month);
        self.limits.publish_rate > 0 || any.or(quotas.api_calls_per_second).is_some()
    }

    /// Admits so much work of validating a payload ([`crate::schema::Check::work`]).
    ///
    /// # Errors
    ///
    /// When to come again.
    pub fn admit_schema_work(&self, work: u64, now: Instant) -> Result<(), Throttled> {
        self.publishing.lock().admit_schema_work(work, now)
    }

    /// What it may publish on this node now, if a limit or a quota says that.
    pub fn may_publish(&self, now: Instant) -> Option<Allowance> {
        let limited = (self.limits.publish_rate > 0).then(|| self.publishing.lock().allowance(now));
        tighter(limited, self.meter.messages_allowed(now))
    }

    /// Admits a publication of the user `by` (none: a backend) to the queue: neither a user's own rate nor the month
    /// or the history is cured by waiting.
    ///
    /// # Errors
    ///
    /// Which of them is exceeded.
    pub fn admit_to_queue(&self, by: Option<&str>, size: Size, now: Instant) -> Result<(), Throttled> {
        self.meter.allows_queued(1, size, now)?;
        self.publishing.lock().admit_user(by, 1, now)
    }

    /// Admits a publication of `size` that has been queued because of a rate ([`Throttled::can_wait`]), by
    /// the rates of the channel and of the app. To be asked again, with the same `late`, after the time in the
    /// error: then others cannot keep it out. Answers with its room in the history.
    ///
    /// # Errors
    ///
    /// Which rate is exceeded, and when to come again.
    pub fn admit_late(
        &self,
        channel: &ChannelName,
        size: Size,
        late: &mut Late,
    ) -> Result<Reservation, Throttled> {
        let now = Instant::now();
        let waited = late.has_waited();
        let admitted = self.meter.publish_late(size, waited, now, || {
            self.publishing.lock().admit_late(channel, size.bytes, late, now)
        });
        admitted.inspect_err(|over: &Throttled| {
            if over.limit == Limit::QuotaMessages {
                late.will_wait();
            }
        })
    }
}

/// Compiles what is new.
fn schemas(config: &AppConfig, before: Option<&App>) -> Result<HashMap<String, Schemas>, AppError> {
    let mut schemas = HashMap::new();
    for (name, rule) in &config.namespaces {
        let before = before.and_then(|before| before.schemas.get(name));
        let ready = Schemas::new(&rule.schemas, before).map_err(|(version, why)| AppError {
            app: config.id.clone(),
            source: Unusable::Schema {
                namespace: name.clone(),
                version,
                why,
            },
        })?;
        schemas.extend(ready.map(|ready| (name.clone(), ready)));
    }
    Ok(schemas)
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

// === impl Apps ===

impl Apps {
    /// Serves `configs`, whose ids are unique. JWK sets are fetched by tasks of `tasks`.
    ///
    /// # Errors
    ///
    /// The first app whose tokens cannot be verified as configured.
    pub fn new(configs: Vec<AppConfig>, tenants: &TenantsConfig, tasks: Tasks) -> Result<Self, AppError> {
        let base = Base {
            http: HttpClient::default(),
            max_schema_work: tenants.max_schema_work,
            schema_work_rate: tenants.schema_work_rate,
            tasks,
        };
        let mut registry = Registry::default();
        let meters = Arc::new(Meters::default());
        for config in configs {
            let credentials = Credentials {
                api_keys: ApiKeys::new(&config.api_keys),
                signing_keys: Vec::new(),
            };
            let app = App::new(config, credentials, 0, None, Arc::default(), &base)?;
            meters.set(&app.id, &app.quotas, &app.meter);
            registry.insert(Arc::new(app));
        }
        registry.look_for_rates();
        Ok(Self {
            fixed: Arc::new(registry.apps.keys().cloned().collect()),
            registry: Arc::new(ArcSwap::from_pointee(registry)),
            generation: Arc::default(),
            unnamed: Arc::new(App::unnamed()),
            meters,
            base: Arc::new(base),
        })
    }

    /// Whether the app is the configuration file's.
    fn is_fixed(&self, id: &AppId) -> bool {
        self.fixed.contains(id)
    }

    /// An app as it is to be served from now on, for [`Apps::apply`].
    fn build(&self, config: AppConfig, credentials: Credentials, version: u64) -> Result<Arc<App>, AppError> {
        let before = self.get(config.id.as_str());
        let before = before.as_deref();
        let meter = self.meters.get(&config.id).unwrap_or_default();
        let app = App::new(config, credentials, version, before, meter, &self.base)?;
        Ok(Arc::new(app))
    }

    /// An app that keeps only those of its keys that `record` has, as long as it has them; `None` if it is not
    /// served, or that changes nothing.
    fn narrow(&self, id: &AppId, record: &AppRecord) -> Option<Arc<App>> {
        let app = self.get(id.as_str())?;
        app.with_keys_of(record, &self.base).map(Arc::new)
    }

    /// Serves these apps from now on, those without one no more. For one caller at a time.
    fn apply(&self, changes: Vec<(AppId, Option<Arc<App>>)>) {
        let mut registry = Registry::clone(&self.registry.load());
        for (id, app) in changes {
            match app {
                Some(app) => {
                    self.meters.set(&id, &app.quotas, &app.meter);
                    registry.insert(app);
                }
                None => {
                    self.meters.remove(&id);
                    registry.remove(&id);
                }
            }
        }
        registry.look_for_rates();
        self.registry.store(Arc::new(registry));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// What its apps have of their quotas on this node.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Whether any app has a rate that its callers are told of.
    pub fn have_rates(&self) -> bool {
        self.registry.load().have_rates
    }

    /// Another number after each change of any app.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The app with this id.
    pub fn get(&self, id: &str) -> Option<Arc<App>> {
        self.registry.load().apps.get(id).cloned()
    }

    /// What stands for the app of connections that have not named one yet: without rules, keys and
    /// limits. [`Apps::get`] and [`Apps::all`] do not know it.
    pub fn unnamed(&self) -> Arc<App> {
        self.unnamed.clone()
    }

    /// The app that an API key belongs to, for requests that name none.
    pub fn by_api_key(&self, presented: &PresentedKey) -> Option<Arc<App>> {
        let registry = self.registry.load();
        let app = registry.apps.get(registry.keys.get(&presented.hash())?)?;
        app.api_keys.accept(presented).then(|| app.clone())
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.registry.load().apps.len()
    }

    /// All apps, in no order.
    pub fn all(&self) -> Vec<Arc<App>> {
        self.registry.load().apps.values().cloned().collect()
    }
}

impl fmt::Debug for Apps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.registry.load().apps.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
