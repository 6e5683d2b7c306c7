//! `history` of the server API: its callers know no pages, so several are read for one answer.

use super::{
    command::{HistoryParams, Since},
    error::ServerError,
};
use crate::{
    api::ApiState,
    apps::App,
    channel::HistoryRead,
    model::Epoch,
    protocol::{
        ErrorCode,
        centrifuge::encode_publication_body,
        json::{self, Object, Safe, Text},
    },
    publish::{PublishError, Target},
};

/// The most publications in one answer, also if "all" are asked for. Not a setting: it is part of the
/// documented API, and bytes are bounded by `http.max_history_bytes`.
const MAX_PUBLICATIONS: usize = 10_000;

/// Reads what `params` ask for and writes it as a result.
pub(super) async fn read_history(
    state: &ApiState,
    app: &App,
    params: &HistoryParams<'_>,
) -> Result<Vec<u8>, ServerError> {
    let target = Target::find(&app.rules, &params.channel)?;
    let route = state.hub.route(&app.id, &target.channel, &target.rule.history);
    let route = route.ok_or(PublishError::NoClass)?;
    let mut read = question(params)?;
    let mut left = read.limit;
    let mut result = br#"{"publications":["#.to_vec();
    let empty = result.len();
    let top = loop {
        read.limit = left;
        let page = state.hub.history(&route, read.clone()).await?;
        left = left.saturating_sub(page.publications.len());
        for publication in &page.publications {
            if result.len() > empty {
                result.push(b',');
            }
            encode_publication_body(publication, &mut result);
        }
        match page.publications.last() {
            Some(last) if page.more && left > 0 && result.len() < state.max_history_bytes => {
                read.since = Some(last.offset);
                // From here on the epoch must not change.
                read.epoch = Some(page.top.epoch);
            }
            _ => break page.top,
        }
    };
    result.extend_from_slice(br#"],"offset":"#);
    json::push_u64(&mut result, top.offset);
    result.extend_from_slice(br#","epoch":"#);
    json::push_str(&mut result, top.epoch.as_str());
    result.push(b'}');
    Ok(result)
}

fn question(params: &HistoryParams<'_>) -> Result<HistoryRead, ServerError> {
    let limit = match params.limit.unwrap_or(0) {
        ..-1 => return Err(ErrorCode::BadRequest.into()),
        -1 => MAX_PUBLICATIONS,
        limit => usize::try_from(limit).map_or(MAX_PUBLICATIONS, |limit| limit.min(MAX_PUBLICATIONS)),
    };
    let reverse = params.reverse.unwrap_or(false);
    let (since, epoch) = match &params.since {
        None => (None, None),
        Some(Object(Since { offset, epoch })) => (
            Some(offset.map_or(0, |Safe(offset)| offset)),
            epoch.as_ref().map(|Text(epoch)| Epoch::new(epoch)),
        ),
    };
    if reverse && since == Some(0) {
        return Err(ErrorCode::BadRequest.into());
    }
    Ok(HistoryRead {
        since,
        epoch,
        limit,
        reverse,
        ..HistoryRead::default()
    })
}
