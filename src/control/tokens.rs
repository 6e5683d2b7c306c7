//! Personal API tokens: for programs that act in the name of an account.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Core, Deed, Teams,
    account::Account,
    clock::ms,
    context::{Actor, Origin, Who},
    email,
    error::ControlError,
    hash::{hash, new_id, secret},
    letter::account_key,
    permission::{Permission, Role},
    records::{Record, Stored},
    team_key,
    teams::Team,
};
use crate::{config::Secret, store::Collection};

/// What tokens begin with, so that scanners of sources find them.
pub(super) const PREFIX: &str = "slp_";
/// Characters of the check at the end.
const CHECK: usize = 6;
/// Characters between the two.
const BODY: usize = 43;
/// The longest name, characters.
const MAX_NAME: usize = 80;
/// How often at most it is written down that a token is used, ms.
const USED_EVERY: i64 = 60_000;

/// A token as it is stored. No `Debug`: it holds a hash.
#[derive(Clone, Serialize, Deserialize)]
struct Token {
    account: String,
    name: String,
    hash: String,
    scopes: Vec<Permission>,
    team: Option<String>,
    created_ms: i64,
    expires_ms: i64,
    used_ms: Option<i64>,
}

impl Record for Token {
    const COLLECTION: Collection = Collection::ApiTokens;
    const NAME: &'static str = "token";
    fn unique(&self) -> Option<String> {
        Some(self.hash.clone())
    }
    fn keys(&self) -> Vec<String> {
        let mut keys = vec![account_key(&self.account)];
        keys.extend(self.team.as_deref().map(team_key));
        keys
    }
    fn expires_ms(&self) -> Option<i64> {
        Some(self.expires_ms)
    }
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// What it is for, 1 to 80 characters.
    pub name: String,
    /// What it may do; at least one.
    pub scopes: Vec<Permission>,
    /// The only team that it is for; `None` = all of the account's.
    pub team: Option<String>,
    /// When it expires, ms since 1970; at most `control.token_lifetime` from now.
    pub expires_ms: i64,
}

/// A token as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Permission>,
    /// The only team that it is for.
    pub team: Option<String>,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
    /// When it expires, ms since 1970.
    pub expires_ms: i64,
    /// When it was last used, to the minute, ms since 1970.
    pub used_ms: Option<i64>,
}

/// A token that was made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// How it is listed.
    pub view: TokenView,
    /// The token itself: shown this once.
    pub token: Secret,
}

/// Personal API tokens.
#[derive(Clone)]
pub struct ApiTokens {
    core: Arc<Core>,
    teams: Teams,
}

impl ApiTokens {
    pub(super) fn new(core: Arc<Core>, teams: Teams) -> Self {
        Self { core, teams }
    }

    /// Makes a token of who asks.
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_input`, `limit_reached`, `not_found` if the team is none of its own,
    /// `unavailable`.
    pub async fn create(&self, actor: &Actor, request: TokenRequest) -> Result<NewToken, ControlError> {
        let (account, _) = actor.signed_in()?;
        let name = email::name(&request.name, MAX_NAME)?;
        let mut scopes = request.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(ControlError::Invalid {
                field: "scopes",
                why: "must not be empty",
            });
        }
        let now = self.core.clock.now_ms();
        let latest = now.saturating_add(ms(self.core.config.token_lifetime));
        if !(now + 1..=latest).contains(&request.expires_ms) {
            return Err(ControlError::Invalid {
                field: "expires_ms",
                why: "must be in the future, and not too far",
            });
        }
        if let Some(team) = &request.team {
            self.teams
                .authorize(actor, team, Permission::TokensCreate)
                .await?;
        }
        let others = self.core.records.list::<Token>(account_key(account)).await?;
        if others.len() >= self.core.config.max_tokens {
            return Err(ControlError::LimitReached("tokens"));
        }
        let text = new_token();
        let token = Token {
            account: account.to_owned(),
            name,
            hash: hash(&text),
            scopes,
            team: request.team,
            created_ms: now,
            expires_ms: request.expires_ms,
            used_ms: None,
        };
        let stored = self.core.records.insert(new_id("tok"), token).await?;
        let names: Vec<_> = stored.value.scopes.iter().map(|scope| scope.as_str()).collect();
        let mut deed = Deed::new("token.create", "token", &stored.id)
            .change("name", (), stored.value.name.as_str())
            .change("scopes", (), names.join(" "))
            .change("expires_ms", (), stored.value.expires_ms);
        deed.team = stored.value.team.clone();
        self.core.audit.write(actor, deed).await?;
        Ok(NewToken {
            view: view(stored),
            token: Secret::new(text),
        })
    }

    /// The tokens of who asks, the latest first.
    ///
    /// # Errors
    ///
    /// `session_required`, `unavailable`.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<TokenView>, ControlError> {
        let (account, _) = actor.signed_in()?;
        self.listed(account_key(account)).await
    }

    /// All members' tokens that are for this team only, the latest first.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `tokens.read`.
    pub async fn of_team(&self, actor: &Actor, team: &str) -> Result<Vec<TokenView>, ControlError> {
        self.teams.authorize(actor, team, Permission::TokensRead).await?;
        self.listed(team_key(team)).await
    }

    async fn listed(&self, key: String) -> Result<Vec<TokenView>, ControlError> {
        let tokens = self.core.records.list::<Token>(key).await?;
        let mut views: Vec<_> = tokens.into_iter().map(view).collect();
        views.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
        Ok(views)
    }

    /// Revokes a token of who asks.
    ///
    /// # Errors
    ///
    /// `session_required`, `not_found`, `unavailable`.
    pub async fn revoke(&self, actor: &Actor, token: &str) -> Result<(), ControlError> {
        let (account, _) = actor.signed_in()?;
        let found = self.core.records.need::<Token>(token).await?;
        if found.value.account != account {
            return Err(ControlError::NotFound(Token::NAME));
        }
        self.revoked(actor, &found).await
    }

    /// Revokes a member's token that is for this team only. The member's role must not be above that of who
    /// asks.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `tokens.revoke`; `role_too_low`, `not_found`.
    pub async fn revoke_of_team(&self, actor: &Actor, team: &str, token: &str) -> Result<(), ControlError> {
        let access = self
            .teams
            .authorize(actor, team, Permission::TokensRevoke)
            .await?;
        let found = self.core.records.need::<Token>(token).await?;
        if found.value.team.as_deref() != Some(team) {
            return Err(ControlError::NotFound(Token::NAME));
        }
        let members = self.core.records.need::<Team>(team).await?.value;
        let role = members.role(&found.value.account).unwrap_or(Role::Viewer);
        if role > access.role {
            return Err(ControlError::RoleTooLow);
        }
        self.revoked(actor, &found).await
    }

    async fn revoked(&self, actor: &Actor, token: &Stored<Token>) -> Result<(), ControlError> {
        self.core.records.remove_any::<Token>(&token.id).await?;
        let mut deed = Deed::new("token.revoke", "token", &token.id)
            .change("name", token.value.name.as_str(), ())
            .change("account", token.value.account.as_str(), ());
        deed.team = token.value.team.clone();
        self.core.audit.write(actor, deed).await
    }

    /// Who presents a token. That it is used is written down at most once a minute, and nothing depends on it.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `token_expired`, `unavailable`.
    pub async fn authenticate(&self, presented: &str, origin: Origin) -> Result<Actor, ControlError> {
        // A typing mistake, or no token at all, costs no look into the database.
        if !is_whole(presented) {
            return Err(ControlError::Unauthenticated);
        }
        let found = self.core.records.find::<Token>(&hash(presented)).await?;
        let mut stored = found.ok_or(ControlError::Unauthenticated)?;
        let now = self.core.clock.now_ms();
        if now >= stored.value.expires_ms {
            return Err(ControlError::TokenExpired);
        }
        let account = self.core.records.get::<Account>(&stored.value.account).await?;
        if account.is_none() {
            return Err(ControlError::Unauthenticated);
        }
        let due = |used: i64| now.saturating_sub(used) >= USED_EVERY;
        if stored.value.used_ms.is_none_or(due) {
            stored.value.used_ms = Some(now);
            if let Err(error) = self.core.records.replace(&stored).await {
                tracing::warn!(%error, "cannot note that a token is used");
            }
        }
        Ok(Actor {
            who: Who::Token {
                account: stored.value.account,
                token: stored.id,
                scopes: stored.value.scopes,
                team: stored.value.team,
            },
            origin,
        })
    }

    /// Removes the tokens of an account that is gone.
    pub(super) async fn remove_all(core: &Core, account: &str) -> Result<(), ControlError> {
        for token in core.records.list::<Token>(account_key(account)).await? {
            core.records.remove_any::<Token>(&token.id).await?;
        }
        Ok(())
    }
}

fn view(stored: Stored<Token>) -> TokenView {
    let Stored { id, value, .. } = stored;
    TokenView {
        id,
        account: value.account,
        name: value.name,
        scopes: value.scopes,
        team: value.team,
        created_ms: value.created_ms,
        expires_ms: value.expires_ms,
        used_ms: value.used_ms,
    }
}

fn new_token() -> String {
    let body = secret();
    let check = check(&body);
    format!("{PREFIX}{body}{check}")
}

/// What follows from the body, so that a typing mistake shows.
fn check(body: &str) -> String {
    hash(body).chars().take(CHECK).collect()
}

fn is_whole(token: &str) -> bool {
    let Some(rest) = token.strip_prefix(PREFIX) else {
        return false;
    };
    rest.len() == BODY + CHECK && rest.is_ascii() && check(&rest[..BODY]) == rest[BODY..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_shows_what_it_is_and_typing_mistakes() {
        let token = new_token();
        assert!(is_whole(&token) && token.starts_with("slp_"));
        assert_eq!(token.len(), 53);
        assert!(!is_whole(&token[..52]) && !is_whole(&format!("{token}0")));
        for at in 4..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            assert!(!is_whole(std::str::from_utf8(&other).unwrap()), "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_no_token(text in ".{0,80}") {
            prop_assert!(!is_whole(&text));
            let framed = format!("slp_{text}");
            prop_assert!(!is_whole(&framed));
        }
    }
}
