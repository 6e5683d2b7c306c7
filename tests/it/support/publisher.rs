//! A publisher as careful backends are: each publication has an idempotency key and is sent again
//! until it is acknowledged, by whatever edge.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use slipstream::task::Tasks;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::{interval, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::within;

/// Publications it has in flight: below what an edge allows a connection.
const IN_FLIGHT: usize = 64;
/// An edge that says nothing for so long, while something is in flight, is given up.
const SILENCE: Duration = Duration::from_secs(7);
const BACKOFF: Duration = Duration::from_millis(50);

/// A publication that was acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Acked {
    /// The text in its payload, unique in the test.
    pub(crate) id: String,
    pub(crate) offset: u64,
    pub(crate) epoch: String,
    /// It had been stored by an earlier attempt.
    pub(crate) duplicate: bool,
}

/// What has been published, by all publishers of a test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published(Arc<Mutex<BTreeMap<String, Vec<Acked>>>>);

impl Published {
    /// The acknowledged publications of a channel by offset, for each epoch.
    pub(crate) fn of(&self, channel: &str) -> Vec<Acked> {
        let mut acked = self.0.lock().get(channel).cloned().unwrap_or_default();
        acked.sort_by_key(|acked| acked.offset);
        acked
    }

    /// The last one of a channel that was acknowledged.
    pub(crate) fn last(&self, channel: &str) -> Acked {
        let published = self.0.lock();
        published
            .get(channel)
            .and_then(|acked| acked.last().cloned())
            .expect("published once")
    }

    /// Adds one that somebody else has published.
    pub(crate) fn add(&self, channel: &str, acked: Acked) {
        self.0.lock().entry(channel.to_owned()).or_default().push(acked);
    }
}

struct Item {
    channel: String,
    id: String,
    pad: usize,
    done: Option<oneshot::Sender<Acked>>,
}

/// A publisher. Dropping it ends it; what is in flight then may be stored or not.
pub(crate) struct Publisher {
    published: Published,
    queue: mpsc::UnboundedSender<Item>,
    target: watch::Sender<SocketAddr>,
    tasks: Tasks,
    number: u64,
    next: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// The publishers of the process, so that all ids differ.
static PUBLISHERS: AtomicU64 = AtomicU64::new(0);

impl Publisher {
    /// A publisher at an edge.
    pub(crate) fn start(addr: SocketAddr) -> Self {
        Self::start_into(addr, Published::default())
    }

    /// The same, adding to what others have published.
    pub(crate) fn start_into(addr: SocketAddr, published: Published) -> Self {
        let (queue, receiver) = mpsc::unbounded_channel();
        let (target, targets) = watch::channel(addr);
        let tasks = Tasks::default();
        let refused: Arc<AtomicU64> = Arc::default();
        tasks.spawn(
            Task {
                queue: receiver,
                targets,
                published: published.clone(),
                refused: refused.clone(),
                unsent: VecDeque::new(),
                flying: HashMap::new(),
                last_id: 1,
            }
            .run(),
        );
        Self {
            published,
            queue,
            target,
            tasks,
            number: PUBLISHERS.fetch_add(1, Ordering::Relaxed),
            next: Arc::default(),
            refused,
        }
    }

    /// What has been acknowledged so far.
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// A publisher that sends the same publications again, with the same keys, at another edge.
    pub(crate) fn twin(&self, addr: SocketAddr) -> Self {
        let mut twin = Self::start_into(addr, self.published.clone());
        twin.number = self.number;
        twin
    }

    /// How often an edge did not acknowledge a publication.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// From now on publishes there, also what is not acknowledged yet.
    pub(crate) fn move_to(&self, addr: SocketAddr) {
        self.target.send_replace(addr);
    }

    /// Publishes one, and waits until it is acknowledged.
    pub(crate) async fn one(&self, channel: &str) -> Acked {
        within(self.begin(channel, 0)).await.unwrap()
    }

    /// Publishes several in a row, and waits until all are acknowledged. Returns the last.
    pub(crate) async fn many(&self, channel: &str, count: usize) -> Acked {
        self.many_of(channel, count, 0).await
    }

    /// The same, with payloads of about `size` bytes.
    pub(crate) async fn many_of(&self, channel: &str, count: usize, size: usize) -> Acked {
        let sent: Vec<_> = (0..count).map(|_| self.begin(channel, size)).collect();
        let mut last = None;
        for acked in sent {
            last = Some(within(acked).await.unwrap());
        }
        last.unwrap()
    }

    /// Queues one; resolves when it is acknowledged.
    pub(crate) fn begin(&self, channel: &str, size: usize) -> oneshot::Receiver<Acked> {
        let (done, acked) = oneshot::channel();
        let _ = self.queue.send(Item {
            channel: channel.to_owned(),
            id: format!("{}-{}", self.number, self.next.fetch_add(1, Ordering::Relaxed)),
            pad: size,
            done: Some(done),
        });
        acked
    }

    /// Publishes to these channels in turn, one each `every`, until told to stop.
    pub(crate) fn steadily(&self, channels: &[&str], every: Duration) -> Steady {
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (last, finished) = oneshot::channel();
        let (queue, number, next) = (self.queue.clone(), self.number, self.next.clone());
        self.tasks.spawn(async move {
            let mut waiting = Vec::new();
            let mut ticks = interval(every);
            for channel in channels.iter().cycle() {
                tokio::select! {
                    _ = &mut stopped => break,
                    _ = ticks.tick() => {}
                }
                let (done, acked) = oneshot::channel();
                let _ = queue.send(Item {
                    channel: channel.clone(),
                    id: format!("{number}-{}", next.fetch_add(1, Ordering::Relaxed)),
                    pad: 0,
                    done: Some(done),
                });
                waiting.push(acked);
            }
            let _ = last.send(waiting);
        });
        Steady { stop, finished }
    }
}

/// Publishing that goes on.
pub(crate) struct Steady {
    stop: oneshot::Sender<()>,
    finished: oneshot::Receiver<Vec<oneshot::Receiver<Acked>>>,
}

impl Steady {
    /// Stops, and waits until everything is acknowledged. Returns how many there were.
    pub(crate) async fn stop(self) -> usize {
        let _ = self.stop.send(());
        let waiting = within(self.finished).await.unwrap();
        let count = waiting.len();
        within(async {
            for acked in waiting {
                acked.await.unwrap();
            }
        })
        .await;
        count
    }
}

struct Task {
    queue: mpsc::UnboundedReceiver<Item>,
    targets: watch::Receiver<SocketAddr>,
    published: Published,
    refused: Arc<AtomicU64>,
    unsent: VecDeque<Item>,
    flying: HashMap<u64, Item>,
    last_id: u64,
}

impl Task {
    async fn run(mut self) {
        loop {
            let target = *self.targets.borrow_and_update();
            if let Some(socket) = connect(target).await {
                self.serve(socket).await;
            }
            // In the order they were sent in.
            let mut back: Vec<_> = self.flying.drain().collect();
            back.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
            for (_, item) in back {
                self.unsent.push_front(item);
            }
            sleep(BACKOFF).await;
        }
    }

    /// Until the connection is of no use any more.
    async fn serve(&mut self, mut socket: WebSocketStream<TcpStream>) {
        loop {
            while self.flying.len() < IN_FLIGHT {
                let Some(item) = self.unsent.pop_front() else {
                    break;
                };
                if self.send(&mut socket, item).await.is_err() {
                    return;
                }
            }
            let silence = if self.flying.is_empty() {
                Duration::from_secs(3_600)
            } else {
                SILENCE
            };
            tokio::select! {
                item = self.queue.recv() => match item {
                    Some(item) => self.unsent.push_back(item),
                    None => return,
                },
                _ = self.targets.changed() => return,
                message = timeout(silence, socket.next()) => match message {
                    Ok(Some(Ok(Message::Text(frame)))) => {
                        for line in frame.split('\n').filter(|line| !line.is_empty()) {
                            let reply: Value = serde_json::from_str(line).unwrap();
                            if reply.as_object().is_some_and(serde_json::Map::is_empty) {
                                if socket.send(Message::text("{}")).await.is_err() {
                                    return;
                                }
                            } else {
                                self.on_reply(&reply);
                            }
                        }
                    }
                    _ => return,
                },
            }
        }
    }

    async fn send(&mut self, socket: &mut WebSocketStream<TcpStream>, item: Item) -> Result<(), ()> {
        self.last_id += 1;
        let id = self.last_id;
        let mut data = json!({"id": item.id});
        if item.pad > 0 {
            data["pad"] = "x".repeat(item.pad).into();
        }
        let publish = json!({
            "channel": item.channel,
            "data": data,
            "idempotency_key": item.id,
        });
        self.flying.insert(id, item);
        let command = json!({"id": id, "publish": publish});
        socket
            .send(Message::text(command.to_string()))
            .await
            .map_err(drop)
    }

    fn on_reply(&mut self, reply: &Value) {
        let Some(item) = reply["id"].as_u64().and_then(|id| self.flying.remove(&id)) else {
            return;
        };
        if let Some(error) = reply.get("error") {
            // Outcome unknown (200) is tried again like what is temporary: the key makes it safe.
            let again = error["temporary"] == true || error["code"] == 200;
            assert!(again, "{} is refused: {error}", item.channel);
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.unsent.push_front(item);
            return;
        }
        let result = &reply["publish"];
        let acked = Acked {
            offset: result["offset"].as_u64().unwrap_or(0),
            epoch: result["epoch"].as_str().unwrap_or("").to_owned(),
            duplicate: result["duplicate"] == true,
            id: item.id,
        };
        self.published.add(&item.channel, acked.clone());
        if let Some(done) = item.done {
            let _ = done.send(acked);
        }
    }
}

async fn connect(target: SocketAddr) -> Option<WebSocketStream<TcpStream>> {
    let connecting = async {
        let stream = TcpStream::connect(target).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let url = format!("ws://{target}/connection/websocket");
        let (mut socket, _) = client_async(url, stream).await.ok()?;
        let connect = json!({"id": 1, "connect": {}});
        socket.send(Message::text(connect.to_string())).await.ok()?;
        match socket.next().await?.ok()? {
            Message::Text(reply) if reply.contains("connect") => Some(socket),
            _ => None,
        }
    };
    timeout(SILENCE, connecting).await.ok()?
}
