//! The API of the control plane: accounts, teams, apps, plans. Routes over [`crate::control`], which decides
//! everything; here requests are read, counted and answered.
//!
//! Until the store has answered for the first time ([`ControlState::open`]), and whenever it does not, the answer
//! is 503. Nothing else of a node depends on it.

mod account;
mod apps;
mod audit;
mod auth;
mod error;
mod extract;
mod idempotency;
mod invitations;
mod keys;
mod members;
pub(super) mod openapi;
mod operator;
mod page;
mod plans;
mod schemas;
mod teams;
mod tokens;
mod usage;
mod versions;

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, patch, post},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    auth::presented_key,
    config::Config,
    control::{Actor, Control, ControlError, Origin, TeamApps, Who},
    limits::{Address, Keyed, Proxies, Quota},
    seal::Sealing,
    store::Store,
    task::Tasks,
    telemetry::Metrics,
};

use error::Failure;

/// What the routes of the control plane share. Cheap to clone.
#[derive(Clone)]
pub struct ControlState(Arc<Shared>);

/// The parts of [`ControlState`].
pub struct Shared {
    services: OnceLock<ControlServices>,
    proxies: Proxies,
    accounts: Mutex<Keyed<String>>,
    addresses: Mutex<Keyed<Address>>,
    repeatable: Mutex<Keyed<String>>,
    max_body_bytes: usize,
    body_timeout: Duration,
    keep_answers: Duration,
    max_kept_bytes: usize,
    max_usage_rows: usize,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

/// What decides.
pub struct ControlServices {
    /// People.
    pub control: Arc<Control>,
    /// Their apps.
    pub apps: Arc<TeamApps>,
    /// Where answers to requests that may be repeated are kept.
    pub store: Arc<dyn Store>,
    /// What they are sealed with.
    pub sealing: Arc<Sealing>,
}

impl Deref for ControlState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl ControlState {
    /// A state whose store is not there yet.
    pub fn new(config: &Config, metrics: Arc<Metrics>, tasks: Tasks) -> Self {
        let (http, control) = (&config.http, &config.control);
        let rate = |rate: u32| Quota::a_second_at_once(rate.into());
        let entries = control.lockout_entries;
        let repeatable = u64::from(control.idempotency_rate);
        let repeatable = Quota::within(repeatable, repeatable, Duration::from_secs(3600));
        Self(Arc::new(Shared {
            services: OnceLock::new(),
            // The configuration was refused if one of them is none.
            proxies: Proxies::new(config.edge.trusted_proxies.iter().map(String::as_str)).unwrap_or_default(),
            accounts: Mutex::new(Keyed::new(rate(control.account_rate), entries)),
            addresses: Mutex::new(Keyed::new(rate(control.address_rate), entries)),
            repeatable: Mutex::new(Keyed::new(repeatable, entries)),
            max_body_bytes: http.max_body_bytes,
            body_timeout: http.body_timeout,
            keep_answers: control.idempotency_lifetime,
            max_kept_bytes: control.idempotency_max_bytes,
            max_usage_rows: config.usage.max_rows,
            metrics,
            tasks,
        }))
    }

    /// The store has answered. Only the first call counts.
    pub fn open(&self, services: ControlServices) {
        let _ = self.services.set(services);
    }

    /// What decides.
    ///
    /// # Errors
    ///
    /// `unavailable` until the store has answered.
    fn services(&self) -> Result<&ControlServices, Failure> {
        self.services.get().ok_or(Failure::NotOpen)
    }

    fn control(&self) -> Result<&Control, Failure> {
        Ok(&self.services()?.control)
    }

    fn apps(&self) -> Result<&TeamApps, Failure> {
        Ok(&self.services()?.apps)
    }

    /// From where a request comes, as trusted proxies say.
    fn origin(&self, request: &Request) -> Origin {
        let peer = request.extensions().get::<ConnectInfo<std::net::SocketAddr>>();
        let ip = peer.map(|ConnectInfo(peer)| self.client(peer.ip(), request.headers()));
        let agent = request.headers().get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Origin::new(ip, agent)
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let forwarded = headers.get_all("x-forwarded-for").iter();
        self.proxies.client(peer, forwarded.map(HeaderValue::as_bytes))
    }

    fn admit(&self, origin: &Origin) -> Result<(), Failure> {
        let Some(ip) = origin.ip else { return Ok(()) };
        let admitted = self.addresses.lock().check(&Address::from(ip), Instant::now(), 1);
        admitted.map_err(|wait| self.limited(wait))
    }

    fn limited(&self, wait: Duration) -> Failure {
        self.metrics.control_limited.inc();
        Failure::Limited(wait)
    }

    /// Lets in who has shown who he is.
    async fn admit_signed(&self, request: &mut Request) -> Result<Actor, Failure> {
        let origin = self.origin(request);
        self.admit(&origin)?;
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let presented = presented_key(authorization, None).ok_or(ControlError::Unauthenticated)?;
        let actor = self.control()?.authenticate(presented, origin).await?;
        self.charge(&self.accounts, &actor)?;
        request.extensions_mut().insert(actor.clone());
        Ok(actor)
    }

    /// What comes of `work`, which goes on though nobody waits for it any more. `None`: the node is going.
    async fn detached<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.tasks.spawn(async move {
            // Nobody may be there to hear of it.
            let _ = sender.send(work.await);
        });
        receiver.await.ok()
    }

    fn charge(&self, limits: &Mutex<Keyed<String>>, actor: &Actor) -> Result<(), Failure> {
        let who = account_of(actor);
        let admitted = limits.lock().check(who, Instant::now(), 1);
        admitted.map_err(|wait| self.limited(wait))
    }
}

/// With what somebody has shown who he is: sessions of an account are one, each token is another.
fn credential_of(actor: &Actor) -> &str {
    match &actor.who {
        Who::Token { token, .. } => token,
        Who::Session { .. } => "session",
        Who::System(_) => "operator",
        Who::Anybody => "",
    }
}

/// Whom a request counts for.
fn account_of(actor: &Actor) -> &str {
    match &actor.who {
        Who::Session { account, .. } | Who::Token { account, .. } => account,
        // No account has such an id.
        Who::System(name) => name,
        Who::Anybody => "",
    }
}

/// In front of what takes an account.
async fn signed(State(state): State<ControlState>, mut request: Request, next: Next) -> Response {
    let actor = match state.admit_signed(&mut request).await {
        Ok(actor) => actor,
        Err(failure) => return failure.into_response(),
    };
    let answered = match idempotency::key_of(&request) {
        Ok(Some(key)) if request.method() == Method::POST => {
            idempotency::answer_once(&state, &actor, &key, request, next).await
        }
        Ok(_) => return to_its_end(&state, request, next).await,
        Err(failure) => Err(failure),
    };
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// In front of what takes none.
async fn open(State(state): State<ControlState>, mut request: Request, next: Next) -> Response {
    let origin = state.origin(&request);
    if let Err(failure) = state.admit(&origin) {
        return failure.into_response();
    }
    request.extensions_mut().insert(Actor::anybody(origin));
    to_its_end(&state, request, next).await
}

/// Does what changes something to its end, also if the caller goes away: what was stored is told to the nodes and
/// stands in the audit log.
async fn to_its_end(state: &ControlState, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let answered = state.detached(async move { next.run(request).await }).await;
    answered.unwrap_or_else(|| Failure::from(ControlError::Unavailable).into_response())
}

/// The routes, without a fallback of their own.
pub fn router(state: &ControlState) -> Router {
    let open_to_all = from_fn_with_state(state.clone(), open);
    let for_accounts = from_fn_with_state(state.clone(), signed);
    let mut router = Router::new();
    for (path, methods) in open_routes() {
        router = router.route(path, methods.route_layer(open_to_all.clone()));
    }
    for (path, methods) in signed_routes() {
        router = router.route(path, methods.route_layer(for_accounts.clone()));
    }
    router.with_state(state.clone())
}

type Routes = Vec<(&'static str, MethodRouter<ControlState>)>;

/// What nobody has signed in for yet.
fn open_routes() -> Routes {
    vec![
        ("/v1/auth", get(auth::about)),
        ("/v1/auth/sign-up", post(auth::sign_up)),
        ("/v1/auth/verify", post(auth::verify)),
        ("/v1/auth/verify/resend", post(auth::resend)),
        ("/v1/auth/login", post(auth::login)),
        ("/v1/auth/refresh", post(auth::refresh)),
        ("/v1/auth/reset", post(auth::reset)),
        ("/v1/auth/reset/request", post(auth::request_reset)),
        ("/v1/auth/email", post(auth::confirm_email)),
    ]
}

fn signed_routes() -> Routes {
    let mut routes = account_routes();
    routes.extend(team_routes());
    routes.extend(app_routes());
    routes
}

fn account_routes() -> Routes {
    vec![
        ("/v1/auth/logout", post(auth::logout)),
        ("/v1/auth/logout-everywhere", post(auth::logout_everywhere)),
        ("/v1/account", get(account::get).patch(account::rename)),
        ("/v1/account/delete", post(account::delete)),
        ("/v1/account/password", post(account::password)),
        ("/v1/account/email", post(account::email)),
        ("/v1/account/second-factor", post(account::begin_second_factor)),
        (
            "/v1/account/second-factor/confirm",
            post(account::confirm_second_factor),
        ),
        (
            "/v1/account/second-factor/disable",
            post(account::disable_second_factor),
        ),
        (
            "/v1/account/second-factor/recovery-codes",
            post(account::recovery_codes),
        ),
        ("/v1/account/sessions", get(account::sessions)),
        ("/v1/account/sessions/{session}", delete(account::end_session)),
        ("/v1/account/tokens", get(tokens::list).post(tokens::create)),
        ("/v1/account/tokens/{token}", delete(tokens::revoke)),
        ("/v1/account/audit", get(audit::own)),
        ("/v1/accounts", post(operator::create_account)),
        ("/v1/invitations", post(operator::invite)),
        ("/v1/invitations/accept", post(invitations::accept)),
    ]
}

fn team_routes() -> Routes {
    vec![
        ("/v1/teams", get(teams::list).post(teams::create)),
        (
            "/v1/teams/{team}",
            get(teams::get).patch(teams::rename).delete(teams::delete),
        ),
        ("/v1/teams/{team}/leave", post(teams::leave)),
        ("/v1/teams/{team}/transfer", post(teams::transfer)),
        ("/v1/teams/{team}/members", get(members::list)),
        (
            "/v1/teams/{team}/members/{account}",
            patch(members::set_role).delete(members::remove),
        ),
        (
            "/v1/teams/{team}/invitations",
            get(invitations::list).post(invitations::create),
        ),
        (
            "/v1/teams/{team}/invitations/{invitation}",
            delete(invitations::withdraw),
        ),
        ("/v1/teams/{team}/tokens", get(tokens::of_team)),
        ("/v1/teams/{team}/tokens/{token}", delete(tokens::revoke_of_team)),
        ("/v1/teams/{team}/audit", get(audit::of_team)),
        ("/v1/teams/{team}/audit/export", get(audit::export)),
        ("/v1/teams/{team}/apps", get(apps::list).post(apps::create)),
    ]
}

fn app_routes() -> Routes {
    vec![
        (
            "/v1/apps/{app}",
            get(apps::get).patch(apps::change).delete(apps::delete),
        ),
        ("/v1/apps/{app}/quotas", get(apps::quotas)),
        ("/v1/apps/{app}/keys", get(keys::list).post(keys::create)),
        ("/v1/apps/{app}/keys/{key}", delete(keys::revoke)),
        ("/v1/apps/{app}/keys/{key}/end", post(keys::end)),
        ("/v1/apps/{app}/keys/{key}/rotate", post(keys::rotate)),
        ("/v1/apps/{app}/schemas", get(schemas::list)),
        ("/v1/apps/{app}/usage", get(usage::get)),
        ("/v1/apps/{app}/versions", get(versions::list)),
        ("/v1/apps/{app}/versions/{version}", get(versions::get)),
        (
            "/v1/apps/{app}/versions/{version}/roll-back",
            post(versions::roll_back),
        ),
        ("/v1/plans", get(plans::list)),
        (
            "/v1/plans/{plan}",
            get(plans::get).put(plans::put).delete(plans::delete),
        ),
    ]
}

/// The paths of all routes, so that a test can compare them with the OpenAPI document.
#[cfg(test)]
pub(super) fn paths() -> Vec<&'static str> {
    let all = open_routes().into_iter().chain(signed_routes());
    all.map(|(path, _)| path).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Sources;

    /// Of a node whose store has never answered.
    pub(in crate::api) fn closed() -> ControlState {
        let config = Config::load(&Sources::default()).unwrap();
        ControlState::new(&config, Arc::new(Metrics::new()), Tasks::default())
    }
}
