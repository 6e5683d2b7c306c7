//! The nodes of a deployment: who is there, and how they are asked.
//!
//! ```text
//! lease   what is known of leases: decisions, pure
//! node    a node's entry in the bucket
//! nodes   renews the own lease, watches the others', asks them
//! ```

mod lease;
mod node;
mod nodes;

pub use lease::NodeEvent;
pub use node::{Load, NodeInfo, NodeState};
pub use nodes::{About, Answers, Nodes};
