//! What a REST caller is told when something was not done: the one place where errors become
//! statuses.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tracing::warn;
use utoipa::ToSchema;

use crate::{
    apps::Throttled,
    channel::{HistoryError, PublishFailure},
    protocol::{PayloadError, json},
    publish::{NoTarget, PublishError},
    revocation::RevokeError,
    schema::Invalid,
    telemetry::Limit,
};

/// How long a caller waits where nothing better is known.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a request was not done. Holds nothing of what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Path, query, header or body cannot be read.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The body is not JSON.
    #[error("the body is not JSON (line {line}, column {column})")]
    InvalidJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// No API key, or one of no app.
    #[error("an API key is needed: `X-API-Key: KEY` or `Authorization: Bearer KEY`")]
    Unauthorized,
    /// The key is not one of the app that was named.
    #[error("the API key does not belong to the app that was named")]
    Forbidden,
    /// No such path.
    #[error("there is nothing here; see /v1/openapi.json")]
    NotFound,
    /// The app has no such namespace.
    #[error("the app has no such namespace")]
    UnknownChannel,
    /// The channel is ephemeral.
    #[error("the channel keeps no history")]
    NoHistory,
    /// The namespace has no presence.
    #[error("the channel has no presence")]
    NoPresence,
    /// The app has no revocation with this id.
    #[error("the app has no revocation with this id")]
    UnknownRevocation,
    /// As many as `revocations.max_per_app`.
    #[error("the app has as many revocations as it may have")]
    TooManyRevocations,
    /// The path has other methods.
    #[error("the path does not have this method; see /v1/openapi.json")]
    MethodNotAllowed,
    /// The body took too long to arrive.
    #[error("the body took too long to arrive")]
    RequestTimeout,
    /// The position is of another epoch.
    #[error("the position belongs to another epoch: start again without one")]
    OtherEpoch,
    /// The body is larger than `http.max_body_bytes`.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The payload is larger than the namespace's `max_size`.
    #[error("the payload is larger than {limit} bytes")]
    PayloadTooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not `application/json`.
    #[error("the body must be `Content-Type: application/json`")]
    UnsupportedMediaType,
    /// JSON, but a field is missing, unknown, given twice, of the wrong type or out of its bounds.
    #[error("the body does not have the form that /v1/openapi.json describes (line {line}, column {column})")]
    InvalidBody {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A field, parameter or header is out of its bounds.
    #[error("{field}: {problem}")]
    InvalidField {
        /// Which.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The payload is not valid by the namespace's schema.
    #[error("{0}")]
    InvalidPayload(Invalid),
    /// A rate is exceeded; nothing was sent.
    #[error("too many at once or in a second")]
    TooManyRequests {
        /// When to come again.
        retry_after: Duration,
    },
    /// A quota of the app is used up for long; nothing was sent.
    #[error("{}", used_up(*limit))]
    QuotaUsedUp {
        /// Which.
        limit: Limit,
        /// Until the month ends, or something of the history goes.
        retry_after: Duration,
    },
    /// Something is wrong with the deployment.
    #[error("the log does not take this; it is for the operator to see why")]
    Refused,
    /// Nothing was sent, or the question was not answered: safe to try again.
    #[error("the log cannot be reached now; nothing was done, try again")]
    Unavailable,
    /// Sent, but not acknowledged (rule L14).
    #[error("it was sent but not acknowledged: it may have been done or not")]
    OutcomeUnknown,
}

/// The body of every answer that is an error.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `ApiError::write` writes")]
pub(super) struct ErrorAnswer {
    error: ErrorBody,
}

/// Why the request, or one publication of a batch, was not done.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `ApiError::write` writes")]
pub(super) struct ErrorBody {
    /// For programs: a word of `a-z` and `_` that does not change.
    code: String,
    /// For people.
    message: String,
}

impl ApiError {
    /// One of every kind, for tests and documentation.
    #[cfg(test)]
    pub fn examples() -> Vec<Self> {
        vec![
            Self::BadRequest("bad"),
            Self::InvalidJson { line: 1, column: 1 },
            Self::Unauthorized,
            Self::Forbidden,
            Self::NotFound,
            Self::UnknownChannel,
            Self::NoHistory,
            Self::NoPresence,
            Self::UnknownRevocation,
            Self::TooManyRevocations,
            Self::MethodNotAllowed,
            Self::RequestTimeout,
            Self::OtherEpoch,
            Self::BodyTooLarge { limit: 1 },
            Self::PayloadTooLarge { limit: 1 },
            Self::UnsupportedMediaType,
            Self::InvalidBody { line: 1, column: 1 },
            Self::field("limit", "bad"),
            Self::InvalidPayload(Invalid::NotJson),
            Self::TooManyRequests { retry_after: PAUSE },
            Self::QuotaUsedUp {
                limit: Limit::QuotaMonth,
                retry_after: PAUSE,
            },
            Self::Refused,
            Self::Unavailable,
            Self::OutcomeUnknown,
        ]
    }

    /// A field that is out of its bounds.
    pub fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::InvalidField {
            field,
            problem: problem.into(),
        }
    }

    /// What serde_json says of a body, without what it quotes of it.
    pub fn json(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => Self::InvalidBody { line, column },
            _ => Self::InvalidJson { line, column },
        }
    }

    /// Status and code.
    fn parts(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::InvalidJson { .. } => (StatusCode::BAD_REQUEST, "invalid_json"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::UnknownChannel => (StatusCode::NOT_FOUND, "unknown_channel"),
            Self::NoHistory => (StatusCode::NOT_FOUND, "no_history"),
            Self::NoPresence => (StatusCode::NOT_FOUND, "no_presence"),
            Self::UnknownRevocation => (StatusCode::NOT_FOUND, "unknown_revocation"),
            Self::TooManyRevocations => (StatusCode::CONFLICT, "too_many_revocations"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::OtherEpoch => (StatusCode::CONFLICT, "other_epoch"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::PayloadTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::InvalidBody { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_body"),
            Self::InvalidField { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_field"),
            Self::InvalidPayload(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_payload"),
            Self::TooManyRequests { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
            Self::QuotaUsedUp { .. } => (StatusCode::TOO_MANY_REQUESTS, "quota_used_up"),
            Self::Refused => (StatusCode::INTERNAL_SERVER_ERROR, "refused"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::OutcomeUnknown => (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown"),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.parts().0
    }

    /// The word for programs.
    pub fn code(&self) -> &'static str {
        self.parts().1
    }

    /// When to come again, if that helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after } | Self::QuotaUsedUp { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Unavailable => Some(PAUSE),
            _ => None,
        }
    }

    /// Appends `{"error":{..}}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"error":{"code":"#);
        json::push_str(out, self.code());
        out.extend_from_slice(br#","message":"#);
        json::push_str(out, &self.to_string());
        out.extend_from_slice(b"}}");
    }
}

/// Whole seconds, as `Retry-After` has them: at least one.
pub(super) fn retry_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(160);
        self.write(&mut body);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_seconds(wait)));
        }
        if self == Self::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

// === impl From ===

impl From<RevokeError> for ApiError {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::TooMany => Self::TooManyRevocations,
            RevokeError::Until => Self::field("until", "over already, or beyond revocations.max_ttl"),
            RevokeError::Unavailable => Self::OutcomeUnknown,
        }
    }
}

fn used_up(limit: Limit) -> &'static str {
    match limit {
        Limit::QuotaHistoryBytes => "the app has as much history as it may",
        _ => "the app has published as much as it may in this month",
    }
}

impl From<NoTarget> for ApiError {
    fn from(error: NoTarget) -> Self {
        match error {
            NoTarget::Invalid(why) => Self::field("channel", why.to_string()),
            NoTarget::Unknown => Self::UnknownChannel,
        }
    }
}

impl From<PayloadError> for ApiError {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Both => Self::field("data", "either data or b64data"),
            PayloadError::NotBase64 => Self::field("b64data", "not base64 with padding"),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::NoTarget(why) => why.into(),
            PublishError::IdempotencyKey => Self::field("idempotency_key", error.to_string()),
            PublishError::Tags => Self::field("tags", error.to_string()),
            PublishError::TooDeep { .. } => Self::BadRequest("data: nested deeper than http.max_json_depth"),
            PublishError::TooLarge { max_size, .. } => Self::PayloadTooLarge { limit: max_size },
            PublishError::Throttled(Throttled {
                limit: limit @ (Limit::QuotaMonth | Limit::QuotaHistoryBytes),
                retry_after,
            }) => Self::QuotaUsedUp { limit, retry_after },
            PublishError::Throttled(Throttled { retry_after, .. }) => Self::TooManyRequests { retry_after },
            PublishError::Schema(Invalid::Version { .. }) => {
                Self::field("schema_version", "the namespace has no such version")
            }
            PublishError::Schema(invalid) => Self::InvalidPayload(invalid),
            PublishError::NoClass => {
                warn!("a namespace names a retention class that this deployment does not have");
                Self::Refused
            }
            PublishError::Log(failure) => failure.into(),
        }
    }
}

impl From<PublishFailure> for ApiError {
    fn from(failure: PublishFailure) -> Self {
        match failure {
            PublishFailure::Unavailable(_) => Self::Unavailable,
            PublishFailure::Unknown => Self::OutcomeUnknown,
            PublishFailure::Full => {
                warn!("the log is full and refused a publication");
                Self::Refused
            }
            PublishFailure::Refused(why) => {
                warn!(why, "the log refused a publication");
                Self::Refused
            }
        }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::NoHistory => Self::NoHistory,
            HistoryError::OtherEpoch => Self::OtherEpoch,
            HistoryError::TimedOut => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_own_code_and_a_json_body() {
        let mut codes = Vec::new();
        for error in ApiError::examples() {
            let mut body = Vec::new();
            error.write(&mut body);
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"]["code"], error.code());
            assert_eq!(body["error"]["message"], error.to_string());
            assert!(error.status().is_client_error() || error.status().is_server_error());
            // 503 says that nothing was done; 504 that nobody knows.
            assert_eq!(
                error.retry_after().is_some(),
                matches!(error.status().as_u16(), 429 | 503),
                "{error}"
            );
            codes.push(error.code());
        }
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_now() {
        for (ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(retry_seconds(Duration::from_millis(ms)), seconds);
        }
    }
}
