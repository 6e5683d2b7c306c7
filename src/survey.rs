//! What the nodes of a deployment have of an app: its channels with subscribers, and numbers.
//!
//! Each node is asked anew; nothing is kept. A node that does not answer is named: nobody may take
//! its silence for "nothing".
//!
//! ```text
//! merge    what nodes have told, put together: pure
//! wire     questions and answers between nodes
//! service  asks, and answers
//! ```

mod merge;
mod service;
mod wire;

pub use merge::{ChannelsPage, NodesPage};
pub use service::{Crowded, Survey, Turn};
pub use wire::Tally;
