//! The OpenAPI 3.1 document, made from the handlers and the types they read.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};

use super::{ApiState, control::openapi::ControlDocument, operations, server, v1};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Slipstream",
        description = "Publish, read and remove the publications of channels. See docs/api.md.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        v1::publish,
        v1::history,
        v1::remove,
        v1::queue,
        v1::channels,
        v1::presence,
        v1::presence_stats,
        v1::nodes,
        v1::online,
        v1::disconnect,
        v1::unsubscribe,
        v1::subscribe,
        v1::refresh,
        v1::message,
        v1::revoke,
        v1::revocations,
        v1::restore,
        serve,
        server::publish,
        server::broadcast,
        server::history,
        server::history_remove,
        server::subscribe,
        server::unsubscribe,
        server::disconnect,
        server::refresh,
        server::presence,
        server::presence_stats,
        server::channels,
        server::info,
        server::batch,
        server::other,
        server::legacy,
        operations::healthz,
        operations::readyz,
        operations::metrics,
    ),
    components(schemas(
        v1::BatchAnswer,
        v1::BatchResult,
        v1::Item,
        v1::PublicationBody,
        v1::PublishAnswer,
    )),
    modifiers(&Security),
    tags(
        (name = "channels", description = "REST"),
        (name = "users", description = "REST: the connections of a user, on all nodes"),
        (name = "nodes", description = "REST: the nodes of the deployment"),
        (name = "revocations", description = "REST: tokens that are worth nothing any more"),
        (name = "server API", description = "Compatible with Centrifugo's server API"),
        (name = "operations", description = "For supervisors, load balancers and Prometheus"),
    )
)]
struct Document;

/// How a backend shows its key, and a person or a program its token.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let in_header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        let in_query = ApiKey::Query(ApiKeyValue::new("api_key"));
        for (name, scheme) in [
            ("api_key", SecurityScheme::ApiKey(in_header)),
            ("api_key_query", SecurityScheme::ApiKey(in_query)),
            ("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer))),
            ("account", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer))),
        ] {
            components.add_security_scheme(name, scheme);
        }
    }
}

/// The document as JSON.
pub fn document() -> String {
    let mut document = Document::openapi();
    document.merge(ControlDocument::openapi());
    // Writing plain data as JSON cannot fail; should it ever, the document is empty.
    document.to_json().unwrap_or_default()
}

/// This document
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "channels",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value))
)]
pub(super) async fn serve(State(state): State<ApiState>) -> Response {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (content_type, Body::from(state.openapi.clone())).into_response()
}
