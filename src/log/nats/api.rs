//! Requests to JetStream's JSON API, and what its errors mean to us.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{inbox::Inbox, patience::Unanswered};
use crate::log::ReadError;

/// A request that has no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ApiError {
    /// Nothing came back in time, or there is no connection.
    #[error("no answer")]
    NoAnswer,
    /// Nobody serves this request: JetStream is off, or the servers that have it are away.
    #[error("no server takes this request")]
    NoResponders,
    /// JetStream refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer is not what this request is answered with.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// The `error` object of an answer.
#[derive(Debug, Clone, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub(super) struct Refusal {
    /// Like an HTTP status.
    pub(super) code: u16,
    /// What exactly is wrong.
    #[serde(default)]
    pub(super) err_code: u32,
    #[serde(default)]
    description: String,
}

impl Refusal {
    /// `err_code`: no message has been found.
    pub(super) const NO_MESSAGE: u32 = 10_037;
    /// `err_code`: JetStream is not enabled for the account.
    pub(super) const NOT_FOR_ACCOUNT: u32 = 10_039;
    /// `err_code`: there is a stream of that name with other settings.
    pub(super) const NAME_IN_USE: u32 = 10_058;
    /// `err_code`: there is no such stream.
    pub(super) const NO_STREAM: u32 = 10_059;
    /// `err_code`: another write to the subject came first.
    pub(super) const WRONG_LAST_SEQUENCE: u32 = 10_071;
    /// `err_code`: JetStream is not enabled on the server.
    pub(super) const NOT_ENABLED: u32 = 10_076;
    /// `err_code`: the stream could not store it; most of all, it is full and keeps what it has.
    pub(super) const FULL: u32 = 10_077;
    /// `err_code`: another write to the subject is under way.
    pub(super) const WRITE_IN_FLIGHT: u32 = 10_164;

    /// Whether a stream has reached a limit of its own, and keeps what it has.
    pub(super) fn is_full(&self) -> bool {
        self.err_code == Self::FULL && self.description.starts_with("maximum ")
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self.code, 408 | 409 | 429 | 500 | 503) && self.err_code != Self::FULL
    }
}

impl From<Unanswered> for ApiError {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Silence => Self::NoAnswer,
            Unanswered::NoResponders => Self::NoResponders,
        }
    }
}

impl From<ApiError> for ReadError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::NoAnswer => Self::NoAnswer,
            ApiError::NoResponders => Self::NotNow("no server takes this request".to_owned()),
            ApiError::Refused(refusal) if refusal.is_temporary() => Self::NotNow(refusal.to_string()),
            ApiError::Refused(refusal) => Self::Failed(refusal.to_string()),
            ApiError::Unreadable(why) => Self::Failed(why),
        }
    }
}

/// One connection's way to the API.
#[derive(Clone, Debug)]
pub(super) struct Api {
    inbox: Arc<Inbox>,
}

impl Api {
    /// Requests through `inbox`.
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Resolves when the server has handled all that was sent over this connection before.
    pub(super) async fn round_trip(&self) -> Result<(), ApiError> {
        Ok(self.inbox.round_trip().await?)
    }

    /// Sends `request` as JSON to `$JS.API.<what>` and reads the answer.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        what: &str,
        request: &impl Serialize,
    ) -> Result<T, ApiError> {
        let payload = serde_json::to_vec(request).map_err(|e| ApiError::Unreadable(e.to_string()))?;
        self.ask(format!("$JS.API.{what}"), HeaderMap::new(), payload.into())
            .await
    }

    /// Sends a message to `subject` and reads the answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<T, ApiError> {
        let answer = self.inbox.one(subject, headers, payload).await?;
        read(&answer.payload)
    }
}

/// Reads an answer: `{"error": {..}}` or `T`.
pub(super) fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ApiError> {
    #[derive(Deserialize)]
    struct Outcome {
        error: Option<Refusal>,
    }
    let unreadable = |e: serde_json::Error| ApiError::Unreadable(e.to_string());
    let outcome: Outcome = serde_json::from_slice(payload).map_err(unreadable)?;
    match outcome.error {
        Some(refusal) => Err(ApiError::Refused(refusal)),
        None => serde_json::from_slice(payload).map_err(unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_means_to_a_reader() {
        let refused = |code, err_code| {
            ReadError::from(ApiError::Refused(Refusal {
                code,
                err_code,
                description: "x".to_owned(),
            }))
        };
        assert!(matches!(refused(503, 10_008), ReadError::NotNow(_)));
        assert!(matches!(refused(429, 10_167), ReadError::NotNow(_)));
        assert!(matches!(refused(404, Refusal::NO_STREAM), ReadError::Failed(_)));
        assert!(matches!(refused(400, 10_025), ReadError::Failed(_)));
    }

    #[test]
    fn an_answer_is_an_error_or_the_value() {
        #[derive(Deserialize, Debug)]
        struct Value {
            seq: u64,
        }
        assert_eq!(read::<Value>(br#"{"type":"t","seq":4}"#).unwrap().seq, 4);
        let error =
            read::<Value>(br#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#);
        let Err(ApiError::Refused(refusal)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(refusal.to_string(), "stream not found (10059)");
        assert!(matches!(read::<Value>(b"{}"), Err(ApiError::Unreadable(_))));
    }
}
