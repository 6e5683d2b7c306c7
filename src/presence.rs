//! Who is on a channel, on all nodes.
//!
//! Presence is soft state of the node that holds the connection. That node, the *owner*, tells all nodes
//! that are interested in the channel what changes; they keep a *view*. Nothing is stored: what a node
//! has not heard it asks for, and what a node that is gone has said counts no more.
//!
//! ```text
//! member           a connection on a channel, as others see it
//! owner            what this node holds of a channel, and what it has to tell of it: pure
//! view             what a node knows of all owners of a channel: pure
//! wire             messages between nodes
//! service          joins, leaves, queries; sends and hears
//! service/asking   snapshots asked of other nodes by name
//! service/hearing  deltas, digests and questions of other nodes
//! service/rounds   what is done again and again: flush, digest, grace, linger
//! ```

mod member;
mod owner;
mod service;
mod view;
mod wire;

pub use member::{Member, Shown};
pub use service::{Admitted, Encoders, Listening, MembersPage, Membership, Presence, PresenceError, Stats};
