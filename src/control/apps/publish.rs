//! From the store to the nodes.

use super::{
    AppDocument, Apps, AppsError, Settled,
    service::{Found, PAGE, TRIES, read, version_of},
};
use crate::{
    model::AppId,
    store::{Collection, Query},
};

impl Apps {
    /// Publishes what is stored and not published, and finishes deletions: after what went wrong, and from
    /// time to time. What is published and not stored is left as it is: a store that was lost takes no app
    /// from its users. How many apps it has published or deleted.
    ///
    /// # Errors
    ///
    /// [`AppsError`] of the first that cannot be.
    pub async fn reconcile(&self) -> Result<usize, AppsError> {
        let mut done = 0;
        let mut after = None;
        loop {
            let query = Query {
                after: after.take(),
                limit: PAGE,
                ..Query::default()
            };
            let page = self.store.list(Collection::Apps, query).await?;
            let Some(last) = page.last() else { return Ok(done) };
            after = Some(last.id.clone());
            for document in page {
                let Ok(id) = AppId::new(&document.id) else {
                    continue;
                };
                let app: AppDocument = read(document.body)?;
                if app.deleted || self.published(&id).await? < app.version {
                    self.publish(&id, &app, document.revision).await?;
                    done += 1;
                }
            }
        }
    }

    /// Tells the nodes of a change that is stored.
    pub(super) async fn settle(&self, id: &AppId, app: AppDocument, revision: u64) -> Settled {
        let published = self.publish(id, &app, revision).await;
        if let Err(why) = &published {
            tracing::warn!(app = %id, %why, "a change of an app is stored and not published yet");
        }
        Settled {
            app,
            published: published.is_ok(),
        }
    }

    /// `revision` is the document's that the app was read from or written as.
    pub(super) async fn publish(
        &self,
        id: &AppId,
        app: &AppDocument,
        revision: u64,
    ) -> Result<(), AppsError> {
        if app.deleted {
            return self.finish_deletion(id, app.version, revision).await;
        }
        let value = serde_json::to_vec(&app.record()).map_err(|_| AppsError::Internal)?;
        for _ in 0..TRIES {
            let entry = self.bucket.get(id.as_str()).await?;
            if version_of(entry.value.as_deref()) >= app.version {
                return Ok(());
            }
            let set = self
                .bucket
                .set(id.as_str(), value.clone().into(), entry.revision, None);
            if set.await?.is_some() {
                return self.after_publishing(id, app.version).await;
            }
        }
        Err(AppsError::Conflict)
    }

    /// Who deletes the app takes it from the nodes first and then from the store: if it was taken from them
    /// before this was published, the store tells.
    async fn after_publishing(&self, id: &AppId, version: u64) -> Result<(), AppsError> {
        match self.find(id).await? {
            None => self.unpublish(id, version + 1).await,
            Some(Found { revision, app }) if app.deleted => {
                self.finish_deletion(id, app.version, revision).await
            }
            Some(_) => Ok(()),
        }
    }

    /// Nodes first, so that a deletion which was begun is felt, whatever happens to the rest. Of an app that
    /// has the id since nothing is touched: it has a later version, and another revision.
    pub(super) async fn finish_deletion(
        &self,
        id: &AppId,
        version: u64,
        revision: u64,
    ) -> Result<(), AppsError> {
        self.unpublish(id, version).await?;
        self.store
            .remove(Collection::Apps, id.as_str(), Some(revision))
            .await?;
        Ok(())
    }

    /// Takes what is older than `version` from the nodes.
    async fn unpublish(&self, id: &AppId, version: u64) -> Result<(), AppsError> {
        for _ in 0..TRIES {
            let entry = self.bucket.get(id.as_str()).await?;
            let is_later = version_of(entry.value.as_deref()) >= version;
            if entry.value.is_none() || is_later || self.bucket.remove(id.as_str(), entry.revision).await? {
                return Ok(());
            }
        }
        Err(AppsError::Conflict)
    }
}
