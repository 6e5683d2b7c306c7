//! `slipstream account`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    args::{AuditArgs, Door},
    audit,
    caller::Caller,
    client::Call,
    error::Error,
    letters, prompt,
    table::{Column, fields},
    time::{When, now_ms},
    tokens,
};
use crate::config::Secret;

/// Sign in and out, and look after an account.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AccountArgs {
    #[command(flatten)]
    door: Door,
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Sign in; the session is kept on this machine.
    Login {
        /// The e-mail address, instead of a question.
        #[arg(long)]
        email: Option<String>,
    },
    /// End the session, here and on the server.
    Logout {
        /// End all sessions of the account.
        #[arg(long)]
        everywhere: bool,
    },
    /// Make an account. A letter tells how it goes on; with an invitation it is there at once.
    SignUp {
        /// The e-mail address, instead of a question.
        #[arg(long)]
        email: Option<String>,
        /// The name, 1 to 80 characters, instead of a question.
        #[arg(long)]
        name: Option<String>,
        /// You have a letter that invites you.
        #[arg(long)]
        invited: bool,
    },
    /// Verify the address of an account, by the letter.
    Verify,
    /// Have that letter sent again.
    Resend {
        /// The e-mail address.
        email: String,
    },
    /// Have a letter sent that resets a password.
    Forgot {
        /// The e-mail address.
        email: String,
    },
    /// Set a new password, by that letter.
    Reset,
    /// Take another e-mail address; a letter goes there.
    Email {
        /// The new address.
        email: String,
    },
    /// Confirm that address, by the letter.
    ConfirmEmail,
    /// Delete the account, with its sessions and tokens, and teams that have no other owner.
    Delete {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Tell who you are.
    Show,
    /// Take another name.
    Rename {
        /// 1 to 80 characters.
        name: String,
    },
    /// Set another password; all other sessions end.
    Password,
    /// Sessions of the account.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Personal API tokens of the account.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// The second factor of the account.
    #[command(subcommand)]
    SecondFactor(FactorCommand),
    /// Make an account whose address counts as verified, with the operator's key; asks for its password.
    Create {
        /// The e-mail address.
        email: String,
        /// The name, 1 to 80 characters.
        name: String,
    },
    /// Invite an address to make an account, with the operator's key.
    Invite {
        /// The e-mail address.
        email: String,
    },
    /// Tell what you have done.
    Audit(AuditArgs),
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List them.
    List,
    /// End one.
    End {
        /// Its id.
        session: String,
    },
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// List them.
    List,
    /// Make one. It is shown this once.
    Create {
        /// What it is for.
        name: String,
        /// What it may do, like apps.read; once for each, or separated by commas.
        #[arg(long, required = true, value_name = "PERMISSION", value_delimiter = ',')]
        scope: Vec<String>,
        /// The only team that it is for.
        #[arg(long)]
        team: Option<String>,
        /// When it ends: in how long, or a time.
        #[arg(long, value_name = "TIME", default_value = "90d")]
        expires: When,
    },
    /// Revoke one.
    Revoke {
        /// Its id.
        token: String,
    },
}

#[derive(Debug, Subcommand)]
enum FactorCommand {
    /// Begin: shows what the authenticator needs. Nothing changes until it is confirmed.
    Setup,
    /// Turn it on, by a code of the authenticator. Shows the recovery codes this once.
    Confirm,
    /// Turn it off.
    Disable,
    /// Make new recovery codes, which are shown this once; the old ones are worth nothing then.
    RecoveryCodes,
}

const ACCOUNT: &[Column] = &[
    ("id", "id"),
    ("email", "email"),
    ("name", "name"),
    ("made", "created_ms"),
    ("verified", "verified_ms"),
    ("second factor", "second_factor_ms"),
    ("recovery codes", "recovery_codes"),
];

const SESSIONS: &[Column] = &[
    ("id", "id"),
    ("this", "current"),
    ("began", "created_ms"),
    ("refreshed", "used_ms"),
    ("ends", "expires_ms"),
    ("from", "ip"),
    ("program", "user_agent"),
];

pub(super) async fn run(args: AccountArgs) -> Result<(), Error> {
    let caller = Caller::new(&args.door)?;
    match args.command {
        AccountCommand::Login { email } => login(&caller, email).await,
        AccountCommand::Logout { everywhere } => logout(&caller.with_session(), everywhere).await,
        AccountCommand::SignUp { email, name, invited } => {
            letters::sign_up(&caller, email, name, invited).await
        }
        AccountCommand::Verify => letters::verify(&caller).await,
        AccountCommand::Resend { email } => letters::resend(&caller, &email).await,
        AccountCommand::Forgot { email } => letters::forgot(&caller, &email).await,
        AccountCommand::Reset => letters::reset(&caller).await,
        AccountCommand::Email { email } => letters::change_email(&caller, &email).await,
        AccountCommand::ConfirmEmail => letters::confirm_email(&caller).await,
        AccountCommand::Delete { yes } => letters::delete(&caller.with_session(), yes).await,
        AccountCommand::Show => {
            let account = caller.send(&Call::get(&["account"])).await?;
            caller.show(&account.body, |account| fields(account, ACCOUNT))
        }
        AccountCommand::Rename { name } => {
            let call = Call::patch(&["account"], json!({ "name": name }));
            let account = caller.send(&call).await?;
            caller.show(&account.body, |account| fields(account, ACCOUNT))
        }
        AccountCommand::Password => {
            let old = prompt::secret("Password: ")?;
            let new = prompt::new_secret("New password: ")?;
            let body = json!({"old": old.expose(), "new": new.expose()});
            caller.send(&Call::post(&["account", "password"], body)).await?;
            caller.done("the password is set; all other sessions have ended")
        }
        AccountCommand::Sessions(command) => sessions(&caller, command).await,
        AccountCommand::Tokens(command) => own_tokens(&caller, command).await,
        AccountCommand::SecondFactor(command) => second_factor(&caller, command).await,
        AccountCommand::Create { email, name } => {
            let password = prompt::new_secret("Password of the account: ")?;
            let body = json!({"email": email, "name": name, "password": password.expose()});
            let account = caller.send(&Call::make(&["accounts"], body)).await?;
            caller.show(&account.body, |account| fields(account, ACCOUNT))
        }
        AccountCommand::Invite { email } => {
            let call = Call::make(&["invitations"], json!({ "email": email }));
            let invitation = caller.send(&call).await?;
            caller.show(&invitation.body, |made| {
                fields(made, &[("invitation", "invitation")])
            })
        }
        AccountCommand::Audit(args) => {
            let call = audit::parameters(Call::get(&["account", "audit"]), &args);
            audit::show(&caller, &call, &args).await
        }
    }
}

async fn login(caller: &Caller, email: Option<String>) -> Result<(), Error> {
    let email = match email {
        Some(email) => email,
        None => prompt::line("E-mail address: ")?,
    };
    let password = prompt::secret("Password: ")?;
    let call = |code: Option<&Secret>| {
        let mut body = json!({"email": email, "password": password.expose()});
        if let Some(code) = code {
            body["code"] = code.expose().into();
        }
        Call::post(&["auth", "login"], body)
    };
    let answer = match caller.client.send(&call(None), None).await {
        Err(error) if error.code() == Some("second_factor_required") => {
            let code = prompt::secret("Code of the second factor: ")?;
            caller.client.send(&call(Some(&code)), None).await?
        }
        done => done?,
    };
    let session = caller.sign_in(answer).await?;
    let told = json!({
        "account": session.account,
        "session": session.session,
        "refresh_expires_ms": session.refresh_expires_ms,
    });
    caller.show(&told, |_| format!("signed in at {}\n", caller.client.name()))
}

/// The session is forgotten when the server has none any more: after an outage it would go on unknown.
async fn logout(caller: &Caller, everywhere: bool) -> Result<(), Error> {
    let path = if everywhere { "logout-everywhere" } else { "logout" };
    match caller.send(&Call::post(&["auth", path], Value::Null)).await {
        Ok(_) => {}
        Err(Error::SessionOver(_)) if !everywhere => {}
        Err(error) if !everywhere && matches!(error.code(), Some("session_ended" | "unauthenticated")) => {}
        Err(error) => return Err(error),
    }
    caller.forget().await?;
    caller.done("signed out")
}

async fn sessions(caller: &Caller, command: SessionsCommand) -> Result<(), Error> {
    match command {
        SessionsCommand::List => {
            let sessions = caller.list(&Call::get(&["account", "sessions"])).await?;
            caller.show_list(&sessions, SESSIONS)
        }
        SessionsCommand::End { session } => {
            let call = Call::delete(&["account", "sessions", &session]);
            caller.send(&call).await?;
            caller.done("the session has ended")
        }
    }
}

async fn own_tokens(caller: &Caller, command: TokensCommand) -> Result<(), Error> {
    let path = &["account", "tokens"];
    match command {
        TokensCommand::List => {
            let tokens = caller.list(&Call::get(path)).await?;
            caller.show_list(&tokens, tokens::COLUMNS)
        }
        TokensCommand::Create {
            name,
            scope,
            team,
            expires,
        } => {
            let mut body = json!({"name": name, "scopes": scope, "expires_ms": expires.after(now_ms())});
            if let Some(team) = team {
                body["team"] = team.into();
            }
            let made = caller.send(&Call::make(path, body)).await?;
            caller.show(&made.body, tokens::made)
        }
        TokensCommand::Revoke { token } => {
            caller.send(&Call::delete(&["account", "tokens", &token])).await?;
            caller.done("the token is revoked")
        }
    }
}

async fn second_factor(caller: &Caller, command: FactorCommand) -> Result<(), Error> {
    let base = ["account", "second-factor"];
    let below = |name| [base[0], base[1], name];
    match command {
        FactorCommand::Setup => {
            let body = json!({"password": prompt::secret("Password: ")?.expose()});
            let begun = caller.send(&Call::post(&base, body)).await?;
            caller.show(&begun.body, |begun| {
                let seed = fields(begun, &[("seed", "seed"), ("url", "url")]);
                format!("{seed}turn it on: slipstream account second-factor confirm\n")
            })
        }
        FactorCommand::Confirm => {
            let body = json!({"code": prompt::secret("Code of the authenticator: ")?.expose()});
            let codes = caller.send(&Call::post(&below("confirm"), body)).await?;
            caller.show(&codes.body, recovery_codes)
        }
        FactorCommand::Disable => {
            let call = Call::post(&below("disable"), password_and_code()?);
            caller.send(&call).await?;
            caller.done("the second factor is off")
        }
        FactorCommand::RecoveryCodes => {
            let call = Call::post(&below("recovery-codes"), password_and_code()?);
            let codes = caller.send(&call).await?;
            caller.show(&codes.body, recovery_codes)
        }
    }
}

fn password_and_code() -> Result<Value, Error> {
    let password = prompt::secret("Password: ")?;
    let code = prompt::secret("Code of the second factor: ")?;
    Ok(json!({"password": password.expose(), "code": code.expose()}))
}

fn recovery_codes(codes: &Value) -> String {
    let mut out = "recovery codes, each of which counts once; they are not shown again:\n".to_owned();
    for code in codes["recovery_codes"].as_array().into_iter().flatten() {
        out.push_str(&super::table::cell("", Some(code)));
        out.push('\n');
    }
    out
}
