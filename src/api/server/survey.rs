//! What there is, in the server API: `presence`, `presence_stats`, `channels`, `info`.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{batch::too_much, error::ServerError};
use crate::{
    api::{
        ApiState,
        error::ApiError,
        v1::{turn, uptime},
    },
    apps::App,
    model::{ChannelName, MAX_CHANNEL_BYTES, NodeId},
    presence::PresenceError,
    protocol::ErrorCode,
    publish::Target,
};

/// The most channels in one answer: it has no pages. Not a setting: it is part of the documented API.
const MAX_CHANNELS: usize = 10_000;
/// Channels asked for at once.
const PAGE: usize = 1_000;
/// The most pages that are looked through for channels that are like a pattern.
const MAX_PAGES: usize = 50;
/// Names that are compared with a pattern before others have their turn.
const BREATHE: usize = 64;

/// When to ask again if the node knows too many channels.
const RETRY: Duration = Duration::from_secs(1);

/// What `presence` and `presence_stats` take.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerPresenceParams)]
pub(in crate::api) struct PresenceParams<'a> {
    /// The channel.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    channel: Cow<'a, str>,
}

/// What `channels` takes.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerChannelsParams)]
pub(in crate::api) struct ChannelsParams<'a> {
    /// Only channels whose whole name is like this: `*` stands for any text, `?` for one character. `[`,
    /// `{` and `\` are not available: error 108.
    #[serde(borrow, default)]
    #[schema(value_type = String)]
    pattern: Cow<'a, str>,
}

/// What `info` takes: nothing.
#[derive(Deserialize, ToSchema)]
#[schema(as = ServerInfoParams)]
pub(in crate::api) struct InfoParams {}

/// A member of a channel.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerMember)]
pub(in crate::api) struct Member<'a> {
    client: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    conn_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    chan_info: Option<&'a RawValue>,
}

/// Who is on a channel.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerPresenceResult)]
pub(in crate::api) struct PresenceResult<'a> {
    /// By the id of the connection.
    presence: BTreeMap<&'a str, Member<'a>>,
}

/// How many are on a channel.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerPresenceStatsResult)]
pub(in crate::api) struct PresenceStatsResult {
    num_clients: usize,
    /// All anonymous ones are one.
    num_users: usize,
}

/// Channels that have subscribers.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerChannelsResult)]
pub(in crate::api) struct ChannelsResult {
    #[schema(value_type = std::collections::HashMap<String, ChannelNumbers>)]
    channels: BTreeMap<String, ChannelNumbers>,
}

/// Of one channel.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerChannelNumbers)]
pub(in crate::api) struct ChannelNumbers {
    num_clients: u64,
}

/// The nodes of the deployment.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerInfoResult)]
pub(in crate::api) struct InfoResult<'a> {
    /// The one that was asked first.
    nodes: Vec<Node<'a>>,
}

/// A node. Numbers are of the caller's app alone; absent if the node did not answer.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerNode)]
pub(in crate::api) struct Node<'a> {
    #[schema(value_type = String)]
    uid: NodeId,
    name: &'a str,
    version: &'a str,
    /// Seconds.
    uptime: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_clients: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_users: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_channels: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_subs: Option<u64>,
}

pub(super) async fn presence(
    state: &ApiState,
    app: &App,
    params: PresenceParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    let channel = with_presence(app, &params.channel)?;
    let page = state.presence.members(&app.id, &channel, None, usize::MAX).await;
    let page = page.map_err(refused)?;
    if !page.complete {
        return Err(ErrorCode::Internal.into());
    }
    if page.members.iter().map(|member| member.size()).sum::<usize>() > state.max_history_bytes {
        return Err(too_much(state, app));
    }
    let members = page.members.iter().map(|member| {
        let shown = Member {
            client: &member.client,
            user: &member.user,
            conn_info: member.conn_info.as_deref().and_then(raw),
            chan_info: member.chan_info.as_deref().and_then(raw),
        };
        (&*member.client, shown)
    });
    written(&PresenceResult {
        presence: members.collect(),
    })
}

pub(super) async fn presence_stats(
    state: &ApiState,
    app: &App,
    params: PresenceParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    let channel = with_presence(app, &params.channel)?;
    let stats = state.presence.stats(&app.id, &channel).await;
    let stats = stats.map_err(refused)?;
    if !stats.complete {
        return Err(ErrorCode::Internal.into());
    }
    written(&PresenceStatsResult {
        num_clients: stats.connections,
        num_users: stats.users,
    })
}

pub(super) async fn channels(
    state: &ApiState,
    app: &App,
    params: ChannelsParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    let pattern = &*params.pattern;
    if pattern.contains(['[', '{', '\\']) {
        return Err(ErrorCode::NotAvailable.into());
    }
    if pattern.len() > MAX_CHANNEL_BYTES {
        return Err(ErrorCode::BadRequest.into());
    }
    let prefix = pattern.split(['*', '?']).next().unwrap_or_default();
    let like: Vec<_> = pattern.chars().collect();
    // One turn for all pages: a list that is begun can be ended.
    let turn = turn(state, app)?;
    let mut channels = BTreeMap::new();
    let mut after: Option<ChannelName> = None;
    for _ in 0..MAX_PAGES {
        let from = after.as_ref().map(ChannelName::as_str);
        let page = turn.channels(prefix, from, PAGE).await;
        if !page.missing.is_empty() {
            return Err(ErrorCode::Internal.into());
        }
        for (at, (name, num_clients)) in page.channels.into_iter().enumerate() {
            if pattern.is_empty() || is_like(name.as_str(), &like) {
                channels.insert(name.to_string(), ChannelNumbers { num_clients });
            }
            if at % BREATHE == 0 {
                tokio::task::yield_now().await;
            }
        }
        match page.next {
            Some(_) if channels.len() > MAX_CHANNELS => break,
            Some(next) => after = Some(next),
            None if channels.len() > MAX_CHANNELS => break,
            None => return written(&ChannelsResult { channels }),
        }
    }
    Err(too_much(state, app))
}

pub(super) async fn info(state: &ApiState, app: &App) -> Result<Vec<u8>, ServerError> {
    let page = turn(state, app)?.nodes().await;
    let nodes = page.nodes.iter().map(|(node, tally)| Node {
        uid: node.id,
        name: &node.name,
        version: &node.version,
        uptime: uptime(node.started_ms),
        num_clients: tally.map(|tally| tally.connections),
        num_users: tally.map(|tally| tally.users),
        num_channels: tally.map(|tally| tally.channels),
        num_subs: tally.map(|tally| tally.subscriptions),
    });
    written(&InfoResult {
        nodes: nodes.collect(),
    })
}

fn with_presence(app: &App, channel: &str) -> Result<ChannelName, ServerError> {
    let target = Target::find(&app.rules, channel)?;
    if !target.rule.presence {
        return Err(ErrorCode::NotAvailable.into());
    }
    Ok(target.channel)
}

/// A question makes no member: what can be refused is to know one channel more.
fn refused(_: PresenceError) -> ApiError {
    ApiError::TooManyRequests { retry_after: RETRY }
}

/// What was JSON when it was let in.
fn raw(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}

fn written(result: &impl Serialize) -> Result<Vec<u8>, ServerError> {
    serde_json::to_vec(result).map_err(|_| ErrorCode::Internal.into())
}

/// Whether all of `name` is like `pattern`: `*` stands for any text, `?` for one character.
fn is_like(name: &str, pattern: &[char]) -> bool {
    let name: Vec<_> = name.chars().collect();
    let (mut at, mut with) = (0, 0);
    // The last `*`, and how far it reaches: it is given one character more when the rest does not fit.
    let mut star = None;
    while at < name.len() {
        match pattern.get(with) {
            Some('*') => {
                star = Some((with, at));
                with += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == name[at] => {
                at += 1;
                with += 1;
            }
            _ => {
                let Some((place, reach)) = star else { return false };
                star = Some((place, reach + 1));
                (at, with) = (reach + 1, place + 1);
            }
        }
    }
    pattern[with..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_the_whole_name() {
        for (name, pattern, like) in [
            ("chat:room", "chat:room", true),
            ("chat:room", "chat:", false),
            ("chat:room", "*", true),
            ("chat:room", "chat:*", true),
            ("chat:", "chat:*", true),
            ("chat:room", "*room", true),
            ("chat:rooms", "*room", false),
            ("chat:room", "c*:*o?", true),
            ("a.b.c.d", "a*c*d", true),
            ("a.b.c", "a*b?", false),
            ("mississippi", "m*iss*ip*i", true),
            ("mississippi", "m*iss*x*i", false),
            ("\u{e9}", "?", true),
            ("ab", "?", false),
            ("a", "**", true),
        ] {
            let pattern_chars: Vec<_> = pattern.chars().collect();
            assert_eq!(is_like(name, &pattern_chars), like, "{name} {pattern}");
        }
    }
}
