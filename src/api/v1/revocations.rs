//! `/v1/revocations`: tokens of an app that are worth nothing any more.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{OnlyApp, publish::json_response};
use crate::{
    api::{
        ApiState,
        error::{ApiError, ErrorAnswer},
        extract::{Caller, JsonBody, Params, object},
    },
    protocol::json::{self, Text},
    revocation::{Entry, EntryId, Kind, Order, RevokeError},
    telemetry::Limit,
};

/// Entries in a page where the caller does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most entries in a page. Not a setting: it is part of the documented API.
const MAX_LIMIT: usize = 1_000;
/// The longest value: tokens with longer ones are refused by their length, or have no such user.
const MAX_VALUE_BYTES: usize = 1_024;

/// What to revoke.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RevokeBody<'a> {
    /// `token`: one with this `jti`. `user`: those of a user, issued before a time. `before`: all of the
    /// app, issued before a time. `key`: those signed with a key.
    #[schema(value_type = String)]
    kind: Kind,
    /// The `jti`, the user, or the key: its `kid`, or the fingerprint of a configured one
    /// (docs/api.md). Not with `before`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    value: Option<Text<'a>>,
    /// With `user` and `before`: tokens issued (`iat`) before this time, in seconds since 1970; those
    /// issued until now if absent. Tokens without `iat` are older than any time.
    before: Option<i64>,
    /// When all those tokens have expired, in seconds since 1970: the revocation is forgotten then.
    /// After `revocations.default_ttl` if absent.
    until: Option<i64>,
}

/// A revocation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `write_entry` writes")]
pub(in crate::api) struct RevocationBody {
    /// What it is removed by.
    id: String,
    /// As it was given.
    kind: String,
    /// As it was given; absent with `before`.
    value: Option<String>,
    /// Only tokens issued before this time; absent with `token` and `key`.
    before: Option<i64>,
    /// When it is forgotten.
    until: i64,
    /// When it was made.
    created: i64,
}

/// A page of revocations.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `list` writes")]
pub(in crate::api) struct RevocationsAnswer {
    /// In the order of their ids.
    revocations: Vec<RevocationBody>,
    /// The `cursor` of the next page; absent on the last one.
    next: Option<String>,
}

/// Which page.
#[derive(Deserialize, utoipa::IntoParams, Default)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ListParams {
    /// Revocations in the page: 1 to 1,000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before this one.
    cursor: Option<String>,
    /// Must be the key's app; or the header X-App.
    #[serde(rename = "app")]
    #[param(rename = "app")]
    _app: Option<String>,
}

/// Revokes tokens
///
/// On all nodes, within a second: connections that came with such a token are closed (3500), and later
/// ones are refused. What was revoked already stays so: of two revocations of the same, the later times
/// count.
#[utoipa::path(
    post,
    path = "/v1/revocations",
    operation_id = "revoke",
    tag = "revocations",
    params(("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App")),
    request_body = RevokeBody,
    responses(
        (status = 201, description = "Revoked", body = RevocationBody),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 408, description = "The body took too long", body = ErrorAnswer),
        (status = 409, description = "The app has `revocations.max_per_app` revocations", body = ErrorAnswer),
        (status = 413, description = "Body too large", body = ErrorAnswer),
        (status = 415, description = "Not JSON by its content type", body = ErrorAnswer),
        (status = 422, description = "A field is not as described", body = ErrorAnswer),
        (status = 504, description = "NATS did not answer: revoked or not; again is safe", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn revoke(
    State(state): State<ApiState>,
    Caller(app): Caller,
    Params(_): Params<OnlyApp>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let body: RevokeBody<'_> = object(&body)?;
    let value = body.value.as_ref().map(|Text(value)| value.as_ref());
    match (body.kind, value) {
        (Kind::Before, Some(_)) => return Err(ApiError::field("value", "not with before")),
        (Kind::Token | Kind::Key, Some("")) => return Err(ApiError::field("value", "empty")),
        (Kind::Token | Kind::User | Kind::Key, None) => return Err(ApiError::field("value", "missing")),
        (_, Some(value)) if value.len() > MAX_VALUE_BYTES => {
            return Err(ApiError::field(
                "value",
                format!("at most {MAX_VALUE_BYTES} bytes"),
            ));
        }
        _ => {}
    }
    if body.before.is_some() && matches!(body.kind, Kind::Token | Kind::Key) {
        return Err(ApiError::field("before", "only with user and before"));
    }
    let order = Order {
        value: value.unwrap_or_default().to_owned(),
        before: body.before,
        until: body.until,
    };
    let revoked = state.revocations.revoke(&app.id, body.kind, order).await;
    let entry = revoked.map_err(|error| {
        if error == RevokeError::TooMany {
            state.metrics.app(&app.id).limits_hit.of(Limit::Revocations).inc();
        }
        ApiError::from(error)
    })?;
    let mut answer = Vec::with_capacity(160);
    write_entry(entry.id(), &entry, &mut answer);
    Ok(json_response(StatusCode::CREATED, answer))
}

/// Lists revocations
///
/// Those that have not been forgotten yet.
#[utoipa::path(
    get,
    path = "/v1/revocations",
    operation_id = "revocations",
    tag = "revocations",
    params(ListParams),
    responses(
        (status = 200, description = "A page", body = RevocationsAnswer),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 422, description = "A parameter is out of its bounds", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ApiState>,
    Caller(app): Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, ApiError> {
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", format!("1 to {MAX_LIMIT}")));
    }
    let after = match &params.cursor {
        Some(cursor) => {
            Some(EntryId::parse(cursor).ok_or_else(|| ApiError::field("cursor", "not a cursor"))?)
        }
        None => None,
    };
    let all: Vec<(EntryId, Arc<Entry>)> = state.revocations.list(&app.id, after);
    let page = &all[..limit.min(all.len())];
    let mut answer = br#"{"revocations":["#.to_vec();
    for (index, (id, entry)) in page.iter().enumerate() {
        if index > 0 {
            answer.push(b',');
        }
        write_entry(*id, entry, &mut answer);
    }
    answer.push(b']');
    if let Some((last, _)) = page.last().filter(|_| all.len() > page.len()) {
        answer.extend_from_slice(br#","next":"#);
        json::push_str(&mut answer, &last.to_string());
    }
    answer.push(b'}');
    Ok(json_response(StatusCode::OK, answer))
}

/// Takes a revocation back
///
/// Tokens that no other revocation is for are good again, on all nodes.
#[utoipa::path(
    delete,
    path = "/v1/revocations/{id}",
    operation_id = "restore",
    tag = "revocations",
    params(
        ("id" = String, Path, description = "The revocation's id"),
        ("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App"),
    ),
    responses(
        (status = 200, description = "Taken back: `{}`", body = serde_json::Value),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 404, description = "There is none with this id", body = ErrorAnswer),
        (status = 504, description = "NATS did not answer: taken back or not; again is safe", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn restore(
    State(state): State<ApiState>,
    Caller(app): Caller,
    id: Result<Path<String>, PathRejection>,
    Params(_): Params<OnlyApp>,
) -> Result<Response, ApiError> {
    let id = id.ok().and_then(|Path(id)| EntryId::parse(&id));
    let id = id.ok_or(ApiError::UnknownRevocation)?;
    if !state.revocations.restore(&app.id, id).await? {
        return Err(ApiError::UnknownRevocation);
    }
    Ok(json_response(StatusCode::OK, b"{}".to_vec()))
}

fn write_entry(id: EntryId, entry: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"id":"#);
    json::push_str(out, &id.to_string());
    out.extend_from_slice(br#","kind":"#);
    json::push_str(out, entry.kind.as_str());
    if entry.kind != Kind::Before {
        out.extend_from_slice(br#","value":"#);
        json::push_str(out, &entry.value);
    }
    let mut number = |name: &[u8], value: i64| {
        out.extend_from_slice(name);
        out.extend_from_slice(value.to_string().as_bytes());
    };
    if matches!(entry.kind, Kind::User | Kind::Before) {
        number(br#","before":"#, entry.before);
    }
    number(br#","until":"#, entry.until);
    number(br#","created":"#, entry.created);
    out.push(b'}');
}
