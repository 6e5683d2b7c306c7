//! From a record to what is added to which document.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    bucket::{self, Step},
    record::{AppRecord, Record},
};
use crate::{
    config::UsageConfig,
    model::AppId,
    store::{Addition, Collection, Store, StoreError},
    telemetry::Metrics,
};

/// The number that holds the most connections of an app at once, over an hour or a day.
pub(super) const PEAK: &str = "connections_peak";
/// What the number of one node's peak begins with, in a minute.
pub(super) const NODE_PEAK: &str = "peak_";

/// Adds records up in the store.
#[derive(Clone)]
pub struct Folder {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    config: UsageConfig,
}

impl Folder {
    /// Into `store`.
    pub fn new(store: Arc<dyn Store>, config: &UsageConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            config: config.clone(),
        }
    }

    /// Adds a record up. Doing it again, whole or after a part, adds what was missing and nothing twice; but
    /// the records of one node must come in their order.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; some of it may have been added.
    pub async fn fold(&self, record: &Record) -> Result<(), StoreError> {
        // None has begun: they begin as there is room.
        let apps: Vec<_> = record.apps.iter().map(|app| self.fold_app(record, app)).collect();
        stream::iter(apps)
            .buffer_unordered(self.config.fold_concurrency.max(1))
            .try_collect()
            .await
    }

    async fn fold_app(&self, record: &Record, used: &AppRecord) -> Result<(), StoreError> {
        let Ok(app) = AppId::new(&used.app) else {
            self.refused("a record of usage names no app");
            return Ok(());
        };
        let minute = Step::Minute.start(record.at_ms());
        let minute_id = bucket::app_id(&app, Step::Minute, minute);
        let node_peak = (format!("{NODE_PEAK}{}", record.node), used.peak_connections);
        self.add(
            &minute_id,
            self.addition(record, Step::Minute, &used.counts, Some(node_peak)),
        )
        .await?;
        // Peaks of nodes in one minute are added up; the most over a longer time is that of its minutes.
        let peak = if used.peak_connections > 0 {
            let sum = self.store.get(Collection::Usage, &minute_id).await?;
            sum.map_or(0, |sum| peak_of_nodes(&sum.numbers))
        } else {
            0
        };
        for step in [Step::Hour, Step::Day] {
            let id = bucket::app_id(&app, step, step.start(record.at_ms()));
            let peak = (PEAK.to_owned(), peak);
            self.add(&id, self.addition(record, step, &used.counts, Some(peak)))
                .await?;
        }
        for (name, counts) in &used.namespaces {
            for step in Step::ALL {
                let id = bucket::namespace_id(&app, step, step.start(record.at_ms()), name);
                self.add(&id, self.addition(record, step, counts, None)).await?;
            }
        }
        let keys = used.keys.iter();
        let peaks: BTreeMap<_, _> = keys
            .filter_map(|(key, minute)| Some((bucket::number_of_key(key)?, *minute)))
            .collect();
        if peaks.is_empty() {
            return Ok(());
        }
        // By the day, so that a document remembers the nodes of a day and not of all times.
        let addition = Addition {
            peaks,
            ..self.addition(record, Step::Day, &BTreeMap::new(), None)
        };
        let id = bucket::keys_id(&app, Step::Day.start(record.at_ms()));
        self.add(&id, addition).await
    }

    fn addition(
        &self,
        record: &Record,
        step: Step,
        counts: &BTreeMap<String, i64>,
        peak: Option<(String, i64)>,
    ) -> Addition {
        let keep = i64::try_from(step.keep(&self.config).as_millis()).unwrap_or(i64::MAX);
        let end = step.start(record.at_ms()).saturating_add(step.ms());
        Addition {
            source: record.node.to_string(),
            sequence: record.sequence,
            sums: counts.clone(),
            peaks: peak.filter(|(_, peak)| *peak > 0).into_iter().collect(),
            keys: Vec::new(),
            expires_ms: Some(end.saturating_add(keep)),
        }
    }

    async fn add(&self, id: &str, addition: Addition) -> Result<(), StoreError> {
        match self.store.add(Collection::Usage, id, addition).await {
            Ok(_) => Ok(()),
            Err(StoreError::Invalid(why)) => {
                self.refused(why);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Some of a record can never be added up. It must not hold up what can.
    fn refused(&self, why: &str) {
        self.metrics.usage_refused.inc();
        tracing::error!(why, "a part of a record of usage was refused");
    }
}

/// The most connections that an app can have had at once in a minute: each node's most, added up.
pub(super) fn peak_of_nodes(numbers: &BTreeMap<String, i64>) -> i64 {
    let peaks = numbers.iter().filter(|(name, _)| name.starts_with(NODE_PEAK));
    peaks.fold(0, |sum, (_, peak)| sum.saturating_add(*peak))
}
