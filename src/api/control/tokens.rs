//! Personal API tokens: of who asks, and those that are for one team only.

use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, At, By, Json, done, json},
    page::PageOf,
};
use crate::control::{Permission, TokenRequest, TokenView};

/// A token that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct TokenBody {
    /// What it is for, 1 to 80 characters.
    name: String,
    /// What it may do, where its owner may; at least one.
    #[schema(min_items = 1)]
    scopes: Vec<Permission>,
    /// The only team that it is for; absent = all of the account's.
    team: Option<String>,
    /// When it expires, ms since 1970; at most `control.token_lifetime` from now.
    expires_ms: i64,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct NewTokenAnswer {
    /// How it is listed.
    #[serde(flatten)]
    view: TokenView,
    /// The token itself, shown this once.
    token: String,
}

/// Lists the personal API tokens of the account
#[utoipa::path(
    get,
    path = "/v1/account/tokens",
    operation_id = "list_tokens",
    tag = "account",
    responses((status = 200, description = "All of them, the latest first", body = PageOf<TokenView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(State(state): State<ControlState>, By(actor): By) -> Answer {
    let tokens = state.control()?.tokens.list(&actor).await?;
    json(StatusCode::OK, &PageOf::all(tokens))
}

/// Makes a personal API token
#[utoipa::path(
    post,
    path = "/v1/account/tokens",
    operation_id = "create_token",
    tag = "account",
    params(("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = TokenBody,
    responses((status = 201, description = "Made", body = NewTokenAnswer), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn create(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<TokenBody>,
) -> Answer {
    let request = TokenRequest {
        name: body.name,
        scopes: body.scopes,
        team: body.team,
        expires_ms: body.expires_ms,
    };
    let made = state.control()?.tokens.create(&actor, request).await?;
    let answer = NewTokenAnswer {
        view: made.view,
        token: made.token.expose().to_owned(),
    };
    json(StatusCode::CREATED, &answer)
}

/// Revokes a personal API token of the account
#[utoipa::path(
    delete,
    path = "/v1/account/tokens/{token}",
    operation_id = "revoke_token",
    tag = "account",
    params(("token" = String, Path, description = "The token's id")),
    responses((status = 204, description = "Revoked"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn revoke(
    State(state): State<ControlState>,
    By(actor): By,
    At(token): At<String>,
) -> Answer {
    state.control()?.tokens.revoke(&actor, &token).await?;
    done()
}

/// Lists the members' tokens that are for this team only
#[utoipa::path(
    get,
    path = "/v1/teams/{team}/tokens",
    operation_id = "list_team_tokens",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id")),
    responses((status = 200, description = "All of them, the latest first", body = PageOf<TokenView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn of_team(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
) -> Answer {
    let tokens = state.control()?.tokens.of_team(&actor, &team).await?;
    json(StatusCode::OK, &PageOf::all(tokens))
}

/// Revokes a member's token that is for this team only
#[utoipa::path(
    delete,
    path = "/v1/teams/{team}/tokens/{token}",
    operation_id = "revoke_team_token",
    tag = "teams",
    params(("team" = String, Path, description = "The team's id"), ("token" = String, Path, description = "The token's id")),
    responses((status = 204, description = "Revoked"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn revoke_of_team(
    State(state): State<ControlState>,
    By(actor): By,
    At((team, token)): At<(String, String)>,
) -> Answer {
    let tokens = &state.control()?.tokens;
    tokens.revoke_of_team(&actor, &team, &token).await?;
    done()
}
