//! REST, version 1.

mod channels;
mod cursor;
mod history;
mod presence;
mod publish;
mod queue;
mod revocations;
mod users;

pub(super) use channels::{__path_channels, __path_nodes, channels, nodes, turn, uptime};
pub(super) use history::{__path_history, __path_remove, PublicationBody, history, remove};
pub(super) use presence::{__path_presence, __path_presence_stats, presence, presence_stats};
pub(super) use publish::{__path_publish, BatchAnswer, BatchResult, Item, PublishAnswer, publish};
pub(super) use queue::{__path_queue, queue};
pub(super) use revocations::{
    __path_list as __path_revocations, __path_restore, __path_revoke, list as revocations, restore, revoke,
};
pub(super) use users::{
    __path_disconnect, __path_message, __path_online, __path_refresh, __path_subscribe, __path_unsubscribe,
    disconnect, message, online, refresh, subscribe, unsubscribe,
};

use serde::Deserialize;

/// The query of a request that takes no parameters but the app's name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlyApp {
    #[serde(rename = "app")]
    _app: Option<String>,
}
