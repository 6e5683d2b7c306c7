//! `/v1/users/{user}`: what backends do to the connections of a user, on all nodes.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, request::Parts},
    response::Response,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{OnlyApp, publish::json_response};
use crate::{
    api::{
        ApiState,
        error::{ApiError, ErrorAnswer},
        extract::{Caller, JsonBody, Params, object},
        input::Few,
        targeting::{self, Commanded},
    },
    protocol::json::{self, Text, present},
    users::{Action, Subscribe},
};

/// A user of the caller's app, by the path parameter `user`.
pub(in crate::api) struct UserOf {
    app: std::sync::Arc<crate::apps::App>,
    user: String,
}

impl FromRequestParts<ApiState> for UserOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let Caller(app) = Caller::from_request_parts(parts, state).await?;
        let Path(user) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::BadRequest("the user is not percent-encoded UTF-8"))?;
        Ok(Self { app, user })
    }
}

/// What a command to a user came to. It succeeds also if the user has no connections.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `answer` writes")]
pub(in crate::api) struct UserAnswer {
    /// Connections that it was done to, on the nodes that answered.
    connections: u64,
    /// Ids of nodes that did not answer: there it was done or not.
    missing_nodes: Vec<String>,
}

/// Whether a user is there.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `online` writes")]
pub(in crate::api) struct OnlineAnswer {
    /// `online`; `offline` if every node has said so; `unknown` if no connection was found and a node
    /// did not answer.
    status: String,
    /// Connections, on the nodes that answered.
    connections: u64,
    /// Ids of nodes that did not answer.
    missing_nodes: Vec<String>,
}

/// Which connections to close, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct DisconnectBody<'a> {
    /// Only the connection with this id.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    client: Option<Text<'a>>,
    /// Ids of connections that stay: at most 1,000.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<String>>)]
    whitelist: Option<Few<Text<'a>>>,
    /// The close code: 3000 to 4999; 3503 if absent. SDKs stay away after 3500 to 3999 and 4500 to
    /// 4999, and come back after others.
    #[schema(minimum = 3000, maximum = 4999)]
    code: Option<u16>,
    /// The reason that the client is given: at most 123 bytes.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    reason: Option<Text<'a>>,
}

/// Which subscriptions to end.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct UnsubscribeBody<'a> {
    /// The channel.
    #[serde(borrow)]
    #[schema(value_type = String)]
    channel: Text<'a>,
    /// Only the connection with this id.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    client: Option<Text<'a>>,
}

/// Which subscriptions to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SubscribeBody<'a> {
    /// The channel. Who may subscribe by its rule does not matter.
    #[serde(borrow)]
    #[schema(value_type = String)]
    channel: Text<'a>,
    /// Only the connection with this id.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    client: Option<Text<'a>>,
    /// What others see of the connection on this channel: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    info: Option<&'a RawValue>,
    /// What the client is told with the subscription: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// From where on publications are delivered; else from now on.
    #[serde(borrow)]
    recover_since: Option<SincePosition<'a>>,
    /// When it ends, in seconds since 1970.
    expire_at: Option<i64>,
}

/// A position of a channel.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SincePosition<'a> {
    /// Its offset.
    #[schema(maximum = 9007199254740991_u64)]
    offset: u64,
    /// Its epoch.
    #[serde(borrow)]
    #[schema(value_type = String)]
    epoch: Text<'a>,
}

/// How long connections live on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RefreshBody<'a> {
    /// Only the connection with this id.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    client: Option<Text<'a>>,
    /// They have expired: closed with 3005, and SDKs come back with a new token.
    expired: Option<bool>,
    /// When they expire, in seconds since 1970; never if absent.
    expire_at: Option<i64>,
    /// What others see of the connections from now on: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    info: Option<&'a RawValue>,
}

/// A message to connections, of no channel.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct MessageBody<'a> {
    /// Only the connection with this id.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    client: Option<Text<'a>>,
    /// The message: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = serde_json::Value)]
    data: Option<&'a RawValue>,
}

macro_rules! command {
    ($(#[doc = $doc:literal])+ $name:ident, $path:literal, $id:literal, $body:ident, $action:expr) => {
        $(#[doc = $doc])+
        #[utoipa::path(
            post,
            path = $path,
            operation_id = $id,
            tag = "users",
            params(
                ("user" = String, Path, description = "The user, percent-encoded"),
                ("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App"),
            ),
            request_body = $body,
            responses(
                (status = 200, description = "Done, on the nodes that are not missing", body = UserAnswer),
                (status = 400, description = "Not readable", body = ErrorAnswer),
                (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
                (status = 403, description = "The key is of another app", body = ErrorAnswer),
                (status = 404, description = "No such namespace", body = ErrorAnswer),
                (status = 408, description = "The body took too long", body = ErrorAnswer),
                (status = 413, description = "Body or payload too large", body = ErrorAnswer),
                (status = 415, description = "Not JSON by its content type", body = ErrorAnswer),
                (status = 422, description = "A field is not as described", body = ErrorAnswer),
                (status = 429, description = "Too many commands at once; nothing was done", body = ErrorAnswer,
                    headers(("Retry-After" = u64, description = "Seconds"))),
            ),
            security(("api_key" = []), ("bearer" = [])),
        )]
        pub(in crate::api) async fn $name(
            State(state): State<ApiState>,
            UserOf { app, user }: UserOf,
            Params(_): Params<OnlyApp>,
            JsonBody(body): JsonBody,
        ) -> Result<Response, ApiError> {
            let body: $body<'_> = object(&body)?;
            let make: fn(&ApiState, &crate::apps::App, &$body<'_>) -> Result<Action, ApiError> = $action;
            let action = make(&state, &app, &body)?;
            let client = body.client.as_ref().map(|Text(client)| client.as_ref());
            Ok(answer(&targeting::command(&state, &app, user, client, action).await?))
        }
    };
}

command!(
    /// Closes connections of a user
    disconnect, "/v1/users/{user}/disconnect", "disconnect_user", DisconnectBody, |_, _, body| {
        let whitelist = body.whitelist.as_ref().map_or(&[][..], |Few(whitelist)| whitelist);
        let reason = body.reason.as_ref().map(|Text(reason)| reason.as_ref());
        targeting::disconnect(body.code, reason, whitelist.iter().map(|Text(client)| client.as_ref()))
    }
);
command!(
    /// Ends subscriptions of a user
    ///
    /// Client-side and server-side ones. The client is told with code 2000.
    unsubscribe, "/v1/users/{user}/unsubscribe", "unsubscribe_user", UnsubscribeBody, |_, app, body| {
        targeting::unsubscribe(app, &body.channel.0)
    }
);
command!(
    /// Subscribes connections of a user
    ///
    /// Server-side: the client need not ask. Those that are subscribed stay as they are.
    subscribe, "/v1/users/{user}/subscribe", "subscribe_user", SubscribeBody, |state, app, body| {
        let since = body.recover_since.as_ref();
        targeting::subscribe(state, app, Subscribe {
            channel: body.channel.0.to_string(),
            info: body.info.map(ToOwned::to_owned),
            data: body.data.map(ToOwned::to_owned),
            recover_since: since.map(|since| (since.offset, since.epoch.0.to_string())),
            expire_at: body.expire_at,
        })
    }
);
command!(
    /// Prolongs or ends connections of a user
    ///
    /// As a refresh by their client would.
    refresh, "/v1/users/{user}/refresh", "refresh_user", RefreshBody, |state, app, body| {
        targeting::refresh(state, app, body.expired, body.expire_at, body.info)
    }
);
command!(
    /// Sends a message to connections of a user
    ///
    /// At most once, and stored nowhere: for what must arrive, publish to a channel of the user.
    message, "/v1/users/{user}/messages", "message_user", MessageBody, |state, app, body| {
        targeting::message(state, app, body.data)
    }
);

/// Whether a user has connections
#[utoipa::path(
    get,
    path = "/v1/users/{user}",
    operation_id = "user_online",
    tag = "users",
    params(
        ("user" = String, Path, description = "The user, percent-encoded"),
        ("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App"),
    ),
    responses(
        (status = 200, description = "What is known", body = OnlineAnswer),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 429, description = "Too many commands at once", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn online(
    State(state): State<ApiState>,
    UserOf { app, user }: UserOf,
    Params(_): Params<OnlyApp>,
) -> Result<Response, ApiError> {
    let found = targeting::command(&state, &app, user, None, Action::Online).await?;
    let status = match (found.connections, found.missing.is_empty()) {
        (0, true) => "offline",
        (0, false) => "unknown",
        _ => "online",
    };
    let mut body = br#"{"status":"#.to_vec();
    json::push_str(&mut body, status);
    body.push(b',');
    write_fields(&found, &mut body);
    body.push(b'}');
    Ok(json_response(StatusCode::OK, body))
}

fn answer(done: &Commanded) -> Response {
    let mut body = b"{".to_vec();
    write_fields(done, &mut body);
    body.push(b'}');
    json_response(StatusCode::OK, body)
}

fn write_fields(done: &Commanded, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""connections":"#);
    json::push_u64(out, done.connections);
    out.extend_from_slice(br#","missing_nodes":"#);
    targeting::write_nodes(&done.missing, out);
}
