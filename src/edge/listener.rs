//! The HTTP listener: accepts, serves HTTP/1.1, lets go of what becomes a websocket.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{extract::ConnectInfo, response::Response};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use self::timer::HeadTimer;
use super::sockopt;
use crate::{config::HttpConfig, task::Tasks, telemetry::Counter};

mod timer;

/// What hyper needs at least as a read buffer; more only helps large bodies.
const MIN_BUFFER_BYTES: usize = 16 * 1024;

/// The first and the longest pause after the system had nothing left for a new connection.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How often a lasting shortage is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// An open listening socket. Connections queue in the kernel until [`serve`](Self::serve) runs.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    limits: Limits,
    timeouts: Counter,
}

/// The limits of each connection.
#[derive(Clone, Copy, Debug)]
struct Limits {
    header_timeout: Duration,
    idle_timeout: Duration,
    max_header_bytes: usize,
}

impl Listener {
    /// Opens the listening socket. To be called on the runtime.
    ///
    /// # Errors
    /// The address is taken, not of this machine, or not allowed.
    pub fn bind(config: &HttpConfig) -> Result<Self, ListenError> {
        let error = |source| ListenError {
            address: config.listen,
            source,
        };
        let socket = sockopt::listen(config.listen, config.backlog).map_err(error)?;
        let address = socket.local_addr().map_err(error)?;
        let limits = Limits {
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            max_header_bytes: config.max_header_bytes,
        };
        Ok(Self {
            socket,
            address,
            limits,
            timeouts: Counter::default(),
        })
    }

    /// Counts in `timeouts` the connections whose first request did not come in time.
    pub fn count_timeouts(self, timeouts: &Counter) -> Self {
        Self {
            timeouts: timeouts.clone(),
            ..self
        }
    }

    /// Where it listens: the port that the system chose if the configured one is 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections and serves `service` on each, in a task of `tasks`, until `stop`.
    ///
    /// Requests have the peer's address as the extension [`ConnectInfo`]. After `stop` the port is
    /// closed at once, connections without a request end, and requests in progress are finished:
    /// `tasks` tells when. What has become a websocket is no longer the listener's.
    pub async fn serve<S>(self, service: S, tasks: Tasks, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let (mut pause, mut logged): (Option<Duration>, Option<Instant>) = (None, None);
        while let Some(accepted) = stop.run_until_cancelled(self.socket.accept()).await {
            match accepted {
                Ok((stream, peer)) => {
                    pause = None;
                    let timeouts = self.timeouts.clone();
                    let connection =
                        serve_connection(stream, peer, self.limits, service.clone(), stop.clone());
                    // `stop` ends it; nothing else needs to be looked at with each request.
                    tasks.spawn_unstopped(async move {
                        if connection.await == Served::TimedOut {
                            timeouts.inc();
                        }
                    });
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => {
                    // Out of descriptors or memory. The connection stays in the backlog, so that
                    // accepting again at once would spin.
                    if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        tracing::error!(%error, "cannot accept connections, trying again");
                        logged = Some(Instant::now());
                    }
                    let wait = pause.map_or(PAUSES.0, |last| (last * 2).min(PAUSES.1));
                    pause = Some(wait);
                    stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
            }
        }
    }
}

/// Whether an error of accept(2) is about the connection that was to be accepted: Linux reports
/// network errors that are already pending on it.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
    )
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Served {
    /// Its first request did not come in time.
    TimedOut,
    /// Otherwise.
    Ended,
}

/// Serves one connection until it ends, or becomes a websocket.
async fn serve_connection<S>(
    stream: TcpStream,
    peer: SocketAddr,
    limits: Limits,
    service: S,
    stop: CancellationToken,
) -> Served
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    // A failure means that the connection is gone, which the first read tells too.
    let _ = stream.set_nodelay(true);
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = asked.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        was_asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(HeadTimer::new(limits.idle_timeout))
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(MIN_BUFFER_BYTES))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an http connection ended early");
        if error.is_timeout() && !asked.load(Ordering::Relaxed) {
            return Served::TimedOut;
        }
    }
    Served::Ended
}
