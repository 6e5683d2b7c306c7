//! The integration tests: one binary, real parts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it is surprised"
)]

mod apps;
mod cli_control;
mod commands;
mod control_api;
mod doors;
mod faults;
mod hubs;
mod isolation;
mod jwks;
mod limits;
mod listener;
mod log_conformance;
mod log_nats;
mod metrics;
mod nodes;
mod overflow;
mod presence;
mod presence_wire;
mod quotas;
mod recovery_model;
mod recovery_rules;
mod rpc;
mod schemas;
mod server_api;
mod store_conformance;
mod support;
mod usage;
mod users;
mod websocket;
