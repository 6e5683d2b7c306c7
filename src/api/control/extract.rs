//! What handlers of the control plane take from a request, and what they answer with.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{ToSchema, openapi};

use super::{ControlState, error::Failure};
use crate::{
    api::{
        error::ApiError,
        extract::{Intake, collect, is_json, object},
    },
    config::Secret,
    control::{Actor, ControlError, apps::AppsError},
    model::AppId,
};

/// What handlers answer.
pub(super) type Answer = Result<Response, Failure>;

/// Who asks, as the layer in front of the handler has found out.
pub(super) struct By(pub Actor);

/// A body of `application/json` in the form of `T`.
pub(super) struct Json<T>(pub T);

/// Parameters of the path.
pub(super) struct At<T>(pub T);

/// The app that the path names.
pub(super) struct AppAt(pub AppId);

/// The revision that the caller has seen, by `If-Match`.
pub(super) struct Seen(pub Option<u64>);

/// A secret in a body. It is in no message and no log.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Hidden(String);

impl Hidden {
    pub(super) fn into_secret(self) -> Secret {
        Secret::new(self.0)
    }
}

impl utoipa::PartialSchema for Hidden {
    fn schema() -> openapi::RefOr<openapi::Schema> {
        let text = openapi::ObjectBuilder::new()
            .schema_type(openapi::schema::Type::String)
            .format(Some(openapi::SchemaFormat::KnownFormat(
                openapi::KnownFormat::Password,
            )));
        openapi::RefOr::T(text.build().into())
    }
}

impl ToSchema for Hidden {}

/// An answer of this status.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body).map_err(|_| ControlError::Internal)?;
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((status, content_type, Body::from(body)).into_response())
}

/// The same of something that has a revision, as its `ETag`.
pub(super) fn tagged(status: StatusCode, revision: u64, body: &impl Serialize) -> Answer {
    let mut answer = json(status, body)?;
    let tag = HeaderValue::try_from(format!("\"{revision}\"")).map_err(|_| ControlError::Internal)?;
    answer.headers_mut().insert(header::ETAG, tag);
    Ok(answer)
}

/// It is done, and there is nothing to tell.
pub(super) fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl FromRequestParts<ControlState> for By {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &ControlState) -> Result<Self, Failure> {
        let actor = parts.extensions.get::<Actor>().cloned();
        actor.map(Self).ok_or(ControlError::Unauthenticated.into())
    }
}

impl<T: DeserializeOwned> FromRequest<ControlState> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &ControlState) -> Result<Self, Failure> {
        if !is_json(request.headers().get(header::CONTENT_TYPE)) {
            return Err(ApiError::UnsupportedMediaType.into());
        }
        let body = collect(request.into_body(), state.intake()).await?;
        Ok(Self(object(&body)?))
    }
}

impl ControlState {
    pub(super) fn intake(&self) -> Intake<'_> {
        Intake {
            max_bytes: self.max_body_bytes,
            within: self.body_timeout,
            metrics: &self.metrics,
        }
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<ControlState> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ControlState) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(at)) => Ok(Self(at)),
            Err(_) => {
                Err(ApiError::BadRequest("the path is not percent-encoded UTF-8, or not of its type").into())
            }
        }
    }
}

/// The path's first parameter.
#[derive(Deserialize)]
struct OfApp {
    app: String,
}

impl FromRequestParts<ControlState> for AppAt {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ControlState) -> Result<Self, Failure> {
        let At(OfApp { app }) = At::from_request_parts(parts, state).await?;
        match AppId::new(&app) {
            Ok(app) => Ok(Self(app)),
            Err(_) => Err(AppsError::NotFound("app").into()),
        }
    }
}

impl FromRequestParts<ControlState> for Seen {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &ControlState) -> Result<Self, Failure> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            return Ok(Self(None));
        };
        let tag = value.to_str().unwrap_or_default().trim();
        if tag == "*" {
            return Ok(Self(None));
        }
        let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        match number.and_then(|number| number.parse().ok()) {
            Some(revision) => Ok(Self(Some(revision))),
            None => Err(ApiError::field("If-Match", "one ETag as it was given, or *").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn what_the_caller_has_seen() {
        let state = super::super::tests::closed();
        for (header, seen) in [
            (None, Some(None)),
            (Some("*"), Some(None)),
            (Some("\"12\""), Some(Some(12))),
            (Some("12"), None),
            (Some("W/\"12\""), None),
            (Some("\"1\", \"2\""), None),
        ] {
            let mut request = Request::builder();
            if let Some(header) = header {
                request = request.header("If-Match", header);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let read = Seen::from_request_parts(&mut parts, &state).await;
            assert_eq!(read.ok().map(|Seen(seen)| seen), seen, "{header:?}");
        }
    }
}
