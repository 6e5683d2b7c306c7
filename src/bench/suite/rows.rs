//! The rows of docs/performance.md: command lines of this program and what they must reach.

/// A row of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) work: &'static str,
    /// `bench` command lines, measured one after the other on the same servers. `{N}` is N, or a
    /// tenth of it for a small run.
    pub(super) steps: &'static [&'static str],
    pub(super) goals: &'static [Goal],
    /// How many edges share the nats-server.
    pub(super) edges: usize,
    /// Whether every run has servers of its own: memory that was given back is not always returned
    /// to the system, and would hide what the next run takes.
    pub(super) fresh: bool,
}

/// What a row must reach.
pub(super) struct Goal {
    pub(super) text: &'static str,
    pub(super) step: usize,
    pub(super) what: What,
    pub(super) limit: Limit,
}

/// What is compared with the limit.
pub(super) enum What {
    /// A median.
    Median(&'static str),
    /// A median divided by the floor's.
    Ratio(&'static str),
    /// A median divided by that of an earlier step.
    Against(usize, &'static str),
}

pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

const fn goal(text: &'static str, step: usize, what: What, limit: Limit) -> Goal {
    Goal {
        text,
        step,
        what,
        limit,
    }
}

const fn row(
    name: &'static str,
    work: &'static str,
    steps: &'static [&'static str],
    goals: &'static [Goal],
) -> Row {
    Row {
        name,
        work,
        steps,
        goals,
        edges: 1,
        fresh: false,
    }
}

use Limit::{AtLeast, AtMost};
use What::{Against, Median, Ratio};

/// In the order of the document.
pub(super) const ROWS: &[Row] = &[
    row(
        "fan1k",
        "1 channel, 1,000 subscribers, 50 publications/s",
        &["fanout --with-floor --subscribers {1000} --rate 50"],
        &[goal(
            "CPU per delivery <= 1.2x floor",
            0,
            Ratio("server_cpu_us"),
            AtMost(1.2),
        )],
    ),
    row(
        "fan1kmax",
        "the same, closed loop (8 in flight)",
        &["fanout --with-floor --subscribers {1000} --in-flight 8"],
        &[goal(
            ">= 4x the floor's deliveries/s",
            0,
            Ratio("deliveries_per_s"),
            AtLeast(4.0),
        )],
    ),
    row(
        "fan10k",
        "10,000 subscribers, closed loop (3 in flight); 5 publications/s",
        &[
            "fanout --with-floor --subscribers {10000} --in-flight 3",
            "fanout --with-floor --subscribers {10000} --rate 5",
        ],
        &[
            goal(
                ">= 1.6x the floor's deliveries/s",
                0,
                Ratio("deliveries_per_s"),
                AtLeast(1.6),
            ),
            goal("p50 at 5/s <= 1.1x floor", 1, Ratio("p50_ms"), AtMost(1.1)),
        ],
    ),
    row(
        "many",
        "1,000 durable channels x 5 subscribers, closed loop (256 in flight, 32 publishing connections)",
        &["fanout --with-floor --channels {1000} --subscribers 5 --in-flight 256 --publishers 32"],
        &[goal(
            "CPU per delivery <= 2.5x floor",
            0,
            Ratio("server_cpu_us"),
            AtMost(2.5),
        )],
    ),
    row(
        "durable",
        "durable publish -> deliver, 100 channels, 1,000/s, R1 file",
        &["fanout --with-floor --channels {100} --subscribers 1 --rate 1000 --publishers 16"],
        &[
            goal("p50 <= 0.4 ms", 0, Median("p50_ms"), AtMost(0.4)),
            goal("p99 <= 1.5 ms", 0, Median("p99_ms"), AtMost(1.5)),
        ],
    ),
    row(
        "publish",
        "durable publish, 64 in flight, acknowledged",
        &[
            "publish --with-floor --in-flight 64",
            "publish --with-floor --in-flight 64 --over ws",
            "publish --with-floor --in-flight 64 --over ws --connections 64",
        ],
        &[
            goal(
                "REST keep-alive >= 0.33x raw",
                0,
                Ratio("publications_per_s"),
                AtLeast(0.33),
            ),
            goal(
                "one WebSocket >= 0.5x raw",
                1,
                Ratio("publications_per_s"),
                AtLeast(0.5),
            ),
            goal(
                "64 WebSockets >= 0.5x raw",
                2,
                Ratio("publications_per_s"),
                AtLeast(0.5),
            ),
        ],
    ),
    row(
        "resume",
        "resume storm: 10,000 clients, 512 connecting at once, 100 missed each, 100 channels",
        &["resume --with-floor --clients {10000} --channels {100} --missed 100"],
        &[
            goal(
                "CPU per client <= 5x floor",
                0,
                Ratio("server_cpu_ms"),
                AtMost(5.0),
            ),
            goal(
                "all caught up <= 2.5 s",
                0,
                Median("all_caught_up_s"),
                AtMost(2.5),
            ),
        ],
    ),
    row(
        "resume-own",
        "the same, each on its own channel, 20 missed each, when all tails have gone",
        &["resume --clients {10000} --channels {10000} --missed 20 --settle 14s"],
        &[
            goal("all caught up <= 4 s", 0, Median("all_caught_up_s"), AtMost(4.0)),
            goal(
                "CPU <= 0.5 ms per client",
                0,
                Median("server_cpu_ms"),
                AtMost(0.5),
            ),
        ],
    ),
    row(
        "behind",
        "one client 200,000 behind",
        &["resume --with-floor --behind {200000}"],
        &[
            goal(
                ">= 0.6x of a raw reader",
                0,
                Ratio("publications_per_s"),
                AtLeast(0.6),
            ),
            goal(
                "edge memory grows < 8 MiB",
                0,
                Median("rss_grown_kib"),
                AtMost(8191.0),
            ),
        ],
    ),
    Row {
        fresh: true,
        ..row(
            "idle",
            "idle, 10,000 authenticated connections, pings on, after 100 publications to each and 30 s rest, \
             one shared channel",
            &["idle --connections {10000} --publications-each 100"],
            &[goal(
                "<= 6 KiB resident per connection",
                0,
                Median("kib_per_connection"),
                AtMost(6.0),
            )],
        )
    },
    Row {
        fresh: true,
        ..row(
            "idle-own",
            "the same, each its own channel",
            &["idle --connections {10000} --channels own --publications-each 100"],
            &[goal(
                "<= 12 KiB resident per connection",
                0,
                Median("kib_per_connection"),
                AtMost(12.0),
            )],
        )
    },
    Row {
        edges: 5,
        fresh: true,
        ..row(
            "nodes",
            "90,000 connections over five edges and one nats-server",
            &["idle --connections {90000} --publications-each 1 --patience 60s"],
            &[
                goal("connect >= 3,000/s", 0, Median("connect_per_s"), AtLeast(3000.0)),
                goal(
                    "<= 6 KiB resident per connection",
                    0,
                    Median("kib_per_connection"),
                    AtMost(6.0),
                ),
                goal(
                    "one publication reaches all",
                    0,
                    Median("all_received_s"),
                    AtMost(20.0),
                ),
            ],
        )
    },
    row(
        "channels",
        "200,000 channels with history, 1,000 of them live",
        &[
            "publish --in-flight 64 --channels {1000}",
            "resume --clients {1000} --channels {1000} --missed 20",
            "publish --in-flight 64 --channels {1000} --prefill {200000}",
            "resume --clients {1000} --channels {1000} --missed 20",
        ],
        &[
            goal(
                "publish >= 1/1.2 of that with 1,000 channels",
                2,
                Against(0, "publications_per_s"),
                AtLeast(1.0 / 1.2),
            ),
            goal(
                "resume <= 1.2x the time with 1,000 channels",
                3,
                Against(1, "all_caught_up_s"),
                AtMost(1.2),
            ),
        ],
    ),
];

impl Limit {
    pub(super) fn holds(&self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= *limit,
            Self::AtLeast(limit) => value >= *limit,
        }
    }
}
