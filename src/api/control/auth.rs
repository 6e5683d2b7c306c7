//! `/v1/auth`: signing up, in and out.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, By, Hidden, Json, done, json},
};
use crate::{
    config::Secret,
    control::{AccountView, Login, SessionTokens, SignUpRequest},
};

/// How accounts are made here.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct AboutAnswer {
    /// `open`: everybody may sign up. `invitation`: who holds one.
    sign_up: &'static str,
}

/// Somebody who wants an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SignUpBody {
    /// The e-mail address.
    email: String,
    /// The name, 1 to 80 characters.
    name: String,
    /// The password.
    password: Hidden,
    /// What the link of an invitation holds, if there is one.
    invitation: Option<Hidden>,
}

/// What the link of a letter holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct LinkBody {
    /// What stands behind `#token=` in the link.
    token: Hidden,
}

impl LinkBody {
    pub(super) fn into_secret(self) -> Secret {
        self.token.into_secret()
    }
}

/// What the link of a letter holds, and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct LinkAndPassword {
    /// What stands behind `#token=` in the link.
    token: Hidden,
    /// The password: to verify an address the one of the account, to reset it the new one.
    password: Hidden,
}

/// An address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct AddressBody {
    /// The e-mail address.
    pub(super) email: String,
}

/// Somebody who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct LoginBody {
    /// The e-mail address.
    email: String,
    /// The password.
    password: Hidden,
    /// A code of the second factor, or a recovery code, if the account has one.
    code: Option<Hidden>,
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RefreshBody {
    /// The refresh token; it is worth nothing afterwards.
    refresh_token: Hidden,
}

/// What a client keeps of its session.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct SessionAnswer {
    /// The account's id.
    account: String,
    /// The session's id.
    session: String,
    /// `Authorization: Bearer` of each request.
    access_token: String,
    /// When that expires, ms since 1970.
    access_expires_ms: i64,
    /// For new tokens; replaced each time.
    refresh_token: String,
    /// When that expires if it is not used, ms since 1970.
    refresh_expires_ms: i64,
}

impl From<SessionTokens> for SessionAnswer {
    fn from(tokens: SessionTokens) -> Self {
        Self {
            account: tokens.account,
            session: tokens.session,
            access_token: tokens.access_token.expose().to_owned(),
            access_expires_ms: tokens.access_expires_ms,
            refresh_token: tokens.refresh_token.expose().to_owned(),
            refresh_expires_ms: tokens.refresh_expires_ms,
        }
    }
}

/// Tells how accounts are made
///
/// Whether a page that offers to sign up has a point.
#[utoipa::path(
    get,
    path = "/v1/auth",
    operation_id = "about_auth",
    tag = "sign-in",
    responses((status = 200, description = "As it is", body = AboutAnswer), Failures),
)]
pub(in crate::api) async fn about(State(state): State<ControlState>) -> Answer {
    let sign_up = if state.control()?.is_open() {
        "open"
    } else {
        "invitation"
    };
    json(StatusCode::OK, &AboutAnswer { sign_up })
}

/// Makes an account
///
/// Without an invitation a letter tells how it goes on, whether the address has an account or not. With one
/// the address is verified by it, and the account a member of the team.
#[utoipa::path(
    post,
    path = "/v1/auth/sign-up",
    operation_id = "sign_up",
    tag = "sign-in",
    request_body = SignUpBody,
    responses((status = 201, description = "The account that an invitation was for", body = AccountView), (status = 202, description = "A letter was sent"), Failures),
)]
pub(in crate::api) async fn sign_up(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<SignUpBody>,
) -> Answer {
    let request = SignUpRequest {
        email: body.email,
        name: body.name,
        password: body.password.into_secret(),
        invitation: body.invitation.map(Hidden::into_secret),
    };
    match state.control()?.accounts.sign_up(&actor, request).await? {
        Some(account) => json(StatusCode::CREATED, &account),
        None => Ok(accepted()),
    }
}

/// Verifies an e-mail address
///
/// By the link of a letter, for who knows the account's password.
#[utoipa::path(
    post,
    path = "/v1/auth/verify",
    operation_id = "verify_email",
    tag = "sign-in",
    request_body = LinkAndPassword,
    responses((status = 204, description = "Verified: sign in"), Failures),
)]
pub(in crate::api) async fn verify(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<LinkAndPassword>,
) -> Answer {
    let (token, password) = (body.token.into_secret(), body.password.into_secret());
    state
        .control()?
        .accounts
        .verify_email(&actor, &token, &password)
        .await?;
    done()
}

/// Sends the letter that verifies an address again
#[utoipa::path(
    post,
    path = "/v1/auth/verify/resend",
    operation_id = "resend_verification",
    tag = "sign-in",
    request_body = AddressBody,
    responses((status = 202, description = "A letter is sent if the address needs one"), Failures),
)]
pub(in crate::api) async fn resend(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<AddressBody>,
) -> Answer {
    let accounts = &state.control()?.accounts;
    accounts.resend_verification(&actor, &body.email).await?;
    Ok(accepted())
}

/// Signs in
#[utoipa::path(
    post,
    path = "/v1/auth/login",
    operation_id = "login",
    tag = "sign-in",
    request_body = LoginBody,
    responses((status = 200, description = "Signed in", body = SessionAnswer), Failures),
)]
pub(in crate::api) async fn login(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<LoginBody>,
) -> Answer {
    let login = Login {
        email: body.email,
        password: body.password.into_secret(),
        code: body.code.map(Hidden::into_secret),
    };
    let signed_in = state.control()?.accounts.login(&actor, &login).await?;
    json(StatusCode::OK, &SessionAnswer::from(signed_in.tokens))
}

/// Takes new tokens
#[utoipa::path(
    post,
    path = "/v1/auth/refresh",
    operation_id = "refresh_session",
    tag = "sign-in",
    request_body = RefreshBody,
    responses((status = 200, description = "New tokens", body = SessionAnswer), Failures),
)]
pub(in crate::api) async fn refresh(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<RefreshBody>,
) -> Answer {
    let token = body.refresh_token.into_secret();
    let tokens = state.control()?.sessions.refresh(&actor, &token).await?;
    json(StatusCode::OK, &SessionAnswer::from(tokens))
}

/// Sends a link that sets a new password
#[utoipa::path(
    post,
    path = "/v1/auth/reset/request",
    operation_id = "request_reset",
    tag = "sign-in",
    request_body = AddressBody,
    responses((status = 202, description = "A letter is sent if the address has an account"), Failures),
)]
pub(in crate::api) async fn request_reset(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<AddressBody>,
) -> Answer {
    let accounts = &state.control()?.accounts;
    accounts.request_reset(&actor, &body.email).await?;
    Ok(accepted())
}

/// Sets a new password by a link
///
/// All sessions end.
#[utoipa::path(
    post,
    path = "/v1/auth/reset",
    operation_id = "reset_password",
    tag = "sign-in",
    request_body = LinkAndPassword,
    responses((status = 204, description = "Set: sign in"), Failures),
)]
pub(in crate::api) async fn reset(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<LinkAndPassword>,
) -> Answer {
    let (token, password) = (body.token.into_secret(), body.password.into_secret());
    state
        .control()?
        .accounts
        .reset_password(&actor, &token, &password)
        .await?;
    done()
}

/// Makes a new address the account's, by the link that was sent there
#[utoipa::path(
    post,
    path = "/v1/auth/email",
    operation_id = "confirm_email",
    tag = "sign-in",
    request_body = LinkBody,
    responses((status = 204, description = "It is"), Failures),
)]
pub(in crate::api) async fn confirm_email(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<LinkBody>,
) -> Answer {
    let token = body.into_secret();
    state.control()?.accounts.confirm_email(&actor, &token).await?;
    done()
}

/// Ends the session
#[utoipa::path(
    post,
    path = "/v1/auth/logout",
    operation_id = "logout",
    tag = "sign-in",
    responses((status = 204, description = "Ended"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn logout(State(state): State<ControlState>, By(actor): By) -> Answer {
    state.control()?.sessions.logout(&actor).await?;
    done()
}

/// Ends all sessions of the account
#[utoipa::path(
    post,
    path = "/v1/auth/logout-everywhere",
    operation_id = "logout_everywhere",
    tag = "sign-in",
    responses((status = 204, description = "Ended"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn logout_everywhere(State(state): State<ControlState>, By(actor): By) -> Answer {
    state.control()?.sessions.logout_everywhere(&actor).await?;
    done()
}

/// A letter follows.
fn accepted() -> Response {
    use axum::response::IntoResponse;
    StatusCode::ACCEPTED.into_response()
}
