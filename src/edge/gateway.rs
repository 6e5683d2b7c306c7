//! The door for client connections: from the upgrade request to a connection's task.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::{
    apps::Apps,
    channel::{Hub, Mailbox, MailboxLimits},
    config::{CatchupConfig, EdgeConfig},
    model::AppId,
    presence::Presence,
    protocol::DisconnectCode,
    publish::Publisher,
    random,
    revocation::Revocations,
    session::{Limits, Session},
    task::Tasks,
    telemetry::{Limit, Metrics, RefusedHandshake},
    users::Index,
};

use super::{
    admission::Admission, arrivals::Arrivals, connection::Connection, handler::Handler,
    sockopt::ClientOptions, upgrade::accept_websocket,
};

/// All client connections of a node.
pub struct Gateway {
    pub(super) hub: Arc<Hub>,
    pub(super) publisher: Publisher,
    pub(super) presence: Arc<Presence>,
    pub(super) handler: Option<Arc<dyn Handler>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) config: EdgeConfig,
    pub(super) started: Instant,
    pub(super) apps: Apps,
    pub(super) users: Arc<Index>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) arrivals: Arrivals,
    default_app: Option<AppId>,
    limits: Arc<Limits>,
    mailboxes: Mutex<slab::Slab<Arc<Mailbox>>>,
    pub(super) open: AtomicUsize,
    draining: AtomicBool,
    tasks: Tasks,
}

impl Gateway {
    /// A gateway without connections.
    #[expect(clippy::too_many_arguments, reason = "called once, by the composition root")]
    pub fn new(
        hub: Arc<Hub>,
        publisher: Publisher,
        presence: Arc<Presence>,
        handler: Option<Arc<dyn Handler>>,
        apps: Apps,
        users: Arc<Index>,
        revocations: Arc<Revocations>,
        default_app: Option<AppId>,
        config: &EdgeConfig,
        catchup: &CatchupConfig,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            hub,
            publisher,
            presence,
            metrics,
            limits: Arc::new(Limits::new(config, catchup, handler.is_some())),
            handler,
            arrivals: Arrivals::new(config),
            config: config.clone(),
            started: Instant::now(),
            apps,
            users,
            revocations,
            default_app,
            mailboxes: Mutex::default(),
            open: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            tasks,
        })
    }

    /// The routes of client connections.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/connection/websocket", get(open_default))
            .route("/apps/{app}/connection/websocket", get(open_of_app))
            .with_state(self.clone())
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Bytes queued for all clients. Looks at every connection: for those who ask now and then.
    pub fn queued_bytes(&self) -> usize {
        self.mailboxes
            .lock()
            .iter()
            .map(|(_, mailbox)| mailbox.queued())
            .sum()
    }

    /// Turns new connections away, and closes all others with 3001, spread over `duration`.
    pub async fn drain(&self, duration: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        let mailboxes: Vec<_> = self
            .mailboxes
            .lock()
            .iter()
            .map(|(_, mailbox)| mailbox.clone())
            .collect();
        info!(connections = mailboxes.len(), "closing connections");
        let began = Instant::now();
        let count = u32::try_from(mailboxes.len().max(1)).unwrap_or(u32::MAX);
        for (closed, mailbox) in (0_u32..).zip(mailboxes) {
            mailbox.close(DisconnectCode::Shutdown);
            let due = duration.mul_f64(f64::from(closed) / f64::from(count));
            let ahead = due.saturating_sub(began.elapsed());
            // Timers are of a millisecond: many are closed between two pauses.
            if ahead >= Duration::from_millis(2) {
                sleep(ahead).await;
            }
        }
    }

    /// `named` is the app that the URL names.
    fn open(self: &Arc<Self>, named: Option<&str>, request: Request) -> Response {
        let refuse = |why: RefusedHandshake, response: Response| {
            self.metrics.handshakes_refused.of(why).inc();
            response
        };
        if self.draining.load(Ordering::Relaxed) {
            return refuse(RefusedHandshake::Draining, unavailable("the node is stopping"));
        }
        let by_token = named.is_none();
        let named = named.or_else(|| self.default_app.as_ref().map(AppId::as_str));
        let app = match named {
            Some(named) => self.apps.get(named),
            None => Some(self.apps.unnamed()),
        };
        let Some(app) = app else {
            return refuse(
                RefusedHandshake::App,
                error(StatusCode::NOT_FOUND, "unknown_app", "no such app"),
            );
        };
        let place = match Admission::check(self, &app) {
            Ok(place) => place,
            Err(limit) => {
                self.metrics.app(&app.id).limits_hit.of(limit).inc();
                return refuse(RefusedHandshake::Limit, unavailable("too many connections"));
            }
        };
        let peer = request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map(|peer| peer.0);
        let (mut parts, _) = request.into_parts();
        let arrived = std::time::Instant::now();
        let options = ClientOptions::from(&self.config);
        let accepted = match accept_websocket(&mut parts, &app.allowed_origins, options) {
            Ok(accepted) => accepted,
            Err(error) => {
                let why = if error.status() == StatusCode::FORBIDDEN {
                    RefusedHandshake::Origin
                } else {
                    RefusedHandshake::Malformed
                };
                return refuse(why, error.into_response());
            }
        };
        // Last, so that only what would have been a connection counts.
        let address = peer.map(|peer| peer.ip());
        let from = match self.arrivals.admit(&app, address, &parts.headers, arrived) {
            Ok(from) => from,
            Err((limit, wait)) => {
                self.metrics.app(&app.id).limits_hit.of(limit).inc();
                return refuse(RefusedHandshake::Limit, later(limit, wait));
            }
        };
        let gateway = self.clone();
        // Counted from here on: a storm of handshakes meets the limit, too.
        let mut admission = Admission::new(gateway.clone(), app, place, from);
        if by_token {
            admission.leave_open(parts.headers.get(header::ORIGIN));
        }
        self.tasks.spawn_unstopped(async move {
            match accepted.socket.ready().await {
                // A task of its own: this one's future has the size of the handshake.
                Ok((stream, first)) => {
                    // To the end of the queue: a task that is made here would have its turn at once,
                    // however long the others have to wait.
                    tokio::task::yield_now().await;
                    gateway.arrivals.served(arrived, &gateway.metrics);
                    gateway.serve(stream, first, admission);
                }
                Err(error) => debug!(%error, peer = peer.map(|peer| peer.ip().to_string()), "handshake lost"),
            }
        });
        accepted.response
    }

    fn serve(self: &Arc<Self>, stream: tokio::net::TcpStream, first: bytes::Bytes, admission: Admission) {
        let stream = Arc::new(stream);
        let limits = MailboxLimits {
            soft: self.config.mailbox_bytes,
            hard: self.config.mailbox_max_bytes,
        };
        let mailbox = Arc::new(Mailbox::held(limits, Some(stream.clone())));
        let session = Session::new(
            admission.app().view.clone(),
            self.limits.clone(),
            random::name(22),
            self.now(),
        );
        let slot = self.mailboxes.lock().insert(mailbox.clone());
        if self.draining.load(Ordering::Relaxed) {
            mailbox.close(DisconnectCode::Shutdown);
        }
        let gateway = self.clone();
        let connection = Connection::new(stream, self.clone(), admission, mailbox, session);
        self.tasks.spawn_unstopped(async move {
            connection.run(first).await;
            gateway.mailboxes.lock().remove(slot);
        });
    }
}

async fn open_default(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let app = request.uri().query().and_then(app_of).map(str::to_owned);
    gateway.open(app.as_deref(), request)
}

async fn open_of_app(
    State(gateway): State<Arc<Gateway>>,
    Path(app): Path<String>,
    request: Request,
) -> Response {
    gateway.open(Some(&app), request)
}

/// The app that a query names. Ids need no escaping, so an escaped one is none.
fn app_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("app="))
}

fn unavailable(message: &'static str) -> Response {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
    response
        .headers_mut()
        .insert("retry-after", HeaderValue::from_static("1"));
    response
}

/// The answer to a handshake that is one too many.
fn later(limit: Limit, wait: Duration) -> Response {
    let mut response = match limit {
        Limit::IpConnections | Limit::AppIpConnections => error(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_connections",
            "too many connections from this address",
        ),
        _ => unavailable("too many connect at once"),
    };
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn error(status: StatusCode, code: &'static str, message: &'static str) -> Response {
    (
        status,
        axum::Json(serde_json::json!({ "error": { "code": code, "message": message } })),
    )
        .into_response()
}
