use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Signer,
    family::{Presented, Session, Verdict},
};
use crate::{
    config::Secret,
    control::{
        Core, Deed,
        account::Account,
        clock::ms,
        context::{Actor, Origin, Who},
        error::ControlError,
        hash::new_id,
        letter::account_key,
        records::Stored,
    },
};

/// What a client keeps of its session.
#[derive(Clone, Debug)]
pub struct SessionTokens {
    /// The account.
    pub account: String,
    /// The session.
    pub session: String,
    /// Sent with each request.
    pub access_token: Secret,
    /// When that expires, ms since 1970.
    pub access_expires_ms: i64,
    /// Replaced at each refresh.
    pub refresh_token: Secret,
    /// When that expires if it is not used, ms since 1970.
    pub refresh_expires_ms: i64,
}

/// A session as its account sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When it began, ms since 1970.
    pub created_ms: i64,
    /// When it was last refreshed, ms since 1970.
    pub used_ms: i64,
    /// When it ends if it is not used, ms since 1970.
    pub expires_ms: i64,
    /// From where it was last refreshed.
    pub ip: String,
    /// With which program.
    pub user_agent: String,
}

/// Sessions of accounts.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    signer: Signer,
    /// When sessions were last seen to be there.
    seen: Mutex<HashMap<String, i64>>,
}

impl Sessions {
    pub(in crate::control) fn new(core: Arc<Core>, signer: Signer) -> Self {
        Self(Arc::new(Inner {
            core,
            signer,
            seen: Mutex::default(),
        }))
    }

    /// Begins a session of `account`, as it was when it proved who it is. If it has more than it may, the
    /// least recently used is ended.
    pub(in crate::control) async fn begin(
        &self,
        account: &Stored<Account>,
        origin: &Origin,
    ) -> Result<SessionTokens, ControlError> {
        let Inner { core, signer, .. } = &*self.0;
        let (now, config) = (core.clock.now_ms(), &core.config);
        let mut others = core.records.list::<Session>(account_key(&account.id)).await?;
        others.sort_by_key(|session| session.value.used_ms);
        let too_many = (others.len() + 1).saturating_sub(config.max_sessions);
        for session in others.iter().take(too_many) {
            self.remove(&session.id).await?;
        }
        let id = new_id("ses");
        let (refresh_token, hash) = signer.refresh(&id, 0);
        let session = Session {
            account: account.id.clone(),
            epoch: account.value.epoch,
            generation: 0,
            current: hash,
            previous: None,
            created_ms: now,
            used_ms: now,
            idle_ms: now.saturating_add(ms(config.session_idle)),
            ends_ms: now.saturating_add(ms(config.session_lifetime)),
            ip: origin.ip_text(),
            user_agent: origin.user_agent().to_owned(),
        };
        let session = core.records.insert(id, session).await?;
        // Who ends all sessions changes the account first and then looks for them: one of both sees the other.
        let there = core.records.get::<Account>(&account.id).await?;
        if there.is_none_or(|there| there.value.epoch != account.value.epoch) {
            self.remove(&session.id).await?;
            return Err(ControlError::InvalidCredentials);
        }
        self.tokens(&session, refresh_token)
    }

    fn tokens(
        &self,
        session: &Stored<Session>,
        refresh_token: Secret,
    ) -> Result<SessionTokens, ControlError> {
        let Stored { id, value, .. } = session;
        let now = self.0.core.clock.now_ms();
        let (access_token, access_expires_ms) = self.0.signer.access(&value.account, id, now)?;
        Ok(SessionTokens {
            account: value.account.clone(),
            session: id.clone(),
            access_token,
            access_expires_ms,
            refresh_token,
            refresh_expires_ms: value.idle_ms.min(value.ends_ms),
        })
    }

    /// New tokens for a refresh token, which is worth nothing then. Who presents it again within
    /// `control.refresh_grace` is told `refresh_rotated`: another tab has the new one, so look there. After
    /// that, or with a still older one, the session ends, since two have it and one may be a thief. An
    /// answer that got lost therefore costs the session: the new token was in it.
    ///
    /// # Errors
    ///
    /// `refresh_invalid`, `refresh_rotated`, `refresh_reused`, `session_ended`, `unavailable`, `conflict`.
    pub async fn refresh(&self, actor: &Actor, token: &Secret) -> Result<SessionTokens, ControlError> {
        let Inner { core, signer, .. } = &*self.0;
        let parts = signer
            .take_apart(token.expose())
            .ok_or(ControlError::RefreshInvalid)?;
        let (idle, grace) = (ms(core.config.session_idle), ms(core.config.refresh_grace));
        for _ in 0..core.config.write_tries {
            let Some(mut session) = core.records.get::<Session>(&parts.session).await? else {
                return Err(match parts.genuine {
                    true => ControlError::SessionEnded,
                    false => ControlError::RefreshInvalid,
                });
            };
            let now = core.clock.now_ms();
            let presented = Presented {
                hash: &parts.hash,
                generation: parts.generation,
                genuine: parts.genuine,
            };
            match session.value.judge(presented, now, grace) {
                Verdict::Invalid => return Err(ControlError::RefreshInvalid),
                Verdict::Retry => return Err(ControlError::RefreshRotated),
                Verdict::Expired => return Err(ControlError::SessionEnded),
                Verdict::Reused => {
                    self.remove(&session.id).await?;
                    let deed = Deed::new("session.reuse_detected", "session", &session.id).change(
                        "account",
                        session.value.account,
                        (),
                    );
                    core.audit.write(actor, deed).await?;
                    return Err(ControlError::RefreshReused);
                }
                Verdict::Rotate => {}
            }
            if !self.belongs(&session.value).await? {
                self.remove(&session.id).await?;
                return Err(ControlError::SessionEnded);
            }
            let (refresh_token, hash) = signer.refresh(&session.id, session.value.generation + 1);
            session.value.rotate(hash, now, idle);
            session.value.ip = actor.origin.ip_text();
            session.value.user_agent = actor.origin.user_agent().to_owned();
            if core.records.replace(&session).await? {
                return self.tokens(&session, refresh_token);
            }
        }
        Err(ControlError::Conflict)
    }

    /// Whether its account is there and has not ended it.
    async fn belongs(&self, session: &Session) -> Result<bool, ControlError> {
        let account = self.0.core.records.get::<Account>(&session.account).await?;
        Ok(account.is_some_and(|account| account.value.epoch <= session.epoch))
    }

    /// Who presents an access token. A session that was ended on this node is refused at once, one that was
    /// ended on another after `control.session_check` at the latest.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `token_expired`, `session_ended`, `unavailable`.
    pub async fn authenticate(&self, token: &str, origin: Origin) -> Result<Actor, ControlError> {
        let Inner { core, signer, seen } = &*self.0;
        let now = core.clock.now_ms();
        let claims = signer.read(token, now)?;
        let check = ms(core.config.session_check);
        let known = seen.lock().get(&claims.sid).copied();
        if known.is_none_or(|at| !(at..at.saturating_add(check)).contains(&now)) {
            let session = core.records.get::<Session>(&claims.sid).await?;
            let Some(session) = session.filter(|session| session.value.account == claims.sub) else {
                seen.lock().remove(&claims.sid);
                return Err(ControlError::SessionEnded);
            };
            let value = &session.value;
            if now >= value.idle_ms.min(value.ends_ms) || !self.belongs(value).await? {
                seen.lock().remove(&claims.sid);
                return Err(ControlError::SessionEnded);
            }
            let mut seen = seen.lock();
            if seen.len() >= core.config.session_cache {
                seen.retain(|_, at| now.saturating_sub(*at) < check);
            }
            if seen.len() < core.config.session_cache {
                seen.insert(claims.sid.clone(), now);
            }
        }
        Ok(Actor {
            who: Who::Session {
                account: claims.sub,
                session: claims.sid,
            },
            origin,
        })
    }

    /// Ends the session that asks.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `session_required`, `unavailable`.
    pub async fn logout(&self, actor: &Actor) -> Result<(), ControlError> {
        let (_, session) = actor.signed_in()?;
        self.remove(session).await?;
        let deed = Deed::new("session.end", "session", session);
        self.0.core.audit.write(actor, deed).await
    }

    /// Ends all sessions of the account, the one that asks too.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `session_required`, `not_found`, `unavailable`, `conflict`.
    pub async fn logout_everywhere(&self, actor: &Actor) -> Result<(), ControlError> {
        let (account, _) = actor.signed_in()?;
        let core = &self.0.core;
        core.records
            .change::<Account, _>(account, |account| {
                account.epoch += 1;
                Ok(())
            })
            .await?;
        self.end_all(account, None).await?;
        let deed = Deed::new("session.end_all", "account", account);
        core.audit.write(actor, deed).await
    }

    /// The sessions of the account, the last used first.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `session_required`, `unavailable`.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<SessionView>, ControlError> {
        let (account, current) = actor.signed_in()?;
        let core = &self.0.core;
        let now = core.clock.now_ms();
        let sessions = core.records.list::<Session>(account_key(account)).await?;
        let views = sessions.into_iter().map(|Stored { id, value, .. }| SessionView {
            current: id == current,
            id,
            created_ms: value.created_ms,
            used_ms: value.used_ms,
            expires_ms: value.idle_ms.min(value.ends_ms),
            ip: value.ip,
            user_agent: value.user_agent,
        });
        let mut views: Vec<_> = views.filter(|view| now < view.expires_ms).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.used_ms));
        Ok(views)
    }

    /// Ends one session of the account.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `session_required`, `not_found`, `unavailable`.
    pub async fn end(&self, actor: &Actor, session: &str) -> Result<(), ControlError> {
        let (account, _) = actor.signed_in()?;
        let core = &self.0.core;
        let found = core.records.need::<Session>(session).await?;
        if found.value.account != account {
            return Err(ControlError::NotFound("session"));
        }
        self.remove(session).await?;
        let deed = Deed::new("session.end", "session", session);
        core.audit.write(actor, deed).await
    }

    /// Lets `session` outlive the change of its account to this epoch, which is about to be made.
    pub(in crate::control) async fn carry_over(&self, session: &str, epoch: u64) -> Result<(), ControlError> {
        let carried = self.0.core.records.change::<Session, _>(session, |session| {
            session.epoch = session.epoch.max(epoch);
            Ok(())
        });
        match carried.await {
            Ok(_) | Err(ControlError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes all sessions of an account but one. Its epoch has been raised before.
    pub(in crate::control) async fn end_all(
        &self,
        account: &str,
        keep: Option<&str>,
    ) -> Result<(), ControlError> {
        loop {
            let sessions = self.0.core.records.list::<Session>(account_key(account)).await?;
            let ended = sessions
                .iter()
                .filter(|session| keep != Some(session.id.as_str()));
            let mut removed = false;
            for session in ended {
                removed |= self.remove(&session.id).await?;
            }
            if !removed {
                return Ok(());
            }
        }
    }

    async fn remove(&self, session: &str) -> Result<bool, ControlError> {
        self.0.seen.lock().remove(session);
        let removed = self.0.core.records.remove_any::<Session>(session).await?;
        // A request that looked before it was removed may have noted it since.
        self.0.seen.lock().remove(session);
        Ok(removed)
    }
}
