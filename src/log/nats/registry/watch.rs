//! Tells of changes of the epoch entries (L4), made here or by another node.

use std::{collections::HashMap, time::Duration};

use async_nats::{Client, jetstream};
use futures_util::StreamExt;

use super::EpochValue;
use crate::{
    log::{LogEvent, ShardId, nats::events::Events},
    task::Tasks,
};

/// Between the end of one watch and the next. It goes on for as long as the node does.
const PAUSE: Duration = Duration::from_millis(500);

impl super::Registry {
    /// Watches for as long as the node runs. Each (re)start of the watch tells the present entries
    /// first, so that no change is missed for good.
    pub(in crate::log::nats) fn watch_epochs(
        &self,
        client: Client,
        streams: HashMap<String, ShardId>,
        events: Events,
        tasks: &Tasks,
    ) {
        let bucket = self.bucket.clone();
        tasks.spawn(async move {
            let jetstream = jetstream::new(client);
            loop {
                if let Err(why) = watch(&jetstream, &bucket, &streams, &events).await {
                    tracing::debug!(%why, "the watch of the registry ended");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

async fn watch(
    jetstream: &jetstream::Context,
    bucket: &str,
    streams: &HashMap<String, ShardId>,
    events: &Events,
) -> Result<(), async_nats::Error> {
    let store = jetstream.get_key_value(bucket).await?;
    let mut entries = store.watch_with_history("epoch.>").await?;
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let shard = entry
            .key
            .strip_prefix("epoch.")
            .and_then(|stream| streams.get(stream));
        let value = serde_json::from_slice::<EpochValue>(&entry.value);
        // A removed entry has no value; one that cannot be read is found by who reads it.
        if let (Some(shard), Ok(value)) = (shard, value) {
            events.send(LogEvent::Epoch(*shard, value.into()));
        }
    }
    Ok(())
}
