//! A server that speaks MongoDB's protocol, as a child process: started, stopped, killed, frozen, brought
//! back. It has its own folder and port, which outlive a restart; all is gone when it is dropped.

use std::{
    future::IntoFuture,
    path::{Path, PathBuf},
    pin::pin,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use mongodb::{Client, bson::doc, options::ClientOptions};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{PATIENCE, child::ServerProcess, nats::free_port};

/// How often another port is tried when the one found was taken in between.
const ATTEMPTS: u32 = 5;

/// Between two questions whether it answers.
const AGAIN: Duration = Duration::from_millis(20);

pub(crate) struct Mongowire {
    folder: TempDir,
    port: u16,
    process: ServerProcess,
    databases: AtomicU32,
}

impl Mongowire {
    pub(crate) async fn start() -> Self {
        let mut server = Self {
            folder: tempfile::tempdir().unwrap(),
            port: 0,
            process: ServerProcess::default(),
            databases: AtomicU32::new(0),
        };
        for _ in 0..ATTEMPTS {
            server.port = free_port();
            if server.spawn().await {
                return server;
            }
        }
        panic!("mongowire does not start:\n{}", server.output());
    }

    /// The URL of a database that nobody has used before.
    pub(crate) fn fresh_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        format!("mongodb://127.0.0.1:{}/test_{number}", self.port)
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
        if self.process.is_running() {
            self.stop().await;
        }
        assert!(
            self.spawn().await,
            "mongowire does not start again:\n{}",
            self.output()
        );
    }

    /// Freezes it (SIGSTOP): connections stay, nothing answers.
    pub(crate) fn pause(&self) {
        assert!(self.process.pause(), "mongowire has ended:\n{}", self.output());
    }

    /// Thaws it.
    pub(crate) fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts the process and waits until it answers; false if it ends before.
    async fn spawn(&mut self) -> bool {
        let log = std::fs::File::create(self.log()).unwrap();
        let child = Command::new(binary())
            .arg(format!("127.0.0.1:{}", self.port))
            .arg(self.folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("mongowire cannot be run: set SLIPSTREAM_MONGOWIRE to what `scripts/mongowire` prints");
        self.process.began(child);
        let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        let mut options = ClientOptions::parse(url).await.unwrap();
        options.server_selection_timeout = Some(PATIENCE);
        let client = Client::with_options(options).unwrap();
        let database = client.database("admin");
        let mut answered = pin!(database.run_command(doc! { "ping": 1 }).into_future());
        loop {
            match tokio::time::timeout(AGAIN, &mut answered).await {
                Ok(answer) => return answer.is_ok(),
                Err(_) if self.process.has_ended() => return false,
                Err(_) => {}
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }
}

/// From the environment, or from this repository's cache.
fn binary() -> PathBuf {
    std::env::var_os("SLIPSTREAM_MONGOWIRE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/mongowire/mongowire"),
        PathBuf::from,
    )
}
