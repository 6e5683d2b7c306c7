//! What the log notices: the connection's state, elections, changes of epochs.

use std::collections::HashMap;

use async_nats::Client;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::broadcast;

use crate::{
    log::{LogEvent, ShardId},
    task::Tasks,
};

/// Events that a reader may be behind before it misses some, and is told so. Not a setting: events are
/// few and small, and missing some costs one check of every shard (`drops`, reason `event`).
const CAPACITY: usize = 1_024;
/// The advisories of elections, of all streams of the account.
const ELECTIONS: &str = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*";

/// Where events go to. Clones share the readers.
#[derive(Clone, Debug)]
pub(super) struct Events(broadcast::Sender<LogEvent>);

impl Events {
    /// Without readers.
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    /// Tells all readers.
    pub(super) fn send(&self, event: LogEvent) {
        // Nobody listens if this fails.
        let _ = self.0.send(event);
    }

    /// Reads from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<LogEvent> {
        self.0.subscribe()
    }
}

/// Tells of new leaders of `streams`. Advisories are sent at most once, and not over a connection
/// that is down: who relies on them looks again on [`LogEvent::Connected`].
pub(super) async fn watch_elections(
    client: &Client,
    streams: HashMap<String, ShardId>,
    events: Events,
    tasks: &Tasks,
) -> Result<(), async_nats::SubscribeError> {
    #[derive(Deserialize)]
    struct Advisory {
        stream: String,
    }
    let mut advisories = client.subscribe(ELECTIONS).await?;
    tasks.spawn(async move {
        while let Some(advisory) = advisories.next().await {
            if let Ok(advisory) = serde_json::from_slice::<Advisory>(&advisory.payload)
                && let Some(shard) = streams.get(&advisory.stream)
            {
                events.send(LogEvent::LeaderElected(*shard));
            }
        }
    });
    Ok(())
}
