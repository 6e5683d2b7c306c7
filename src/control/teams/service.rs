use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    team::{Team, member_key},
    team_key,
};
use crate::{
    control::{
        Core, Deed,
        account::Account,
        context::{Actor, Who},
        email,
        error::ControlError,
        hash::new_id,
        permission::{Permission, Role, allows},
        plans::operator,
        records::{Record, Stored},
    },
    store::{Collection, Query},
};

/// The longest name of a team, characters.
const MAX_NAME: usize = 80;
/// How many members' accounts are read at once.
const READ_AT_ONCE: usize = 8;

/// A team as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TeamView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
    /// How many members it has.
    pub members: usize,
    /// What who asks is in it.
    pub role: Role,
    /// How often it has been changed: another number after each change.
    pub revision: u64,
}

/// A member of a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MemberView {
    /// The account.
    pub account: String,
    /// Its name; empty if the account is gone.
    pub name: String,
    /// Its address; empty if the account is gone.
    pub email: String,
    /// Its role.
    pub role: Role,
    /// Since when, ms since 1970.
    pub since_ms: i64,
}

/// What who asks may do in a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The team.
    pub team: TeamView,
    /// The role that counts: the operator has that of an owner.
    pub role: Role,
}

/// Teams, members and invitations.
#[derive(Clone)]
pub struct Teams {
    pub(super) core: Arc<Core>,
}

impl Teams {
    pub(in crate::control) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Whether `actor` has `permission` in `team`: the one question behind everything that is done in it, apps
    /// included. A token never may what its owner may not, nor what it has no scope for.
    ///
    /// # Errors
    ///
    /// `not_found` if it is not a member (or its token is for another team), `forbidden`, `scope_missing`,
    /// `unauthenticated`, `unavailable`.
    pub async fn authorize(
        &self,
        actor: &Actor,
        team: &str,
        permission: Permission,
    ) -> Result<Access, ControlError> {
        may_ask(actor, team, permission)?;
        let found = self.core.records.need::<Team>(team).await?;
        let now = self.core.clock.now_ms();
        let role = role_for(&found.value, actor, permission, now)?;
        Ok(Access {
            team: view(&found, role),
            role,
        })
    }

    /// Makes a team, whose owner is who asks.
    ///
    /// # Errors
    ///
    /// `session_required`, `invalid_input`, `limit_reached`, `unavailable`.
    pub async fn create(&self, actor: &Actor, name: &str) -> Result<TeamView, ControlError> {
        let (account, _) = actor.signed_in()?;
        let name = email::name(name, MAX_NAME)?;
        self.room_for_one_more(account).await?;
        let now = self.core.clock.now_ms();
        let team = Team::new(name.clone(), account, now);
        let team = self.core.records.insert(new_id("team"), team).await?;
        let deed = Deed::new("team.create", "team", &team.id).in_team(&team.id);
        self.core
            .audit
            .write(actor, deed.change("name", (), name))
            .await?;
        Ok(view(&team, Role::Owner))
    }

    /// As far as can be seen: of two at the same moment both may find room.
    pub(super) async fn room_for_one_more(&self, account: &str) -> Result<(), ControlError> {
        let teams = self.core.records.list::<Team>(member_key(account)).await?;
        match teams.len() < self.core.config.max_teams {
            true => Ok(()),
            false => Err(ControlError::LimitReached("teams")),
        }
    }

    /// The teams of who asks; for a token those in which it may `team.read`.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `unavailable`.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<TeamView>, ControlError> {
        let account = actor.account().ok_or(ControlError::Unauthenticated)?;
        let now = self.core.clock.now_ms();
        let teams = self.core.records.list::<Team>(member_key(account)).await?;
        let seen = teams.iter().filter_map(|team| {
            may_ask(actor, &team.id, Permission::TeamRead).ok()?;
            let role = role_for(&team.value, actor, Permission::TeamRead, now).ok()?;
            Some(view(team, role))
        });
        let mut seen: Vec<_> = seen.collect();
        seen.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(seen)
    }

    /// All teams after the one called `after`, at most `limit`: for the operator.
    ///
    /// # Errors
    ///
    /// `operator_only`, `unauthenticated`, `unavailable`.
    pub async fn all(
        &self,
        actor: &Actor,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TeamView>, ControlError> {
        operator(actor)?;
        let query = Query {
            after: after.map(str::to_owned),
            limit: limit.clamp(1, 1_000),
            ..Query::default()
        };
        let found = self.core.records.store().list(Collection::Teams, query).await?;
        let teams = found.into_iter().map(Stored::<Team>::read);
        teams.map(|team| Ok(view(&team?, Role::Owner))).collect()
    }

    /// One team.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `team.read`.
    pub async fn get(&self, actor: &Actor, team: &str) -> Result<TeamView, ControlError> {
        let access = self.authorize(actor, team, Permission::TeamRead).await?;
        Ok(access.team)
    }

    /// Gives it another name, if it still has the revision that the caller has `seen`.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `team.write`; `invalid_input`, `stale`, `conflict`.
    pub async fn rename(
        &self,
        actor: &Actor,
        team: &str,
        name: &str,
        seen: Option<u64>,
    ) -> Result<TeamView, ControlError> {
        may_ask(actor, team, Permission::TeamWrite)?;
        let name = email::name(name, MAX_NAME)?;
        let now = self.core.clock.now_ms();
        let changed = self.core.records.change_seen::<Team, _>(team, seen, |team| {
            let role = role_for(team, actor, Permission::TeamWrite, now)?;
            team.name.clone_from(&name);
            Ok(role)
        });
        let changed = changed.await?;
        let (old, role) = (changed.before.name, changed.with);
        let deed = Deed::new("team.rename", "team", team).in_team(team);
        self.core
            .audit
            .write(actor, deed.change("name", old, name))
            .await?;
        Ok(view(&changed.now, role))
    }

    /// Changes a team, in the name of the role that `actor` has in it at the moment of the change.
    pub(super) async fn decide<R: Send>(
        &self,
        actor: &Actor,
        team: &str,
        permission: Permission,
        mut how: impl FnMut(&mut Team, Role) -> Result<R, ControlError> + Send,
    ) -> Result<(Stored<Team>, R), ControlError> {
        may_ask(actor, team, permission)?;
        let now = self.core.clock.now_ms();
        let changed = self
            .core
            .records
            .change::<Team, R>(team, |team| {
                let role = role_for(team, actor, permission, now)?;
                how(team, role)
            })
            .await?;
        Ok((changed.now, changed.with))
    }

    /// The members, in the order in which they came.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `members.read`.
    pub async fn members(&self, actor: &Actor, team: &str) -> Result<Vec<MemberView>, ControlError> {
        may_ask(actor, team, Permission::MembersRead)?;
        let found = self.core.records.need::<Team>(team).await?;
        let now = self.core.clock.now_ms();
        role_for(&found.value, actor, Permission::MembersRead, now)?;
        let records = &self.core.records;
        stream::iter(found.value.members)
            .map(|member| async move {
                let account = records.get::<Account>(&member.account).await?;
                let (name, email) = account.map_or_else(Default::default, |account| {
                    (account.value.name, account.value.email)
                });
                Ok(MemberView {
                    account: member.account,
                    name,
                    email,
                    role: member.role,
                    since_ms: member.since_ms,
                })
            })
            .buffered(READ_AT_ONCE)
            .try_collect()
            .await
    }

    /// Gives a member another role. Neither the old nor the new one may be above that of who asks.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `members.write`; `role_too_low`, `last_owner`, `not_found`, `conflict`.
    pub async fn set_role(
        &self,
        actor: &Actor,
        team: &str,
        account: &str,
        role: Role,
    ) -> Result<(), ControlError> {
        let set = |team: &mut Team, by| team.set_role(by, account, role);
        let (_, old) = self.decide(actor, team, Permission::MembersWrite, set).await?;
        let deed = Deed::new("member.role", "account", account).in_team(team);
        let deed = deed.change("role", old.as_str(), role.as_str());
        self.core.audit.write(actor, deed).await
    }

    /// Removes a member whose role is not above that of who asks.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `members.remove`; `role_too_low`, `last_owner`, `not_found`, `conflict`.
    pub async fn remove(&self, actor: &Actor, team: &str, account: &str) -> Result<(), ControlError> {
        let remove = |team: &mut Team, by| team.remove(by, account);
        let (_, old) = self
            .decide(actor, team, Permission::MembersRemove, remove)
            .await?;
        self.forget_accepted(team, account).await?;
        let deed = Deed::new("member.remove", "account", account).in_team(team);
        self.core
            .audit
            .write(actor, deed.change("role", old.as_str(), ()))
            .await
    }

    /// Leaves the team, whatever one's role.
    ///
    /// # Errors
    ///
    /// `session_required`, `last_owner`, `not_found`, `conflict`, `unavailable`.
    pub async fn leave(&self, actor: &Actor, team: &str) -> Result<(), ControlError> {
        let (account, _) = actor.signed_in()?;
        let changed = self
            .core
            .records
            .change::<Team, _>(team, |team| {
                team.role(account).ok_or(ControlError::NotFound("team"))?;
                team.remove(Role::Owner, account)
            })
            .await?;
        self.forget_accepted(team, account).await?;
        let deed = Deed::new("member.leave", "account", account).in_team(team);
        let deed = deed.change("role", changed.with.as_str(), ());
        self.core.audit.write(actor, deed).await
    }

    /// Makes another member an owner, and who asks an admin.
    ///
    /// # Errors
    ///
    /// `session_required`, as [`Teams::authorize`] for `team.transfer`; `not_found`, `conflict`.
    pub async fn transfer(&self, actor: &Actor, team: &str, to: &str) -> Result<(), ControlError> {
        let (from, _) = actor.signed_in()?;
        let transfer = |team: &mut Team, _| team.transfer(from, to);
        let (_, old) = self
            .decide(actor, team, Permission::TeamTransfer, transfer)
            .await?;
        let deed = Deed::new("team.transfer", "account", to)
            .in_team(team)
            .change(&format!("members.{to}.role"), old.as_str(), Role::Owner.as_str())
            .change(
                &format!("members.{from}.role"),
                Role::Owner.as_str(),
                Role::Admin.as_str(),
            );
        self.core.audit.write(actor, deed).await
    }

    /// Deletes the team, which must have no apps. Its invitations and tokens are worth nothing then.
    ///
    /// First it is closed (nobody may do anything in it), then it is looked for apps, then it is removed: an
    /// app that is made at the same time is seen here, or finds the team closed ([`Teams::vouch`]). A deletion
    /// that is interrupted leaves the team closed for a minute.
    ///
    /// # Errors
    ///
    /// As [`Teams::authorize`] for `team.delete`; `team_has_apps`, `conflict`.
    pub async fn delete(&self, actor: &Actor, team: &str) -> Result<(), ControlError> {
        may_ask(actor, team, Permission::TeamDelete)?;
        let now = self.core.clock.now_ms();
        let closed = self
            .core
            .records
            .change::<Team, _>(team, |team| {
                // One that is closing already may be deleted by who has come back to finish it.
                team.closing_ms = None;
                role_for(team, actor, Permission::TeamDelete, now)?;
                team.closing_ms = Some(now);
                Ok(())
            })
            .await?;
        self.finish_deletion(&closed.now).await?;
        let deed = Deed::new("team.delete", "team", team).in_team(team);
        let deed = deed.change("name", closed.now.value.name, ());
        self.core.audit.write(actor, deed).await
    }

    /// Removes a team that was closed just now, or opens it again if it has apps.
    pub(in crate::control) async fn finish_deletion(
        &self,
        closed: &Stored<Team>,
    ) -> Result<(), ControlError> {
        if self.has_apps(&closed.id).await? {
            let mut open = closed.clone();
            open.value.closing_ms = None;
            self.core.records.replace(&open).await?;
            return Err(ControlError::TeamHasApps);
        }
        let in_time = closed.value.may_be_deleted(self.core.clock.now_ms());
        match in_time && self.core.records.remove(closed).await? {
            true => Ok(()),
            false => Err(ControlError::Conflict),
        }
    }

    /// Whether an app has the key [`team_key`].
    pub(in crate::control) async fn has_apps(&self, team: &str) -> Result<bool, ControlError> {
        let query = Query {
            key: Some(team_key(team)),
            limit: 1,
            ..Query::default()
        };
        let found = self.core.records.store().list(Collection::Apps, query).await?;
        Ok(!found.is_empty())
    }

    /// Whether a team is there and not being deleted: to be asked **after** the document of a new app with the
    /// key [`team_key`] was stored, which must be removed again if not.
    ///
    /// # Errors
    ///
    /// `not_found`, `unavailable`.
    pub async fn vouch(&self, team: &str) -> Result<(), ControlError> {
        let found = self.core.records.need::<Team>(team).await?;
        match found.value.closing_ms {
            None => Ok(()),
            Some(_) if !found.value.is_closing(self.core.clock.now_ms()) => Ok(()),
            Some(_) => Err(ControlError::NotFound(Team::NAME)),
        }
    }

    /// The teams of an account, with what they are.
    pub(in crate::control) async fn of(&self, account: &str) -> Result<Vec<Stored<Team>>, ControlError> {
        self.core.records.list::<Team>(member_key(account)).await
    }

    /// Takes an account that is being deleted out of a team. If it is the last owner the team is deleted,
    /// which must have no apps then.
    pub(in crate::control) async fn take_out(&self, team: &str, account: &str) -> Result<(), ControlError> {
        let now = self.core.clock.now_ms();
        let changed =
            self.core
                .records
                .change::<Team, _>(team, |team| match team.remove(Role::Owner, account) {
                    Err(ControlError::LastOwner) => {
                        team.closing_ms = Some(now);
                        Ok(true)
                    }
                    Ok(_) | Err(ControlError::NotFound(_)) => Ok(false),
                    Err(error) => Err(error),
                });
        match changed.await {
            Ok(changed) if changed.with => self.finish_deletion(&changed.now).await,
            Ok(_) | Err(ControlError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What can be said before the team was read: whether a token is for it at all.
pub(super) fn may_ask(actor: &Actor, team: &str, permission: Permission) -> Result<(), ControlError> {
    match &actor.who {
        Who::Anybody => Err(ControlError::Unauthenticated),
        Who::Session { .. } | Who::System(_) => Ok(()),
        Who::Token { team: Some(only), .. } if only != team => Err(ControlError::NotFound(Team::NAME)),
        Who::Token { scopes, .. } if !scopes.contains(&permission) => {
            Err(ControlError::ScopeMissing(permission))
        }
        Who::Token { .. } => Ok(()),
    }
}

/// The role in whose name `actor` does what takes `permission`.
fn role_for(team: &Team, actor: &Actor, permission: Permission, now_ms: i64) -> Result<Role, ControlError> {
    if team.is_closing(now_ms) {
        return Err(ControlError::NotFound(Team::NAME));
    }
    let role = match (&actor.who, actor.account()) {
        (Who::System(_), _) => return Ok(Role::Owner),
        (_, Some(account)) => team.role(account).ok_or(ControlError::NotFound(Team::NAME))?,
        (_, None) => return Err(ControlError::Unauthenticated),
    };
    match allows(role, permission) {
        true => Ok(role),
        false => Err(ControlError::Forbidden(permission)),
    }
}

fn view(team: &Stored<Team>, role: Role) -> TeamView {
    TeamView {
        id: team.id.clone(),
        name: team.value.name.clone(),
        created_ms: team.value.created_ms,
        members: team.value.members.len(),
        role,
        revision: team.revision,
    }
}
