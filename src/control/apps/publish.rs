//! From the store to the nodes.

use super::{
    AppDocument, Apps, AppsError, Edit, Settled,
    service::{PAGE, TRIES, plan_key, read, version_of},
};
use crate::{
    apps::AppRecord,
    control::{OPERATOR, plan::Quotas, plans::MAX_PLANS},
    model::AppId,
    store::{Collection, Query},
};

impl Apps {
    /// Publishes what is stored and not published, and takes deleted apps from the nodes: after what went
    /// wrong, and from time to time. What is published and not stored is left as it is: a store that was lost
    /// takes no app from its users. How many apps were not as they should be.
    ///
    /// # Errors
    ///
    /// The first [`AppsError`], after all others have had their turn.
    pub async fn reconcile(&self) -> Result<usize, AppsError> {
        let (mut done, mut failed) = (0, None);
        let mut after = None;
        loop {
            let query = Query {
                after: after.take(),
                limit: PAGE,
                ..Query::default()
            };
            let page = self.store.list(Collection::Apps, query).await?;
            let Some(last) = page.last() else {
                return failed.map_or(Ok(done), Err);
            };
            after = Some(last.id.clone());
            for document in page {
                match self.reconcile_one(&document.id, document.body).await {
                    Ok(changed) => done += usize::from(changed),
                    Err(error) => {
                        tracing::warn!(app = document.id, %error, "what is stored of an app cannot be published");
                        failed.get_or_insert(error);
                    }
                }
            }
        }
    }

    /// Tells the nodes what a plan allows now, for all apps that are on it. How many there were to tell of.
    ///
    /// # Errors
    ///
    /// The first [`AppsError`], after all others have had their turn.
    pub async fn renew_plan(&self, plan: &str) -> Result<usize, AppsError> {
        let (_, revision) = self.quotas(Some(plan)).await?;
        let (mut done, mut failed) = (0, None);
        let mut after = None;
        loop {
            let query = Query {
                key: Some(plan_key(plan)),
                after: after.take(),
                limit: PAGE,
                ..Query::default()
            };
            let page = self.store.list(Collection::Apps, query).await?;
            let Some(last) = page.last() else {
                return failed.map_or(Ok(done), Err);
            };
            after = Some(last.id.clone());
            for document in page {
                match self.renew(plan, revision, &document.id, document.body).await {
                    Ok(renewed) => done += usize::from(renewed),
                    // It was deleted meanwhile.
                    Err(AppsError::NotFound(_)) => {}
                    Err(error) => {
                        tracing::warn!(app = document.id, plan, %error, "an app does not feel a changed plan yet");
                        failed.get_or_insert(error);
                    }
                }
            }
        }
    }

    async fn renew(
        &self,
        plan: &str,
        revision: u64,
        id: &str,
        body: serde_json::Value,
    ) -> Result<bool, AppsError> {
        let app: AppDocument = read(body)?;
        if app.plan_revision == revision {
            return Ok(false);
        }
        let id = AppId::new(id).map_err(|_| AppsError::Internal)?;
        let plan = plan.to_owned();
        let edit = Edit::Renew { plan, revision };
        self.edit(&id, edit, None, OPERATOR).await.map(|_| true)
    }

    /// Tells the nodes of all plans that have changed and whose apps have not felt it.
    ///
    /// # Errors
    ///
    /// The first [`AppsError`], after all others have had their turn.
    pub async fn renew_plans(&self) -> Result<usize, AppsError> {
        let query = Query {
            limit: MAX_PLANS,
            ..Query::default()
        };
        let (mut done, mut failed) = (0, None);
        for plan in self.store.list(Collection::Plans, query).await? {
            match self.renew_plan(&plan.id).await {
                Ok(apps) => done += apps,
                // It was removed meanwhile.
                Err(AppsError::NotFound(_)) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(done), Err)
    }

    /// Whether an app is on the plan.
    pub(in crate::control) async fn has_plan(&self, plan: &str) -> Result<bool, AppsError> {
        let query = Query {
            key: Some(plan_key(plan)),
            limit: 1,
            ..Query::default()
        };
        Ok(!self.store.list(Collection::Apps, query).await?.is_empty())
    }

    async fn reconcile_one(&self, id: &str, body: serde_json::Value) -> Result<bool, AppsError> {
        let id = AppId::new(id).map_err(|_| AppsError::Internal)?;
        let app: AppDocument = read(body)?;
        let published = self.published(&id).await?;
        let behind = if app.deleted {
            self.forget_versions(&id).await?;
            published > 0
        } else {
            published < app.version
        };
        if behind {
            self.publish(&id, &app).await?;
        }
        Ok(behind)
    }

    /// Tells the nodes of a change that is stored.
    pub(super) async fn settle(&self, id: &AppId, app: AppDocument) -> Settled {
        let published = self.publish(id, &app).await;
        if let Err(why) = &published {
            tracing::warn!(app = %id, %why, "a change of an app is stored and not published yet");
        }
        Settled {
            app,
            published: published.is_ok(),
        }
    }

    /// Has the nodes serve the app as it is here, or not at all.
    pub(super) async fn publish(&self, id: &AppId, app: &AppDocument) -> Result<(), AppsError> {
        if app.deleted {
            return self.unpublish(id).await;
        }
        let quotas = self.quotas_or_before(id, app).await?;
        let value = serde_json::to_vec(&app.record(quotas)).map_err(|_| AppsError::Internal)?;
        for _ in 0..TRIES {
            let entry = self.bucket.get(id.as_str()).await?;
            if version_of(entry.value.as_deref()) >= app.version {
                return Ok(());
            }
            let set = self
                .bucket
                .set(id.as_str(), value.clone().into(), entry.revision, None);
            if set.await?.is_some() {
                return self.after_publishing(id).await;
            }
        }
        Err(AppsError::Conflict)
    }

    /// What the app's plan allows; if there is no such plan any more, what the nodes have of it. A key that has
    /// leaked must go, whatever has become of the plan.
    async fn quotas_or_before(&self, id: &AppId, app: &AppDocument) -> Result<Quotas, AppsError> {
        match self.quotas(app.plan.as_deref()).await {
            Ok((quotas, _)) => Ok(quotas),
            Err(AppsError::NotFound(_)) => {
                let entry = self.bucket.get(id.as_str()).await?;
                let record = entry.value.as_deref().map(AppRecord::parse);
                let record = record.and_then(Result::ok);
                Ok(record.map(|record| record.quotas).unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    /// An app that is deleted stays so in the store, and is taken from the nodes then: if that was before this
    /// was published, the store tells.
    async fn after_publishing(&self, id: &AppId) -> Result<(), AppsError> {
        match self.find(id).await? {
            Some(found) if found.app.deleted => self.unpublish(id).await,
            _ => Ok(()),
        }
    }

    /// Takes an app that is deleted from the nodes. Its id is never given again.
    async fn unpublish(&self, id: &AppId) -> Result<(), AppsError> {
        for _ in 0..TRIES {
            let entry = self.bucket.get(id.as_str()).await?;
            if entry.value.is_none() || self.bucket.remove(id.as_str(), entry.revision).await? {
                return Ok(());
            }
        }
        Err(AppsError::Conflict)
    }
}
