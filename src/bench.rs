//! `slipstream bench`: measures any server that speaks the Centrifuge protocol, and what the same
//! work costs without a product (the *floor*), with the same client in the same run.
//!
//! | module | what |
//! |---|---|
//! | `engine` | the client: one epoll thread for all sockets |
//! | `fanout` `idle` `publish` `resume` | the workloads: what the engine is made to do, and when it is measured |
//! | `limits` | what the limits cost a publication, without a network |
//! | `noisy` | whether one app delays another |
//! | `schemas` | what validating payloads takes, without a network |
//! | `presence` | nodes in this process with nothing but presence |
//! | `floor`, `floor_nats` | the floors: an epoll broadcaster; raw JetStream |
//! | `worker` | connections in other processes, where the file limit of one is not enough |
//! | `check`, `stats`, `process`, `report` | right or wrong, distributions, `/proc`, results |
//! | `suite` | all rows of `docs/performance.md` |
//!
//! A run that lost, repeated or reordered anything is a failure, however fast it was.

mod apps;
mod args;
mod bulk;
mod check;
mod endpoint;
mod engine;
mod fanout;
mod floor;
mod floor_nats;
mod frame;
mod idle;
mod limits;
mod noisy;
mod payload;
mod presence;
mod process;
mod publish;
mod report;
mod resume;
mod schemas;
mod stats;
mod suite;
mod token;
mod usage;
mod worker;

use std::io;

pub use args::BenchArgs;
use args::{BenchCommand, FloorCommand};
use report::Report;

/// Why a benchmark has no result, or not a good one.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The options do not go together.
    #[error("{0}")]
    Usage(String),
    /// The system refused something.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A connection could not be made, or ended.
    #[error("{0}")]
    Connection(String),
    /// Nothing moved any more.
    #[error("no progress: {0}")]
    Stalled(String),
    /// Another process could not be started or measured.
    #[error("{0}")]
    Process(String),
    /// A raw NATS operation failed.
    #[error("nats: {0}")]
    Nats(String),
    /// A result could not be written or read.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
    /// There is a result, but publications were lost, repeated, reordered or refused.
    #[error("not right: {0}")]
    Wrong(String),
}

impl BenchError {
    fn process(what: &str, error: &io::Error) -> Self {
        Self::Process(format!("{what}: {error}"))
    }
}

/// Runs one benchmark; its result goes to standard output or `--json`, progress to standard error.
///
/// # Errors
/// See [`BenchError`]; [`BenchError::Wrong`] comes after the result has been written.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    process::raise_file_limit();
    match args.command {
        BenchCommand::Idle(args) => finish(&idle::run(&args)?, args.common.json.as_deref()),
        BenchCommand::Fanout(args) => finish(&fanout::run(&args)?, args.common.json.as_deref()),
        BenchCommand::Publish(args) => finish(&publish::run(&args)?, args.common.json.as_deref()),
        BenchCommand::Resume(args) => finish(&resume::run(&args)?, args.common.json.as_deref()),
        BenchCommand::Floor(command) => run_floor(command),
        BenchCommand::FloorServer(args) => floor::serve_child(&args),
        BenchCommand::Worker => worker::run(),
        BenchCommand::Presence(args) => presence::run(&args),
        BenchCommand::Apps(args) => apps::run(&args),
        BenchCommand::Usage(args) => usage::run(&args),
        BenchCommand::Limits(args) => limits::run(&args),
        BenchCommand::Schemas(args) => schemas::run(&args),
        BenchCommand::Noisy(args) => noisy::run(&args),
        BenchCommand::Suite(args) => suite::run(&args),
    }
}

fn run_floor(command: FloorCommand) -> Result<(), BenchError> {
    match command {
        FloorCommand::Idle(mut args) => {
            floor::instead(&mut args.common);
            finish(&idle::run(&args)?, args.common.json.as_deref())
        }
        FloorCommand::Fanout(mut args) => {
            floor::instead(&mut args.common);
            finish(&fanout::run(&args)?, args.common.json.as_deref())
        }
        FloorCommand::Resume(mut args) => {
            floor::instead(&mut args.common);
            finish(&resume::run(&args)?, args.common.json.as_deref())
        }
        FloorCommand::Publish(args) => finish(&floor_nats::publish(&args)?, args.json.as_deref()),
        FloorCommand::Read(args) => finish(&floor_nats::read(&args)?, args.json.as_deref()),
    }
}

/// Writes the result and judges it.
fn finish(report: &Report, json: Option<&std::path::Path>) -> Result<(), BenchError> {
    report.summary();
    report::write_json(&report.json(), json)?;
    report.verdict()
}

/// Part of every channel name, so that no run meets another's history.
fn run_tag() -> String {
    format!("{:x}", payload::now_us())
}
