//! The composition root: `Config -> App -> Running -> drained`, the same for the binary and for
//! tests.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use crate::{config::Config, task::Tasks, telemetry::Metrics};

const PAGE: &str = include_str!("edge/page/index.html");

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Serves clients: WebSocket, and the chat page.
    pub edge: bool,
    /// Serves backends: REST and the server API.
    pub api: bool,
}

impl Roles {
    /// Everything.
    pub const ALL: Self = Self {
        edge: true,
        api: true,
    };
}

/// A node that has its configuration and holds nothing yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    roles: Roles,
    metrics: Arc<Metrics>,
}

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens: the real port, if the configuration said 0.
    pub addr: SocketAddr,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
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
        source: io::Error,
    },
}

impl App {
    /// Puts a node together from its configuration.
    pub fn build(config: Config, roles: Roles) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        Ok(Self {
            config,
            roles,
            metrics,
        })
    }

    /// Starts it. When this resolves it serves.
    pub async fn start(self) -> Result<Running, StartError> {
        let addr = self.config.http.listen;
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => StartError::AddressTaken(addr),
                _ => StartError::Listen { addr, source },
            })?;
        let addr = listener
            .local_addr()
            .map_err(|source| StartError::Listen { addr, source })?;

        let tasks = Tasks::default();
        let (stop, mut stopped) = watch::channel(false);
        let page = match self.roles.edge {
            true => Router::new().route("/", get(|| async { Html(PAGE) })),
            false => Router::new(),
        };
        let router = page
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(encode_metrics))
            .with_state(Arc::clone(&self.metrics));
        tasks.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "the listener ended");
            }
        });
        self.metrics.ready.set(1);
        Ok(Running {
            addr,
            tasks,
            metrics: self.metrics,
            stop,
        })
    }
}

impl Running {
    /// Stops the intake, finishes what was begun, closes.
    pub async fn drain(self) {
        self.metrics.ready.set(0);
        self.stop.send_replace(true);
        self.tasks.finished().await;
    }
}

async fn readyz(State(metrics): State<Arc<Metrics>>) -> (StatusCode, &'static str) {
    if metrics.ready.get() == 1 {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn encode_metrics(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.encode())
}
