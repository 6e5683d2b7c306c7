//! `slipstream dev`: everything on one machine, with nothing to set up. A child nats-server keeps
//! its store in the data folder; one app, `dev`, has three namespaces to play with.

mod config;
mod data_dir;
mod nats_binary;
mod nats_server;

use std::{
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use crate::{
    app::{App, Roles, StartError},
    config::Config,
};

pub use config::{APP, DevKeys, config, use_control};
pub use data_dir::{DataDir, DataDirError};
pub use nats_binary::{NatsBinary, NatsBinaryError};
pub use nats_server::{NatsServer, NatsServerError};

/// Why `slipstream dev` did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// There is no nats-server that will do.
    #[error(transparent)]
    NatsBinary(#[from] NatsBinaryError),
    /// The nats-server did not start.
    #[error(transparent)]
    NatsServer(#[from] NatsServerError),
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The nats-server ended while it was needed.
    #[error("the nats-server ended by itself ({status}); its log is {}", log.display())]
    NatsEnded {
        /// How.
        status: ExitStatus,
        /// Where it says why.
        log: PathBuf,
    },
    /// Standard output is gone.
    #[error("cannot print: {0}")]
    Print(#[source] io::Error),
}

/// Runs until `stop` resolves, then drains. `nats_server` is the one to run, instead of looking for
/// one.
pub async fn run(
    config: Config,
    data_dir: &DataDir,
    nats_server: Option<&Path>,
    stop: impl Future<Output = ()>,
) -> Result<(), DevError> {
    let binary = NatsBinary::find(nats_server).await?;
    let mut nats = NatsServer::start(&binary, &data_dir.path().join("nats")).await?;
    let served = serve(config, data_dir, &mut nats, stop).await;
    nats.stop().await;
    served
}

async fn serve(
    mut config: Config,
    data_dir: &DataDir,
    nats: &mut NatsServer,
    stop: impl Future<Output = ()>,
) -> Result<(), DevError> {
    config::use_nats(&mut config, nats);
    let running = App::new(config, Roles::ALL).start().await?;
    announce(running.addr, data_dir, nats).map_err(DevError::Print)?;
    tokio::select! {
        () = stop => {
            running.drain().await;
            Ok(())
        }
        status = nats.ended() => Err(DevError::NatsEnded { status, log: nats.log_file() }),
    }
}

/// Tells a person what is where. The last line is the one that scripts wait for.
fn announce(addr: SocketAddr, data_dir: &DataDir, nats: &NatsServer) -> io::Result<()> {
    let dir = data_dir.path().display();
    let mut out = io::stdout().lock();
    writeln!(out, "slipstream {} (Ctrl-C stops it)", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  chat page   http://{addr}/")?;
    writeln!(out, "  WebSocket   ws://{addr}/connection/websocket")?;
    writeln!(
        out,
        "  REST        http://{addr}/v1/channels/public:lobby/publications"
    )?;
    writeln!(out, "  API key     {dir}/api-key (unless --dev-key is given)")?;
    writeln!(
        out,
        "  token key   {dir}/token-secret (HS256, for `chat:` channels)"
    )?;
    writeln!(
        out,
        "  control     http://{addr}/v1/openapi.json (accounts, teams, apps)"
    )?;
    writeln!(out, "  operator    {dir}/operator-key; letters go to {dir}/mail")?;
    writeln!(out, "  NATS        {} ({})", nats.url(), nats.version())?;
    writeln!(out, "ready http://{addr}")?;
    out.flush()
}
