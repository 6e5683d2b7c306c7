//! The control plane's people: accounts, their sessions and tokens, teams with roles, and the log of who did
//! what. `docs/control.md` explains it to those who use it.
//!
//! Pure decisions ([`permission`], [`totp`], the lock-out, the life of a session, a team's
//! members) take the time and know no store; services around them keep documents by compare-and-set. Every
//! method is told who asks ([`Actor`]) and answers with a [`ControlError`], which has a stable code.
//!
//! **Every method that changes something writes one entry to the audit log, after the change.** If that fails
//! the answer is `unavailable`, although the change was made. Not in the log are the refresh of a session, the
//! time a token was last used, and letters that were asked for.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    config::{ControlConfig, MailConfig, SignUp},
    limits::{Address, Keyed, Quota},
    seal::Sealing,
    store::{Collection, Store},
    task::Tasks,
    telemetry::Metrics,
};

mod account;
mod accounts;
pub mod apps;
mod audit;
mod clock;
mod context;
mod email;
mod error;
mod guard;
mod hash;
mod letter;
mod lockout;
mod mail;
mod password;
pub mod permission;
pub mod plan;
mod plans;
mod records;
mod session;
mod team_apps;
mod teams;
mod tokens;
pub mod totp;

#[cfg(test)]
mod tests;

pub use accounts::{AccountView, Accounts, Enrolment, Login, SignUpRequest, SignedIn};
pub use audit::{About, Audit, Change, Deed, Entry, HIDDEN, Page, Search};
pub use clock::Clock;
pub use context::{Actor, Origin, Who};
pub use error::{Class, ControlError};
pub use mail::{FileMailer, Letter, Mail, MailError, Mailer, SmtpError, SmtpMailer};
pub use password::{Cost, Passwords, Policy};
pub use permission::{PERMISSIONS, Permission, Role, allows};
pub use plans::{PlanDraft, PlanView, Plans};
pub use session::{SessionTokens, SessionView, Sessions};
pub use team_apps::{AppChange, AppRequest, TeamApps};
pub use teams::{Access, InvitationView, MemberView, TeamView, Teams, team_key};
pub use tokens::{ApiTokens, NewToken, TokenRequest, TokenView};

use self::{guard::Guard, mail::Letters, records::Records, session::Signer};

/// Batches of a kind that are removed at a time.
const SWEEPS: usize = 100;

/// What the operator is called in the audit log.
const OPERATOR: &str = "operator";

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key that it needs.
    #[error("{0} must be set for the control role")]
    Missing(&'static str),
    /// Passwords cannot be hashed as configured.
    #[error("passwords cannot be hashed: {0}")]
    Passwords(#[source] ControlError),
    /// Letters cannot be sent as configured.
    #[error(transparent)]
    Mail(#[from] SmtpError),
}

/// Whether a node may have the control plane.
///
/// # Errors
///
/// The first key that is missing in the configuration.
pub fn check(config: &ControlConfig) -> Result<(), StartError> {
    if config.session_secret.is_none() {
        return Err(StartError::Missing("control.session_secret"));
    }
    if config.public_url.is_empty() {
        return Err(StartError::Missing("control.public_url"));
    }
    Ok(())
}

/// What the services share.
struct Core {
    config: ControlConfig,
    clock: Clock,
    records: Records,
    audit: Audit,
    sealing: Arc<Sealing>,
    passwords: Passwords,
    guard: Guard,
    mail: Mail,
    letters: Letters,
    /// Letters that addresses cause without having signed in.
    letter_quota: Mutex<Keyed<Address>>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

/// The control plane's people side.
pub struct Control {
    /// Accounts: signing up and in, passwords, the second factor.
    pub accounts: Accounts,
    /// Sessions of accounts.
    pub sessions: Sessions,
    /// Teams, members and invitations.
    pub teams: Teams,
    /// Personal API tokens.
    pub tokens: ApiTokens,
    /// What apps may have at most.
    pub plans: Plans,
    /// Who did what.
    pub audit: Audit,
    core: Arc<Core>,
}

impl Control {
    /// Starts the services, and the tasks that send letters and remove what has expired.
    ///
    /// # Errors
    ///
    /// If something is missing in the configuration, or cannot be used.
    pub fn start(
        config: &ControlConfig,
        mail: &MailConfig,
        sealing: Arc<Sealing>,
        store: Arc<dyn Store>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StartError> {
        let mail = Mail::start(mail, metrics.clone(), tasks)?;
        Self::start_with(config, mail, sealing, store, clock, metrics, tasks)
    }

    /// The same with another way to send letters.
    ///
    /// # Errors
    ///
    /// As [`Control::start`].
    pub fn start_with(
        config: &ControlConfig,
        mail: Mail,
        sealing: Arc<Sealing>,
        store: Arc<dyn Store>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StartError> {
        check(config)?;
        let secret = config.session_secret.as_ref();
        let signer = Signer::new(
            secret.ok_or(StartError::Missing("control.session_secret"))?,
            config.access_lifetime,
        );
        let records = Records::new(store, config.write_tries);
        let audit = Audit::new(records.clone(), clock.clone(), config);
        let plans = Plans::new(records.clone(), audit.clone(), clock.clone());
        let hour = std::time::Duration::from_secs(3600);
        let letters = u64::from(config.letters_per_address);
        let core = Arc::new(Core {
            passwords: Passwords::new(config, tasks.clone()).map_err(StartError::Passwords)?,
            guard: Guard::new(config),
            letters: Letters::new(&config.public_url),
            letter_quota: Mutex::new(Keyed::new(
                Quota::within(letters, letters, hour),
                config.lockout_entries,
            )),
            config: config.clone(),
            clock,
            records,
            audit: audit.clone(),
            sealing,
            mail,
            metrics,
            tasks: tasks.clone(),
        });
        let sessions = Sessions::new(core.clone(), signer);
        let teams = Teams::new(core.clone());
        let control = Arc::new(Self {
            accounts: Accounts::new(core.clone(), sessions.clone(), teams.clone()),
            tokens: ApiTokens::new(core.clone(), teams.clone()),
            sessions,
            teams,
            plans,
            audit,
            core,
        });
        tasks.spawn(sweep(Arc::downgrade(&control)));
        Ok(control)
    }

    /// Whether everybody may make an account.
    pub fn is_open(&self) -> bool {
        self.core.config.sign_up == SignUp::Open
    }

    /// The plan of apps for which none was chosen.
    pub fn default_plan(&self) -> Option<String> {
        let plan = &self.core.config.default_plan;
        (!plan.is_empty()).then(|| plan.clone())
    }

    /// Who presents this: an access token, a personal API token, or the operator's key.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `token_expired`, `session_ended`, `unavailable`.
    pub async fn authenticate(&self, presented: &str, origin: Origin) -> Result<Actor, ControlError> {
        let operator = self.core.config.operator_key.as_ref();
        if operator.is_some_and(|key| hash::same(&hash::hash(key.expose()), &hash::hash(presented))) {
            let who = Who::System(OPERATOR);
            return Ok(Actor { who, origin });
        }
        if presented.starts_with(tokens::PREFIX) {
            self.tokens.authenticate(presented, origin).await
        } else {
            self.sessions.authenticate(presented, origin).await
        }
    }

    /// A page of a team's audit log. `search.about` must be of this team.
    ///
    /// # Errors
    ///
    /// `forbidden`, `scope_missing`, `not_found`, `unavailable`.
    pub async fn team_audit(&self, actor: &Actor, team: &str, search: &Search) -> Result<Page, ControlError> {
        self.may_read(actor, team, Permission::AuditRead, search).await?;
        self.audit.search(search).await
    }

    /// All of a team's audit log that is found, as NDJSON, page by page.
    ///
    /// # Errors
    ///
    /// As [`Control::team_audit`]; later ones end the stream.
    pub async fn export_team_audit(
        &self,
        actor: &Actor,
        team: &str,
        search: Search,
    ) -> Result<impl futures_util::Stream<Item = Result<String, ControlError>> + Send + use<>, ControlError>
    {
        self.may_read(actor, team, Permission::AuditExport, &search)
            .await?;
        Ok(self.audit.export(search))
    }

    async fn may_read(
        &self,
        actor: &Actor,
        team: &str,
        permission: Permission,
        search: &Search,
    ) -> Result<(), ControlError> {
        let of_team = match &search.about {
            About::Team(of) | About::TeamActor(of, _) | About::TeamTarget(of, _) => of == team,
            About::Actor(_) | About::Target(_) | About::All => false,
        };
        if !of_team {
            return Err(ControlError::NotFound("team"));
        }
        self.teams.authorize(actor, team, permission).await.map(|_| ())
    }

    /// A page of what the account itself has done; `search.about` is not looked at.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `session_required`, `unavailable`.
    pub async fn own_audit(&self, actor: &Actor, mut search: Search) -> Result<Page, ControlError> {
        let (account, _) = actor.signed_in()?;
        search.about = About::Actor(account.to_owned());
        self.audit.search(&search).await
    }

    /// Removes what has expired, in batches: accounts that were never verified, links, sessions, tokens,
    /// entries of the audit log. How many there were.
    ///
    /// # Errors
    ///
    /// `unavailable`.
    pub async fn sweep(&self) -> Result<usize, ControlError> {
        let mut removed = 0;
        for collection in [
            Collection::Accounts,
            Collection::Invitations,
            Collection::Sessions,
            Collection::ApiTokens,
            Collection::Audit,
            Collection::Idempotency,
        ] {
            let (store, now) = (self.core.records.store(), self.core.clock.now_ms());
            // For as long as there is more, and not for ever.
            for _ in 0..SWEEPS {
                let batch = self.core.config.sweep_batch;
                let swept = store.sweep(collection, now, batch).await?;
                removed += swept;
                if swept < batch {
                    break;
                }
            }
        }
        Ok(removed)
    }
}

/// Sweeps for as long as there is something to sweep for.
async fn sweep(control: std::sync::Weak<Control>) {
    while let Some(strong) = control.upgrade() {
        let pause = strong.core.config.sweep_interval;
        // What is wrong was logged.
        let _ = strong.sweep().await;
        drop(strong);
        tokio::time::sleep(pause).await;
    }
}
