use super::{AccountView, Accounts, service::view};
use crate::{
    config::Secret,
    control::{
        Deed, SessionTokens,
        account::Account,
        context::{Actor, Who},
        email,
        error::ControlError,
        hash::hash,
        records::Stored,
    },
    telemetry::LoginOutcome,
};

/// Somebody who wants to sign in.
#[derive(Clone, Debug)]
pub struct Login {
    /// The address.
    pub email: String,
    /// The password.
    pub password: Secret,
    /// A code of the second factor, or a recovery code.
    pub code: Option<Secret>,
}

/// Who has signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The account.
    pub account: AccountView,
    /// Its new session.
    pub tokens: SessionTokens,
}

impl Accounts {
    /// Signs in. Whether an address has an account is told neither by the answer nor by the time it takes.
    /// What is missing (`second_factor_required`, `email_not_verified`) is told only after the right password.
    ///
    /// # Errors
    ///
    /// `invalid_credentials`, `second_factor_required`, `second_factor_invalid`, `email_not_verified`,
    /// `too_many_attempts`, `busy`, `unavailable`.
    pub async fn login(&self, actor: &Actor, login: &Login) -> Result<SignedIn, ControlError> {
        let result = self.try_login(actor, login).await;
        let outcome = match &result {
            Ok(_) => LoginOutcome::Done,
            Err(ControlError::InvalidCredentials | ControlError::SecondFactorInvalid) => {
                LoginOutcome::Refused
            }
            Err(ControlError::SecondFactorRequired | ControlError::NotVerified) => LoginOutcome::Incomplete,
            Err(ControlError::TooMany(_)) => LoginOutcome::Locked,
            Err(_) => LoginOutcome::Failed,
        };
        self.core.metrics.logins.of(outcome).inc();
        result
    }

    async fn try_login(&self, actor: &Actor, login: &Login) -> Result<SignedIn, ControlError> {
        // What cannot be an address has no account, and is guessed for like any other.
        let email = email::normalise(&login.email).unwrap_or_else(|_| hash(&login.email));
        let now = self.core.clock.now_ms();
        let attempt = self.core.guard.begin(&email, &actor.origin, now)?;
        let found = self.core.records.find::<Account>(&email).await;
        let checked = match &found {
            Ok(account) => {
                let phc = account.as_ref().map(|account| account.value.password.as_str());
                self.check(&login.password, phc).await
            }
            Err(error) => Err(error.clone()),
        };
        let account = match (checked, found) {
            (Ok(true), Ok(Some(account))) => account,
            (Err(error), _) | (_, Err(error)) => {
                attempt.take_back();
                return Err(error);
            }
            _ => return Err(ControlError::InvalidCredentials),
        };
        if account.value.verified_ms.is_none() {
            attempt.take_back();
            return Err(ControlError::NotVerified);
        }
        match self.second_factor(&account, login.code.as_ref()).await {
            Ok(()) => attempt.succeeded(),
            // A wrong code is a failure.
            Err(ControlError::SecondFactorInvalid) => return Err(ControlError::SecondFactorInvalid),
            Err(error) => {
                attempt.take_back();
                return Err(error);
            }
        }
        self.hash_anew(&account, &login.password).await;
        let tokens = self.sessions.begin(&account, &actor.origin).await?;
        let signed_in = Actor {
            who: Who::Session {
                account: account.id.clone(),
                session: tokens.session.clone(),
            },
            origin: actor.origin.clone(),
        };
        let deed = Deed::new("session.begin", "session", &tokens.session);
        self.core.audit.write(&signed_in, deed).await?;
        Ok(SignedIn {
            account: view(&account),
            tokens,
        })
    }

    /// Hashes the password at the present cost, if that has grown. Nothing depends on it.
    async fn hash_anew(&self, account: &Stored<Account>, password: &Secret) {
        let old = &account.value.password;
        if !self.core.passwords.is_outdated(old) {
            return;
        }
        let Ok(phc) = self.hash(password, "").await else {
            return;
        };
        let changed = self.core.records.change::<Account, _>(&account.id, |account| {
            if account.password == *old {
                account.password.clone_from(&phc);
            }
            Ok(())
        });
        if let Err(error) = changed.await {
            tracing::warn!(%error, "cannot store a password's new hash");
        }
    }
}
