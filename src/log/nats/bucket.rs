//! Small buckets that all nodes share: JetStream key-value buckets beside the registry, read from the
//! leader and written by compare-and-set like it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{
    Client,
    jetstream::{self, kv::Operation},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::value::RawValue;
use tokio::{sync::mpsc, time::timeout};

use super::registry::Registry;
use crate::{
    log::{BoxFuture, Bucket, BucketEntry, Change, Changes, ReadError},
    task::Tasks,
};

/// How long the mark of a removal stays. Whoever has not heard of the removal in this time is told by
/// the next [`Change::Begin`].
const REMOVAL_STAYS: Duration = Duration::from_hours(1);
/// Changes on their way to a watcher. One that is slower holds up its own watch only.
const CAPACITY: usize = 256;
/// Between the end of one watch and the next. It goes on for as long as the node does.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the first entries may pause until they are asked for anew: the link may be cut, or the last one
/// of those that were counted has expired before it was told.
const FIRST_ENTRIES: Duration = Duration::from_secs(2);

/// One bucket.
#[derive(Debug)]
pub(super) struct NatsBucket {
    pub(super) values: Registry,
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) tasks: Tasks,
}

impl Bucket for NatsBucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<BucketEntry, ReadError>> {
        Box::pin(async move {
            let found = self.values.get::<Box<RawValue>>(key).await?;
            Ok(BucketEntry {
                value: found
                    .value
                    .map(|value| Box::<str>::from(value).into_boxed_bytes().into()),
                revision: found.revision,
            })
        })
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Option<u64>, ReadError>> {
        Box::pin(async move { Ok(self.values.write(key, value, revision, ttl).await?) })
    }

    fn remove<'a>(&'a self, key: &'a str, revision: u64) -> BoxFuture<'a, Result<bool, ReadError>> {
        Box::pin(async move { Ok(self.values.remove(key, revision, REMOVAL_STAYS).await?) })
    }

    fn watch(&self) -> Box<dyn Changes> {
        let (changes, received) = mpsc::channel(CAPACITY);
        let (client, name) = (self.client.clone(), self.name.clone());
        self.tasks.spawn(async move {
            let jetstream = jetstream::new(client);
            while !changes.is_closed() {
                if let Err(why) = watch(&jetstream, &name, &changes).await {
                    tracing::debug!(bucket = name, %why, "the watch of a bucket ended");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Box::new(Watch(received))
    }
}

struct Watch(mpsc::Receiver<Change>);

impl Changes for Watch {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.0.poll_recv(cx)
    }
}

/// Tells all entries and then what changes, until the watch is cut or nobody listens.
async fn watch(
    jetstream: &jetstream::Context,
    bucket: &str,
    changes: &mpsc::Sender<Change>,
) -> Result<(), async_nats::Error> {
    let store = jetstream.get_key_value(bucket).await?;
    let mut entries = store.watch_with_history(">").await?;
    let mut current = store.status().await?.values() == 0;
    changes.send(Change::Begin).await?;
    if current {
        changes.send(Change::Current).await?;
    }
    loop {
        let next = if current {
            entries.next().await
        } else {
            match timeout(FIRST_ENTRIES, entries.next()).await {
                Ok(next) => next,
                // What was not told is not known to be gone: all is told again.
                Err(_) => return Err("the first entries paused".into()),
            }
        };
        let Some(entry) = next else { return Ok(()) };
        let entry = entry?;
        let put = matches!(entry.operation, Operation::Put);
        let change = Change::Entry {
            key: entry.key,
            entry: BucketEntry {
                value: put.then_some(entry.value),
                revision: entry.revision,
            },
        };
        changes.send(change).await?;
        if !current && entry.delta == 0 {
            current = true;
            changes.send(Change::Current).await?;
        }
    }
}
