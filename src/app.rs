//! The composition root: `Config -> App -> Running -> drained`, the same for the binary and for
//! tests. The only module that knows all others.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{response::Html, routing::get};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api::{self, ApiState, Doors, Front, Readiness, Services},
    apps::{self, AppError, Apps, Feed},
    channel::{Budgets, Hub},
    cluster::{About, NodeState, Nodes},
    config::Config,
    control,
    edge::{
        frames,
        gateway::Gateway,
        handler::Handler,
        listener::{ListenError, Listener},
    },
    log::{
        Log,
        nats::{self, NatsLog},
    },
    overflow::Overflow,
    presence::Presence,
    publish::Publisher,
    quota::{self, Sharing},
    revocation::{NotRead, Revocations},
    seal::{BadKey, Sealing},
    store::OpenError,
    survey::Survey,
    task::Tasks,
    telemetry::{Metrics, RefusedHandshake},
    usage::Reporter,
    users::{Index, Users},
};

mod stored;
mod wiring;

use stored::Stored;
use wiring::{enforce, feel, load, measure, node_name, open};

const PAGE: &str = include_str!("edge/page/index.html");

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Serves clients: WebSocket, and the chat page.
    pub edge: bool,
    /// Serves backends: REST and the server API.
    pub api: bool,
    /// Serves people: accounts, teams, apps. Needs the store.
    pub control: bool,
    /// Adds up what apps use. Needs the store.
    pub worker: bool,
}

impl Roles {
    /// Everything.
    pub const ALL: Self = Self {
        edge: true,
        api: true,
        control: true,
        worker: true,
    };

    /// What depends on NATS alone.
    pub const DATA: Self = Self {
        control: false,
        worker: false,
        ..Self::ALL
    };
}

/// A node that has its configuration and holds nothing yet.
pub struct App {
    config: Config,
    roles: Roles,
    handler: Option<Arc<dyn Handler>>,
    metrics: Arc<Metrics>,
}

/// A node that serves.
pub struct Running {
    /// Where it listens: the real port, if the configuration said 0.
    pub addr: SocketAddr,
    config: Config,
    metrics: Arc<Metrics>,
    log: Arc<NatsLog>,
    nodes: Arc<Nodes>,
    apps: Apps,
    sharing: Arc<Sharing>,
    presence: Arc<Presence>,
    hub: Arc<Hub>,
    gateway: Arc<Gateway>,
    reporter: Arc<Reporter>,
    /// Ended by [`Tasks::stop`]: what serves the others.
    background: Tasks,
    /// Connections and requests: waited for.
    clients: Tasks,
    readiness: Arc<Readiness>,
    stop_accepting: CancellationToken,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken.
    #[error(
        "{0} is taken by another program: stop that, or choose another address (--listen ADDR or http.listen)"
    )]
    AddressTaken(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}; choose another address (--listen ADDR or http.listen)")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] nats::StartError),
    /// Who is to be turned away is not known.
    #[error(transparent)]
    Revocations(#[from] NotRead),
    /// What secrets are sealed with cannot be used.
    #[error("tenants.sealing_keys: {0}")]
    Sealing(#[from] BadKey),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] control::StartError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Which apps there are is not known.
    #[error(transparent)]
    Apps(#[from] apps::NotRead),
    /// An app's keys cannot be used.
    #[error(transparent)]
    App(#[from] AppError),
}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> Self {
        match error.source.kind() {
            std::io::ErrorKind::AddrInUse => Self::AddressTaken(error.address),
            _ => Self::Listen {
                addr: error.address,
                source: error.source,
            },
        }
    }
}

impl App {
    /// Puts a node together from its configuration. Nothing is opened yet.
    pub fn new(config: Config, roles: Roles) -> Self {
        Self {
            config,
            roles,
            handler: None,
            metrics: Arc::new(Metrics::new()),
        }
    }

    /// Registers the application that clients call. Without one their calls are refused (108).
    #[must_use]
    pub fn with_handler(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handler = Some(handler);
        self
    }

    /// Starts it. When this resolves it serves.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running then.
    pub async fn start(self) -> Result<Running, StartError> {
        let Self {
            config,
            roles,
            handler,
            metrics,
        } = self;
        let background = Tasks::default();
        let clients = Tasks::default();
        // First of all: a taken port is the most likely mistake, and costs nothing to find.
        let listener = Listener::bind(&config.http)?;
        let sealing = Arc::new(Sealing::new(&config.tenants.sealing_keys)?);
        let apps = Apps::new(config.apps.clone(), &config.tenants, background.clone())?;
        let namespaces: Vec<_> = config
            .apps
            .iter()
            .flat_map(|app| {
                let namespaces = app.namespaces.iter();
                namespaces.map(|(name, rule)| (app.id.clone(), name.clone(), rule.history.clone()))
            })
            .collect();
        let secret = config.cluster.secret.as_ref();
        let log = match NatsLog::start(&config.nats, &config.log, secret, &namespaces, &background).await {
            Ok(log) => log,
            Err(error) => {
                background.stop();
                return Err(error.into());
            }
        };
        let nodes = Nodes::start(
            log.clone(),
            &config.cluster,
            About {
                name: node_name(&config),
                address: match config.cluster.address.as_str() {
                    "" => listener.local_addr().to_string(),
                    address => address.to_owned(),
                },
            },
            config.nats.start_timeout,
            metrics.clone(),
            &background,
        )
        .await;
        let index = Arc::new(Index::default());
        let seam: Arc<dyn Log> = log.clone();
        let budgets = Arc::new(Budgets::new(config.channel.rings_bytes));
        for app in apps.all() {
            budgets.set(&app.id, app.limits.ring_bytes);
        }
        let followed = Feed::start(
            &seam,
            apps.clone(),
            &config,
            open(sealing.clone()),
            feel(index.clone(), budgets.clone(), metrics.clone()),
            config.nats.start_timeout,
            metrics.clone(),
            &background,
        );
        if let Err(error) = followed.await {
            background.stop();
            return Err(error.into());
        }
        let revocations = Revocations::start(
            &seam,
            &config.revocations,
            enforce(index.clone(), metrics.clone()),
            config.nats.start_timeout,
            metrics.clone(),
            &background,
        );
        let revocations = match revocations.await {
            Ok(revocations) => revocations,
            Err(error) => {
                background.stop();
                return Err(error.into());
            }
        };
        let sharing = Sharing::start(
            seam.clone(),
            nodes.clone(),
            apps.meters().clone(),
            &config.quotas,
            quota::to_stream(&seam, background.clone()),
            config.nats.start_timeout,
            metrics.clone(),
            &background,
        )
        .await;
        let hub = Hub::start(
            log.clone(),
            &config.log,
            &config.channel,
            &config.catchup,
            (budgets, apps.meters().clone()),
            frames::ENCODER,
            metrics.clone(),
            &background,
        );
        let presence = Presence::start(
            nodes.clone(),
            log.clone(),
            &config.presence,
            frames::PRESENCE,
            metrics.clone(),
            &background,
        )
        .await;
        let overflow = Overflow::start(
            seam.clone(),
            hub.clone(),
            apps.clone(),
            &config.queue,
            metrics.clone(),
            &background,
        )
        .await;
        let publisher =
            Publisher::new(hub.clone(), config.http.max_json_depth, metrics.clone()).with_queue(overflow);
        let gateway = Gateway::new(
            hub.clone(),
            publisher.clone(),
            presence.clone(),
            handler,
            apps.clone(),
            index.clone(),
            revocations.clone(),
            config.node.default_app.clone(),
            &config.edge,
            &config.catchup,
            metrics.clone(),
            clients.clone(),
        );
        let users = Users::start(
            seam.clone(),
            nodes.clone(),
            index.clone(),
            &config.users,
            metrics.clone(),
            &background,
        );
        let survey = Survey::start(
            log.clone(),
            nodes.clone(),
            (hub.clone(), index.clone()),
            (config.http.max_surveys, config.http.max_surveys_per_app),
            metrics.clone(),
            &background,
        );
        let reporter = Reporter::start(&*log, &config.usage, metrics.clone(), &background);
        let addr = listener.local_addr();
        let stop_accepting = CancellationToken::new();
        let readiness = Arc::new(Readiness::default());
        let state = ApiState::new(
            &node_name(&config),
            (&config.http, &config.users),
            Services {
                apps: apps.clone(),
                publisher,
                hub: hub.clone(),
                presence: presence.clone(),
                users,
                survey,
                revocations,
            },
            readiness.clone(),
            metrics.clone(),
        );
        let stored = Stored {
            roles,
            config: config.clone(),
            log: seam,
            sealing,
            metrics: metrics.clone(),
            tasks: background.clone(),
        };
        let people = match stored.start().await {
            Ok(people) => people,
            Err(error) => {
                background.stop();
                return Err(error);
            }
        };
        let doors = Doors {
            backends: roles.api,
            people,
        };
        let mut router = api::router(state.clone(), &doors);
        let doors = roles.api.then_some(state);
        if roles.edge {
            router = router
                .route("/", get(|| async { Html(PAGE) }))
                .merge(gateway.router());
        }
        let front = Front::new(router, doors, metrics.clone());
        let listener = listener.count_timeouts(metrics.handshakes_refused.of(RefusedHandshake::Timeout));
        metrics.on_scrape(measure(
            &gateway,
            &hub,
            &index,
            [background.clone(), clients.clone()],
        ));
        background.spawn(listener.serve(front, clients.clone(), stop_accepting.clone()));
        nodes.set_load(load(&gateway, &hub, index, metrics.clone()));
        nodes.set_state(NodeState::Ready);
        metrics.ready.set(1);
        Ok(Running {
            addr,
            config,
            metrics,
            log,
            nodes,
            apps,
            sharing,
            presence,
            hub,
            gateway,
            reporter,
            background,
            clients,
            readiness,
            stop_accepting,
        })
    }
}

impl Running {
    /// Stops the intake, finishes what was begun, closes: not ready, then no new connections, then
    /// the old ones closed with 3001 over `drain.duration`, then `drain.linger` for those who ask
    /// what this node vouches for, then the log; all under `drain.deadline`.
    pub async fn drain(self) {
        let began = Instant::now();
        let DrainTimes {
            grace,
            duration,
            linger,
            deadline,
        } = DrainTimes::of(&self.config);
        self.metrics.ready.set(0);
        self.readiness.drain();
        self.nodes.set_state(NodeState::Draining);
        let drained = timeout(deadline, async {
            tokio::time::sleep(grace).await;
            self.stop_accepting.cancel();
            let had_clients = self.gateway.connections() > 0;
            self.gateway.drain(duration).await;
            self.clients.finished().await;
            if had_clients {
                // They are on their way to other nodes, which may ask what this one vouches for (L8).
                tokio::time::sleep(linger).await;
            }
            self.sharing.finish().await;
            self.hub.write_marks().await;
            self.reporter.close(self.config.log.ack_timeout).await;
            self.nodes.close().await;
            self.log.close().await;
        });
        if drained.await.is_err() {
            warn!(
                connections = self.gateway.connections(),
                "drain took too long; ending what is left"
            );
        }
        self.background.stop();
        info!(duration_ms = began.elapsed().as_millis(), "drained");
    }

    /// The node's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The nodes of the deployment, as this one sees them.
    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// Who is on its channels.
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// The apps it serves.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    /// The log that it shares with the others.
    pub fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    /// The node's channels.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

struct DrainTimes {
    grace: Duration,
    duration: Duration,
    linger: Duration,
    deadline: Duration,
}

impl DrainTimes {
    fn of(config: &Config) -> Self {
        let drain = &config.drain;
        Self {
            grace: drain.grace,
            duration: drain.duration,
            linger: drain.linger,
            deadline: drain.deadline,
        }
    }
}
