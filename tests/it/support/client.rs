//! A client that behaves like a Centrifuge SDK: it keeps its positions, subscribes again when it is
//! told to, comes back after a disconnect with recovery, answers pings; and it writes down all it
//! saw, in order.

mod link;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};
use slipstream::task::Tasks;
use tokio::sync::{mpsc, oneshot, watch};

use self::link::{Link, Order};
use super::{PATIENCE, within};

/// Something a subscriber saw on a channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    /// A subscribe was answered with this position.
    Subscribed {
        /// The offset it asked to recover from, if it did.
        asked: Option<u64>,
        /// Whether that was granted.
        recovered: bool,
        offset: u64,
        epoch: String,
    },
    /// A publication, recovered or live.
    Publication { offset: u64, data: Value },
    /// An unsubscribe push.
    Unsubscribed(u16),
    /// A subscribe was refused.
    Refused(u16),
}

/// What a client has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// By channel.
    pub(crate) channels: BTreeMap<String, Channel>,
    /// How often it has been connected.
    pub(crate) connects: usize,
    /// The codes of closed connections; 0 if there was none.
    pub(crate) closes: Vec<u16>,
    /// Whether it is connected now.
    pub(crate) connected: bool,
    /// Pings that came.
    pub(crate) pings: usize,
    /// Connections given up because the server did not answer in time, as SDKs do.
    pub(crate) timeouts: usize,
}

/// What a client has seen of one channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channel {
    /// Everything, in order.
    pub(crate) seen: Vec<Seen>,
    /// Where it stands.
    pub(crate) position: Option<(u64, String)>,
    /// Whether it is subscribed now.
    pub(crate) subscribed: bool,
}

impl Channel {
    /// Its publications' offsets.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        let publications = self.seen.iter().filter_map(|seen| match seen {
            Seen::Publication { offset, .. } => Some(*offset),
            _ => None,
        });
        publications.collect()
    }

    /// What was answered to its recoveries, in order.
    pub(crate) fn recoveries(&self) -> Vec<bool> {
        let answers = self.seen.iter().filter_map(|seen| match seen {
            Seen::Subscribed { asked, recovered, .. } => asked.map(|_| *recovered),
            _ => None,
        });
        answers.collect()
    }

    /// How many subscribes were answered.
    pub(crate) fn subscribes(&self) -> usize {
        let answers = self.seen.iter();
        answers
            .filter(|seen| matches!(seen, Seen::Subscribed { .. }))
            .count()
    }
}

/// A client. Dropping it ends it without a word.
pub(crate) struct Client {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    tasks: Tasks,
}

struct Shared {
    record: Mutex<Record>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn change(&self, how: impl FnOnce(&mut Record)) {
        how(&mut self.record.lock());
        self.changed.send_replace(());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Client {
    /// Connects to an edge, and keeps connecting.
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::connect_with(addr, json!({})).await
    }

    /// The same with this connect request.
    pub(crate) async fn connect_with(addr: SocketAddr, request: Value) -> Self {
        let client = Self::begin(addr, request);
        client
            .wait("connected", |record| record.connected.then_some(()))
            .await;
        client
    }

    /// Begins to connect.
    pub(crate) fn begin(addr: SocketAddr, request: Value) -> Self {
        let shared = Arc::new(Shared {
            record: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let (orders, receiver) = mpsc::unbounded_channel();
        let tasks = Tasks::default();
        tasks.spawn(Link::new(shared.clone(), receiver, addr, request).run());
        Self {
            shared,
            orders,
            tasks,
        }
    }

    /// Subscribes and waits until that is answered.
    pub(crate) async fn subscribe(&self, channel: &str) {
        self.begin_subscribe(channel, None);
        self.wait(format!("subscribed to {channel}"), |record| {
            record.channels.get(channel)?.subscribed.then_some(())
        })
        .await;
    }

    /// Begins to subscribe, perhaps from a position that the client has from somewhere.
    pub(crate) fn begin_subscribe(&self, channel: &str, position: Option<(u64, String)>) {
        self.shared.change(|record| {
            let channel = record.channels.entry(channel.to_owned()).or_default();
            channel.position = position;
        });
        self.order(Order::Subscribe(channel.to_owned()));
    }

    /// Sends a command, like `{"publish": {..}}`, and returns its reply.
    pub(crate) async fn command(&self, command: Value) -> Value {
        let (reply, replied) = oneshot::channel();
        self.order(Order::Command(command, reply));
        within(replied).await.expect("connected until the reply came")
    }

    /// Loses the connection, and stays away.
    pub(crate) async fn go_offline(&self) {
        self.order(Order::Offline);
        self.wait("offline", |record| (!record.connected).then_some(()))
            .await;
    }

    /// From now on connects to this edge; a connection to another one is left without a word.
    pub(crate) fn move_to(&self, addr: SocketAddr) {
        self.order(Order::Target(addr));
    }

    /// The next time it connects, connects to this edge.
    pub(crate) fn follow_to(&self, addr: SocketAddr) {
        self.order(Order::Next(addr));
    }

    /// Moves to this edge, and waits until it is connected there.
    pub(crate) async fn reconnect_to(&self, addr: SocketAddr) {
        let before = self.record().connects;
        self.move_to(addr);
        self.wait("connected again", |record| {
            (record.connected && record.connects > before).then_some(())
        })
        .await;
    }

    /// What it has seen.
    pub(crate) fn record(&self) -> Record {
        self.shared.record.lock().clone()
    }

    /// What it has seen of a channel.
    pub(crate) fn channel(&self, channel: &str) -> Channel {
        self.shared
            .record
            .lock()
            .channels
            .get(channel)
            .cloned()
            .unwrap_or_default()
    }

    /// Where it stands on a channel.
    pub(crate) fn position(&self, channel: &str) -> (u64, String) {
        self.channel(channel).position.expect("subscribed once")
    }

    /// Waits until it has seen what is asked for.
    #[track_caller]
    pub(crate) fn wait<T>(
        &self,
        what: impl Into<String>,
        mut ask: impl FnMut(&Record) -> Option<T>,
    ) -> impl Future<Output = T> {
        let caller = std::panic::Location::caller();
        let what = what.into();
        async move {
            let mut changed = self.shared.changed.subscribe();
            let waited = tokio::time::timeout(PATIENCE, async {
                loop {
                    if let Some(found) = ask(&self.shared.record.lock()) {
                        return found;
                    }
                    changed.changed().await.unwrap();
                }
            });
            match waited.await {
                Ok(found) => found,
                Err(_) => panic!(
                    "{what}: not within {PATIENCE:?} at {caller}; seen: {}",
                    self.summary()
                ),
            }
        }
    }

    /// Waits until it has seen the publication at this offset of a channel, or one behind it.
    #[track_caller]
    pub(crate) fn wait_for(&self, channel: &str, offset: u64) -> impl Future<Output = ()> {
        let what = format!("{channel} up to {offset}");
        let channel = channel.to_owned();
        self.wait(what, move |record| {
            let seen = record.channels.get(&channel)?.seen.iter().rev();
            let mut of_stretch =
                seen.take_while(|seen| !matches!(seen, Seen::Subscribed { recovered: false, .. }));
            let last = of_stretch.find_map(|seen| match seen {
                Seen::Publication { offset, .. } => Some(*offset),
                _ => None,
            });
            (last? >= offset).then_some(())
        })
    }

    /// The end of what it has seen, for messages of failed tests.
    pub(crate) fn summary(&self) -> String {
        let record = self.shared.record.lock();
        let channels = record.channels.iter().map(|(name, channel)| {
            let last = &channel.seen[channel.seen.len().saturating_sub(6)..];
            format!(
                "{name}: subscribed {}, position {:?}, {} events, the last {last:?}",
                channel.subscribed,
                channel.position,
                channel.seen.len()
            )
        });
        format!(
            "connected {} (the {}.), closed with {:?}, {} timeouts\n{}",
            record.connected,
            record.connects,
            record.closes,
            record.timeouts,
            channels.collect::<Vec<_>>().join("\n")
        )
    }

    fn order(&self, order: Order) {
        // It fails only if the task has ended, which the next wait tells.
        let _ = self.orders.send(order);
    }
}
