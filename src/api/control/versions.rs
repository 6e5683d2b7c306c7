//! `/v1/apps/{app}/versions`.

use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ControlState,
    apps::AppView,
    error::Failures,
    extract::{Answer, AppAt, At, By, Seen, json, tagged},
    page::{PageOf, PageParams},
};
use crate::{
    api::{error::ApiError, extract::Params},
    control::{Change, apps::Version},
};

/// An app as it was, or is.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct VersionView {
    /// Which.
    version: u64,
    /// Who had made it: an account, or `operator`.
    author: String,
    /// When, ms since 1970.
    changed_ms: i64,
    /// What it had otherwise than the one before.
    changes: Vec<Change>,
    /// Its features.
    flags: Vec<String>,
    /// Its settings.
    #[schema(value_type = Object)]
    settings: Value,
}

impl From<Version> for VersionView {
    fn from(version: Version) -> Self {
        Self {
            version: version.version,
            author: version.author,
            changed_ms: version.changed_ms,
            changes: version.changes,
            flags: version.flags,
            settings: version.settings,
        }
    }
}

/// Lists the versions of an app
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/versions",
    operation_id = "list_versions",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), PageParams),
    responses((status = 200, description = "A page, the newest first", body = PageOf<VersionView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    Params(page): Params<PageParams>,
) -> Answer {
    let limit = page.limit()?;
    let before = page.cursor.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| ApiError::field("cursor", "not a cursor"))?;
    let more = state.apps()?.versions(&actor, &id, before, limit + 1).await?;
    let views = more.into_iter().map(VersionView::from);
    let page = PageOf::cut(views.collect(), limit, |version| version.version.to_string());
    json(StatusCode::OK, &page)
}

/// Tells about a version of an app
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/versions/{version}",
    operation_id = "get_version",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("version" = u64, Path, description = "Which")),
    responses((status = 200, description = "The version", body = VersionView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn get(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    At((_, version)): At<(String, u64)>,
) -> Answer {
    let version = state.apps()?.version(&actor, &id, version).await?;
    json(StatusCode::OK, &VersionView::from(version))
}

/// Goes back to the settings and features of a version
///
/// As a new version. Keys stay as they are.
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/versions/{version}/roll-back",
    operation_id = "roll_back_app",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("version" = u64, Path, description = "Which"), ("If-Match" = Option<String>, Header, description = "The ETag that the caller has seen"), ("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    responses((status = 200, description = "As it is now", body = AppView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn roll_back(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    At((_, version)): At<(String, u64)>,
    Seen(seen): Seen,
) -> Answer {
    let settled = state.apps()?.roll_back(&actor, &id, version, seen).await?;
    let published = Some(settled.published);
    let version = settled.app.version;
    tagged(
        StatusCode::OK,
        version,
        &AppView::new(&id, settled.app, published),
    )
}
