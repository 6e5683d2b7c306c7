//! `slipstream account`, `team`, `app`, `key`, `plan` and `usage`: the control API for people and scripts. All by
//! HTTP: nothing here knows a store. `docs/cli.md` explains it to those who use it.

mod account;
mod app;
mod args;
mod audit;
mod caller;
mod client;
mod edit;
mod error;
mod key;
mod letters;
mod plan;
mod prompt;
mod session_file;
mod table;
mod team;
mod time;
mod tokens;
mod usage;

pub(super) use account::AccountArgs;
pub(super) use app::AppArgs;
pub(super) use error::Error;
pub(super) use key::KeyArgs;
pub(super) use plan::PlanArgs;
pub(super) use team::TeamArgs;
pub(super) use usage::UsageArgs;

/// A command over the control API.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ControlCommand {
    Account(AccountArgs),
    Team(TeamArgs),
    App(AppArgs),
    Key(KeyArgs),
    Plan(PlanArgs),
    Usage(UsageArgs),
}

/// Does it.
pub(super) async fn run(command: ControlCommand) -> Result<(), Error> {
    match command {
        ControlCommand::Account(args) => account::run(args).await,
        ControlCommand::Team(args) => team::run(args).await,
        ControlCommand::App(args) => app::run(args).await,
        ControlCommand::Key(args) => key::run(args).await,
        ControlCommand::Plan(args) => plan::run(args).await,
        ControlCommand::Usage(args) => usage::run(args).await,
    }
}
