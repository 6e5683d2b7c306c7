//! A link against a server that this test plays.

use std::{future::poll_fn, time::Duration};

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::broadcast::Receiver,
    time::timeout,
};

use super::{Inflow, Link, NotSent, Purpose};
use crate::{
    config::{NatsConfig, Secret},
    log::{
        LogEvent, Route, ShardId,
        nats::{events::Events, format::Names, patience::Unanswered},
    },
    model::{AppId, ChannelKey, ChannelName},
    task::Tasks,
};

const SOON: Duration = Duration::from_secs(10);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("in time")
}

/// The server's end of one connection.
struct Peer(BufReader<TcpStream>);

impl Peer {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        within(self.0.read_line(&mut line)).await.unwrap();
        line.trim_end().to_owned()
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn say_message(&mut self, sid: &str, payload: &str) {
        let len = payload.len();
        self.say(&format!("MSG l.x {sid} {len}\r\n{payload}\r\n")).await;
    }

    /// Takes the next subscription; its subject and its number.
    async fn subscribed(&mut self) -> (String, String) {
        let line = self.line().await;
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!((words.len(), words[0]), (3, "SUB"), "{line}");
        (words[1].to_owned(), words[2].to_owned())
    }
}

struct Stage {
    listener: TcpListener,
    nats: NatsConfig,
    events: Events,
    heard: Receiver<LogEvent>,
    tasks: Tasks,
}

impl Stage {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let events = Events::new();
        let nats = NatsConfig {
            servers: vec![format!("nats://{}", listener.local_addr().unwrap())],
            user: None,
            password: None,
            token: None,
            credentials: None,
            ca_file: None,
            connect_timeout: SOON,
            ping_interval: Duration::from_secs(3),
            max_reconnect_delay: Duration::from_secs(1),
            start_timeout: SOON,
            request_timeout: SOON,
            request_timeout_max: SOON,
            subscription_capacity: 2,
            watch_capacity: 2,
            answer_bytes: 1_024,
            command_capacity: 8,
        };
        Self {
            listener,
            nats,
            heard: events.subscribe(),
            events,
            tasks: Tasks::default(),
        }
    }

    /// Accepts a connection as far as CONNECT, and answers it with `answer`.
    async fn accept(&self, answer: &str) -> (Peer, serde_json::Value) {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        let mut peer = Peer(BufReader::new(stream));
        peer.say("INFO {\"server_id\":\"x\",\"nonce\":\"n\",\"max_payload\":32}\r\n")
            .await;
        let line = peer.line().await;
        let connect = line.strip_prefix("CONNECT ").expect("a CONNECT");
        let connect = serde_json::from_str(connect).unwrap();
        assert_eq!(peer.line().await, "PING");
        peer.say(answer).await;
        (peer, connect)
    }

    async fn accept_link(&self) -> Peer {
        let (mut peer, _) = self.accept("PONG\r\n").await;
        let (inbox, sid) = peer.subscribed().await;
        assert!(inbox.starts_with("_INBOX.") && inbox.ends_with(".*"), "{inbox}");
        assert_eq!(sid, "1");
        peer
    }

    async fn start(&self) -> Result<Link, crate::log::nats::StartError> {
        self.start_for(Purpose::Live(self.events.clone())).await
    }

    async fn start_for(&self, purpose: Purpose) -> Result<Link, crate::log::nats::StartError> {
        let names = Names::new("slip").unwrap();
        within(Link::start(&self.nats, &names, purpose, &self.tasks)).await
    }

    async fn both(&self) -> (Link, Peer) {
        let (link, peer) = tokio::join!(self.start(), self.accept_link());
        (link.unwrap(), peer)
    }

    async fn event(&mut self) -> LogEvent {
        within(self.heard.recv()).await.unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

fn route(name: &str, shard: Option<u16>) -> Route {
    let key = ChannelKey {
        app: AppId::new("dev").unwrap(),
        name: ChannelName::new(name).unwrap(),
    };
    Route::new(key, shard.map(ShardId), name.to_owned())
}

async fn next(inflow: &mut Inflow) -> Bytes {
    within(poll_fn(|cx| inflow.poll_next(cx))).await.payload()
}

#[tokio::test]
async fn copies_come_to_their_subscription_until_it_is_dropped() {
    let stage = Stage::new().await;
    let (link, mut peer) = stage.both().await;
    let mut one = link.subscribe(&route("one", Some(0))).await;
    let mut two = link.subscribe(&route("two", None)).await;
    let (subject, first) = peer.subscribed().await;
    assert_eq!(subject, "l.one");
    let (subject, second) = peer.subscribed().await;
    assert_eq!(subject, "e.two");
    peer.say_message(&second, "b").await;
    peer.say_message(&first, "a").await;
    peer.say_message("99", "nobody's").await;
    assert_eq!(
        (next(&mut one).await, next(&mut two).await),
        ("a".into(), "b".into())
    );
    drop(one);
    assert_eq!(peer.line().await, format!("UNSUB {first}"));
}

#[tokio::test]
async fn l10_a_full_subscription_drops_copies_and_spares_the_others() {
    let mut stage = Stage::new().await;
    let (link, mut peer) = stage.both().await;
    let mut noisy = link.subscribe(&route("noisy", Some(0))).await;
    let mut quiet = link.subscribe(&route("quiet", Some(0))).await;
    let (_, loud) = peer.subscribed().await;
    let (_, soft) = peer.subscribed().await;
    for n in 0..9 {
        peer.say_message(&loud, &n.to_string()).await;
    }
    peer.say_message(&soft, "heard").await;
    assert_eq!(next(&mut quiet).await, "heard");
    assert_eq!(
        (next(&mut noisy).await, next(&mut noisy).await),
        ("0".into(), "1".into())
    );
    peer.say_message(&loud, "again").await;
    assert_eq!(next(&mut noisy).await, "again");
    assert_eq!(stage.event().await, LogEvent::Connected);
    // Once for all that were dropped.
    assert_eq!(stage.event().await, LogEvent::SlowConsumer);
    assert!(stage.heard.is_empty());
}

#[tokio::test]
async fn requests_are_answered_by_number_or_not_at_all() {
    let stage = Stage::new().await;
    let (link, mut peer) = stage.both().await;
    let ask = || link.request("q.1", b"{}");
    let answers = async {
        for status in ["", "NATS/1.0 503\r\n\r\n"] {
            let line = peer.line().await;
            let reply = line.split(' ').nth(2).expect("a reply subject").to_owned();
            assert!(
                line.starts_with("PUB q.1 _INBOX.") && line.ends_with(" 2"),
                "{line}"
            );
            assert_eq!(peer.line().await, "{}");
            let (len, total) = (status.len(), status.len() + 2);
            peer.say(&format!("HMSG {reply} 1 {len} {total}\r\n{status}ok\r\n"))
                .await;
        }
    };
    let questions = async { (ask().await, ask().await) };
    let ((), (first, second)) = tokio::join!(answers, questions);
    assert_eq!(first.unwrap().payload(), "ok");
    assert_eq!(second.unwrap_err(), Unanswered::NoResponders);
    drop(peer);
    assert_eq!(
        ask().await.unwrap_err(),
        Unanswered::Silence,
        "the connection ends"
    );
}

#[tokio::test]
async fn l10_an_answer_of_many_messages_ends_with_a_status() {
    let stage = Stage::new().await;
    let (link, mut peer) = stage.both().await;
    let answers = async {
        for count in [0, 3, 4] {
            let line = peer.line().await;
            let reply = line.split(' ').nth(2).expect("a reply subject").to_owned();
            peer.line().await;
            for n in 0..count {
                peer.say(&format!("HMSG {reply} 1 12 13\r\nNATS/1.0\r\n\r\n{n}\r\n"))
                    .await;
            }
            peer.say(&format!("HMSG {reply} 1 20 20\r\nNATS/1.0 204 EOB\r\n\r\n\r\n"))
                .await;
        }
    };
    let ask = || link.request_many("q.1", b"{}", 3);
    let questions = async { (ask().await, ask().await, ask().await) };
    let ((), (none, three, four)) = tokio::join!(answers, questions);
    assert_eq!(none.unwrap().len(), 1);
    let three = three.unwrap();
    assert_eq!(three[2].payload(), "2");
    assert_eq!(three[3].status(), Some((204, "EOB")));
    assert_eq!(four.unwrap_err(), Unanswered::Silence, "more than were asked for");
}

#[tokio::test]
async fn a_round_trip_ends_with_its_own_pong_only() {
    let stage = Stage::new().await;
    let (link, mut peer) = stage.both().await;
    peer.say("PING\r\n").await;
    assert_eq!(peer.line().await, "PONG");
    let (back, ()) = tokio::join!(link.round_trip(SOON), async {
        assert_eq!(peer.line().await, "PING");
        peer.say("+OK\r\nPONG\r\n").await;
    });
    assert_eq!(back, Ok(()));
}

#[tokio::test]
async fn a_new_connection_begins_with_all_subscriptions() {
    let mut stage = Stage::new().await;
    let (link, mut peer) = stage.both().await;
    let mut kept = link.subscribe(&route("kept", Some(0))).await;
    let left = link.subscribe(&route("left", Some(0))).await;
    let (_, sid) = peer.subscribed().await;
    peer.subscribed().await;
    assert_eq!(stage.event().await, LogEvent::Connected);
    // The lame duck and the broken line end alike.
    for goodbye in ["INFO {\"ldm\":true}\r\n", "nonsense\r\n", ""] {
        peer.say(goodbye).await;
        if goodbye.is_empty() {
            drop(peer);
        }
        assert_eq!(stage.event().await, LogEvent::Disconnected);
        assert!(!link.is_connected());
        assert_eq!(link.round_trip(SOON).await, Err(Unanswered::Silence));
        peer = stage.accept_link().await;
        assert_eq!(stage.event().await, LogEvent::Connected);
        let mut again = [peer.subscribed().await, peer.subscribed().await];
        again.sort();
        assert_eq!([&*again[0].0, &*again[1].0], ["l.kept", "l.left"]);
        peer.say_message(&sid, goodbye).await;
        assert_eq!(next(&mut kept).await, goodbye);
    }
    drop(left);
    assert!(peer.line().await.starts_with("UNSUB"));
}

#[tokio::test]
async fn what_has_no_room_to_be_written_waits() {
    let stage = Stage::new().await;
    let (link, mut peer) = stage.both().await;
    let channels: Vec<_> = (0..50).map(|n| route(&format!("c{n}"), Some(0))).collect();
    let (flows, ()) = tokio::join!(
        futures_util::future::join_all(channels.iter().map(|channel| link.subscribe(channel))),
        async {
            let mut seen = Vec::new();
            for _ in 0..50 {
                seen.push(peer.subscribed().await.0);
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 50);
        }
    );
    assert_eq!(flows.len(), 50);
}

#[tokio::test]
async fn l14_publications_go_out_in_order_and_are_bounded() {
    let stage = Stage::new().await;
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let purpose = Purpose::Publish {
        commands: 3,
        on_answer: Box::new(move |number, raw| sender.send((number, raw.payload())).unwrap()),
    };
    let (link, mut peer) = tokio::join!(stage.start_for(purpose), stage.accept_link());
    let link = link.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Slip", "1j");
    let publish = |number, payload| link.publish("h.x", Some(number), &headers, payload);

    // The link has no turn to write before the next await.
    for number in 0..3 {
        assert_eq!(publish(number, b"{}"), Ok(()));
    }
    assert_eq!(publish(3, b"{}"), Err(NotSent::Full));
    for number in 0..3 {
        let line = peer.line().await;
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(
            (words[0], words[1], words[3], words[4]),
            ("HPUB", "h.x", "22", "24")
        );
        assert!(words[2].ends_with(&format!(".{number}")), "{line}");
        for expected in ["NATS/1.0", "Slip: 1j", "", "{}"] {
            assert_eq!(peer.line().await, expected);
        }
        peer.say(&format!("MSG {} 1 2\r\nok\r\n", words[2])).await;
        assert_eq!(within(answers.recv()).await, Some((number, "ok".into())));
    }
    assert_eq!(publish(4, b"12345678901"), Err(NotSent::TooLarge(32)));
    assert_eq!(publish(4, b"1234567890"), Ok(()));
    drop(peer);
    assert_eq!(link.round_trip(SOON).await, Err(Unanswered::Silence));
    assert_eq!(publish(5, b"{}"), Err(NotSent::Disconnected));
}

#[tokio::test]
async fn each_kind_of_credentials_reaches_the_server() {
    let seed = nkeys::KeyPair::new_user();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("user.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\nthe.jwt\n------END NATS USER JWT------\n\
        -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        seed.seed().unwrap()
    );
    std::fs::write(&path, text).unwrap();
    let mut stage = Stage::new().await;
    let plain = stage.nats.clone();

    // Kept, since a link whose peer is gone would connect again.
    let mut peers = Vec::new();
    let mut connect = async |stage: &Stage| {
        let (link, (peer, connect)) = tokio::join!(stage.start(), stage.accept("PONG\r\n"));
        link.unwrap();
        peers.push(peer);
        connect
    };
    let anonymous = connect(&stage).await;
    assert_eq!(anonymous["headers"], true);
    assert!(anonymous.get("user").is_none() && anonymous.get("jwt").is_none());

    stage.nats.user = Some("me".to_owned());
    stage.nats.password = Some(Secret::new("pw"));
    let user = connect(&stage).await;
    assert_eq!((&user["user"], &user["pass"]), (&"me".into(), &"pw".into()));

    stage.nats = plain.clone();
    stage.nats.token = Some(Secret::new("tok"));
    assert_eq!(connect(&stage).await["auth_token"], "tok");

    stage.nats = plain;
    stage.nats.credentials = Some(path);
    let signed = connect(&stage).await;
    assert_eq!(signed["jwt"], "the.jwt");
    let signature = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        signed["sig"].as_str().unwrap(),
    );
    seed.verify(b"n", &signature.unwrap()).unwrap();
}

#[tokio::test]
async fn a_start_that_is_refused_says_so() {
    let stage = Stage::new().await;
    let (refused, _) = tokio::join!(stage.start(), stage.accept("-ERR 'Authorization Violation'\r\n"));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("it says 'Authorization Violation'"), "{text}");
}
