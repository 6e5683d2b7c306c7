//! How much apps may leave behind: versions of them as they were, what keeps the id of one that is deleted from
//! being given again, and names of namespaces that it had.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    AppDocument, Apps, AppsError, Reason,
    service::{PAGE, version_id, write},
};
use crate::{
    config::AppConfig,
    control::{OPERATOR, teams::team_key},
    model::AppId,
    store::{Collection, Draft, Query},
};

/// The key of all deleted apps that an account has made.
pub(super) fn deleted_key(maker: &str) -> String {
    format!("deleted:{maker}")
}

impl Apps {
    /// Whether a team may have one more app, and `maker` may make it. As far as can be seen: of two at the same
    /// moment both may find room.
    pub(super) async fn room_for_app(&self, team: &str, maker: &str) -> Result<(), AppsError> {
        let tenants = &self.node.tenants;
        let has = async |key: String, most: usize| {
            let query = Query {
                key: Some(key),
                limit: most,
                ..Query::default()
            };
            let documents = self.store.list(Collection::Apps, query).await?;
            Ok::<_, AppsError>(documents.len() >= most)
        };
        if has(team_key(team), tenants.max_apps).await? {
            return Err(AppsError::LimitReached("apps"));
        }
        // Whoever makes and deletes for ever fills the store, and claims without end.
        if maker != OPERATOR && has(deleted_key(maker), tenants.max_deleted_apps).await? {
            return Err(AppsError::LimitReached("apps after those that were deleted"));
        }
        Ok(())
    }

    /// All names that the app's namespaces have had once it is as `config` has it: what is stored of one is
    /// claimed for good.
    pub(super) fn names_ever(
        &self,
        app: &AppDocument,
        before: &Value,
        config: &AppConfig,
    ) -> Result<Vec<String>, Reason> {
        let now = config.namespaces.iter().map(|(name, _)| name.as_str());
        let before = before.get("namespaces").and_then(Value::as_array);
        let before = before.into_iter().flatten();
        // One without a name has the empty one.
        let before = before.map(|it| it.get("name").and_then(Value::as_str).unwrap_or_default());
        let known = app.namespaces.iter().map(String::as_str);
        let all: BTreeSet<_> = known.chain(before).chain(now).map(str::to_owned).collect();
        let most = self.node.tenants.max_past_namespaces;
        if all.len() > most {
            return Err(Reason::new(
                "settings.namespaces",
                format!(
                    "the app has had namespaces of more than {most} names by now: take one of them again"
                ),
            ));
        }
        Ok(all.into_iter().collect())
    }

    /// Keeps an app as it is before it changes, and lets go of the oldest. A version never changes, so whoever was
    /// here first has written the same.
    pub(super) async fn keep_version(&self, id: &AppId, app: &AppDocument) -> Result<(), AppsError> {
        let draft = Draft {
            unique: None,
            keys: vec![id.as_str().to_owned()],
            expires_ms: None,
            body: write(&app.as_version())?,
        };
        let kept = version_id(id, app.version);
        self.store.insert(Collection::AppVersions, &kept, draft).await?;
        let most = self.node.tenants.max_versions as u64;
        if let Some(oldest) = app.version.checked_sub(most) {
            let oldest = version_id(id, oldest);
            self.store.remove(Collection::AppVersions, &oldest, None).await?;
        }
        Ok(())
    }

    /// Removes all versions of an app that is deleted: nobody can see them any more.
    pub(super) async fn forget_versions(&self, id: &AppId) -> Result<(), AppsError> {
        loop {
            let query = Query {
                key: Some(id.as_str().to_owned()),
                limit: PAGE,
                ..Query::default()
            };
            let versions = self.store.list(Collection::AppVersions, query).await?;
            if versions.is_empty() {
                return Ok(());
            }
            for version in versions {
                self.store
                    .remove(Collection::AppVersions, &version.id, None)
                    .await?;
            }
        }
    }
}
