use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

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
}

/// Run everything on this machine, with nothing to set up.
#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub(super) listen: SocketAddr,
    /// Where messages, keys and logs are kept.
    #[arg(long, value_name = "DIR", default_value = "./.slipstream")]
    pub(super) data_dir: PathBuf,
    /// The nats-server to run; otherwise the one in PATH or in .cache/nats-server.
    #[arg(long, value_name = "PATH", env = "SLIPSTREAM_NATS_SERVER")]
    pub(super) nats_server: Option<PathBuf>,
    /// The API key of the app `dev`, instead of one that is generated once.
    #[arg(long, value_name = "KEY", env = "SLIPSTREAM_DEV_KEY", hide_env_values = true)]
    pub(super) dev_key: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn dev_listens_on_the_loopback_interface_unless_told() {
        let args = Args::try_parse_from(["slipstream", "dev"]).unwrap();
        let Command::Dev(dev) = args.command;
        assert!(dev.listen.ip().is_loopback());
        assert_eq!(dev.listen.port(), 8000);
    }

    #[test]
    fn what_is_no_command() {
        for line in [
            "slipstream",
            "slipstream fly",
            "slipstream dev --listen 8000",
            "slipstream dev --nosuch",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
