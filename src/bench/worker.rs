//! Connections in other processes: a process may have too few descriptors for all of them.
//!
//! The parent writes a [`Job`] and then numbers of publications to expect, one JSON value a line;
//! the child writes its [`Status`] whenever it has changed, and ends with its standard input.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    BenchError,
    args::{Api, Common},
    check::Faults,
    endpoint::Endpoint,
    engine::{Engine, Setup},
    report,
    stats::Histogram,
    token::Signer,
};

/// Connections of one process: below the 20,000 descriptors a process is often held to.
pub(crate) const PER_PROCESS: u32 = 18_000;

/// How often a child looks for orders and tells its status.
const TICK: Duration = Duration::from_millis(50);

/// What a child does: subscribe, answer pings, check what arrives.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    targets: Vec<String>,
    token_secret: Option<String>,
    connecting: usize,
    payload: usize,
    /// The number of its first connection among those of all processes.
    first: u32,
    connections: u32,
    /// A channel is this and the connection's number, or this alone.
    channel: String,
    own_channels: bool,
    patience: Duration,
}

/// How a child's connections are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) live: usize,
    /// Connections that have received as many publications as they are to expect.
    pub(crate) complete: usize,
    pub(crate) received: u64,
    pub(crate) faults: Faults,
    pub(crate) latency: Histogram,
    pub(crate) first_error: Option<String>,
}

/// `bench worker`.
pub(crate) fn run() -> Result<(), BenchError> {
    let mut first = String::new();
    std::io::stdin().read_line(&mut first)?;
    let job: Job = serde_json::from_str(&first)?;
    let (orders, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Ends with standard input; dropping `orders` then ends the process.
        std::io::stdin()
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.trim().parse::<u32>().ok())
            .try_for_each(|order| orders.send(order))
    });
    serve(&job, &receiver, &mut |status| {
        report::io_out(&(serde_json::to_string(status)? + "\n")).map_err(BenchError::from)
    })
}

fn serve(
    job: &Job,
    orders: &Receiver<u32>,
    tell: &mut dyn FnMut(&Status) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let mut engine = job.engine()?;
    let mut events = Vec::new();
    let mut expected = 0;
    let mut told = None;
    loop {
        match orders.try_recv() {
            Ok(order) => expected = order,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        let end = Instant::now() + TICK;
        while Instant::now() < end {
            engine.turn(end, &mut events)?;
        }
        let (mut complete, mut received) = (0, 0);
        for watch in (0..job.connections as usize).filter_map(|conn| engine.watch(conn)) {
            received += u64::from(watch.distinct());
            complete += usize::from(expected > 0 && watch.distinct() >= expected);
        }
        let status = Status {
            live: engine.live(),
            complete,
            received,
            faults: engine.tally.faults,
            latency: engine.tally.latency.clone(),
            first_error: engine.tally.first_error.clone(),
        };
        if told.as_ref() != Some(&status) {
            tell(&status)?;
            told = Some(status);
        }
    }
}

impl Job {
    fn engine(&self) -> Result<Engine, BenchError> {
        let targets: Vec<Endpoint> = self
            .targets
            .iter()
            .map(|url| url.parse().map_err(BenchError::Usage))
            .collect::<Result<_, _>>()?;
        let http = targets
            .first()
            .map(|target| target.with_path("/"))
            .ok_or_else(|| BenchError::Usage("a job without targets".into()))?;
        let setup = Setup {
            targets,
            http,
            api: Api::Centrifugo,
            api_key: String::new(),
            signer: self.token_secret.as_deref().map(Signer::new),
            payload: self.payload,
            connecting: self.connecting,
            first_user: self.first as usize,
            positions: false,
            patience: self.patience,
        };
        let names = if self.own_channels {
            (self.first..self.first + self.connections)
                .map(|i| format!("{}{i}", self.channel))
                .collect()
        } else {
            vec![self.channel.clone()]
        };
        let mut engine = Engine::new(setup, names)?;
        for i in 0..self.connections {
            engine.subscriber(if self.own_channels { i } else { 0 }, None);
        }
        Ok(engine)
    }
}

struct Worker {
    child: Child,
    orders: ChildStdin,
    statuses: Receiver<Status>,
    last: Status,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All children of a run; they end with it.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    connections: usize,
}

impl Workers {
    /// Starts `processes` children that share `connections` evenly and connect at once.
    pub(crate) fn start(
        common: &Common,
        connections: u32,
        processes: u32,
        channel: &str,
        own_channels: bool,
    ) -> Result<Self, BenchError> {
        let setup = Setup::new(common)?;
        let mut first = 0;
        let mut workers = Vec::new();
        for process in 0..processes {
            let count = (connections - first).div_ceil(processes - process);
            let job = Job {
                targets: setup.targets.iter().map(|target| target.url("ws")).collect(),
                token_secret: common.token_secret.clone(),
                connecting: (setup.connecting / processes as usize).max(1),
                payload: common.payload,
                first,
                connections: count,
                channel: channel.to_owned(),
                own_channels,
                patience: common.patience,
            };
            first += count;
            workers.push(spawn(&job)?);
        }
        Ok(Self {
            workers,
            connections: connections as usize,
        })
    }

    /// What all children say together.
    pub(crate) fn status(&mut self) -> Result<Status, BenchError> {
        let mut all = Status::default();
        for worker in &mut self.workers {
            worker.last = worker
                .statuses
                .try_iter()
                .last()
                .unwrap_or(std::mem::take(&mut worker.last));
            if let Some(code) = worker.child.try_wait()? {
                return Err(BenchError::Process(format!("a worker process ended: {code}")));
            }
            let Status {
                live,
                complete,
                received,
                faults,
                latency,
                first_error,
            } = &worker.last;
            all.live += live;
            all.complete += complete;
            all.received += received;
            all.faults.add(*faults);
            all.latency.merge(latency);
            all.first_error = all.first_error.or_else(|| first_error.clone());
        }
        Ok(all)
    }

    /// Tells all children how many publications each connection is to receive in all.
    pub(crate) fn expect(&mut self, publications: u32) -> Result<(), BenchError> {
        for worker in &mut self.workers {
            writeln!(worker.orders, "{publications}")?;
        }
        Ok(())
    }

    /// Waits until `done` of all connections, or nothing has moved for `patience`.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        done: impl Fn(&Status) -> usize,
    ) -> Result<Status, BenchError> {
        let mut seen = (Status::default(), Instant::now());
        let mut shown = Instant::now();
        loop {
            let status = self.status()?;
            if done(&status) == self.connections {
                return Ok(status);
            }
            if status != seen.0 {
                seen = (status, Instant::now());
            } else if seen.1.elapsed() > patience {
                let error = seen.0.first_error.unwrap_or_default();
                let done = done(&self.status()?);
                return Err(BenchError::Stalled(format!(
                    "{done} of {} are {what} {error}",
                    self.connections
                )));
            }
            if shown.elapsed().as_secs() >= 2 {
                shown = Instant::now();
                eprintln!("bench: {} of {} are {what}", done(&seen.0), self.connections);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(job: &Job) -> Result<Worker, BenchError> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "worker"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut orders), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(BenchError::Process("a worker without pipes".into()));
    };
    writeln!(orders, "{}", serde_json::to_string(job)?)?;
    let (sender, statuses) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let Ok(status) = serde_json::from_str(&line) else {
                return;
            };
            if sender.send(status).is_err() {
                return;
            }
        }
    });
    Ok(Worker {
        child,
        orders,
        statuses,
        last: Status::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        args::{FloorServerArgs, Over},
        bulk::Bulk,
        floor,
    };

    #[test]
    fn a_job_counts_what_its_connections_receive() {
        let common = crate::bench::args::tests::common("--patience 5s");
        let (common, _alive) = floor::in_thread(FloorServerArgs::default(), &common);
        let job = Job {
            targets: common.target.iter().map(|t| t.url("ws")).collect(),
            token_secret: Some("secret".into()),
            connecting: 2,
            payload: 100,
            first: 5,
            connections: 10,
            channel: "c".into(),
            own_channels: true,
            patience: common.patience,
        };
        let names = (5..15).map(|i| format!("c{i}")).collect();
        let mut bulk = Bulk::connect(Setup::new(&common).unwrap(), names, 2, Over::Rest).unwrap();
        let (orders, receiver) = mpsc::channel();
        orders.send(3).unwrap();
        let (done, finished) = mpsc::channel();
        // The job ends with its orders: when it has done what it should, or never will.
        let keeper = thread::spawn(move || {
            let _ = finished.recv_timeout(Duration::from_secs(20));
            drop(orders);
        });
        let mut published = false;
        let mut last = Status::default();
        serve(&job, &receiver, &mut |status| {
            if status.live == 10 && !published {
                published = true;
                bulk.publish(1..4)?;
            }
            if status.complete == 10 {
                let _ = done.send(());
            }
            last = status.clone();
            Ok(())
        })
        .unwrap();
        keeper.join().unwrap();
        assert_eq!((last.live, last.received, last.faults.any()), (10, 30, false));
    }
}
