//! Slipstream: a realtime edge with durable history on NATS JetStream.
//!
//! A channel is a log; a subscriber tails it. See `docs/architecture.md` for the map.

pub mod bench;
pub mod config;
pub mod log;
pub mod model;
pub mod task;
