//! What only the operator does: first accounts, and invitations to sign up.

use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ControlState,
    auth::AddressBody,
    error::Failures,
    extract::{Answer, By, Hidden, Json, json, tagged},
};
use crate::control::AccountView;

/// An account that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct AccountBody {
    /// The e-mail address, which counts as verified.
    email: String,
    /// The name, 1 to 80 characters.
    name: String,
    /// The password.
    password: Hidden,
}

/// An invitation to sign up.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct InvitationAnswer {
    /// What the link holds: for an operator without a mail server.
    invitation: String,
}

/// Makes an account
///
/// With the operator's key.
#[utoipa::path(
    post,
    path = "/v1/accounts",
    operation_id = "create_account",
    tag = "operator",
    params(("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = AccountBody,
    responses((status = 201, description = "Made", body = AccountView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn create_account(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<AccountBody>,
) -> Answer {
    let password = body.password.into_secret();
    let accounts = &state.control()?.accounts;
    let account = accounts
        .create(&actor, &body.email, &body.name, &password)
        .await?;
    tagged(StatusCode::CREATED, account.revision, &account)
}

/// Invites an address to make an account
///
/// With the operator's key.
#[utoipa::path(
    post,
    path = "/v1/invitations",
    operation_id = "invite_to_sign_up",
    tag = "operator",
    params(("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = AddressBody,
    responses((status = 201, description = "Made, and on its way if there is a mail server", body = InvitationAnswer), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn invite(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<AddressBody>,
) -> Answer {
    let teams = &state.control()?.teams;
    let secret = teams.invite_to_sign_up(&actor, &body.email).await?;
    let answer = InvitationAnswer {
        invitation: secret.expose().to_owned(),
    };
    json(StatusCode::CREATED, &answer)
}
