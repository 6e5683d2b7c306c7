//! Results: figures by name, medians over runs, ratios to the floor.

use std::{fs, io::Write as _, path::Path, thread};

use serde_json::{Map, Value, json};

use super::{BenchError, args::Common, check::Faults, floor::FloorProcess, stats::median};

/// What one run measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Names say the unit.
    pub(crate) figures: Vec<(&'static str, f64)>,
    pub(crate) faults: Faults,
    /// The first error a server answered.
    pub(crate) first_error: Option<String>,
}

impl Outcome {
    pub(crate) fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.push((name, value));
    }
}

/// All runs of one benchmark.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) workload: &'static str,
    pub(crate) parameters: Value,
    pub(crate) runs: Vec<Outcome>,
    /// The same work on the floor, if it was asked for.
    pub(crate) floor: Vec<Outcome>,
}

impl Report {
    pub(crate) fn new(workload: &'static str, parameters: Value) -> Self {
        Self {
            workload,
            parameters,
            runs: Vec::new(),
            floor: Vec::new(),
        }
    }

    /// The median of a figure over the runs; `None` if it was not measured.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        median_of(&self.runs, name)
    }

    /// The median of a figure of the floor.
    pub(crate) fn floor_median(&self, name: &str) -> Option<f64> {
        median_of(&self.floor, name)
    }

    /// The median divided by the floor's.
    pub(crate) fn ratio(&self, name: &str) -> Option<f64> {
        let floor = self.floor_median(name).filter(|floor| *floor > 0.0)?;
        Some(self.median(name)? / floor)
    }

    pub(crate) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        self.runs
            .iter()
            .chain(&self.floor)
            .for_each(|run| faults.add(run.faults));
        faults
    }

    /// An error if anything was lost, repeated, reordered or refused in any run.
    pub(crate) fn verdict(&self) -> Result<(), BenchError> {
        let faults = self.faults();
        if !faults.any() {
            return Ok(());
        }
        let all = self.runs.iter().chain(&self.floor);
        let first = all.filter_map(|run| run.first_error.as_deref()).next();
        let first = first.map(|e| format!(" (first error: {e})")).unwrap_or_default();
        Err(BenchError::Wrong(format!("{faults}{first}")))
    }

    pub(crate) fn json(&self) -> Value {
        let mut result = json!({
            "workload": self.workload,
            "parameters": self.parameters,
            "machine": machine(),
            "median": medians(&self.runs),
            "runs": self.runs.iter().map(outcome).collect::<Vec<_>>(),
            "faults": self.faults(),
        });
        if !self.floor.is_empty() {
            let ratios: Map<_, _> = names(&self.runs)
                .filter_map(|name| Some((name.to_owned(), round(self.ratio(name)?).into())))
                .collect();
            result["floor"] = json!({
                "median": medians(&self.floor),
                "runs": self.floor.iter().map(outcome).collect::<Vec<_>>(),
            });
            result["ratio"] = ratios.into();
        }
        result
    }

    /// A few lines for people.
    pub(crate) fn summary(&self) {
        for name in names(&self.runs) {
            let value = round(self.median(name).unwrap_or_default());
            match (self.floor_median(name), self.ratio(name)) {
                (Some(floor), Some(ratio)) => {
                    eprintln!("{name:>24} {value:>12}  floor {:>12}  {ratio:.2}x", round(floor));
                }
                _ => eprintln!("{name:>24} {value:>12}"),
            }
        }
    }
}

fn median_of(runs: &[Outcome], name: &str) -> Option<f64> {
    let values: Vec<f64> = runs
        .iter()
        .flat_map(|run| &run.figures)
        .filter(|(n, _)| *n == name)
        .map(|(_, value)| *value)
        .collect();
    (!values.is_empty()).then(|| median(&values))
}

fn names(runs: &[Outcome]) -> impl Iterator<Item = &'static str> {
    runs.first()
        .into_iter()
        .flat_map(|run| run.figures.iter().map(|(name, _)| *name))
}

fn medians(runs: &[Outcome]) -> Map<String, Value> {
    names(runs)
        .map(|name| {
            (
                name.to_owned(),
                round(median_of(runs, name).unwrap_or_default()).into(),
            )
        })
        .collect()
}

fn outcome(run: &Outcome) -> Value {
    let figures: Map<String, Value> = run
        .figures
        .iter()
        .map(|(name, value)| ((*name).to_owned(), round(*value).into()))
        .collect();
    json!({ "figures": figures, "faults": run.faults, "first_error": run.first_error })
}

/// Four significant places are more than the machine repeats.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// Facts without which figures mean little.
pub(crate) fn machine() -> Value {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("", |(_, name)| name.trim());
    json!({
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "cpu": model,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").split(' ').next(),
    })
}

/// Writes to a file, or to standard output.
pub(crate) fn write_json(value: &Value, file: Option<&Path>) -> Result<(), BenchError> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    match file {
        Some(path) => fs::write(path, text)?,
        None => io_out(&text)?,
    }
    Ok(())
}

/// Writes to standard output, which may be a closed pipe.
pub(crate) fn io_out(text: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes())
}

/// Measures `--runs` times; with `--with-floor` each run follows one on a fresh floor that keeps
/// `history` publications per channel.
pub(crate) fn measure(
    workload: &'static str,
    parameters: Value,
    common: &Common,
    history: u32,
    mut once: impl FnMut(&Common) -> Result<Outcome, BenchError>,
) -> Result<Report, BenchError> {
    let mut report = Report::new(workload, parameters);
    for run in 1..=common.runs {
        if common.with_floor {
            eprintln!("{workload}: run {run} of {}, floor", common.runs);
            let floor = FloorProcess::start(common.coalesce, history)?;
            report.floor.push(once(&floor.common(common)?)?);
        }
        if !common.target.is_empty() {
            eprintln!("{workload}: run {run} of {}", common.runs);
            report.runs.push(once(common)?);
        }
    }
    if report.runs.is_empty() {
        report.runs = std::mem::take(&mut report.floor);
    }
    if report.runs.is_empty() {
        return Err(BenchError::Usage("which server? give --target URL".into()));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios_are_by_name() {
        let run = |value| Outcome {
            figures: vec![("a", value), ("b", 1.0)],
            ..Outcome::default()
        };
        let mut report = Report::new("test", json!({}));
        report.runs = vec![run(3.0), run(1.0), run(2.0)];
        report.floor = vec![run(4.0)];
        assert_eq!(report.median("a"), Some(2.0));
        assert_eq!(report.ratio("a"), Some(0.5));
        assert_eq!(report.median("c"), None);
        let json = report.json();
        assert_eq!(json["median"]["a"], 2.0);
        assert_eq!(json["ratio"]["a"], 0.5);
        assert!(report.verdict().is_ok());
        report.runs[1].faults.lost = 1;
        assert!(matches!(report.verdict(), Err(BenchError::Wrong(..))));
    }

    #[test]
    fn figures_are_rounded_to_what_can_be_meant() {
        for (value, expected) in [
            (0.0, 0.0),
            (123_456.0, 123_500.0),
            (0.012_345_6, 0.012_35),
            (-1.0, -1.0),
        ] {
            assert!((round(value) - expected).abs() < 1e-9);
        }
    }
}
