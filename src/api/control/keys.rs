//! `/v1/apps/{app}/keys`.

use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, AppAt, At, By, Json, done, json},
    page::PageOf,
};
use crate::{
    api::error::ApiError,
    control::{
        Permission,
        apps::{Created, KeyDocument},
    },
    usage,
};

/// The longest overlap of a rotation, seconds: 90 days.
const MAX_OVERLAP: u32 = 90 * 86_400;

/// A key that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct KeyBody {
    /// What people call it, at most 100 bytes.
    name: String,
    /// Whether tokens are signed with it too; its text is kept, sealed, then.
    #[serde(default)]
    signs: bool,
}

/// How a key is replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RotateBody {
    /// So many seconds the old one is good besides; at most 90 days. 0: it is revoked at once.
    #[schema(maximum = 7_776_000)]
    overlap_seconds: u32,
}

/// When a key ends.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct EndBody {
    /// Seconds since 1970. An end that is there already is not moved back.
    until: i64,
}

/// A key, without its text.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct KeyView {
    /// What it is known by; the `kid` of tokens.
    id: String,
    /// What people call it.
    name: String,
    /// Whether tokens are signed with it.
    signs: bool,
    /// Until when it is good, seconds since 1970; null: for good.
    until: Option<i64>,
    /// When it was made, ms since 1970.
    created_ms: i64,
    /// When it was last used, to the minute, ms since 1970; null: not within `usage.keep_days`, or it is not known
    /// here. Only told with the list of keys.
    used_ms: Option<i64>,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct NewKeyAnswer {
    /// How it is listed.
    #[serde(flatten)]
    view: KeyView,
    /// The key itself, shown this once.
    key: String,
}

impl From<&KeyDocument> for KeyView {
    fn from(key: &KeyDocument) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            signs: key.secret.is_some(),
            until: key.until,
            created_ms: key.created_ms,
            used_ms: None,
        }
    }
}

/// Lists the keys of an app
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/keys",
    operation_id = "list_keys",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id")),
    responses((status = 200, description = "All of them", body = PageOf<KeyView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
) -> Answer {
    let app = state.apps()?.get(&actor, &id, Permission::KeysRead).await?;
    let used = usage::last_used(&*state.services()?.store, &id).await?;
    let keys = app.keys.iter().map(|key| KeyView {
        used_ms: used.get(&key.id).copied(),
        ..KeyView::from(key)
    });
    json(StatusCode::OK, &PageOf::all(keys.collect()))
}

/// Makes a key
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/keys",
    operation_id = "create_key",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = KeyBody,
    responses((status = 201, description = "Made", body = NewKeyAnswer), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn create(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    Json(body): Json<KeyBody>,
) -> Answer {
    let apps = state.apps()?;
    shown(&apps.create_key(&actor, &id, &body.name, body.signs).await?)
}

/// Revokes a key
///
/// At once, on all nodes. Connections whose tokens were signed with it are closed (3500).
#[utoipa::path(
    delete,
    path = "/v1/apps/{app}/keys/{key}",
    operation_id = "revoke_key",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("key" = String, Path, description = "The key's id")),
    responses((status = 204, description = "Revoked"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn revoke(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    At((_, key)): At<(String, String)>,
) -> Answer {
    state.apps()?.end_key(&actor, &id, &key, None).await?;
    done()
}

/// Has a key end at a time
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/keys/{key}/end",
    operation_id = "end_key",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("key" = String, Path, description = "The key's id")),
    request_body = EndBody,
    responses((status = 204, description = "It will"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn end(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    At((_, key)): At<(String, String)>,
    Json(body): Json<EndBody>,
) -> Answer {
    let apps = state.apps()?;
    apps.end_key(&actor, &id, &key, Some(body.until)).await?;
    done()
}

/// Makes a key in the place of another
///
/// Both are good for as long as they overlap.
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/keys/{key}/rotate",
    operation_id = "rotate_key",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("key" = String, Path, description = "The key's id"), ("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = RotateBody,
    responses((status = 201, description = "Made", body = NewKeyAnswer), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn rotate(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    At((_, key)): At<(String, String)>,
    Json(body): Json<RotateBody>,
) -> Answer {
    if body.overlap_seconds > MAX_OVERLAP {
        return Err(ApiError::field("overlap_seconds", format!("at most {MAX_OVERLAP}")).into());
    }
    let apps = state.apps()?;
    shown(&apps.rotate_key(&actor, &id, &key, body.overlap_seconds).await?)
}

fn shown(created: &Created) -> Answer {
    let keys = &created.settled.app.keys;
    let made = keys.iter().find(|key| key.id == created.id);
    let made = made.ok_or(crate::control::ControlError::Internal)?;
    let answer = NewKeyAnswer {
        view: made.into(),
        key: created.text.expose().to_owned(),
    };
    json(StatusCode::CREATED, &answer)
}
