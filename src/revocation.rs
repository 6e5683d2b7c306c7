//! Revocation: tokens that are worth nothing any more, although they are genuine and not expired.
//!
//! What is revoked is the same on all nodes: entries in the bucket `revocations`, which every node
//! reads before it serves and then watches. [`Set`] decides, and is pure; [`Revocations`] keeps it up
//! to date and stores what is revoked here. An entry is kept until the tokens it is for have expired.

mod entry;
mod service;
mod set;

pub use entry::{Entry, EntryId, Kind};
pub use service::{Enforce, NotRead, Order, Revocations, RevokeError};
pub use set::Set;
