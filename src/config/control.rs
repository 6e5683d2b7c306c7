//! What people have: accounts, teams, sessions, and the letters that they are sent.

use std::{path::PathBuf, time::Duration};

use super::Secret;

/// Who may make an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignUp {
    /// Everybody.
    Open,
    /// Who holds an invitation.
    Invitation,
}

/// `[control]`
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Who may make an account.
    pub sign_up: SignUp,
    /// Where people reach the dashboard, without a slash at its end: links in letters begin with it.
    pub public_url: String,
    /// What access tokens are signed with; the control role does not start without it.
    pub session_secret: Option<Secret>,
    /// What the operator shows to make plans and first accounts; without it nobody can.
    pub operator_key: Option<Secret>,
    /// The plan of apps for which none was chosen; empty = none, which has no limits.
    pub default_plan: String,
    /// How long an access token is valid.
    pub access_lifetime: Duration,
    /// How long a session may go unused.
    pub session_idle: Duration,
    /// How long a session may last however it is used.
    pub session_lifetime: Duration,
    /// How long the refresh token before the present one is told to try again instead of ending the session.
    pub refresh_grace: Duration,
    /// How long this node believes that a session is still there.
    pub session_check: Duration,
    /// Sessions that this node knows to be there.
    pub session_cache: usize,
    /// The shortest password, characters.
    pub password_min: usize,
    /// The longest password, bytes.
    pub password_max: usize,
    /// Memory of one argon2id, bytes.
    pub password_memory: u64,
    /// Its passes.
    pub password_passes: u32,
    /// Its lanes.
    pub password_lanes: u32,
    /// Passwords hashed at once.
    pub password_threads: usize,
    /// Passwords that may wait for that.
    pub password_waiting: usize,
    /// Failed logins of an account before the first wait.
    pub lockout_account: u32,
    /// Failed logins of an address before the first wait.
    pub lockout_address: u32,
    /// The first wait; it doubles with each further failure.
    pub lockout_first: Duration,
    /// The longest wait.
    pub lockout_max: Duration,
    /// How long after the last one failures are forgotten.
    pub lockout_forget: Duration,
    /// Accounts, and addresses, whose failures are known at once.
    pub lockout_entries: usize,
    /// How long the link that verifies an address is valid.
    pub verification_lifetime: Duration,
    /// How long the link that sets a new password is valid.
    pub reset_lifetime: Duration,
    /// How long an invitation is valid.
    pub invitation_lifetime: Duration,
    /// Links of an account that are valid at once.
    pub max_letters: usize,
    /// Letters an hour that one address may have sent to people who are not signed in.
    pub letters_per_address: u32,
    /// The longest that a personal API token may be valid.
    pub token_lifetime: Duration,
    /// Sessions of an account.
    pub max_sessions: usize,
    /// Personal API tokens of an account.
    pub max_tokens: usize,
    /// Teams that an account is a member of.
    pub max_teams: usize,
    /// Members of a team.
    pub max_members: usize,
    /// Open invitations of a team.
    pub max_invitations: usize,
    /// How long the audit log is kept; zero = for good.
    pub audit_retention: Duration,
    /// How often a change is tried again that another one came before.
    pub write_tries: u32,
    /// Requests a second of one account.
    pub account_rate: u32,
    /// Requests a second from one address.
    pub address_rate: u32,
    /// How long the answer to a request with an `Idempotency-Key` is kept.
    pub idempotency_lifetime: Duration,
    /// Requests with an `Idempotency-Key` an hour of one account.
    pub idempotency_rate: u32,
    /// The largest answer that is kept so, bytes.
    pub idempotency_max_bytes: usize,
    /// How often it is looked for apps that nodes were not told of.
    pub reconcile_interval: Duration,
    /// How often a store that cannot be reached at the start is tried again.
    pub store_retry: Duration,
    /// How often expired documents are removed.
    pub sweep_interval: Duration,
    /// How many of a kind are removed at once.
    pub sweep_batch: usize,
}

/// How letters leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTransport {
    /// Not at all.
    None,
    /// Into files of a folder.
    File,
    /// To a mail server.
    Smtp,
}

/// How the connection to the mail server is kept secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailEncryption {
    /// TLS from the first byte.
    Tls,
    /// TLS after STARTTLS, which the server must offer.
    StartTls,
    /// It is not.
    None,
}

/// `[mail]`
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// How letters leave.
    pub transport: MailTransport,
    /// The folder of `file`.
    pub folder: Option<PathBuf>,
    /// The mail server.
    pub host: String,
    /// Its port; 0 = the usual one for `encryption`.
    pub port: u16,
    /// How the connection is kept secret.
    pub encryption: MailEncryption,
    /// User name, if the server wants one.
    pub user: Option<String>,
    /// Password for `user`.
    pub password: Option<Secret>,
    /// A CA file to trust instead of the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// Whom letters are from.
    pub from: String,
    /// How long the server may take over one command.
    pub timeout: Duration,
    /// Letters that wait.
    pub queue: usize,
    /// How often a letter is tried.
    pub tries: u32,
    /// The first pause between two tries; it doubles.
    pub retry_first: Duration,
    /// The longest pause.
    pub retry_max: Duration,
}
