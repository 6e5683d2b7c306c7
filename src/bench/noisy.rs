//! Whether a noisy app delays a quiet one: how long publications of the quiet one take, alone and while the
//! other sends ten times what it may, refused or queued. A real edge and nats-server, REST over keep-alive.
//!
//! The quiet app is sent by a clock (open loop): a publication that could not be sent in time counts from when
//! it was due, so that a stall is not hidden by sending less. A run in which the noise fell behind its own clock
//! fails.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    BenchError,
    args::{Api, NoisyArgs},
    endpoint::Endpoint,
    engine::http,
    report,
    stats::Histogram,
    suite::{
        find_nats,
        stack::{Programs, Stack},
    },
};

/// In `noisy.toml`.
const CONFIG: &str = include_str!("noisy.toml");
const QUIET_KEY: &str = "quiet-0123456789abcdef0123456789";
const NOISY_KEY: &str = "noisy-0123456789abcdef0123456789";
const NOISY_RATE: u32 = 200;
/// So many times its rate the noisy app sends.
const TIMES: u32 = 10;
/// Connections of the noisy app.
const NOISY_CONNECTIONS: u32 = 8;
/// How far its clients step back behind the edge, NATS and the quiet app's client.
const NOISY_NICE: i32 = 15;
/// The noise that must have been sent, percent, or there was none to measure beside.
const NOISE_PERCENT: u64 = 95;
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the quiet app is measured beside: nothing, or a channel of the noisy one.
const BESIDE: [(&str, Option<&str>); 3] = [
    ("alone", None),
    ("beside one that is refused", Some("reject:x")),
    ("beside one that is queued", Some("queue:x")),
];

/// A backend with one connection.
struct Backend {
    stream: TcpStream,
    server: Endpoint,
    key: &'static str,
    data: Vec<u8>,
    received: Vec<u8>,
}

impl Backend {
    fn connect(server: &Endpoint, key: &'static str, payload: usize) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(server.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            server: server.clone(),
            key,
            data: format!("\"{}\"", "x".repeat(payload.saturating_sub(2))).into_bytes(),
            received: Vec::new(),
        })
    }

    /// Publishes and waits for the answer: its status.
    fn publish(&mut self, channel: &str) -> Result<u16, BenchError> {
        let mut request = Vec::with_capacity(self.data.len() + 512);
        http::write_publish(
            &mut request,
            &self.server,
            Api::Rest,
            self.key,
            channel,
            &self.data,
        );
        self.stream.write_all(&request)?;
        loop {
            let parsed = http::parse(&self.received).map_err(|why| BenchError::Connection(why.to_owned()))?;
            if let Some(http::Response { status, len, .. }) = parsed {
                self.received.drain(..len);
                return Ok(status);
            }
            let mut some = [0; 4096];
            let read = self.stream.read(&mut some)?;
            if read == 0 {
                return Err(BenchError::Connection(
                    "the server closed the connection".to_owned(),
                ));
            }
            self.received.extend_from_slice(&some[..read]);
        }
    }
}

/// What became of what the noisy app sent.
#[derive(Default)]
struct Noise {
    live: AtomicU64,
    queued: AtomicU64,
    refused: AtomicU64,
}

/// `bench noisy`.
pub(crate) fn run(args: &NoisyArgs) -> Result<(), BenchError> {
    let programs = Programs {
        edge: match &args.edge_bin {
            Some(path) => path.clone(),
            None => std::env::current_exe()?,
        },
        nats: find_nats(args.nats_server.as_deref())?,
    };
    let dir = std::env::temp_dir().join(format!("slipstream-noisy-{}", super::run_tag()));
    let mut measured = vec![Vec::new(); BESIDE.len()];
    for round in 0..args.runs {
        for (place, (name, channel)) in BESIDE.iter().enumerate() {
            // Servers of its own: what waits from one must not be there for the next.
            let stack = Stack::start_with(&programs, dir.join(format!("{round}-{place}")), 1, CONFIG)?;
            let server = stack.edge().map_err(BenchError::Usage)?;
            let one = measure(args, &server, *channel)?;
            eprintln!("{name}: {one}");
            measured[place].push(one);
        }
    }
    let figure = |place: usize, name: &str| {
        let mut all: Vec<f64> = measured[place]
            .iter()
            .filter_map(|one| one[name].as_f64())
            .collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    println!("| the quiet app | p50 | p99 | p99 against alone |\n|---|---|---|---|");
    let mut rows = Vec::new();
    for (place, (name, _)) in BESIDE.iter().enumerate() {
        let (p50, p99) = (figure(place, "p50_ms"), figure(place, "p99_ms"));
        let ratio = report::round(p99 / figure(0, "p99_ms").max(0.001));
        println!("| {name} | {p50:.2} ms | {p99:.2} ms | {ratio:.2} |");
        rows.push(
            json!({"beside": name, "p50_ms": p50, "p99_ms": p99, "ratio": ratio, "runs": measured[place]}),
        );
    }
    let result = json!({"rate": args.rate, "noisy_rate": NOISY_RATE, "times": TIMES, "rows": rows});
    match &args.json {
        Some(file) => report::write_json(&result, Some(file)),
        None => Ok(()),
    }
}

fn measure(args: &NoisyArgs, server: &Endpoint, noisy: Option<&'static str>) -> Result<Value, BenchError> {
    let (noise, ended) = (Arc::new(Noise::default()), Arc::new(AtomicBool::new(false)));
    let mut threads = Vec::new();
    for _ in 0..noisy.map_or(0, |_| NOISY_CONNECTIONS) {
        let mut backend = Backend::connect(server, NOISY_KEY, args.payload)?;
        let (noise, ended) = (noise.clone(), ended.clone());
        threads.push(thread::spawn(move || {
            // Elsewhere its clients have processors of their own: here they must not take them from what is
            // measured. This is of the thread alone (setpriority(2), notes).
            rustix::process::nice(NOISY_NICE).map_err(std::io::Error::from)?;
            let pause = Duration::from_secs(1) * NOISY_CONNECTIONS / (NOISY_RATE * TIMES);
            let mut due = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                wait_until(due);
                due += pause;
                let count = match backend.publish(noisy.unwrap_or_default())? {
                    202 => &noise.queued,
                    429 => &noise.refused,
                    _ => &noise.live,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), BenchError>(())
        }));
    }
    let quiet = quiet(args, server);
    ended.store(true, Ordering::Relaxed);
    for thread in threads {
        thread
            .join()
            .map_err(|_| BenchError::Process("a thread panicked".to_owned()))??;
    }
    let quiet = quiet?;
    let sent = [&noise.live, &noise.queued, &noise.refused];
    let sent = sent
        .map(|count| count.load(Ordering::Relaxed))
        .iter()
        .sum::<u64>();
    let due = u64::from(NOISY_RATE * TIMES) * (args.warmup + args.duration).as_secs();
    if noisy.is_some() && sent * 100 < due * NOISE_PERCENT {
        return Err(BenchError::Wrong(format!(
            "only {sent} of {due} publications of the noisy app were sent"
        )));
    }
    Ok(json!({
        "p50_ms": quiet.quantile_ms(0.5),
        "p99_ms": quiet.quantile_ms(0.99),
        "publications": quiet.count(),
        "noisy_live": noise.live.load(Ordering::Relaxed),
        "noisy_queued": noise.queued.load(Ordering::Relaxed),
        "noisy_refused": noise.refused.load(Ordering::Relaxed),
    }))
}

fn quiet(args: &NoisyArgs, server: &Endpoint) -> Result<Histogram, BenchError> {
    let mut backend = Backend::connect(server, QUIET_KEY, args.payload)?;
    let mut latency = Histogram::default();
    let pause = Duration::from_secs(1) / args.rate;
    let (began, mut due) = (Instant::now(), Instant::now());
    while due.duration_since(began) < args.warmup + args.duration {
        wait_until(due);
        let status = backend.publish("quiet:x")?;
        if status != 201 {
            return Err(BenchError::Wrong(format!("the quiet app was answered {status}")));
        }
        if due.duration_since(began) >= args.warmup {
            latency.record(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        due += pause;
    }
    Ok(latency)
}

fn wait_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Sources},
        model::Overflow,
    };

    #[test]
    fn the_configuration_has_what_is_measured() {
        let config = Config::load(&Sources {
            file: Some(("noisy.toml".into(), CONFIG.to_owned())),
            ..Sources::default()
        });
        let config = config.unwrap();
        let [quiet, noisy] = config.apps.as_slice() else {
            panic!("two apps")
        };
        assert_eq!(
            (quiet.api_keys[0].expose(), noisy.api_keys[0].expose()),
            (QUIET_KEY, NOISY_KEY)
        );
        assert_eq!(noisy.limits.publish_rate, NOISY_RATE);
        let overflow: Vec<_> = noisy
            .namespaces
            .iter()
            .map(|(name, rule)| (name.as_str(), rule.overflow))
            .collect();
        assert_eq!(
            overflow,
            [("reject", Overflow::Reject), ("queue", Overflow::Queue)]
        );
    }
}
