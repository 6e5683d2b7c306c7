//! The registry: what all nodes of a deployment must agree on, in a KV bucket (L2, L4).
//!
//! | key | value |
//! |---|---|
//! | `log` | the layout: format version, hash, classes with N and limits |
//! | `ns.<app>.<namespace>` | the class of a namespace |
//! | `epoch.<stream>` | the epoch of a shard |
//!
//! Values are read from the leader and written by compare-and-set, never by a plain put: a KV
//! client's own `get` may be answered by a replica that is behind.

pub(super) mod layout;
mod namespaces;
mod watch;

use async_nats::{HeaderMap, HeaderValue, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use base64::{Engine, engine::general_purpose::STANDARD};
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
};

/// The registry of a deployment.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    api: Api,
    bucket: String,
}

/// A value with the revision that a write must name; revision 0 without a value: never written.
struct Found<T> {
    value: Option<T>,
    revision: u64,
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

    async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Found<T>, ApiError> {
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
        #[derive(Deserialize)]
        struct Answer {}
        let payload = serde_json::to_vec(value).map_err(|e| ApiError::Unreadable(e.to_string()))?;
        let headers =
            HeaderMap::from_iter([(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(revision))]);
        match self
            .api
            .ask::<Answer>(self.subject(key), headers, payload.into())
            .await
        {
            Ok(Answer {}) => Ok(true),
            Err(ApiError::Refused(refusal))
                if matches!(
                    refusal.err_code,
                    Refusal::WRONG_LAST_SEQUENCE | Refusal::WRITE_IN_FLIGHT
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }
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
