use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::metric;
use slipstream::app::Roles;

use crate::support::{http, logs, within};

/// The real binary as a child process: `slipstream serve`.
pub(crate) struct EdgeProcess {
    child: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    errors: Arc<Mutex<String>>,
    _folder: TempDir,
}

impl EdgeProcess {
    pub(super) async fn spawn(
        toml: &str,
        keys: &[(String, String)],
        env: Vec<(String, String)>,
        roles: Roles,
    ) -> Self {
        let all = [
            (roles.edge, "edge"),
            (roles.api, "api"),
            (roles.control, "control"),
            (roles.worker, "worker"),
        ];
        let roles: Vec<_> = all
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, role)| *role)
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.toml");
        std::fs::write(&file, toml).unwrap();
        let variables = keys.iter().map(|(key, value)| {
            let name = key.to_ascii_uppercase().replace('.', "__");
            (format!("SLIPSTREAM__{name}"), value)
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_slipstream"))
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .arg("--role")
            .arg(roles.join(","))
            .envs(variables)
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let kept = errors.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let (ready, is_ready) = oneshot::channel();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = ready.send(line);
            let _ = stdout.read_to_string(&mut String::new());
        });
        let line = within(is_ready).await.unwrap();
        let addr = line.trim().strip_prefix("ready http://");
        let Some(addr) = addr else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the edge does not start: {line}{}", errors.lock());
        };
        Self {
            addr: addr.parse().unwrap(),
            child,
            errors,
            _folder: folder,
        }
    }

    /// Kills it (SIGKILL): nothing is flushed, nobody is told.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same while others use it: it is gone at once, or a moment later.
    pub(crate) fn signal_kill(&self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
    }

    /// Stops it in its tracks (SIGSTOP), or lets it go on (SIGCONT).
    pub(crate) fn pause(&self, paused: bool) {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to drain (SIGTERM) and waits until it has ended; its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let pause = std::time::Duration::from_millis(20);
        within(async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(pause).await;
            }
        })
        .await
    }

    /// What it has written to its log.
    pub(crate) fn output(&self) -> String {
        self.errors.lock().clone()
    }

    /// The value of one line of `/metrics`; `series` is the name with all its labels.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let page = http::page(self.addr, "/metrics").await.unwrap();
        metric(&page, series)
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: u64 = line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
        kib * 1024
    }
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A second panic would hide the first.
        if !std::thread::panicking() {
            logs::assert_clean(&self.errors.lock());
        }
    }
}
