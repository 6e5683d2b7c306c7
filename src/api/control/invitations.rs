//! Invitations to a team.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    ControlState,
    auth::LinkBody,
    error::Failures,
    extract::{Answer, At, By, Json, done, json, tagged},
    page::PageOf,
};
use crate::control::{InvitationView, Role, TeamView};

/// Somebody who is to be a member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct InvitationBody {
    /// The e-mail address.
    email: String,
    /// Not above that of who asks.
    role: Role,
}

/// Lists the open invitations of a team
#[utoipa::path(
    get,
    path = "/v1/teams/{team}/invitations",
    operation_id = "list_invitations",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id")),
    responses((status = 200, description = "All of them", body = PageOf<InvitationView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
) -> Answer {
    let invitations = state.control()?.teams.invitations(&actor, &team).await?;
    json(StatusCode::OK, &PageOf::all(invitations))
}

/// Invites an address to a team, by a letter
#[utoipa::path(
    post,
    path = "/v1/teams/{team}/invitations",
    operation_id = "create_invitation",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id"), ("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = InvitationBody,
    responses((status = 201, description = "Made, and on its way", body = InvitationView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn create(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
    Json(body): Json<InvitationBody>,
) -> Answer {
    let teams = &state.control()?.teams;
    let invitation = teams.invite(&actor, &team, &body.email, body.role).await?;
    json(StatusCode::CREATED, &invitation)
}

/// Withdraws an invitation
#[utoipa::path(
    delete,
    path = "/v1/teams/{team}/invitations/{invitation}",
    operation_id = "withdraw_invitation",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id"), ("invitation" = String, Path, description = "The invitation's id")),
    responses((status = 204, description = "Withdrawn"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn withdraw(
    State(state): State<ControlState>,
    By(actor): By,
    At((team, invitation)): At<(String, String)>,
) -> Answer {
    let teams = &state.control()?.teams;
    teams.withdraw(&actor, &team, &invitation).await?;
    done()
}

/// Accepts an invitation, by its link
#[utoipa::path(
    post,
    path = "/v1/invitations/accept",
    operation_id = "accept_invitation",
    tag = "teams",
    request_body = LinkBody,
    responses((status = 200, description = "The team that one is a member of now", body = TeamView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn accept(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<LinkBody>,
) -> Answer {
    let token = body.into_secret();
    let team = state.control()?.teams.accept(&actor, &token).await?;
    tagged(StatusCode::OK, team.revision, &team)
}
