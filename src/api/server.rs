//! Centrifugo's server API, as its clients expect it: `POST /api/METHOD`, status 200 for whatever
//! was understood, `result` or `error` in the body.
//!
//! What differs is in docs/api.md ("Known quirks").

mod answers;
mod batch;
mod command;
mod error;
mod history;
mod legacy;
mod survey;
mod users;

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Path, Request, State, rejection::PathRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use self::{
    answers::{
        BroadcastAnswer, ChannelsAnswer, CommandAnswer, EmptyAnswer, HistoryAnswer, InfoAnswer,
        PresenceAnswer, PresenceStatsAnswer, PublishAnswer,
    },
    command::{BroadcastParams, Command, HistoryParams, HistoryRemoveParams, PublishParams, run},
    error::{ErrorAnswer, ErrorMode, ServerError},
    survey::{ChannelsParams, InfoParams, PresenceParams},
    users::{DisconnectParams, RefreshParams, SubscribeParams, UnsubscribeParams},
};
use super::{
    ApiState,
    error::ApiError,
    extract::{KeyPlace, collect, identify},
};
use crate::apps::App;

pub(super) use batch::{__path_batch, batch};
pub(super) use legacy::{__path_legacy, legacy};

/// A call that may be answered: its caller is known.
pub(super) struct Call {
    app: Arc<App>,
    mode: ErrorMode,
    body: Bytes,
}

impl FromRequest<ApiState> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let place = KeyPlace::HeaderOrQuery;
        let mode = ErrorMode::of(&parts.headers);
        let app = identify(&parts, place, state).map_err(|error| match error {
            ApiError::TooManyRequests { .. } => ServerError::from(error).into_response(mode),
            error => plain(&error),
        })?;
        // Clients of this API do not always name a content type, so none is asked for.
        let body = collect(body, state.intake())
            .await
            .map_err(|error| plain(&error))?;
        Ok(Self { app, mode, body })
    }
}

/// What is wrong before a call is understood, as this API says it: by the status alone.
fn plain(error: &ApiError) -> Response {
    match error.status() {
        // Whether a key opens another app is nobody's business here.
        StatusCode::FORBIDDEN => StatusCode::UNAUTHORIZED.into_response(),
        StatusCode::BAD_REQUEST => bad_request(),
        status => status.into_response(),
    }
}

/// The body is not what the method reads.
fn bad_request() -> Response {
    (StatusCode::BAD_REQUEST, "Bad Request").into_response()
}

/// Publishes to a channel
#[utoipa::path(
    post, path = "/api/publish", operation_id = "server_publish", tag = "server API",
    params(
        ("X-App" = Option<String>, Header, description = "Must be the key's app"),
        ("X-Centrifugo-Error-Mode" = Option<String>, Header, description = "`transport`: errors have their own status"),
    ),
    request_body = PublishParams,
    responses(
        (status = 200, description = "`result`, or `error`", body = PublishAnswer),
        (status = 400, description = "Not readable; with transport errors also codes 107 and 108", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one"),
        (status = 404, description = "With transport errors: code 102", body = ErrorAnswer),
        (status = 408, description = "The body took too long"),
        (status = 413, description = "Body too large; with transport errors also code 106"),
        (status = 429, description = "With transport errors: code 111", body = ErrorAnswer),
        (status = 500, description = "With transport errors: code 100", body = ErrorAnswer),
        (status = 503, description = "With transport errors: code 111, the log cannot be reached; nothing was sent", body = ErrorAnswer),
        (status = 504, description = "With transport errors: code 200, stored or not", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
)]
pub(super) async fn publish(State(state): State<ApiState>, call: Call) -> Response {
    answer(&state, "publish", call).await
}

/// Publishes the same to many channels
#[utoipa::path(
    post, path = "/api/broadcast", operation_id = "server_broadcast", tag = "server API",
    params(
        ("X-App" = Option<String>, Header, description = "Must be the key's app"),
        ("X-Centrifugo-Error-Mode" = Option<String>, Header, description = "`transport`: errors have their own status"),
    ),
    request_body = BroadcastParams,
    responses(
        (status = 200, description = "`result` with a response for each channel, or `error`", body = BroadcastAnswer),
        (status = 400, description = "Not readable; with transport errors also codes 107 and 108", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one"),
        (status = 408, description = "The body took too long"),
        (status = 413, description = "Body too large"),
    ),
    security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
)]
pub(super) async fn broadcast(State(state): State<ApiState>, call: Call) -> Response {
    answer(&state, "broadcast", call).await
}

/// Reads a channel's history
#[utoipa::path(
    post, path = "/api/history", operation_id = "server_history", tag = "server API",
    params(
        ("X-App" = Option<String>, Header, description = "Must be the key's app"),
        ("X-Centrifugo-Error-Mode" = Option<String>, Header, description = "`transport`: errors have their own status"),
    ),
    request_body = HistoryParams,
    responses(
        (status = 200, description = "`result`, or `error`", body = HistoryAnswer),
        (status = 400, description = "Not readable; with transport errors also codes 107 and 108", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one"),
        (status = 404, description = "With transport errors: code 102", body = ErrorAnswer),
        (status = 408, description = "The body took too long"),
        (status = 413, description = "Body too large"),
        (status = 416, description = "With transport errors: code 112", body = ErrorAnswer),
        (status = 500, description = "With transport errors: code 100", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
)]
pub(super) async fn history(State(state): State<ApiState>, call: Call) -> Response {
    answer(&state, "history", call).await
}

/// Removes a channel's history
#[utoipa::path(
    post, path = "/api/history_remove", operation_id = "server_history_remove", tag = "server API",
    params(
        ("X-App" = Option<String>, Header, description = "Must be the key's app"),
        ("X-Centrifugo-Error-Mode" = Option<String>, Header, description = "`transport`: errors have their own status"),
    ),
    request_body = HistoryRemoveParams,
    responses(
        (status = 200, description = "An empty `result`, or `error`", body = EmptyAnswer),
        (status = 400, description = "Not readable; with transport errors also codes 107 and 108", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one"),
        (status = 404, description = "With transport errors: code 102", body = ErrorAnswer),
        (status = 408, description = "The body took too long"),
        (status = 413, description = "Body too large"),
        (status = 500, description = "With transport errors: code 100", body = ErrorAnswer),
        (status = 503, description = "With transport errors: code 111, the log cannot be reached; nothing was done", body = ErrorAnswer),
        (status = 504, description = "With transport errors: code 200, removed or not", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
)]
pub(super) async fn history_remove(State(state): State<ApiState>, call: Call) -> Response {
    answer(&state, "history_remove", call).await
}

macro_rules! method {
    ($(#[doc = $doc:literal])+ $name:ident, $path:literal, $id:literal, $params:ty, $answer:ty) => {
        $(#[doc = $doc])+
        #[utoipa::path(
            post, path = $path, operation_id = $id, tag = "server API",
            params(
                ("X-App" = Option<String>, Header, description = "Must be the key's app"),
                ("X-Centrifugo-Error-Mode" = Option<String>, Header, description = "`transport`: errors have their own status"),
            ),
            request_body = $params,
            responses(
                (status = 200, description = "`result`, or `error`", body = $answer),
                (status = 400, description = "Not readable; with transport errors also codes 107 and 108", body = String, content_type = "text/plain"),
                (status = 401, description = "No key, or a wrong one"),
                (status = 404, description = "With transport errors: code 102", body = ErrorAnswer),
                (status = 408, description = "The body took too long"),
                (status = 413, description = "Body too large; with transport errors also code 106"),
                (status = 429, description = "With transport errors: code 111", body = ErrorAnswer),
                (status = 500, description = "With transport errors: code 100", body = ErrorAnswer),
            ),
            security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
        )]
        pub(super) async fn $name(State(state): State<ApiState>, call: Call) -> Response {
            answer(&state, stringify!($name), call).await
        }
    };
}

method!(
    /// Subscribes connections of a user
    ///
    /// Server-side, on all nodes. Those that are subscribed stay as they are.
    subscribe, "/api/subscribe", "server_subscribe", SubscribeParams, CommandAnswer
);
method!(
    /// Ends subscriptions of a user
    unsubscribe, "/api/unsubscribe", "server_unsubscribe", UnsubscribeParams, CommandAnswer
);
method!(
    /// Closes connections of a user
    disconnect, "/api/disconnect", "server_disconnect", DisconnectParams, CommandAnswer
);
method!(
    /// Prolongs or ends connections of a user
    refresh, "/api/refresh", "server_refresh", RefreshParams, CommandAnswer
);
method!(
    /// Lists who is on a channel
    ///
    /// An answer that is not complete is error 100.
    presence, "/api/presence", "server_presence", PresenceParams, PresenceAnswer
);
method!(
    /// Counts who is on a channel
    ///
    /// An answer that is not complete is error 100.
    presence_stats, "/api/presence_stats", "server_presence_stats", PresenceParams, PresenceStatsAnswer
);
method!(
    /// Lists channels with subscribers
    ///
    /// At most 10,000, else error 106. An answer that is not complete is error 100.
    channels, "/api/channels", "server_channels", ChannelsParams, ChannelsAnswer
);
method!(
    /// Lists nodes
    ///
    /// With what they have of the caller's app.
    info, "/api/info", "server_info", InfoParams, InfoAnswer
);

/// Any other method
///
/// Those of Centrifugo that this server does not have are answered with error 108, what is no method
/// at all with 404.
#[utoipa::path(
    post, path = "/api/{method}", operation_id = "server_other", tag = "server API",
    params(("method" = String, Path, description = "The method")),
    responses(
        (status = 200, description = "Error 108", body = ErrorAnswer),
        (status = 400, description = "With transport errors: code 108", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one"),
        (status = 404, description = "No such method"),
        (status = 408, description = "The body took too long"),
        (status = 413, description = "Body too large"),
    ),
    security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
)]
pub(super) async fn other(
    State(state): State<ApiState>,
    method: Result<Path<String>, PathRejection>,
    call: Call,
) -> Response {
    match method {
        Ok(Path(method)) => answer(&state, &method, call).await,
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn answer(state: &ApiState, method: &str, call: Call) -> Response {
    let command = match Command::read(method, &call.body) {
        Ok(Command::Unknown) => return StatusCode::NOT_FOUND.into_response(),
        Ok(command) => command,
        Err(_) => return bad_request(),
    };
    match run(state, &call.app, command, &call.body).await {
        Ok(result) => {
            let mut body = Vec::with_capacity(result.len() + 12);
            body.extend_from_slice(br#"{"result":"#);
            body.extend_from_slice(&result);
            body.push(b'}');
            json_response(body)
        }
        Err(error) => error.into_response(call.mode),
    }
}

fn json_response(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
