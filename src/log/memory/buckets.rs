//! The small buckets that nodes share.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

use super::{
    NodeIndex,
    broker::{Broker, State},
};
use crate::log::{BoxFuture, Bucket, BucketEntry, BucketName, Change, Changes, ReadError};

/// All buckets.
#[derive(Default)]
pub(super) struct Buckets {
    buckets: HashMap<BucketName, BTreeMap<String, BucketEntry>>,
    revision: u64,
    watchers: Vec<Waker>,
}

/// A node's view of a bucket. Values with a time to live stay: time stands still here.
pub(super) struct MemoryBucket {
    pub(super) broker: Arc<Broker>,
    pub(super) node: NodeIndex,
    pub(super) name: BucketName,
}

struct MemoryChanges {
    broker: Arc<Broker>,
    node: NodeIndex,
    name: BucketName,
    told: u64,
    /// Whether all entries have been told since the connection was there.
    current: bool,
    queue: VecDeque<Change>,
}

impl Buckets {
    fn entry(&self, name: BucketName, key: &str) -> BucketEntry {
        let entry = self.buckets.get(&name).and_then(|bucket| bucket.get(key));
        entry.cloned().unwrap_or(BucketEntry {
            value: None,
            revision: 0,
        })
    }

    fn write(&mut self, name: BucketName, key: &str, value: Option<Bytes>, revision: u64) -> Option<u64> {
        if self.entry(name, key).revision != revision {
            return None;
        }
        self.revision += 1;
        let entry = BucketEntry {
            value,
            revision: self.revision,
        };
        self.buckets
            .entry(name)
            .or_default()
            .insert(key.to_owned(), entry);
        self.wake();
        Some(self.revision)
    }

    /// Watchers look again: something has changed, or a connection is back.
    pub(super) fn wake(&mut self) {
        self.watchers.drain(..).for_each(Waker::wake);
    }
}

impl MemoryBucket {
    fn request<'a, T: Send + 'a>(
        &'a self,
        answer: impl FnOnce(&mut State) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, ReadError>> {
        Box::pin(async move {
            let mut state = self.broker.state();
            if state.nodes.connected(self.node) {
                Ok(answer(&mut state))
            } else {
                Err(ReadError::NoAnswer)
            }
        })
    }
}

impl Bucket for MemoryBucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<BucketEntry, ReadError>> {
        self.request(move |state| state.buckets.entry(self.name, key))
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
        _ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Option<u64>, ReadError>> {
        self.request(move |state| state.buckets.write(self.name, key, Some(value), revision))
    }

    fn remove<'a>(&'a self, key: &'a str, revision: u64) -> BoxFuture<'a, Result<bool, ReadError>> {
        self.request(move |state| state.buckets.write(self.name, key, None, revision).is_some())
    }

    fn watch(&self) -> Box<dyn Changes> {
        Box::new(MemoryChanges {
            broker: self.broker.clone(),
            node: self.node,
            name: self.name,
            told: 0,
            current: false,
            queue: VecDeque::new(),
        })
    }
}

impl Changes for MemoryChanges {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        if let Some(change) = self.queue.pop_front() {
            return Poll::Ready(Some(change));
        }
        let mut state = self.broker.state();
        if !state.nodes.connected(self.node) {
            // What happens meanwhile is told from the beginning.
            self.current = false;
            self.told = 0;
        } else {
            let begins = !self.current;
            if begins {
                self.queue.push_back(Change::Begin);
            }
            let entries = state.buckets.buckets.get(&self.name).into_iter().flatten();
            let mut news: Vec<_> = entries.filter(|(_, entry)| entry.revision > self.told).collect();
            news.sort_by_key(|(_, entry)| entry.revision);
            for (key, entry) in news {
                self.told = entry.revision;
                self.queue.push_back(Change::Entry {
                    key: key.clone(),
                    entry: entry.clone(),
                });
            }
            if begins {
                self.queue.push_back(Change::Current);
                self.current = true;
            }
        }
        match self.queue.pop_front() {
            Some(change) => Poll::Ready(Some(change)),
            None => {
                state.buckets.watchers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
