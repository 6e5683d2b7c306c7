//! Connections of our own for what there is most of: the live copies (L7), with what must be ordered
//! with them, the publications, and the catch-up reads (L10).
//!
//! A client of our own, because a node has a subscription for each of its tails: one of async-nats
//! keeps two blocks of 32 messages of 184 bytes each (12 KiB) once it has been used, and builds a map
//! of headers for every message. Here a subscription at rest is some 100 bytes, and a message is a
//! slice of the read buffer. A publication is written straight into the buffer that goes to the
//! socket, and its acknowledgement is handed out by the reader. Everything else goes over async-nats.
//!
//! ```text
//! wire    the protocol, pure
//! dial    from a list of servers to a connection
//! board   what outlives a connection: subscriptions, requests, what has to be written
//! ```

mod board;
mod dial;
#[cfg(test)]
mod tests;
mod wire;

use std::{sync::Arc, time::Duration};

use async_nats::HeaderMap;
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::oneshot,
    time::{sleep, timeout},
};

use self::{
    board::{Board, Limits, Posted, Shape, Subjects},
    dial::{DialError, Dialer, Dialled, Duplex},
    wire::Said,
};
pub(super) use self::{
    board::{Inflow, NotSent, OnAnswer},
    wire::Raw,
};
use super::{
    connect::reconnect_delay,
    error::StartError,
    events::Events,
    format::{Names, join},
    patience::{Unanswered, Waits},
};
use crate::{
    config::NatsConfig,
    log::{LogEvent, Route},
    random,
    task::Tasks,
};

/// What one read from the socket takes at least.
const READ_BYTES: usize = 32 * 1024;
/// PINGs without any sign of life that end a connection.
const MAX_SILENT: u32 = 3;

/// See the module's documentation. Clones share the connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    board: Arc<Board>,
    waits: Arc<Waits>,
    /// How long an answer of many messages may take as long as they come.
    most: Duration,
}

/// What a link is for.
pub(super) enum Purpose {
    /// Live copies; what happens to the connection is told.
    Live(Events),
    /// Catch-up reads.
    Read,
    /// Publications: so many may wait to be written.
    Publish { commands: usize, on_answer: OnAnswer },
}

/// How soon a dead connection is found, and a new one made.
#[derive(Clone, Copy, Debug)]
struct Pace {
    ping_interval: Duration,
    max_reconnect_delay: Duration,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Wire(#[from] wire::WireError),
    #[error("the server closed it")]
    Closed,
    #[error("the server is silent")]
    Silent,
    #[error("the server takes nothing")]
    Stuck,
    /// A server in lame duck mode has already given up JetStream, and closes its clients only
    /// minutes later: they go themselves.
    #[error("the server is shutting down")]
    LameDuck,
}

impl Link {
    /// Connects, and keeps connected until `tasks` are stopped.
    ///
    /// # Errors
    ///
    /// If no server can be reached now, or none accepts us.
    pub(super) async fn start(
        nats: &NatsConfig,
        names: &Names,
        purpose: Purpose,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let (role, commands, events, on_answer) = match purpose {
            Purpose::Live(events) => ("live", nats.command_capacity, Some(events), None),
            Purpose::Read => ("read", nats.command_capacity, None, None),
            Purpose::Publish { commands, on_answer } => ("publish", commands, None, Some(on_answer)),
        };
        let mut dialer = Dialer::new(nats, role)?;
        let first = dialer
            .dial(None)
            .await
            .map_err(|error| StartError::connect(nats, &error))?;
        let board = Board::new(
            Limits {
                copies: nats.subscription_capacity.max(1),
                commands: commands.max(1),
            },
            Subjects {
                live: names.live.clone(),
                ephemeral: names.ephemeral.clone(),
                inbox: format!("_INBOX.{}.", random::name(22)),
            },
            on_answer,
        );
        // From here on what is asked is sent.
        board.connected(first.max_payload);
        let pace = Pace {
            ping_interval: nats.ping_interval,
            max_reconnect_delay: nats.max_reconnect_delay,
        };
        let keeper = Keeper {
            board: board.clone(),
            dialer,
            role,
            events,
            pace,
        };
        tasks.spawn(keeper.run(first));
        Ok(Self {
            board,
            waits: Arc::new(Waits::new(nats)),
            most: nats.request_timeout_max,
        })
    }

    /// Subscribes to a channel's copies: the server has the subscription before it sees what is
    /// asked over this link from now on.
    pub(super) async fn subscribe(&self, route: &Route) -> Inflow {
        self.board.subscribe(route).await
    }

    /// Sends a message; its answer comes with this number.
    pub(super) fn publish(
        &self,
        subject: &str,
        answer: Option<u64>,
        headers: &HeaderMap,
        payload: &[u8],
    ) -> Result<(), NotSent> {
        self.board.publish(subject, answer, headers, payload)
    }

    /// Asks `subject`. The answer is one message.
    pub(super) async fn request(&self, subject: &str, payload: &[u8]) -> Result<Raw, Unanswered> {
        let answer = self.waits.within(async |limit| {
            let (_asked, done) = self.ask(subject, payload, Shape::One, limit).await?;
            let answer = timeout(limit, done).await;
            let mut answer = answer.ok().and_then(Result::ok).ok_or(Unanswered::Silence)?;
            answer.pop().ok_or(Unanswered::Silence)
        });
        answer.await.and_then(some_responder)
    }

    /// Asks `subject`. The answer is at most so many messages and a last one with a status, with no
    /// pause between them that is too long.
    pub(super) async fn request_many(
        &self,
        subject: &str,
        payload: &[u8],
        most: usize,
    ) -> Result<Vec<Raw>, Unanswered> {
        let answer = self.waits.within(async |silence| {
            let (asked, mut done) = self.ask(subject, payload, Shape::Many(most), silence).await?;
            let mut seen = 0;
            loop {
                if let Ok(answer) = timeout(silence, &mut done).await {
                    return answer.map_err(|_| Unanswered::Silence);
                }
                let received = self.board.received(asked.1);
                if received == seen {
                    return Err(Unanswered::Silence);
                }
                seen = received;
            }
        });
        let answer = timeout(self.most, answer).await;
        let messages = answer.unwrap_or(Err(Unanswered::Silence))?;
        match messages.last() {
            Some(end) if end.is_no_responders() => Err(Unanswered::NoResponders),
            _ => Ok(messages),
        }
    }

    async fn ask(
        &self,
        subject: &str,
        payload: &[u8],
        shape: Shape,
        limit: Duration,
    ) -> Result<(Forget<'_>, oneshot::Receiver<Vec<Raw>>), Unanswered> {
        let asked = timeout(limit, self.board.request(subject, payload, shape)).await;
        let (number, done) = asked.map_err(|_| Unanswered::Silence)?;
        Ok((Forget(&self.board, number), done))
    }

    /// Resolves when the server has handled all that was sent over this link before.
    pub(super) async fn round_trip(&self, limit: Duration) -> Result<(), Unanswered> {
        let back = timeout(limit, async { self.board.round_trip().await.await.ok() });
        back.await.ok().flatten().ok_or(Unanswered::Silence)
    }

    /// Whether there is a connection now.
    pub(super) fn is_connected(&self) -> bool {
        self.board.is_connected()
    }
}

fn some_responder(answer: Raw) -> Result<Raw, Unanswered> {
    if answer.is_no_responders() {
        Err(Unanswered::NoResponders)
    } else {
        Ok(answer)
    }
}

/// Unregisters a request, whether answered, given up or cancelled.
struct Forget<'a>(&'a Board, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

/// Serves one connection after the other.
struct Keeper {
    board: Arc<Board>,
    dialer: Dialer,
    role: &'static str,
    events: Option<Events>,
    pace: Pace,
}

impl Keeper {
    async fn run(mut self, first: Dialled) {
        let mut dialled = first;
        loop {
            tracing::info!(connection = self.role, "connected to NATS");
            self.tell(LogEvent::Connected);
            let server = dialled.server.clone();
            let why = self.serve(dialled).await;
            self.board.disconnected();
            tracing::warn!(connection = self.role, %why, "the connection to NATS was lost");
            self.tell(LogEvent::Disconnected);
            dialled = self.redial(&server).await;
            self.board.connected(dialled.max_payload);
        }
    }

    fn tell(&self, event: LogEvent) {
        if let Some(events) = &self.events {
            events.send(event);
        }
    }

    async fn redial(&mut self, lost: &async_nats::ServerAddr) -> Dialled {
        let mut attempts = 0;
        loop {
            attempts += 1;
            sleep(reconnect_delay(attempts, self.pace.max_reconnect_delay)).await;
            match self.dialer.dial(Some(lost)).await {
                Ok(dialled) => return dialled,
                Err(why @ (DialError::Refused(_) | DialError::Credentials(_) | DialError::Ca(_))) => {
                    tracing::warn!(connection = self.role, %why, "NATS does not accept the connection");
                }
                Err(why) => tracing::debug!(connection = self.role, %why, "NATS cannot be reached"),
            }
        }
    }

    /// Serves a connection to its end; says why it ended.
    async fn serve(&mut self, dialled: Dialled) -> Broken {
        let (reader, writer) = split(dialled.stream);
        let every = self.pace.ping_interval;
        let board = self.board.clone();
        tokio::select! {
            why = self.receive(reader, dialled.read) => why,
            why = transmit(&board, writer, every * MAX_SILENT) => why,
            why = watch(&board, every) => why,
        }
    }

    async fn receive(&mut self, mut reader: ReadHalf<Box<dyn Duplex>>, mut input: BytesMut) -> Broken {
        loop {
            loop {
                match wire::next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(said)) => {
                        if let Some(why) = self.hear(said) {
                            return why;
                        }
                    }
                    Err(error) => return error.into(),
                }
            }
            input.reserve(READ_BYTES);
            match reader.read_buf(&mut input).await {
                Ok(0) => return Broken::Closed,
                Ok(_) => self.board.heard(),
                Err(error) => return error.into(),
            }
        }
    }

    fn hear(&mut self, said: Said) -> Option<Broken> {
        match said {
            Said::Message { sid, number, raw } => {
                if self.board.on_message(sid, number, raw) == Posted::Overflow {
                    self.tell(LogEvent::SlowConsumer);
                }
            }
            Said::Ping => self.board.on_ping(),
            Said::Pong => self.board.on_pong(),
            Said::Info(info) => {
                self.dialer.learn(&info);
                return info.ldm.then_some(Broken::LameDuck);
            }
            Said::Error(why) => tracing::warn!(connection = self.role, %why, "NATS refuses something"),
            Said::Ok => {}
        }
        None
    }
}

async fn transmit(board: &Board, mut writer: WriteHalf<Box<dyn Duplex>>, limit: Duration) -> Broken {
    let mut out = Vec::new();
    loop {
        board.to_write(&mut out).await;
        let written = timeout(limit, async {
            writer.write_all(&out).await?;
            writer.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return Broken::Stuck,
        }
    }
}

/// A dead connection is found within three intervals.
async fn watch(board: &Board, every: Duration) -> Broken {
    loop {
        sleep(every).await;
        if board.ping() >= MAX_SILENT {
            return Broken::Silent;
        }
    }
}
