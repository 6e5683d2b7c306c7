//! Apps as their teams manage them: settings, keys, versions. Each change is checked as a whole, stored, and
//! published to the nodes; what was stored and could not be published is published later
//! ([`Apps::reconcile`]).

mod check;
mod diff;
mod document;
mod publish;
mod room;
mod schemas;
mod service;

pub use diff::diff;
pub use document::{AppDocument, Edit, KeyDocument, Version};
pub(in crate::control) use schemas::registered;
pub use service::{Apps, AppsError, Created, NewApp, Settled};

/// One thing that keeps a change from taking effect.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Reason {
    /// Where in the app it is: `limits.publish_rate`.
    pub path: String,
    /// What is wrong, as the end of a sentence that begins with the path.
    pub message: String,
}

impl Reason {
    /// A reason.
    pub fn new(path: &str, message: String) -> Self {
        Self {
            path: path.to_owned(),
            message,
        }
    }
}
