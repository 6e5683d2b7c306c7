use super::{
    Accounts,
    service::{MAX_NAME, as_account, gone_is_invalid, view},
};
use crate::{
    config::{Secret, SignUp},
    control::{
        AccountView, Deed,
        account::Account,
        clock::ms,
        context::{Actor, Who},
        email,
        error::ControlError,
        hash::new_id,
        letter::What,
        mail::{Place, Purpose},
        permission::Permission,
        records::Stored,
    },
};

/// How long beyond its link an account that was not verified is kept, ms.
const UNVERIFIED_MS: i64 = 86_400_000;

/// Somebody who wants an account.
#[derive(Clone, Debug)]
pub struct SignUpRequest {
    /// The address.
    pub email: String,
    /// The name.
    pub name: String,
    /// The password.
    pub password: Secret,
    /// The secret of an invitation's link, if there is one.
    pub invitation: Option<Secret>,
}

impl Accounts {
    /// Makes an account.
    ///
    /// Without an invitation (`control.sign_up` is "open") the answer is the same whether the address has an
    /// account or not, `None`; a letter tells. An account whose address was never verified is taken over, since
    /// nobody has proven that it is his.
    ///
    /// With an invitation, for its address alone, the address is verified by it, and the account is a member of
    /// the invitation's team. If it has an account already the answer is `email_taken`: sign in and accept.
    ///
    /// # Errors
    ///
    /// `sign_up_closed`, `invalid_input`, `weak_password`, `too_many_attempts`, `busy`, `not_configured`,
    /// `link_invalid`, `invitation_*`, `email_taken`, `unavailable`.
    pub async fn sign_up(
        &self,
        actor: &Actor,
        request: SignUpRequest,
    ) -> Result<Option<AccountView>, ControlError> {
        let email = email::normalise(&request.email)?;
        let name = email::name(&request.name, MAX_NAME)?;
        if let Some(secret) = &request.invitation {
            return self
                .sign_up_invited(actor, email, name, &request.password, secret)
                .await
                .map(Some);
        }
        if self.core.config.sign_up == SignUp::Invitation {
            return Err(ControlError::SignUpClosed);
        }
        let place = self.place_for_anybody(actor)?;
        let password = self.hash(&request.password, &email).await?;
        let known = self.core.records.find::<Account>(&email).await?;
        let account = match known {
            Some(known) if known.value.verified_ms.is_some() => {
                place.send(self.core.letters.write(&email, &Purpose::HasAccount));
                return Ok(None);
            }
            Some(known) => self.take_over(&known.id, name, password).await?,
            None => {
                let inserted = self.insert(email, name, password, None).await;
                match inserted {
                    // Another came first, who is sent a letter.
                    Err(ControlError::EmailTaken) => return Ok(None),
                    inserted => inserted?,
                }
            }
        };
        self.send_verification(&account, place).await?;
        let deed = Deed::new("account.create", "account", &account.id);
        let deed = deed.change("email", (), account.value.email);
        self.core
            .audit
            .write(&as_account(actor, &account.id), deed)
            .await?;
        Ok(None)
    }

    async fn insert(
        &self,
        email: String,
        name: String,
        password: String,
        verified_ms: Option<i64>,
    ) -> Result<Stored<Account>, ControlError> {
        let now = self.core.clock.now_ms();
        let account = Account {
            email,
            name,
            password,
            created_ms: now,
            verified_ms,
            epoch: 0,
            totp: None,
            enrolling: None,
            expires_ms: verified_ms.is_none().then(|| self.unverified_until(now)),
        };
        self.core.records.insert(new_id("acc"), account).await
    }

    fn unverified_until(&self, now_ms: i64) -> i64 {
        let lifetime = ms(self.core.config.verification_lifetime);
        now_ms.saturating_add(lifetime).saturating_add(UNVERIFIED_MS)
    }

    /// Its older links are worth nothing then, so that none of them verifies the new password.
    async fn take_over(
        &self,
        id: &str,
        name: String,
        password: String,
    ) -> Result<Stored<Account>, ControlError> {
        let until = self.unverified_until(self.core.clock.now_ms());
        let changed = self
            .core
            .records
            .change::<Account, _>(id, |account| {
                if account.verified_ms.is_none() {
                    account.name.clone_from(&name);
                    account.password.clone_from(&password);
                    account.epoch += 1;
                    account.expires_ms = Some(until);
                }
                Ok(())
            })
            .await?;
        Ok(changed.now)
    }

    async fn send_verification(&self, account: &Stored<Account>, place: Place) -> Result<(), ControlError> {
        if account.value.verified_ms.is_some() {
            return Ok(());
        }
        let what = What::Verify {
            account: account.id.clone(),
            epoch: account.value.epoch,
        };
        let lifetime = ms(self.core.config.verification_lifetime);
        if let Some(secret) = self.link(&account.id, what, lifetime).await? {
            let purpose = Purpose::Verify {
                secret: secret.expose(),
            };
            place.send(self.core.letters.write(&account.value.email, &purpose));
        }
        Ok(())
    }

    async fn sign_up_invited(
        &self,
        actor: &Actor,
        email: String,
        name: String,
        password: &Secret,
        secret: &Secret,
    ) -> Result<AccountView, ControlError> {
        let (link, invitation) = self.teams.invitation(secret).await?;
        if invitation.email != email {
            return Err(ControlError::InvitationNotYours);
        }
        let password = self.hash(password, &email).await?;
        let now = self.core.clock.now_ms();
        let known = self.core.records.find::<Account>(&email).await?;
        let (account, before) = match known {
            // In one step, so that nobody else's password can be verified by it.
            Some(known) => {
                let taken = self.core.records.change::<Account, _>(&known.id, |account| {
                    if account.verified_ms.is_some() {
                        return Err(ControlError::EmailTaken);
                    }
                    account.name.clone_from(&name);
                    account.password.clone_from(&password);
                    account.epoch += 1;
                    account.verified_ms = Some(now);
                    account.expires_ms = None;
                    Ok(())
                });
                let taken = taken.await?;
                (taken.now, Some(taken.before))
            }
            None => {
                if invitation.used_by.is_some() {
                    return Err(ControlError::InvitationUsed);
                }
                (self.insert(email, name, password, Some(now)).await?, None)
            }
        };
        let mut deed = Deed::new("account.create", "account", &account.id);
        deed = deed.change("email", (), account.value.email.as_str());
        let joined = match &invitation.team {
            Some(team) => {
                let joined = self.teams.join(&link.id, &account.id).await;
                if let Ok(role) = joined {
                    deed =
                        deed.in_team(team)
                            .change(&format!("members.{}.role", account.id), (), role.as_str());
                }
                joined.map(|_| ())
            }
            None => self.teams.claim_alone(&link.id, &account.id).await,
        };
        if !matches!(joined, Ok(()) | Err(ControlError::Unavailable)) {
            // Nobody has an account by an invitation that did not hold. If nobody knows whether it did, who
            // has the account can accept it again.
            self.undo(&account, before).await?;
        }
        joined?;
        self.core
            .audit
            .write(&as_account(actor, &account.id), deed)
            .await?;
        Ok(view(&account))
    }

    /// An account that was made, or verified, just now is as it was before; unless it was changed since.
    async fn undo(&self, account: &Stored<Account>, before: Option<Account>) -> Result<(), ControlError> {
        let records = &self.core.records;
        match before {
            None => records.remove(account).await?,
            Some(before) => {
                let value = Account {
                    // Links of before stay void.
                    epoch: account.value.epoch,
                    ..before
                };
                let account = Stored {
                    value,
                    ..account.clone()
                };
                records.replace(&account).await?
            }
        };
        Ok(())
    }

    /// Makes an account without a letter, in the name of the operator: the first one of a deployment.
    ///
    /// # Errors
    ///
    /// `forbidden` unless it is the operator; `invalid_input`, `weak_password`, `email_taken`, `unavailable`.
    pub async fn create(
        &self,
        actor: &Actor,
        email: &str,
        name: &str,
        password: &Secret,
    ) -> Result<AccountView, ControlError> {
        if !matches!(actor.who, Who::System(_)) {
            return Err(ControlError::Forbidden(Permission::InvitationsCreate));
        }
        let email = email::normalise(email)?;
        let name = email::name(name, MAX_NAME)?;
        let password = self.hash(password, &email).await?;
        let now = self.core.clock.now_ms();
        let account = self.insert(email, name, password, Some(now)).await?;
        let deed = Deed::new("account.create", "account", &account.id);
        let deed = deed.change("email", (), account.value.email.as_str());
        self.core.audit.write(actor, deed).await?;
        Ok(view(&account))
    }

    /// Sends the letter that verifies an address again, if it is of an account that needs it. The answer does
    /// not tell.
    ///
    /// # Errors
    ///
    /// `invalid_input`, `too_many_attempts`, `busy`, `not_configured`, `unavailable`.
    pub async fn resend_verification(&self, actor: &Actor, email: &str) -> Result<(), ControlError> {
        let email = email::normalise(email)?;
        let place = self.place_for_anybody(actor)?;
        let accounts = self.clone();
        // The answer does not wait for it: its time would tell. The place bounds how many there are.
        self.core.tasks.spawn(async move {
            let sent = match accounts.core.records.find::<Account>(&email).await {
                Ok(Some(account)) => accounts.send_verification(&account, place).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::warn!(%error, "a letter that verifies an address was not sent");
            }
        });
        Ok(())
    }

    /// Verifies the address that the link was sent to, for who knows the account's password too: whoever reads
    /// the letters need not be who signed up, and opens an account to nobody else.
    ///
    /// # Errors
    ///
    /// `link_invalid`, `invalid_credentials` (the link is still valid then), `too_many_attempts`, `busy`,
    /// `conflict`, `unavailable`.
    pub async fn verify_email(
        &self,
        actor: &Actor,
        secret: &Secret,
        password: &Secret,
    ) -> Result<(), ControlError> {
        let link = self.open_link(secret).await?;
        let What::Verify { account: id, epoch } = link.value.what.clone() else {
            return Err(ControlError::LinkInvalid);
        };
        let account = self.core.records.get::<Account>(&id).await?;
        let account = account.filter(|account| account.value.epoch == epoch);
        let account = account.ok_or(ControlError::LinkInvalid)?;
        self.try_password(actor, &account, password).await?;
        self.spend(&link).await?;
        let now = self.core.clock.now_ms();
        let verified = self.core.records.change::<Account, _>(&id, |account| {
            // Another password since: not the one that was checked.
            if account.epoch != epoch {
                return Err(ControlError::LinkInvalid);
            }
            account.verified_ms.get_or_insert(now);
            account.expires_ms = None;
            Ok(())
        });
        verified.await.map_err(gone_is_invalid)?;
        let deed = Deed::new("account.verify", "account", &id).change("verified", false, true);
        self.core.audit.write(&as_account(actor, &id), deed).await
    }
}
