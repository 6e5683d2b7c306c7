//! What a caller of the control plane is told when something was not done: the one place where its errors
//! become statuses.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response},
};

use crate::{
    api::error::{ApiError, retry_seconds},
    control::{
        Class, ControlError,
        apps::{AppsError, Reason},
    },
    store::StoreError,
};

/// Between two tries where nothing better is known.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// It cannot be read.
    Request(ApiError),
    /// A service of people.
    Control(ControlError),
    /// The service of apps.
    Apps(AppsError),
    /// Too many requests, of an account or from an address.
    Limited(Duration),
    /// The store has not answered since the node started.
    NotOpen,
    /// The key was used for another request.
    KeyReused,
    /// A request with this key is being done.
    InProgress,
    /// A request with this key began, and what became of it is not known, or cannot be told again.
    OutcomeUnknown,
}

/// In an answer: nothing was done, so that the same request may be sent again as a new one.
#[derive(Clone, Copy)]
pub(super) struct NothingDone;

/// The body of an answer of the control plane that is an error.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ControlErrorAnswer {
    error: ControlErrorBody,
}

/// Why the request was not done.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ControlErrorBody {
    /// For programs: a word of `a-z` and `_` that does not change.
    code: &'static str,
    /// For people.
    message: String,
    /// With some errors: everything that keeps it from being done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<Reason>,
}

/// All errors, for the document.
pub(in crate::api) struct Failures;

const DOCUMENTED: [(&str, &str); 14] = [
    ("400", "Not readable, or not what it can be"),
    ("401", "Who it is was not proven"),
    ("403", "Who it is may not"),
    ("404", "There is no such thing, or it is not for this one to know"),
    ("408", "The body took too long"),
    ("409", "Not as things are"),
    ("412", "Not what If-Match says any more"),
    ("413", "Body too large"),
    ("415", "Not JSON by its content type"),
    ("422", "A field is not as described, or an app cannot be so"),
    ("429", "Not so often"),
    ("500", "A mistake of ours, or of the database"),
    (
        "503",
        "Not now: the database does not answer, a queue is full, or something is not configured",
    ),
    ("504", "It was not answered in time"),
];

impl IntoResponses for Failures {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        let answer = |about: &str| {
            let schema = Ref::from_schema_name("ControlErrorAnswer");
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let answer = ResponseBuilder::new().description(about);
            RefOr::T(answer.content("application/json", content).build())
        };
        let documented = DOCUMENTED.iter();
        documented
            .map(|(status, about)| ((*status).to_owned(), answer(about)))
            .collect()
    }
}

impl Failure {
    fn parts(&self) -> (StatusCode, &'static str) {
        let status =
            |class: Class| StatusCode::from_u16(class.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match self {
            Self::Request(error) => (error.status(), error.code()),
            Self::Control(error) => (status(error.class()), error.code()),
            Self::Apps(error) => (status(error.class()), error.code()),
            Self::Limited(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
            Self::NotOpen => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Self::InProgress => (StatusCode::CONFLICT, "request_in_progress"),
            Self::OutcomeUnknown => (StatusCode::CONFLICT, "outcome_unknown"),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Request(error) => error.to_string(),
            Self::Control(error) => error.to_string(),
            Self::Apps(error) => error.to_string(),
            Self::Limited(_) => "too many requests; wait".to_owned(),
            Self::NotOpen => "the database does not answer; nothing was done".to_owned(),
            Self::KeyReused => "this Idempotency-Key was used for another request".to_owned(),
            Self::InProgress => "a request with this Idempotency-Key is being done; ask again".to_owned(),
            Self::OutcomeUnknown => "a request with this Idempotency-Key was begun, and its answer is not \
                                     known here: look before you send it with another key"
                .to_owned(),
        }
    }

    fn reasons(&self) -> Vec<Reason> {
        match self {
            Self::Apps(AppsError::Refused(reasons)) => reasons.clone(),
            Self::Control(ControlError::OwnsApps(teams)) => {
                let teams = teams.iter();
                teams
                    .map(|team| Reason::new(&format!("teams[{team}]"), "has apps".to_owned()))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(error) => error.retry_after(),
            Self::Control(error) => error.retry_after(),
            Self::Apps(error) => error.retry_after(),
            Self::Limited(wait) => Some(*wait),
            Self::NotOpen | Self::InProgress => Some(PAUSE),
            Self::KeyReused | Self::OutcomeUnknown => None,
        }
    }

    /// Whether it is certain that nothing was done.
    fn did_nothing(&self) -> bool {
        let unknown = |class| matches!(class, Class::Internal | Class::Unavailable);
        match self {
            Self::Control(ControlError::Busy | ControlError::NotConfigured(_)) => true,
            Self::Control(error) => !unknown(error.class()),
            Self::Apps(error) => !unknown(error.class()),
            _ => true,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, code) = self.parts();
        let answer = ControlErrorAnswer {
            error: ControlErrorBody {
                code,
                message: self.message(),
                reasons: self.reasons(),
            },
        };
        // Plain data: it can be written.
        let body = serde_json::to_vec(&answer).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_seconds(wait)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.did_nothing() {
            response.extensions_mut().insert(NothingDone);
        }
        response
    }
}

// === impl From ===

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Request(error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

impl From<AppsError> for Failure {
    fn from(error: AppsError) -> Self {
        match error {
            AppsError::Control(error) => Self::Control(error),
            error => Self::Apps(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Control(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_documented() {
        let classes = [
            Class::Invalid,
            Class::Unauthenticated,
            Class::Forbidden,
            Class::NotFound,
            Class::Conflict,
            Class::Stale,
            Class::Refused,
            Class::TooMany,
            Class::Internal,
            Class::Unavailable,
        ];
        let of_classes = classes.map(Class::status).map(|status| status.to_string());
        let of_requests = ApiError::examples().into_iter();
        // Not of a route of the control plane: the router's own.
        let of_requests = of_requests.map(|error| error.status().as_str().to_owned());
        for status in of_requests.filter(|status| status != "405").chain(of_classes) {
            assert!(DOCUMENTED.iter().any(|(known, _)| *known == status), "{status}");
        }
    }

    #[test]
    fn it_is_told_when_nothing_was_done() {
        for (failure, nothing) in [
            (Failure::Control(ControlError::Busy), true),
            (Failure::Control(ControlError::Unavailable), false),
            (Failure::Control(ControlError::EmailTaken), true),
            (Failure::Apps(AppsError::Unavailable), false),
            (Failure::Apps(AppsError::Exists), true),
            (Failure::NotOpen, true),
            (Failure::Limited(PAUSE), true),
        ] {
            let text = format!("{failure:?}");
            let response = failure.into_response();
            assert_eq!(
                response.extensions().get::<NothingDone>().is_some(),
                nothing,
                "{text}"
            );
        }
    }
}
