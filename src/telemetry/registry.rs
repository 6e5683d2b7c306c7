//! Registering metrics: every name goes through here, so that a test can compare them with
//! `docs/operations.md`.

use prometheus_client::{
    encoding::{EncodeMetric, text},
    metrics::{TypedMetric, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

use super::labels::{ByLabel, Label};

/// The labels of one metric, name and value.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What a metric is called and what it means.
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    /// The full name, as it is exported (a counter's ends in `_total`).
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
}

/// A registry under construction.
#[derive(Debug, Default)]
pub(super) struct Builder {
    registry: Registry,
    described: Vec<MetricInfo>,
}

impl Builder {
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.register(name, help, Counter::default())
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str, buckets: &[f64]) -> Histogram {
        self.register(name, help, Histogram::new(buckets.iter().copied()))
    }

    /// One counter per value of `L`.
    pub(super) fn counters<L: Label>(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> ByLabel<L, Counter> {
        by_label(&self.family(name, help), &Vec::new())
    }

    /// One gauge per value of `L`.
    pub(super) fn gauges<L: Label>(&mut self, name: &'static str, help: &'static str) -> ByLabel<L, Gauge> {
        by_label(&self.family(name, help), &Vec::new())
    }

    /// Metrics whose labels become known later (apps, shards).
    pub(super) fn family<M>(&mut self, name: &'static str, help: &'static str) -> Family<Labels, M>
    where
        M: Default + Clone + EncodeMetric + TypedMetric + std::fmt::Debug + Send + Sync + 'static,
    {
        self.register(name, help, Family::default())
    }

    fn register<M: Metric + Clone>(&mut self, name: &'static str, help: &'static str, metric: M) -> M {
        // The encoder itself appends what the OpenMetrics text format wants behind a counter's
        // name and behind the help text.
        let plain = name.strip_suffix("_total").unwrap_or(name);
        self.registry
            .register(plain, help.trim_end_matches('.'), metric.clone());
        self.described.push(MetricInfo { name, help });
        metric
    }

    pub(super) fn finish(self) -> Exporter {
        Exporter {
            registry: self.registry,
            described: self.described,
        }
    }
}

/// One metric of `family` per value of `L`, beside the labels in `fixed`.
pub(super) fn by_label<L: Label, M>(family: &Family<Labels, M>, fixed: &Labels) -> ByLabel<L, M>
where
    M: Default + Clone,
{
    ByLabel::new(|value: L| {
        let mut labels = fixed.clone();
        labels.push((L::NAME, value.as_str().to_owned()));
        family.get_or_create_owned(&labels)
    })
}

/// Takes what [`by_label`] has made out of `family` again.
pub(super) fn remove_by_label<L: Label, M>(family: &Family<Labels, M>, fixed: &Labels)
where
    M: Default + Clone,
{
    for value in L::ALL {
        let mut labels = fixed.clone();
        labels.push((L::NAME, value.as_str().to_owned()));
        family.remove(&labels);
    }
}

/// A finished registry.
#[derive(Debug)]
pub(super) struct Exporter {
    registry: Registry,
    described: Vec<MetricInfo>,
}

impl Exporter {
    /// All metrics in the OpenMetrics text format.
    pub(super) fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail; should it ever, what was written is still exported.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    pub(super) fn described(&self) -> &[MetricInfo] {
        &self.described
    }
}
