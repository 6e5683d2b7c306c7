use super::{
    Accounts,
    service::{as_account, gone_is_invalid},
};
use crate::{
    config::Secret,
    control::{
        Change, Deed,
        account::Account,
        clock::ms,
        context::Actor,
        email,
        error::ControlError,
        letter::What,
        mail::{Place, Purpose},
    },
};

impl Accounts {
    /// Sets a new password, and ends all other sessions. Personal API tokens stay.
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_credentials` (the old one is wrong), `weak_password`, `too_many_attempts`,
    /// `busy`, `conflict`, `unavailable`.
    pub async fn change_password(
        &self,
        actor: &Actor,
        old: &Secret,
        new: &Secret,
    ) -> Result<(), ControlError> {
        let (_, session) = actor.signed_in()?;
        let account = self.prove(actor, old).await?;
        let phc = self.hash(new, &account.value.email).await?;
        // Before the account: or else the session that asks would be over for a moment.
        self.sessions.carry_over(session, account.value.epoch + 1).await?;
        let proven = account.value.epoch;
        self.core
            .records
            .change::<Account, _>(&account.id, |account| {
                // Another has set one since this one was proven.
                if account.epoch != proven {
                    return Err(ControlError::Conflict);
                }
                account.password.clone_from(&phc);
                account.epoch += 1;
                Ok(())
            })
            .await?;
        self.sessions.end_all(&account.id, Some(session)).await?;
        if let Ok(place) = self.core.mail.place() {
            let letter = self
                .core
                .letters
                .write(&account.value.email, &Purpose::PasswordChanged);
            place.send(letter);
        }
        let mut deed = Deed::new("account.password", "account", &account.id);
        deed.changes.push(Change::hidden("password"));
        self.core.audit.write(actor, deed).await
    }

    /// Sends a link to set a new password, if the address has an account. The answer does not tell.
    ///
    /// # Errors
    ///
    /// `invalid_input`, `too_many_attempts`, `busy`, `not_configured`, `unavailable`.
    pub async fn request_reset(&self, actor: &Actor, email: &str) -> Result<(), ControlError> {
        let email = email::normalise(email)?;
        let place = self.place_for_anybody(actor)?;
        let accounts = self.clone();
        // The answer does not wait for it: its time would tell. The place bounds how many there are.
        self.core.tasks.spawn(async move {
            if let Err(error) = accounts.send_reset(&email, place).await {
                tracing::warn!(%error, "a letter that sets a new password was not sent");
            }
        });
        Ok(())
    }

    async fn send_reset(&self, email: &str, place: Place) -> Result<(), ControlError> {
        let Some(account) = self.core.records.find::<Account>(email).await? else {
            return Ok(());
        };
        let what = What::Reset {
            account: account.id.clone(),
            epoch: account.value.epoch,
            email: account.value.email.clone(),
        };
        let lifetime = ms(self.core.config.reset_lifetime);
        if let Some(secret) = self.link(&account.id, what, lifetime).await? {
            let purpose = Purpose::Reset {
                secret: secret.expose(),
            };
            place.send(self.core.letters.write(email, &purpose));
        }
        Ok(())
    }

    /// Sets a new password by a link, which proves the address too. All sessions end, and all other links of
    /// the account; the second factor stays, and so do personal API tokens.
    ///
    /// # Errors
    ///
    /// `link_invalid`, `weak_password` (the link is still valid then), `busy`, `conflict`, `unavailable`.
    pub async fn reset_password(
        &self,
        actor: &Actor,
        secret: &Secret,
        new: &Secret,
    ) -> Result<(), ControlError> {
        let link = self.open_link(secret).await?;
        let What::Reset {
            account: id,
            epoch,
            email,
        } = link.value.what.clone()
        else {
            return Err(ControlError::LinkInvalid);
        };
        let account = self.core.records.get::<Account>(&id).await?;
        let account = account.ok_or(ControlError::LinkInvalid)?;
        let phc = self.hash(new, &account.value.email).await?;
        self.spend(&link).await?;
        let now = self.core.clock.now_ms();
        let changed = self.core.records.change::<Account, _>(&id, |account| {
            // Who reads the letters to an address that was the account's has no say any more.
            if account.epoch != epoch || account.email != email {
                return Err(ControlError::LinkInvalid);
            }
            account.password.clone_from(&phc);
            account.epoch += 1;
            account.verified_ms.get_or_insert(now);
            account.expires_ms = None;
            Ok(())
        });
        let changed = changed.await.map_err(gone_is_invalid)?;
        self.sessions.end_all(&id, None).await?;
        self.core.guard.forgive(&changed.now.value.email);
        if let Ok(place) = self.core.mail.place() {
            let email = &changed.now.value.email;
            place.send(self.core.letters.write(email, &Purpose::PasswordChanged));
        }
        let mut deed = Deed::new("account.password_reset", "account", &id);
        deed.changes.push(Change::hidden("password"));
        self.core.audit.write(&as_account(actor, &id), deed).await
    }
}
