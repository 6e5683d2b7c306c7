//! The answers of the server API, for the OpenAPI document. What writes them stands beside each
//! method.

#![expect(dead_code, reason = "describe what is written by hand")]

use utoipa::ToSchema;

use super::{
    error::ErrorBody,
    survey::{ChannelsResult, InfoResult, PresenceResult, PresenceStatsResult},
};
use crate::api::v1::PublicationBody;

/// Where a publication is stored; empty on a channel without history.
#[derive(ToSchema)]
#[schema(as = ServerPosition)]
pub(in crate::api) struct Position {
    /// Its offset.
    offset: Option<u64>,
    /// The epoch that the offset belongs to.
    epoch: Option<String>,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerPublishAnswer)]
pub(in crate::api) struct PublishAnswer {
    result: Option<Position>,
    error: Option<ErrorBody>,
}

/// One answer for each channel, in their order.
#[derive(ToSchema)]
#[schema(as = ServerBroadcastResult)]
pub(in crate::api) struct BroadcastResult {
    responses: Vec<PublishAnswer>,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerBroadcastAnswer)]
pub(in crate::api) struct BroadcastAnswer {
    result: Option<BroadcastResult>,
    error: Option<ErrorBody>,
}

/// A list of publications.
#[derive(ToSchema)]
#[schema(as = ServerHistoryResult)]
pub(in crate::api) struct HistoryResult {
    publications: Vec<PublicationBody>,
    /// The top, whatever the list holds.
    offset: u64,
    epoch: String,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerHistoryAnswer)]
pub(in crate::api) struct HistoryAnswer {
    result: Option<HistoryResult>,
    error: Option<ErrorBody>,
}

/// Either an empty `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerEmptyAnswer)]
pub(in crate::api) struct EmptyAnswer {
    #[schema(value_type = Option<Object>)]
    result: Option<()>,
    error: Option<ErrorBody>,
}

/// Empty if all nodes have answered.
#[derive(ToSchema)]
#[schema(as = ServerCommandResult)]
pub(in crate::api) struct CommandResult {
    /// Ids of nodes that did not answer: there it was done or not.
    missing_nodes: Option<Vec<String>>,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerCommandAnswer)]
pub(in crate::api) struct CommandAnswer {
    result: Option<CommandResult>,
    error: Option<ErrorBody>,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerPresenceAnswer)]
pub(in crate::api) struct PresenceAnswer<'a> {
    result: Option<PresenceResult<'a>>,
    error: Option<ErrorBody>,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerPresenceStatsAnswer)]
pub(in crate::api) struct PresenceStatsAnswer {
    result: Option<PresenceStatsResult>,
    error: Option<ErrorBody>,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerChannelsAnswer)]
pub(in crate::api) struct ChannelsAnswer {
    result: Option<ChannelsResult>,
    error: Option<ErrorBody>,
}

/// Either `result` or `error`.
#[derive(ToSchema)]
#[schema(as = ServerInfoAnswer)]
pub(in crate::api) struct InfoAnswer<'a> {
    result: Option<InfoResult<'a>>,
    error: Option<ErrorBody>,
}

/// A reply to a command of a batch: one field, called as the command or `error`.
#[derive(ToSchema)]
#[schema(as = ServerReply)]
pub(in crate::api) struct Reply<'a> {
    publish: Option<Position>,
    broadcast: Option<BroadcastResult>,
    history: Option<HistoryResult>,
    #[schema(value_type = Option<Object>)]
    history_remove: Option<()>,
    subscribe: Option<CommandResult>,
    unsubscribe: Option<CommandResult>,
    disconnect: Option<CommandResult>,
    refresh: Option<CommandResult>,
    presence: Option<PresenceResult<'a>>,
    presence_stats: Option<PresenceStatsResult>,
    channels: Option<ChannelsResult>,
    info: Option<InfoResult<'a>>,
    error: Option<ErrorBody>,
}

/// The replies of a batch, not wrapped in `result`; or `error`, if the batch itself is none.
#[derive(ToSchema)]
#[schema(as = ServerBatchAnswer)]
pub(in crate::api) struct BatchAnswer<'a> {
    /// In the order of the commands.
    replies: Option<Vec<Reply<'a>>>,
    error: Option<ErrorBody>,
}
