//! The commands. Everything that can go wrong at start becomes one line on standard error and an
//! exit code here: 64 for what the caller must change (arguments, configuration), 2 for what may be otherwise
//! later (commands over the control API), 1 otherwise.

mod args;
mod control;
mod signal;
mod store;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    app::{App, Roles, StartError},
    bench::{self, BenchError},
    cluster,
    config::{Config, ConfigErrors, Secret, Sources},
    dev::{self, DataDir, DataDirError, DevError, DevKeys},
    log::{Log, nats},
    model::Epoch,
    store::{OpenError, TransferError},
    task::Tasks,
    telemetry::{self, TelemetryError},
};

use args::{Args, Command, ConfigCommand, DevArgs, LogArgs, LogCommand, NodesArgs, Role, ServeArgs};

/// Wrong arguments or configuration (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Dev(#[from] DevError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Log(#[from] nats::StartError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("the store has problems: {0}")]
    Problems(u64),
    #[error("NATS does not tell the nodes; try again")]
    Nodes,
    #[error("bench: {0}")]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Control(#[from] control::Error),
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
            Self::Telemetry(_) | Self::File { .. } | Self::Config(_) => USAGE,
            Self::Bench(BenchError::Usage(_)) => USAGE,
            Self::Store(OpenError::None) => USAGE,
            Self::Control(error) => error.exit_code(),
            Self::Runtime(_)
            | Self::DataDir(_)
            | Self::Dev(_)
            | Self::Start(_)
            | Self::Log(_)
            | Self::Open { .. }
            | Self::Store(_)
            | Self::Transfer(_)
            | Self::Problems(_)
            | Self::Nodes
            | Self::Bench(_) => 1,
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    install_crypto();
    match command {
        Command::Dev(args) => run_dev(args),
        Command::Serve(args) => run_serve(&args),
        Command::Bench(args) => Ok(bench::run(*args)?),
        Command::Config(command) => run_config(&command),
        Command::Log(command) => run_log(&command),
        Command::Nodes(args) => run_nodes(&args),
        Command::Store(command) => store::run(&command),
        Command::Control(command) => Ok(runtime()?.block_on(control::run(command))?),
    }
}

fn run_dev(args: DevArgs) -> Result<(), CliError> {
    let data_dir = DataDir::open(&args.data_dir)?;
    let keys = DevKeys {
        api_key: match args.dev_key {
            Some(key) => Secret::new(key),
            None => data_dir.secret("api-key")?,
        },
        token_secret: data_dir.secret("token-secret")?,
    };
    let mut sources = sources(args.config.as_deref())?;
    if let Some(listen) = args.listen {
        sources
            .overrides
            .push(("http.listen".to_owned(), listen.to_string()));
    }
    let mut config = dev::config(&sources, &keys)?;
    dev::use_control(&mut config, &data_dir)?;
    config.validate()?;
    telemetry::init(&config.telemetry)?;
    runtime()?.block_on(async {
        let stop = signal::first(&Tasks::default()).map_err(CliError::Runtime)?;
        Ok(dev::run(config, &data_dir, args.nats_server.as_deref(), stop).await?)
    })
}

fn run_serve(args: &ServeArgs) -> Result<(), CliError> {
    let config = Config::load(&sources(Some(&args.config))?)?;
    telemetry::init(&config.telemetry)?;
    let roles = Roles {
        edge: args.role.contains(&Role::Edge),
        api: args.role.contains(&Role::Api),
        control: args.role.contains(&Role::Control),
        worker: args.role.contains(&Role::Worker),
    };
    runtime()?.block_on(async {
        let stop = signal::first(&Tasks::default()).map_err(CliError::Runtime)?;
        let running = App::new(config, roles).start().await?;
        println!("ready http://{}", running.addr);
        stop.await;
        running.drain().await;
        Ok(())
    })
}

fn run_config(command: &ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::Check(args) => {
            let config = Config::load(&sources(args.config.as_deref())?)?;
            let (classes, apps) = (config.log.classes.len(), config.apps.len());
            println!("the configuration is fine: {classes} retention classes, {apps} apps");
        }
        ConfigCommand::Show(args) => print!("{}", Config::load(&sources(args.config.as_deref())?)?.show()),
    }
    Ok(())
}

fn run_log(command: &LogCommand) -> Result<(), CliError> {
    let (LogCommand::NewEpoch(LogArgs { config }) | LogCommand::Resize(LogArgs { config })) = command;
    let config = Config::load(&sources(Some(config))?)?;
    telemetry::init(&config.telemetry)?;
    let tasks = Tasks::default();
    runtime()?.block_on(async {
        match command {
            LogCommand::NewEpoch(_) => {
                let say = |stream: &str, epoch: &Epoch| println!("{stream} has the epoch {epoch}");
                nats::new_epochs(&config.nats, &config.log, &tasks, say).await?;
            }
            LogCommand::Resize(_) => {
                let say = |stream: &str, bytes| println!("{stream} has room for {bytes} bytes");
                nats::resize(&config.nats, &config.log, &tasks, say).await?;
            }
        }
        tasks.stop();
        Ok(())
    })
}

fn run_nodes(args: &NodesArgs) -> Result<(), CliError> {
    let config = Config::load(&sources(Some(&args.config))?)?;
    telemetry::init(&config.telemetry)?;
    let tasks = Tasks::default();
    runtime()?.block_on(async {
        let secret = config.cluster.secret.as_ref();
        let log = nats::NatsLog::start(&config.nats, &config.log, secret, &[], &tasks).await?;
        let nodes = cluster::list(log.clone(), config.nats.start_timeout).await;
        let nodes = nodes.ok_or(CliError::Nodes)?;
        if args.json {
            // Plain data: it can be written.
            println!("{}", serde_json::to_string_pretty(&nodes).unwrap_or_default());
        } else {
            print!("{}", cluster::table(&nodes, log.now_ms()));
        }
        tasks.stop();
        Ok(())
    })
}

/// The layers of this process: a file and the environment.
fn sources(file: Option<&Path>) -> Result<Sources, CliError> {
    let read = |path: &Path| -> Result<_, CliError> {
        let text = fs::read_to_string(path).map_err(|source| CliError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok((path.to_owned(), text))
    };
    Ok(Sources {
        file: file.map(read).transpose()?,
        // A variable that is not UTF-8 is none of ours.
        env: env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        overrides: Vec::new(),
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
