//! `GET /v1/channels/{channel}/presence` and `/presence/stats`: who is on a channel, on all nodes.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{OnlyApp, publish::json_response};
use crate::{
    api::{
        ApiState,
        error::{ApiError, ErrorAnswer},
        extract::{ChannelOf, Params},
    },
    model::NodeId,
    presence::{Member, PresenceError},
};

/// Members in a page where the caller does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most members in a page. Not a setting: it is part of the documented API.
const MAX_LIMIT: usize = 1_000;
/// When to ask again if the node knows too many channels: they are forgotten after `presence.linger`.
const RETRY: Duration = Duration::from_secs(1);
/// The longest id of a connection that is looked at; ours are shorter.
const MAX_CURSOR_BYTES: usize = 64;

/// Which page.
#[derive(Deserialize, utoipa::IntoParams, Default)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct PresenceParams {
    /// Members in the page: 1 to 1,000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before this one.
    cursor: Option<String>,
    /// Must be the key's app; or the header X-App.
    #[serde(rename = "app")]
    #[param(rename = "app")]
    _app: Option<String>,
}

/// A member: a connection that is on the channel.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct PresentMember<'a> {
    /// Its connection.
    client: &'a str,
    /// Its user; empty = anonymous.
    user: &'a str,
    /// What its connection token says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    conn_info: Option<&'a RawValue>,
    /// What its subscription token says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    chan_info: Option<&'a RawValue>,
    /// What it shows itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    state: Option<&'a RawValue>,
}

/// A page of members, in the order of their connections' ids.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct PresencePage<'a> {
    /// The members.
    members: Vec<PresentMember<'a>>,
    /// Connections on the channel, of all pages.
    connections: usize,
    /// Users on the channel; all anonymous ones are one.
    users: usize,
    /// Whether all nodes have said whom they have. If not, there may be more.
    complete: bool,
    /// Ids of nodes that have not.
    #[schema(value_type = Vec<String>)]
    missing_nodes: Vec<NodeId>,
    /// For the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// How many are on a channel.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct PresenceCounts {
    /// Connections.
    connections: usize,
    /// Users; all anonymous ones are one.
    users: usize,
    /// Whether all nodes have said whom they have. If not, there may be more.
    complete: bool,
    /// Ids of nodes that have not.
    #[schema(value_type = Vec<String>)]
    missing_nodes: Vec<NodeId>,
}

/// Lists who is on a channel
///
/// By connection. A member that comes or goes between two pages is on one of them or on none.
#[utoipa::path(
    get,
    path = "/v1/channels/{channel}/presence",
    operation_id = "presence",
    tag = "channels",
    params(("channel" = String, Path, description = "The channel, percent-encoded"), PresenceParams),
    responses(
        (status = 200, description = "A page", body = PresencePage),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 404, description = "No such namespace, or it has no presence", body = ErrorAnswer),
        (status = 422, description = "Not the name of a channel, or a parameter out of its bounds", body = ErrorAnswer),
        (status = 429, description = "The node knows the members of as many channels as it may", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn presence(
    State(state): State<ApiState>,
    channel: ChannelOf,
    Params(params): Params<PresenceParams>,
) -> Result<Response, ApiError> {
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", format!("1 to {MAX_LIMIT}")));
    }
    let after = params.cursor.as_deref();
    if after.is_some_and(|after| after.len() > MAX_CURSOR_BYTES) {
        return Err(ApiError::field("cursor", "not a cursor"));
    }
    let ChannelOf { app, target } = with_presence(channel)?;
    let page = state
        .presence
        .members(&app.id, &target.channel, after, limit)
        .await;
    let page = page.map_err(refused)?;
    answer(&PresencePage {
        members: page.members.iter().map(|member| shown(member)).collect(),
        connections: page.connections,
        users: page.users,
        complete: page.complete,
        missing_nodes: page.missing,
        next: page.next.as_deref(),
    })
}

/// Counts who is on a channel
#[utoipa::path(
    get,
    path = "/v1/channels/{channel}/presence/stats",
    operation_id = "presence_stats",
    tag = "channels",
    params(
        ("channel" = String, Path, description = "The channel, percent-encoded"),
        ("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App"),
    ),
    responses(
        (status = 200, description = "The numbers", body = PresenceCounts),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 404, description = "No such namespace, or it has no presence", body = ErrorAnswer),
        (status = 422, description = "Not the name of a channel", body = ErrorAnswer),
        (status = 429, description = "The node knows the members of as many channels as it may", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn presence_stats(
    State(state): State<ApiState>,
    channel: ChannelOf,
    Params(_): Params<OnlyApp>,
) -> Result<Response, ApiError> {
    let ChannelOf { app, target } = with_presence(channel)?;
    let stats = state.presence.stats(&app.id, &target.channel).await;
    let stats = stats.map_err(refused)?;
    answer(&PresenceCounts {
        connections: stats.connections,
        users: stats.users,
        complete: stats.complete,
        missing_nodes: stats.missing,
    })
}

fn with_presence(channel: ChannelOf) -> Result<ChannelOf, ApiError> {
    if channel.target.rule.presence {
        Ok(channel)
    } else {
        Err(ApiError::NoPresence)
    }
}

/// A question makes no member: what can be refused is to know one channel more.
fn refused(_: PresenceError) -> ApiError {
    ApiError::TooManyRequests { retry_after: RETRY }
}

fn answer(answer: &impl Serialize) -> Result<Response, ApiError> {
    // Plain data: it can be written.
    let body = serde_json::to_vec(answer).unwrap_or_default();
    Ok(json_response(StatusCode::OK, body))
}

fn shown(member: &Member) -> PresentMember<'_> {
    // All of it was JSON when it was let in.
    PresentMember {
        client: &member.client,
        user: &member.user,
        conn_info: member.conn_info.as_deref().and_then(read),
        chan_info: member.chan_info.as_deref().and_then(read),
        state: member.state.as_deref().and_then(read),
    }
}

fn read(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}
