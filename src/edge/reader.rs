//! The read half of a connection: one system call for what one wake-up has brought.

use std::io::{self, Read as _};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

/// Reads what the socket has, at most a buffer full. `None` if there is nothing; 0 is its end.
///
/// A read that does not fill the buffer has drained a stream socket (epoll(7)), so the runtime is
/// told at once, and not by a second read that finds nothing: for a client that sends one command at
/// a time, every other read would be of that kind. What comes after the read wakes as always.
pub(super) fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut taken = None;
    let tried = stream.try_io(Interest::READABLE, || {
        let len = (&*SockRef::from(stream)).read(buffer)?;
        taken = Some(len);
        if matches!(len, 1..) && len < buffer.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match tried {
        Err(error) if taken.is_none() && error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(taken),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// Reads until there is nothing, then waits, until `wanted` bytes or the end have come.
    async fn read_on(stream: &TcpStream, buffer: &mut [u8], wanted: usize) -> (usize, bool) {
        let mut got = 0;
        while got < wanted {
            timeout(PATIENCE, stream.readable()).await.unwrap().unwrap();
            match read(stream, buffer).unwrap() {
                Some(0) => return (got, true),
                Some(len) => got += len,
                None => {}
            }
        }
        (got, false)
    }

    #[tokio::test]
    async fn nothing_is_overlooked_however_it_comes() {
        let (mut client, server) = pair().await;
        let mut buffer = [0; 8];
        for len in [1, 7, 8, 9, 16, 17, 3] {
            client.write_all(&vec![b'x'; len]).await.unwrap();
            assert_eq!(read_on(&server, &mut buffer, len).await, (len, false), "{len}");
        }
        assert_eq!(read(&server, &mut buffer).unwrap(), None);
    }

    #[tokio::test]
    async fn the_end_is_found_behind_a_short_read() {
        let (mut client, server) = pair().await;
        client.write_all(b"bye").await.unwrap();
        drop(client);
        let mut buffer = [0; 8];
        assert_eq!(read_on(&server, &mut buffer, usize::MAX).await, (3, true));
    }
}
