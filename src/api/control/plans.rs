//! `/v1/plans`.

use axum::{extract::State, http::StatusCode};

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, At, By, Json, Seen, done, json, tagged},
    page::{PageOf, PageParams},
};
use crate::{
    api::extract::Params,
    control::{PlanDraft, PlanView},
};

/// Lists plans
///
/// Those that owners of teams may choose; for the operator all.
#[utoipa::path(
    get,
    path = "/v1/plans",
    operation_id = "list_plans",
    tag = "plans",
    params(PageParams),
    responses((status = 200, description = "A page, in the order of names", body = PageOf<PlanView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    Params(page): Params<PageParams>,
) -> Answer {
    let limit = page.limit()?;
    let plans = &state.control()?.plans;
    let more = plans.list(&actor, page.cursor.as_deref(), limit + 1).await?;
    let page = PageOf::cut(more, limit, |plan| plan.name.clone());
    json(StatusCode::OK, &page)
}

/// Tells about a plan
#[utoipa::path(
    get,
    path = "/v1/plans/{plan}",
    operation_id = "get_plan",
    tag = "plans",
    params(("plan" = String, Path, description = "The plan's name")),
    responses((status = 200, description = "The plan", body = PlanView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn get(
    State(state): State<ControlState>,
    By(actor): By,
    At(plan): At<String>,
) -> Answer {
    let plan = state.control()?.plans.get(&actor, &plan).await?;
    tagged(StatusCode::OK, plan.revision, &plan)
}

/// Makes or changes a plan
///
/// With the operator's key. The apps that are on it feel it by and by.
#[utoipa::path(
    put,
    path = "/v1/plans/{plan}",
    operation_id = "put_plan",
    tag = "plans",
    params(("plan" = String, Path, description = "The plan's name"), ("If-Match" = Option<String>, Header, description = "The ETag that the caller has seen")),
    request_body = PlanDraft,
    responses((status = 200, description = "As it is now", body = PlanView), (status = 201, description = "Made", body = PlanView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn put(
    State(state): State<ControlState>,
    By(actor): By,
    At(plan): At<String>,
    Seen(seen): Seen,
    Json(draft): Json<PlanDraft>,
) -> Answer {
    let (plan, new) = state.apps()?.put_plan(&actor, &plan, draft, seen).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    tagged(status, plan.revision, &plan)
}

/// Removes a plan that no app is on
///
/// With the operator's key.
#[utoipa::path(
    delete,
    path = "/v1/plans/{plan}",
    operation_id = "delete_plan",
    tag = "plans",
    params(("plan" = String, Path, description = "The plan's name"), ("If-Match" = Option<String>, Header, description = "The ETag that the caller has seen")),
    responses((status = 204, description = "Removed"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn delete(
    State(state): State<ControlState>,
    By(actor): By,
    At(plan): At<String>,
    Seen(seen): Seen,
) -> Answer {
    state.apps()?.remove_plan(&actor, &plan, seen).await?;
    done()
}
