//! The HTTP API of backends: REST ([`v1`]), the Centrifugo-compatible server API ([`server`]) and
//! the endpoints of operations.
//!
//! Handlers read a request, ask [`crate::publish`] or the hub, and write the answer. They know no
//! other app than the one whose key came with the request. The listener is not here.

mod control;
mod error;
mod extract;
mod front;
mod input;
mod openapi;
mod operations;
mod pipeline;
mod rates;
mod server;
mod targeting;
#[cfg(test)]
mod tests;
mod v1;

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{MethodRouter, delete, get, post},
};
use bytes::Bytes;

use crate::{
    apps::Apps,
    channel::Hub,
    config::{HttpConfig, UsersConfig},
    presence::Presence,
    publish::Publisher,
    revocation::Revocations,
    survey::Survey,
    telemetry::Metrics,
    users::Users,
};

pub use control::{ControlServices, ControlState};
pub use error::ApiError;
use extract::Intake;
pub use front::Front;
pub use openapi::document;
pub use operations::Readiness;

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

/// The parts of [`ApiState`].
pub struct Shared {
    hub: Arc<Hub>,
    presence: Arc<Presence>,
    apps: Apps,
    publisher: Publisher,
    users: Arc<Users>,
    survey: Arc<Survey>,
    revocations: Arc<Revocations>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    node: String,
    max_body_bytes: usize,
    max_answer_bytes: usize,
    max_history_bytes: usize,
    max_in_flight: usize,
    max_user_payload_bytes: usize,
    max_json_depth: usize,
    body_timeout: Duration,
    expose_operations: bool,
    openapi: Bytes,
}

/// What a node can do, as far as backends may ask for it.
pub struct Services {
    /// The apps, by their keys.
    pub apps: Apps,
    /// Publishes.
    pub publisher: Publisher,
    /// Reads history.
    pub hub: Arc<Hub>,
    /// Knows who is on a channel.
    pub presence: Arc<Presence>,
    /// Reaches the connections of a user.
    pub users: Arc<Users>,
    /// Asks all nodes what they have.
    pub survey: Arc<Survey>,
    /// Revokes tokens.
    pub revocations: Arc<Revocations>,
}

impl Deref for ApiState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl ApiState {
    fn intake(&self) -> Intake<'_> {
        Intake {
            max_bytes: self.max_body_bytes,
            within: self.body_timeout,
            metrics: &self.metrics,
        }
    }

    /// What the handlers of a node called `node` need.
    pub fn new(
        node: &str,
        (http, users): (&HttpConfig, &UsersConfig),
        services: Services,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Services {
            apps,
            publisher,
            hub,
            presence,
            users: commands,
            survey,
            revocations,
        } = services;
        Self(Arc::new(Shared {
            users: commands,
            survey,
            revocations,
            max_user_payload_bytes: users.max_payload_bytes,
            max_json_depth: http.max_json_depth,
            hub,
            presence,
            apps,
            publisher,
            metrics,
            readiness,
            node: node.to_owned(),
            max_body_bytes: http.max_body_bytes,
            max_answer_bytes: http.max_answer_bytes,
            max_history_bytes: http.max_history_bytes,
            max_in_flight: http.max_in_flight,
            body_timeout: http.body_timeout,
            expose_operations: http.expose_operations,
            openapi: document().into(),
        }))
    }
}

/// Who is served besides operations.
#[derive(Default)]
pub struct Doors {
    /// Backends: REST and the server API.
    pub backends: bool,
    /// People: the control plane.
    pub people: Option<ControlState>,
}

/// The API as a router: what `doors` says, the OpenAPI document of all of it, and the endpoints of operations
/// if `http.expose_operations` says so. Answers every other path with a JSON error: a router that is
/// merged with it must have no fallback of its own.
pub fn router(state: ApiState, doors: &Doors) -> Router {
    let mut routes = Routes::new();
    if doors.backends {
        routes.extend(self::routes());
    }
    if doors.backends || doors.people.is_some() {
        routes.push(("/v1/openapi.json", get(openapi::serve)));
    }
    if state.expose_operations {
        routes.extend(operation_routes());
    }
    routes
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, methods)
        })
        .with_state(state)
        .merge(doors.people.as_ref().map_or_else(Router::new, control::router))
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .fallback(|| async { ApiError::NotFound })
}

type Routes = Vec<(&'static str, MethodRouter<ApiState>)>;

/// Every route of backends, so that a test can compare them with the OpenAPI document.
fn routes() -> Routes {
    let publications = post(v1::publish).get(v1::history).delete(v1::remove);
    vec![
        ("/v1/channels", get(v1::channels)),
        ("/v1/channels/{channel}/publications", publications),
        ("/v1/channels/{channel}/presence", get(v1::presence)),
        ("/v1/channels/{channel}/queue", get(v1::queue)),
        ("/v1/channels/{channel}/presence/stats", get(v1::presence_stats)),
        ("/v1/nodes", get(v1::nodes)),
        ("/v1/users/{user}", get(v1::online)),
        ("/v1/users/{user}/disconnect", post(v1::disconnect)),
        ("/v1/users/{user}/unsubscribe", post(v1::unsubscribe)),
        ("/v1/users/{user}/subscribe", post(v1::subscribe)),
        ("/v1/users/{user}/refresh", post(v1::refresh)),
        ("/v1/users/{user}/messages", post(v1::message)),
        ("/v1/revocations", post(v1::revoke).get(v1::revocations)),
        ("/v1/revocations/{id}", delete(v1::restore)),
        ("/api", post(server::legacy)),
        ("/api/publish", post(server::publish)),
        ("/api/broadcast", post(server::broadcast)),
        ("/api/history", post(server::history)),
        ("/api/history_remove", post(server::history_remove)),
        ("/api/subscribe", post(server::subscribe)),
        ("/api/unsubscribe", post(server::unsubscribe)),
        ("/api/disconnect", post(server::disconnect)),
        ("/api/refresh", post(server::refresh)),
        ("/api/presence", post(server::presence)),
        ("/api/presence_stats", post(server::presence_stats)),
        ("/api/channels", post(server::channels)),
        ("/api/info", post(server::info)),
        ("/api/batch", post(server::batch)),
        ("/api/{method}", post(server::other)),
    ]
}

fn operation_routes() -> Routes {
    vec![
        ("/healthz", get(operations::healthz)),
        ("/readyz", get(operations::readyz)),
        ("/metrics", get(operations::metrics)),
    ]
}
