//! What handlers take from a request. Everything that can be wrong with it becomes an [`ApiError`].

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, HeaderValue, Uri, header, request::Parts},
};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{ApiState, error::ApiError, rates::Asked};
use crate::{
    apps::{App, Apps},
    auth::{PresentedKey, presented_key},
    protocol::json::Object,
    publish::Target,
    telemetry::{AuthFailure, Measure, Metrics, RefusedBody},
};

/// The app whose backend calls, known by its key.
pub(super) struct Caller(pub Arc<App>);

/// A channel of the caller's app, by the path parameter `channel`.
pub(super) struct ChannelOf {
    /// The caller's app.
    pub app: Arc<App>,
    /// The channel.
    pub target: Target,
}

/// The query, strict: unknown parameters are errors.
pub(super) struct Params<T>(pub T);

/// A body of `application/json`, not parsed yet.
pub(super) struct JsonBody(pub Bytes);

/// Query parameters that name the caller. Others are not looked at.
#[derive(Deserialize, Default)]
struct Naming {
    app: Option<String>,
    api_key: Option<String>,
}

/// Where a key may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyPlace {
    /// In a header only: queries end up in logs of proxies.
    Header,
    /// Also as `?api_key=`, as callers of the Centrifugo server API expect.
    HeaderOrQuery,
}

/// Finds the app of a request by its key. `X-App` or `?app=` only choose among the apps that the
/// key opens.
///
/// # Errors
///
/// [`ApiError::Unauthorized`], [`ApiError::Forbidden`], a query that cannot be read, or one request too many
/// for the app's quota.
pub(super) fn identify(parts: &Parts, place: KeyPlace, state: &ApiState) -> Result<Arc<App>, ApiError> {
    let app = find(&parts.headers, &parts.uri, place, &state.apps, &state.metrics)?;
    if let Some(asked) = parts.extensions.get::<Asked>() {
        asked.by(&app);
    }
    if let Err(over) = app.meter.call(Instant::now()) {
        state.metrics.app(&app.id).limits_hit.of(over.limit).inc();
        return Err(ApiError::TooManyRequests {
            retry_after: over.retry_after,
        });
    }
    Ok(app)
}

fn find(
    headers: &HeaderMap,
    uri: &Uri,
    place: KeyPlace,
    apps: &Apps,
    metrics: &Metrics,
) -> Result<Arc<App>, ApiError> {
    let naming = match uri.query() {
        None => Naming::default(),
        Some(_) => query::<Naming>(uri)?,
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let in_header = presented_key(text(header::AUTHORIZATION.as_str()), text("x-api-key"));
    let in_query = naming.api_key.as_deref().filter(|key| !key.is_empty());
    let key = match place {
        KeyPlace::Header => in_header,
        KeyPlace::HeaderOrQuery => in_header.or(in_query),
    };
    let wrong = |error| {
        metrics.auth_failures.of(AuthFailure::ApiKey).inc();
        Err(error)
    };
    let Some(key) = key.map(PresentedKey::new) else {
        return wrong(ApiError::Unauthorized);
    };
    let named = match headers.get("x-app") {
        // What is not visible ASCII is no app's id.
        Some(value) => Some(value.to_str().unwrap_or_default()),
        None => naming.app.as_deref(),
    };
    // The app that was named is asked first: the common case then compares with few keys.
    let by_name = named.and_then(|id| apps.get(id));
    let app = match (named, by_name) {
        (Some(_), Some(app)) if app.api_keys.accept(&key) => app,
        (named, _) => match apps.by_api_key(&key) {
            None => return wrong(ApiError::Unauthorized),
            Some(_) if named.is_some() => return wrong(ApiError::Forbidden),
            Some(app) => app,
        },
    };
    let usage = &metrics.app(&app.id).usage;
    usage.add(Measure::ApiCalls, 1);
    if let Some(id) = app.api_keys.id_of(&key.hash()) {
        usage.key_used(id);
    }
    Ok(app)
}

/// The channel that a path of REST names, if nothing in it is escaped.
pub(super) fn plain_channel(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix("/v1/channels/")?
        .strip_suffix("/publications")?;
    let plain = !name.is_empty() && !name.bytes().any(|byte| matches!(byte, b'/' | b'%'));
    plain.then_some(name)
}

/// Parses a JSON body that is one object.
///
/// # Errors
///
/// [`ApiError::InvalidJson`], [`ApiError::InvalidBody`].
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Object(value)) => Ok(value),
        Err(error) => Err(ApiError::json(&error)),
    }
}

/// How a body is read.
pub(super) struct Intake<'a> {
    /// The largest.
    pub max_bytes: usize,
    /// How long it may take.
    pub within: Duration,
    /// Where refused ones are counted.
    pub metrics: &'a Metrics,
}

/// Reads a body that is at most as large as the node takes.
///
/// # Errors
///
/// [`ApiError::BodyTooLarge`], [`ApiError::RequestTimeout`], or the connection ended.
pub(super) async fn collect(body: Body, intake: Intake<'_>) -> Result<Bytes, ApiError> {
    let limit = intake.max_bytes;
    let refused = |why, error| {
        intake.metrics.bodies_refused.of(why).inc();
        Err(error)
    };
    match timeout(intake.within, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => {
            refused(RefusedBody::TooLarge, ApiError::BodyTooLarge { limit })
        }
        Ok(Err(_)) => refused(RefusedBody::Broken, ApiError::BadRequest("the body ended early")),
        Err(_) => refused(RefusedBody::TooSlow, ApiError::RequestTimeout),
    }
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let place = KeyPlace::Header;
        identify(parts, place, state).map(Self)
    }
}

impl FromRequestParts<ApiState> for ChannelOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        // Who asks comes first: nobody else learns what exists.
        let Caller(app) = Caller::from_request_parts(parts, state).await?;
        let target = match plain_channel(parts.uri.path()) {
            Some(name) => Target::find(&app.rules, name)?,
            None => {
                let Path(name) = Path::<String>::from_request_parts(parts, state)
                    .await
                    .map_err(|_| ApiError::BadRequest("the channel is not percent-encoded UTF-8"))?;
                Target::find(&app.rules, &name)?
            }
        };
        Ok(Self { app, target })
    }
}

impl<S: Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        query(&parts.uri).map(Self)
    }
}

impl FromRequest<ApiState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        if !is_json(request.headers().get(header::CONTENT_TYPE)) {
            return Err(ApiError::UnsupportedMediaType);
        }
        collect(request.into_body(), state.intake()).await.map(Self)
    }
}

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    match Query::try_from_uri(uri) {
        Ok(Query(params)) => Ok(params),
        Err(_) => Err(ApiError::BadRequest(
            "a query parameter is unknown, given twice, or not of its type; see /v1/openapi.json",
        )),
    }
}

/// Whether a media type is JSON (RFC 8259) or says that it is written as JSON (RFC 6839).
pub(super) fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let Some(text) = content_type.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = text.split_once(';').map_or(text, |(essence, _)| essence).trim();
    let Some((kind, name)) = essence.split_once('/') else {
        return false;
    };
    let ends_in_json = name.len() > 5
        && name
            .get(name.len() - 5..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"));
    kind.eq_ignore_ascii_case("application") && (name.eq_ignore_ascii_case("json") || ends_in_json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_json_content_type() {
        for (text, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/merge-patch+json", true),
            ("application/jsonx", false),
            ("application/+json", false),
            ("text/json", false),
            ("application/x-www-form-urlencoded", false),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(is_json(Some(&HeaderValue::from_static(text))), json, "{text}");
        }
        assert!(!is_json(None));
    }
}
