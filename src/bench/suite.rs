//! All rows of docs/performance.md with one binary and one configuration, as a markdown table.

mod rows;
pub(super) mod stack;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;
use serde_json::{Value, json};

use super::{
    BenchError,
    args::{BenchCommand, Common, SuiteArgs},
    fanout, idle, publish,
    report::{self, Report, round},
    resume,
};
use rows::{Goal, ROWS, Row, What};
use stack::{Programs, Stack};

/// A step of a row, as on the command line.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Step {
    #[command(subcommand)]
    command: BenchCommand,
}

/// What became of a row.
struct RowResult {
    row: &'static Row,
    steps: Result<Vec<Report>, BenchError>,
}

pub(crate) fn run(args: &SuiteArgs) -> Result<(), BenchError> {
    let programs = Programs {
        edge: match &args.edge_bin {
            Some(path) => path.clone(),
            None => std::env::current_exe()?,
        },
        nats: find_nats(args.nats_server.as_deref())?,
    };
    let dir = args
        .data_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("slipstream-bench-{}", std::process::id())));
    let chosen =
        |row: &&Row| args.only.is_empty() || args.only.iter().any(|text| row.name.contains(text.as_str()));
    let mut results = Vec::new();
    for row in ROWS.iter().filter(chosen) {
        eprintln!("suite: {}", row.name);
        let steps = measure(args, &programs, &dir, row);
        if let Err(error) = &steps {
            eprintln!("suite: {}: {error}", row.name);
        }
        results.push(RowResult { row, steps });
    }
    if args.data_dir.is_none() {
        let _ = fs::remove_dir_all(&dir);
    }
    let mut table = table(&results);
    if args.small || cfg!(debug_assertions) {
        table.insert_str(
            0,
            "**A tenth of the load, or a debug build: the figures mean nothing.**\n\n",
        );
    }
    match &args.markdown {
        Some(path) => fs::write(path, &table)?,
        None => report::io_out(&table)?,
    }
    if let Some(path) = &args.json {
        report::write_json(&json(&results), Some(path))?;
    }
    verdict(results)
}

/// `--nats-server`, `SLIPSTREAM_NATS_SERVER`, the folder where `make run` installs it, or PATH.
pub(super) fn find_nats(given: Option<&Path>) -> Result<PathBuf, BenchError> {
    let named = given
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("SLIPSTREAM_NATS_SERVER").map(PathBuf::from));
    if let Some(path) = named {
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from(".cache/nats-server"))
        .chain(std::env::split_paths(&path).map(|dir| dir.join("nats-server")))
        .find(|path| path.is_file())
        .ok_or_else(|| BenchError::Usage("where is nats-server? give --nats-server PATH".into()))
}

fn measure(
    args: &SuiteArgs,
    programs: &Programs,
    dir: &Path,
    row: &'static Row,
) -> Result<Vec<Report>, BenchError> {
    let dir = dir.join(row.name);
    if !row.fresh {
        let stack = Stack::start(programs, dir, row.edges)?;
        return row
            .steps
            .iter()
            .map(|step| run_step(args, &stack, step, args.runs))
            .collect();
    }
    let mut reports = Vec::new();
    for step in row.steps {
        let mut all: Option<Report> = None;
        for _ in 0..args.runs {
            let stack = Stack::start(programs, dir.clone(), row.edges)?;
            let report = run_step(args, &stack, step, 1)?;
            match &mut all {
                Some(all) => all.runs.extend(report.runs),
                None => all = Some(report),
            }
        }
        reports.extend(all);
    }
    Ok(reports)
}

fn run_step(args: &SuiteArgs, stack: &Stack, step: &str, runs: u32) -> Result<Report, BenchError> {
    let line = scaled(step, args.small);
    eprintln!("suite: bench {line}");
    let aim = |common: &mut Common, edges_only| {
        common.runs = runs;
        stack.aim(common, edges_only)
    };
    match parse(&line)? {
        BenchCommand::Fanout(mut options) => {
            options.duration = args.duration;
            options.over = args.over;
            aim(&mut options.common, false)?;
            fanout::run(&options)
        }
        BenchCommand::Publish(mut options) => {
            options.duration = args.duration;
            options.nats = Some(stack.nats());
            aim(&mut options.common, false)?;
            publish::run(&options)
        }
        BenchCommand::Resume(mut options) => {
            options.nats = Some(stack.nats());
            options.over = args.over;
            aim(&mut options.common, false)?;
            resume::run(&options)
        }
        BenchCommand::Idle(mut options) => {
            options.over = args.over;
            aim(&mut options.common, true)?;
            idle::run(&options)
        }
        _ => Err(BenchError::Usage(format!("{step} is no step"))),
    }
}

fn parse(line: &str) -> Result<BenchCommand, BenchError> {
    Step::try_parse_from(line.split_ascii_whitespace())
        .map(|step| step.command)
        .map_err(|e| BenchError::Usage(e.to_string()))
}

/// Replaces each `{N}` by N, or by a tenth of it.
fn scaled(step: &str, small: bool) -> String {
    step.split_ascii_whitespace()
        .map(
            |word| match word.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
                Some(number) if small => number.strip_suffix('0').unwrap_or(number).to_owned(),
                Some(number) => number.to_owned(),
                None => word.to_owned(),
            },
        )
        .collect::<Vec<_>>()
        .join(" ")
}

/// The value a goal is about, and whether it holds.
fn reached(goal: &Goal, steps: &[Report]) -> Option<(f64, bool)> {
    let report = steps.get(goal.step)?;
    let value = match goal.what {
        What::Median(name) => report.median(name)?,
        What::Ratio(name) => report.ratio(name)?,
        What::Against(earlier, name) => report.median(name)? / steps.get(earlier)?.median(name)?,
    };
    Some((value, goal.limit.holds(value)))
}

fn measured(goal: &Goal, steps: &[Report]) -> String {
    let Some((value, _)) = reached(goal, steps) else {
        return "not measured".into();
    };
    let report = &steps[goal.step];
    match goal.what {
        What::Median(name) => format!("{name} {}", round(value)),
        What::Ratio(name) => format!(
            "{name} {value:.2}x ({} / {})",
            round(report.median(name).unwrap_or_default()),
            round(report.floor_median(name).unwrap_or_default()),
        ),
        What::Against(_, name) => format!("{name} {value:.2}x"),
    }
}

fn table(results: &[RowResult]) -> String {
    let machine = report::machine();
    let mut text = format!(
        "{} cores of {}, Linux {}.\n\n| work | must reach | measured | |\n|---|---|---|---|\n",
        machine["cores"],
        machine["cpu"].as_str().unwrap_or_default(),
        machine["kernel"].as_str().unwrap_or_default(),
    );
    for RowResult { row, steps } in results {
        match steps {
            Err(error) => text.push_str(&format!("| {} | | {error} | **error** |\n", row.work)),
            Ok(steps) => {
                let wrong = steps.iter().any(|step| step.faults().any());
                for (i, goal) in row.goals.iter().enumerate() {
                    let work = if i == 0 { row.work } else { "" };
                    let verdict = match reached(goal, steps) {
                        _ if wrong => "**wrong**",
                        Some((_, true)) => "pass",
                        _ => "**miss**",
                    };
                    let measured = measured(goal, steps);
                    text.push_str(&format!("| {work} | {} | {measured} | {verdict} |\n", goal.text));
                }
            }
        }
    }
    text
}

fn json(results: &[RowResult]) -> Value {
    results
        .iter()
        .map(|RowResult { row, steps }| match steps {
            Err(error) => json!({ "name": row.name, "error": error.to_string() }),
            Ok(steps) => json!({
                "name": row.name,
                "steps": steps.iter().map(Report::json).collect::<Vec<_>>(),
                "goals": row.goals.iter().map(|goal| {
                    let (value, holds) = reached(goal, steps).unzip();
                    json!({ "must": goal.text, "value": value, "holds": holds })
                }).collect::<Vec<_>>(),
            }),
        })
        .collect()
}

/// A figure that is missed is a result; a row that could not be measured, or was wrong, is an error.
fn verdict(results: Vec<RowResult>) -> Result<(), BenchError> {
    for result in results {
        for report in result.steps? {
            report.verdict()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Outcome;

    #[test]
    fn every_step_is_a_command_line_and_every_goal_has_its_step() {
        for row in ROWS {
            for (step, small) in row.steps.iter().flat_map(|step| [(step, false), (step, true)]) {
                parse(&scaled(step, small)).unwrap();
            }
            for goal in row.goals {
                assert!(goal.step < row.steps.len(), "{}", row.name);
                if let What::Ratio(_) = goal.what {
                    assert!(row.steps[goal.step].contains("--with-floor"), "{}", row.name);
                }
            }
        }
    }

    #[test]
    fn small_runs_are_a_tenth() {
        assert_eq!(scaled("a {1000} --b {5} 7", true), "a 100 --b 5 7");
        assert_eq!(scaled("a {1000} --b {5} 7", false), "a 1000 --b 5 7");
    }

    #[test]
    fn the_table_says_pass_miss_wrong_and_error() {
        let row = &ROWS[0];
        let outcome = |value: f64| Outcome {
            figures: vec![("server_cpu_us", value)],
            ..Outcome::default()
        };
        let with = |value: f64, lost: u64| {
            let mut report = Report::new("fanout", json!({}));
            report.runs = vec![outcome(value)];
            report.runs[0].faults.lost = lost;
            report.floor = vec![outcome(10.0)];
            RowResult {
                row,
                steps: Ok(vec![report]),
            }
        };
        let failed = RowResult {
            row,
            steps: Err(BenchError::Usage("why".into())),
        };
        let text = table(&[with(11.0, 0), with(13.0, 0), with(11.0, 1), failed]);
        let lines: Vec<_> = text.lines().skip(4).collect();
        assert!(
            lines[0].ends_with("| server_cpu_us 1.10x (11 / 10) | pass |"),
            "{}",
            lines[0]
        );
        assert!(lines[1].ends_with("| **miss** |"));
        assert!(lines[2].ends_with("| **wrong** |"));
        assert!(lines[3].ends_with("| why | **error** |"));
        assert!(verdict(vec![with(13.0, 0)]).is_ok());
        assert!(verdict(vec![with(11.0, 1)]).is_err());
    }
}
