//! Who did what.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;

use super::{
    ControlState,
    error::Failures,
    extract::{Answer, At, By, json},
    page::{PageOf, bounded},
};
use crate::{
    api::{error::ApiError, extract::Params},
    control::{About, Entry, Page, Search},
};

/// Which entries.
#[derive(Deserialize, utoipa::IntoParams, Default)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct AuditParams {
    /// None from before it, ms since 1970.
    from: Option<i64>,
    /// None from this time on, ms since 1970.
    to: Option<i64>,
    /// Only what this account did; not with `target`.
    actor: Option<String>,
    /// Only what was done to this; not with `actor`.
    target: Option<String>,
    /// `newest` (the default) or `oldest` first.
    order: Option<String>,
    /// Entries in the page: 1 to 500; 100 if absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// `next` of the page before this one.
    cursor: Option<String>,
}

impl AuditParams {
    fn search(self, team: Option<&str>) -> Result<Search, ApiError> {
        let about = match (team, self.actor, self.target) {
            (_, Some(_), Some(_)) => return Err(ApiError::field("target", "not with actor")),
            (None, None, None) => About::All,
            (None, ..) => return Err(ApiError::field("actor", "only of a team")),
            (Some(team), None, None) => About::Team(team.to_owned()),
            (Some(team), Some(actor), None) => About::TeamActor(team.to_owned(), actor),
            (Some(team), None, Some(target)) => About::TeamTarget(team.to_owned(), target),
        };
        let newest_first = match self.order.as_deref() {
            None | Some("newest") => true,
            Some("oldest") => false,
            Some(_) => return Err(ApiError::field("order", "newest or oldest")),
        };
        let limit = bounded(self.limit)?;
        Ok(Search {
            about,
            from_ms: self.from,
            to_ms: self.to,
            cursor: self.cursor,
            newest_first,
            limit,
        })
    }
}

/// Tells what the account itself has done
#[utoipa::path(
    get,
    path = "/v1/account/audit",
    operation_id = "own_audit",
    tag = "audit",
    params(AuditParams),
    responses((status = 200, description = "A page", body = PageOf<Entry>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn own(
    State(state): State<ControlState>,
    By(actor): By,
    Params(params): Params<AuditParams>,
) -> Answer {
    let search = params.search(None)?;
    page(state.control()?.own_audit(&actor, search).await?)
}

/// Tells who did what in a team
#[utoipa::path(
    get,
    path = "/v1/teams/{team}/audit",
    operation_id = "team_audit",
    tag = "audit",
    params(("team" = String, Path, description = "The team's id"), AuditParams),
    responses((status = 200, description = "A page", body = PageOf<Entry>), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn of_team(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
    Params(params): Params<AuditParams>,
) -> Answer {
    let search = params.search(Some(&team))?;
    page(state.control()?.team_audit(&actor, &team, &search).await?)
}

/// Exports who did what in a team
///
/// As lines of JSON, each an entry; `limit` is not looked at. If the database fails on the way the answer ends early, without its last chunk.
#[utoipa::path(
    get,
    path = "/v1/teams/{team}/audit/export",
    operation_id = "export_audit",
    tag = "audit",
    params(("team" = String, Path, description = "The team's id"), AuditParams),
    responses((status = 200, description = "Lines of JSON", body = String, content_type = "application/x-ndjson"), Failures),
    security(("account" = [])),
)]
pub(in crate::api) async fn export(
    State(state): State<ControlState>,
    By(actor): By,
    At(team): At<String>,
    Params(params): Params<AuditParams>,
) -> Answer {
    let search = params.search(Some(&team))?;
    let pages = state.control()?.export_team_audit(&actor, &team, search).await?;
    // The connection ends then, so that nobody takes a part for the whole.
    let pages = pages.map(|page| page.map(Bytes::from).map_err(|error| error.to_string()));
    let content_type = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    )];
    Ok((content_type, Body::from_stream(pages)).into_response())
}

fn page(page: Page) -> Answer {
    let page = PageOf {
        items: page.entries,
        next: page.cursor,
    };
    json(StatusCode::OK, &page)
}
