//! Publications to many subscribers: throughput (closed loop) or latency at a rate (open loop).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    BenchError,
    args::{Common, FanoutArgs},
    engine::{ConnId, Engine, Event, Setup},
    process,
    report::{Outcome, Report, measure},
    stats::Histogram,
    worker::PER_PROCESS,
};

/// An open loop whose server is this many publications behind has failed.
const MAX_BEHIND: usize = 65_536;

pub(crate) fn run(args: &FanoutArgs) -> Result<Report, BenchError> {
    if args.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(BenchError::Usage("--rate is above 0".into()));
    }
    let subscribers = u64::from(args.channels) * u64::from(args.subscribers);
    if subscribers > u64::from(PER_PROCESS) {
        return Err(BenchError::Usage(format!(
            "{subscribers} subscribers: at most {PER_PROCESS}, or use idle --publications-each"
        )));
    }
    let common = &args.common;
    let parameters = json!({
        "channels": args.channels,
        "subscribers_each": args.subscribers,
        "rate": args.rate,
        "in_flight": args.in_flight,
        "publishers": args.publishers,
        "over": format!("{:?}", args.over).to_lowercase(),
        "payload": common.payload,
        "warmup_s": args.warmup.as_secs_f64(),
        "duration_s": args.duration.as_secs_f64(),
        "coalesce": common.coalesce,
    });
    measure("fanout", parameters, common, 0, |common| once(args, common))
}

fn once(args: &FanoutArgs, common: &Common) -> Result<Outcome, BenchError> {
    let mut load = Load::new(args, common)?;
    let connected = load.connect()?;

    let start = Instant::now();
    load.drive(start + args.warmup)?;
    load.engine.tally.restart();
    load.completed = 0;
    load.lateness.clear();
    let (server, own) = (process::cpu_of(&common.server_pid)?, process::own_cpu()?);
    let begin = Instant::now();
    load.drive(begin + args.duration)?;
    let seconds = begin.elapsed().as_secs_f64();
    let server = process::cpu_of(&common.server_pid)?.saturating_sub(server);
    let own = process::own_cpu()?.saturating_sub(own);
    let tally = load.engine.tally.clone();
    let completed = load.completed as f64;
    load.drain()?;

    let deliveries = tally.deliveries.max(1) as f64;
    let mut outcome = Outcome::default();
    outcome.figure("deliveries_per_s", tally.deliveries as f64 / seconds);
    outcome.figure("publications_per_s", completed / seconds);
    if !common.server_pid.is_empty() {
        outcome.figure("server_cpu_us", server.as_secs_f64() * 1e6 / deliveries);
        outcome.figure("server_cores", server.as_secs_f64() / seconds);
    }
    outcome.figure("client_cpu_us", own.as_secs_f64() * 1e6 / deliveries);
    outcome.figure("p50_ms", tally.latency.quantile_ms(0.5));
    outcome.figure("p99_ms", tally.latency.quantile_ms(0.99));
    outcome.figure("ack_p50_ms", tally.ack_latency.quantile_ms(0.5));
    outcome.figure("late_p99_ms", load.lateness.quantile_ms(0.99));
    outcome.figure("connect_per_s", load.subscribers as f64 / connected.as_secs_f64());
    load.judge(&mut outcome);
    Ok(outcome)
}

/// Publications of one channel that not every subscriber has received.
#[derive(Default)]
struct Outstanding {
    /// The number of the last one that all have received.
    base: u32,
    /// For each after it, how many have not.
    missing: VecDeque<u32>,
}

struct Load {
    engine: Engine,
    events: Vec<Event>,
    publishers: Vec<ConnId>,
    subscribers: usize,
    subscribers_each: u32,
    in_flight: Option<usize>,
    interval: Option<Duration>,
    patience: Duration,
    outstanding: Vec<Outstanding>,
    /// The last number published on each channel.
    published: Vec<u32>,
    next_channel: usize,
    unfinished: usize,
    completed: u64,
    /// How long after its time each publication of an open loop was sent: the generator's own.
    lateness: Histogram,
    due: Instant,
}

impl Load {
    fn new(args: &FanoutArgs, common: &Common) -> Result<Self, BenchError> {
        let tag = super::run_tag();
        let names = (0..args.channels)
            .map(|i| format!("{}{tag}-{i}", common.prefix))
            .collect();
        let mut engine = Engine::new(Setup::new(common)?, names)?;
        let publishers = (0..args.publishers)
            .map(|_| engine.publisher(args.over))
            .collect();
        for _ in 0..args.subscribers {
            for channel in 0..args.channels {
                engine.subscriber(channel, None);
            }
        }
        Ok(Self {
            engine,
            events: Vec::new(),
            publishers,
            subscribers: args.channels as usize * args.subscribers as usize,
            subscribers_each: args.subscribers,
            in_flight: match (args.in_flight, args.rate) {
                (None, None) => Some(1),
                (k, _) => k.map(|k| k as usize),
            },
            interval: args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            patience: common.patience,
            outstanding: (0..args.channels).map(|_| Outstanding::default()).collect(),
            published: vec![0; args.channels as usize],
            next_channel: 0,
            unfinished: 0,
            completed: 0,
            lateness: Histogram::default(),
            due: Instant::now(),
        })
    }

    fn connect(&mut self) -> Result<Duration, BenchError> {
        let took = self.engine.connect_all(&mut self.events)?;
        eprintln!("fanout: {} subscribers after {took:.1?}", self.subscribers);
        self.due = Instant::now();
        Ok(took)
    }

    fn publish_next(&mut self) {
        let channel = self.next_channel;
        self.next_channel = (channel + 1) % self.published.len();
        self.published[channel] += 1;
        self.outstanding[channel].missing.push_back(self.subscribers_each);
        self.unfinished += 1;
        let publisher = self.publishers[channel % self.publishers.len()];
        self.engine
            .publish(publisher, channel as u32, self.published[channel]);
    }

    /// Keeps publishing until `end`.
    fn drive(&mut self, end: Instant) -> Result<(), BenchError> {
        let mut progress = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if let Some(limit) = self.in_flight {
                while self.unfinished < limit {
                    self.publish_next();
                }
            }
            let mut until = end;
            if let Some(interval) = self.interval {
                while self.due <= now {
                    self.lateness
                        .record(now.duration_since(self.due).as_micros() as u64);
                    self.due += interval;
                    self.publish_next();
                }
                until = until.min(self.due);
            }
            if self.turn(until)? {
                progress = Instant::now();
            } else if (self.unfinished > 0 && progress.elapsed() > self.patience)
                || self.unfinished > MAX_BEHIND
            {
                return Err(self.stalled());
            }
        }
    }

    /// Waits until all have received all, without publishing.
    fn drain(&mut self) -> Result<(), BenchError> {
        let mut progress = Instant::now();
        while self.unfinished > 0 && progress.elapsed() < self.patience {
            if self.turn(Instant::now() + Duration::from_millis(100))? {
                progress = Instant::now();
            }
        }
        // What comes twice may come a little later.
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    fn stalled(&self) -> BenchError {
        let error = self.engine.tally.first_error.as_deref().unwrap_or("none");
        BenchError::Stalled(format!(
            "{} publications have not reached everybody; {} of {} connections are up; first error: {error}",
            self.unfinished,
            self.engine.live(),
            self.subscribers + self.publishers.len(),
        ))
    }

    /// Whether anything was received.
    fn turn(&mut self, until: Instant) -> Result<bool, BenchError> {
        self.engine.turn(until, &mut self.events)?;
        let before = self.unfinished;
        let mut received = false;
        for event in &self.events {
            let Event::Delivered(conn, seq) = *event else {
                continue;
            };
            received = true;
            let Outstanding { base, missing } = &mut self.outstanding[self.engine.channel_of(conn) as usize];
            let Some(left) = missing.get_mut((seq.wrapping_sub(*base + 1)) as usize) else {
                continue;
            };
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.unfinished -= 1;
            }
            while missing.front() == Some(&0) {
                missing.pop_front();
                *base += 1;
            }
        }
        self.completed += (before - self.unfinished) as u64;
        Ok(received)
    }

    /// Counts what is missing.
    fn judge(&self, outcome: &mut Outcome) {
        outcome.faults = self.engine.tally.faults;
        outcome.first_error.clone_from(&self.engine.tally.first_error);
        let first = self.publishers.len();
        outcome.faults.lost += (first..first + self.subscribers)
            .filter_map(|conn| {
                let published = self.published[self.engine.channel_of(conn) as usize];
                Some(u64::from(
                    published.saturating_sub(self.engine.watch(conn)?.distinct()),
                ))
            })
            .sum::<u64>();
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
        args: FanoutArgs,
    }

    /// The whole way, client and floor, in one process.
    #[test]
    fn nothing_is_lost_between_the_client_and_the_floor() {
        for (line, coalesce) in [
            ("--in-flight 4 --subscribers 20", false),
            ("--in-flight 4 --subscribers 20 --over ws", true),
            (
                "--rate 200 --subscribers 3 --channels 5 --publishers 2 --payload 20000",
                false,
            ),
        ] {
            let line = format!("bench {line} --warmup 50ms --duration 200ms --runs 1");
            let mut args = Cli::parse_from(line.split(' ')).args;
            let (common, _alive) = floor::in_thread(FloorServerArgs { coalesce, history: 0 }, &args.common);
            args.common = common;
            let report = run(&args).unwrap();
            report.verdict().unwrap();
            assert!(report.median("deliveries_per_s").unwrap() > 0.0, "{line}");
            assert!(report.median("p99_ms").unwrap() > 0.0);
        }
    }
}
