//! Logs and metrics of a node.
//!
//! [`init`] is called once by the binary. [`Metrics`] belong to a node: two nodes in one process
//! have one each, so nothing here is global.

mod labels;
mod metrics;
mod registry;
mod usage;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::TelemetryConfig;

pub use labels::{
    AuthFailure, ByLabel, CatchupKind, CatchupSource, CheckOutcome, DropReason, GapOutcome, Label, Limit,
    LoginOutcome, MailOutcome, NodeState, PublishOutcome, QueueOutcome, QuotaName, RecoveryOutcome,
    RefusedBody, RefusedHandshake, RefusedMessage, RingEviction, StatusClass, UserCommand,
};
pub use metrics::{AppMetrics, Held, Metrics, ShardMetrics};
pub use prometheus_client::metrics::counter::Counter;
pub use registry::MetricInfo;
pub use usage::{AppUsage, Counts, Measure, Tally, Used};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.filter` is not a filter.
    #[error("telemetry.filter is not a log filter: {0}; an example is `info,slipstream=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process already has a subscriber.
    #[error("logging was already set up in this process")]
    Twice,
}

/// Libraries that log what they send and receive when they are asked for much. Nobody may ask them.
const TELLS_ALL: [&str; 1] = ["async_nats=warn"];

/// Sends `tracing` events of this process to standard error, as text or as JSON lines. Standard
/// output is left to what commands print.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let mut filter = EnvFilter::try_new(&config.filter)?;
    for library in TELLS_ALL {
        filter = filter.add_directive(library.parse()?);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let done = if config.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.compact().try_init()
    };
    done.map_err(|_| TelemetryError::Twice)
}
