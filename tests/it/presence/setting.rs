//! Nodes with nothing but presence, on a real nats-server.

use std::{collections::BTreeMap, sync::Arc, task::Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use slipstream::{
    channel::{Mailbox, MailboxLimits},
    cluster::{About, Nodes},
    config::Config,
    log::{Log, nats::NatsLog},
    model::{AppId, ChannelName},
    presence::{Encoders, Listening, Member, MembersPage, Membership, Presence, PresenceError, Stats},
    task::Tasks,
    telemetry::Metrics,
};

use crate::support::{
    edge::{Builder, Edge, metric},
    holds, within,
};

/// Events as text: what happened, to which connection, of which user, with which state.
const ENCODERS: Encoders = Encoders {
    join: |_, member| event("join", member),
    leave: |_, member| {
        format!("leave {} {}", member.client, member.user)
            .trim_end()
            .to_owned()
            .into()
    },
    update: |_, member| event("update", member),
};

fn event(what: &str, member: &Member) -> Bytes {
    let state = member.state.as_deref().unwrap_or_default();
    let state = String::from_utf8_lossy(state);
    format!("{what} {} {} {state}", member.client, member.user)
        .trim_end()
        .to_owned()
        .into()
}

/// Short times; members that are lost stay for long.
pub(super) fn quick(urls: &[String]) -> Builder {
    Edge::builder()
        .nats(urls)
        .set("cluster.lease", "1s")
        .set("cluster.renew_interval", "100ms")
        .set("presence.digest_interval", "500ms")
        .set("presence.linger", "1s")
        .set("presence.grace", "1h")
        .set("presence.query_timeout", "20s")
}

pub(super) struct Node {
    pub(super) log: Arc<NatsLog>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) presence: Arc<Presence>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
}

impl Node {
    pub(super) async fn start(builder: &Builder) -> Self {
        let config = builder.config();
        let (log, nodes, metrics, tasks) = bare(&config).await;
        let presence = within(Presence::start(
            nodes.clone(),
            log.clone(),
            &config.presence,
            ENCODERS,
            metrics.clone(),
            &tasks,
        ))
        .await;
        Self {
            log,
            nodes,
            presence,
            metrics,
            tasks,
        }
    }

    /// As many nodes, which know each other.
    pub(super) async fn cluster<const N: usize>(builder: &Builder) -> [Self; N] {
        let mut nodes = Vec::new();
        for _ in 0..N {
            nodes.push(Self::start(builder).await);
        }
        for node in &nodes {
            holds("as many nodes", || node.nodes.live().len() == N).await;
        }
        let Ok(nodes) = nodes.try_into() else {
            unreachable!("as many as were started")
        };
        nodes
    }

    pub(super) fn join(&self, channel: &str, client: &str, user: &str) -> Membership {
        self.try_join(channel, member(client, user), None).unwrap()
    }

    /// Joins, and hears what happens.
    pub(super) fn join_and_hear(&self, channel: &str, client: &str, user: &str) -> (Membership, Ear) {
        let ear = Ear::new();
        let membership = self.try_join(channel, member(client, user), Some(&ear)).unwrap();
        (membership, ear)
    }

    pub(super) fn try_join(
        &self,
        channel: &str,
        member: Member,
        ear: Option<&Ear>,
    ) -> Result<Membership, PresenceError> {
        let listener = ear.map(|ear| ear.mailbox.clone());
        let admitted = self.presence.admit(&app(), &name(channel), member, None)?;
        Ok(admitted.join(listener))
    }

    pub(super) fn listen(&self, channel: &str) -> (Listening, Ear) {
        let ear = Ear::new();
        let listening = self
            .presence
            .listen(&app(), &name(channel), ear.mailbox.clone())
            .unwrap();
        (listening, ear)
    }

    pub(super) async fn page(&self, channel: &str, after: Option<&str>, limit: usize) -> MembersPage {
        within(self.presence.members(&app(), &name(channel), after, limit))
            .await
            .unwrap()
    }

    pub(super) async fn stats(&self, channel: &str) -> Stats {
        within(self.presence.stats(&app(), &name(channel))).await.unwrap()
    }

    /// All members, by connection, with their users.
    pub(super) async fn members(&self, channel: &str) -> BTreeMap<String, String> {
        let page = self.page(channel, None, 100_000).await;
        assert_eq!(page.members.len(), page.connections);
        let members = page.members.iter();
        members
            .map(|member| (member.client.to_string(), member.user.to_string()))
            .collect()
    }

    /// Waits until as many connections and users are seen here, from all nodes.
    pub(super) async fn sees(&self, channel: &str, connections: usize, users: usize) {
        let expected = Stats {
            connections,
            users,
            complete: true,
            missing: Vec::new(),
        };
        let last = Mutex::new(None);
        let waiting = crate::support::until("as many members", async || {
            let stats = self.stats(channel).await;
            let equal = stats == expected;
            *last.lock() = Some(stats);
            equal.then_some(())
        });
        tokio::select! {
            () = waiting => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(30)) => {
                panic!("expected {expected:?}, found {:?}", last.lock())
            }
        }
    }

    pub(super) fn metric(&self, series: &str) -> f64 {
        metric(&self.metrics.encode(), series)
    }

    /// It stops where it is, as if it had been killed: its lease is not given back.
    pub(super) fn kill(&self) {
        self.tasks.stop();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A node that holds a lease, and nothing else.
pub(super) async fn bare(config: &Config) -> (Arc<NatsLog>, Arc<Nodes>, Arc<Metrics>, Tasks) {
    let tasks = Tasks::default();
    let metrics = Arc::new(Metrics::new());
    let secret = config.cluster.secret.as_ref();
    let log = within(NatsLog::start(&config.nats, &config.log, secret, &[], &tasks))
        .await
        .unwrap();
    let about = About {
        name: "tester".to_owned(),
        address: "nowhere".to_owned(),
    };
    let shared: Arc<dyn Log> = log.clone();
    let patience = config.nats.start_timeout;
    let nodes = within(Nodes::start(
        shared,
        &config.cluster,
        about,
        patience,
        metrics.clone(),
        &tasks,
    ))
    .await;
    (log, nodes, metrics, tasks)
}

/// A connection's mailbox, and who reads it.
pub(super) struct Ear {
    pub(super) mailbox: Arc<Mailbox>,
    heard: Mutex<Vec<String>>,
}

impl Ear {
    pub(super) fn new() -> Self {
        Self::with_room(1 << 20)
    }

    pub(super) fn with_room(bytes: usize) -> Self {
        let limits = MailboxLimits {
            soft: bytes,
            hard: bytes * 2,
        };
        let mailbox = Arc::new(Mailbox::held(limits, None));
        mailbox.open(Bytes::from_static(b"connected"));
        let ear = Self {
            mailbox,
            heard: Mutex::default(),
        };
        ear.heard();
        ear.heard.lock().clear();
        ear
    }

    /// All that has been heard so far.
    pub(super) fn heard(&self) -> Vec<String> {
        let taken = self.mailbox.take(Waker::noop());
        let bytes = taken.frames.iter().map(Bytes::len).sum();
        self.mailbox.written(bytes);
        let mut heard = self.heard.lock();
        let frames = taken.frames.iter();
        heard.extend(frames.map(|frame| String::from_utf8(frame.to_vec()).unwrap()));
        heard.clone()
    }

    /// Waits until exactly this has been heard.
    pub(super) async fn hears(&self, expected: &[&str]) {
        holds("as many events", || self.heard().len() >= expected.len()).await;
        assert_eq!(self.heard(), expected);
    }
}

pub(super) fn app() -> AppId {
    AppId::new("dev").unwrap()
}

pub(super) fn name(channel: &str) -> ChannelName {
    ChannelName::new(channel).unwrap()
}

pub(super) fn member(client: &str, user: &str) -> Member {
    Member {
        client: client.into(),
        user: user.into(),
        joined_ms: 0,
        conn_info: None,
        chan_info: None,
        state: None,
    }
}
