//! `/v1/apps/{app}/schemas`.

use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, AppAt, By, json},
};

/// The schemas of an app.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct SchemasView {
    /// By namespace, of those that have any.
    items: Vec<NamespaceView>,
}

/// The schemas of a namespace.
#[derive(Serialize, ToSchema)]
struct NamespaceView {
    /// Its name; empty: of channels without a namespace.
    namespace: String,
    /// Ascending; the latest counts where a publication names none.
    versions: Vec<SchemaView>,
}

/// A version of a schema.
#[derive(Serialize, ToSchema)]
struct SchemaView {
    /// Which: what is published has it as the tag `schema_version`.
    version: u32,
    /// JSON Schema 2020-12.
    #[schema(value_type = Object)]
    schema: Value,
}

/// Lists the schemas of an app
///
/// For programs that are made from them: they need no more than this permission.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/schemas",
    operation_id = "list_schemas",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id")),
    responses((status = 200, description = "All of them", body = SchemasView), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn list(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
) -> Answer {
    let schemas = state.apps()?.schemas(&actor, &id).await?;
    let items = schemas.into_iter().map(|(namespace, versions)| NamespaceView {
        namespace,
        versions: versions
            .into_iter()
            .map(|version| SchemaView {
                version: version.version,
                schema: Value::clone(&version.schema),
            })
            .collect(),
    });
    json(
        StatusCode::OK,
        &SchemasView {
            items: items.collect(),
        },
    )
}
