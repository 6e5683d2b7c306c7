//! Clients that come back, all at once, and have missed something.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    BenchError,
    args::{Common, NatsReadArgs, ResumeArgs},
    bulk::Bulk,
    engine::{Engine, Event, Position, Setup},
    floor_nats, process,
    report::{Outcome, Report, measure},
    worker::PER_PROCESS,
};

/// How often the server's memory is looked at while one client catches up.
const SAMPLE: Duration = Duration::from_millis(20);

/// How many clients, on how many channels, behind by how much.
#[derive(Clone, Copy, Debug)]
struct Shape {
    clients: u32,
    channels: u32,
    missed: u32,
}

pub(crate) fn run(args: &ResumeArgs) -> Result<Report, BenchError> {
    let shape = match args.behind {
        Some(missed) => Shape {
            clients: 1,
            channels: 1,
            missed,
        },
        None => Shape {
            clients: args.clients,
            channels: args.channels.min(args.clients),
            missed: args.missed,
        },
    };
    if shape.clients > PER_PROCESS {
        return Err(BenchError::Usage(format!(
            "at most {PER_PROCESS} clients come back at once"
        )));
    }
    let common = &args.common;
    let parameters = json!({
        "clients": shape.clients,
        "channels": shape.channels,
        "missed_each": shape.missed,
        "connecting": common.connecting,
        "payload": common.payload,
        "settle_s": args.settle.as_secs_f64(),
        "authenticated": common.token_secret.is_some(),
    });
    let Some(nats) = args
        .nats
        .as_ref()
        .filter(|_| args.behind.is_some() && common.with_floor)
    else {
        return measure("resume", parameters, common, shape.missed, |common| {
            once(args, shape, common)
        });
    };
    // One client far behind is compared with one reader of the log.
    let raw = NatsReadArgs {
        nats: nats.clone(),
        messages: shape.missed,
        batch: 1000,
        payload: common.payload,
        runs: 1,
        json: None,
    };
    let mut floors = Vec::new();
    let without = Common {
        with_floor: false,
        ..common.clone()
    };
    let mut report = measure("resume", parameters, &without, 0, |common| {
        floors.push(floor_nats::read_once(&raw)?);
        once(args, shape, common)
    })?;
    report.floor = floors;
    Ok(report)
}

fn once(args: &ResumeArgs, shape: Shape, common: &Common) -> Result<Outcome, BenchError> {
    let tag = super::run_tag();
    let names: Vec<String> = (0..shape.channels)
        .map(|i| format!("{}{tag}-{i}", common.prefix))
        .collect();
    let positions = leave(shape, common, &names)?;
    eprintln!(
        "resume: {} clients have left; publishing what they miss",
        shape.clients
    );
    let publishers = args.publishers.min(shape.channels);
    let mut bulk = Bulk::connect(Setup::new(common)?, names.clone(), publishers, args.over)?;
    bulk.publish(1..shape.missed + 1)?;
    drop(bulk);
    thread::sleep(args.settle);
    come_back(shape, common, names, positions)
}

fn setup(common: &Common) -> Result<Setup, BenchError> {
    Ok(Setup {
        positions: true,
        ..Setup::new(common)?
    })
}

/// Connects everybody once, and answers where each was when it left.
fn leave(shape: Shape, common: &Common, names: &[String]) -> Result<Vec<Position>, BenchError> {
    let mut engine = Engine::new(setup(common)?, names.to_vec())?;
    let clients: Vec<_> = (0..shape.clients)
        .map(|i| engine.subscriber(i % shape.channels, None))
        .collect();
    engine.connect_all(&mut Vec::new())?;
    Ok(clients
        .into_iter()
        .map(|client| engine.position(client).unwrap_or_default())
        .collect())
}

fn come_back(
    shape: Shape,
    common: &Common,
    names: Vec<String>,
    positions: Vec<Position>,
) -> Result<Outcome, BenchError> {
    let clients = positions.len();
    let mut engine = Engine::new(setup(common)?, names)?;
    for (i, position) in positions.into_iter().enumerate() {
        engine.subscriber(i as u32 % shape.channels, Some(position));
    }
    let before = process::cpu_of(&common.server_pid)?;
    let own = process::own_cpu()?;
    let begin = Instant::now();
    let mut left = vec![shape.missed; clients];
    let mut behind = if shape.missed > 0 { clients } else { 0 };
    let (mut connected, mut progress, mut sampled) = (Duration::ZERO, begin, begin);
    let mut events = Vec::new();
    // Of the first process alone: the edge, where nats-server's is given as well.
    let watched = common.server_pid.first().copied().filter(|_| clients == 1);
    let rss = |pid: Option<u32>| pid.map_or(Ok(0), process::rss_kib);
    let rss_before = rss(watched)?;
    let mut most_rss = rss_before;
    while engine.live() < clients || behind > 0 {
        engine.turn(Instant::now() + SAMPLE, &mut events)?;
        for event in &events {
            if let Event::Delivered(client, _) = *event {
                left[client] = left[client].saturating_sub(1);
                behind -= usize::from(left[client] == 0);
            }
        }
        if engine.live() == clients && connected.is_zero() {
            connected = begin.elapsed();
        }
        if !events.is_empty() {
            progress = Instant::now();
        } else if progress.elapsed() > common.patience {
            let error = engine.tally.first_error.as_deref().unwrap_or("none");
            return Err(BenchError::Stalled(format!(
                "{} of {clients} clients are back, {behind} are still behind; {} not recovered; first error: {error}",
                engine.live(),
                engine.tally.faults.unrecovered
            )));
        }
        if sampled.elapsed() > SAMPLE {
            sampled = Instant::now();
            most_rss = most_rss.max(rss(watched)?);
        }
    }
    let took = begin.elapsed().as_secs_f64();
    let server = process::cpu_of(&common.server_pid)?.saturating_sub(before);
    let own = process::own_cpu()?.saturating_sub(own);
    // What comes twice may come a little later.
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        engine.turn(end, &mut events)?;
    }

    let missed = f64::from(shape.missed) * clients as f64;
    let mut outcome = Outcome::default();
    outcome.figure("all_caught_up_s", took);
    outcome.figure("all_connected_s", connected.as_secs_f64());
    outcome.figure("publications_per_s", missed / took);
    if !common.server_pid.is_empty() {
        outcome.figure("server_cpu_ms", server.as_secs_f64() * 1e3 / clients as f64);
    }
    if watched.is_some() {
        outcome.figure("rss_grown_kib", most_rss.saturating_sub(rss_before) as f64);
    }
    outcome.figure("client_cpu_ms", own.as_secs_f64() * 1e3 / clients as f64);
    outcome.figure("resubscribed", engine.tally.resubscribed as f64);
    outcome.faults = engine.tally.faults;
    outcome.faults.lost += (0..clients)
        .filter_map(|client| {
            Some(u64::from(
                shape.missed.saturating_sub(engine.watch(client)?.distinct()),
            ))
        })
        .sum::<u64>();
    outcome.first_error.clone_from(&engine.tally.first_error);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::bench::{args::FloorServerArgs, floor};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ResumeArgs,
    }

    fn resume(line: &str, history: u32) -> Result<Report, BenchError> {
        let line = format!("bench {line} --runs 1 --settle 10ms");
        let mut args = Cli::parse_from(line.split(' ')).args;
        let server = FloorServerArgs {
            history,
            ..FloorServerArgs::default()
        };
        let (common, _alive) = floor::in_thread(server, &args.common);
        args.common = common;
        run(&args)
    }

    #[test]
    fn everybody_catches_up() {
        for line in [
            "--clients 30 --channels 3 --missed 20 --connecting 4",
            "--clients 20 --channels 20 --missed 5",
            "--behind 5000",
            "--clients 5 --missed 0",
        ] {
            resume(line, 5000).unwrap().verdict().unwrap();
        }
    }

    #[test]
    fn a_server_that_has_less_is_found_out() {
        let error = resume("--clients 2 --channels 1 --missed 20 --patience 300ms", 19).unwrap_err();
        assert!(matches!(error, BenchError::Stalled(_)), "{error}");
    }
}
