//! Commands to users as both APIs take them: what is checked before any node is asked.

use serde_json::value::RawValue;

use super::{ApiState, error::ApiError};
use crate::{
    apps::App,
    model::{MAX_OFFSET, NodeId},
    protocol::{DisconnectCode, json},
    publish::Target,
    telemetry::Limit,
    users::{Action, Crowded, Outcome, Request, Subscribe},
};

/// What a command came to.
pub(super) type Commanded = Outcome;

/// The longest id of a connection that is looked at; ours are shorter.
const MAX_CLIENT_BYTES: usize = 64;
/// The longest user: a token could not name a longer one.
const MAX_USER_BYTES: usize = 1_024;
/// The longest reason: a close frame has no room for more (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 123;
/// The longest epoch that is looked at; ours are shorter.
const MAX_EPOCH_BYTES: usize = 64;

/// Does it on all nodes.
pub(super) async fn command(
    state: &ApiState,
    app: &App,
    user: String,
    client: Option<&str>,
    action: Action,
) -> Result<Commanded, ApiError> {
    if user.len() > MAX_USER_BYTES {
        return Err(ApiError::field("user", format!("at most {MAX_USER_BYTES} bytes")));
    }
    let client = client.map(|client| known_client("client", client)).transpose()?;
    let request = Request::new(app.id.clone(), user, client, action);
    let done = state.users.command(request).await;
    done.map_err(|Crowded| {
        state
            .metrics
            .app(&app.id)
            .limits_hit
            .of(Limit::UserCommands)
            .inc();
        ApiError::TooManyRequests {
            retry_after: std::time::Duration::from_secs(1),
        }
    })
}

/// Closes connections.
pub(super) fn disconnect<'a>(
    code: Option<u16>,
    reason: Option<&str>,
    whitelist: impl Iterator<Item = &'a str>,
) -> Result<Action, ApiError> {
    let default = DisconnectCode::ForceDisconnect;
    let code = code.unwrap_or(default.code());
    if !(3_000..=4_999).contains(&code) {
        return Err(ApiError::field("code", "3000 to 4999"));
    }
    let reason = reason.unwrap_or(if code == default.code() {
        default.message()
    } else {
        ""
    });
    if reason.len() > MAX_REASON_BYTES {
        return Err(ApiError::field(
            "reason",
            format!("at most {MAX_REASON_BYTES} bytes"),
        ));
    }
    let whitelist = whitelist.map(|client| known_client("whitelist", client));
    Ok(Action::Disconnect {
        code,
        reason: reason.to_owned(),
        whitelist: whitelist.collect::<Result<_, _>>()?,
    })
}

/// Ends subscriptions.
pub(super) fn unsubscribe(app: &App, channel: &str) -> Result<Action, ApiError> {
    let target = Target::find(&app.rules, channel)?;
    Ok(Action::Unsubscribe {
        channel: target.channel.as_str().to_owned(),
    })
}

/// Makes subscriptions.
pub(super) fn subscribe(state: &ApiState, app: &App, subscribe: Subscribe) -> Result<Action, ApiError> {
    Target::find(&app.rules, &subscribe.channel)?;
    fits(state, app, subscribe.info.as_deref())?;
    fits(state, app, subscribe.data.as_deref())?;
    if let Some((offset, epoch)) = &subscribe.recover_since {
        if *offset > MAX_OFFSET {
            return Err(ApiError::field("recover_since", "beyond 2^53 - 1"));
        }
        if epoch.len() > MAX_EPOCH_BYTES {
            return Err(ApiError::field(
                "recover_since",
                format!("an epoch has at most {MAX_EPOCH_BYTES} bytes"),
            ));
        }
    }
    positive(subscribe.expire_at)?;
    Ok(Action::Subscribe(Box::new(subscribe)))
}

/// Prolongs or ends connections.
pub(super) fn refresh(
    state: &ApiState,
    app: &App,
    expired: Option<bool>,
    expire_at: Option<i64>,
    info: Option<&RawValue>,
) -> Result<Action, ApiError> {
    fits(state, app, info)?;
    positive(expire_at)?;
    Ok(Action::Refresh {
        expired: expired.unwrap_or(false),
        expire_at,
        info: info.map(ToOwned::to_owned),
    })
}

/// Sends a message.
pub(super) fn message(state: &ApiState, app: &App, data: Option<&RawValue>) -> Result<Action, ApiError> {
    let data = data.ok_or_else(|| ApiError::field("data", "missing"))?;
    fits(state, app, Some(data))?;
    Ok(Action::Message {
        data: data.to_owned(),
    })
}

/// Appends ids of nodes as a JSON list.
pub(super) fn write_nodes(nodes: &[NodeId], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_str(out, &node.to_string());
    }
    out.push(b']');
}

fn known_client(field: &'static str, client: &str) -> Result<String, ApiError> {
    if client.is_empty() || client.len() > MAX_CLIENT_BYTES {
        return Err(ApiError::field(
            field,
            format!("an id has 1 to {MAX_CLIENT_BYTES} bytes"),
        ));
    }
    Ok(client.to_owned())
}

fn fits(state: &ApiState, app: &App, payload: Option<&RawValue>) -> Result<(), ApiError> {
    let limit = state.max_user_payload_bytes;
    if payload.is_some_and(|payload| payload.get().len() > limit) {
        state.metrics.app(&app.id).limits_hit.of(Limit::UserPayload).inc();
        return Err(ApiError::PayloadTooLarge { limit });
    }
    // Clients read it, with parsers that go no deeper.
    if payload.is_some_and(|payload| json::is_deeper_than(payload.get().as_bytes(), state.max_json_depth)) {
        state.metrics.app(&app.id).limits_hit.of(Limit::JsonDepth).inc();
        return Err(ApiError::BadRequest("nested deeper than http.max_json_depth"));
    }
    Ok(())
}

fn positive(time: Option<i64>) -> Result<(), ApiError> {
    match time {
        Some(time) if time <= 0 => Err(ApiError::field("expire_at", "seconds since 1970")),
        _ => Ok(()),
    }
}
