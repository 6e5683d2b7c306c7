//! The apps this node serves: what each connection and request asks about its tenant.
//!
//! The registry is read often and replaced whole; an [`App`] that somebody holds stays as it was.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{
    auth::{ApiKeys, AuthError, HttpClient, PresentedKey, Verifier},
    config::{AppConfig, LimitsConfig},
    limits::ConductRules,
    model::{AppId, ChannelName, ConnectClaims, Rules, SubscribeClaims, TokenError},
    session::AppView,
    task::Tasks,
};

mod publishing;

use publishing::Publishing;
pub use publishing::Throttled;

/// One app.
pub struct App {
    /// Its id.
    pub id: AppId,
    /// What its channels may be used for.
    pub rules: Rules,
    /// What its sessions need to know.
    pub view: Arc<AppView>,
    /// Verifies its tokens; `None` = tokens are refused.
    pub verifier: Option<Verifier>,
    /// The keys of its backends.
    pub api_keys: ApiKeys,
    /// Origins that browsers may connect from; empty = all.
    pub allowed_origins: Vec<String>,
    /// Its share of this node.
    pub limits: LimitsConfig,
    /// What each of its connections may do.
    pub conduct: ConductRules,
    publishing: Mutex<Publishing>,
}

/// Why the apps cannot be served as configured.
#[derive(Debug, thiserror::Error)]
#[error("app {app}: {source}")]
pub struct AppError {
    /// The app.
    pub app: AppId,
    /// What is wrong with how its tokens are verified.
    pub source: AuthError,
}

/// All apps of this node, by id. Cheap to clone; clones see replacements.
#[derive(Clone)]
pub struct Apps {
    apps: Arc<ArcSwap<HashMap<AppId, Arc<App>>>>,
    unnamed: Arc<App>,
    http: Arc<HttpClient>,
    tasks: Tasks,
}

const NO_TOKENS: TokenError = TokenError::Invalid("the app takes no tokens");

// === impl App ===

impl App {
    fn new(config: AppConfig, http: &HttpClient, tasks: &Tasks) -> Result<Self, AppError> {
        let verifier = config
            .auth
            .as_ref()
            .map(|auth| Ok(Verifier::new(auth, http, tasks)?.of_app(&config.id)))
            .transpose();
        let verifier = verifier.map_err(|source| AppError {
            app: config.id.clone(),
            source,
        })?;
        let publishing = Publishing::new(&config.limits, &config.namespaces);
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
            publishing: Mutex::new(publishing),
            id: config.id,
            rules,
            view: Arc::new(view),
            verifier,
            api_keys: ApiKeys::new(&config.api_keys),
            allowed_origins: config.allowed_origins,
            conduct: conduct(&config.limits),
            limits: config.limits,
        })
    }

    /// Stands for the app of a connection that has not named one yet: nothing is permitted, no token
    /// is genuine.
    fn unnamed() -> Self {
        let id = AppId::unnamed();
        let limits = LimitsConfig::default();
        Self {
            publishing: Mutex::new(Publishing::new(&limits, &[])),
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
            api_keys: ApiKeys::new(&[]),
            allowed_origins: Vec::new(),
            conduct: conduct(&limits),
            limits,
        }
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

    /// Admits `count` publications of `bytes` together to `channel`, by the rates of the channel, of the
    /// user `by` (none: a backend) and of the app: all or none. To be asked once for each attempt to publish, by whatever door.
    ///
    /// # Errors
    ///
    /// Which rate is exceeded, and when to come again. What is refused costs nothing.
    pub fn admit(
        &self,
        channel: &ChannelName,
        by: Option<&str>,
        count: u64,
        bytes: u64,
        now: Instant,
    ) -> Result<(), Throttled> {
        self.publishing.lock().admit(channel, by, count, bytes, now)
    }
}

fn conduct(limits: &LimitsConfig) -> ConductRules {
    let (commands, refusals) = (limits.command_rate.into(), limits.max_refusals.into());
    ConductRules::new(commands, limits.command_bytes, refusals)
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
    pub fn new(configs: Vec<AppConfig>, tasks: Tasks) -> Result<Self, AppError> {
        let apps = Self {
            apps: Arc::default(),
            unnamed: Arc::new(App::unnamed()),
            http: Arc::default(),
            tasks,
        };
        apps.replace(configs)?;
        Ok(apps)
    }

    /// Serves `configs` from now on instead of what was served. Rates start afresh.
    ///
    /// # Errors
    ///
    /// As [`Apps::new`]; nothing is replaced then.
    pub fn replace(&self, configs: Vec<AppConfig>) -> Result<(), AppError> {
        let apps = configs.into_iter().map(|config| {
            let app = App::new(config, &self.http, &self.tasks)?;
            Ok((app.id.clone(), Arc::new(app)))
        });
        self.apps.store(Arc::new(apps.collect::<Result<_, _>>()?));
        Ok(())
    }

    /// The app with this id.
    pub fn get(&self, id: &str) -> Option<Arc<App>> {
        self.apps.load().get(id).cloned()
    }

    /// What stands for the app of connections that have not named one yet: without rules, keys and
    /// limits. [`Apps::get`] and [`Apps::all`] do not know it.
    pub fn unnamed(&self) -> Arc<App> {
        self.unnamed.clone()
    }

    /// The app that an API key belongs to, for requests that name none.
    pub fn by_api_key(&self, presented: &PresentedKey) -> Option<Arc<App>> {
        self.apps
            .load()
            .values()
            .find(|app| app.api_keys.accept(presented))
            .cloned()
    }

    /// All apps, in no order.
    pub fn all(&self) -> Vec<Arc<App>> {
        self.apps.load().values().cloned().collect()
    }
}

impl fmt::Debug for Apps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.apps.load().keys()).finish()
    }
}

#[cfg(test)]
mod tests;
