//! Edges: nodes of a deployment, in this process or as the real binary, which can be killed.
//!
//! All have the app `dev` with the namespaces `public` (durable), `few` (durable, three publications
//! a channel), `chat` (durable, subscription tokens) and `live` (ephemeral), and short timings.

mod process;

use std::{net::SocketAddr, sync::Arc};

use slipstream::{
    app::{App, Roles, Running, StartError},
    cluster::Nodes,
    config::{Config, Sources},
    edge::handler::Handler,
    log::Log,
    presence::Presence,
    telemetry::Metrics,
};

pub(crate) use self::process::EdgeProcess;
use super::{logs, within};

const CONFIG: &str = include_str!("edge/edge.toml");

/// The secret that tokens of the app `dev` are signed with.
pub(crate) const TOKEN_SECRET: &[u8] = b"the token secret of the tests: 32 bytes";

/// The API key of the app `dev`.
pub(crate) const API_KEY: &str = "the-api-key-of-the-tests-of-slipstream";

/// What an edge is started with.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    nats: Vec<String>,
    more: String,
    keys: Vec<(String, String)>,
    env: Vec<(String, String)>,
    roles: Roles,
}

/// A node in this process.
pub(crate) struct Edge {
    running: Option<Running>,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Edge {
    /// An edge with the tests' configuration.
    pub(crate) fn builder() -> Builder {
        Builder {
            nats: Vec::new(),
            more: String::new(),
            keys: Vec::new(),
            env: Vec::new(),
            roles: Roles::DATA,
        }
    }

    fn of(running: Running) -> Self {
        Self {
            addr: running.addr,
            running: Some(running),
        }
    }

    /// An edge with the tests' configuration on the servers at `urls`.
    pub(crate) async fn start(urls: &[String]) -> Self {
        Self::builder().nats(urls).start().await
    }

    /// Drains it, as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            within(running.drain()).await;
        }
    }

    /// How many channels have a tail here.
    pub(crate) fn tails(&self) -> usize {
        self.running().hub().tails()
    }

    /// The nodes it sees.
    pub(crate) fn nodes(&self) -> &Arc<Nodes> {
        self.running().nodes()
    }

    /// Who is on its channels.
    pub(crate) fn presence(&self) -> &Arc<Presence> {
        self.running().presence()
    }

    /// Its log.
    pub(crate) fn log(&self) -> &Arc<dyn Log> {
        self.running().hub().log()
    }

    /// Which version of an app it serves, if it does.
    pub(crate) fn app_version(&self, id: &str) -> Option<u64> {
        self.running().apps().get(id).map(|app| app.version)
    }

    /// Its metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        self.running().metrics()
    }

    /// The value of one line of `/metrics`; `series` is the name with all its labels.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(&self.metrics().encode(), series)
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }
}

/// The sum of the lines of a metrics page whose series begins with `series`.
pub(crate) fn metric(page: &str, series: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (!line.starts_with('#') && name.starts_with(series)).then(|| value.parse::<f64>().unwrap())
    });
    values.sum()
}

impl Builder {
    /// The NATS servers it connects to.
    pub(crate) fn nats(mut self, urls: &[String]) -> Self {
        self.nats = urls.to_vec();
        self
    }

    /// Sets a key of the configuration by its path, like `channel.linger`.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets an environment variable of [`Builder::spawn`]'s process.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What it does; clients and backends unless told.
    pub(crate) fn roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        self
    }

    /// Appends to the configuration file: more classes, apps, or namespaces of the app `dev`.
    pub(crate) fn file(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self
    }

    /// Starts it in this process, with an application.
    pub(crate) async fn start_with(self, handler: Arc<dyn Handler>) -> Edge {
        logs::watch();
        let config = self.config();
        let app = App::new(config, self.roles).with_handler(handler);
        Edge::of(within(app.start()).await.unwrap())
    }

    /// Starts it in this process.
    pub(crate) async fn start(self) -> Edge {
        self.try_start().await.unwrap()
    }

    /// The same, where it may refuse.
    pub(crate) async fn try_start(self) -> Result<Edge, StartError> {
        logs::watch();
        let config = self.config();
        let running = within(App::new(config, self.roles).start()).await?;
        Ok(Edge::of(running))
    }

    /// Its configuration, for tests that start parts of a node.
    pub(crate) fn config(&self) -> Config {
        let sources = Sources {
            file: Some(("edge.toml".into(), self.toml())),
            env: Vec::new(),
            overrides: self.keys(),
        };
        Config::load(&sources).unwrap()
    }

    /// Starts the real binary.
    pub(crate) async fn spawn(self) -> EdgeProcess {
        EdgeProcess::spawn(&self.toml(), &self.keys(), self.env.clone(), self.roles).await
    }

    /// Its configuration file.
    pub(crate) fn toml(&self) -> String {
        format!("{CONFIG}\n{}", self.more)
    }

    fn keys(&self) -> Vec<(String, String)> {
        let servers = ("nats.servers".to_owned(), self.nats.join(","));
        std::iter::once(servers)
            .chain(self.keys.iter().cloned())
            .collect()
    }
}
