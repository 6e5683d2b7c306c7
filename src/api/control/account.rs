//! `/v1/account`: what concerns the account of who asks.

use axum::{extract::State, http::StatusCode, response::IntoResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, At, By, Hidden, Json, Seen, done, json, tagged},
    page::PageOf,
};
use crate::{
    config::Secret,
    control::{AccountView, SessionView},
};

/// A name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NameBody {
    /// 1 to 80 characters.
    pub(super) name: String,
}

/// The password, again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PasswordBody {
    /// The account's password.
    password: Hidden,
}

/// The password, again, and a code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PasswordAndCode {
    /// The account's password.
    password: Hidden,
    /// A code of the second factor, or a recovery code.
    code: Hidden,
}

/// The password, again, and a code if there is a second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct DeleteBody {
    /// The account's password.
    password: Hidden,
    /// A code of the second factor, or a recovery code.
    code: Option<Hidden>,
}

/// The old password and the new one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewPasswordBody {
    /// The account's password.
    old: Hidden,
    /// The new one.
    new: Hidden,
}

/// The password, again, and another address.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewEmailBody {
    /// The account's password.
    password: Hidden,
    /// The new address.
    email: String,
}

/// A code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CodeBody {
    /// Of the authenticator.
    code: Hidden,
}

/// A second factor that is being set up.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct EnrolmentAnswer {
    /// The seed in base32, to be typed.
    seed: String,
    /// The same as an `otpauth:` URL, for a QR code.
    url: String,
}

/// Recovery codes, shown this once.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct RecoveryCodes {
    /// Each counts once.
    recovery_codes: Vec<String>,
}

/// Tells about the account
#[utoipa::path(
    get,
    path = "/v1/account",
    operation_id = "get_account",
    tag = "account",
    responses((status = 200, description = "The account of who asks", body = AccountView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn get(State(state): State<ControlState>, By(actor): By) -> Answer {
    let account = state.control()?.accounts.get(&actor).await?;
    tagged(StatusCode::OK, account.revision, &account)
}

/// Gives the account another name
#[utoipa::path(
    patch,
    path = "/v1/account",
    operation_id = "rename_account",
    tag = "account",
    params(("If-Match" = Option<String>, Header, description = "The ETag that the caller has seen")),
    request_body = NameBody,
    responses((status = 200, description = "As it is now", body = AccountView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn rename(
    State(state): State<ControlState>,
    By(actor): By,
    Seen(seen): Seen,
    Json(body): Json<NameBody>,
) -> Answer {
    let accounts = &state.control()?.accounts;
    let account = accounts.rename(&actor, &body.name, seen).await?;
    tagged(StatusCode::OK, account.revision, &account)
}

/// Deletes the account
///
/// With its sessions and tokens. Teams whose last owner it is are deleted too, and must have no apps.
#[utoipa::path(
    post,
    path = "/v1/account/delete",
    operation_id = "delete_account",
    tag = "account",
    request_body = DeleteBody,
    responses((status = 204, description = "Deleted"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn delete(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<DeleteBody>,
) -> Answer {
    let (password, code) = (body.password.into_secret(), body.code.map(Hidden::into_secret));
    let accounts = &state.control()?.accounts;
    accounts.delete(&actor, &password, code.as_ref()).await?;
    done()
}

/// Sets another password
///
/// All other sessions end.
#[utoipa::path(
    post,
    path = "/v1/account/password",
    operation_id = "change_password",
    tag = "account",
    request_body = NewPasswordBody,
    responses((status = 204, description = "Set"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn password(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<NewPasswordBody>,
) -> Answer {
    let (old, new) = (body.old.into_secret(), body.new.into_secret());
    let accounts = &state.control()?.accounts;
    accounts.change_password(&actor, &old, &new).await?;
    done()
}

/// Sends a link to another address, which becomes the account's when it is opened
#[utoipa::path(
    post,
    path = "/v1/account/email",
    operation_id = "change_email",
    tag = "account",
    request_body = NewEmailBody,
    responses((status = 202, description = "A letter is sent to the new address"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn email(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<NewEmailBody>,
) -> Answer {
    let password = body.password.into_secret();
    let accounts = &state.control()?.accounts;
    accounts.change_email(&actor, &password, &body.email).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Begins to set up a second factor
///
/// Nothing changes until it is confirmed.
#[utoipa::path(
    post,
    path = "/v1/account/second-factor",
    operation_id = "begin_second_factor",
    tag = "account",
    request_body = PasswordBody,
    responses((status = 200, description = "For the authenticator", body = EnrolmentAnswer), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn begin_second_factor(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<PasswordBody>,
) -> Answer {
    let password = body.password.into_secret();
    let accounts = &state.control()?.accounts;
    let enrolment = accounts.begin_second_factor(&actor, &password).await?;
    let answer = EnrolmentAnswer {
        seed: enrolment.seed.expose().to_owned(),
        url: enrolment.url.expose().to_owned(),
    };
    json(StatusCode::OK, &answer)
}

/// Turns the second factor on
#[utoipa::path(
    post,
    path = "/v1/account/second-factor/confirm",
    operation_id = "confirm_second_factor",
    tag = "account",
    request_body = CodeBody,
    responses((status = 200, description = "On", body = RecoveryCodes), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn confirm_second_factor(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<CodeBody>,
) -> Answer {
    let code = body.code.into_secret();
    let accounts = &state.control()?.accounts;
    shown(&accounts.confirm_second_factor(&actor, &code).await?)
}

/// Turns the second factor off
#[utoipa::path(
    post,
    path = "/v1/account/second-factor/disable",
    operation_id = "disable_second_factor",
    tag = "account",
    request_body = PasswordAndCode,
    responses((status = 204, description = "Off"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn disable_second_factor(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<PasswordAndCode>,
) -> Answer {
    let (password, code) = (body.password.into_secret(), body.code.into_secret());
    let accounts = &state.control()?.accounts;
    accounts.disable_second_factor(&actor, &password, &code).await?;
    done()
}

/// Makes new recovery codes
///
/// The old ones are worth nothing then.
#[utoipa::path(
    post,
    path = "/v1/account/second-factor/recovery-codes",
    operation_id = "renew_recovery_codes",
    tag = "account",
    request_body = PasswordAndCode,
    responses((status = 200, description = "New ones", body = RecoveryCodes), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn recovery_codes(
    State(state): State<ControlState>,
    By(actor): By,
    Json(body): Json<PasswordAndCode>,
) -> Answer {
    let (password, code) = (body.password.into_secret(), body.code.into_secret());
    let accounts = &state.control()?.accounts;
    shown(&accounts.renew_recovery_codes(&actor, &password, &code).await?)
}

/// Lists the sessions of the account
#[utoipa::path(
    get,
    path = "/v1/account/sessions",
    operation_id = "list_sessions",
    tag = "account",
    responses((status = 200, description = "All of them", body = PageOf<SessionView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn sessions(State(state): State<ControlState>, By(actor): By) -> Answer {
    let sessions = state.control()?.sessions.list(&actor).await?;
    json(StatusCode::OK, &PageOf::all(sessions))
}

/// Ends a session of the account
#[utoipa::path(
    delete,
    path = "/v1/account/sessions/{session}",
    operation_id = "end_session",
    tag = "account",
    params(("session" = String, Path, description = "The session's id")),
    responses((status = 204, description = "Ended"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn end_session(
    State(state): State<ControlState>,
    By(actor): By,
    At(session): At<String>,
) -> Answer {
    state.control()?.sessions.end(&actor, &session).await?;
    done()
}

fn shown(codes: &[Secret]) -> Answer {
    let codes = codes.iter().map(|code| code.expose().to_owned());
    let answer = RecoveryCodes {
        recovery_codes: codes.collect(),
    };
    json(StatusCode::OK, &answer)
}
