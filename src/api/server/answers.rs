//! The answers of the server API, for the OpenAPI document. What writes them stands beside each
//! method.

#![expect(dead_code, reason = "describe what is written by hand")]

use utoipa::ToSchema;

use super::error::ErrorBody;
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

/// A reply to a command of a batch: one field, called as the command or `error`.
#[derive(ToSchema)]
#[schema(as = ServerReply)]
pub(in crate::api) struct Reply {
    publish: Option<Position>,
    broadcast: Option<BroadcastResult>,
    history: Option<HistoryResult>,
    #[schema(value_type = Option<Object>)]
    history_remove: Option<()>,
    error: Option<ErrorBody>,
}

/// The replies of a batch, not wrapped in `result`.
#[derive(ToSchema)]
#[schema(as = ServerBatchAnswer)]
pub(in crate::api) struct BatchAnswer {
    /// In the order of the commands.
    replies: Vec<Reply>,
}
