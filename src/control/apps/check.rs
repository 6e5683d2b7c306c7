//! Whether an app can be as somebody wants it.

use serde_json::Value;

use super::{
    AppDocument, Apps, AppsError, Reason, schemas,
    service::{MAX_NAME, read},
};
use crate::{
    auth,
    config::AppConfig,
    control::{plan, plan::Quotas},
    model::AppId,
    store::Collection,
    task,
};

impl Apps {
    /// Checks an app as a whole, and against what it was, and claims its namespaces. It has then by which revision
    /// of its plan, and what names it has claimed so far.
    pub(super) async fn check(
        &self,
        id: &AppId,
        before: Option<&AppDocument>,
        app: &mut AppDocument,
    ) -> Result<(), AppsError> {
        let (config, mut reasons) = self.shape(id, app);
        let (quotas, revision) = self.quotas(app.plan.as_deref()).await?;
        if let Some(config) = config {
            let over = plan::check(&quotas, &app.flags, &app.settings, &config, &self.node);
            reasons.extend(over);
            let before = before.map_or(&Value::Null, |before| &before.settings);
            // What is compiled can take long.
            reasons.extend(task::long(|| schemas::check(before, &config)));
            match self.names_ever(app, before, &config) {
                Ok(names) => app.namespaces = names,
                Err(reason) => reasons.push(reason),
            }
            if reasons.is_empty() {
                reasons.extend(self.claim(id, &config).await?);
            }
        }
        app.plan_revision = revision;
        AppsError::refuse(reasons)
    }

    /// The app as nodes would read it, and why they, or its name and keys, cannot be so.
    pub(super) fn shape(&self, id: &AppId, app: &AppDocument) -> (Option<AppConfig>, Vec<Reason>) {
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
        let record = serde_json::to_vec(&app.record(Quotas::default())).map_or(usize::MAX, |json| json.len());
        let most = self.node.tenants.max_record_bytes;
        if record > most {
            let why = format!("are too much: an app may have {most} bytes with its keys");
            reasons.push(Reason::new("settings", why));
        }
        match AppConfig::from_document(id, &app.settings, app.signs(), &self.node) {
            Err(errors) => {
                reasons.extend(errors.problems().iter().map(|problem| {
                    Reason::new(&format!("settings.{}", problem.key), problem.message.clone())
                }));
                (None, reasons)
            }
            Ok(config) => {
                let usable = config.auth.as_ref().map(auth::check);
                if let Some(Err(error)) = usable {
                    reasons.push(Reason::new("settings.auth", error.to_string()));
                }
                (Some(config), reasons)
            }
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
