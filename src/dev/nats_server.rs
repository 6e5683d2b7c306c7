//! The child nats-server of `slipstream dev`.
//!
//! It never outlives its parent for long, however that ends: a watchdog (three lines of shell)
//! holds the reading end of a pipe whose writing end is ours, and stops the server when the pipe
//! closes. And a server never starts on a store that an earlier one still writes: each holds the
//! lock of its store as its standard input, which the kernel releases when it is gone.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{data_dir::random_secret, nats_binary::NatsBinary};
use crate::config::Secret;

const CONFIG: &str = include_str!("../../nats/single.conf");

/// How long an earlier server on the same store may take to end.
const PREDECESSOR: Duration = Duration::from_secs(15);

/// How long a server may take to be ready: it reads its store first.
const READY: Duration = Duration::from_secs(60);

/// How long it may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// How often files of the server are looked at while it starts.
const POLL: Duration = Duration::from_millis(10);

/// A running nats-server with JetStream, on a free port of the loopback interface.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    watchdog: Child,
    dir: PathBuf,
    url: String,
    token: Secret,
    version: String,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum NatsServerError {
    /// Its folder cannot be written.
    #[error("cannot prepare the nats-server's folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An earlier one is still there.
    #[error("the nats-server of an earlier run still uses {}: stop it", .0.display())]
    Predecessor(PathBuf),
    /// It could not be executed.
    #[error("cannot start the nats-server: {0}")]
    Spawn(#[source] io::Error),
    /// It ended at once.
    #[error("the nats-server did not start ({status}): {reason}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last thing it said.
        reason: String,
    },
    /// It was not ready in time.
    #[error("the nats-server was not ready within {} s; its log is {}", READY.as_secs(), .0.display())]
    NotReady(PathBuf),
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Starts `binary` with its store in `dir` and waits until it is ready.
    pub async fn start(binary: &NatsBinary, dir: &Path) -> Result<Self, NatsServerError> {
        let folder_error = |source| NatsServerError::Folder {
            path: dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(folder_error)?;
        let lock = lock(dir).await?;
        remove_ports_files(dir).map_err(folder_error)?;
        fs::write(dir.join("server.conf"), CONFIG).map_err(folder_error)?;
        let complaints = File::create(dir.join("start.log")).map_err(folder_error)?;
        let token = random_secret().map_err(folder_error)?;

        let mut command = Command::new(&binary.path);
        command
            .args(["--addr", "127.0.0.1", "--port", "-1"])
            .arg("--config")
            .arg(dir.join("server.conf"))
            .arg("--store_dir")
            .arg(dir)
            .arg("--ports_file_dir")
            .arg(dir)
            .arg("--log")
            .arg(dir.join("server.log"))
            .env("SLIPSTREAM_NATS_TOKEN", token.expose())
            .stdin(lock)
            .stdout(Stdio::null())
            .stderr(complaints)
            // Its own process group: Ctrl-C in a terminal reaches us alone, and we drain first.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(NatsServerError::Spawn)?;
        let watchdog = watch(&child).map_err(NatsServerError::Spawn)?;
        let url = ready(&mut child, dir).await?;
        Ok(Self {
            child,
            watchdog,
            dir: dir.to_owned(),
            url,
            token,
            version: binary.version.clone(),
        })
    }

    /// Where it listens for clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What a client must present.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// What it says it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it logs.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Resolves when it has ended by itself. Cancel safe.
    pub async fn ended(&mut self) -> ExitStatus {
        // Waiting for a child of one's own fails only if someone else has collected it.
        self.child.wait().await.unwrap_or_default()
    }

    /// Stops it and waits until it is gone.
    pub async fn stop(mut self) {
        signal(&self.child, Signal::TERM);
        if timeout(STOP, self.child.wait()).await.is_err() {
            tracing::warn!("the nats-server did not stop in time and is killed");
            let _ = self.child.kill().await;
        }
        // While its pipe is open the watchdog does nothing, so it cannot hit a stranger that got
        // the server's process id.
        let _ = self.watchdog.kill().await;
    }
}

/// Takes the lock of the store, waiting for a server of an earlier run that is on its way out.
async fn lock(dir: &Path) -> Result<File, NatsServerError> {
    let path = dir.join("lock");
    let open = || -> io::Result<File> {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
    };
    let folder_error = |source| NatsServerError::Folder {
        path: path.clone(),
        source,
    };
    let file = open().map_err(folder_error)?;
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(folder_error(source)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
            Err(TryLockError::WouldBlock) => return Err(NatsServerError::Predecessor(dir.to_owned())),
        }
    }
}

fn remove_ports_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ports") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Starts the watchdog of `child`.
fn watch(child: &Child) -> io::Result<Child> {
    let id = child.id().unwrap_or_default().to_string();
    Command::new("/bin/sh")
        .args(["-c", "read -r _; kill -TERM \"$1\"", "slipstream-watchdog", &id])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the file in which a server that is ready tells its port.
async fn ready(child: &mut Child, dir: &Path) -> Result<String, NatsServerError> {
    let deadline = Instant::now() + READY;
    loop {
        if let Some(url) = client_url(dir) {
            return Ok(url);
        }
        if let Ok(Some(status)) = child.try_wait() {
            let reason = last_words(dir);
            return Err(NatsServerError::Ended { status, reason });
        }
        if Instant::now() > deadline {
            return Err(NatsServerError::NotReady(dir.join("server.log")));
        }
        sleep(POLL).await;
    }
}

/// The client URL in the ports file; `None` while that is not there or not complete.
fn client_url(dir: &Path) -> Option<String> {
    let file = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let ports: Ports = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ports.nats.into_iter().next()
}

/// The last line that a server which did not start left on its standard error or in its log.
fn last_words(dir: &Path) -> String {
    ["start.log", "server.log"]
        .into_iter()
        .filter_map(|name| fs::read_to_string(dir.join(name)).ok())
        .find_map(|text| {
            let line = text.lines().rfind(|line| !line.trim().is_empty())?;
            Some(line.trim().to_owned())
        })
        .unwrap_or_else(|| "it said nothing".to_owned())
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // It fails only if the process has ended already, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}
