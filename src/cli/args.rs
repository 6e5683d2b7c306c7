use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use super::control::ControlCommand;
use crate::bench::BenchArgs;

/// A realtime edge with durable history on NATS JetStream.
#[derive(Debug, Parser)]
#[command(name = "slipstream", version, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Dev(DevArgs),
    Serve(ServeArgs),
    /// Look at a configuration without starting anything.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Do to a deployment what no node does by itself.
    #[command(subcommand)]
    Log(LogCommand),
    /// List the nodes of a deployment.
    Nodes(NodesArgs),
    /// Look after the store: accounts, teams, apps, plans, usage.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Measure a server that speaks the Centrifuge protocol.
    Bench(Box<BenchArgs>),
    #[command(flatten)]
    Control(ControlCommand),
}

/// Run everything on this machine, with nothing to set up.
#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// Where to listen, instead of 127.0.0.1:8000; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<SocketAddr>,
    /// Where messages, keys and logs are kept.
    #[arg(long, value_name = "DIR", default_value = "./.slipstream")]
    pub(super) data_dir: PathBuf,
    /// A configuration file; the app `dev` is added to it unless it defines one.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The nats-server to run; otherwise the one in PATH or in .cache/nats-server.
    #[arg(long, value_name = "PATH", env = "SLIPSTREAM_NATS_SERVER")]
    pub(super) nats_server: Option<PathBuf>,
    /// The API key of the app `dev`, instead of one that is generated once.
    #[arg(long, value_name = "KEY", env = "SLIPSTREAM_DEV_KEY", hide_env_values = true)]
    pub(super) dev_key: Option<String>,
}

/// Run a node of a deployment.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// What the node does, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "edge,api")]
    pub(super) role: Vec<Role>,
}

/// A role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Serve clients over WebSocket.
    Edge,
    /// Serve backends over REST.
    Api,
    /// Serve people: accounts, teams, apps. Needs a store.
    Control,
    /// Add up what apps use. Needs a store.
    Worker,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Tell everything that is wrong with a configuration.
    Check(ConfigArgs),
    /// Print the effective configuration, secrets redacted.
    Show(ConfigArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Give every shard a new epoch: after a restore, before clients connect. Who comes back with an
    /// older position is told `recovered: false`.
    NewEpoch(LogArgs),
    /// Raise the streams' max_bytes to what the configuration says; before the nodes get it.
    Resize(LogArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Make or migrate the store, as nodes do when they start.
    Migrate(StoreArgs),
    /// Read all documents and tell what is wrong; exits with 1 if something is.
    Check(StoreArgs),
    /// Write all documents as lines of JSON.
    Export(ExportArgs),
    /// Write the documents of an export into a store that is empty.
    Import(ImportArgs),
}

/// Which store.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// The configuration file that names it.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

/// What to export, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// A file that is made, readable by its owner alone, instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

/// What to import, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The export, instead of standard input. A file is read to its end before anything is written.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Import into a store that holds documents: those with the same ids are written over.
    #[arg(long)]
    pub(super) merge: bool,
}

/// Which deployment.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// The configuration file of its nodes.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

/// Which deployment, and in what form.
#[derive(Debug, clap::Args)]
pub(super) struct NodesArgs {
    /// The configuration file of its nodes.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// As JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}

/// Which configuration.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration file; without it, the defaults and the environment.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_node_serves_clients_and_backends_unless_told() {
        for (line, roles) in [
            ("slipstream serve --config a", &[Role::Edge, Role::Api][..]),
            ("slipstream serve --config a --role edge", &[Role::Edge]),
            (
                "slipstream serve --config a --role api,edge",
                &[Role::Api, Role::Edge],
            ),
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            let Command::Serve(serve) = args.command else {
                panic!("{line}");
            };
            assert_eq!(serve.role, roles, "{line}");
        }
    }

    #[test]
    fn what_is_no_command() {
        for line in [
            "slipstream",
            "slipstream fly",
            "slipstream dev --listen 8000",
            "slipstream dev --nosuch",
            "slipstream serve",
            "slipstream serve --config a --role waiter",
            "slipstream config",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    /// The commands below `command` that do something, each with the words that call it.
    fn leaves(command: &clap::Command, words: &str) -> Vec<String> {
        let words = format!("{words} {}", command.get_name());
        let below: Vec<_> = command
            .get_subcommands()
            .flat_map(|command| leaves(command, &words))
            .collect();
        if below.is_empty() { vec![words] } else { below }
    }

    /// The benchmark's are in docs/performance.md.
    #[test]
    fn the_page_has_an_example_of_each_command() {
        let page = include_str!("../../docs/cli.md");
        let examples: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("slipstream "))
            .collect();
        let examples = examples.iter().filter(|line| !line.contains(": "));
        let all = leaves(&Args::command(), "");
        let all = all.iter().map(|words| words.trim());
        let all: BTreeSet<_> = all
            .filter(|words| !words.starts_with("slipstream bench"))
            .collect();
        let mut shown = BTreeSet::new();
        for example in examples {
            if let Err(error) = Args::try_parse_from(example.split(' ')) {
                panic!("{example}: {error}");
            }
            let named = all
                .iter()
                .filter(|words| format!("{example} ").starts_with(&format!("{words} ")));
            shown.extend(named);
        }
        assert_eq!(shown, all);
    }
}
