//! The deployment's own streams: pull consumers over the node's connection, appends like publications.

mod consumer;
mod subjects;

use std::{sync::Arc, time::Duration};

use async_nats::{Client, HeaderMap, HeaderValue, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use serde_json::json;

use self::{consumer::NatsConsumer, subjects::Subjects};
use super::{api::Api, format::join, inbox::Inbox, publish::Publisher, read::Reads, subject};
use crate::log::{
    AckFuture, BoxFuture, ConsumeOptions, Consumer, Counts, PublishError, ReadError, Waiting, WorkStream,
    work::check_key,
};

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct NatsWorkStream {
    pub(super) stream: String,
    /// What its subjects begin with.
    pub(super) root: String,
    pub(super) publisher: Arc<Publisher>,
    pub(super) reads: Reads,
    pub(super) client: Client,
    pub(super) api: Api,
    pub(super) inbox: Arc<Inbox>,
    /// How long an answer may be late.
    pub(super) patience: Duration,
}

impl NatsWorkStream {
    /// The subjects of the keys that go on behind `prefix`.
    fn below(&self, prefix: &[&str]) -> String {
        if prefix.is_empty() {
            join(&self.root, ">")
        } else {
            join(&join(&self.root, &subject::key(prefix)), ">")
        }
    }
}

impl WorkStream for NatsWorkStream {
    fn append(&self, key: &[&str], dedup_id: Option<&str>, data: Bytes) -> Result<AckFuture, PublishError> {
        check_key(key)?;
        let mut headers = HeaderMap::new();
        if let Some(id) = dedup_id {
            let id = id.parse::<HeaderValue>();
            let id = id.map_err(|_| PublishError::Refused("the id holds a line break".to_owned()))?;
            headers.insert(NATS_MESSAGE_ID, id);
        }
        let subject = join(&self.root, &subject::key(key));
        Ok(Box::pin(self.publisher.publish(&subject, &headers, &data)?))
    }

    fn consume(&self, options: ConsumeOptions) -> BoxFuture<'_, Result<Box<dyn Consumer>, ReadError>> {
        Box::pin(async move {
            let consumer = NatsConsumer::start(self.clone(), options).await?;
            Ok(Box::new(consumer) as Box<dyn Consumer>)
        })
    }

    fn waiting<'a>(&'a self, prefix: &'a [&'a str]) -> BoxFuture<'a, Result<Waiting, ReadError>> {
        Box::pin(async move {
            // The first, and how many are behind it.
            let subjects = self.below(prefix);
            let first = self.reads.page(&self.stream, &subjects, 0, 1, 1).await?;
            Ok(first
                .messages
                .first()
                .map_or_else(Waiting::default, |oldest| Waiting {
                    messages: first.pending + 1,
                    oldest_ms: Some(oldest.time_ms),
                    oldest_seq: Some(oldest.seq),
                }))
        })
    }

    fn counts<'a>(&'a self, prefix: &'a [&'a str]) -> BoxFuture<'a, Result<Counts, ReadError>> {
        Box::pin(async move {
            let what = format!("STREAM.INFO.{}", self.stream);
            let request = json!({ "subjects_filter": self.below(prefix) });
            let subjects: Subjects = self.api.call(&what, &request).await?;
            subjects.accept(&self.root)
        })
    }
}
