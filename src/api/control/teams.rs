//! `/v1/teams`.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    ControlState,
    account::NameBody,
    error::Failures,
    extract::{Answer, At, By, Json, Seen, done, json, tagged},
    page::{PageOf, PageParams},
};
use crate::{api::extract::Params, control::TeamView};

/// A member who becomes the owner.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct TransferBody {
    /// The account's id.
    to: String,
}

/// Lists teams
///
/// Those of the account; for the operator all.
#[utoipa::path(
    get,
    path = "/v1/teams",
    operation_id = "list_teams",
    tag = "teams",
    params(PageParams),
    responses((status = 200, description = "A page", body = PageOf<TeamView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    Params(page): Params<PageParams>,
) -> Answer {
    let limit = page.limit()?;
    let teams = &state.control()?.teams;
    let page = match actor.account() {
        Some(_) => PageOf::all(teams.list(&actor).await?),
        None => {
            let more = teams.all(&actor, page.cursor.as_deref(), limit + 1).await?;
            PageOf::cut(more, limit, |team| team.id.clone())
        }
    };
    json(StatusCode::OK, &page)
}

/// Makes a team
///
/// Who asks is its owner.
#[utoipa::path(
    post,
    path = "/v1/teams",
    operation_id = "create_team",
    tag = "teams",
    params(("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = NameBody,
    responses((status = 201, description = "Made", body = TeamView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn create(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<NameBody>,
) -> Answer {
    let team = state.control()?.teams.create(&actor, &body.name).await?;
    tagged(StatusCode::CREATED, team.revision, &team)
}

/// Tells about a team
#[utoipa::path(
    get,
    path = "/v1/teams/{team}",
    operation_id = "get_team",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id")),
    responses((status = 200, description = "The team", body = TeamView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn get(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
) -> Answer {
    let team = state.control()?.teams.get(&actor, &team).await?;
    tagged(StatusCode::OK, team.revision, &team)
}

/// Gives a team another name
#[utoipa::path(
    patch,
    path = "/v1/teams/{team}",
    operation_id = "rename_team",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id"), ("If-Match" = Option<String>, Header, description = "The ETag that the caller has seen")),
    request_body = NameBody,
    responses((status = 200, description = "As it is now", body = TeamView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn rename(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
    Seen(seen): Seen,
    Json(body): Json<NameBody>,
) -> Answer {
    let teams = &state.control()?.teams;
    let team = teams.rename(&actor, &team, &body.name, seen).await?;
    tagged(StatusCode::OK, team.revision, &team)
}

/// Deletes a team, which must have no apps
#[utoipa::path(
    delete,
    path = "/v1/teams/{team}",
    operation_id = "delete_team",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id")),
    responses((status = 204, description = "Deleted"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn delete(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
) -> Answer {
    state.control()?.teams.delete(&actor, &team).await?;
    done()
}

/// Leaves a team
#[utoipa::path(
    post,
    path = "/v1/teams/{team}/leave",
    operation_id = "leave_team",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id")),
    responses((status = 204, description = "Left"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn leave(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
) -> Answer {
    state.control()?.teams.leave(&actor, &team).await?;
    done()
}

/// Makes another member the owner in one's own place
#[utoipa::path(
    post,
    path = "/v1/teams/{team}/transfer",
    operation_id = "transfer_team",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id")),
    request_body = TransferBody,
    responses((status = 204, description = "Transferred"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn transfer(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
    Json(body): Json<TransferBody>,
) -> Answer {
    state.control()?.teams.transfer(&actor, &team, &body.to).await?;
    done()
}
