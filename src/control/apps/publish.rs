//! From the store to the nodes.

use super::{
    AppDocument, Apps, AppsError, Settled,
    service::{PAGE, TRIES, read, version_of},
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
                    self.publish(&id, &app).await?;
                    done += 1;
                }
            }
        }
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

    async fn publish(&self, id: &AppId, app: &AppDocument) -> Result<(), AppsError> {
        if app.deleted {
            return self.finish_deletion(id).await;
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
                return Ok(());
            }
        }
        Err(AppsError::Conflict)
    }

    /// Nodes first, so that a deletion which was begun is felt, whatever happens to the rest.
    async fn finish_deletion(&self, id: &AppId) -> Result<(), AppsError> {
        for _ in 0..TRIES {
            let entry = self.bucket.get(id.as_str()).await?;
            if entry.value.is_none() || self.bucket.remove(id.as_str(), entry.revision).await? {
                self.store.remove(Collection::Apps, id.as_str(), None).await?;
                return Ok(());
            }
        }
        Err(AppsError::Conflict)
    }
}
