//! `slipstream team`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    args::{AuditArgs, Door},
    audit,
    caller::Caller,
    client::Call,
    error::Error,
    prompt,
    table::Column,
    tokens,
};

/// Teams: who is in them, and in what role.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TeamArgs {
    #[command(flatten)]
    door: Door,
    #[command(subcommand)]
    command: TeamCommand,
}

#[derive(Debug, Subcommand)]
enum TeamCommand {
    /// List your teams; for the operator all.
    List,
    /// Make a team, whose owner you are.
    Create {
        /// Its name.
        name: String,
    },
    /// Tell about a team.
    Show {
        /// Its id.
        team: String,
    },
    /// Give a team another name.
    Rename {
        /// Its id.
        team: String,
        /// Its name from now on.
        name: String,
    },
    /// Delete a team, which must have no apps; asks first.
    Delete {
        /// Its id.
        team: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Members of a team.
    #[command(subcommand)]
    Members(MembersCommand),
    /// Invite an address to a team, by a letter.
    Invite {
        /// The team's id.
        team: String,
        /// The e-mail address.
        email: String,
        /// viewer, developer, admin or owner; not above your own.
        #[arg(long)]
        role: String,
    },
    /// List the open invitations to a team.
    Invitations {
        /// The team's id.
        team: String,
    },
    /// Withdraw an invitation.
    Withdraw {
        /// The team's id.
        team: String,
        /// The invitation's id.
        invitation: String,
    },
    /// Accept an invitation; asks for what stands behind `#token=` in its link.
    Accept,
    /// Leave a team.
    Leave {
        /// Its id.
        team: String,
    },
    /// Make another member the owner in your own place.
    Transfer {
        /// The team's id.
        team: String,
        /// The member's account.
        account: String,
    },
    /// Tell who did what in a team.
    Audit {
        /// The team's id.
        team: String,
        #[command(flatten)]
        entries: AuditArgs,
        /// Only what this account did.
        #[arg(long, value_name = "ACCOUNT", conflicts_with = "target")]
        actor: Option<String>,
        /// Only what was done to this.
        #[arg(long, value_name = "ID")]
        target: Option<String>,
        /// All of it, as lines of JSON, into a file that is made; - is standard output.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["limit", "json"])]
        export: Option<PathBuf>,
    },
    /// Members' personal API tokens that are for this team only.
    #[command(subcommand)]
    Tokens(TokensCommand),
}

#[derive(Debug, Subcommand)]
enum MembersCommand {
    /// List them.
    List {
        /// The team's id.
        team: String,
    },
    /// Give one another role.
    SetRole {
        /// The team's id.
        team: String,
        /// The member's account.
        account: String,
        /// viewer, developer, admin or owner; not above your own.
        role: String,
    },
    /// Remove one.
    Remove {
        /// The team's id.
        team: String,
        /// The member's account.
        account: String,
    },
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// List them.
    List {
        /// The team's id.
        team: String,
    },
    /// Revoke one.
    Revoke {
        /// The team's id.
        team: String,
        /// The token's id.
        token: String,
    },
}

const TEAM: &[Column] = &[
    ("id", "id"),
    ("name", "name"),
    ("role", "role"),
    ("members", "members"),
    ("made", "created_ms"),
];

const MEMBERS: &[Column] = &[
    ("account", "account"),
    ("name", "name"),
    ("email", "email"),
    ("role", "role"),
    ("since", "since_ms"),
];

const INVITATION: &[Column] = &[
    ("id", "id"),
    ("email", "email"),
    ("role", "role"),
    ("by", "by"),
    ("made", "created_ms"),
    ("expires", "expires_ms"),
];

pub(super) async fn run(args: TeamArgs) -> Result<(), Error> {
    let caller = Caller::new(&args.door)?;
    match args.command {
        TeamCommand::List => caller.show_list(&caller.list(&Call::get(&["teams"])).await?, TEAM),
        TeamCommand::Create { name } => {
            caller
                .fetch(&Call::make(&["teams"], json!({ "name": name })), TEAM)
                .await
        }
        TeamCommand::Show { team } => caller.fetch(&Call::get(&["teams", &team]), TEAM).await,
        TeamCommand::Rename { team, name } => {
            let call = Call::patch(&["teams", &team], json!({ "name": name }));
            caller.fetch(&call, TEAM).await
        }
        TeamCommand::Delete { team, yes } => {
            prompt::confirm(&format!("Delete the team {team}"), yes)?;
            caller
                .act(&Call::delete(&["teams", &team]), "the team is deleted")
                .await
        }
        TeamCommand::Members(command) => members(&caller, command).await,
        TeamCommand::Invite { team, email, role } => {
            let body = json!({"email": email, "role": role});
            let call = Call::make(&["teams", &team, "invitations"], body);
            caller.fetch(&call, INVITATION).await
        }
        TeamCommand::Invitations { team } => {
            let call = Call::get(&["teams", &team, "invitations"]);
            caller.show_list(&caller.list(&call).await?, INVITATION)
        }
        TeamCommand::Withdraw { team, invitation } => {
            let call = Call::delete(&["teams", &team, "invitations", &invitation]);
            caller.act(&call, "the invitation is withdrawn").await
        }
        TeamCommand::Accept => {
            let token = prompt::secret("What stands behind #token= in the link: ")?;
            let body = json!({"token": token.expose()});
            caller
                .fetch(&Call::post(&["invitations", "accept"], body), TEAM)
                .await
        }
        TeamCommand::Leave { team } => {
            let call = Call::post(&["teams", &team, "leave"], Value::Null);
            caller.act(&call, "you are no member any more").await
        }
        TeamCommand::Transfer { team, account } => {
            let call = Call::post(&["teams", &team, "transfer"], json!({ "to": account }));
            caller.act(&call, "the team has another owner").await
        }
        TeamCommand::Audit {
            team,
            entries,
            actor,
            target,
            export,
        } => {
            let parameters = |path: &[&str]| {
                let call = audit::parameters(Call::get(path), &entries);
                call.query("actor", actor.as_ref())
                    .query("target", target.as_ref())
            };
            match &export {
                None => audit::show(&caller, &parameters(&["teams", &team, "audit"]), &entries).await,
                Some(file) => {
                    let call = parameters(&["teams", &team, "audit", "export"]);
                    audit::export(&caller, &call, file).await
                }
            }
        }
        TeamCommand::Tokens(TokensCommand::List { team }) => {
            let call = Call::get(&["teams", &team, "tokens"]);
            caller.show_list(&caller.list(&call).await?, tokens::COLUMNS)
        }
        TeamCommand::Tokens(TokensCommand::Revoke { team, token }) => {
            let call = Call::delete(&["teams", &team, "tokens", &token]);
            caller.act(&call, "the token is revoked").await
        }
    }
}

async fn members(caller: &Caller, command: MembersCommand) -> Result<(), Error> {
    match command {
        MembersCommand::List { team } => {
            let call = Call::get(&["teams", &team, "members"]);
            caller.show_list(&caller.list(&call).await?, MEMBERS)
        }
        MembersCommand::SetRole { team, account, role } => {
            let call = Call::patch(&["teams", &team, "members", &account], json!({ "role": role }));
            caller.act(&call, "the member has another role").await
        }
        MembersCommand::Remove { team, account } => {
            let call = Call::delete(&["teams", &team, "members", &account]);
            caller.act(&call, "the member is removed").await
        }
    }
}
