//! The registry: what all nodes of a deployment must agree on, in a KV bucket (L2, L4).
//!
//! | key | value |
//! |---|---|
//! | `log` | the layout: format version, hash, classes with N and limits |
//! | `ns.<app>.<namespace>` | the class of a namespace |
//! | `epoch.<stream>` | the epoch of a shard |
//! | `cluster` | the key that nodes sign their messages with, unless it is configured |
//!
//! Values are read from the leader and written by compare-and-set, never by a plain put: a KV
//! client's own `get` may be answered by a replica that is behind.

pub(super) mod layout;
mod namespaces;
mod watch;

use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    api::{Api, ApiError, Refusal},
    error::StartError,
    headers::Headers,
};
use crate::{
    log::{EpochEntry, ReadError},
    model::Epoch,
    random,
};

const CLUSTER_KEY: &str = "cluster";
/// 6 bits each.
const CLUSTER_KEY_CHARACTERS: usize = 43;
/// The header that makes a message go by itself.
const TTL: &str = "Nats-TTL";

/// The registry of a deployment.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    api: Api,
    bucket: String,
}

/// A value with the revision that a write must name; revision 0 without a value: never written.
pub(super) struct Found<T> {
    pub(super) value: Option<T>,
    pub(super) revision: u64,
}

impl Registry {
    /// The registry in `bucket`.
    pub(super) fn new(api: Api, bucket: &str) -> Self {
        Self {
            api,
            bucket: bucket.to_owned(),
        }
    }

    /// The epoch entry of a stream, and its revision.
    pub(super) async fn epoch(&self, stream: &str) -> Result<Option<(EpochEntry, u64)>, ReadError> {
        let found: Found<EpochValue> = self.get(&epoch_key(stream)).await?;
        Ok(found.value.map(|value| (value.into(), found.revision)))
    }

    /// Writes the epoch entry of a stream over `revision`; false if that is not the last one.
    pub(super) async fn set_epoch(
        &self,
        stream: &str,
        entry: &EpochEntry,
        revision: u64,
    ) -> Result<bool, ReadError> {
        let value = EpochValue::from(entry);
        Ok(self.set(&epoch_key(stream), &value, revision).await?)
    }

    /// The key that this deployment's nodes sign with: made by the first of them.
    pub(super) async fn cluster_key(&self) -> Result<Vec<u8>, StartError> {
        loop {
            let found: Found<String> = self.get(CLUSTER_KEY).await.map_err(failed)?;
            if let Some(key) = found.value {
                return Ok(key.into_bytes());
            }
            let key = random::name(CLUSTER_KEY_CHARACTERS);
            if self
                .set(CLUSTER_KEY, &key, found.revision)
                .await
                .map_err(failed)?
            {
                return Ok(key.into_bytes());
            }
        }
    }

    /// What a key holds.
    pub(super) async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Found<T>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            seq: u64,
            #[serde(default)]
            hdrs: String,
            #[serde(default)]
            data: String,
        }
        let what = format!("STREAM.MSG.GET.KV_{}", self.bucket);
        let request = json!({ "last_by_subj": self.subject(key) });
        let message = match self.api.call::<Answer>(&what, &request).await {
            Ok(answer) => answer.message,
            Err(ApiError::Refused(refusal)) if refusal.err_code == Refusal::NO_MESSAGE => {
                return Ok(Found {
                    value: None,
                    revision: 0,
                });
            }
            Err(error) => return Err(error),
        };
        let unreadable = |why: String| ApiError::Unreadable(format!("registry entry {key}: {why}"));
        let headers = STANDARD
            .decode(&message.hdrs)
            .map_err(|e| unreadable(e.to_string()))?;
        let value = if Headers::parse(&headers).is_kv_removal() {
            None
        } else {
            let data = STANDARD
                .decode(&message.data)
                .map_err(|e| unreadable(e.to_string()))?;
            Some(serde_json::from_slice(&data).map_err(|e| unreadable(e.to_string()))?)
        };
        Ok(Found {
            value,
            revision: message.seq,
        })
    }

    /// Writes `value` if `revision` is still the key's last one; false if it is not.
    async fn set(&self, key: &str, value: &impl Serialize, revision: u64) -> Result<bool, ApiError> {
        let payload = serde_json::to_vec(value).map_err(|e| ApiError::Unreadable(e.to_string()))?;
        Ok(self.write(key, payload.into(), revision, None).await?.is_some())
    }

    /// Writes a value as it is if `revision` is still the key's last one; the new one, or `None` if it is
    /// not. With a `ttl` the server drops it after that time.
    pub(super) async fn write(
        &self,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<Option<u64>, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            headers.insert(TTL, seconds(ttl));
        }
        self.store(key, value, revision, headers).await
    }

    /// Removes a key's value if `revision` is still its last one; false if it is not. The mark of it
    /// stays for a time.
    pub(super) async fn remove(&self, key: &str, revision: u64, stays: Duration) -> Result<bool, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        headers.insert(TTL, seconds(stays));
        Ok(self.store(key, Bytes::new(), revision, headers).await?.is_some())
    }

    async fn store(
        &self,
        key: &str,
        payload: Bytes,
        revision: u64,
        mut headers: HeaderMap,
    ) -> Result<Option<u64>, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            seq: u64,
        }
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(revision));
        match self.api.ask::<Answer>(self.subject(key), headers, payload).await {
            Ok(Answer { seq }) => Ok(Some(seq)),
            Err(ApiError::Refused(refusal))
                if matches!(
                    refusal.err_code,
                    Refusal::WRONG_LAST_SEQUENCE | Refusal::WRITE_IN_FLIGHT
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }
}

/// `Nats-TTL` is in whole seconds, at least one.
fn seconds(ttl: Duration) -> HeaderValue {
    HeaderValue::from(ttl.as_secs().max(1))
}

fn epoch_key(stream: &str) -> String {
    format!("epoch.{stream}")
}

/// An [`EpochEntry`] as it is stored.
#[derive(Serialize, Deserialize)]
struct EpochValue {
    created: String,
    token: String,
    mark_seq: u64,
    mark_time_ms: i64,
}

impl From<&EpochEntry> for EpochValue {
    fn from(entry: &EpochEntry) -> Self {
        Self {
            created: entry.created.clone(),
            token: entry.token.as_str().to_owned(),
            mark_seq: entry.mark_seq,
            mark_time_ms: entry.mark_time_ms,
        }
    }
}

impl From<EpochValue> for EpochEntry {
    fn from(value: EpochValue) -> Self {
        Self {
            created: value.created,
            token: Epoch::new(&value.token),
            mark_seq: value.mark_seq,
            mark_time_ms: value.mark_time_ms,
        }
    }
}

/// Why a start that reads or writes the registry fails.
fn failed(error: ApiError) -> StartError {
    StartError::request("read or write the registry")(error)
}
