//! The load generator: one epoll thread for all sockets.
//!
//! A task per client would cost more than the server under test. The engine opens connections
//! (bounded), subscribes, publishes, answers pings, checks every arrival and reports what happened
//! as [`Event`]s; what to do next is the workload's.

mod conn;
pub(super) mod http;
mod receive;
mod reply;
mod setup;
mod socket;
mod timer;

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};

pub(crate) use conn::{ConnId, Position};
pub(crate) use setup::Setup;

use super::{
    BenchError,
    args::Over,
    check::{Faults, Watch},
    payload::{self, Scanner, Stamp, now_us},
    stats::Histogram,
};
use conn::{Conn, Outgoing, Publisher, Role, Stage};
use timer::Timer;

const TIMER: Token = Token(usize::MAX);
/// Bytes asked of a socket at once.
const READ: usize = 256 * 1024;
/// Below this, epoll's rounding to milliseconds would show.
const FINE: Duration = Duration::from_millis(10);
/// How long after a temporary error a subscribe is tried again: the SDKs' first delay.
const RETRY: Duration = Duration::from_millis(500);

/// What happened on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is connected, and subscribed if it subscribes.
    Ready(ConnId),
    /// It received a publication for the first time.
    Delivered(ConnId, u32),
    /// A publication of it was acknowledged (or refused: see [`Tally`]).
    Answered(ConnId),
}

/// What has been counted since the start or the last [`Tally::restart`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Publications received.
    pub(crate) deliveries: u64,
    /// Publications acknowledged.
    pub(crate) acknowledged: u64,
    /// Publish to deliver.
    pub(crate) latency: Histogram,
    /// Publish to acknowledgement.
    pub(crate) ack_latency: Histogram,
    /// Never restarted.
    pub(crate) faults: Faults,
    /// Subscriptions the server ended and that resumed by themselves, and temporary errors.
    pub(crate) resubscribed: u64,
    /// The first error a server answered, for the report.
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Begins to measure: all but the faults from zero.
    pub(crate) fn restart(&mut self) {
        self.deliveries = 0;
        self.acknowledged = 0;
        self.latency.clear();
        self.ack_latency.clear();
    }
}

/// All connections of this process.
pub(crate) struct Engine {
    poll: Poll,
    ready: Events,
    timer: Timer,
    setup: Setup,
    net: u16,
    channels: Vec<String>,
    conns: Vec<Conn>,
    /// Connections before this one have been begun.
    opened: usize,
    connecting: usize,
    live: usize,
    /// Subscribes to try again.
    retries: VecDeque<(Instant, ConnId)>,
    /// Connections with something to write.
    dirty: Vec<ConnId>,
    /// Why a connection ended that should have stayed.
    broken: Option<String>,
    scratch: Vec<u8>,
    /// Where commands are put together.
    text: Vec<u8>,
    scanner: Scanner,
    epoch: std::sync::Arc<str>,
    pub(crate) tally: Tally,
}

impl Engine {
    /// An engine without connections for these channels.
    pub(crate) fn new(setup: Setup, channels: Vec<String>) -> Result<Self, BenchError> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        Ok(Self {
            poll,
            ready: Events::with_capacity(1024),
            timer,
            setup,
            net: socket::any_net(),
            channels,
            conns: Vec::new(),
            opened: 0,
            connecting: 0,
            live: 0,
            retries: VecDeque::new(),
            dirty: Vec::new(),
            broken: None,
            scratch: vec![0; READ],
            text: Vec::new(),
            scanner: Scanner::new(),
            epoch: "".into(),
            tally: Tally::default(),
        })
    }

    /// Adds a subscriber of `channel`, which resumes from `position` if there is one.
    pub(crate) fn subscriber(&mut self, channel: u32, position: Option<Position>) -> ConnId {
        let role = Role::Subscriber {
            channel,
            watch: Watch::new(),
            recover: position.is_some(),
            position: position.unwrap_or_default(),
        };
        self.add(role)
    }

    /// Adds a publishing connection.
    pub(crate) fn publisher(&mut self, over: Over) -> ConnId {
        self.add(Role::Publisher(Box::new(Publisher::new(over))))
    }

    fn add(&mut self, role: Role) -> ConnId {
        let target = self.conns.len() % self.setup.targets.len().max(1);
        self.conns
            .push(Conn::new(role, u16::try_from(target).unwrap_or(0)));
        self.conns.len() - 1
    }

    /// Connections that are as they should be.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Waits until all connections are live and answers how long it took.
    pub(crate) fn connect_all(&mut self, events: &mut Vec<Event>) -> Result<Duration, BenchError> {
        let start = Instant::now();
        let mut progress = (self.live, start);
        while self.live < self.conns.len() {
            self.turn(start + Duration::from_secs(3600), events)?;
            if self.live != progress.0 {
                progress = (self.live, Instant::now());
            } else if progress.1.elapsed() > self.setup.patience {
                return Err(BenchError::Stalled(format!(
                    "{} of {} connections are up",
                    self.live,
                    self.conns.len()
                )));
            }
        }
        Ok(start.elapsed())
    }

    /// The channel a subscriber subscribes to.
    pub(crate) fn channel_of(&self, conn: ConnId) -> u32 {
        match self.conns[conn].role {
            Role::Subscriber { channel, .. } => channel,
            Role::Publisher(_) => u32::MAX,
        }
    }

    /// What a subscriber has received.
    pub(crate) fn watch(&self, conn: ConnId) -> Option<&Watch> {
        match &self.conns[conn].role {
            Role::Subscriber { watch, .. } => Some(watch),
            Role::Publisher(_) => None,
        }
    }

    /// Where a subscriber could resume from.
    pub(crate) fn position(&self, conn: ConnId) -> Option<Position> {
        match &self.conns[conn].role {
            Role::Subscriber { position, .. } => Some(position.clone()),
            Role::Publisher(_) => None,
        }
    }

    /// Publishes number `seq` of `channel` on a publishing connection, in its order.
    pub(crate) fn publish(&mut self, conn: ConnId, channel: u32, seq: u32) {
        if let Role::Publisher(publisher) = &mut self.conns[conn].role {
            let time_us = now_us();
            publisher.queue.push_back(Outgoing {
                channel,
                seq,
                time_us,
            });
        }
        self.send_queued(conn);
    }

    /// Puts the publications that may be sent now into the outbox.
    fn send_queued(&mut self, id: ConnId) {
        let conn = &mut self.conns[id];
        let Role::Publisher(publisher) = &mut conn.role else {
            return;
        };
        let before = conn.outbox.len();
        while conn.stage == Stage::Live && publisher.may_send() {
            let Some(next) = publisher.queue.pop_front() else {
                break;
            };
            let command = conn.next_id;
            conn.next_id += 1;
            publisher.sent(command, next.time_us);
            let stamp = Stamp {
                seq: next.seq,
                time_us: next.time_us,
            };
            let channel = &self.channels[next.channel as usize];
            self.text.clear();
            if publisher.over == Over::Rest {
                payload::write(&mut self.text, self.setup.payload, stamp);
                let Setup {
                    http, api, api_key, ..
                } = &self.setup;
                http::write_publish(&mut conn.outbox, http, *api, api_key, channel, &self.text);
            } else {
                let head = format!(r#"{{"id":{command},"publish":{{"channel":"{channel}","data":"#);
                self.text.extend_from_slice(head.as_bytes());
                payload::write(&mut self.text, self.setup.payload, stamp);
                self.text.extend_from_slice(b"}}");
                super::frame::write_masked(&mut conn.outbox, super::frame::opcode::TEXT, &self.text);
            }
        }
        if before == 0 && !conn.outbox.is_empty() {
            self.dirty.push(id);
        }
    }

    /// Writes, opens, then waits for sockets until something happens or `until`. `events` is
    /// replaced by what happened. An error if a connection ended: none should.
    pub(crate) fn turn(&mut self, until: Instant, events: &mut Vec<Event>) -> Result<(), BenchError> {
        events.clear();
        self.flush_dirty();
        let now = Instant::now();
        self.retry_due(now);
        self.open_more()?;

        let mut wait = until.saturating_duration_since(now).min(Duration::from_secs(1));
        if let Some((due, _)) = self.retries.front() {
            wait = wait.min(due.saturating_duration_since(now));
        }
        let timeout = if wait.is_zero() {
            Some(Duration::ZERO)
        } else if wait < FINE {
            self.timer.set(wait)?;
            None
        } else {
            Some(wait)
        };
        match self.poll.poll(&mut self.ready, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        // Taken out, so that handling an event may borrow the engine.
        let ready = std::mem::replace(&mut self.ready, Events::with_capacity(0));
        let mut scratch = std::mem::take(&mut self.scratch);
        for event in ready.iter().filter(|event| event.token() != TIMER) {
            let id = event.token().0;
            if event.is_writable() || event.is_error() {
                self.on_writable(id, events);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.on_readable(id, event.is_read_closed(), &mut scratch, events);
            }
        }
        self.scratch = scratch;
        self.ready = ready;
        match self.broken.take() {
            Some(reason) => Err(BenchError::Connection(reason)),
            None => Ok(()),
        }
    }

    fn flush_dirty(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            self.flush(id);
        }
    }

    fn flush(&mut self, id: ConnId) {
        if let Err(error) = self.conns[id].flush() {
            self.close(id, &format!("write: {error}"));
        }
    }

    fn retry_due(&mut self, now: Instant) {
        while let Some((_, id)) = self.retries.front().copied().filter(|(due, _)| *due <= now) {
            self.retries.pop_front();
            self.subscribe(id);
        }
    }

    fn open_more(&mut self) -> Result<(), BenchError> {
        while self.connecting < self.setup.connecting && self.opened < self.conns.len() {
            let id = self.opened;
            self.opened += 1;
            let conn = &mut self.conns[id];
            let addr = if conn.is_rest() {
                self.setup.http.addr
            } else {
                self.setup.targets[usize::from(conn.target)].addr
            };
            let mut socket = socket::connect(addr, self.net, id)
                .map_err(|e| BenchError::Connection(format!("connecting to {addr}: {e}")))?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(id), interest)?;
            conn.socket = Some(socket);
            conn.stage = Stage::Tcp;
            self.connecting += 1;
        }
        Ok(())
    }

    /// Notes that a connection has ended.
    fn close(&mut self, id: ConnId, reason: &str) {
        let conn = &mut self.conns[id];
        match conn.stage {
            Stage::Closed => return,
            Stage::Live => self.live -= 1,
            _ => self.connecting -= 1,
        }
        let stage = std::mem::replace(&mut conn.stage, Stage::Closed);
        conn.socket = None;
        self.broken
            .get_or_insert_with(|| format!("connection {id} ({stage:?}): {reason}"));
    }

    fn on_writable(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let conn = &mut self.conns[id];
        if conn.stage == Stage::Tcp {
            let error = conn.socket.as_ref().and_then(|s| s.take_error().ok().flatten());
            let connected = conn.socket.as_ref().is_some_and(|s| s.peer_addr().is_ok());
            if let Some(error) = error {
                self.close(id, &format!("connect: {error}"));
                return;
            }
            if !connected {
                return;
            }
            if conn.is_rest() {
                self.now_live(id, events);
            } else {
                conn.stage = Stage::Upgrade;
                let upgrade = self.setup.upgrade(conn.target);
                conn.outbox.extend_from_slice(upgrade.as_bytes());
            }
        }
        self.flush(id);
    }

    fn now_live(&mut self, id: ConnId, events: &mut Vec<Event>) {
        self.conns[id].stage = Stage::Live;
        self.connecting -= 1;
        self.live += 1;
        events.push(Event::Ready(id));
        self.send_queued(id);
    }

    /// Sends the subscribe command of a subscriber.
    fn subscribe(&mut self, id: ConnId) {
        let conn = &mut self.conns[id];
        let command = conn.take_id();
        let Role::Subscriber {
            channel,
            position,
            recover,
            ..
        } = &conn.role
        else {
            return;
        };
        let name = &self.channels[*channel as usize];
        let mut text = format!(r#"{{"id":{command},"subscribe":{{"channel":"{name}""#);
        if self.setup.positions {
            text.push_str(r#","recoverable":true"#);
        }
        if *recover {
            text.push_str(&format!(
                r#","recover":true,"offset":{},"epoch":"{}""#,
                position.offset, position.epoch
            ));
        }
        text.push_str("}}");
        conn.stage = Stage::Subscribe;
        conn.command(text.as_bytes());
        self.flush(id);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{Shutdown, TcpListener},
        thread,
    };

    use super::*;
    use crate::bench::args::tests::common;

    /// Whatever a server does instead of serving is an error at once, with its reason.
    #[test]
    fn a_connection_that_ends_ends_the_run() {
        for (answer, reason) in [
            ("", "closed by the server"),
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\n",
                "503 Service Unavailable",
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\n\u{81}",
                "closed by the server",
            ),
        ] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let target = format!("--target ws://{}/", listener.local_addr().unwrap());
            let server = thread::spawn(move || {
                let mut socket = listener.accept()?.0;
                socket.write_all(answer.as_bytes())?;
                socket.shutdown(Shutdown::Write)?;
                // Unread bytes would turn the end into a reset.
                io::copy(&mut socket, &mut io::sink())
            });
            let setup = Setup::new(&common(&target)).unwrap();
            let mut engine = Engine::new(setup, vec!["c".into()]).unwrap();
            engine.subscriber(0, None);
            let error = engine.connect_all(&mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains(reason), "{answer:?}: {error}");
            drop(engine);
            server.join().unwrap().unwrap();
        }
    }
}
