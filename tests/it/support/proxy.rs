//! A TCP proxy that can be a bad network: it passes, delays, throttles, swallows or cuts what goes
//! through it. In front of nats-server it can also lose single messages on the way to the edge.

mod filter;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use slipstream::task::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use self::filter::Filter;
pub(crate) use self::filter::Losses;
use super::until;

/// What a link does with what goes through it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Weather {
    /// Everything passes.
    Clear,
    /// Everything passes this much later.
    Late(Duration),
    /// Connections stay, new ones are made, and nothing passes.
    BlackHole,
    /// Connections are closed, and new ones too.
    Cut,
    /// Towards the client, so many bytes a second pass.
    Slow(u64),
}

/// Chunks on their way through a late link; the sender waits when there are more.
const LATE_CHUNKS: usize = 64;
const CHUNK: usize = 16 * 1024;
/// The kernel's buffers of a slow link are small, so that its sender feels it.
const SLOW_BUFFER: u32 = 16 * 1024;

/// A proxy. Dropping it cuts all.
pub(crate) struct Proxy {
    addr: SocketAddr,
    weather: watch::Sender<Weather>,
    losses: Arc<Losses>,
    tasks: Tasks,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Proxy {
    /// A proxy before `target`, any TCP server.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        Self::start_with(target, false).await
    }

    /// A proxy before a nats-server at `url`.
    pub(crate) async fn nats(url: &str) -> Self {
        let target = url.strip_prefix("nats://").unwrap().parse().unwrap();
        Self::start_with(target, true).await
    }

    async fn start_with(target: SocketAddr, nats: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Self {
            addr: listener.local_addr().unwrap(),
            weather: watch::Sender::new(Weather::Clear),
            losses: Arc::default(),
            tasks: Tasks::default(),
        };
        let (weather, tasks) = (proxy.weather.subscribe(), proxy.tasks.clone());
        let losses = nats.then(|| proxy.losses.clone());
        proxy.tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let link = Link {
                    weather: weather.clone(),
                    losses: losses.clone(),
                };
                tasks.spawn(link.run(client, target));
            }
        });
        proxy
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens, as NATS URLs.
    pub(crate) fn urls(&self) -> [String; 1] {
        [format!("nats://{}", self.addr)]
    }

    /// Changes the weather, for connections that exist and those to come.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Cuts all connections; new ones are made again.
    pub(crate) async fn cut(&self) {
        self.set(Weather::Cut);
        until("all connections are cut", || async {
            (self.tasks.count() == 1).then_some(())
        })
        .await;
        self.set(Weather::Clear);
    }

    /// What it loses on the way from nats-server.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// How many messages it has lost.
    pub(crate) fn lost(&self) -> u64 {
        self.losses.lost.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Link {
    weather: watch::Receiver<Weather>,
    losses: Option<Arc<Losses>>,
}

impl Link {
    async fn run(self, client: TcpStream, target: SocketAddr) {
        let mut weather = self.weather.clone();
        if *weather.borrow() == Weather::Cut {
            return;
        }
        // A black hole takes connections, and the other side never hears of them.
        if let Err(_gone) = weather.wait_for(|weather| *weather != Weather::BlackHole).await {
            return;
        }
        let socket = TcpSocket::new_v4().unwrap();
        if matches!(*self.weather.borrow(), Weather::Slow(_)) {
            let _ = socket.set_recv_buffer_size(SLOW_BUFFER);
        }
        let Ok(server) = socket.connect(target).await else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let filter = self.losses.clone().map(Filter::new);
        tokio::select! {
            () = self.clone().carry(from_client, to_server, None, false) => {}
            () = self.clone().carry(from_server, to_client, filter, true) => {}
            _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
        }
    }

    /// Carries one direction until it ends.
    async fn carry(
        self,
        mut from: tcp::OwnedReadHalf,
        to: tcp::OwnedWriteHalf,
        mut filter: Option<Filter>,
        towards_client: bool,
    ) {
        let (late, on_the_way) = mpsc::channel(LATE_CHUNKS);
        let deliver = self.clone().deliver(on_the_way, to);
        let mut weather = self.weather;
        let read = async move {
            loop {
                let now = *weather.borrow();
                let size = match now {
                    Weather::Slow(rate) if towards_client => {
                        (usize::try_from(rate).unwrap() / 20).clamp(1, CHUNK)
                    }
                    _ => CHUNK,
                };
                if !past_black_hole(&mut weather).await {
                    return;
                }
                let mut chunk = vec![0; size];
                let Ok(read @ 1..) = from.read(&mut chunk).await else {
                    return;
                };
                chunk.truncate(read);
                if let Some(filter) = &mut filter {
                    chunk = filter.pass(&chunk);
                }
                let now = *weather.borrow_and_update();
                let at = match now {
                    Weather::Late(delay) => Instant::now() + delay,
                    _ => Instant::now(),
                };
                if late.send((at, chunk)).await.is_err() {
                    return;
                }
                if let (Weather::Slow(rate), true) = (now, towards_client) {
                    sleep(Duration::from_secs(1).mul_f64(read as f64 / rate as f64)).await;
                }
            }
        };
        tokio::join!(read, deliver);
    }

    async fn deliver(self, mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: tcp::OwnedWriteHalf) {
        let mut weather = self.weather;
        while let Some((at, chunk)) = chunks.recv().await {
            sleep_until(at).await;
            if !past_black_hole(&mut weather).await || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until something passes; false if the proxy is gone.
async fn past_black_hole(weather: &mut watch::Receiver<Weather>) -> bool {
    let passes = weather.wait_for(|weather| *weather != Weather::BlackHole).await;
    passes.is_ok()
}
