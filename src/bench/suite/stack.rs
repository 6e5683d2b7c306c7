//! The servers of a row: one nats-server and some edges, with data of their own.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::bench::{
    BenchError,
    args::{Api, Common},
    endpoint::Endpoint,
};

/// What everything is measured with; shown in the document.
const CONFIG: &str = include_str!("bench.toml");
/// In [`CONFIG`].
const API_KEY: &str = "bench-0123456789abcdef0123456789";
/// In [`CONFIG`].
const TOKEN_SECRET: &str = "bench-secret-0123456789abcdef0123456789";
/// How long a server may take to serve.
const START: Duration = Duration::from_secs(15);

/// Which programs to start.
pub(in crate::bench) struct Programs {
    pub(in crate::bench) edge: PathBuf,
    pub(in crate::bench) nats: PathBuf,
}

/// Running servers; dropping it ends them and removes their data.
pub(in crate::bench) struct Stack {
    nats: Server,
    edges: Vec<Server>,
    dir: PathBuf,
    config: &'static str,
}

struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // The edges first, or they would complain that NATS has gone.
        self.edges.clear();
        let _ = self.nats.child.kill();
        let _ = self.nats.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Stack {
    /// Starts a nats-server and `edges` edges with their data in `dir`, and waits until they serve.
    pub(super) fn start(programs: &Programs, dir: PathBuf, edges: usize) -> Result<Self, BenchError> {
        Self::start_with(programs, dir, edges, CONFIG)
    }

    /// The same with another configuration, which has the same addresses.
    pub(in crate::bench) fn start_with(
        programs: &Programs,
        dir: PathBuf,
        edges: usize,
        config: &'static str,
    ) -> Result<Self, BenchError> {
        fs::create_dir_all(&dir)?;
        let addr = free_address()?;
        let port = addr.port().to_string();
        let mut command = Command::new(&programs.nats);
        command
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port,
                "--jetstream",
                "--store_dir",
            ])
            .arg(dir.join("nats"));
        let mut stack = Self {
            nats: spawn(command, addr, &dir.join("nats.log"))?,
            edges: Vec::new(),
            dir,
            config,
        };
        let log = stack.dir.join("nats.log");
        stack
            .nats
            .wait(&log, |_| TcpStream::connect(addr).is_ok().then_some(addr))?;
        for i in 0..edges {
            let config = stack.dir.join(format!("edge-{i}.toml"));
            fs::write(&config, stack.config())?;
            let log = stack.dir.join(format!("edge-{i}.log"));
            let mut command = Command::new(&programs.edge);
            command.arg("serve").arg("--config").arg(config);
            let mut edge = spawn(command, (Ipv4Addr::LOCALHOST, 0).into(), &log)?;
            edge.wait(&log, ready)?;
            stack.edges.push(edge);
        }
        Ok(stack)
    }

    fn config(&self) -> String {
        self.config
            .replace("127.0.0.1:8000", "127.0.0.1:0")
            .replace("127.0.0.1:4222", &self.nats.addr.to_string())
    }

    /// Points a benchmark at these servers. Memory is the edges'; CPU is everybody's.
    pub(super) fn aim(&self, common: &mut Common, edges_only: bool) -> Result<(), BenchError> {
        let targets = self
            .edges
            .iter()
            .map(|edge| format!("ws://{}/connection/websocket", edge.addr).parse::<Endpoint>());
        common.target = targets.collect::<Result<_, _>>().map_err(BenchError::Usage)?;
        common.api = Api::Centrifugo;
        API_KEY.clone_into(&mut common.api_key);
        common.token_secret = Some(TOKEN_SECRET.to_owned());
        "bench:".clone_into(&mut common.prefix);
        common.server_pid = self.edges.iter().map(|edge| edge.child.id()).collect();
        if !edges_only {
            common.server_pid.push(self.nats.child.id());
        }
        Ok(())
    }

    /// Where the first edge takes requests.
    pub(in crate::bench) fn edge(&self) -> Result<Endpoint, String> {
        let edge = self.edges.first().ok_or("no edge")?;
        format!("http://{}/", edge.addr).parse()
    }

    /// The address of the nats-server.
    pub(super) fn nats(&self) -> String {
        self.nats.addr.to_string()
    }
}

impl Server {
    /// Waits until `serves` finds out where, from what the server has written; an error says what
    /// that was last.
    fn wait(&mut self, log: &Path, serves: impl Fn(&str) -> Option<SocketAddr>) -> Result<(), BenchError> {
        let begin = Instant::now();
        loop {
            let ended = self.child.try_wait()?.is_some();
            let text = fs::read_to_string(log).unwrap_or_default();
            if let (false, Some(addr)) = (ended, serves(&text)) {
                self.addr = addr;
                return Ok(());
            }
            if ended || begin.elapsed() > START {
                let last = text.lines().last().unwrap_or("it wrote nothing");
                return Err(BenchError::Process(format!("a server does not serve: {last}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The address in an edge's line `ready http://ADDR`.
fn ready(log: &str) -> Option<SocketAddr> {
    log.lines()
        .find_map(|line| line.strip_prefix("ready http://")?.trim().parse().ok())
}

fn spawn(mut command: Command, addr: SocketAddr, log: &Path) -> Result<Server, BenchError> {
    let log = File::create(log)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|e| BenchError::process(&command.get_program().to_string_lossy(), &e))?;
    Ok(Server { child, addr })
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr, BenchError> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_keys_that_are_used() {
        let config: toml::Table = CONFIG.parse().unwrap();
        let app = &config["apps"][0];
        assert_eq!(app["api_keys"][0].as_str(), Some(API_KEY));
        assert_eq!(app["auth"]["hmac_secret"].as_str(), Some(TOKEN_SECRET));
        assert_eq!(config["http"]["listen"].as_str(), Some("127.0.0.1:8000"));
        assert_eq!(
            config["nats"]["servers"][0].as_str(),
            Some("nats://127.0.0.1:4222")
        );
    }

    #[test]
    fn an_edge_says_where_it_serves() {
        assert_eq!(
            ready("INFO x\nready http://127.0.0.1:81\n"),
            Some(SocketAddr::from(([127, 0, 0, 1], 81)))
        );
        assert_eq!(ready("ready http://127.0"), None);
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 1"]);
        let mut server = spawn(command, free_address().unwrap(), &log).unwrap();
        let error = server.wait(&log, ready).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
}
