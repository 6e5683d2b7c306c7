//! The command line of `slipstream bench`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{endpoint::Endpoint, payload};

/// Measure a server that speaks the Centrifuge protocol.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum BenchCommand {
    /// Memory of connections that do nothing.
    Idle(IdleArgs),
    /// Publications to many subscribers: throughput, CPU, latency.
    Fanout(FanoutArgs),
    /// Acknowledged publications, nobody listening.
    Publish(PublishArgs),
    /// Clients that come back and have missed something.
    Resume(ResumeArgs),
    /// Members of channels on several nodes in this process: joins, bytes, queries, memory, idleness.
    Presence(PresenceArgs),
    /// Apps that follow a bucket: start, memory, and how soon a change takes effect.
    Apps(AppsArgs),
    /// How fast reports of what apps use are added up in a store.
    Usage(UsageArgs),
    /// What the limits cost a publication, in nanoseconds, without a network.
    Limits(LimitsArgs),
    /// What validating payloads against schemas takes, in nanoseconds a unit of work, without a network.
    Schemas(SchemasArgs),
    /// Whether an app that sends ten times what it may delays another one. Starts its own servers.
    Noisy(NoisyArgs),
    /// What is possible on this machine: the same work without a product.
    #[command(subcommand)]
    Floor(FloorCommand),
    /// All rows of docs/performance.md, as a markdown table.
    Suite(SuiteArgs),
    /// The broadcaster that `floor` measures.
    #[command(hide = true)]
    FloorServer(FloorServerArgs),
    /// The connections of one of several processes; reads its job from standard input.
    #[command(hide = true)]
    Worker,
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum FloorCommand {
    /// An epoll broadcaster with one write per delivery.
    Fanout(FanoutArgs),
    /// The same, with idle connections.
    Idle(IdleArgs),
    /// Clients that connect and get what they missed from memory.
    Resume(ResumeArgs),
    /// Raw pipelined publishes to JetStream, by async-nats.
    Publish(NatsPublishArgs),
    /// A raw reader of one subject, by batched Direct Get.
    Read(NatsReadArgs),
}

/// Which server is measured and what of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// WebSocket address, `ws://127.0.0.1:8000/connection/websocket`; several are used in turn.
    #[arg(long, value_name = "URL")]
    pub(crate) target: Vec<Endpoint>,
    /// Where publications are posted; the first target's server if not given.
    #[arg(long, value_name = "URL")]
    pub(crate) http: Option<Endpoint>,
    /// Key for posting publications.
    #[arg(long, value_name = "KEY", default_value = "")]
    pub(crate) api_key: String,
    /// How publications are posted.
    #[arg(long, default_value = "centrifugo")]
    pub(crate) api: Api,
    /// Secret for HS256 tokens; connections are anonymous without it.
    #[arg(long, value_name = "SECRET")]
    pub(crate) token_secret: Option<String>,
    /// The app, as `?app=` of the WebSocket address.
    #[arg(long, value_name = "ID")]
    pub(crate) app: Option<String>,
    /// Processes whose CPU and memory count as the server's; several are summed.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Vec<u32>,
    /// What channel names begin with.
    #[arg(long, value_name = "PREFIX", default_value = "public:bench-")]
    pub(crate) prefix: String,
    /// How often; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Bytes of a publication.
    #[arg(long, default_value_t = 256, value_parser = payload_size)]
    pub(crate) payload: usize,
    /// Connections on their way at once.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connecting: u32,
    /// How long without any progress is a failure.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub(crate) patience: Duration,
    /// Also measure the floor, run by run in turn, and print ratios.
    #[arg(long)]
    pub(crate) with_floor: bool,
    /// The floor writes once per socket for all that is queued to it.
    #[arg(long)]
    pub(crate) coalesce: bool,
    /// Where the result is written as JSON; standard output if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    /// `POST /api/publish`
    Centrifugo,
    /// `POST /v1/channels/{channel}/publications`
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    /// HTTP keep-alive, one request at a time per connection.
    Rest,
    /// WebSocket, pipelined.
    Ws,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Channels {
    /// One channel for all.
    Shared,
    /// A channel each.
    Own,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Channels.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: u32,
    /// Subscribers of each channel.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    /// Open loop: publications a second, over all channels.
    #[arg(long, value_name = "N", conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,
    /// Closed loop: publications that not all subscribers have received yet.
    #[arg(long, value_name = "K")]
    pub(crate) in_flight: Option<u32>,
    /// Publishing connections; a channel always uses the same one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// How publications get there.
    #[arg(long, default_value = "rest")]
    pub(crate) over: Over,
    /// Not measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LimitsArgs {
    /// Publications of a run.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publications: u32,
    /// Channels, users and connections they are spread over, beside one of each.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub(crate) keys: u32,
    /// How often; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where the result is written as JSON; standard output if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SchemasArgs {
    /// How often; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where the result is written as JSON; standard output if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct NoisyArgs {
    /// The binary under test; this one if not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) edge_bin: Option<PathBuf>,
    /// The nats-server; SLIPSTREAM_NATS_SERVER, .cache/nats-server or the one in PATH if not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,
    /// Publications a second of the quiet app.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// Bytes of a publication.
    #[arg(long, default_value_t = 256, value_parser = payload_size)]
    pub(crate) payload: usize,
    /// Before the measured part of each run.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Measured part of each run.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How often; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where the result is written as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Connections.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// What they subscribe to.
    #[arg(long, default_value = "shared")]
    pub(crate) channels: Channels,
    /// Publications each receives before the rest.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) publications_each: u32,
    /// How publications get there.
    #[arg(long, default_value = "rest")]
    pub(crate) over: Over,
    /// Publishing connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// Silence before memory is read.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) rest: Duration,
    /// Processes that hold the connections; as many as the file limit asks for if not given.
    #[arg(long, value_name = "N")]
    pub(crate) processes: Option<u32>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Publications without an acknowledgement, all connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Publishing connections; over REST as many as are in flight if not given, else one.
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<u32>,
    /// How publications get there.
    #[arg(long, default_value = "rest")]
    pub(crate) over: Over,
    /// Channels published to.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: u32,
    /// Other channels that get one publication each beforehand.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) prefill: u32,
    /// Not measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// With --with-floor: the nats-server that raw publishes go to.
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Clients that come back.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
    /// Channels they are spread over; as many as clients: a channel each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: u32,
    /// Publications each channel got meanwhile.
    #[arg(long, default_value_t = 100)]
    pub(crate) missed: u32,
    /// One client on one channel that is this far behind, instead of the above.
    #[arg(long, value_name = "N")]
    pub(crate) behind: Option<u32>,
    /// How publications get there.
    #[arg(long, default_value = "rest")]
    pub(crate) over: Over,
    /// Publishing connections.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// Between the last publication and the first client that comes back.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) settle: Duration,
    /// With --behind and --with-floor: the nats-server that a raw reader reads from.
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct NatsPublishArgs {
    /// The nats-server; a stream of its own is made there and deleted again.
    #[arg(long, value_name = "URL", default_value = "127.0.0.1:4222")]
    pub(crate) nats: String,
    /// Publications without an acknowledgement.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Subjects published to.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: u32,
    /// Bytes of a publication.
    #[arg(long, default_value_t = 256, value_parser = payload_size)]
    pub(crate) payload: usize,
    /// How often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Not measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Where the result is written as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PresenceArgs {
    /// The nats-server; streams and buckets of their own prefix are made there.
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    pub(crate) nats: String,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// Members of one channel.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) members: usize,
    /// Channels with one or two members, in which nothing happens.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) channels: usize,
    /// How long that is measured.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) idle: Duration,
    /// Where the result is written as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct AppsArgs {
    /// The nats-server; streams and buckets of their own prefix are made there.
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    pub(crate) nats: String,
    /// Apps.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) apps: u32,
    /// Changes of one of them, one after the other.
    #[arg(long, default_value_t = 200)]
    pub(crate) changes: u32,
    /// Where the result is written as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UsageArgs {
    /// The store: `sqlite:PATH` or `mongodb://...`, better an empty one; a file of its own if left out.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Records.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) records: u32,
    /// Apps in each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) apps: u32,
    /// Namespaces of each app.
    #[arg(long, default_value_t = 2)]
    pub(crate) namespaces: u32,
    /// Nodes that the records are of.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) nodes: u32,
    /// Apps that are added up at once.
    #[arg(long, default_value_t = 32)]
    pub(crate) concurrency: usize,
    /// Where the result is written as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct NatsReadArgs {
    /// The nats-server; a stream of its own is made there and deleted again.
    #[arg(long, value_name = "URL", default_value = "127.0.0.1:4222")]
    pub(crate) nats: String,
    /// Publications on the subject.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) messages: u32,
    /// Publications asked for at once.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Bytes of a publication.
    #[arg(long, default_value_t = 256, value_parser = payload_size)]
    pub(crate) payload: usize,
    /// How often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where the result is written as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FloorServerArgs {
    /// One write per socket for all that is queued to it, instead of one per delivery.
    #[arg(long)]
    pub(crate) coalesce: bool,
    /// Publications kept per channel for those who come back.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) history: u32,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SuiteArgs {
    /// The binary under test; this one if not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) edge_bin: Option<PathBuf>,
    /// The nats-server; SLIPSTREAM_NATS_SERVER, .cache/nats-server or the one in PATH if not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,
    /// Where servers keep their data; removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Only rows whose name contains this; several add up.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// How publications get there, in all rows but that of publishing itself. A connection of HTTP
    /// answers one request after the other, whatever is in flight.
    #[arg(long, default_value = "ws")]
    pub(crate) over: Over,
    /// How often; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Measured part of each timed run.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// A tenth of the connections and publications: to see that everything works.
    #[arg(long)]
    pub(crate) small: bool,
    /// Where all results are written as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where the table is written; standard output if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
}

/// `250ms`, `10s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a time like 10s"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(format!("{text:?} is not a time like 250ms, 10s or 2m")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn payload_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (payload::MIN_SIZE..=1 << 20).contains(&size) {
        Ok(size)
    } else {
        Err(format!("a payload has {} to 1048576 bytes", payload::MIN_SIZE))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct CommonCli {
        #[command(flatten)]
        common: Common,
    }

    /// Options as the command line gives them.
    pub(crate) fn common(line: &str) -> Common {
        CommonCli::parse_from(std::iter::once("bench").chain(line.split_ascii_whitespace())).common
    }

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("1.5s", 1500), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        for wrong in ["", "10", "s", "-1s", "1h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_documented_command_parses() {
        let line = "bench fanout --target ws://127.0.0.1:8000/connection/websocket --in-flight 8 --server-pid 1 \
                    --server-pid 2 --with-floor";
        let cli = Cli::try_parse_from(line.split_ascii_whitespace()).unwrap();
        let BenchCommand::Fanout(args) = cli.bench.command else {
            panic!("another command")
        };
        assert_eq!((args.in_flight, args.common.server_pid.len()), (Some(8), 2));
        assert_eq!(args.common.target[0].addr.port(), 8000);
    }
}
