use super::Accounts;
use crate::{
    config::Secret,
    control::{
        Deed,
        account::{Account, Totp},
        context::Actor,
        error::ControlError,
        mail::Purpose,
        records::Stored,
        totp::{self, Refused},
    },
    seal::SealError,
};

/// What an authenticator shows beside the account.
const ISSUER: &str = "Slipstream";

/// A second factor that is being set up.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// The seed in base32, to be typed.
    pub seed: Secret,
    /// The same as an `otpauth:` URL, for a QR code.
    pub url: Secret,
}

/// What a seed is sealed for.
fn purpose(account: &str) -> [&str; 2] {
    ["totp seed", account]
}

fn seal_error(error: SealError) -> ControlError {
    match error {
        SealError::NoKey | SealError::UnknownKey => ControlError::NotConfigured("tenants.sealing_keys"),
        SealError::Forged => {
            tracing::error!(%error, "the seed of a second factor cannot be used");
            ControlError::Internal
        }
    }
}

impl Accounts {
    /// Begins to set up a second factor: nothing changes until [`Accounts::confirm_second_factor`].
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_credentials`, `too_many_attempts`, `second_factor_state` if there is one,
    /// `not_configured` without `tenants.sealing_keys`, `busy`, `conflict`, `unavailable`.
    pub async fn begin_second_factor(
        &self,
        actor: &Actor,
        password: &Secret,
    ) -> Result<Enrolment, ControlError> {
        let account = self.prove(actor, password).await?;
        let seed = totp::seed().ok_or(ControlError::Internal)?;
        let sealed = self.core.sealing.seal(&purpose(&account.id), &seed);
        let sealed = sealed.map_err(seal_error)?;
        self.core
            .records
            .change::<Account, _>(&account.id, |account| {
                if account.totp.is_some() {
                    return Err(ControlError::SecondFactorState("is turned on already"));
                }
                account.enrolling = Some(sealed.clone());
                Ok(())
            })
            .await?;
        Ok(Enrolment {
            seed: Secret::new(totp::base32(&seed)),
            url: totp::otpauth_url(ISSUER, &account.value.email, &seed),
        })
    }

    /// Turns the second factor on, with a code that proves that it works. The recovery codes are shown this
    /// once.
    ///
    /// # Errors
    ///
    /// `session_required`, `second_factor_state` if none is being set up, `second_factor_invalid`,
    /// `too_many_attempts`, `conflict`, `unavailable`.
    pub async fn confirm_second_factor(
        &self,
        actor: &Actor,
        code: &Secret,
    ) -> Result<Vec<Secret>, ControlError> {
        let (account, _) = actor.signed_in()?;
        let (codes, hashes) = totp::recovery_codes().ok_or(ControlError::Internal)?;
        let now = self.core.clock.now_ms();
        let sealing = &self.core.sealing;
        let email = self.core.records.need::<Account>(account).await?.value.email;
        let attempt = self.core.guard.begin(&email, &actor.origin, now)?;
        let changed = self.core.records.change::<Account, _>(account, |value| {
            let sealed = match (&value.totp, &value.enrolling) {
                (None, Some(sealed)) => sealed.clone(),
                (None, None) => return Err(ControlError::SecondFactorState("is not being set up")),
                (Some(_), _) => return Err(ControlError::SecondFactorState("is turned on already")),
            };
            let seed = sealing.open(&purpose(account), &sealed).map_err(seal_error)?;
            let last = totp::accept(&seed, code.expose(), now, None)
                .map_err(|_| ControlError::SecondFactorInvalid)?;
            value.totp = Some(Totp {
                seed: sealed,
                last,
                since_ms: now,
                recovery: hashes.clone(),
            });
            value.enrolling = None;
            Ok(())
        });
        match changed.await {
            Ok(_) => attempt.take_back(),
            Err(ControlError::SecondFactorInvalid) => return Err(ControlError::SecondFactorInvalid),
            Err(error) => {
                attempt.take_back();
                return Err(error);
            }
        }
        self.tell(&email, true);
        let deed =
            Deed::new("account.second_factor", "account", account).change("second_factor", false, true);
        self.core.audit.write(actor, deed).await?;
        Ok(codes)
    }

    /// Turns it off, with the password and a code.
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_credentials`, `second_factor_required`, `second_factor_invalid`,
    /// `second_factor_state` if there is none, `too_many_attempts`, `busy`, `conflict`, `unavailable`.
    pub async fn disable_second_factor(
        &self,
        actor: &Actor,
        password: &Secret,
        code: &Secret,
    ) -> Result<(), ControlError> {
        let account = self.prove_both(actor, password, code).await?;
        self.core
            .records
            .change::<Account, _>(&account.id, |account| {
                account.totp = None;
                account.enrolling = None;
                Ok(())
            })
            .await?;
        self.tell(&account.value.email, false);
        let deed = Deed::new("account.second_factor", "account", &account.id);
        let deed = deed.change("second_factor", true, false);
        self.core.audit.write(actor, deed).await
    }

    /// New recovery codes in the place of the old ones, shown this once.
    ///
    /// # Errors
    ///
    /// As [`Accounts::disable_second_factor`].
    pub async fn renew_recovery_codes(
        &self,
        actor: &Actor,
        password: &Secret,
        code: &Secret,
    ) -> Result<Vec<Secret>, ControlError> {
        let account = self.prove_both(actor, password, code).await?;
        let (codes, hashes) = totp::recovery_codes().ok_or(ControlError::Internal)?;
        self.core
            .records
            .change::<Account, _>(&account.id, |account| match &mut account.totp {
                Some(totp) => {
                    totp.recovery.clone_from(&hashes);
                    Ok(())
                }
                None => Err(ControlError::SecondFactorState("is turned off")),
            })
            .await?;
        let mut deed = Deed::new("account.recovery_codes", "account", &account.id);
        deed.changes
            .push(crate::control::Change::hidden("recovery_codes"));
        self.core.audit.write(actor, deed).await?;
        Ok(codes)
    }

    /// The account of who asks, once password and code have been proven. It counts as a try to sign in.
    async fn prove_both(
        &self,
        actor: &Actor,
        password: &Secret,
        code: &Secret,
    ) -> Result<Stored<Account>, ControlError> {
        let account = self.prove(actor, password).await?;
        if account.value.totp.is_none() {
            return Err(ControlError::SecondFactorState("is turned off"));
        }
        let now = self.core.clock.now_ms();
        let attempt = self.core.guard.begin(&account.value.email, &actor.origin, now)?;
        match self.second_factor(&account, Some(code)).await {
            Ok(()) => attempt.take_back(),
            Err(ControlError::SecondFactorInvalid) => return Err(ControlError::SecondFactorInvalid),
            Err(error) => {
                attempt.take_back();
                return Err(error);
            }
        }
        Ok(account)
    }

    /// Uses a code up, if the account has a second factor: of two at once with the same code one succeeds.
    pub(super) async fn second_factor(
        &self,
        account: &Stored<Account>,
        code: Option<&Secret>,
    ) -> Result<(), ControlError> {
        if account.value.totp.is_none() {
            return Ok(());
        }
        let code = code.ok_or(ControlError::SecondFactorRequired)?;
        let (id, epoch) = (&account.id, account.value.epoch);
        let (now, sealing) = (self.core.clock.now_ms(), &self.core.sealing);
        let used = self.core.records.change::<Account, _>(id, |account| {
            // What was proven before is proven no more.
            if account.epoch != epoch {
                return Err(ControlError::InvalidCredentials);
            }
            let Some(totp) = &mut account.totp else {
                return Ok(());
            };
            let seed = sealing.open(&purpose(id), &totp.seed).map_err(seal_error)?;
            match totp::accept(&seed, code.expose(), now, Some(totp.last)) {
                Ok(step) => totp.last = step,
                Err(Refused::Wrong) if totp::spend(&mut totp.recovery, code.expose()) => {}
                Err(_) => return Err(ControlError::SecondFactorInvalid),
            }
            if sealing.is_outdated(&totp.seed) {
                totp.seed = sealing.seal(&purpose(id), &seed).map_err(seal_error)?;
            }
            Ok(())
        });
        used.await.map(|_| ())
    }

    fn tell(&self, email: &str, on: bool) {
        if let Ok(place) = self.core.mail.place() {
            place.send(self.core.letters.write(email, &Purpose::SecondFactor { on }));
        }
    }
}
