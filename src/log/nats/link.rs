//! The connection that carries the live copies (L7), and what must be ordered with them.
//!
//! A client of our own, because a node has a subscription for each of its tails: one of async-nats
//! keeps two blocks of 32 messages of 184 bytes each (12 KiB) once it has been used, and builds a map
//! of headers for every message. Here a subscription at rest is some 100 bytes, and a message is a
//! slice of the read buffer. Everything else goes over async-nats.
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

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::{sleep, timeout},
};

pub(super) use self::{board::Inflow, wire::Raw};
use self::{
    board::{Board, Limits, Posted, Subjects},
    dial::{DialError, Dialer, Dialled, Duplex},
    wire::Said,
};
use super::{
    connect::reconnect_delay,
    error::StartError,
    events::Events,
    format::{Names, join},
    inbox::Unanswered,
};
use crate::{
    config::NatsConfig,
    log::{LogEvent, Route},
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
    /// Connects, and keeps connected until `tasks` are stopped. `inbox` is a subject of its own.
    ///
    /// # Errors
    ///
    /// If no server can be reached now, or none accepts us.
    pub(super) async fn start(
        nats: &NatsConfig,
        names: &Names,
        inbox: &str,
        events: Events,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let mut dialer = Dialer::new(nats, "slipstream live")?;
        let first = dialer
            .dial(None)
            .await
            .map_err(|error| StartError::connect(nats, &error))?;
        let board = Board::new(
            Limits {
                copies: nats.subscription_capacity.max(1),
                commands: nats.command_capacity.max(1),
            },
            Subjects {
                live: names.live.clone(),
                ephemeral: names.ephemeral.clone(),
                inbox: format!("{inbox}."),
            },
        );
        // From here on what is asked is sent.
        board.connected();
        let pace = Pace {
            ping_interval: nats.ping_interval,
            max_reconnect_delay: nats.max_reconnect_delay,
        };
        tasks.spawn(keep(board.clone(), dialer, first, events, pace));
        Ok(Self { board })
    }

    /// Subscribes to a channel's copies: the server has the subscription before it sees what is
    /// asked over this link from now on.
    pub(super) async fn subscribe(&self, route: &Route) -> Inflow {
        self.board.subscribe(route).await
    }

    /// Asks `subject`, and waits `limit` for the answer.
    pub(super) async fn request(
        &self,
        subject: &str,
        payload: &[u8],
        limit: Duration,
    ) -> Result<Raw, Unanswered> {
        let asked = timeout(limit, async {
            let (number, answer) = self.board.request(subject, payload).await;
            let _forget = Forget(&self.board, number);
            answer.await.ok()
        });
        match asked.await {
            Ok(Some(raw)) if raw.is_no_responders() => Err(Unanswered::NoResponders),
            Ok(Some(raw)) => Ok(raw),
            Ok(None) | Err(_) => Err(Unanswered::Silence),
        }
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

/// Unregisters a request, whether answered, given up or cancelled.
struct Forget<'a>(&'a Board, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

/// Serves one connection after the other.
async fn keep(board: Arc<Board>, mut dialer: Dialer, first: Dialled, events: Events, pace: Pace) {
    let mut dialled = first;
    loop {
        tracing::info!(connection = "live", "connected to NATS");
        events.send(LogEvent::Connected);
        let server = dialled.server.clone();
        let why = serve(&board, &mut dialer, dialled, &events, pace).await;
        board.disconnected();
        tracing::warn!(connection = "live", %why, "the connection to NATS was lost");
        events.send(LogEvent::Disconnected);
        dialled = redial(&mut dialer, &server, pace.max_reconnect_delay).await;
        board.connected();
    }
}

async fn redial(dialer: &mut Dialer, lost: &async_nats::ServerAddr, max_delay: Duration) -> Dialled {
    let mut attempts = 0;
    loop {
        attempts += 1;
        sleep(reconnect_delay(attempts, max_delay)).await;
        match dialer.dial(Some(lost)).await {
            Ok(dialled) => return dialled,
            Err(why @ (DialError::Refused(_) | DialError::Credentials(_) | DialError::Ca(_))) => {
                tracing::warn!(connection = "live", %why, "NATS does not accept the connection");
            }
            Err(why) => tracing::debug!(connection = "live", %why, "NATS cannot be reached"),
        }
    }
}

/// Serves a connection to its end; says why it ended.
async fn serve(board: &Board, dialer: &mut Dialer, dialled: Dialled, events: &Events, pace: Pace) -> Broken {
    let (reader, writer) = split(dialled.stream);
    tokio::select! {
        why = receive(board, dialer, reader, dialled.read, events) => why,
        why = transmit(board, writer, pace.ping_interval * MAX_SILENT) => why,
        why = watch(board, pace.ping_interval) => why,
    }
}

async fn receive(
    board: &Board,
    dialer: &mut Dialer,
    mut reader: ReadHalf<Box<dyn Duplex>>,
    mut input: BytesMut,
    events: &Events,
) -> Broken {
    loop {
        loop {
            match wire::next(&mut input) {
                Ok(None) => break,
                Ok(Some(said)) => {
                    if let Some(why) = hear(board, dialer, said, events) {
                        return why;
                    }
                }
                Err(error) => return error.into(),
            }
        }
        input.reserve(READ_BYTES);
        match reader.read_buf(&mut input).await {
            Ok(0) => return Broken::Closed,
            Ok(_) => board.heard(),
            Err(error) => return error.into(),
        }
    }
}

fn hear(board: &Board, dialer: &mut Dialer, said: Said, events: &Events) -> Option<Broken> {
    match said {
        Said::Message { sid, number, raw } => {
            if board.on_message(sid, number, raw) == Posted::Overflow {
                events.send(LogEvent::SlowConsumer);
            }
        }
        Said::Ping => board.on_ping(),
        Said::Pong => board.on_pong(),
        Said::Info(info) => {
            dialer.learn(&info);
            return info.ldm.then_some(Broken::LameDuck);
        }
        Said::Error(why) => tracing::warn!(connection = "live", %why, "NATS refuses something"),
        Said::Ok => {}
    }
    None
}

async fn transmit(board: &Board, mut writer: WriteHalf<Box<dyn Duplex>>, limit: Duration) -> Broken {
    loop {
        let out = board.to_write().await;
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
