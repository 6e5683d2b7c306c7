//! Slipstream: a realtime edge with durable history on NATS JetStream.
//!
//! A channel is a log; a subscriber tails it. See `docs/architecture.md` for the map.

pub mod api;
pub mod app;
pub mod apps;
pub mod auth;
pub mod bench;
pub mod channel;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod dev;
pub mod edge;
pub mod limits;
pub mod log;
pub mod model;
pub mod overflow;
pub mod presence;
pub mod protocol;
pub mod publish;
pub mod quota;
pub mod random;
pub mod revocation;
pub mod schema;
pub mod seal;
pub mod session;
pub mod store;
pub mod survey;
pub mod task;
pub mod telemetry;
pub mod usage;
pub mod users;
