//! REST, version 1: a channel's publications as a resource.

mod cursor;
mod history;
mod publish;

pub(super) use history::{__path_history, __path_remove, PublicationBody, history, remove};
pub(super) use publish::{__path_publish, BatchResult, Item, publish};

use serde::Deserialize;

/// The query of a request that takes no parameters but the app's name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlyApp {
    #[serde(rename = "app")]
    _app: Option<String>,
}
