//! What the kernel holds of what it was given for a client, and what the client's side has
//! acknowledged: only the second says whether somebody who reads slowly still reads.
//!
//! Asked by `NETLINK_SOCK_DIAG` (`man 7 sock_diag`), because the ioctl and the socket option that
//! tell the same need unsafe code. One question costs a few microseconds, and is put at most now and
//! then: when a ping or its pong is due, and while a socket takes no more.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// The state of a client's send queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendQueue {
    /// Bytes that the other side has acknowledged since the connection began.
    pub(super) acknowledged: u64,
    /// Bytes that it has not: on their way, or waiting for room at the other side.
    pub(super) waiting: u32,
}

/// `AF_NETLINK` and its protocol `NETLINK_SOCK_DIAG`.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
/// The question, and the type of its answer (`linux/sock_diag.h`).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// `linux/inet_diag.h`: the answer is to have a `tcp_info`.
const INET_DIAG_INFO: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Lengths of `nlmsghdr`, `inet_diag_req_v2`, `inet_diag_msg` and `nlattr`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
const ATTRIBUTE: usize = 4;
/// Of `idiag_wqueue` in `inet_diag_msg`, and of `tcpi_bytes_acked` in `tcp_info`.
const WQUEUE: usize = 60;
const BYTES_ACKED: usize = 120;

impl SendQueue {
    /// Of an established connection.
    ///
    /// # Errors
    /// The kernel's: it was built without this interface, or the connection is gone. Always on
    /// another system than Linux.
    pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
        let request = request(stream.local_addr()?, stream.peer_addr()?);
        let mut socket = Socket::new(
            Domain::from(AF_NETLINK),
            Type::DGRAM.nonblocking(),
            Some(Protocol::from(NETLINK_SOCK_DIAG)),
        )?;
        socket.send(&request)?;
        // The kernel has answered when the send returns.
        let mut answer = [0; 2_048];
        let len = socket.read(&mut answer)?;
        read(&answer[..len]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let (family, interface) = match local {
        SocketAddr::V4(_) => (AF_INET, 0),
        SocketAddr::V6(address) => (AF_INET6, address.scope_id()),
    };
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(u32::try_from(HEADER + REQUEST).unwrap_or(0).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and sender are of no use: the socket puts one question.
    bytes.extend([0; 8]);
    let extensions = 1 << (INET_DIAG_INFO - 1);
    bytes.extend([family, IPPROTO_TCP, extensions, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    for address in [local.ip(), peer.ip()] {
        let mut field = [0; 16];
        match address {
            IpAddr::V4(address) => field[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => field = address.octets(),
        }
        bytes.extend(field);
    }
    bytes.extend(interface.to_ne_bytes());
    // Any incarnation of these two addresses.
    bytes.extend([u8::MAX; 8]);
    bytes
}

fn read(answer: &[u8]) -> Option<SendQueue> {
    if u16_at(answer, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let message = answer.get(HEADER..)?;
    let waiting = u32_at(message, WQUEUE)?;
    let mut attributes = message.get(MESSAGE..)?;
    loop {
        let len = usize::from(u16_at(attributes, 0)?);
        if u16_at(attributes, 2)? == INET_DIAG_INFO {
            let info = attributes.get(ATTRIBUTE..len)?;
            let acknowledged = info.get(BYTES_ACKED..BYTES_ACKED + 8)?;
            let acknowledged = u64::from_ne_bytes(acknowledged.try_into().ok()?);
            return Some(SendQueue {
                acknowledged,
                waiting,
            });
        }
        attributes = attributes.get(len.max(ATTRIBUTE).next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn says_what_the_other_side_has_taken_by_any_family() {
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let Ok(listener) = TcpListener::bind(listen).await else {
                // A machine without IPv6.
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let (client, accepted) = tokio::join!(TcpStream::connect((connect, port)), listener.accept());
            let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
            let none = SendQueue {
                acknowledged: 0,
                waiting: 0,
            };
            assert_eq!(SendQueue::of(&server).unwrap(), none, "{listen}");

            server.write_all(b"hello").await.unwrap();
            client.read_exact(&mut [0; 5]).await.unwrap();
            let after = SendQueue::of(&server).unwrap();
            assert_eq!(after.acknowledged + u64::from(after.waiting), 5, "{listen}");

            // More than the other side takes without being read.
            let mut given = 5;
            loop {
                match server.try_write(&[0; 65_536]) {
                    Ok(taken) => given += taken as u64,
                    Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            let stuck = SendQueue::of(&server).unwrap();
            assert!(stuck.waiting > 0, "{listen}");
            assert_eq!(stuck.acknowledged + u64::from(stuck.waiting), given, "{listen}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_none() {
        let mut refused = [0; 36];
        refused[4] = 2;
        for answer in [&[][..], &[0; 15], &refused, &[20; 200]] {
            assert_eq!(read(answer), None, "{answer:?}");
        }
        let mut endless = vec![0; HEADER + MESSAGE + 8];
        endless[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert_eq!(read(&endless), None);
    }
}
