//! The methods of the server API: how their parameters are read, and what they do.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    error::ServerError,
    history::read_history,
    survey::{self, ChannelsParams, InfoParams, PresenceParams},
    users::{self, DisconnectParams, RefreshParams, SubscribeParams, UnsubscribeParams},
};
use crate::{
    api::{
        ApiState,
        error::ApiError,
        extract::object,
        input::{Few, Tags, record},
        pipeline::publish_all,
    },
    apps::App,
    channel::Published,
    model::Record,
    protocol::{
        ErrorCode,
        json::{self, Object, Safe, Text, present},
    },
    publish::{PublishError, Target},
};

/// Methods of Centrifugo that this server does not have (yet): error 108.
const NOT_AVAILABLE: [&str; 1] = ["rpc"];

/// A method with its parameters. Unknown fields are ignored, as the original does.
pub(super) enum Command<'a> {
    Publish(PublishParams<'a>),
    Broadcast(BroadcastParams<'a>),
    History(HistoryParams<'a>),
    HistoryRemove(HistoryRemoveParams<'a>),
    Subscribe(Box<SubscribeParams<'a>>),
    Unsubscribe(UnsubscribeParams<'a>),
    Disconnect(DisconnectParams<'a>),
    Refresh(RefreshParams<'a>),
    Presence(PresenceParams<'a>),
    PresenceStats(PresenceParams<'a>),
    Channels(ChannelsParams<'a>),
    Info,
    NotAvailable,
    Unknown,
}

/// What `publish` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerPublishParams)]
pub(in crate::api) struct PublishParams<'a> {
    /// The channel.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    channel: Cow<'a, str>,
    /// The payload: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// A payload of bytes, as base64 with padding, instead of `data`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    b64data: Option<Text<'a>>,
    /// Free tags: at most 16.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    tags: Option<Tags>,
    /// A repeat with the same key publishes nothing and has the first one's result.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    idempotency_key: Option<Text<'a>>,
    /// The version of the namespace's schema that it is valid by; the latest if absent. An extension.
    schema_version: Option<u32>,
    /// Not available: true is error 108.
    skip_history: Option<bool>,
    /// Not available: above 0 is error 108.
    version: Option<u64>,
}

/// What `broadcast` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerBroadcastParams)]
pub(in crate::api) struct BroadcastParams<'a> {
    /// The channels: 1 to 1,000.
    #[serde(borrow)]
    #[schema(value_type = Vec<String>)]
    channels: Option<Few<Text<'a>>>,
    /// The payload: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// A payload of bytes, as base64 with padding, instead of `data`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    b64data: Option<Text<'a>>,
    /// Free tags: at most 16.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    tags: Option<Tags>,
    /// As for `publish`, for each channel on its own.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    idempotency_key: Option<Text<'a>>,
    /// The version of the namespace's schema that it is valid by; the latest if absent. An extension.
    schema_version: Option<u32>,
    /// Not available: true is error 108.
    skip_history: Option<bool>,
    /// Not available: above 0 is error 108.
    version: Option<u64>,
}

/// What `history` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerHistoryParams)]
pub(in crate::api) struct HistoryParams<'a> {
    /// The channel.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    pub(super) channel: Cow<'a, str>,
    /// How many publications: 0 or absent = none (only the top), -1 = all.
    pub(super) limit: Option<i64>,
    /// Only what comes after this position; with `reverse`, before it.
    #[serde(borrow)]
    #[schema(value_type = Option<Since>)]
    pub(super) since: Option<Object<Since<'a>>>,
    /// Newest first.
    pub(super) reverse: Option<bool>,
}

/// A position as callers give it.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerSince)]
pub(in crate::api) struct Since<'a> {
    /// Its offset.
    #[schema(value_type = Option<u64>)]
    pub(super) offset: Option<Safe>,
    /// Its epoch; empty or absent = not checked.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    pub(super) epoch: Option<Text<'a>>,
}

/// What `history_remove` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerHistoryRemoveParams)]
pub(in crate::api) struct HistoryRemoveParams<'a> {
    /// The channel.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    channel: Cow<'a, str>,
}

impl<'a> Command<'a> {
    /// Reads the parameters of `method`.
    ///
    /// # Errors
    ///
    /// They are not what the method takes.
    pub(super) fn read(method: &str, params: &'a [u8]) -> Result<Self, ApiError> {
        Ok(match method {
            "publish" => Self::Publish(object(params)?),
            "broadcast" => Self::Broadcast(object(params)?),
            "history" => Self::History(object(params)?),
            "history_remove" => Self::HistoryRemove(object(params)?),
            "subscribe" => Self::Subscribe(Box::new(object(params)?)),
            "unsubscribe" => Self::Unsubscribe(object(params)?),
            "disconnect" => Self::Disconnect(object(params)?),
            "refresh" => Self::Refresh(object(params)?),
            "presence" => Self::Presence(object(params)?),
            "presence_stats" => Self::PresenceStats(object(params)?),
            "channels" => Self::Channels(object(params)?),
            "info" => {
                let InfoParams {} = object(params)?;
                Self::Info
            }
            method if NOT_AVAILABLE.contains(&method) => {
                let IgnoredAny = object(params)?;
                Self::NotAvailable
            }
            _ => Self::Unknown,
        })
    }
}

/// Does what a command asks, and writes its result as a JSON object. `body` is what it was read from.
pub(super) async fn run(
    state: &ApiState,
    app: &App,
    command: Command<'_>,
    body: &Bytes,
) -> Result<Vec<u8>, ServerError> {
    match command {
        Command::Publish(params) => publish(state, app, params, body).await,
        // Boxed: a publish, which is most of what is called, need not be as large as these.
        Command::Broadcast(params) => Box::pin(broadcast(state, app, params, body)).await,
        Command::History(params) => Box::pin(read_history(state, app, &params)).await,
        Command::HistoryRemove(params) => Box::pin(history_remove(state, app, &params.channel)).await,
        Command::Subscribe(params) => Box::pin(users::subscribe(state, app, *params)).await,
        Command::Unsubscribe(params) => Box::pin(users::unsubscribe(state, app, params)).await,
        Command::Disconnect(params) => Box::pin(users::disconnect(state, app, params)).await,
        Command::Refresh(params) => Box::pin(users::refresh(state, app, params)).await,
        Command::Presence(params) => Box::pin(survey::presence(state, app, params)).await,
        Command::PresenceStats(params) => Box::pin(survey::presence_stats(state, app, params)).await,
        Command::Channels(params) => Box::pin(survey::channels(state, app, params)).await,
        Command::Info => Box::pin(survey::info(state, app)).await,
        Command::NotAvailable => Err(ErrorCode::NotAvailable.into()),
        Command::Unknown => Err(ErrorCode::MethodNotFound.into()),
    }
}

async fn publish(
    state: &ApiState,
    app: &App,
    params: PublishParams<'_>,
    body: &Bytes,
) -> Result<Vec<u8>, ServerError> {
    let target = Target::find(&app.rules, &params.channel)?;
    available(params.skip_history, params.version)?;
    let record = record_of(body, params.data, params.b64data.as_ref(), params.tags)?;
    let key = key_of(params.idempotency_key.as_ref());
    let published = state
        .publisher
        .publish(app, &target, &record, key, params.schema_version)?
        .await?;
    let mut result = Vec::with_capacity(64);
    write_position(&published, &mut result);
    Ok(result)
}

async fn broadcast(
    state: &ApiState,
    app: &App,
    params: BroadcastParams<'_>,
    body: &Bytes,
) -> Result<Vec<u8>, ServerError> {
    let Some(Few(channels)) = params.channels.filter(|Few(channels)| !channels.is_empty()) else {
        return Err(ErrorCode::BadRequest.into());
    };
    available(params.skip_history, params.version)?;
    let record = record_of(body, params.data, params.b64data.as_ref(), params.tags)?;
    let key = key_of(params.idempotency_key.as_ref());
    let mut result = Vec::with_capacity(16 + 64 * channels.len());
    result.extend_from_slice(br#"{"responses":["#);
    let empty = result.len();
    let send = |Text(channel): Text<'_>| {
        let target = Target::find(&app.rules, &channel)?;
        Ok(state
            .publisher
            .publish(app, &target, &record, key, params.schema_version)?)
    };
    let done = |published: Result<Published, ServerError>| {
        if result.len() > empty {
            result.push(b',');
        }
        match published {
            Ok(published) => {
                result.extend_from_slice(br#"{"result":"#);
                write_position(&published, &mut result);
                result.push(b'}');
            }
            Err(error) => error.write_wrapped(&mut result),
        }
    };
    publish_all(state.max_in_flight, channels, send, done).await;
    result.extend_from_slice(b"]}");
    Ok(result)
}

async fn history_remove(state: &ApiState, app: &App, channel: &str) -> Result<Vec<u8>, ServerError> {
    let target = Target::find(&app.rules, channel)?;
    let route = state.hub.route(&app.id, &target.channel, &target.rule.history);
    let route = route.ok_or(PublishError::NoClass)?;
    if route.shard().is_none() {
        return Err(ErrorCode::NotAvailable.into());
    }
    let removed = state.hub.remove_history(&route).await;
    removed.map_err(PublishError::Log)?;
    Ok(b"{}".to_vec())
}

/// Options that would change what is stored are refused, not ignored.
fn available(skip_history: Option<bool>, version: Option<u64>) -> Result<(), ServerError> {
    if skip_history == Some(true) || version.is_some_and(|version| version > 0) {
        return Err(ErrorCode::NotAvailable.into());
    }
    Ok(())
}

fn record_of(
    body: &Bytes,
    data: Option<&RawValue>,
    b64data: Option<&Text<'_>>,
    tags: Option<Tags>,
) -> Result<Record, ServerError> {
    record(body, data, b64data, tags).map_err(|_| ErrorCode::BadRequest.into())
}

/// Here an empty key is none.
fn key_of<'a>(key: Option<&'a Text<'_>>) -> Option<&'a str> {
    key.map(|Text(key)| key.as_ref()).filter(|key| !key.is_empty())
}

fn write_position(published: &Published, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(position) = &published.position {
        out.extend_from_slice(br#""offset":"#);
        json::push_u64(out, position.offset);
        out.extend_from_slice(br#","epoch":"#);
        json::push_str(out, position.epoch.as_str());
    }
    out.push(b'}');
}
