//! The floor of the log: JetStream by async-nats and nothing else.
//!
//! The streams are those of the product's default class (as many of them, with the same retention,
//! republish and Direct Get), of their own name, and deleted again; the publications are the bytes
//! that the product would send. So a ratio tells what the doors cost, not what the streams do.

use std::time::{Duration, Instant};

use async_nats::{
    Client, HeaderMap, HeaderName,
    jetstream::{self, Context, stream},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::json;

use super::{
    BenchError,
    args::{NatsPublishArgs, NatsReadArgs},
    payload::{self, Stamp, now_us},
    process,
    report::{Outcome, Report},
    stats::Histogram,
};
use crate::config::{ClassConfig, Config, Sources};

/// No answer for so long is a failure.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of one read: the messages of a batch must fit into the subscription's channel.
const PAGE_BYTES: usize = 1 << 20;
/// Publications in flight while a stream is filled.
const FILL_IN_FLIGHT: usize = 512;

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Nats(error.to_string())
}

/// `bench floor publish`.
pub(crate) fn publish(args: &NatsPublishArgs) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "floor publish",
        json!({ "in_flight": args.in_flight, "channels": args.channels, "payload": args.payload,
                "warmup_s": args.warmup.as_secs_f64(), "duration_s": args.duration.as_secs_f64() }),
    );
    for run in 1..=args.runs {
        eprintln!("floor publish: run {run} of {}", args.runs);
        report.runs.push(publish_once(args)?);
    }
    Ok(report)
}

/// One run of raw publishes.
pub(crate) fn publish_once(args: &NatsPublishArgs) -> Result<Outcome, BenchError> {
    runtime()?.block_on(async {
        let shards = class()?.shards;
        let scratch = Scratch::create(&args.nats, shards).await?;
        let subjects: Vec<String> = (0..args.channels)
            .map(|i| format!("{}.{}.c{i}", scratch.stored, i % u32::from(shards)))
            .collect();
        let window = args.in_flight as usize;
        publish_for(&scratch, &subjects, args.payload, window, args.warmup).await?;
        let own = process::own_cpu()?;
        let begin = Instant::now();
        let latency = publish_for(&scratch, &subjects, args.payload, window, args.duration).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let own = process::own_cpu()?.saturating_sub(own);
        scratch.delete().await?;
        let count = latency.count() as f64;
        let mut outcome = Outcome::default();
        outcome.figure("publications_per_s", count / seconds);
        outcome.figure("client_cpu_us", own.as_secs_f64() * 1e6 / count.max(1.0));
        outcome.figure("ack_p50_ms", latency.quantile_ms(0.5));
        outcome.figure("ack_p99_ms", latency.quantile_ms(0.99));
        Ok(outcome)
    })
}

/// `bench floor read`.
pub(crate) fn read(args: &NatsReadArgs) -> Result<Report, BenchError> {
    let parameters = json!({ "messages": args.messages, "batch": args.batch, "payload": args.payload });
    let mut report = Report::new("floor read", parameters);
    for run in 1..=args.runs {
        eprintln!("floor read: run {run} of {}", args.runs);
        report.runs.push(read_once(args)?);
    }
    Ok(report)
}

/// One run of a raw reader.
pub(crate) fn read_once(args: &NatsReadArgs) -> Result<Outcome, BenchError> {
    runtime()?.block_on(async {
        let scratch = Scratch::create(&args.nats, 1).await?;
        let subject = format!("{}.0.one", scratch.stored);
        fill(&scratch, &subject, args).await?;
        let own = process::own_cpu()?;
        let begin = Instant::now();
        let read = read_all(&scratch, &subject, args.batch).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let own = process::own_cpu()?.saturating_sub(own);
        scratch.delete().await?;
        let mut outcome = Outcome::default();
        outcome.figure("publications_per_s", read as f64 / seconds);
        outcome.figure("all_caught_up_s", seconds);
        outcome.figure("client_cpu_us", own.as_secs_f64() * 1e6 / read.max(1) as f64);
        outcome.faults.lost = u64::from(args.messages).saturating_sub(read);
        Ok(outcome)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// What the product makes its streams of when it is told nothing else.
fn class() -> Result<ClassConfig, BenchError> {
    let config = Config::load(&Sources::default()).map_err(|e| BenchError::Usage(e.to_string()))?;
    let class = config.log.classes.into_iter().next();
    class.ok_or_else(|| BenchError::Usage("the defaults have no retention class".into()))
}

/// The streams of this run.
struct Scratch {
    client: Client,
    context: Context,
    /// Their names, without the shard.
    name: String,
    shards: u16,
    /// What stored subjects begin with; the shard's number is next.
    stored: String,
    /// What the product's common publication has.
    headers: HeaderMap,
}

impl Scratch {
    async fn create(nats: &str, shards: u16) -> Result<Self, BenchError> {
        let class = class()?;
        let client = tokio::time::timeout(ANSWER, async_nats::connect(nats))
            .await
            .map_err(|_| BenchError::Nats(format!("{nats} does not answer")))?
            .map_err(failed)?;
        let context = jetstream::new(client.clone());
        let tag = super::run_tag();
        let scratch = Self {
            client,
            context,
            name: format!("BENCH_{tag}"),
            shards,
            stored: format!("bench.{tag}.h"),
            headers: HeaderMap::from_iter([(HeaderName::from_static("Slip"), "1j".into())]),
        };
        for shard in 0..shards {
            let (stored, live) = (
                format!("{}.{shard}.>", scratch.stored),
                format!("bench.{tag}.l.{shard}.>"),
            );
            let config = stream::Config {
                name: scratch.stream(shard),
                subjects: vec![stored.clone()],
                storage: stream::StorageType::File,
                max_age: class.max_age,
                max_bytes: class.max_bytes.cast_signed(),
                duplicate_window: class.duplicate_window,
                deny_delete: true,
                allow_direct: true,
                republish: Some(stream::Republish {
                    source: stored,
                    destination: live,
                    headers_only: false,
                }),
                ..stream::Config::default()
            };
            scratch.context.create_stream(config).await.map_err(failed)?;
        }
        Ok(scratch)
    }

    fn stream(&self, shard: u16) -> String {
        format!("{}_{shard}", self.name)
    }

    async fn delete(&self) -> Result<(), BenchError> {
        for shard in 0..self.shards {
            self.context
                .delete_stream(self.stream(shard))
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Sends a publication; the result waits for the acknowledgement and answers how long it took, µs.
    async fn publish(
        &self,
        subject: &str,
        payload: usize,
        seq: u32,
    ) -> Result<impl Future<Output = Result<u64, BenchError>> + use<>, BenchError> {
        let time_us = now_us();
        let mut body = Vec::with_capacity(payload);
        payload::write(&mut body, payload, Stamp { seq, time_us });
        let ack = self
            .context
            .publish_with_headers(subject.to_owned(), self.headers.clone(), body.into())
            .await
            .map_err(failed)?;
        Ok(async move {
            ack.await.map_err(failed)?;
            Ok(now_us().saturating_sub(time_us))
        })
    }
}

/// Publishes for `duration` with `window` unacknowledged, and waits for the last.
async fn publish_for(
    scratch: &Scratch,
    subjects: &[String],
    payload: usize,
    window: usize,
    duration: Duration,
) -> Result<Histogram, BenchError> {
    let end = Instant::now() + duration;
    let mut latency = Histogram::default();
    let mut acks = FuturesUnordered::new();
    for (seq, subject) in subjects.iter().cycle().enumerate() {
        if Instant::now() >= end {
            break;
        }
        acks.push(scratch.publish(subject, payload, seq as u32).await?);
        while acks.len() >= window
            && let Some(took) = acks.next().await
        {
            latency.record(took?);
        }
    }
    while let Some(took) = acks.next().await {
        latency.record(took?);
    }
    Ok(latency)
}

async fn fill(scratch: &Scratch, subject: &str, args: &NatsReadArgs) -> Result<(), BenchError> {
    let mut acks = FuturesUnordered::new();
    for seq in 1..=args.messages {
        acks.push(scratch.publish(subject, args.payload, seq).await?);
        if acks.len() >= FILL_IN_FLIGHT
            && let Some(took) = acks.next().await
        {
            took?;
        }
    }
    while let Some(took) = acks.next().await {
        took?;
    }
    Ok(())
}

/// Reads a subject from its start in batches, one after the other; answers how many there were.
async fn read_all(scratch: &Scratch, subject: &str, batch: u32) -> Result<u64, BenchError> {
    let api = format!("$JS.API.DIRECT.GET.{}", scratch.stream(0));
    let inbox = scratch.client.new_inbox();
    let mut page = scratch.client.subscribe(inbox.clone()).await.map_err(failed)?;
    let (mut read, mut next) = (0, 1);
    loop {
        let request =
            json!({ "next_by_subj": subject, "seq": next, "batch": batch, "max_bytes": PAGE_BYTES });
        scratch
            .client
            .publish_with_reply(api.clone(), inbox.clone(), request.to_string().into())
            .await
            .map_err(failed)?;
        loop {
            let message = tokio::time::timeout(ANSWER, page.next())
                .await
                .ok()
                .flatten()
                .ok_or_else(|| BenchError::Nats("a read was not answered".into()))?;
            let header = |name: &str| {
                let value = message.headers.as_ref()?.get(name)?;
                value.as_str().parse::<u64>().ok()
            };
            if message.status.is_none() {
                read += 1;
                continue;
            }
            match (header("Nats-Last-Sequence"), header("Nats-Num-Pending")) {
                (Some(last), Some(pending)) if pending > 0 => next = last + 1,
                _ => return Ok(read),
            }
            break;
        }
    }
}
