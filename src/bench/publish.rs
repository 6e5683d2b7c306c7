//! Acknowledged publications a second, nobody listening.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    BenchError,
    args::{Common, NatsPublishArgs, Over, PublishArgs},
    bulk::Bulk,
    engine::{ConnId, Engine, Event, Setup},
    floor_nats, process,
    report::{Outcome, Report, measure},
};

/// Connections that fill other channels.
const PREFILLERS: u32 = 16;

pub(crate) fn run(args: &PublishArgs) -> Result<Report, BenchError> {
    let mut common = args.common.clone();
    // The floor of a durable publish is JetStream itself, not the broadcaster.
    let with_nats = std::mem::take(&mut common.with_floor);
    if with_nats && args.nats.is_none() {
        return Err(BenchError::Usage("--with-floor needs --nats URL".into()));
    }
    let connections = connections(args);
    let parameters = json!({
        "in_flight": args.in_flight,
        "connections": connections,
        "over": format!("{:?}", args.over).to_lowercase(),
        "channels": args.channels,
        "prefill": args.prefill,
        "payload": common.payload,
        "warmup_s": args.warmup.as_secs_f64(),
        "duration_s": args.duration.as_secs_f64(),
    });
    if args.prefill > 0 {
        eprintln!("publish: filling {} other channels", args.prefill);
        let tag = super::run_tag();
        let names = (0..args.prefill)
            .map(|i| format!("{}{tag}-old-{i}", common.prefix))
            .collect();
        Bulk::connect(Setup::new(&common)?, names, PREFILLERS, args.over)?.publish(1..2)?;
    }
    let mut floors = Vec::new();
    let mut report = measure("publish", parameters, &common, 0, |common| {
        if let (true, Some(nats)) = (with_nats, &args.nats) {
            floors.push(floor_nats::publish_once(&raw(args, nats))?);
        }
        once(args, connections, common)
    })?;
    report.floor = floors;
    Ok(report)
}

/// One connection per publication in flight over REST, which has one request at a time on each.
fn connections(args: &PublishArgs) -> u32 {
    let default = if args.over == Over::Rest {
        args.in_flight
    } else {
        1
    };
    args.connections.unwrap_or(default).clamp(1, args.in_flight)
}

/// The same publications, straight to JetStream.
fn raw(args: &PublishArgs, nats: &str) -> NatsPublishArgs {
    NatsPublishArgs {
        nats: nats.to_owned(),
        in_flight: args.in_flight,
        channels: args.channels,
        payload: args.common.payload,
        runs: 1,
        warmup: args.warmup,
        duration: args.duration,
        json: None,
    }
}

fn once(args: &PublishArgs, connections: u32, common: &Common) -> Result<Outcome, BenchError> {
    let tag = super::run_tag();
    let names = (0..args.channels)
        .map(|i| format!("{}{tag}-{i}", common.prefix))
        .collect();
    let mut engine = Engine::new(Setup::new(common)?, names)?;
    let publishers: Vec<ConnId> = (0..connections).map(|_| engine.publisher(args.over)).collect();
    engine.connect_all(&mut Vec::new())?;
    let mut load = Load {
        engine,
        events: Vec::new(),
        published: vec![0; args.channels as usize],
        next_channel: 0,
        unanswered: 0,
        patience: common.patience,
    };
    for i in 0..args.in_flight {
        load.publish_next(publishers[(i % connections) as usize]);
    }
    load.drive(Instant::now() + args.warmup, true)?;
    load.engine.tally.restart();
    let (server, own) = (process::cpu_of(&common.server_pid)?, process::own_cpu()?);
    let begin = Instant::now();
    load.drive(begin + args.duration, true)?;
    let seconds = begin.elapsed().as_secs_f64();
    let server = process::cpu_of(&common.server_pid)?.saturating_sub(server);
    let own = process::own_cpu()?.saturating_sub(own);
    let tally = load.engine.tally.clone();
    load.drive(Instant::now() + common.patience, false)?;

    let done = tally.acknowledged.max(1) as f64;
    let mut outcome = Outcome::default();
    outcome.figure("publications_per_s", tally.acknowledged as f64 / seconds);
    if !common.server_pid.is_empty() {
        outcome.figure("server_cpu_us", server.as_secs_f64() * 1e6 / done);
        outcome.figure("server_cores", server.as_secs_f64() / seconds);
    }
    outcome.figure("client_cpu_us", own.as_secs_f64() * 1e6 / done);
    outcome.figure("ack_p50_ms", tally.ack_latency.quantile_ms(0.5));
    outcome.figure("ack_p99_ms", tally.ack_latency.quantile_ms(0.99));
    outcome.faults = load.engine.tally.faults;
    outcome.faults.lost += load.unanswered as u64;
    outcome.first_error.clone_from(&load.engine.tally.first_error);
    Ok(outcome)
}

struct Load {
    engine: Engine,
    events: Vec<Event>,
    published: Vec<u32>,
    next_channel: usize,
    unanswered: usize,
    patience: Duration,
}

impl Load {
    fn publish_next(&mut self, publisher: ConnId) {
        let channel = self.next_channel;
        self.next_channel = (channel + 1) % self.published.len();
        self.published[channel] += 1;
        self.unanswered += 1;
        self.engine
            .publish(publisher, channel as u32, self.published[channel]);
    }

    /// Until `end`, or until all is answered: each answer is followed by a publication if `more`.
    fn drive(&mut self, end: Instant, more: bool) -> Result<(), BenchError> {
        let mut progress = Instant::now();
        while Instant::now() < end && self.unanswered > 0 {
            self.engine.turn(end, &mut self.events)?;
            for event in std::mem::take(&mut self.events) {
                let Event::Answered(publisher) = event else {
                    continue;
                };
                progress = Instant::now();
                self.unanswered -= 1;
                if more {
                    self.publish_next(publisher);
                }
            }
            if progress.elapsed() > self.patience {
                let error = self.engine.tally.first_error.as_deref().unwrap_or("none");
                return Err(BenchError::Stalled(format!(
                    "{} publications are not acknowledged; first error: {error}",
                    self.unanswered
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::bench::{args::FloorServerArgs, floor};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: PublishArgs,
    }

    #[test]
    fn every_publication_is_answered() {
        for (line, connections) in [
            ("--in-flight 8", 8),
            ("--in-flight 8 --over ws", 1),
            ("--in-flight 8 --over ws --connections 4 --prefill 50", 4),
        ] {
            let line = format!("bench {line} --warmup 20ms --duration 100ms --runs 1");
            let mut args = Cli::parse_from(line.split(' ')).args;
            let (common, _alive) = floor::in_thread(FloorServerArgs::default(), &args.common);
            args.common = common;
            assert_eq!(super::connections(&args), connections);
            let report = run(&args).unwrap();
            report.verdict().unwrap();
            assert!(report.median("publications_per_s").unwrap() > 0.0, "{line}");
        }
    }
}
