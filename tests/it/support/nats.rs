//! Real nats-servers as child processes: started, stopped, killed, frozen, brought back. Each has
//! its own JetStream folder and port, which outlive a restart; all is gone when it is dropped.

mod account;
mod cluster;
mod jetstream;
mod log;

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) use self::{
    account::Operator,
    cluster::Cluster,
    jetstream::{SHARDS, WITH_SYSTEM_ACCOUNT},
    log::{TestLog, class, fresh_log, log_config, nats_config},
};
use super::{child::ServerProcess, within};

/// How often another port is tried when the one found was taken in between.
const ATTEMPTS: u32 = 5;

/// One nats-server.
pub(crate) struct NatsServer {
    folder: TempDir,
    port: u16,
    config: String,
    process: ServerProcess,
    output: Arc<Mutex<Vec<String>>>,
}

impl NatsServer {
    /// A server on its own, with JetStream in a fresh folder.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with more lines of server configuration.
    pub(crate) async fn start_with(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "jetstream {{ store_dir: {:?} }}\n{lines}\n",
            folder.path().join("js")
        );
        Self::launch(folder, config).await
    }

    /// A server on its own, without JetStream.
    pub(crate) async fn start_without_jetstream() -> Self {
        Self::launch(tempfile::tempdir().unwrap(), String::new()).await
    }

    async fn launch(folder: TempDir, config: String) -> Self {
        let mut server = Self {
            folder,
            port: 0,
            config,
            process: ServerProcess::default(),
            output: Arc::default(),
        };
        for _ in 0..ATTEMPTS {
            server.port = free_port();
            if server.spawn().await {
                return server;
            }
        }
        panic!("nats-server does not start:\n{}", server.output());
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it keeps its streams.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.folder.path().join("js")
    }

    /// What it has written to its log.
    pub(crate) fn output(&self) -> String {
        self.output.lock().join("\n")
    }

    /// Whether the process is there (it may be paused).
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.process.end(Signal::TERM).await;
    }

    /// Kills it (SIGKILL).
    pub(crate) async fn kill(&mut self) {
        self.process.end(Signal::KILL).await;
    }

    /// Starts it again, on the same port and folder, after stopping it if it runs.
    pub(crate) async fn restart(&mut self) {
        if self.is_running() {
            self.stop().await;
        }
        assert!(
            self.spawn().await,
            "nats-server does not start again:\n{}",
            self.output()
        );
    }

    /// Freezes it (SIGSTOP): connections stay, nothing answers. When this returns, all its threads
    /// have stopped.
    pub(crate) fn pause(&self) {
        assert!(self.process.pause(), "nats-server has ended:\n{}", self.output());
    }

    /// Thaws it.
    pub(crate) fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Lame duck mode: it gives up its leaderships and asks its clients to go.
    pub(crate) fn lame_duck(&self) {
        self.process.signal(Signal::USR2);
    }

    /// Starts the process and waits until it says that it is ready; false if it ends before.
    async fn spawn(&mut self) -> bool {
        let file = self.folder.path().join("server.conf");
        let config = format!("host: 127.0.0.1\nport: {}\n{}", self.port, self.config);
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(binary())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server cannot be run: set SLIPSTREAM_NATS_SERVER");
        let log = child.stderr.take().unwrap();
        let (ready, is_ready) = oneshot::channel();
        let output = self.output.clone();
        std::thread::spawn(move || {
            let mut ready = Some(ready);
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains("Server is ready")
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send(());
                }
                output.lock().push(line);
            }
        });
        // The sender goes away with the process.
        let started = within(is_ready).await.is_ok();
        if started {
            self.process.began(child);
        } else {
            let _ = child.wait();
        }
        started
    }
}

/// A port that nobody listens on now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The server's binary: from the environment, from this repository's cache, or from PATH.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SLIPSTREAM_NATS_SERVER") {
        return path.into();
    }
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/nats-server/bin/nats-server");
    if cached.exists() {
        cached
    } else {
        "nats-server".into()
    }
}
