//! `/v1/teams/{team}/members`.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, At, By, Json, done, json},
    page::PageOf,
};
use crate::control::{MemberView, Role};

/// A role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RoleBody {
    /// Not above that of who asks.
    role: Role,
}

/// Lists the members of a team
#[utoipa::path(
    get,
    path = "/v1/teams/{team}/members",
    operation_id = "list_members",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id")),
    responses((status = 200, description = "All of them, in the order in which they came", body = PageOf<MemberView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
) -> Answer {
    let members = state.control()?.teams.members(&actor, &team).await?;
    json(StatusCode::OK, &PageOf::all(members))
}

/// Gives a member another role
#[utoipa::path(
    patch,
    path = "/v1/teams/{team}/members/{account}",
    operation_id = "set_role",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id"), ("account" = String, Path, description = "The member's account")),
    request_body = RoleBody,
    responses((status = 204, description = "It has"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn set_role(
    State(state): State<ControlState>,
    By(actor): By,
    At((team, account)): At<(String, String)>,
    Json(body): Json<RoleBody>,
) -> Answer {
    let teams = &state.control()?.teams;
    teams.set_role(&actor, &team, &account, body.role).await?;
    done()
}

/// Removes a member
#[utoipa::path(
    delete,
    path = "/v1/teams/{team}/members/{account}",
    operation_id = "remove_member",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id"), ("account" = String, Path, description = "The member's account")),
    responses((status = 204, description = "Removed"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn remove(
    State(state): State<ControlState>,
    By(actor): By,
    At((team, account)): At<(String, String)>,
) -> Answer {
    state.control()?.teams.remove(&actor, &team, &account).await?;
    done()
}
