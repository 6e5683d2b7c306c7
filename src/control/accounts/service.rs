use std::{sync::Arc, time::Instant};

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    config::Secret,
    control::{
        ApiTokens, Core, Deed, Sessions, Teams,
        account::Account,
        clock::ms,
        context::{Actor, Who},
        email,
        error::ControlError,
        hash::{hash, new_id, secret},
        letter::{Link, What, account_key},
        mail::{Place, Purpose},
        permission::Role,
        records::Stored,
    },
    limits::Address,
};

/// The longest name of a person, characters.
pub(super) const MAX_NAME: usize = 80;

/// An account as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccountView {
    /// Its id.
    pub id: String,
    /// Its address.
    pub email: String,
    /// Its name.
    pub name: String,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
    /// When its address was verified, ms since 1970.
    pub verified_ms: Option<i64>,
    /// Since when it has a second factor, ms since 1970.
    pub second_factor_ms: Option<i64>,
    /// How many recovery codes are left.
    pub recovery_codes: usize,
    /// How often it has been changed: another number after each change.
    pub revision: u64,
}

/// Accounts: signing up and in, passwords, addresses, the second factor.
#[derive(Clone)]
pub struct Accounts {
    pub(super) core: Arc<Core>,
    pub(super) sessions: Sessions,
    pub(super) teams: Teams,
}

impl Accounts {
    pub(in crate::control) fn new(core: Arc<Core>, sessions: Sessions, teams: Teams) -> Self {
        Self {
            core,
            sessions,
            teams,
        }
    }

    /// The account of who asks; a token may ask too.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `not_found`, `unavailable`.
    pub async fn get(&self, actor: &Actor) -> Result<AccountView, ControlError> {
        let account = actor.account().ok_or(ControlError::Unauthenticated)?;
        Ok(view(&self.core.records.need::<Account>(account).await?))
    }

    /// Gives it another name, if it still has the revision that the caller has `seen`.
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_input`, `stale`, `conflict`, `unavailable`.
    pub async fn rename(
        &self,
        actor: &Actor,
        name: &str,
        seen: Option<u64>,
    ) -> Result<AccountView, ControlError> {
        let (account, _) = actor.signed_in()?;
        let name = email::name(name, MAX_NAME)?;
        let changed = self
            .core
            .records
            .change_seen::<Account, _>(account, seen, |account| {
                account.name.clone_from(&name);
                Ok(())
            })
            .await?;
        let deed = Deed::new("account.rename", "account", account);
        let deed = deed.change("name", changed.before.name, name);
        self.core.audit.write(actor, deed).await?;
        Ok(view(&changed.now))
    }

    /// Sends a link to a new address, which becomes the account's when it is opened
    /// ([`Accounts::confirm_email`]). Whether another account has the address is not told here.
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_input`, `invalid_credentials`, `too_many_attempts`, `busy`,
    /// `not_configured`, `limit_reached`, `unavailable`.
    pub async fn change_email(
        &self,
        actor: &Actor,
        password: &Secret,
        new: &str,
    ) -> Result<(), ControlError> {
        let email = email::normalise(new)?;
        let place = self.core.mail.place()?;
        let account = self.prove(actor, password).await?;
        let what = What::NewEmail {
            account: account.id.clone(),
            epoch: account.value.epoch,
            email: email.clone(),
        };
        let lifetime = ms(self.core.config.verification_lifetime);
        let secret = self
            .link(&account.id, what, lifetime)
            .await?
            .ok_or(ControlError::LimitReached("letters"))?;
        let purpose = Purpose::NewEmail {
            secret: secret.expose(),
        };
        place.send(self.core.letters.write(&email, &purpose));
        Ok(())
    }

    /// Makes the address that the link was sent to the account's, and tells the old one.
    ///
    /// # Errors
    ///
    /// `link_invalid`, `email_taken`, `conflict`, `unavailable`.
    pub async fn confirm_email(&self, actor: &Actor, secret: &Secret) -> Result<(), ControlError> {
        let link = self.open_link(secret).await?;
        let What::NewEmail {
            account,
            epoch,
            email,
        } = link.value.what.clone()
        else {
            return Err(ControlError::LinkInvalid);
        };
        self.spend(&link).await?;
        let now = self.core.clock.now_ms();
        let changed = self.core.records.change::<Account, _>(&account, |account| {
            if account.epoch != epoch {
                return Err(ControlError::LinkInvalid);
            }
            account.email.clone_from(&email);
            account.verified_ms = Some(now);
            account.expires_ms = None;
            Ok(())
        });
        let changed = changed.await.map_err(gone_is_invalid)?;
        if let Ok(place) = self.core.mail.place() {
            let purpose = Purpose::EmailChanged { new: &email };
            place.send(self.core.letters.write(&changed.before.email, &purpose));
        }
        let deed = Deed::new("account.email", "account", &account);
        let deed = deed.change("email", changed.before.email, email);
        self.core.audit.write(&as_account(actor, &account), deed).await
    }

    /// Deletes the account, with its sessions and tokens. It leaves its teams; those whose last owner it is
    /// are deleted, which none of may have apps.
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_credentials`, `second_factor_required`, `second_factor_invalid`,
    /// `too_many_attempts`, `owns_apps`, `conflict`, `unavailable`: it can be repeated.
    pub async fn delete(
        &self,
        actor: &Actor,
        password: &Secret,
        code: Option<&Secret>,
    ) -> Result<(), ControlError> {
        let account = self.prove(actor, password).await?;
        self.second_factor(&account, code).await?;
        let teams = self.teams.of(&account.id).await?;
        let mut kept = Vec::new();
        for team in &teams {
            let last = team.value.role(&account.id) == Some(Role::Owner) && team.value.owners() == 1;
            if last && self.teams.has_apps(&team.id).await? {
                kept.push(team.id.clone());
            }
        }
        if !kept.is_empty() {
            return Err(ControlError::OwnsApps(kept));
        }
        for team in &teams {
            let taken = self.teams.take_out(&team.id, &account.id).await;
            taken.map_err(|error| match error {
                // One was made since.
                ControlError::TeamHasApps => ControlError::OwnsApps(vec![team.id.clone()]),
                error => error,
            })?;
        }
        self.core.records.remove_any::<Account>(&account.id).await?;
        self.sessions.end_all(&account.id, None).await?;
        ApiTokens::remove_all(&self.core, &account.id).await?;
        let mut deed = Deed::new("account.delete", "account", &account.id);
        deed.also_in = teams.into_iter().map(|team| team.id).collect();
        self.core.audit.write(actor, deed).await
    }

    /// The account of who asks, once the password has been proven. It counts as a try to sign in.
    pub(super) async fn prove(
        &self,
        actor: &Actor,
        password: &Secret,
    ) -> Result<Stored<Account>, ControlError> {
        let (account, _) = actor.signed_in()?;
        let account = self.core.records.need::<Account>(account).await?;
        self.try_password(actor, &account, password).await?;
        Ok(account)
    }

    /// Whether it is the account's password. It counts as a try to sign in.
    pub(super) async fn try_password(
        &self,
        actor: &Actor,
        account: &Stored<Account>,
        password: &Secret,
    ) -> Result<(), ControlError> {
        let now = self.core.clock.now_ms();
        let attempt = self.core.guard.begin(&account.value.email, &actor.origin, now)?;
        match self.check(password, Some(&account.value.password)).await {
            Ok(true) => {
                attempt.take_back();
                Ok(())
            }
            Ok(false) => Err(ControlError::InvalidCredentials),
            Err(error) => {
                attempt.take_back();
                Err(error)
            }
        }
    }

    pub(super) async fn check(&self, password: &Secret, phc: Option<&str>) -> Result<bool, ControlError> {
        let checked = self.core.passwords.verify(password, phc).await;
        self.count_busy(checked)
    }

    pub(super) async fn hash(&self, password: &Secret, email: &str) -> Result<String, ControlError> {
        let hashed = self.core.passwords.hash(password, email).await;
        self.count_busy(hashed)
    }

    fn count_busy<T>(&self, result: Result<T, ControlError>) -> Result<T, ControlError> {
        if matches!(result, Err(ControlError::Busy)) {
            self.core.metrics.passwords_refused.inc();
        }
        result
    }

    /// A new link for an account. `None` if it has as many as it may have.
    pub(super) async fn link(
        &self,
        account: &str,
        what: What,
        lifetime_ms: i64,
    ) -> Result<Option<Secret>, ControlError> {
        let now = self.core.clock.now_ms();
        let others = self.core.records.list::<Link>(account_key(account)).await?;
        let valid = others
            .iter()
            .filter(|link| now < link.value.expires_ms && !matches!(link.value.what, What::Invitation(_)));
        if valid.count() >= self.core.config.max_letters {
            return Ok(None);
        }
        let secret = secret();
        let link = Link {
            hash: hash(&secret),
            created_ms: now,
            expires_ms: now.saturating_add(lifetime_ms),
            what,
        };
        self.core.records.insert(new_id("lnk"), link).await?;
        Ok(Some(Secret::new(secret)))
    }

    /// The link with this secret, if it is still valid.
    pub(super) async fn open_link(&self, secret: &Secret) -> Result<Stored<Link>, ControlError> {
        let found = self.core.records.find::<Link>(&hash(secret.expose())).await?;
        let valid = found.filter(|link| self.core.clock.now_ms() < link.value.expires_ms);
        valid.ok_or(ControlError::LinkInvalid)
    }

    /// Uses a link up: of two at once one succeeds.
    pub(super) async fn spend(&self, link: &Stored<Link>) -> Result<(), ControlError> {
        match self.core.records.remove(link).await? {
            true => Ok(()),
            false => Err(ControlError::LinkInvalid),
        }
    }

    /// A place in the queue of letters for somebody who is not signed in, which is counted for its address.
    pub(super) fn place_for_anybody(&self, actor: &Actor) -> Result<Place, ControlError> {
        if let Some(ip) = actor.origin.ip {
            let mut quota = self.core.letter_quota.lock();
            quota
                .check(&Address::from(ip), Instant::now(), 1)
                .map_err(ControlError::TooMany)?;
        }
        self.core.mail.place()
    }
}

/// In the audit log what was done with the link of an account was done by the account.
pub(super) fn as_account(actor: &Actor, account: &str) -> Actor {
    Actor {
        who: match &actor.who {
            Who::Anybody => Who::Session {
                account: account.to_owned(),
                session: String::new(),
            },
            who => who.clone(),
        },
        origin: actor.origin.clone(),
    }
}

/// The link of an account that is gone is worth nothing.
pub(super) fn gone_is_invalid(error: ControlError) -> ControlError {
    match error {
        ControlError::NotFound(_) => ControlError::LinkInvalid,
        error => error,
    }
}

pub(super) fn view(account: &Stored<Account>) -> AccountView {
    let Stored { id, value, revision } = account;
    AccountView {
        id: id.clone(),
        email: value.email.clone(),
        name: value.name.clone(),
        created_ms: value.created_ms,
        verified_ms: value.verified_ms,
        second_factor_ms: value.totp.as_ref().map(|totp| totp.since_ms),
        recovery_codes: value.totp.as_ref().map_or(0, |totp| totp.recovery.len()),
        revision: *revision,
    }
}
