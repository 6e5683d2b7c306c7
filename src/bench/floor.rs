//! The floor: the same work with nothing in the way, in a process of its own.

mod server;

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
};

use socket2::{Domain, Socket, Type};

use super::{
    BenchError,
    args::{Api, Common, FloorServerArgs},
    endpoint::Endpoint,
};

/// What a reconnect storm needs; more is cut down by the kernel.
const BACKLOG: i32 = 4096;

/// Measures the floor alone.
pub(crate) fn instead(common: &mut Common) {
    common.target.clear();
    common.with_floor = true;
}

/// The broadcaster in a child process of the same program. It ends with this value.
pub(crate) struct FloorProcess {
    child: Child,
    addr: SocketAddr,
}

impl FloorProcess {
    /// Starts it and waits until it serves.
    pub(crate) fn start(coalesce: bool, history: u32) -> Result<Self, BenchError> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args(["bench", "floor-server", "--history", &history.to_string()]);
        if coalesce {
            command.arg("--coalesce");
        }
        // The child ends when its standard input does: also if this process is killed.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line
            .trim()
            .strip_prefix("ready ")
            .and_then(|addr| addr.parse().ok())
        {
            Some(addr) => Ok(Self { child, addr }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(BenchError::Process("the floor server did not start".into()))
            }
        }
    }

    /// The same options, with the floor as the server.
    pub(crate) fn common(&self, common: &Common) -> Result<Common, BenchError> {
        Ok(Common {
            server_pid: vec![self.child.id()],
            ..toward(self.addr, common)?
        })
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The options of a run against a floor at `addr`.
fn toward(addr: SocketAddr, common: &Common) -> Result<Common, BenchError> {
    let target: Endpoint = format!("ws://{addr}/connection/websocket")
        .parse()
        .map_err(BenchError::Usage)?;
    Ok(Common {
        http: Some(target.with_path("/")),
        target: vec![target],
        api: Api::Centrifugo,
        api_key: String::new(),
        token_secret: None,
        app: None,
        server_pid: Vec::new(),
        ..common.clone()
    })
}

/// `bench floor-server`: serves until standard input ends.
pub(crate) fn serve_child(args: &FloorServerArgs) -> Result<(), BenchError> {
    let listener = listen()?;
    super::report::io_out(&format!("ready {}\n", listener.local_addr()?))?;
    let alive = std::io::stdin().as_fd().try_clone_to_owned()?;
    server::Server::new(listener, alive, args)?.run()?;
    Ok(())
}

fn listen() -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A floor in a thread, for tests; ends when the returned pipe is dropped.
#[cfg(test)]
pub(crate) fn in_thread(args: FloorServerArgs, common: &Common) -> (Common, std::io::PipeWriter) {
    let listener = listen().unwrap();
    let common = toward(listener.local_addr().unwrap(), common).unwrap();
    let (alive, keep) = std::io::pipe().unwrap();
    std::thread::spawn(move || {
        server::Server::new(listener, alive.into(), &args)
            .unwrap()
            .run()
            .unwrap();
    });
    (common, keep)
}
