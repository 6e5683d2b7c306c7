use std::collections::BTreeMap;

use super::{
    bucket::{self, Step},
    calendar,
    fold::{PEAK, peak_of_nodes},
};
use crate::{
    model::AppId,
    store::{Collection, Document, Query, Store, StoreError},
    telemetry::Measure,
};

/// Documents read at once.
const PAGE: usize = 1_000;
/// The last time that a sum can be asked for: the ten digits of ids do not go further. In the year 2286.
const LAST_MS: i64 = 9_999_999_999_000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From then on, ms since 1970; the step that it is in included.
    pub from_ms: i64,
    /// Up to then, the step that it is in included unless that begins with it.
    pub to_ms: i64,
    /// By what.
    pub step: Step,
    /// Of what.
    pub group: Group,
}

/// How sums are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Not at all: the app's.
    None,
    /// By the namespace.
    Namespace,
}

/// Whose sum it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    /// The app's.
    All,
    /// A namespace's; channels without one have an empty name.
    Named(String),
    /// Of namespaces that were not told apart.
    Others,
}

/// A sum over one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When the step begins, ms since 1970.
    pub start_ms: i64,
    /// Whose it is.
    pub namespace: Namespace,
    /// How much of what; what is not there is 0. Names that this program does not know are told too.
    pub counts: BTreeMap<String, i64>,
    /// The most connections at once: in a minute, the most of each node added up, which is at least what it
    /// was; over longer, the most of the minutes. 0 for a namespace: connections have none.
    pub peak_connections: i64,
}

impl Row {
    /// How much of a measure.
    pub fn get(&self, measure: Measure) -> i64 {
        self.counts.get(measure.as_str()).copied().unwrap_or(0)
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The window ends before it begins, or is of no time that can be asked for.
    #[error("from must be before to, and both between 1970 and 2286")]
    Window,
    /// It would be too long.
    #[error("more than {0} rows: ask for less time, or a longer step")]
    TooMany(usize),
    /// The month is none.
    #[error("there is no such month")]
    Month,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sums of an app, in the order of time and then of namespaces. Steps in which nothing was used have no
/// row.
///
/// # Errors
///
/// [`QueryError`]; never a part of the rows.
pub async fn query(
    store: &dyn Store,
    app: &AppId,
    window: Window,
    max_rows: usize,
) -> Result<Vec<Row>, QueryError> {
    let (first, end) = bounds(window, max_rows)?;
    let prefix = match window.group {
        Group::None => bucket::app_prefix(app, window.step),
        Group::Namespace => bucket::namespace_prefix(app, window.step),
    };
    let mut rows = Vec::new();
    // All ids of a step begin with its time, so none is between the second before and the time itself.
    let mut after = if first == 0 {
        prefix.clone()
    } else {
        format!("{prefix}{:010}~", first / 1_000 - 1)
    };
    let before = format!("{prefix}{:010}", end / 1_000);
    loop {
        let page = store.list(
            Collection::Usage,
            Query {
                after: Some(after),
                before: Some(before.clone()),
                limit: PAGE.min(max_rows + 1),
                ..Query::default()
            },
        );
        let page = page.await?;
        let Some(last) = page.last() else { return Ok(rows) };
        after = last.id.clone();
        rows.extend(
            page.iter()
                .filter_map(|document| row(document, &prefix, window.step)),
        );
        if rows.len() > max_rows {
            return Err(QueryError::TooMany(max_rows));
        }
    }
}

/// The beginning of the first step, and the end of the last one.
fn bounds(window: Window, max_rows: usize) -> Result<(i64, i64), QueryError> {
    let Window {
        from_ms,
        to_ms,
        step,
        group: _,
    } = window;
    if from_ms < 0 || from_ms >= to_ms || to_ms > LAST_MS - step.ms() {
        return Err(QueryError::Window);
    }
    let (first, end) = (step.start(from_ms), step.start(to_ms - 1) + step.ms());
    // Each step may have a row.
    let most = i64::try_from(max_rows).unwrap_or(i64::MAX);
    if (end - first) / step.ms() > most {
        return Err(QueryError::TooMany(max_rows));
    }
    Ok((first, end))
}

/// A document as a row; `None` for what no worker writes.
fn row(document: &Document, prefix: &str, step: Step) -> Option<Row> {
    let rest = document.id.strip_prefix(prefix)?;
    let (seconds, namespace) = match rest.split_once('/') {
        None => (rest, Namespace::All),
        Some((seconds, name)) => (
            seconds,
            match bucket::namespace_of(name)? {
                Some(name) => Namespace::Named(name.to_owned()),
                None => Namespace::Others,
            },
        ),
    };
    let start_ms = seconds.parse::<i64>().ok()?.checked_mul(1_000)?;
    let peak_connections = match step {
        Step::Minute => peak_of_nodes(&document.numbers),
        Step::Hour | Step::Day => document.numbers.get(PEAK).copied().unwrap_or(0),
    };
    let counts = document.numbers.iter();
    let counts = counts.filter(|(name, _)| !is_peak(name));
    Some(Row {
        start_ms,
        namespace,
        counts: counts.map(|(name, count)| (name.clone(), *count)).collect(),
        peak_connections,
    })
}

fn is_peak(name: &str) -> bool {
    name == PEAK || name.starts_with(super::fold::NODE_PEAK)
}

/// What an app used in a month (1 to 12) of UTC: the sum of its days, and the most of their peaks.
///
/// # Errors
///
/// [`QueryError`].
pub async fn month(store: &dyn Store, app: &AppId, year: i64, month: i64) -> Result<Row, QueryError> {
    if !(1970..=2285).contains(&year) || !(1..=12).contains(&month) {
        return Err(QueryError::Month);
    }
    let (next_year, next_month) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    let start_ms = calendar::days(year, month, 1) * Step::Day.ms();
    let window = Window {
        from_ms: start_ms,
        to_ms: calendar::days(next_year, next_month, 1) * Step::Day.ms(),
        step: Step::Day,
        group: Group::None,
    };
    let days = query(store, app, window, 31).await?;
    let mut sum = Row {
        start_ms,
        namespace: Namespace::All,
        counts: BTreeMap::new(),
        peak_connections: 0,
    };
    for day in days {
        for (name, count) in day.counts {
            let so_far = sum.counts.entry(name).or_default();
            *so_far = so_far.saturating_add(count);
        }
        sum.peak_connections = sum.peak_connections.max(day.peak_connections);
    }
    Ok(sum)
}

/// When the keys of an app were last used, ms since 1970 to the minute, by their ids. What was not used for
/// `usage.keep_days` is not there.
///
/// # Errors
///
/// [`StoreError`].
pub async fn last_used(store: &dyn Store, app: &AppId) -> Result<BTreeMap<String, i64>, StoreError> {
    let prefix = bucket::keys_prefix(app);
    let before = format!("{prefix}~");
    let mut after = prefix;
    let mut used = BTreeMap::new();
    loop {
        let page = store.list(
            Collection::Usage,
            Query {
                after: Some(after),
                before: Some(before.clone()),
                limit: PAGE,
                ..Query::default()
            },
        );
        let page = page.await?;
        let Some(last) = page.last() else { return Ok(used) };
        after = last.id.clone();
        for document in page {
            for (name, minute) in document.numbers {
                if let Some(key) = bucket::key_of_number(&name) {
                    let last = used.entry(key).or_insert(minute);
                    *last = minute.max(*last);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
