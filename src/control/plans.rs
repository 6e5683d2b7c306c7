//! Plans: what apps may have at most, named by the operator. A changed plan is felt by the apps that are on it
//! ([`super::apps::Apps::renew_plan`]).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Deed,
    apps::diff,
    audit::Audit,
    clock::Clock,
    context::{Actor, Who},
    error::ControlError,
    plan::Quotas,
    records::{Record, Records, Stored},
};
use crate::store::{Collection, Query};

/// The longest name, bytes.
const MAX_NAME: usize = 32;
/// The longest description, bytes.
const MAX_ABOUT: usize = 500;
/// Plans in a page at most; how many there may be.
pub(super) const MAX_PLANS: usize = 1_000;

/// A plan as it is stored, under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    #[serde(default)]
    about: String,
    #[serde(default)]
    selectable: bool,
    #[serde(default)]
    pub(super) quotas: Quotas,
    #[serde(default)]
    created_ms: i64,
}

impl Record for Plan {
    const COLLECTION: Collection = Collection::Plans;
    const NAME: &'static str = "plan";
    fn keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A plan as it is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlanDraft {
    /// For people, at most 500 bytes.
    pub about: String,
    /// Whether owners of teams may choose it; or else only the operator does.
    pub selectable: bool,
    /// What it allows; what is absent has no limit.
    #[schema(inline)]
    pub quotas: Quotas,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlanView {
    /// Its name.
    pub name: String,
    /// For people.
    pub about: String,
    /// Whether owners of teams may choose it.
    pub selectable: bool,
    /// What it allows; what is absent has no limit.
    #[schema(inline)]
    pub quotas: Quotas,
    /// When it was made, ms since 1970.
    pub created_ms: i64,
    /// How often it has been changed: another number after each change.
    pub revision: u64,
}

/// The plans of a deployment.
#[derive(Clone)]
pub struct Plans {
    records: Records,
    audit: Audit,
    clock: Clock,
}

impl Plans {
    pub(super) fn new(records: Records, audit: Audit, clock: Clock) -> Self {
        Self {
            records,
            audit,
            clock,
        }
    }

    /// The plans after the one called `after`, at most `limit`: for the operator all, for others those that
    /// can be chosen.
    ///
    /// # Errors
    ///
    /// `unauthenticated`, `unavailable`.
    pub async fn list(
        &self,
        actor: &Actor,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PlanView>, ControlError> {
        let all = sees_all(actor)?;
        let query = Query {
            after: after.map(str::to_owned),
            limit: MAX_PLANS,
            ..Query::default()
        };
        let found = self.records.store().list(Collection::Plans, query).await?;
        let plans = found.into_iter().map(Stored::<Plan>::read);
        let plans = plans.collect::<Result<Vec<_>, _>>()?.into_iter();
        let seen = plans.filter(|plan| all || plan.value.selectable);
        Ok(seen.take(limit).map(view).collect())
    }

    /// One plan: for who is not the operator, one that can be chosen. What a plan allows that an app is on is
    /// told with the app.
    ///
    /// # Errors
    ///
    /// `not_found`, `unauthenticated`, `unavailable`.
    pub async fn get(&self, actor: &Actor, name: &str) -> Result<PlanView, ControlError> {
        let all = sees_all(actor)?;
        let plan = self.records.need::<Plan>(name).await?;
        match all || plan.value.selectable {
            true => Ok(view(plan)),
            false => Err(ControlError::NotFound(Plan::NAME)),
        }
    }

    /// Makes the plan of this name what `draft` says; whether it is new. If the caller has `seen` a revision,
    /// another is not changed. Apps feel it afterwards.
    ///
    /// # Errors
    ///
    /// `operator_only`, `invalid_input`, `limit_reached`, `stale`, `conflict`, `unavailable`.
    pub async fn put(
        &self,
        actor: &Actor,
        name: &str,
        draft: PlanDraft,
        seen: Option<u64>,
    ) -> Result<(PlanView, bool), ControlError> {
        operator(actor)?;
        check(name, &draft)?;
        if self.records.get::<Plan>(name).await?.is_some() {
            let changed = self.records.change_seen::<Plan, _>(name, seen, |plan| {
                plan.about.clone_from(&draft.about);
                plan.selectable = draft.selectable;
                plan.quotas = draft.quotas.clone();
                Ok(())
            });
            let changed = changed.await?;
            let mut deed = Deed::new("plan.change", "plan", name);
            deed.changes = diff(&shown(&changed.before), &shown(&changed.now.value));
            self.audit.write(actor, deed).await?;
            return Ok((view(changed.now), false));
        }
        if seen.is_some() {
            return Err(ControlError::Stale(0));
        }
        if self.records.store().count(Collection::Plans).await? >= MAX_PLANS as u64 {
            return Err(ControlError::LimitReached("plans"));
        }
        let plan = Plan {
            about: draft.about,
            selectable: draft.selectable,
            quotas: draft.quotas,
            created_ms: self.clock.now_ms(),
        };
        let stored = self.records.insert(name.to_owned(), plan).await?;
        let mut deed = Deed::new("plan.create", "plan", name);
        deed.changes = diff(&serde_json::Value::Null, &shown(&stored.value));
        self.audit.write(actor, deed).await?;
        Ok((view(stored), true))
    }

    /// Removes a plan; what it was. Whether apps are on it is for the caller to know.
    ///
    /// # Errors
    ///
    /// `operator_only`, `not_found`, `stale`, `conflict`, `unavailable`.
    pub(super) async fn remove(
        &self,
        actor: &Actor,
        name: &str,
        seen: Option<u64>,
    ) -> Result<PlanDraft, ControlError> {
        operator(actor)?;
        let plan = self.records.need::<Plan>(name).await?;
        if seen.is_some_and(|seen| seen != plan.revision) {
            return Err(ControlError::Stale(plan.revision));
        }
        if !self.records.remove(&plan).await? {
            return Err(ControlError::Conflict);
        }
        let mut deed = Deed::new("plan.delete", "plan", name);
        deed.changes = diff(&shown(&plan.value), &serde_json::Value::Null);
        self.audit.write(actor, deed).await?;
        Ok(PlanDraft {
            about: plan.value.about,
            selectable: plan.value.selectable,
            quotas: plan.value.quotas,
        })
    }

    /// Whether owners of teams may choose a plan.
    pub(super) async fn is_selectable(&self, name: &str) -> Result<bool, ControlError> {
        let plan = self.records.get::<Plan>(name).await?;
        Ok(plan.is_some_and(|plan| plan.value.selectable))
    }
}

/// Whether it is one who sees plans that nobody may choose.
fn sees_all(actor: &Actor) -> Result<bool, ControlError> {
    match &actor.who {
        Who::Anybody => Err(ControlError::Unauthenticated),
        Who::System(_) => Ok(true),
        Who::Session { .. } | Who::Token { .. } => Ok(false),
    }
}

/// Only the operator.
///
/// # Errors
///
/// `operator_only`, `unauthenticated`.
pub(super) fn operator(actor: &Actor) -> Result<(), ControlError> {
    match &actor.who {
        Who::System(_) => Ok(()),
        Who::Anybody => Err(ControlError::Unauthenticated),
        Who::Session { .. } | Who::Token { .. } => Err(ControlError::OperatorOnly),
    }
}

fn check(name: &str, draft: &PlanDraft) -> Result<(), ControlError> {
    let invalid = |field, why| Err(ControlError::Invalid { field, why });
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(good) {
        return invalid("plan", "must have 1 to 32 of a-z, 0-9, '-' and '_'");
    }
    if draft.about.len() > MAX_ABOUT || draft.about.chars().any(char::is_control) {
        return invalid("about", "must have at most 500 bytes and no control characters");
    }
    let too_large = |(name, _): &(&str, &str)| {
        let quota = draft.quotas.of(name);
        quota.is_some_and(|quota| i64::try_from(quota).is_err())
    };
    if Quotas::ALL.iter().any(too_large) {
        return invalid("quotas", "must be at most 9223372036854775807");
    }
    Ok(())
}

fn shown(plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "about": plan.about,
        "selectable": plan.selectable,
        "quotas": plan.quotas,
    })
}

fn view(plan: Stored<Plan>) -> PlanView {
    PlanView {
        name: plan.id,
        about: plan.value.about,
        selectable: plan.value.selectable,
        quotas: plan.value.quotas,
        created_ms: plan.value.created_ms,
        revision: plan.revision,
    }
}
