//! `GET` and `DELETE /v1/channels/{channel}/publications`

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{OnlyApp, cursor, publish::json_response};
use crate::{
    api::{
        ApiState,
        error::{ApiError, ErrorAnswer},
        extract::{ChannelOf, Params},
    },
    channel::{HistoryPage, HistoryRead},
    log::Route,
    model::{Epoch, MAX_OFFSET},
    protocol::{centrifuge::encode_publication_body, json},
    publish::PublishError,
};

/// Publications in a page where the caller does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most publications in a page. Not a setting: it is part of the documented API; a page of large
/// publications ends earlier, by `catchup.page_bytes`.
const MAX_LIMIT: usize = 1_000;
/// The longest epoch that is looked at; ours are shorter.
const MAX_EPOCH_BYTES: usize = 64;

/// What to read.
#[derive(Deserialize, utoipa::IntoParams, Default)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct HistoryParams {
    /// Only what comes after this offset; with `reverse`, before it.
    #[param(maximum = 9007199254740991_u64)]
    since: Option<u64>,
    /// The epoch of `since`: if it is another now, the answer is 409.
    epoch: Option<String>,
    /// Only what was stored at or after this time, in ms since 1970.
    from: Option<u64>,
    /// Only what was stored before this time, in ms since 1970.
    to: Option<u64>,
    /// Publications in the page: 0 (only the top) to 1,000; 100 if absent.
    #[param(maximum = 1000)]
    limit: Option<usize>,
    /// Newest first.
    reverse: Option<bool>,
    /// `next` of the page before this one. Stands alone or with `limit`.
    cursor: Option<String>,
    /// Must be the key's app; or the header X-App.
    #[serde(rename = "app")]
    #[param(rename = "app")]
    _app: Option<String>,
}

/// A publication as it is stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `encode_publication_body` writes")]
#[schema(as = StoredPublication)]
pub(in crate::api) struct PublicationBody {
    /// The payload; null if it is bytes.
    data: serde_json::Value,
    /// The payload as base64, if it is bytes.
    b64data: Option<String>,
    /// Its offset: ascending within the channel, with holes.
    offset: u64,
    /// When it was stored, in ms since 1970.
    time: i64,
    /// Its tags.
    tags: Option<std::collections::HashMap<String, String>>,
    /// Who published it, if a client connection did: `user`, `client`, `conn_info`, `chan_info`.
    info: Option<serde_json::Value>,
}

/// A page of history.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `write_page` writes")]
pub(in crate::api) struct HistoryAnswer {
    /// In the order asked for.
    publications: Vec<PublicationBody>,
    /// The epoch of all offsets here.
    epoch: String,
    /// Everything up to this offset has been stored: the position to subscribe from.
    top: u64,
    /// Something after `since` is no longer retained. Never true with `reverse`.
    gap: bool,
    /// With `gap`: the offset of the first publication that still is; null if none is.
    first_retained: Option<u64>,
    /// The `cursor` of the next page; absent on the last one.
    next: Option<String>,
}

/// What was removed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `remove` writes")]
pub(in crate::api) struct RemoveAnswer {
    /// Everything up to this offset is gone. The epoch stays.
    offset: u64,
}

/// Reads history
///
/// Forward from `since` (or from the beginning), or backward from it (or from the end).
#[utoipa::path(
    get,
    path = "/v1/channels/{channel}/publications",
    operation_id = "history",
    tag = "channels",
    params(("channel" = String, Path, description = "The channel, percent-encoded"), HistoryParams),
    responses(
        (status = 200, description = "A page", body = HistoryAnswer),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 404, description = "No such namespace, or it keeps no history", body = ErrorAnswer),
        (status = 409, description = "The position is of another epoch", body = ErrorAnswer),
        (status = 422, description = "A parameter is out of its bounds", body = ErrorAnswer),
        (status = 500, description = "The deployment has no such retention class", body = ErrorAnswer),
        (status = 503, description = "The log did not answer", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn history(
    State(state): State<ApiState>,
    channel: ChannelOf,
    Params(params): Params<HistoryParams>,
) -> Result<Response, ApiError> {
    let read = params.into_read()?;
    let route = route(&state, &channel)?;
    let page = state.hub.history(&route, read.clone()).await?;
    let size: usize = page.publications.iter().map(|it| it.record.data.len() + 96).sum();
    let mut answer = Vec::with_capacity(128 + size);
    write_page(&read, &page, &mut answer);
    Ok(json_response(StatusCode::OK, answer))
}

/// Removes history
///
/// All publications that are stored now. Subscribers stay subscribed.
#[utoipa::path(
    delete,
    path = "/v1/channels/{channel}/publications",
    operation_id = "remove_history",
    tag = "channels",
    params(
        ("channel" = String, Path, description = "The channel, percent-encoded"),
        ("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App"),
    ),
    responses(
        (status = 200, description = "Removed", body = RemoveAnswer),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 404, description = "No such namespace, or it keeps no history", body = ErrorAnswer),
        (status = 422, description = "Not the name of a channel", body = ErrorAnswer),
        (status = 500, description = "The deployment has no such retention class", body = ErrorAnswer),
        (status = 503, description = "The log cannot be reached; nothing was done", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 504, description = "Removed or not; removing again is safe", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn remove(
    State(state): State<ApiState>,
    channel: ChannelOf,
    Params(_): Params<OnlyApp>,
) -> Result<Response, ApiError> {
    let route = route(&state, &channel)?;
    let offset = state.hub.remove_history(&route).await?;
    let mut answer = Vec::with_capacity(32);
    answer.extend_from_slice(br#"{"offset":"#);
    json::push_u64(&mut answer, offset);
    answer.push(b'}');
    Ok(json_response(StatusCode::OK, answer))
}

/// Where a channel with history lives.
fn route(state: &ApiState, ChannelOf { app, target }: &ChannelOf) -> Result<Route, ApiError> {
    let route = state.hub.route(&app.id, &target.channel, &target.rule.history);
    let route = route.ok_or(PublishError::NoClass)?;
    match route.shard() {
        Some(_) => Ok(route),
        None => Err(ApiError::NoHistory),
    }
}

impl HistoryParams {
    fn into_read(self) -> Result<HistoryRead, ApiError> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if limit > MAX_LIMIT {
            return Err(ApiError::field("limit", format!("at most {MAX_LIMIT}")));
        }
        if let Some(cursor) = &self.cursor {
            let alone = self.since.is_none()
                && self.epoch.is_none()
                && self.from.is_none()
                && self.to.is_none()
                && self.reverse.is_none();
            if !alone {
                return Err(ApiError::field("cursor", "stands alone or with limit"));
            }
            if limit == 0 {
                return Err(ApiError::field("limit", "a page after a cursor has at least 1"));
            }
            let read = cursor::decode(cursor).ok_or_else(|| ApiError::field("cursor", "not a cursor"))?;
            return Ok(HistoryRead { limit, ..read });
        }
        let reverse = self.reverse.unwrap_or(false);
        if self.since.is_some_and(|since| since > MAX_OFFSET) {
            return Err(ApiError::field("since", "beyond 2^53 - 1"));
        }
        if reverse && self.since == Some(0) {
            return Err(ApiError::field("since", "nothing is before 0"));
        }
        if self.epoch.is_some() && self.since.is_none() {
            return Err(ApiError::field("epoch", "belongs to since, which is missing"));
        }
        if self
            .epoch
            .as_ref()
            .is_some_and(|epoch| epoch.is_empty() || epoch.len() > MAX_EPOCH_BYTES)
        {
            return Err(ApiError::field("epoch", format!("1 to {MAX_EPOCH_BYTES} bytes")));
        }
        let time = |field, time: Option<u64>| match time {
            Some(time) if time > MAX_OFFSET => Err(ApiError::field(field, "beyond 2^53 - 1")),
            time => Ok(time.and_then(|time| i64::try_from(time).ok())),
        };
        let (from_ms, to_ms) = (time("from", self.from)?, time("to", self.to)?);
        if matches!((from_ms, to_ms), (Some(from), Some(to)) if from >= to) {
            return Err(ApiError::field("to", "not after from"));
        }
        Ok(HistoryRead {
            since: self.since,
            epoch: self.epoch.as_deref().map(Epoch::new),
            from_ms,
            to_ms,
            limit,
            reverse,
        })
    }
}

fn write_page(read: &HistoryRead, page: &HistoryPage, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"publications":["#);
    for (index, publication) in page.publications.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode_publication_body(publication, out);
    }
    out.extend_from_slice(br#"],"epoch":"#);
    json::push_str(out, page.top.epoch.as_str());
    out.extend_from_slice(br#","top":"#);
    json::push_u64(out, page.top.offset);
    out.extend_from_slice(if page.gap {
        br#","gap":true"#
    } else {
        br#","gap":false"#
    });
    if page.gap {
        out.extend_from_slice(br#","first_retained":"#);
        match page.publications.first() {
            Some(first) => json::push_u64(out, first.offset),
            None => out.extend_from_slice(b"null"),
        }
    }
    if let Some(last) = page.publications.last().filter(|_| page.more) {
        out.extend_from_slice(br#","next":"#);
        json::push_str(out, &cursor::encode(read, last.offset, &page.top.epoch));
    }
    out.push(b'}');
}
