//! An echo server on the codec, and how tests wait for it.

use std::{future::Future, io, time::Duration};

use slipstream::edge::websocket::{Decoder, Event, Opcode, encoder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest message that the echo server takes.
pub(crate) const LIMIT: usize = 1 << 20;

/// The text that makes the server close with 3001, "drain".
pub(crate) const CLOSE_PLEASE: &str = "close, please";

/// Patience, not a measure: fails a test that would hang.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("this should have happened by now")
}

/// Echoes until the connection ends. `leftover` is what came with the upgrade request.
pub(crate) async fn echo<S>(mut stream: S, leftover: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut decoder = Decoder::new(LIMIT);
    let mut closing = false;
    let mut scratch = vec![0; 4_096.max(leftover.len())];
    scratch[..leftover.len()].copy_from_slice(leftover);
    let mut len = leftover.len();
    loop {
        let mut out = Vec::new();
        let mut input = &mut scratch[..len];
        let ended = loop {
            match decoder.next(&mut input) {
                Ok(None) => break false,
                Ok(Some(Event::Text(CLOSE_PLEASE))) => {
                    closing = true;
                    out.extend(encoder::close(3001, "drain"));
                }
                Ok(Some(Event::Text(text))) => {
                    out.extend(encoder::frame(Opcode::Text, text.as_bytes()));
                }
                Ok(Some(Event::Binary(bytes))) => out.extend(encoder::frame(Opcode::Binary, bytes)),
                Ok(Some(Event::Ping(payload))) => out.extend(encoder::pong(payload)),
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { code, .. })) => {
                    match code {
                        _ if closing => {}
                        Some(code) => out.extend(encoder::close(code, "")),
                        None => out.extend(encoder::close_without_code()),
                    }
                    break true;
                }
                Err(error) => {
                    out.extend(encoder::close(error.close_code(), &error.to_string()));
                    break true;
                }
            }
        };
        stream.write_all(&out).await?;
        if ended {
            stream.shutdown().await?;
            // What is unread would reset the connection and take the close frame with it.
            return tokio::io::copy(&mut stream, &mut tokio::io::sink())
                .await
                .map(|_| ());
        }
        len = stream.read(&mut scratch).await?;
        if len == 0 {
            return Ok(());
        }
    }
}

/// The code of a server's close frame with which `bytes` end.
pub(crate) fn close_code(bytes: &[u8]) -> Option<u16> {
    match *bytes {
        [0x88, len, high, low, ref reason @ ..] if usize::from(len) == 2 + reason.len() => {
            Some(u16::from_be_bytes([high, low]))
        }
        _ => None,
    }
}
