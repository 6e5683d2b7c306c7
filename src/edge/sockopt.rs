//! What is asked of the kernel for listening and client sockets.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::config::EdgeConfig;

/// Options of a client socket that has become a websocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// `SO_SNDBUF`, bytes; 0 = the system's (which then grows it by itself).
    pub send_buffer: usize,
    /// `TCP_NOTSENT_LOWAT`, bytes; 0 = off.
    pub notsent_lowat: u32,
}

impl From<&EdgeConfig> for ClientOptions {
    fn from(config: &EdgeConfig) -> Self {
        Self {
            send_buffer: config.send_buffer,
            notsent_lowat: config.notsent_lowat,
        }
    }
}

impl ClientOptions {
    /// Applies them, and `TCP_NODELAY`: the write path gathers by itself, and a publication must
    /// not wait for an acknowledgement of the one before.
    ///
    /// The two limits bound what a slow reader holds in the kernel, where it counts against nobody
    /// and is too late to be taken back.
    ///
    /// # Errors
    /// The kernel's, in practice that the connection is gone.
    pub fn apply(self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        socket.set_tcp_nodelay(true)?;
        if self.send_buffer > 0 {
            socket.set_send_buffer_size(self.send_buffer)?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.notsent_lowat > 0 {
            socket.set_tcp_notsent_lowat(self.notsent_lowat)?;
        }
        Ok(())
    }
}

/// A listening socket. `backlog` connections may wait to be accepted; the system's own limit
/// (`net.core.somaxconn`) caps it. `[::]` listens on IPv4 too.
///
/// # Errors
/// The kernel's: the address is taken, not of this machine, or not allowed.
pub(super) fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restarted node gets its port back though old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}
