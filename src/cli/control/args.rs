//! What the commands over the control API have in common.

use std::path::PathBuf;

use super::time::When;

/// Which server, as whom, and in what form.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(in crate::cli) struct Door {
    /// The server with the control API.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SLIPSTREAM_URL",
        default_value = "http://127.0.0.1:8000"
    )]
    pub(super) url: String,
    /// A file with a personal API token or the operator's key, instead of SLIPSTREAM_TOKEN or a session.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Print what the server answers, as JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Which entries of an audit log.
#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    /// None from before it: a time, or how long ago.
    #[arg(long, value_name = "TIME")]
    pub(super) from: Option<When>,
    /// None from this time on.
    #[arg(long, value_name = "TIME")]
    pub(super) to: Option<When>,
    /// The oldest first.
    #[arg(long)]
    pub(super) oldest: bool,
    /// So many at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) limit: u32,
}

/// The version that the caller has seen.
#[derive(Debug, clap::Args)]
pub(super) struct SeenArgs {
    /// Only if the app still has this version.
    #[arg(long, value_name = "N")]
    pub(super) if_version: Option<u64>,
}

impl SeenArgs {
    /// As an ETag.
    pub(super) fn tag(&self) -> Option<String> {
        self.if_version.map(|version| format!("\"{version}\""))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use super::super::ControlCommand;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        _command: ControlCommand,
    }

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(["slipstream"].into_iter().chain(line.split(' ')))
    }

    /// The rest of what can be said is in docs/cli.md, each line of which is parsed too.
    #[test]
    fn what_can_be_said() {
        for line in [
            "account show --json --url https://x.example --token-file t",
            "account --json show",
            "account tokens create ci --scope apps.read --scope keys.read,apps.write",
            "account tokens create ci --scope apps.read --expires 2027-01-01",
            "team audit t --from 24h --to 2026-11-29T15:04:00Z --actor a --oldest --limit 5",
            "team audit t --target x --export -",
            "app edit shop",
            "app edit shop --set name=Shop --set plan= --settings s.json --if-version 3",
            "app delete shop --yes --if-version 3",
            "app diff shop",
            "key rotate shop k --overlap 0s",
            "plan set big",
            "plan set big --selectable --about x",
            "plan set big --selectable false --quota channels=none",
            "usage shop --from 7d --to 1d --step hour --group channel",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_said() {
        use ErrorKind::{
            ArgumentConflict, DisplayHelpOnMissingArgumentOrSubcommand as Help, InvalidSubcommand,
            MissingRequiredArgument as Missing, UnknownArgument as Unknown, ValueValidation as Wrong,
        };
        for (line, kind) in [
            ("account", Help),
            ("account fly", InvalidSubcommand),
            // Secrets would be seen by everybody on the machine.
            ("account show --token x", Unknown),
            ("account login --password x", Unknown),
            ("account tokens create ci", Missing),
            ("account tokens create ci --scope a --expires soon", Wrong),
            ("team delete", Missing),
            ("team audit t --actor a --target b", ArgumentConflict),
            ("team audit t --export f --json", ArgumentConflict),
            ("team audit t --export f --limit 5", ArgumentConflict),
            ("team audit t --limit 0", Wrong),
            ("team invite t a@x.example", Missing),
            ("app list", Missing),
            ("app create Shop", Missing),
            ("app edit shop --file f --set name=x", ArgumentConflict),
            ("app edit shop --file f --settings f", ArgumentConflict),
            ("app roll-back shop", Missing),
            ("app roll-back shop first", Wrong),
            ("key rotate shop k", Missing),
            ("key rotate shop k --overlap 2026-11-29", Wrong),
            ("key end shop k", Missing),
            ("usage", Missing),
            ("usage shop --csv --json", ArgumentConflict),
            ("usage shop --from yesterday", Wrong),
        ] {
            match parse(line) {
                Err(error) => assert_eq!(error.kind(), kind, "{line}"),
                Ok(line) => panic!("{line:?}"),
            }
        }
    }
}
