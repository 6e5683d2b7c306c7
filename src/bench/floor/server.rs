//! The broadcaster: one thread, epoll, one write(2) of a ready frame per delivery.
//!
//! It answers just enough of the Centrifuge protocol and of its server API for the benchmark's own
//! client, and trusts that client.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read as _, Write as _},
    net,
    os::fd::{AsRawFd as _, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use memchr::memmem;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};

use crate::bench::{
    args::FloorServerArgs,
    frame::{self, opcode},
    payload::number,
};

const LISTENER: Token = Token(usize::MAX);
const ALIVE: Token = Token(usize::MAX - 1);
const READ: usize = 256 * 1024;
/// A client that lets this much pile up is closed.
const MAX_QUEUED: usize = 64 << 20;
/// Every connection is pinged this often, a part of them each second.
const PING_SECONDS: usize = 25;

struct Conn {
    socket: TcpStream,
    upgraded: bool,
    /// Its channel, and its place among the subscribers there.
    subscription: Option<(usize, usize)>,
    partial: Vec<u8>,
    outbox: Vec<u8>,
}

#[derive(Default)]
struct Channel {
    subscribers: Vec<usize>,
    top: u64,
    /// The last frames, for those who come back.
    history: VecDeque<Rc<[u8]>>,
}

pub(super) struct Server {
    poll: Poll,
    listener: TcpListener,
    /// Readable when the parent has gone.
    alive: OwnedFd,
    coalesce: bool,
    keep: usize,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    names: HashMap<Box<[u8]>, usize>,
    channels: Vec<Channel>,
    /// Connections with something queued in this round (coalescing).
    dirty: Vec<usize>,
}

impl Server {
    pub(super) fn new(
        listener: net::TcpListener,
        alive: OwnedFd,
        args: &FloorServerArgs,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry()
            .register(&mut SourceFd(&alive.as_raw_fd()), ALIVE, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            alive,
            coalesce: args.coalesce,
            keep: args.history as usize,
            conns: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            channels: Vec::new(),
            dirty: Vec::new(),
        })
    }

    /// Serves until the parent has gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; READ];
        let mut last_ping = Instant::now();
        let mut turn = 0;
        loop {
            match self.poll.poll(&mut events, Some(Duration::from_secs(1))) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    ALIVE => {
                        // Only its end matters; nothing is ever sent.
                        self.poll
                            .registry()
                            .deregister(&mut SourceFd(&self.alive.as_raw_fd()))?;
                        return Ok(());
                    }
                    Token(id) => {
                        if event.is_writable() {
                            self.flush(id);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.on_readable(id, event.is_read_closed(), &mut scratch);
                        }
                    }
                }
            }
            for id in std::mem::take(&mut self.dirty) {
                self.flush(id);
            }
            if last_ping.elapsed() >= Duration::from_secs(1) {
                last_ping = Instant::now();
                self.ping(turn);
                turn = (turn + 1) % PING_SECONDS;
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => return Err(e),
            };
            socket.set_nodelay(true)?;
            let id = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            self.poll
                .registry()
                .register(&mut socket, Token(id), Interest::READABLE | Interest::WRITABLE)?;
            self.conns[id] = Some(Conn {
                socket,
                upgraded: false,
                subscription: None,
                partial: Vec::new(),
                outbox: Vec::new(),
            });
        }
    }

    fn close(&mut self, id: usize) {
        let Some(conn) = self.conns[id].take() else { return };
        self.free.push(id);
        let Some((channel, place)) = conn.subscription else {
            return;
        };
        let subscribers = &mut self.channels[channel].subscribers;
        subscribers.swap_remove(place);
        if let Some(moved) = subscribers.get(place).and_then(|id| self.conns[*id].as_mut()) {
            moved.subscription = Some((channel, place));
        }
    }

    fn on_readable(&mut self, id: usize, ended: bool, scratch: &mut Vec<u8>) {
        loop {
            let Some(conn) = &mut self.conns[id] else { return };
            let carried = conn.partial.len();
            if scratch.len() < carried + READ {
                scratch.resize(carried + READ, 0);
            }
            let space = scratch.len() - carried;
            let read = match conn.socket.read(&mut scratch[carried..]) {
                Ok(0) => return self.close(id),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.close(id),
            };
            scratch[..carried].copy_from_slice(&conn.partial);
            conn.partial = Vec::new();
            let filled = carried + read;
            let Some(used) = self.consume(id, &mut scratch[..filled]) else {
                return self.close(id);
            };
            if let (Some(conn), true) = (&mut self.conns[id], used < filled) {
                conn.partial.extend_from_slice(&scratch[used..filled]);
            }
            if read < space && !ended {
                return;
            }
        }
    }

    /// Handles what is whole and answers how much that was; `None` = the connection is over.
    fn consume(&mut self, id: usize, bytes: &mut [u8]) -> Option<usize> {
        let mut used = 0;
        loop {
            let rest = &mut bytes[used..];
            if self.conns[id].as_ref()?.upgraded {
                let Some(header) = frame::parse(rest) else {
                    return Some(used);
                };
                let payload = &mut rest[header.start..header.end];
                frame::unmask(payload, header.mask?);
                match header.opcode {
                    opcode::TEXT => payload
                        .split(|b| *b == b'\n')
                        .try_for_each(|line| self.command(id, line))?,
                    opcode::CLOSE => return None,
                    _ => {}
                }
                used += header.end;
            } else {
                match self.request(id, rest)? {
                    0 => return Some(used),
                    len => used += len,
                }
            }
        }
    }

    /// One HTTP request; 0 = it is not all there.
    fn request(&mut self, id: usize, bytes: &[u8]) -> Option<usize> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return Some(0);
        };
        let (head, body) = (&bytes[..end + 2], &bytes[end + 4..]);
        if head.starts_with(b"GET ") {
            let key = between(head, b"Sec-WebSocket-Key: ", b'\r')?;
            let mut input = key.to_vec();
            input.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
            let accept = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &input));
            self.conns[id].as_mut()?.upgraded = true;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            self.send(id, answer.as_bytes());
            return Some(end + 4);
        }
        let length = usize::try_from(number(between(head, b"Content-Length: ", b'\r')?)?).ok()?;
        let Some(body) = body.get(..length) else {
            return Some(0);
        };
        let channel = between(body, b"\"channel\":\"", b'"')?;
        let data = memmem::find(body, b"\"data\":")? + b"\"data\":".len();
        self.send(
            id,
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"result\":{}}",
        );
        self.broadcast(channel, &body[data..length - 1]);
        Some(end + 4 + length)
    }

    /// One command of the Centrifuge protocol.
    fn command(&mut self, id: usize, line: &[u8]) -> Option<()> {
        if line == b"{}" || line.is_empty() {
            return Some(());
        }
        let number = std::str::from_utf8(between(line, b"{\"id\":", b',')?).ok()?;
        if memmem::find(line, b",\"connect\":{").is_some() {
            let answer = r#"{"client":"floor","version":"floor","ping":25,"pong":true}"#;
            self.send_text(id, &format!(r#"{{"id":{number},"connect":{answer}}}"#));
        } else if memmem::find(line, b",\"subscribe\":{").is_some() {
            self.subscribe(id, number, line)?;
        } else if memmem::find(line, b",\"publish\":{").is_some() {
            let channel = between(line, b"\"channel\":\"", b'"')?;
            let data = memmem::find(line, b"\"data\":")? + b"\"data\":".len();
            self.send_text(id, &format!(r#"{{"id":{number},"publish":{{}}}}"#));
            self.broadcast(channel, &line[data..line.len() - 2]);
        }
        Some(())
    }

    fn subscribe(&mut self, id: usize, number: &str, line: &[u8]) -> Option<()> {
        let channel = self.channel(between(line, b"\"channel\":\"", b'"')?);
        let Channel {
            subscribers,
            top,
            history,
        } = &mut self.channels[channel];
        let recover = memmem::find(line, b"\"recover\":true").is_some();
        let missed = if recover {
            let digits = between(line, b"\"offset\":", b',')?;
            top.saturating_sub(crate::bench::payload::number(digits)?)
        } else {
            0
        };
        let missed = history.len().min(usize::try_from(missed).ok()?);
        let mut out = Vec::new();
        let text = format!(
            r#"{{"id":{number},"subscribe":{{"recoverable":true,"epoch":"floor","offset":{},"recovered":{recover},"was_recovering":{recover}}}}}"#,
            *top - missed as u64
        );
        frame::write_plain(&mut out, opcode::TEXT, text.as_bytes());
        for frame in history.iter().skip(history.len() - missed) {
            out.extend_from_slice(frame);
        }
        let conn = self.conns[id].as_mut()?;
        if conn.subscription.is_none() {
            conn.subscription = Some((channel, subscribers.len()));
            subscribers.push(id);
        }
        self.send(id, &out);
        Some(())
    }

    fn channel(&mut self, name: &[u8]) -> usize {
        if let Some(channel) = self.names.get(name) {
            return *channel;
        }
        self.channels.push(Channel::default());
        self.names.insert(name.into(), self.channels.len() - 1);
        self.channels.len() - 1
    }

    fn broadcast(&mut self, name: &[u8], data: &[u8]) {
        let index = self.channel(name);
        let channel = &mut self.channels[index];
        channel.top += 1;
        let mut text = Vec::with_capacity(data.len() + 128);
        text.extend_from_slice(b"{\"push\":{\"channel\":\"");
        text.extend_from_slice(name);
        text.extend_from_slice(b"\",\"pub\":{\"data\":");
        text.extend_from_slice(data);
        text.extend_from_slice(format!(",\"offset\":{}}}}}}}", channel.top).as_bytes());
        let mut ready = Vec::with_capacity(text.len() + 10);
        frame::write_plain(&mut ready, opcode::TEXT, &text);
        if self.keep > 0 {
            if channel.history.len() == self.keep {
                channel.history.pop_front();
            }
            channel.history.push_back(ready.as_slice().into());
        }
        // Moved out and back: sending needs the connections.
        let subscribers = std::mem::take(&mut channel.subscribers);
        for id in &subscribers {
            self.send(*id, &ready);
        }
        self.channels[index].subscribers = subscribers;
    }

    fn send_text(&mut self, id: usize, text: &str) {
        let mut out = Vec::with_capacity(text.len() + 10);
        frame::write_plain(&mut out, opcode::TEXT, text.as_bytes());
        self.send(id, &out);
    }

    /// Writes at once; when coalescing, or behind something unsent, queues.
    fn send(&mut self, id: usize, bytes: &[u8]) {
        let Some(conn) = &mut self.conns[id] else { return };
        let mut sent = 0;
        if conn.outbox.is_empty() {
            if self.coalesce {
                self.dirty.push(id);
            } else {
                // An error shows again when the connection is read.
                sent = conn.socket.write(bytes).unwrap_or(0);
            }
        }
        if conn.outbox.len() < MAX_QUEUED {
            conn.outbox.extend_from_slice(&bytes[sent..]);
        } else {
            let _ = conn.socket.shutdown(net::Shutdown::Both);
        }
    }

    fn flush(&mut self, id: usize) {
        let Some(conn) = &mut self.conns[id] else { return };
        if conn.outbox.is_empty() {
            return;
        }
        let sent = conn.socket.write(&conn.outbox).unwrap_or(0);
        if sent == conn.outbox.len() {
            conn.outbox = Vec::new();
        } else {
            conn.outbox.drain(..sent);
        }
    }

    fn ping(&mut self, turn: usize) {
        for id in (turn..self.conns.len()).step_by(PING_SECONDS) {
            if self.conns[id].as_ref().is_some_and(|conn| conn.upgraded) {
                self.send_text(id, "{}");
            }
        }
    }
}

/// What stands between `before` and the next `end`.
fn between<'a>(text: &'a [u8], before: &[u8], end: u8) -> Option<&'a [u8]> {
    let rest = &text[memmem::find(text, before)? + before.len()..];
    Some(&rest[..memchr::memchr(end, rest)?])
}
