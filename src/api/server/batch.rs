//! `POST /api/batch`: several commands in one request.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{extract::State, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Call,
    answers::BatchAnswer,
    bad_request,
    command::{BroadcastParams, Command, HistoryParams, HistoryRemoveParams, PublishParams, run},
    error::ServerError,
    json_response,
    survey::{ChannelsParams, InfoParams, PresenceParams},
    users::{DisconnectParams, RefreshParams, SubscribeParams, UnsubscribeParams},
};
use crate::{
    api::{ApiState, extract::object, input::Few},
    apps::App,
    protocol::ErrorCode,
    telemetry::Limit,
};

/// Commands done at once if the order does not matter. Not a setting: it is part of the documented
/// API, and what they take of memory is bounded by `http.max_history_bytes` each.
const PARALLEL: usize = 16;

/// What `batch` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerBatchParams)]
pub(in crate::api) struct BatchParams<'a> {
    /// 1 to 1,000 commands.
    #[serde(borrow)]
    #[schema(value_type = Vec<BatchCommand>)]
    commands: Option<Few<Named<'a>>>,
    /// The order in which the commands are done does not matter. Replies have it all the same.
    parallel: Option<bool>,
}

/// A command of a batch: one field, called as its method.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Named` reads")]
#[schema(as = ServerCommand)]
pub(in crate::api) struct BatchCommand<'a> {
    publish: Option<PublishParams<'a>>,
    broadcast: Option<BroadcastParams<'a>>,
    history: Option<HistoryParams<'a>>,
    history_remove: Option<HistoryRemoveParams<'a>>,
    subscribe: Option<SubscribeParams<'a>>,
    unsubscribe: Option<UnsubscribeParams<'a>>,
    disconnect: Option<DisconnectParams<'a>>,
    refresh: Option<RefreshParams<'a>>,
    presence: Option<PresenceParams<'a>>,
    presence_stats: Option<PresenceParams<'a>>,
    channels: Option<ChannelsParams<'a>>,
    info: Option<InfoParams>,
}

/// A method and its parameters, not read yet.
struct Named<'a> {
    method: String,
    params: &'a RawValue,
}

impl<'de: 'a, 'a> Deserialize<'de> for Named<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Single;
        impl<'de> Visitor<'de> for Single {
            type Value = Named<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one command")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<'de>, A::Error> {
                let command = map.next_entry::<String, &'de RawValue>()?;
                let (method, params) = command.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(Named { method, params }),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }
        deserializer.deserialize_map(Single)
    }
}

/// Does several commands
///
/// One after the other, or up to 16 at once with `parallel`.
#[utoipa::path(
    post, path = "/api/batch", operation_id = "server_batch", tag = "server API",
    params(("X-App" = Option<String>, Header, description = "Must be the key's app")),
    request_body = BatchParams,
    responses(
        (status = 200, description = "A reply for each command, or `error`", body = BatchAnswer),
        (status = 400, description = "Not readable; with transport errors also code 107", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one"),
        (status = 408, description = "The body took too long"),
        (status = 413, description = "Body too large"),
    ),
    security(("api_key" = []), ("bearer" = []), ("api_key_query" = [])),
)]
pub(in crate::api) async fn batch(State(state): State<ApiState>, call: Call) -> Response {
    let Ok(BatchParams { commands, parallel }) = object::<BatchParams<'_>>(&call.body) else {
        return bad_request();
    };
    let Some(Few(commands)) = commands.filter(|Few(commands)| !commands.is_empty()) else {
        return ServerError::from(ErrorCode::BadRequest).into_response(call.mode);
    };
    let at_once = if parallel == Some(true) { PARALLEL } else { 1 };
    let written = AtomicUsize::new(0);
    let mut under_way = FuturesOrdered::<BoxFuture<'_, Vec<u8>>>::new();
    let mut answer = br#"{"replies":["#.to_vec();
    let empty = answer.len();
    let mut push = |reply: &[u8]| {
        if answer.len() > empty {
            answer.push(b',');
        }
        answer.extend_from_slice(reply);
    };
    for command in commands {
        if under_way.len() == at_once
            && let Some(reply) = under_way.next().await
        {
            push(&reply);
        }
        under_way.push_back(Box::pin(reply(&state, &call.app, command, &call.body, &written)));
    }
    while let Some(reply) = under_way.next().await {
        push(&reply);
    }
    answer.extend_from_slice(b"]}");
    json_response(answer)
}

/// The answer is as large as it may become.
pub(super) fn too_much(state: &ApiState, app: &App) -> ServerError {
    state.metrics.app(&app.id).limits_hit.of(Limit::Answer).inc();
    ErrorCode::LimitExceeded.into()
}

/// Does one command and writes its reply.
async fn reply(
    state: &ApiState,
    app: &App,
    Named { method, params }: Named<'_>,
    body: &Bytes,
    written: &AtomicUsize,
) -> Vec<u8> {
    let done = if written.load(Ordering::Relaxed) > state.max_answer_bytes {
        Err(too_much(state, app))
    } else {
        match Command::read(&method, params.get().as_bytes()) {
            Ok(command) => run(state, app, command, body).await,
            Err(_) => Err(ErrorCode::BadRequest.into()),
        }
    };
    let mut reply = Vec::new();
    match done {
        Ok(result) => {
            // A method that has a result is called as it is known: no text of the caller's.
            reply.extend_from_slice(b"{\"");
            reply.extend_from_slice(method.as_bytes());
            reply.extend_from_slice(b"\":");
            reply.extend_from_slice(&result);
            reply.push(b'}');
        }
        Err(error) => error.write_wrapped(&mut reply),
    }
    written.fetch_add(reply.len(), Ordering::Relaxed);
    reply
}
