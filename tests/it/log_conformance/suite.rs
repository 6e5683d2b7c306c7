//! What the checks share.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use slipstream::{
    log::{
        Ack, Body, Copies, Copy, Log, LogEvent, NodeMessage, NodeMessages, Page, ReadError, Route, ShardId,
    },
    model::{AppId, ChannelKey, ChannelName, ClassName, Kind, Offset, Record},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// How long something may take that comes at once or soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries of something that nobody announces (a replica that catches up).
const AGAIN: Duration = Duration::from_millis(10);

/// A log under test, and apps that nobody has used before.
pub(super) struct Suite {
    pub(super) log: Arc<dyn Log>,
    pub(super) class: ClassName,
    pub(super) app: AppId,
    pub(super) other_app: AppId,
}

impl Suite {
    pub(super) fn new(log: Arc<dyn Log>, class: ClassName) -> Self {
        let run = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        Self {
            log,
            class,
            app: AppId::new(&format!("a-{run}")).unwrap(),
            other_app: AppId::new(&format!("b-{run}")).unwrap(),
        }
    }

    /// A channel of the first app, durable.
    pub(super) fn route(&self, name: &str) -> Route {
        self.route_of(&self.app, name)
    }

    pub(super) fn route_of(&self, app: &AppId, name: &str) -> Route {
        self.log.route(&key(app, name), Some(&self.class)).unwrap()
    }

    /// A channel whose messages nobody stores.
    pub(super) fn ephemeral(&self, name: &str) -> Route {
        self.log.route(&key(&self.app, name), None).unwrap()
    }

    /// `count` channels of an app in one shard.
    pub(super) fn routes_in(&self, shard: ShardId, app: &AppId, prefix: &str, count: usize) -> Vec<Route> {
        let routes = (0..).map(|n| self.route_of(app, &format!("{prefix}.{n}")));
        routes
            .filter(|route| route.shard() == Some(shard))
            .take(count)
            .collect()
    }

    /// Publishes a JSON text and waits for its sequence.
    pub(super) async fn publish(&self, route: &Route, text: &str) -> Offset {
        let ack = self.publish_with(route, text, None).await;
        assert!(!ack.duplicate, "{ack:?}");
        ack.seq
    }

    pub(super) async fn publish_with(&self, route: &Route, text: &str, dedup_id: Option<&str>) -> Ack {
        let ack = self.log.publish(route, &record(text), dedup_id).unwrap();
        soon(ack).await.unwrap()
    }

    pub(super) async fn subscribe(&self, route: &Route) -> Box<dyn Copies> {
        let copies = soon(self.log.subscribe(route)).await.unwrap();
        if let Some(shard) = route.shard() {
            // What is asked behind it is what finds the subscription in its place.
            soon(self.log.info(shard)).await.unwrap();
        }
        copies
    }

    /// Everything of a channel from `from` on, once a replica answers that has `count` messages.
    pub(super) async fn read(&self, route: &Route, from: Offset, count: usize) -> Page {
        settled(
            async || self.log.read(route, from, 1_000, 1 << 20).await,
            |page| page.messages.len() == count && page.pending == 0,
        )
        .await
    }
}

pub(super) fn key(app: &AppId, name: &str) -> ChannelKey {
    ChannelKey {
        app: app.clone(),
        name: ChannelName::new(name).unwrap(),
    }
}

/// The least there is to publish: a JSON string.
pub(super) fn record(text: &str) -> Record {
    Record {
        kind: Kind::Json,
        data: Bytes::from(format!("{text:?}")),
        info: None,
        tags: Vec::new(),
    }
}

pub(super) fn body(text: &str) -> Body {
    Body::Publication(record(text))
}

pub(super) fn sequences(page: &Page) -> Vec<Offset> {
    page.messages.iter().map(|stored| stored.seq).collect()
}

/// Waits for what must come soon.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("comes in time")
}

pub(super) async fn next_copy(copies: &mut dyn Copies) -> Copy {
    let next = soon(std::future::poll_fn(|cx| copies.poll_next(cx)));
    next.await.expect("the subscription goes on")
}

pub(super) async fn next_message(messages: &mut dyn NodeMessages) -> NodeMessage {
    let next = soon(std::future::poll_fn(|cx| messages.poll_next(cx)));
    next.await.expect("the listener goes on")
}

/// Waits for an event and drops those before it.
pub(super) async fn event(events: &mut Receiver<LogEvent>, wanted: impl Fn(&LogEvent) -> bool) {
    soon(async {
        loop {
            match events.recv().await {
                Ok(event) if wanted(&event) => return,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => panic!("the log has ended"),
            }
        }
    })
    .await;
}

/// Asks until the answer will do: a replica may lag behind what was acknowledged.
pub(super) async fn settled<T: Debug>(
    ask: impl AsyncFn() -> Result<T, ReadError>,
    will_do: impl Fn(&T) -> bool,
) -> T {
    let mut last = None;
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) if will_do(&answer) => return answer,
                other => last = Some(other),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("the last answer was {last:?}"),
    }
}
