use std::sync::Arc;

use serde_json::Value;

/// A version of the JSON schema of a namespace, as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// Its number, at least 1. Never used for another schema.
    pub version: u32,
    /// The schema.
    pub schema: Arc<Value>,
}

/// What a new version of a schema has to do with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// Nothing.
    None,
    /// Who reads by the new one can read all that was valid by the one before.
    Backward,
    /// That, and who reads by the one before can read all that is valid by the new one.
    Full,
}

/// What becomes of a publication that comes too soon for a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It is refused.
    Reject,
    /// It waits in the deployment's queue, and is published later.
    Queue,
}
