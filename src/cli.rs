//! The commands. Everything that can go wrong at start becomes one line on standard error and an
//! exit code here: 64 for what the caller must change (arguments, configuration), 1 otherwise.

mod args;
mod signal;

use std::{io, process::ExitCode};

use clap::Parser;

use crate::{
    config::{Config, Secret},
    dev::{self, DevError},
    task::Tasks,
    telemetry::{self, TelemetryError},
};

use args::{Args, Command, DevArgs};

/// Wrong arguments or configuration (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Dev(#[from] DevError),
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are "errors" of clap that go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipstream: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Telemetry(_) => USAGE,
            Self::Runtime(_) | Self::Dev(_) => 1,
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    install_crypto();
    match command {
        Command::Dev(args) => run_dev(args),
    }
}

fn run_dev(args: DevArgs) -> Result<(), CliError> {
    let base = Config::default_values();
    telemetry::init(&base.telemetry)?;
    let options = dev::Options {
        listen: args.listen,
        data_dir: args.data_dir,
        nats_server: args.nats_server,
        dev_key: args.dev_key.map(Secret::new),
    };
    runtime()?.block_on(async {
        let stop = signal::first(&Tasks::default()).map_err(CliError::Runtime)?;
        Ok(dev::run(base, options, stop).await?)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
}

/// TLS takes its cryptography from one place in the process. It can have been chosen already only
/// by ourselves, so a second choice is no error.
fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl Config {
    fn default_values() -> Self {
        use crate::config::*;
        use std::time::Duration;
        let s = Duration::from_secs;
        let ms = Duration::from_millis;
        Self {
            node: NodeConfig {
                name: String::new(),
                default_app: None,
            },
            http: HttpConfig {
                listen: ([127, 0, 0, 1], 8000).into(),
                backlog: 4096,
                header_timeout: s(10),
                idle_timeout: s(75),
                max_header_bytes: 16384,
                max_body_bytes: 1 << 20,
                expose_operations: true,
            },
            nats: NatsConfig {
                servers: vec![],
                user: None,
                password: None,
                token: None,
                credentials: None,
                ca_file: None,
                request_timeout: s(2),
                subscription_capacity: 512,
                command_capacity: 4096,
            },
            log: LogConfig {
                prefix: "slipstream".to_owned(),
                classes: vec![],
                max_in_flight: 4096,
                ack_timeout: s(5),
                mark_interval: s(1),
                clock_margin: s(5),
            },
            channel: ChannelConfig {
                max_tails: 1_000_000,
                linger: s(10),
                ring_messages: 512,
                ring_bytes: 1 << 20,
                rings_bytes: 256 << 20,
                ring_idle: s(60),
                gap_bytes: 1 << 20,
                subscribe_timeout: s(3),
                check_interval: s(10),
                check_after_interest: s(1),
                peer_wait: ms(200),
            },
            catchup: CatchupConfig {
                page_messages: 256,
                page_bytes: 256 << 10,
                in_flight_bytes: 8 << 20,
                leader_reads: 64,
                max_waiting: 100_000,
                short_reads: 3,
                sweep_from: 64,
            },
            edge: EdgeConfig {
                max_connections: 20_000,
                connect_timeout: s(10),
                ping_interval: s(25),
                pong_timeout: s(10),
                max_message_bytes: 65536,
                max_channels: 128,
                max_in_flight: 64,
                mailbox_bytes: 1 << 17,
                mailbox_max_bytes: 1 << 20,
                write_timeout: s(10),
                min_drain_rate: 1024,
                drain_window: s(60),
                send_buffer: 0,
                notsent_lowat: 0,
            },
            drain: DrainConfig {
                grace: s(0),
                duration: s(1),
                deadline: s(10),
            },
            telemetry: TelemetryConfig {
                filter: "info".to_owned(),
                json: false,
            },
            apps: vec![],
        }
    }
}
