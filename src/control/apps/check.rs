//! Whether an app can be as somebody wants it.

use serde_json::Value;

use super::{
    AppDocument, Apps, AppsError, Reason, schemas,
    service::{MAX_NAME, read},
};
use crate::{
    config::AppConfig,
    control::{plan, plan::Quotas},
    model::AppId,
    store::Collection,
};

impl Apps {
    /// Checks an app as a whole, and against what it was, and claims its namespaces. By which revision of its
    /// plan.
    pub(super) async fn check(
        &self,
        id: &AppId,
        before: Option<&AppDocument>,
        app: &AppDocument,
    ) -> Result<u64, AppsError> {
        let mut reasons = Vec::new();
        for (path, text, least) in [("name", &app.name, 1), ("region", &app.region, 0)] {
            if !(least..=MAX_NAME).contains(&text.len()) || text.chars().any(char::is_control) {
                let why = format!("must have {least} to {MAX_NAME} bytes and no control characters");
                reasons.push(Reason::new(path, why));
            }
        }
        for (index, key) in app.keys.iter().enumerate() {
            if key.name.len() > MAX_NAME || key.name.chars().any(char::is_control) {
                let why = format!("must have at most {MAX_NAME} bytes and no control characters");
                reasons.push(Reason::new(&format!("keys[{index}].name"), why));
            }
        }
        let (quotas, revision) = self.quotas(app.plan.as_deref()).await?;
        match AppConfig::from_document(id, &app.settings, app.signs(), &self.node) {
            Err(errors) => {
                reasons.extend(errors.problems().iter().map(|problem| {
                    Reason::new(&format!("settings.{}", problem.key), problem.message.clone())
                }));
            }
            Ok(config) => {
                let over = plan::check(&quotas, &app.flags, &app.settings, &config, &self.node);
                reasons.extend(over);
                let before = before.map_or(&Value::Null, |before| &before.settings);
                reasons.extend(schemas::check(before, &config));
                if reasons.is_empty() {
                    reasons.extend(self.claim(id, &config).await?);
                }
            }
        }
        if reasons.is_empty() {
            Ok(revision)
        } else {
            Err(AppsError::Refused(reasons))
        }
    }

    /// A namespace with stored history keeps its class, so the first to use it says which.
    async fn claim(&self, id: &AppId, config: &AppConfig) -> Result<Vec<Reason>, AppsError> {
        let namespaces = config.namespaces.iter();
        let namespaces: Vec<_> = namespaces
            .map(|(name, rule)| (name.clone(), rule.history.clone()))
            .collect();
        let different = self.log.claim(id, &namespaces).await?;
        let reasons = different.into_iter().map(|name| {
            Reason::new(
                &format!("settings.namespaces[{name}].history"),
                "cannot be changed: the namespace was in use with another; choose another name".to_owned(),
            )
        });
        Ok(reasons.collect())
    }

    /// What a plan allows, and its revision.
    pub(in crate::control) async fn quotas(&self, plan: Option<&str>) -> Result<(Quotas, u64), AppsError> {
        let Some(plan) = plan else {
            return Ok((Quotas::default(), 0));
        };
        let found = self.store.get(Collection::Plans, plan).await?;
        let found = found.ok_or(AppsError::NotFound("plan"))?;
        let quotas = found.body.get("quotas").cloned();
        let quotas = quotas.map(read).transpose()?.unwrap_or_default();
        Ok((quotas, found.revision))
    }
}
