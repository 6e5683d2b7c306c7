//! The nodes of a deployment: who is there, and how they are asked.
//!
//! ```text
//! lease   what is known of leases: decisions, pure
//! node    a node's entry in the bucket
//! list    all nodes, from outside
//! nodes   renews the own lease, watches the others', asks them
//! ```

mod lease;
mod list;
mod node;
mod nodes;

pub use lease::NodeEvent;
pub use list::{list, table};
pub use node::{Load, NodeInfo, NodeState};
pub use nodes::{About, Answers, Nodes};
