//! Stores apps, and publishes them to the nodes.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{AppDocument, Edit, KeyDocument, Reason, Version, document::NoEdit, room::deleted_key};
use crate::{
    apps::{AppRecord, key_purpose},
    config::{Config, Secret},
    control::{Class, Clock, ControlError, hash::hash, teams::team_key},
    log::{Bucket, BucketName, Log, ReadError},
    model::AppId,
    random,
    seal::Sealing,
    store::{Collection, Document, Draft, Query, Store, StoreError, Written},
};

/// How often a change is tried again over one of somebody else.
pub(super) const TRIES: usize = 8;
/// Documents that are looked at together.
pub(super) const PAGE: usize = 100;
/// 6 bits each: 258 bits.
const KEY_CHARACTERS: usize = 43;
/// What keys begin with, so that one that has leaked is known for what it is.
const KEY_PREFIX: &str = "sls_";
/// 6 bits each; unique within an app is enough.
const KEY_ID_CHARACTERS: usize = 10;
/// The longest name of an app or a key, and the longest region, bytes.
pub(super) const MAX_NAME: usize = 100;

/// Why nothing was done to an app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppsError {
    /// There is none, or no such key, version or plan.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// There is one with this id, or was.
    #[error("there is, or was, an app with this id")]
    Exists,
    /// It cannot be so: every reason.
    #[error("the app cannot be so")]
    Refused(Vec<Reason>),
    /// It has another version than the caller has seen.
    #[error("the app has been changed: it is at version {0}")]
    Stale(u64),
    /// Others change it all the time.
    #[error("others are changing the app")]
    Conflict,
    /// As many as there may be.
    #[error("no more {0} are possible")]
    LimitReached(&'static str),
    /// Apps are on the plan.
    #[error("apps are on the plan")]
    PlanInUse,
    /// Who asks may not, or something else went wrong on the way.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It is stored, and the nodes have not been told yet.
    #[error("it is stored, and the nodes have not heard of it yet; they will, or sooner if you repeat it")]
    NotTold,
    /// The store or NATS does not answer: it may be done or not.
    #[error("the store or NATS does not answer")]
    Unavailable,
    /// The store holds what cannot be read.
    #[error("the store failed")]
    Internal,
}

impl AppsError {
    /// Refuses if there is any reason to.
    pub(super) fn refuse(reasons: Vec<Reason>) -> Result<(), Self> {
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(Self::Refused(reasons)),
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        self.row().0
    }

    /// What kind of an answer it is.
    pub fn class(&self) -> Class {
        self.row().1
    }

    /// When to try again, if that can help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Conflict | Self::NotTold | Self::Unavailable => Some(Duration::from_secs(1)),
            Self::Control(error) => error.retry_after(),
            _ => None,
        }
    }

    fn row(&self) -> (&'static str, Class) {
        match self {
            Self::NotFound(_) => ("not_found", Class::NotFound),
            Self::Exists => ("app_exists", Class::Conflict),
            Self::Refused(_) => ("refused", Class::Refused),
            Self::Stale(_) => ("stale", Class::Stale),
            Self::Conflict => ("conflict", Class::Conflict),
            Self::LimitReached(_) => ("limit_reached", Class::Conflict),
            Self::PlanInUse => ("plan_in_use", Class::Conflict),
            Self::Control(error) => (error.code(), error.class()),
            Self::NotTold => ("not_published", Class::Unavailable),
            Self::Unavailable => ("unavailable", Class::Unavailable),
            Self::Internal => ("internal", Class::Internal),
        }
    }
}

impl From<StoreError> for AppsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable,
            StoreError::Invalid(why) => Self::Refused(vec![Reason::new("", why.to_owned())]),
            StoreError::Failed(_) => Self::Internal,
        }
    }
}

impl From<ReadError> for AppsError {
    fn from(_: ReadError) -> Self {
        Self::Unavailable
    }
}

/// A change that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The app as it is now.
    pub app: AppDocument,
    /// Whether the nodes have been told. If not, they will be.
    pub published: bool,
}

/// A key that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// The app as it is now.
    pub settled: Settled,
    /// The key's id.
    pub id: String,
    /// Its text, which is kept nowhere.
    pub text: Secret,
}

/// What apps are made of by default.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// The team's id.
    pub team: String,
    /// What people call it.
    pub name: String,
    /// Where it is meant to run.
    pub region: String,
    /// Its plan.
    pub plan: Option<String>,
    /// Its features.
    pub flags: Vec<String>,
    /// As in `[[apps]]`.
    pub settings: serde_json::Value,
}

/// The apps of all teams. Who may do what is for the caller to know.
pub struct Apps {
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn Log>,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) node: Config,
    sealing: Arc<Sealing>,
    clock: Clock,
}

/// A stored document and what it holds.
pub(super) struct Found {
    pub(super) revision: u64,
    pub(super) app: AppDocument,
}

impl Apps {
    /// Of this store, published by this log. `node` is how nodes are configured: this one, and all alike.
    pub fn new(
        store: Arc<dyn Store>,
        log: Arc<dyn Log>,
        node: &Config,
        sealing: Arc<Sealing>,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            bucket: log.bucket(BucketName::Apps),
            log,
            node: node.clone(),
            sealing,
            clock,
        }
    }

    /// Makes an app.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn create(&self, id: &AppId, new: NewApp, author: &str) -> Result<Settled, AppsError> {
        let taken = self.node.apps.iter().any(|app| app.id == *id);
        if taken || self.find(id).await?.is_some() {
            return Err(AppsError::Exists);
        }
        self.room_for_app(&new.team, author).await?;
        let now_ms = self.clock.now_ms();
        let mut app = AppDocument {
            team: new.team,
            name: new.name,
            region: new.region,
            plan: new.plan,
            plan_revision: 0,
            flags: new.flags,
            settings: new.settings,
            keys: Vec::new(),
            // The nodes may have one that a store which was lost has known.
            version: self.published(id).await? + 1,
            author: author.to_owned(),
            changed_ms: now_ms,
            changes: Vec::new(),
            created_ms: now_ms,
            maker: author.to_owned(),
            namespaces: Vec::new(),
            deleted: false,
        };
        self.check(id, None, &mut app).await?;
        match self
            .store
            .insert(Collection::Apps, id.as_str(), draft(&app)?)
            .await?
        {
            Written::Done => Ok(self.settle(id, app).await),
            Written::Conflict | Written::Taken => Err(AppsError::Exists),
        }
    }

    /// An app.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn get(&self, id: &AppId) -> Result<AppDocument, AppsError> {
        let found = self.find(id).await?.filter(|found| !found.app.deleted);
        found.map(|found| found.app).ok_or(AppsError::NotFound("app"))
    }

    /// The apps of a team after the one called `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn list(
        &self,
        team: &str,
        after: Option<&AppId>,
        limit: usize,
    ) -> Result<Vec<(AppId, AppDocument)>, AppsError> {
        let query = Query {
            key: Some(team_key(team)),
            after: after.map(|id| id.as_str().to_owned()),
            limit: limit.clamp(1, 1_000),
            ..Query::default()
        };
        let documents = self.store.list(Collection::Apps, query).await?;
        let mut apps = Vec::with_capacity(documents.len());
        for document in documents {
            let id = AppId::new(&document.id).map_err(|_| AppsError::Internal)?;
            apps.push((id, read(document.body)?));
        }
        Ok(apps)
    }

    /// Changes an app. `seen` is the version that the caller knows: another is not changed.
    ///
    /// # Errors
    ///
    /// [`AppsError`]. A change that changes nothing is none, and no error.
    pub async fn edit(
        &self,
        id: &AppId,
        edit: Edit,
        seen: Option<u64>,
        author: &str,
    ) -> Result<Settled, AppsError> {
        for _ in 0..TRIES {
            let found = self.find(id).await?.filter(|found| !found.app.deleted);
            let Some(Found {
                revision,
                app: before,
            }) = found
            else {
                return Err(AppsError::NotFound("app"));
            };
            if seen.is_some_and(|seen| seen != before.version) {
                return Err(AppsError::Stale(before.version));
            }
            // Above what the nodes have, also where the store was restored from a copy that is older.
            let published = self.published(id).await?;
            let version = before.version.max(published) + 1;
            let mut app = match before.edited(&edit, version, author, self.clock.now_ms()) {
                Ok(app) => app,
                Err(NoEdit::NoKey) => {
                    // Who repeats that a key is to go has the nodes told, if they were not.
                    self.publish(id, &before).await?;
                    return Err(AppsError::NotFound("key"));
                }
                Err(NoEdit::Same) if published <= before.version => return Ok(self.settle(id, before).await),
                // What is here is not what the nodes have.
                Err(NoEdit::Same) => AppDocument {
                    version,
                    author: author.to_owned(),
                    changed_ms: self.clock.now_ms(),
                    changes: Vec::new(),
                    ..before.clone()
                },
            };
            if edit.adds_key() && app.keys.len() > self.node.tenants.max_keys {
                return Err(AppsError::LimitReached("keys"));
            }
            // A key that has leaked must go, whatever else is wrong by now.
            if edit.is_about_keys() {
                // Keys can be replaced whatever has become of the plan.
                AppsError::refuse(self.shape(id, &app).1)?;
            } else if !edit.only_takes() {
                self.check(id, Some(&before), &mut app).await?;
            }
            self.keep_version(id, &before).await?;
            let replaced = self
                .store
                .replace(Collection::Apps, id.as_str(), revision, draft(&app)?);
            if replaced.await? == Written::Done {
                // The nodes first: whoever asked may go away.
                let settled = self.settle(id, app).await;
                if settled.app.deleted
                    && let Err(why) = self.forget_versions(id).await
                {
                    tracing::warn!(app = %id, %why, "versions of a deleted app are removed later");
                }
                return Ok(settled);
            }
        }
        Err(AppsError::Conflict)
    }

    /// Goes back to the settings and features of an earlier version, as a new one.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn roll_back(
        &self,
        id: &AppId,
        version: u64,
        seen: Option<u64>,
        author: &str,
    ) -> Result<Settled, AppsError> {
        let version = self.version(id, version).await?;
        self.edit(id, Edit::RollBack(version), seen, author).await
    }

    /// Makes a key. With `signs` tokens can be signed with it too.
    ///
    /// # Errors
    ///
    /// [`AppsError`]. Tokens need `tenants.sealing_keys`.
    pub async fn create_key(
        &self,
        id: &AppId,
        name: &str,
        signs: bool,
        author: &str,
    ) -> Result<Created, AppsError> {
        let (key, text) = self.new_key(id, name, signs)?;
        self.add_key(id, Edit::AddKey(key.clone()), key.id, text, author)
            .await
    }

    /// Makes a key like another, which is good for `overlap_s` seconds more.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn rotate_key(
        &self,
        id: &AppId,
        old: &str,
        overlap_s: u32,
        author: &str,
    ) -> Result<Created, AppsError> {
        let app = self.get(id).await?;
        let before = app.keys.iter().find(|key| key.id == old);
        let before = before.ok_or(AppsError::NotFound("key"))?;
        let (key, text) = self.new_key(id, &before.name, before.secret.is_some())?;
        let end = match overlap_s {
            0 => Edit::RevokeKey(old.to_owned()),
            overlap => Edit::EndKey {
                id: old.to_owned(),
                until: self.clock.now_ms() / 1000 + i64::from(overlap),
            },
        };
        let edit = Edit::Several(vec![Edit::AddKey(key.clone()), end]);
        self.add_key(id, edit, key.id, text, author).await
    }

    async fn add_key(
        &self,
        id: &AppId,
        edit: Edit,
        key: String,
        text: Secret,
        author: &str,
    ) -> Result<Created, AppsError> {
        let settled = self.edit(id, edit, None, author).await?;
        Ok(Created {
            settled,
            id: key,
            text,
        })
    }

    /// A key, and its text.
    fn new_key(&self, id: &AppId, name: &str, signs: bool) -> Result<(KeyDocument, Secret), AppsError> {
        let text = format!("{KEY_PREFIX}{}", random::name(KEY_CHARACTERS));
        let key_id = random::name(KEY_ID_CHARACTERS);
        let secret = if signs {
            let sealed = self.sealing.seal(&key_purpose(id, &key_id), text.as_bytes());
            Some(sealed.map_err(|_| {
                AppsError::Refused(vec![Reason::new(
                    "keys",
                    "cannot sign tokens while the operator has set no tenants.sealing_keys".to_owned(),
                )])
            })?)
        } else {
            None
        };
        let key = KeyDocument {
            id: key_id,
            name: name.to_owned(),
            hash: hash(&text),
            secret,
            until: None,
            created_ms: self.clock.now_ms(),
        };
        Ok((key, Secret::new(text)))
    }

    /// The versions of an app before `before`, the newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn versions(
        &self,
        id: &AppId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Version>, AppsError> {
        let present = self.get(id).await?;
        let mut versions = Vec::new();
        if before.is_none_or(|before| present.version < before) {
            versions.push(present.as_version());
        }
        let query = Query {
            key: Some(id.as_str().to_owned()),
            // One that a change which came to nothing has left is not older than the present one.
            before: Some(version_id(id, present.version.min(before.unwrap_or(u64::MAX)))),
            descending: true,
            limit: limit.clamp(1, 1_000),
            ..Query::default()
        };
        for document in self.store.list(Collection::AppVersions, query).await? {
            versions.push(read(document.body)?);
        }
        versions.truncate(limit);
        Ok(versions)
    }

    /// One version of an app, the present one included.
    ///
    /// # Errors
    ///
    /// [`AppsError`].
    pub async fn version(&self, id: &AppId, version: u64) -> Result<Version, AppsError> {
        let present = self.get(id).await?;
        if present.version == version {
            return Ok(present.as_version());
        }
        let found = self
            .store
            .get(Collection::AppVersions, &version_id(id, version))
            .await?;
        match found.filter(|_| version < present.version) {
            Some(document) => read(document.body),
            None => Err(AppsError::NotFound("version")),
        }
    }

    pub(super) async fn find(&self, id: &AppId) -> Result<Option<Found>, AppsError> {
        let found = self.store.get(Collection::Apps, id.as_str()).await?;
        found
            .map(|Document { revision, body, .. }| {
                Ok(Found {
                    revision,
                    app: read(body)?,
                })
            })
            .transpose()
    }

    /// Which version the nodes have; 0 = none.
    pub(super) async fn published(&self, id: &AppId) -> Result<u64, AppsError> {
        let entry = self.bucket.get(id.as_str()).await?;
        Ok(version_of(entry.value.as_deref()))
    }
}

impl std::fmt::Debug for Apps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apps").finish_non_exhaustive()
    }
}

pub(super) fn version_of(record: Option<&[u8]>) -> u64 {
    record
        .and_then(|json| AppRecord::parse(json).ok())
        .map_or(0, |record| record.version)
}

/// The key of all apps that are on a plan.
pub(super) fn plan_key(plan: &str) -> String {
    format!("plan:{plan}")
}

/// In the order of versions.
pub(super) fn version_id(id: &AppId, version: u64) -> String {
    format!("{id}|{version:020}")
}

fn draft(app: &AppDocument) -> Result<Draft, AppsError> {
    Ok(Draft {
        unique: None,
        keys: if app.deleted {
            vec![deleted_key(&app.maker)]
        } else {
            let plan = app.plan.as_deref().map(plan_key);
            plan.into_iter().chain([team_key(&app.team)]).collect()
        },
        expires_ms: None,
        body: write(app)?,
    })
}

pub(super) fn write(value: &impl Serialize) -> Result<serde_json::Value, AppsError> {
    serde_json::to_value(value).map_err(|_| AppsError::Internal)
}

pub(super) fn read<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, AppsError> {
    serde_json::from_value(value).map_err(|_| AppsError::Internal)
}

#[cfg(test)]
mod tests;
