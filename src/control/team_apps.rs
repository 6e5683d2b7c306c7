//! Apps as the members of their team, and the operator, see and change them: who may do what ([`Permission`]),
//! then [`Apps`], then the audit log.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Control, Deed, Permission,
    apps::{AppDocument, Apps, AppsError, Created, Edit, NewApp, Settled, Version, diff, registered},
    context::{Actor, Who},
    error::ControlError,
    plan::Quotas,
    plans::{PlanDraft, PlanView},
};
use crate::{
    model::{AppId, SchemaVersion},
    random,
    task::Tasks,
};

/// What is to be changed of an app; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppChange {
    /// Another name.
    pub name: Option<String>,
    /// Another region.
    pub region: Option<String>,
    /// Other settings instead of all that it has.
    pub settings: Option<Value>,
    /// Other features.
    pub flags: Option<Vec<String>>,
    /// Another plan, or none.
    pub plan: Option<Option<String>>,
}

/// An app that is to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppRequest {
    /// Its id, for good: it is part of the subjects of what is stored. `None`: one is made up.
    pub id: Option<AppId>,
    /// What people call it.
    pub name: String,
    /// Where it is meant to run.
    pub region: String,
    /// Its plan. `None`: `control.default_plan`.
    pub plan: Option<String>,
    /// Its features.
    pub flags: Vec<String>,
    /// As in `[[apps]]`; `None`: the defaults.
    pub settings: Option<Value>,
}

/// The apps of all teams, for whoever may.
pub struct TeamApps {
    apps: Arc<Apps>,
    control: Arc<Control>,
    tasks: Tasks,
}

impl TeamApps {
    /// Puts who may do what in front of `apps`.
    pub fn new(apps: Arc<Apps>, control: Arc<Control>, tasks: Tasks) -> Self {
        Self { apps, control, tasks }
    }

    /// Makes an app of a team.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn create(
        &self,
        actor: &Actor,
        team: &str,
        request: AppRequest,
    ) -> Result<(AppId, Settled), AppsError> {
        self.authorize(actor, team, Permission::AppsWrite).await?;
        let settings = request.settings.unwrap_or_else(|| Value::Object(Map::new()));
        for permission in settings_permissions(&Value::Object(Map::new()), &settings) {
            self.authorize(actor, team, permission).await?;
        }
        if let Some(plan) = &request.plan {
            self.may_choose(actor, team, Some(plan)).await?;
        }
        let id = match request.id {
            Some(id) => id,
            None => AppId::new(&format!("{:016x}", random::number())).map_err(|_| AppsError::Internal)?,
        };
        let new = NewApp {
            team: team.to_owned(),
            name: request.name,
            region: request.region,
            plan: request.plan.or_else(|| self.control.default_plan()),
            flags: request.flags,
            settings,
        };
        let settled = self.apps.create(&id, new, author(actor)).await?;
        if let Err(error) = self.control.teams.vouch(team).await {
            // The team is being deleted. If this fails too the app is left without anybody who can reach it,
            // but the operator.
            self.apps.edit(&id, Edit::Delete, None, author(actor)).await?;
            return Err(error.into());
        }
        let mut deed = Deed::new("app.create", "app", id.as_str()).in_team(team);
        deed.changes = diff(&Value::Null, &settled.app.shown());
        self.control.audit.write(actor, deed).await?;
        Ok((id, settled))
    }

    /// The apps of a team after the one called `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn list(
        &self,
        actor: &Actor,
        team: &str,
        after: Option<&AppId>,
        limit: usize,
    ) -> Result<Vec<(AppId, AppDocument)>, AppsError> {
        self.authorize(actor, team, Permission::AppsRead).await?;
        self.apps.list(team, after, limit).await
    }

    /// An app, for who has this permission in its team.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn get(
        &self,
        actor: &Actor,
        id: &AppId,
        permission: Permission,
    ) -> Result<AppDocument, AppsError> {
        if actor.who == Who::Anybody {
            return Err(ControlError::Unauthenticated.into());
        }
        let app = self.apps.get(id).await?;
        let allowed = self.control.teams.authorize(actor, &app.team, permission).await;
        match allowed {
            Ok(_) => Ok(app),
            // Who is no member learns nothing of its apps.
            Err(ControlError::NotFound(_)) => Err(AppsError::NotFound("app")),
            Err(error) => Err(error.into()),
        }
    }

    /// What the plan of an app allows.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn quotas(&self, actor: &Actor, id: &AppId) -> Result<(Option<String>, Quotas), AppsError> {
        let app = self.get(actor, id, Permission::PlanRead).await?;
        let (quotas, _) = self.apps.quotas(app.plan.as_deref()).await?;
        Ok((app.plan, quotas))
    }

    /// Changes an app, as one version. `seen` is the version that the caller knows: another is not changed.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn change(
        &self,
        actor: &Actor,
        id: &AppId,
        change: AppChange,
        seen: Option<u64>,
    ) -> Result<Settled, AppsError> {
        let before = self.get(actor, id, Permission::AppsRead).await?;
        is_seen(&before, seen)?;
        let mut edits = Vec::new();
        let mut needed = Vec::new();
        if change.name.is_some() || change.region.is_some() {
            needed.push(Permission::AppsWrite);
            edits.push(Edit::Details {
                name: change.name,
                region: change.region,
            });
        }
        if let Some(settings) = change.settings {
            needed.push(Permission::AppsRead);
            needed.extend(settings_permissions(&before.settings, &settings));
            edits.push(Edit::Settings(settings));
        }
        if let Some(flags) = change.flags {
            needed.push(Permission::AppsWrite);
            edits.push(Edit::Flags(flags));
        }
        if let Some(plan) = change.plan.filter(|plan| *plan != before.plan) {
            self.may_choose(actor, &before.team, plan.as_deref()).await?;
            edits.push(Edit::Plan(plan));
        }
        for permission in needed {
            self.authorize(actor, &before.team, permission).await?;
        }
        if edits.is_empty() {
            let published = true;
            return Ok(Settled {
                app: before,
                published,
            });
        }
        // What was looked at is what is changed: the permissions that it takes depend on it.
        let seen = Some(before.version);
        let edit = Edit::Several(edits);
        self.edit(actor, "app.change", id, edit, seen, &before).await
    }

    /// Deletes an app: its connections are closed. Its id is never given again.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn delete(&self, actor: &Actor, id: &AppId, seen: Option<u64>) -> Result<(), AppsError> {
        let before = self.get(actor, id, Permission::AppsDelete).await?;
        let deleted = self.edit(actor, "app.delete", id, Edit::Delete, seen, &before);
        is_told(&deleted.await?)
    }

    /// Goes back to the settings and features of an earlier version, as a new one.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn roll_back(
        &self,
        actor: &Actor,
        id: &AppId,
        version: u64,
        seen: Option<u64>,
    ) -> Result<Settled, AppsError> {
        let before = self.get(actor, id, Permission::AppsWrite).await?;
        is_seen(&before, seen)?;
        let version = self.apps.version(id, version).await?;
        for permission in settings_permissions(&before.settings, &version.settings) {
            self.authorize(actor, &before.team, permission).await?;
        }
        let seen = Some(before.version);
        let edit = Edit::RollBack(version);
        self.edit(actor, "app.roll_back", id, edit, seen, &before).await
    }

    /// Makes a key. With `signs` tokens can be signed with it too.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn create_key(
        &self,
        actor: &Actor,
        id: &AppId,
        name: &str,
        signs: bool,
    ) -> Result<Created, AppsError> {
        let before = self.get(actor, id, Permission::KeysCreate).await?;
        let created = self.apps.create_key(id, name, signs, author(actor)).await?;
        self.note(actor, "key.create", id, &before, &created.settled)
            .await?;
        Ok(created)
    }

    /// Makes a key in the place of another, which is good for `overlap_s` seconds more.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn rotate_key(
        &self,
        actor: &Actor,
        id: &AppId,
        key: &str,
        overlap_s: u32,
    ) -> Result<Created, AppsError> {
        let before = self.get(actor, id, Permission::KeysCreate).await?;
        self.authorize(actor, &before.team, Permission::KeysRevoke)
            .await?;
        let created = self.apps.rotate_key(id, key, overlap_s, author(actor)).await?;
        self.note(actor, "key.rotate", id, &before, &created.settled)
            .await?;
        if overlap_s == 0 {
            is_told(&created.settled)?;
        }
        Ok(created)
    }

    /// Has a key end: at once, with what was signed with it, or at a time (seconds since 1970).
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn end_key(
        &self,
        actor: &Actor,
        id: &AppId,
        key: &str,
        until: Option<i64>,
    ) -> Result<Settled, AppsError> {
        let before = self.get(actor, id, Permission::KeysRevoke).await?;
        let key = key.to_owned();
        let (action, edit) = match until {
            None => ("key.revoke", Edit::RevokeKey(key)),
            Some(until) => ("key.end", Edit::EndKey { id: key, until }),
        };
        let settled = self.edit(actor, action, id, edit, None, &before).await?;
        is_told(&settled)?;
        Ok(settled)
    }

    /// The versions of an app before `before`, the newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn versions(
        &self,
        actor: &Actor,
        id: &AppId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Version>, AppsError> {
        self.get(actor, id, Permission::AppsRead).await?;
        self.apps.versions(id, before, limit).await
    }

    /// One version of an app.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn version(&self, actor: &Actor, id: &AppId, version: u64) -> Result<Version, AppsError> {
        self.get(actor, id, Permission::AppsRead).await?;
        self.apps.version(id, version).await
    }

    /// The versions of the schemas of an app, by namespace, of those that have any.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn schemas(
        &self,
        actor: &Actor,
        id: &AppId,
    ) -> Result<Vec<(String, Vec<SchemaVersion>)>, AppsError> {
        let app = self.get(actor, id, Permission::SchemasRead).await?;
        let mut schemas = registered(&app.settings);
        schemas.retain(|_, versions| !versions.is_empty());
        Ok(schemas.into_iter().collect())
    }

    /// Makes or changes a plan; whether it is new. The apps that are on it feel it soon, by and by.
    ///
    /// # Errors
    ///
    /// As [`super::Plans::put`].
    pub async fn put_plan(
        &self,
        actor: &Actor,
        name: &str,
        draft: PlanDraft,
        seen: Option<u64>,
    ) -> Result<(PlanView, bool), AppsError> {
        let put = self.control.plans.put(actor, name, draft, seen).await?;
        let (apps, name) = (self.apps.clone(), name.to_owned());
        self.tasks.spawn(async move {
            if let Err(error) = apps.renew_plan(&name).await {
                tracing::warn!(plan = name, %error, "not all apps have felt a changed plan; they will");
            }
        });
        Ok(put)
    }

    /// Removes a plan that no app is on.
    ///
    /// # Errors
    ///
    /// `plan_in_use`, and as [`super::Plans::put`].
    pub async fn remove_plan(&self, actor: &Actor, name: &str, seen: Option<u64>) -> Result<(), AppsError> {
        super::plans::operator(actor)?;
        let is_default = self.control.default_plan().as_deref() == Some(name);
        if is_default || self.apps.has_plan(name).await? {
            return Err(AppsError::PlanInUse);
        }
        let removed = self.control.plans.remove(actor, name, seen).await?;
        // An app that was checked before and stored since has a plan that is there.
        if self.apps.has_plan(name).await? {
            self.control.plans.put(actor, name, removed, None).await?;
            return Err(AppsError::PlanInUse);
        }
        Ok(())
    }

    async fn authorize(&self, actor: &Actor, team: &str, permission: Permission) -> Result<(), AppsError> {
        self.control.teams.authorize(actor, team, permission).await?;
        Ok(())
    }

    /// Whether a plan may be chosen for an app of the team. Where the operator has named a plan for everybody,
    /// "none" is his choice alone.
    async fn may_choose(&self, actor: &Actor, team: &str, plan: Option<&str>) -> Result<(), AppsError> {
        self.authorize(actor, team, Permission::PlanWrite).await?;
        if matches!(actor.who, Who::System(_)) {
            return Ok(());
        }
        let default = self.control.default_plan();
        let fine = match plan {
            None => default.is_none(),
            Some(plan) if default.as_deref() == Some(plan) => true,
            Some(plan) => self.control.plans.is_selectable(plan).await?,
        };
        match fine {
            true => Ok(()),
            false => Err(AppsError::NotFound("plan")),
        }
    }

    async fn edit(
        &self,
        actor: &Actor,
        action: &'static str,
        id: &AppId,
        edit: Edit,
        seen: Option<u64>,
        before: &AppDocument,
    ) -> Result<Settled, AppsError> {
        let settled = self.apps.edit(id, edit, seen, author(actor)).await?;
        self.note(actor, action, id, before, &settled).await?;
        Ok(settled)
    }

    /// Writes a change into the audit log, if it was one.
    async fn note(
        &self,
        actor: &Actor,
        action: &'static str,
        id: &AppId,
        before: &AppDocument,
        settled: &Settled,
    ) -> Result<(), AppsError> {
        if settled.app.version == before.version {
            return Ok(());
        }
        let mut deed = Deed::new(action, "app", id.as_str()).in_team(&before.team);
        deed.changes.clone_from(&settled.app.changes);
        Ok(self.control.audit.write(actor, deed).await?)
    }
}

/// Whether the caller knows the app as it is.
fn is_seen(app: &AppDocument, seen: Option<u64>) -> Result<(), AppsError> {
    match seen {
        Some(seen) if seen != app.version => Err(AppsError::Stale(app.version)),
        _ => Ok(()),
    }
}

/// What takes something away is done when the nodes know of it.
fn is_told(settled: &Settled) -> Result<(), AppsError> {
    match settled.published {
        true => Ok(()),
        false => Err(AppsError::NotTold),
    }
}

/// What a change of settings takes: limits and schemas have permissions of their own.
fn settings_permissions(old: &Value, new: &Value) -> Vec<Permission> {
    let (mut old, mut new) = (old.clone(), new.clone());
    let (schemas_before, schemas) = (take_schemas(&mut old), take_schemas(&mut new));
    let take_limits = |settings: &mut Value| settings.as_object_mut().and_then(|all| all.remove("limits"));
    let (limits_before, limits) = (take_limits(&mut old), take_limits(&mut new));
    let changes = [
        (schemas_before != schemas, Permission::SchemasWrite),
        (limits_before != limits, Permission::LimitsWrite),
        (old != new, Permission::AppsWrite),
    ];
    let needed = changes.into_iter().filter(|(changed, _)| *changed);
    needed.map(|(_, permission)| permission).collect()
}

/// Takes what concerns schemas out of the namespaces of settings: by namespace, where there is any.
fn take_schemas(settings: &mut Value) -> Vec<(Value, Map<String, Value>)> {
    let namespaces = settings.get_mut("namespaces").and_then(Value::as_array_mut);
    let namespaces = namespaces.into_iter().flatten().filter_map(Value::as_object_mut);
    let taken = namespaces.map(|namespace| {
        let all = std::mem::take(namespace);
        let (schemas, rest) = all.into_iter().partition(|(key, _)| key.starts_with("schema"));
        *namespace = rest;
        (namespace.get("name").cloned().unwrap_or_default(), schemas)
    });
    taken
        .filter(|(_, schemas): &(_, Map<_, _>)| !schemas.is_empty())
        .collect()
}

/// Who has made a version.
fn author(actor: &Actor) -> &str {
    match &actor.who {
        Who::Session { account, .. } | Who::Token { account, .. } => account,
        Who::System(name) => name,
        Who::Anybody => "",
    }
}

impl std::fmt::Debug for TeamApps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TeamApps").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_change_of_settings_takes() {
        use Permission::{AppsWrite, LimitsWrite, SchemasWrite};
        let old = json!({"anonymous": true, "namespaces": [{"name": "chat", "rate": 1}]});
        let with = |namespace: Value| json!({"anonymous": true, "namespaces": [namespace]});
        let mut limited = old.clone();
        limited["limits"] = json!({"publish_rate": 1});
        let cases = [
            (old.clone(), vec![]),
            (
                json!({"anonymous": false, "namespaces": [{"name": "chat", "rate": 1}]}),
                vec![AppsWrite],
            ),
            (limited, vec![LimitsWrite]),
            (
                with(json!({"name": "chat", "rate": 1, "schemas": []})),
                vec![SchemasWrite],
            ),
            (
                with(json!({"name": "chat", "rate": 2, "schemas": []})),
                vec![SchemasWrite, AppsWrite],
            ),
            // A name is a name, whatever it looks like.
            (with(json!({"name": "x].schemas"})), vec![AppsWrite]),
            (
                json!({"anonymous": true, "namespaces": [{"schemas": [1]}]}),
                vec![SchemasWrite, AppsWrite],
            ),
        ];
        for (new, needed) in cases {
            assert_eq!(settings_permissions(&old, &new), needed, "{new}");
        }
    }
}
