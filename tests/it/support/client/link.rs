use std::{collections::HashMap, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, protocol::CloseFrame},
};

use super::{Seen, Shared};

/// What SDKs wait for a reply; then they reconnect.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much later than announced a ping may come.
const PING_SLACK: Duration = Duration::from_secs(10);
/// Between attempts; SDKs wait longer.
const BACKOFF: Duration = Duration::from_millis(100);

/// What the client is told by the test.
pub(super) enum Order {
    Subscribe(String),
    Command(Value, oneshot::Sender<Value>),
    Target(SocketAddr),
    Next(SocketAddr),
    Offline,
}

enum Waiting {
    Subscribe { channel: String, asked: Option<u64> },
    Command(oneshot::Sender<Value>),
}

type Socket = WebSocketStream<TcpStream>;

/// The client's task.
pub(super) struct Link {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedReceiver<Order>,
    target: Option<SocketAddr>,
    request: Value,
    wanted: Vec<String>,
    last_id: u64,
}

/// What lives as long as one connection.
struct Live {
    socket: Socket,
    waiting: HashMap<u64, (Waiting, Instant)>,
    again: Vec<(Instant, String)>,
    silent_at: Instant,
    ping: Duration,
}

/// Why a connection was left.
enum Left {
    Closed(u16),
    TimedOut,
    Told,
}

impl Link {
    pub(super) fn new(
        shared: Arc<Shared>,
        orders: mpsc::UnboundedReceiver<Order>,
        target: SocketAddr,
        request: Value,
    ) -> Self {
        Self {
            shared,
            orders,
            target: Some(target),
            request,
            wanted: Vec::new(),
            last_id: 0,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Some(target) = self.target else {
                match self.orders.recv().await {
                    Some(order) => self.offline(order),
                    None => return,
                }
                continue;
            };
            let Ok(Some(live)) = timeout(REPLY_TIMEOUT, self.connect(target)).await else {
                self.pause().await;
                continue;
            };
            self.shared.change(|record| {
                record.connected = true;
                record.connects += 1;
            });
            let left = self.serve(live).await;
            self.shared.change(|record| {
                record.connected = false;
                match left {
                    Left::Closed(code) => record.closes.push(code),
                    Left::TimedOut => record.timeouts += 1,
                    Left::Told => {}
                }
                for channel in record.channels.values_mut() {
                    channel.subscribed = false;
                }
            });
            if matches!(left, Left::Closed(3500..=3999)) {
                // Terminal: SDKs do not come back by themselves.
                self.target = None;
            } else if !matches!(left, Left::Told) {
                self.pause().await;
            }
        }
    }

    /// Waits before the next attempt, unless there is something to do.
    async fn pause(&mut self) {
        if let Ok(order) = timeout(BACKOFF, self.orders.recv()).await {
            match order {
                Some(order) => self.offline(order),
                None => pending().await,
            }
        }
    }

    /// What an order does while there is no connection.
    fn offline(&mut self, order: Order) {
        match order {
            Order::Subscribe(channel) => self.wanted.push(channel),
            // Dropping its sender tells that there is no reply.
            Order::Command(..) => {}
            Order::Target(addr) | Order::Next(addr) => self.target = Some(addr),
            Order::Offline => self.target = None,
        }
    }

    async fn connect(&mut self, target: SocketAddr) -> Option<Live> {
        let stream = TcpStream::connect(target).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let url = format!("ws://{target}/connection/websocket");
        let (socket, _) = client_async(url, stream).await.ok()?;
        let mut live = Live {
            socket,
            waiting: HashMap::new(),
            again: Vec::new(),
            silent_at: Instant::now() + REPLY_TIMEOUT,
            ping: Duration::ZERO,
        };
        let id = self.id();
        let connect = json!({"id": id, "connect": self.request});
        live.socket.send(text(&connect)).await.ok()?;
        let reply = loop {
            let Message::Text(frame) = live.socket.next().await?.ok()? else {
                return None;
            };
            if let Some(reply) = replies(&frame).find(|reply| reply["id"] == id) {
                break reply;
            }
        };
        reply.get("connect")?;
        live.ping = Duration::from_secs(reply["connect"]["ping"].as_u64().unwrap_or(0));
        live.heard();
        for channel in self.wanted.clone() {
            self.subscribe(&mut live, channel).await.ok()?;
        }
        Some(live)
    }

    async fn serve(&mut self, mut live: Live) -> Left {
        loop {
            let deadline = live.deadline();
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Left::Told,
                    Some(order) => if let Some(left) = self.obey(&mut live, order).await {
                        return left;
                    }
                },
                message = live.socket.next() => match message {
                    Some(Ok(Message::Text(frame))) => {
                        live.heard();
                        for reply in replies(&frame) {
                            if self.on_reply(&mut live, reply).await.is_err() {
                                return Left::Closed(0);
                            }
                        }
                    }
                    Some(Ok(Message::Close(frame))) => return Left::Closed(code(frame.as_ref())),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Left::Closed(0),
                },
                () = sleep_until(deadline) => {
                    let now = Instant::now();
                    let late = live.waiting.values().any(|(_, deadline)| *deadline <= now);
                    if late || live.silent_at <= now {
                        return Left::TimedOut;
                    }
                    let due: Vec<_> = live.again.extract_if(.., |(at, _)| *at <= now).collect();
                    for (_, channel) in due {
                        if self.subscribe(&mut live, channel).await.is_err() {
                            return Left::Closed(0);
                        }
                    }
                }
            }
        }
    }

    async fn obey(&mut self, live: &mut Live, order: Order) -> Option<Left> {
        let sent = match order {
            Order::Subscribe(channel) => {
                self.wanted.push(channel.clone());
                self.subscribe(live, channel).await
            }
            Order::Command(command, reply) => self.send(live, command, Waiting::Command(reply)).await,
            Order::Target(addr) => {
                self.target = Some(addr);
                return Some(Left::Told);
            }
            Order::Next(addr) => {
                self.target = Some(addr);
                Ok(())
            }
            Order::Offline => {
                self.target = None;
                return Some(Left::Told);
            }
        };
        sent.err().map(|()| Left::Closed(0))
    }

    async fn subscribe(&mut self, live: &mut Live, channel: String) -> Result<(), ()> {
        let position = self
            .shared
            .record
            .lock()
            .channels
            .get(&channel)
            .and_then(|known| known.position.clone());
        let mut request = json!({"channel": channel});
        let asked = position.as_ref().map(|(offset, _)| *offset);
        if let Some((offset, epoch)) = position {
            request["recover"] = true.into();
            request["offset"] = offset.into();
            request["epoch"] = epoch.into();
        }
        let command = json!({"subscribe": request});
        self.send(live, command, Waiting::Subscribe { channel, asked })
            .await
    }

    async fn send(&mut self, live: &mut Live, mut command: Value, waiting: Waiting) -> Result<(), ()> {
        let id = self.id();
        command["id"] = id.into();
        live.waiting.insert(id, (waiting, Instant::now() + REPLY_TIMEOUT));
        live.socket.send(text(&command)).await.map_err(drop)
    }

    async fn on_reply(&mut self, live: &mut Live, reply: Value) -> Result<(), ()> {
        if reply.as_object().is_some_and(serde_json::Map::is_empty) {
            self.shared.change(|record| record.pings += 1);
            return live.socket.send(Message::text("{}")).await.map_err(drop);
        }
        if let Some(push) = reply.get("push") {
            self.on_push(live, push);
            return Ok(());
        }
        let waiting = reply["id"].as_u64().and_then(|id| live.waiting.remove(&id));
        match waiting.expect("a reply to nothing").0 {
            Waiting::Subscribe { channel, asked } => self.on_subscribed(live, channel, asked, &reply),
            Waiting::Command(done) => drop(done.send(reply)),
        }
        Ok(())
    }

    fn on_subscribed(&mut self, live: &mut Live, name: String, asked: Option<u64>, reply: &Value) {
        if let Some(error) = reply.get("error") {
            let code = number(&error["code"]);
            if error["temporary"] == true {
                live.again.push((Instant::now() + BACKOFF, name.clone()));
            }
            self.shared.change(|record| {
                let channel = record.channels.entry(name).or_default();
                channel.seen.push(Seen::Refused(code));
            });
            return;
        }
        let result = &reply["subscribe"];
        assert_eq!(result["was_recovering"] == true, asked.is_some(), "{reply}");
        let offset = result["offset"].as_u64().unwrap_or(0);
        let epoch = result["epoch"].as_str().unwrap_or("").to_owned();
        let recoverable = result["recoverable"] == true;
        self.shared.change(|record| {
            let channel = record.channels.entry(name).or_default();
            channel.subscribed = true;
            channel.seen.push(Seen::Subscribed {
                asked,
                recovered: result["recovered"] == true,
                offset,
                epoch: epoch.clone(),
            });
            channel.position = recoverable.then_some((offset, epoch));
            for publication in result["publications"].as_array().into_iter().flatten() {
                channel.see(publication);
            }
        });
    }

    fn on_push(&mut self, live: &mut Live, push: &Value) {
        let name = push["channel"].as_str().unwrap_or("").to_owned();
        if let Some(publication) = push.get("pub") {
            self.shared
                .change(|record| record.channels.entry(name).or_default().see(publication));
        } else if let Some(unsubscribe) = push.get("unsubscribe") {
            let code = number(&unsubscribe["code"]);
            self.shared.change(|record| {
                let channel = record.channels.entry(name.clone()).or_default();
                channel.subscribed = false;
                channel.seen.push(Seen::Unsubscribed(code));
            });
            if code >= 2500 {
                live.again.push((Instant::now(), name));
            }
        }
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl super::Channel {
    fn see(&mut self, publication: &Value) {
        let offset = publication["offset"].as_u64().unwrap_or(0);
        if offset > 0
            && let Some(position) = &mut self.position
        {
            position.0 = offset;
        }
        self.seen.push(Seen::Publication {
            offset,
            data: publication["data"].clone(),
        });
    }
}

impl Live {
    fn heard(&mut self) {
        let silence = if self.ping.is_zero() {
            Duration::from_secs(3_600)
        } else {
            self.ping + PING_SLACK
        };
        self.silent_at = Instant::now() + silence;
    }

    fn deadline(&self) -> Instant {
        let waiting = self.waiting.values().map(|(_, deadline)| *deadline);
        let again = self.again.iter().map(|(at, _)| *at);
        waiting.chain(again).fold(self.silent_at, Instant::min)
    }
}

fn text(command: &Value) -> Message {
    Message::text(command.to_string())
}

fn replies(frame: &str) -> impl Iterator<Item = Value> {
    let lines = frame.split('\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).expect("each line is a reply"))
}

fn code(frame: Option<&CloseFrame>) -> u16 {
    frame.map_or(0, |frame| frame.code.into())
}

fn number(code: &Value) -> u16 {
    code.as_u64()
        .and_then(|code| u16::try_from(code).ok())
        .unwrap_or(0)
}
