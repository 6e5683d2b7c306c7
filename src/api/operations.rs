//! What supervisors, load balancers and Prometheus ask a node.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::ApiState;
use crate::protocol::json;

/// How long `/readyz` waits for shards to be proven. Not a setting: shorter than the patience of any
/// load balancer, which is a second and more, and a node that needs longer is not ready.
const PROOF_WAIT: Duration = Duration::from_millis(500);

/// What a node says of itself beyond what can be measured. Shared with whoever drains it.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
}

impl Readiness {
    /// From now on the node is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// The process turns.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `healthz` writes")]
pub(super) struct HealthAnswer {
    /// The name of the node.
    node: String,
    /// The version of the program.
    version: String,
}

/// Whether the node takes connections and requests.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `readyz` writes")]
pub(super) struct ReadyAnswer {
    /// Whether it does.
    ready: bool,
    /// Why it does not: `draining`, `nats`, `shard STREAM`.
    reasons: Vec<String>,
}

/// Whether the process turns
///
/// Never depends on NATS, so that an outage of NATS restarts nothing.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "It does", body = HealthAnswer))
)]
pub(super) async fn healthz(State(state): State<ApiState>) -> Response {
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(br#"{"node":"#);
    json::push_str(&mut body, &state.node);
    body.extend_from_slice(br#","version":"#);
    json::push_str(&mut body, env!("CARGO_PKG_VERSION"));
    body.extend_from_slice(b"}");
    answer(StatusCode::OK, body)
}

/// Whether the node is ready
///
/// It is if it is connected to NATS, can prove positions on every shard, and does not drain.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "It is", body = ReadyAnswer),
        (status = 503, description = "It is not", body = ReadyAnswer),
    )
)]
pub(super) async fn readyz(State(state): State<ApiState>) -> Response {
    let reasons = reasons(&state).await;
    let ready = reasons.is_empty();
    state.metrics.ready.set(i64::from(ready));
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(if ready {
        br#"{"ready":true"#
    } else {
        br#"{"ready":false"#
    });
    body.extend_from_slice(br#","reasons":["#);
    for (index, reason) in reasons.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        json::push_str(&mut body, reason);
    }
    body.extend_from_slice(b"]}");
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer(status, body)
}

/// The node's metrics
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((
        status = 200,
        description = "In the OpenMetrics text format",
        body = String,
        content_type = "application/openmetrics-text"
    ))
)]
pub(super) async fn metrics(State(state): State<ApiState>) -> Response {
    let ready = reasons(&state).await.is_empty();
    state.metrics.ready.set(i64::from(ready));
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], state.metrics.encode()).into_response()
}

/// Why the node is not ready; nothing if it is.
async fn reasons(state: &ApiState) -> Vec<String> {
    let mut reasons = Vec::new();
    if state.readiness.draining.load(Ordering::Relaxed) {
        reasons.push("draining".to_owned());
    }
    if !state.hub.log().connected() {
        reasons.push("nats".to_owned());
        return reasons;
    }
    let unproven = || state.hub.keepers().filter(|keeper| !keeper.is_proven());
    if unproven().next().is_some() {
        // Nobody else may be asking: a node without clients proves nothing unless it is asked.
        let asked = join_all(unproven().map(|keeper| keeper.fresh()));
        // What is proven then is looked up below.
        drop(timeout(PROOF_WAIT, asked).await);
    }
    reasons.extend(unproven().map(|keeper| format!("shard {}", keeper.spec().stream)));
    reasons
}

fn answer(status: StatusCode, body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}
