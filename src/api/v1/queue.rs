//! `GET /v1/channels/{channel}/queue`

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::publish::json_response;
use crate::api::{
    ApiState,
    error::{ApiError, ErrorAnswer},
    extract::{ChannelOf, Params},
};

/// What is asked for.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct QueueParams {
    /// The `id` of a publication that was answered with 202.
    id: Option<String>,
    /// Must be the key's app; or the header X-App.
    #[serde(rename = "app")]
    #[param(rename = "app")]
    _app: Option<String>,
}

/// What waits of a channel.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct QueueAnswer {
    /// How many publications.
    waiting: u64,
    /// When the oldest of them was queued, ms since 1970; null if none waits.
    oldest: Option<i64>,
    /// Of the publication that was asked for, absent if none was. `waiting`; or `gone`: it does not wait any
    /// more. It is published then, unless it was dropped (`slipstream_queue_total`), or too old.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

/// What waits in the queue
///
/// Publications of the channel that came too soon for a rate. The answer may be as old as a replica of the
/// queue lags.
#[utoipa::path(
    get,
    path = "/v1/channels/{channel}/queue",
    operation_id = "queue",
    tag = "channels",
    params(
        ("channel" = String, Path, description = "The channel, percent-encoded"),
        QueueParams,
    ),
    responses(
        (status = 200, description = "What waits", body = QueueAnswer),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 404, description = "No such namespace", body = ErrorAnswer),
        (status = 422, description = "A parameter is not as described", body = ErrorAnswer),
        (status = 503, description = "The log cannot be reached", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn queue(
    State(state): State<ApiState>,
    ChannelOf { app, target }: ChannelOf,
    Params(params): Params<QueueParams>,
) -> Result<Response, ApiError> {
    let id = params.id.map(|id| id.parse::<u64>());
    let id = id
        .transpose()
        .map_err(|_| ApiError::field("id", "not one of a publication that was queued"))?;
    let waiting = state.publisher.waiting(&app, &target.channel).await;
    let waiting = waiting.map_err(|_| ApiError::Unavailable)?;
    let answer = QueueAnswer {
        waiting: waiting.messages,
        oldest: waiting.oldest_ms,
        state: id.map(|id| match waiting.oldest_seq {
            // What waits of a channel is published in its order.
            Some(oldest) if id >= oldest => "waiting",
            _ => "gone",
        }),
    };
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    Ok(json_response(StatusCode::OK, body))
}
