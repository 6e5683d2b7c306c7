//! `/v1/apps`, and the apps of a team.

use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, AppAt, At, By, Json, Seen, done, json, tagged},
    keys::KeyView,
    page::{PageOf, PageParams},
};
use crate::{
    api::{error::ApiError, extract::Params},
    control::{AppChange, AppRequest, Permission, apps::AppDocument, plan::Quotas},
    model::AppId,
};

/// An app that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct AppBody {
    /// Its id, for good: 1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter or digit. Absent: one is
    /// made up.
    id: Option<String>,
    /// What people call it, 1 to 100 bytes.
    name: String,
    /// Where it is meant to run.
    #[serde(default)]
    region: String,
    /// Its plan; absent: the one of the deployment.
    plan: Option<String>,
    /// Features that its plan must allow.
    #[serde(default)]
    flags: Vec<String>,
    /// Keys of `[[apps]]` of the configuration, except for its id and secrets; absent: the defaults.
    #[schema(value_type = Option<Object>)]
    settings: Option<Value>,
}

/// What is to be changed of an app; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct AppPatch {
    /// Another name.
    name: Option<String>,
    /// Another region.
    region: Option<String>,
    /// Other features.
    flags: Option<Vec<String>>,
    /// Another plan; null: none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    plan: Option<Option<String>>,
    /// Other settings instead of all that it has.
    #[schema(value_type = Option<Object>)]
    settings: Option<Value>,
}

/// An app.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct AppView {
    /// Its id.
    id: String,
    /// Whose it is.
    team: String,
    /// What people call it.
    name: String,
    /// Where it is meant to run.
    region: String,
    /// Its plan; null: none, which has no limits.
    plan: Option<String>,
    /// Its features.
    flags: Vec<String>,
    /// Keys of `[[apps]]` of the configuration.
    #[schema(value_type = Object)]
    settings: Value,
    /// Its keys, without their texts.
    keys: Vec<KeyView>,
    /// Which version this is: the ETag too.
    version: u64,
    /// Who has made this version: an account, or `operator`.
    author: String,
    /// When this version was made, ms since 1970.
    changed_ms: i64,
    /// When the app was made, ms since 1970.
    created_ms: i64,
    /// Whether the nodes have been told; if not they will be. Absent where nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<bool>,
}

/// What the plan of an app allows.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct QuotasAnswer {
    /// The plan; null: none, which has no limits.
    plan: Option<String>,
    /// What is absent has no limit.
    #[schema(inline)]
    quotas: Quotas,
}

impl AppView {
    pub(super) fn new(id: &AppId, app: AppDocument, published: Option<bool>) -> Self {
        Self {
            id: id.as_str().to_owned(),
            team: app.team,
            name: app.name,
            region: app.region,
            plan: app.plan,
            flags: app.flags,
            settings: app.settings,
            keys: app.keys.iter().map(KeyView::from).collect(),
            version: app.version,
            author: app.author,
            changed_ms: app.changed_ms,
            created_ms: app.created_ms,
            published,
        }
    }
}

/// Tells null from what is absent.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

pub(super) fn app_id(text: &str) -> Result<AppId, ApiError> {
    AppId::new(text).map_err(|error| ApiError::field("id", error.to_string()))
}

/// Lists the apps of a team
#[utoipa::path(
    get,
    path = "/v1/teams/{team}/apps",
    operation_id = "list_apps",
    tag = "apps",
    params(("team" = String, Path, description = "The team's id"), PageParams),
    responses((status = 200, description = "A page, in the order of ids", body = PageOf<AppView>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
    Params(page): Params<PageParams>,
) -> Answer {
    let limit = page.limit()?;
    let after = page.cursor.as_deref().map(app_id).transpose()?;
    let more = state
        .apps()?
        .list(&actor, &team, after.as_ref(), limit + 1)
        .await?;
    let views = more.into_iter().map(|(id, app)| AppView::new(&id, app, None));
    let page = PageOf::cut(views.collect(), limit, |app| app.id.clone());
    json(StatusCode::OK, &page)
}

/// Makes an app
#[utoipa::path(
    post,
    path = "/v1/teams/{team}/apps",
    operation_id = "create_app",
    tag = "apps",
    params(("team" = String, Path, description = "The team's id"), ("Idempotency-Key" = Option<String>, Header, description = "The request is done once; sent again it is answered as before")),
    request_body = AppBody,
    responses((status = 201, description = "Made", body = AppView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn create(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
    Json(body): Json<AppBody>,
) -> Answer {
    let request = AppRequest {
        id: body.id.as_deref().map(app_id).transpose()?,
        name: body.name,
        region: body.region,
        plan: body.plan,
        flags: body.flags,
        settings: body.settings,
    };
    let (id, settled) = state.apps()?.create(&actor, &team, request).await?;
    let view = AppView::new(&id, settled.app, Some(settled.published));
    tagged(StatusCode::CREATED, view.version, &view)
}

/// Tells about an app
#[utoipa::path(
    get,
    path = "/v1/apps/{app}",
    operation_id = "get_app",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id")),
    responses((status = 200, description = "The app", body = AppView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn get(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
) -> Answer {
    let app = state.apps()?.get(&actor, &id, Permission::AppsRead).await?;
    tagged(StatusCode::OK, app.version, &AppView::new(&id, app, None))
}

/// Changes an app
///
/// As one version. It is checked as a whole: if it cannot be so, every reason is told and nothing is changed.
#[utoipa::path(
    patch,
    path = "/v1/apps/{app}",
    operation_id = "change_app",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("If-Match" = Option<String>, Header, description = "The ETag that the caller has seen")),
    request_body = AppPatch,
    responses((status = 200, description = "As it is now", body = AppView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn change(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    Seen(seen): Seen,
    Json(body): Json<AppPatch>,
) -> Answer {
    let change = AppChange {
        name: body.name,
        region: body.region,
        settings: body.settings,
        flags: body.flags,
        plan: body.plan,
    };
    let settled = state.apps()?.change(&actor, &id, change, seen).await?;
    let view = AppView::new(&id, settled.app, Some(settled.published));
    tagged(StatusCode::OK, view.version, &view)
}

/// Deletes an app
///
/// Its connections are closed. Its id is never given again.
#[utoipa::path(
    delete,
    path = "/v1/apps/{app}",
    operation_id = "delete_app",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), ("If-Match" = Option<String>, Header, description = "The ETag that the caller has seen")),
    responses((status = 204, description = "Deleted"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn delete(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    Seen(seen): Seen,
) -> Answer {
    state.apps()?.delete(&actor, &id, seen).await?;
    done()
}

/// Tells what the plan of an app allows
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/quotas",
    operation_id = "get_quotas",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id")),
    responses((status = 200, description = "What it allows", body = QuotasAnswer), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn quotas(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
) -> Answer {
    let (plan, quotas) = state.apps()?.quotas(&actor, &id).await?;
    json(StatusCode::OK, &QuotasAnswer { plan, quotas })
}
