//! Outgoing sockets, more of them than one source address has ports.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections from one source address to one server: the ephemeral range has 28,000 ports.
const PER_SOURCE: usize = 10_000;

/// Begins to connect the `index`th socket of process `process`.
pub(super) fn connect(addr: SocketAddr, process: u8, index: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if addr.ip().is_loopback() && addr.is_ipv4() {
        let source = SocketAddr::new(source(process, index), 0);
        socket.bind(&source.into())?;
    }
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(e) => return Err(e),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// 127.0.0.2 and up; each process of a run has a range of its own.
fn source(process: u8, index: usize) -> IpAddr {
    let host = (index / PER_SOURCE) % 250 + 2;
    Ipv4Addr::new(127, 0, process, u8::try_from(host).unwrap_or(2)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_address_is_used_by_two_processes_or_for_too_many_sockets() {
        assert_eq!(source(0, 0), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(source(0, PER_SOURCE - 1), source(0, 0));
        assert_eq!(source(0, PER_SOURCE), IpAddr::from([127, 0, 0, 3]));
        assert_eq!(source(3, 0), IpAddr::from([127, 0, 3, 2]));
    }
}
