//! Users: whose connection is which, and what backends have done to a user's connections on all
//! nodes.
//!
//! [`Index`] knows the connections of this node. [`Users`] gives a command to all nodes; each does it
//! to the connections that it has, and tells how many these were. A node that does not answer is
//! named in the [`Outcome`]: nobody may take its silence for "offline".

mod deliver;
mod index;
mod service;
mod wire;

pub use index::{Index, Local, Place};
pub use service::{Crowded, Outcome, Users};
pub use wire::{Action, Answer, Request, Subscribe};
