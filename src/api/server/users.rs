//! Commands to users in the server API: `subscribe`, `unsubscribe`, `disconnect`, `refresh`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{command::Since, error::ServerError};
use crate::{
    api::{
        ApiState,
        input::Few,
        targeting::{self, write_nodes},
    },
    apps::App,
    protocol::{
        ErrorCode,
        json::{Object, Safe, Text, present},
    },
    users::{Action, Subscribe},
};

/// What `subscribe` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerSubscribeParams)]
pub(in crate::api) struct SubscribeParams<'a> {
    /// The user; empty or absent = connections without one.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    user: Cow<'a, str>,
    /// The channel. Who may subscribe by its rule does not matter.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    channel: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    client: Cow<'a, str>,
    /// Not available: error 108.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    session: Cow<'a, str>,
    /// What others see of the connection on this channel: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    info: Option<&'a RawValue>,
    /// What the client is told with the subscription: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// Not available: error 108.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    b64info: Option<Text<'a>>,
    /// Not available: error 108.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    b64data: Option<Text<'a>>,
    /// From where on publications are delivered; else from now on.
    #[serde(borrow)]
    #[schema(value_type = Option<Since>)]
    recover_since: Option<Object<Since<'a>>>,
    /// When it ends, in seconds since 1970; 0 or absent = never.
    expire_at: Option<i64>,
    /// Not available: error 108.
    #[serde(rename = "override", borrow, default)]
    #[schema(value_type = Option<serde_json::Value>)]
    overrides: Option<&'a RawValue>,
}

/// What `unsubscribe` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerUnsubscribeParams)]
pub(in crate::api) struct UnsubscribeParams<'a> {
    /// The user; empty or absent = connections without one.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    user: Cow<'a, str>,
    /// The channel.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    channel: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    client: Cow<'a, str>,
    /// Not available: error 108.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    session: Cow<'a, str>,
}

/// What `disconnect` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerDisconnectParams)]
pub(in crate::api) struct DisconnectParams<'a> {
    /// The user; empty or absent = connections without one.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    user: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    client: Cow<'a, str>,
    /// Not available: error 108.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    session: Cow<'a, str>,
    /// Ids of connections that stay: at most 1,000.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<String>>)]
    whitelist: Option<Few<Text<'a>>>,
    /// How they are closed: with 3503 if absent.
    #[serde(borrow)]
    #[schema(value_type = Option<Disconnect>)]
    disconnect: Option<Object<Disconnect<'a>>>,
}

/// A close code and its reason.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerDisconnect)]
pub(in crate::api) struct Disconnect<'a> {
    /// 3000 to 4999.
    code: Option<u16>,
    /// At most 123 bytes.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    reason: Option<Text<'a>>,
}

/// What `refresh` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerRefreshParams)]
pub(in crate::api) struct RefreshParams<'a> {
    /// The user; empty or absent = connections without one.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    user: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    client: Cow<'a, str>,
    /// Not available: error 108.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    session: Cow<'a, str>,
    /// They have expired: closed with 3005.
    expired: Option<bool>,
    /// When they expire, in seconds since 1970; 0 or absent = never.
    expire_at: Option<i64>,
    /// What others see of the connections from now on: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    info: Option<&'a RawValue>,
}

pub(super) async fn subscribe(
    state: &ApiState,
    app: &App,
    params: SubscribeParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    if params.b64info.is_some() || params.b64data.is_some() || params.overrides.is_some() {
        return Err(ErrorCode::NotAvailable.into());
    }
    let since = params.recover_since.as_ref().map(|Object(since)| since);
    let action = targeting::subscribe(
        state,
        app,
        Subscribe {
            channel: params.channel.into_owned(),
            info: params.info.map(ToOwned::to_owned),
            data: params.data.map(ToOwned::to_owned),
            recover_since: since.map(|Since { offset, epoch }| {
                let epoch = epoch.as_ref().map_or("", |Text(epoch)| epoch);
                (offset.map_or(0, |Safe(offset)| offset), epoch.to_owned())
            }),
            expire_at: time(params.expire_at),
        },
    )?;
    command(state, app, params.user, &params.client, &params.session, action).await
}

pub(super) async fn unsubscribe(
    state: &ApiState,
    app: &App,
    params: UnsubscribeParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    let action = targeting::unsubscribe(app, &params.channel)?;
    command(state, app, params.user, &params.client, &params.session, action).await
}

pub(super) async fn disconnect(
    state: &ApiState,
    app: &App,
    params: DisconnectParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    let how = params.disconnect.as_ref().map(|Object(how)| how);
    let reason = how.and_then(|how| how.reason.as_ref());
    let whitelist = params.whitelist.as_ref().map_or(&[][..], |Few(clients)| clients);
    let action = targeting::disconnect(
        how.and_then(|how| how.code),
        reason.map(|Text(reason)| reason.as_ref()),
        whitelist.iter().map(|Text(client)| client.as_ref()),
    )?;
    command(state, app, params.user, &params.client, &params.session, action).await
}

pub(super) async fn refresh(
    state: &ApiState,
    app: &App,
    params: RefreshParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    let until = time(params.expire_at);
    let action = targeting::refresh(state, app, params.expired, until, params.info)?;
    command(state, app, params.user, &params.client, &params.session, action).await
}

/// Does it on all nodes. The result is empty, as the original's, unless a node did not answer.
async fn command(
    state: &ApiState,
    app: &App,
    user: Cow<'_, str>,
    client: &str,
    session: &str,
    action: Action,
) -> Result<Vec<u8>, ServerError> {
    if !session.is_empty() {
        // It would be done to more connections than were meant.
        return Err(ErrorCode::NotAvailable.into());
    }
    let client = Some(client).filter(|client| !client.is_empty());
    let done = targeting::command(state, app, user.into_owned(), client, action).await?;
    let mut result = b"{".to_vec();
    if !done.missing.is_empty() {
        result.extend_from_slice(br#""missing_nodes":"#);
        write_nodes(&done.missing, &mut result);
    }
    result.push(b'}');
    Ok(result)
}

/// Here 0 is none.
fn time(seconds: Option<i64>) -> Option<i64> {
    seconds.filter(|seconds| *seconds != 0)
}
