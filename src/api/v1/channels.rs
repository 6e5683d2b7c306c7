//! `GET /v1/channels` and `GET /v1/nodes`: what the nodes have of an app.

use std::time::{Duration, SystemTime};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OnlyApp, publish::json_response};
use crate::{
    api::{
        ApiState,
        error::{ApiError, ErrorAnswer},
        extract::{Caller, Params},
    },
    apps::App,
    model::{MAX_CHANNEL_BYTES, NodeId},
    survey::{Crowded, Turn},
    telemetry::Limit,
};

/// Channels in a page where the caller does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most channels in a page. Not a setting: it is part of the documented API.
const MAX_LIMIT: usize = 1_000;
/// When to come again if too many ask.
const RETRY: Duration = Duration::from_secs(1);

/// Which page.
#[derive(Deserialize, utoipa::IntoParams, Default)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct ChannelsParams {
    /// Only channels whose names begin with this.
    prefix: Option<String>,
    /// Channels in the page: 1 to 1,000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before this one.
    cursor: Option<String>,
    /// Must be the key's app; or the header X-App.
    #[serde(rename = "app")]
    #[param(rename = "app")]
    _app: Option<String>,
}

/// A channel that has subscribers.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ListedChannel<'a> {
    /// Its name.
    channel: &'a str,
    /// Subscriptions to it, on the nodes that answered.
    subscribers: u64,
}

/// A page of channels, in the order of their names.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ListedChannels<'a> {
    /// The channels. A page may have fewer than asked for though there is a next one.
    channels: Vec<ListedChannel<'a>>,
    /// Ids of nodes that did not answer: there may be more channels and subscribers.
    #[schema(value_type = Vec<String>)]
    missing_nodes: Vec<NodeId>,
    /// For the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// A node of the deployment. Numbers are of the caller's app alone; absent if the node did not answer.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ListedNode<'a> {
    /// Its id.
    #[schema(value_type = String)]
    id: NodeId,
    /// Its name.
    name: &'a str,
    /// Its version.
    version: &'a str,
    /// `starting`, `ready` or `draining`.
    state: &'a str,
    /// Seconds since it started.
    uptime: u64,
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    /// Users with connections to it; all anonymous ones are one.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<u64>,
    /// Subscriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<u64>,
    /// Channels that it follows, also those that have just lost their last subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<u64>,
}

/// The nodes of the deployment.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ListedNodes<'a> {
    /// The one that was asked first.
    nodes: Vec<ListedNode<'a>>,
    /// Ids of nodes that did not answer.
    #[schema(value_type = Vec<String>)]
    missing_nodes: Vec<NodeId>,
}

/// Lists channels with subscribers
///
/// Of all nodes. A channel that comes or goes between two pages is on one of them or on none.
#[utoipa::path(
    get,
    path = "/v1/channels",
    operation_id = "channels",
    tag = "channels",
    params(ChannelsParams),
    responses(
        (status = 200, description = "A page", body = ListedChannels),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 422, description = "A parameter out of its bounds", body = ErrorAnswer),
        (status = 429, description = "As many such questions as may be are under way", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn channels(
    State(state): State<ApiState>,
    Caller(app): Caller,
    Params(params): Params<ChannelsParams>,
) -> Result<Response, ApiError> {
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", format!("1 to {MAX_LIMIT}")));
    }
    let prefix = params.prefix.unwrap_or_default();
    let after = params.cursor.as_deref();
    for (field, text) in [("prefix", prefix.as_str()), ("cursor", after.unwrap_or_default())] {
        if text.len() > MAX_CHANNEL_BYTES {
            return Err(ApiError::field(
                field,
                format!("at most {MAX_CHANNEL_BYTES} bytes"),
            ));
        }
    }
    let page = turn(&state, &app)?.channels(&prefix, after, limit).await;
    let channels = page.channels.iter();
    answer(&ListedChannels {
        channels: channels
            .map(|(name, subscribers)| ListedChannel {
                channel: name.as_str(),
                subscribers: *subscribers,
            })
            .collect(),
        missing_nodes: page.missing,
        next: page.next.as_ref().map(|name| name.as_str()),
    })
}

/// Lists nodes
///
/// With what they have of the caller's app.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    operation_id = "nodes",
    tag = "nodes",
    params(("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App")),
    responses(
        (status = 200, description = "The nodes", body = ListedNodes),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 429, description = "As many such questions as may be are under way", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn nodes(
    State(state): State<ApiState>,
    Caller(app): Caller,
    Params(_): Params<OnlyApp>,
) -> Result<Response, ApiError> {
    let page = turn(&state, &app)?.nodes().await;
    let nodes = page.nodes.iter();
    let missing = nodes.clone().filter(|(_, tally)| tally.is_none());
    answer(&ListedNodes {
        missing_nodes: missing.map(|(node, _)| node.id).collect(),
        nodes: nodes
            .map(|(node, tally)| ListedNode {
                id: node.id,
                name: &node.name,
                version: &node.version,
                state: node.state.as_str(),
                uptime: uptime(node.started_ms),
                connections: tally.map(|tally| tally.connections),
                users: tally.map(|tally| tally.users),
                subscriptions: tally.map(|tally| tally.subscriptions),
                channels: tally.map(|tally| tally.channels),
            })
            .collect(),
    })
}

/// Seconds since a node has started, by its clock and this one's.
pub(in crate::api) fn uptime(started_ms: i64) -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let started = Duration::from_millis(u64::try_from(started_ms).unwrap_or(0));
    now.saturating_sub(started).as_secs()
}

/// A turn to ask all nodes.
pub(in crate::api) fn turn<'a>(state: &'a ApiState, app: &App) -> Result<Turn<'a>, ApiError> {
    state.survey.turn(&app.id).map_err(|Crowded| {
        state.metrics.app(&app.id).limits_hit.of(Limit::Surveys).inc();
        ApiError::TooManyRequests { retry_after: RETRY }
    })
}

fn answer(answer: &impl Serialize) -> Result<Response, ApiError> {
    // Plain data: it can be written.
    let body = serde_json::to_vec(answer).unwrap_or_default();
    Ok(json_response(StatusCode::OK, body))
}
