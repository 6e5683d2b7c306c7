//! `/v1/apps/{app}/usage`.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::{
    ControlState,
    error::{Failure, Failures},
    extract::{Answer, AppAt, By, json},
    page::PageOf,
};
use crate::{
    api::{error::ApiError, extract::Params},
    control::Permission,
    usage::{self, Group, Namespace, QueryError, Row, Step, Window},
};

/// What was used, when, by what.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct UsageParams {
    /// From then on, ms since 1970; the step that it is in included.
    from: i64,
    /// Up to then, ms since 1970, the step that it is in included unless that begins with it.
    to: i64,
    /// `minute`, `hour` or `day`; `hour` if absent.
    step: Option<String>,
    /// `none` (the default): of the app. `namespace`: of each namespace of channels.
    group: Option<String>,
    /// `json` (the default) or `csv`.
    format: Option<String>,
}

/// A sum over one step.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct UsageRow {
    /// When the step begins, ms since 1970.
    start_ms: i64,
    /// Whose it is, with `group=namespace`: a namespace, with an empty name for channels without one; `*` for
    /// all that were not told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// The most connections at once; always 0 for a namespace.
    peak_connections: i64,
    /// How much of what (docs/operations.md#usage); what is not there is 0.
    counts: BTreeMap<String, i64>,
}

impl From<Row> for UsageRow {
    fn from(row: Row) -> Self {
        Self {
            start_ms: row.start_ms,
            namespace: match row.namespace {
                Namespace::All => None,
                Namespace::Named(name) => Some(name),
                Namespace::Others => Some("*".to_owned()),
            },
            peak_connections: row.peak_connections,
            counts: row.counts,
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Store(error) => error.into(),
            QueryError::Window | QueryError::Month => ApiError::field("from", error.to_string()).into(),
            QueryError::TooMany(_) => ApiError::field("step", error.to_string()).into(),
        }
    }
}

impl UsageParams {
    fn window(&self) -> Result<Window, ApiError> {
        let step = match self.step.as_deref() {
            Some("minute") => Step::Minute,
            None | Some("hour") => Step::Hour,
            Some("day") => Step::Day,
            Some(_) => return Err(ApiError::field("step", "minute, hour or day")),
        };
        let group = match self.group.as_deref() {
            None | Some("none") => Group::None,
            Some("namespace") => Group::Namespace,
            Some(_) => return Err(ApiError::field("group", "none or namespace")),
        };
        Ok(Window {
            from_ms: self.from,
            to_ms: self.to,
            step,
            group,
        })
    }

    fn wants_csv(&self) -> Result<bool, ApiError> {
        match self.format.as_deref() {
            None | Some("json") => Ok(false),
            Some("csv") => Ok(true),
            Some(_) => Err(ApiError::field("format", "json or csv")),
        }
    }
}

/// Tells what an app has used
///
/// A row for each step in which something was used, a few seconds after the fact. What is asked for is answered whole
/// or refused.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/usage",
    operation_id = "get_usage",
    tag = "apps",
    params(("app" = String, Path, description = "The app's id"), UsageParams),
    responses(
        (status = 200, description = "All rows, in the order of time",
            content((PageOf<UsageRow> = "application/json"), (String = "text/csv"))),
        Failures
    ),
    security(("account" = [])),
)]
pub(in crate::api) async fn get(
    State(state): State<ControlState>,
    By(actor): By,
    AppAt(id): AppAt,
    Params(params): Params<UsageParams>,
) -> Answer {
    let (window, csv) = (params.window()?, params.wants_csv()?);
    state.apps()?.get(&actor, &id, Permission::UsageRead).await?;
    let store = &*state.services()?.store;
    let rows = usage::query(store, &id, window, state.max_usage_rows).await?;
    if !csv {
        let rows = rows.into_iter().map(UsageRow::from);
        return json(StatusCode::OK, &PageOf::all(rows.collect()));
    }
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/csv; charset=utf-8"),
        ),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static("attachment; filename=\"usage.csv\""),
        ),
    ];
    Ok((headers, Body::from(usage::write_csv(&rows))).into_response())
}
