//! Errors of the server API: numbers in a body of status 200, or statuses if the caller wants that.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa::ToSchema;

use crate::{
    api::{
        error::{ApiError, retry_seconds},
        pipeline::Failure,
    },
    channel::{HistoryError, PublishFailure},
    protocol::{ErrorCode, PayloadError, json},
    publish::{NoTarget, PublishError},
};

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerError {
    pub(super) code: ErrorCode,
    /// What is wrong, where the code's own words do not tell.
    message: Option<Box<str>>,
    retry_after: Option<Duration>,
    /// The log took nothing, or did not answer.
    of_log: bool,
}

/// How a caller wants to be told of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorMode {
    /// Status 200 and `{"error":{..}}`.
    Body,
    /// A status of its own and the bare error.
    Transport,
}

/// An error in an answer with status 200; with transport errors the body is `error` alone.
#[derive(ToSchema)]
#[schema(as = ServerErrorAnswer)]
#[expect(dead_code, reason = "describes what `ServerError::write` writes")]
pub(in crate::api) struct ErrorAnswer {
    error: ErrorBody,
}

/// An error of the server API: the numbers are those of the client protocol.
#[derive(ToSchema)]
#[schema(as = ServerErrorBody)]
#[expect(dead_code, reason = "describes what `ServerError::write` writes")]
pub(in crate::api) struct ErrorBody {
    /// 100 internal, 102 unknown channel, 104 method not found, 106 limit exceeded, 107 bad request,
    /// 108 not available, 111 too many requests, 112 unrecoverable position, 200 outcome unknown.
    code: u16,
    /// For people.
    message: String,
}

impl ErrorMode {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get("x-centrifugo-error-mode") {
            Some(mode) if mode.as_bytes().eq_ignore_ascii_case(b"transport") => Self::Transport,
            _ => Self::Body,
        }
    }
}

impl ServerError {
    /// Appends `{"code":..,"message":..}`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"code":"#);
        json::push_u64(out, self.code.code().into());
        out.extend_from_slice(br#","message":"#);
        json::push_str(out, self.message.as_deref().unwrap_or(self.code.message()));
        out.push(b'}');
    }

    /// Appends `{"error":{..}}`.
    pub(super) fn write_wrapped(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"error":"#);
        self.write(out);
        out.push(b'}');
    }

    /// The status of a transport error. The reference has 100, 102, 104, 107, 108, 112 and 113.
    fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::UnknownChannel | ErrorCode::MethodNotFound => StatusCode::NOT_FOUND,
            ErrorCode::BadRequest | ErrorCode::NotAvailable => StatusCode::BAD_REQUEST,
            ErrorCode::LimitExceeded => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooManyRequests if self.of_log => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::UnrecoverablePosition => StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::ConcurrentPagination => StatusCode::CONFLICT,
            ErrorCode::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn into_response(self, mode: ErrorMode) -> Response {
        let mut body = Vec::with_capacity(64);
        let status = match mode {
            ErrorMode::Body => {
                self.write_wrapped(&mut body);
                StatusCode::OK
            }
            ErrorMode::Transport => {
                self.write(&mut body);
                self.status()
            }
        };
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (status, content_type, Body::from(body)).into_response();
        if let (ErrorMode::Transport, Some(wait)) = (mode, self.retry_after) {
            let seconds = HeaderValue::from(retry_seconds(wait));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

// === impl From ===

impl From<ErrorCode> for ServerError {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            retry_after: None,
            of_log: false,
        }
    }
}

impl From<PublishError> for ServerError {
    fn from(error: PublishError) -> Self {
        Self {
            code: error.code(),
            message: error.explanation().map(String::into_boxed_str),
            retry_after: error.retry_after(),
            of_log: matches!(
                error,
                PublishError::Log(PublishFailure::Unavailable(_) | PublishFailure::Unknown)
            ),
        }
    }
}

impl From<NoTarget> for ServerError {
    fn from(error: NoTarget) -> Self {
        PublishError::from(error).into()
    }
}

// What both APIs check before a command is done.
impl From<ApiError> for ServerError {
    fn from(error: ApiError) -> Self {
        let code = match error {
            ApiError::UnknownChannel => ErrorCode::UnknownChannel,
            ApiError::PayloadTooLarge { .. } => ErrorCode::LimitExceeded,
            ApiError::TooManyRequests { .. } | ApiError::QuotaUsedUp { .. } => ErrorCode::TooManyRequests,
            _ => ErrorCode::BadRequest,
        };
        Self {
            retry_after: error.retry_after(),
            ..code.into()
        }
    }
}

impl From<PayloadError> for ServerError {
    fn from(_: PayloadError) -> Self {
        ErrorCode::BadRequest.into()
    }
}

impl From<HistoryError> for ServerError {
    fn from(error: HistoryError) -> Self {
        Self::from(match error {
            HistoryError::NoHistory => ErrorCode::NotAvailable,
            HistoryError::OtherEpoch => ErrorCode::UnrecoverablePosition,
            HistoryError::TimedOut => ErrorCode::Internal,
        })
    }
}

impl Failure for ServerError {
    fn not_sent() -> Self {
        PublishError::Log(PublishFailure::Unavailable("the log has just failed")).into()
    }

    fn is_of_log(&self) -> bool {
        self.of_log
    }
}
