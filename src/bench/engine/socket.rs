//! Outgoing sockets, more of them than one source address has ports.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::bench::payload::now_us;

/// Connections from one source address to one server: the ephemeral range has 28,000 ports.
const PER_SOURCE: usize = 10_000;

/// Begins to connect the `index`th socket of an engine, from its `net`.
pub(super) fn connect(addr: SocketAddr, net: u16, index: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if addr.ip().is_loopback() && addr.is_ipv4() {
        let source = SocketAddr::new(source(net, index), 0);
        socket.bind(&source.into())?;
    }
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(e) => return Err(e),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Which source addresses an engine uses. One after the other must not meet: the ports of closed
/// connections stay taken for a minute (TIME-WAIT).
pub(super) fn any_net() -> u16 {
    let seed = u64::from(std::process::id()) << 32 ^ now_us();
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

/// `127.net.net.2` and up.
fn source(net: u16, index: usize) -> IpAddr {
    let [high, low] = net.to_be_bytes();
    let host = (index / PER_SOURCE) % 250 + 2;
    Ipv4Addr::new(127, high, low, u8::try_from(host).unwrap_or(2)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_address_is_used_for_too_many_sockets() {
        assert_eq!(source(0, 0), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(source(0, PER_SOURCE - 1), source(0, 0));
        assert_eq!(source(0, PER_SOURCE), IpAddr::from([127, 0, 0, 3]));
        assert_eq!(source(0x0102, 0), IpAddr::from([127, 1, 2, 2]));
    }
}
