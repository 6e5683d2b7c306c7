use serde::{Deserialize, Serialize};

use crate::model::{Incarnation, NodeId};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It is getting ready.
    Starting,
    /// It serves.
    Ready,
    /// It takes no new connections, and closes those it has.
    Draining,
    /// It has not renewed its lease, and another has ended it. Written by that one.
    Gone,
}

impl NodeState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

/// How much a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Connections.
    pub connections: u64,
    /// Users with a connection, of all apps.
    pub users: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Channels with a tail.
    pub tails: u64,
}

/// A node as its lease describes it (docs/log-format.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// How often it has had to begin anew.
    pub incarnation: Incarnation,
    /// What its operator calls it.
    pub name: String,
    /// Where it can be reached.
    pub address: String,
    /// The program's version.
    pub version: String,
    /// What it does.
    pub state: NodeState,
    /// When it was started, ms since 1970.
    pub started_ms: i64,
    /// When this entry was written, ms since 1970, by the node's own clock.
    pub renewed_ms: i64,
    /// How much it has to do.
    #[serde(default)]
    pub load: Load,
}
