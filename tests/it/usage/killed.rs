//! Nodes and workers as processes, killed (SIGKILL) in the middle of what they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{self, Context, stream::Info};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::json;
use slipstream::{
    app::Roles,
    log::{Log, StreamName, WorkStream},
    store::{Collection, Document, Query},
    telemetry::Measure,
    usage::{AppRecord, Group, Record, Row, Step},
};
use tokio::time::{interval, sleep};

use super::{
    append, rows,
    support::{Place, app_record, log_of, record, rows_of, sum},
};
use crate::support::{
    client::Client,
    dice::Dice,
    edge::{Builder, Edge, EdgeProcess},
    http,
    mongowire::Mongowire,
    nats::{NatsServer, TestLog},
    proxy::{Proxy, Weather},
    until, within,
};

/// `usage.flush_interval` of the nodes here, ms.
const FLUSH_MS: i64 = 1_000;

/// The stream of records behind the product's back, and workers on it.
struct Bench {
    nats: NatsServer,
    jetstream: Context,
    /// Workers reach NATS by it.
    road: Proxy,
    stream: Arc<dyn WorkStream>,
    _log: TestLog,
}

impl Bench {
    async fn start() -> Self {
        let nats = NatsServer::start().await;
        let log = log_of(&edges(&nats).config()).await;
        let client = within(async_nats::connect(nats.url())).await.unwrap();
        Self {
            jetstream: jetstream::new(client),
            road: Proxy::nats(&nats.url()).await,
            stream: log.log.work_stream(StreamName::Usage),
            _log: log,
            nats,
        }
    }

    async fn edge(&self) -> EdgeProcess {
        edges(&self.nats).spawn().await
    }

    /// A process that is a worker and nothing else.
    async fn worker(&self, place: &Place) -> EdgeProcess {
        let only = Roles {
            edge: false,
            api: false,
            control: false,
            worker: true,
        };
        let builder = edges(&self.nats).nats(&self.road.urls()).roles(only);
        // What a killed worker had comes again this soon.
        let builder = builder
            .set("store.timeout", "900ms")
            .set("usage.fold_timeout", "1s");
        let builder = builder
            .set("usage.max_retry_delay", "100ms")
            .set("store.url", &place.url);
        builder.spawn().await
    }

    async fn info(&self) -> Info {
        let stream = within(self.jetstream.get_stream("slipstream_usage")).await;
        stream.unwrap().cached_info().clone()
    }

    /// How many records have been settled.
    async fn settled(&self) -> u64 {
        let state = self.info().await.state;
        state.last_sequence - state.messages
    }

    /// The last record, if it is not settled.
    async fn newest(&self) -> Option<Record> {
        let stream = within(self.jetstream.get_stream("slipstream_usage")).await;
        let stream = stream.unwrap();
        let last = stream.cached_info().state.last_sequence;
        let message = within(stream.get_raw_message(last)).await.ok()?;
        Some(Record::parse(&message.payload).unwrap())
    }

    async fn all_is_settled(&self) {
        until("all records are settled", || async {
            (self.info().await.state.messages == 0).then_some(())
        })
        .await;
    }
}

fn edges(nats: &NatsServer) -> Builder {
    Edge::builder()
        .nats(&[nats.url()])
        .set("usage.flush_interval", "1s")
}

fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

/// What backends have published.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    /// When each publication was acknowledged, ms since 1970.
    acknowledged: Mutex<Vec<i64>>,
    enough: AtomicBool,
}

impl Tally {
    /// Publishes one after the other until it is enough, or the node is gone.
    async fn publish(&self, edge: &EdgeProcess) {
        while !self.enough.load(Ordering::Relaxed) {
            self.sent.fetch_add(1, Ordering::Relaxed);
            let answer = http::publish(edge.addr, "public:a", &json!({ "data": "seven" })).await;
            let Some(answer) = answer else { return };
            assert_eq!(answer.status, 201, "{answer:?}");
            self.acknowledged.lock().push(now_ms());
        }
    }

    fn sent(&self) -> i64 {
        self.sent.load(Ordering::Relaxed) as i64
    }

    fn acknowledged_before(&self, ms: i64) -> i64 {
        let acknowledged = self.acknowledged.lock();
        acknowledged.iter().filter(|at| **at < ms).count() as i64
    }
}

/// The bytes of what [`Tally::publish`] publishes, as JSON.
const BYTES: i64 = 7;
/// Connections to each edge that is killed.
const CONNECTIONS: i64 = 5;

/// Edges that are killed as they serve, one after the other, and workers that are killed as they add that up:
/// there is no less than what had been acknowledged an interval before, and no more than what was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_edge_takes_an_interval_with_it_at_most() {
    let mut dice = Dice::take();
    let bench = Bench::start().await;
    let place = Place::file().await;
    let (mut least, mut most, mut connected_ms) = (0, 0, 0);
    let mut rounds = 0;
    let mut late_ms = Vec::new();
    for _ in 0..3 {
        rounds += 1;
        let edge = bench.edge().await;
        let connecting_ms = now_ms();
        let clients = (0..CONNECTIONS).map(|_| Client::connect(edge.addr));
        let clients = join_all(clients).await;
        for client in &clients {
            client.subscribe("public:a").await;
        }
        let begun_ms = now_ms();
        let reported = async || bench.newest().await.filter(|record| record.to_ms > begun_ms);
        let tally = Tally::default();
        let killing = async {
            until("a record of the load", &reported).await;
            let pause = dice.roll(2 * FLUSH_MS as usize);
            sleep(Duration::from_millis(pause as u64)).await;
            let killed_ms = now_ms();
            edge.signal_kill();
            killed_ms
        };
        let publishing = join_all((0..4).map(|_| tally.publish(&edge)));
        let (killed_ms, _) = within(async { tokio::join!(killing, publishing) }).await;
        let reported_ms = reported().await.unwrap().to_ms;
        late_ms.push(killed_ms - reported_ms);
        connected_ms += CONNECTIONS * (now_ms() - connecting_ms);
        drop((clients, edge));
        least += tally.acknowledged_before(reported_ms);
        most += tally.sent();
        assert!(tally.acknowledged_before(reported_ms) > 0, "under load");

        let settled = bench.settled().await;
        let mut worker = bench.worker(&place).await;
        until("a record is settled", || async {
            (bench.settled().await > settled).then_some(())
        })
        .await;
        worker.kill();
    }
    // A machine that is busy with other tests may be late: not three times in a row.
    let an_interval = late_ms.iter().any(|late| *late <= FLUSH_MS + FLUSH_MS / 2);
    assert!(an_interval, "{late_ms:?}");
    let _worker = bench.worker(&place).await;
    bench.all_is_settled().await;

    let total = sum(&place, Measure::MessagesIn).await;
    assert!((least..=most).contains(&total), "{least} <= {total} <= {most}");
    assert_eq!(
        sum(&place, Measure::BytesIn).await,
        BYTES * total,
        "records are whole"
    );
    for (step, group) in [
        (Step::Minute, Group::None),
        (Step::Hour, Group::None),
        (Step::Minute, Group::Namespace),
        (Step::Day, Group::Namespace),
    ] {
        let rows = rows_of(&place, "dev", step, group).await;
        assert_eq!(total_of(&rows, Measure::MessagesIn), total, "{step:?} {group:?}");
    }
    let calls = sum(&place, Measure::ApiCalls).await;
    assert!((least..=most).contains(&calls), "{least} <= {calls} <= {most}");
    // They had been opened before the last report.
    assert_eq!(
        sum(&place, Measure::ConnectionsOpened).await,
        CONNECTIONS * rounds
    );
    let open_ms = sum(&place, Measure::ConnectionMs).await;
    assert!(
        (1..=connected_ms).contains(&open_ms),
        "{open_ms} of {connected_ms}"
    );
    let out = sum(&place, Measure::MessagesOut).await;
    assert!((0..=CONNECTIONS * most).contains(&out), "{out}");
}

fn total_of(rows: &[Row], measure: Measure) -> i64 {
    rows.iter().map(|row| row.get(measure)).sum()
}

/// What has been appended, by its place in the stream: of which node, which of its records.
#[derive(Default)]
struct Appended(Mutex<BTreeMap<u64, (u64, i64)>>);

/// The nodes of the small records: two in each queue.
const NODES: u64 = 8;

/// Half of the nodes report as little as can be, so that more time is between adding and settling; the others
/// with a namespace, a peak and a key.
fn is_small(node: u64) -> bool {
    node <= NODES / 2
}

fn used(node: u64) -> AppRecord {
    if is_small(node) {
        AppRecord {
            keys: BTreeMap::new(),
            ..app_record(10, 0, &[])
        }
    } else {
        app_record(10, 3, &[("=chat", 10)])
    }
}

impl Appended {
    /// Small records of all nodes, until it is enough. How many of each node.
    async fn append_all(&self, bench: &Bench, enough: &AtomicBool) -> i64 {
        let mut ticks = interval(Duration::from_millis(60));
        let mut count = 0;
        while !enough.load(Ordering::Relaxed) {
            ticks.tick().await;
            count += 1;
            for node in 1..=NODES {
                let record = record(node, count, 0, vec![used(node)]);
                let at = append(&*bench.stream, &record).await;
                self.0.lock().insert(at, (node, count));
            }
        }
        count
    }

    /// Looks at the records that come next, which may have been added up though they are not settled.
    async fn look(&self, bench: &Bench, place: &Place, left: &mut Left) {
        for queue in ["0", "1", "2", "3"] {
            let oldest = within(bench.stream.waiting(&[queue])).await.unwrap().oldest_seq;
            let appended = oldest.and_then(|at| self.0.lock().get(&at).copied());
            // One of the edge's own.
            let Some((node, sequence)) = appended else {
                continue;
            };
            let source = record(node, 1, 0, Vec::new()).node.to_string();
            let has = |sum: &Document| sum.added.get(&source).is_some_and(|added| *added >= sequence);
            let mut sums = sums(place).await;
            if is_small(node) {
                sums.retain(|sum| !sum.id.contains("-ns/") && !sum.id.contains("/keys/"));
            }
            if sums.iter().all(has) {
                left.wholly.insert((node, sequence));
            } else if sums.iter().any(has) {
                left.in_part.insert((node, sequence));
            }
        }
    }
}

/// Records that had been added up and were not settled when a worker was killed.
#[derive(Debug, Default)]
struct Left {
    in_part: BTreeSet<(u64, i64)>,
    wholly: BTreeSet<(u64, i64)>,
}

/// The sums of the small records.
async fn sums(place: &Place) -> Vec<Document> {
    let query = Query {
        limit: 100,
        ..Query::default()
    };
    let mut all = place.store.list(Collection::Usage, query).await.unwrap();
    all.retain(|sum| sum.id.starts_with("shop/"));
    all
}

/// Workers are killed again and again while records come: what is there in the end is what the nodes counted.
async fn killed_workers(place: &Place, at_once: usize, kills: usize) {
    let mut dice = Dice::take();
    let bench = Bench::start().await;
    let edge = bench.edge().await;
    let tally = Tally::default();
    let appended = Appended::default();
    let mut left = Left::default();
    let mut workers = Vec::new();
    let working = async {
        for _ in 0..at_once {
            workers.push(bench.worker(place).await);
        }
        for kill in 0..kills {
            let settled = bench.settled().await;
            until("records are settled", || async {
                (bench.settled().await > settled).then_some(())
            })
            .await;
            sleep(Duration::from_millis(dice.roll(50) as u64)).await;
            let which = dice.roll(workers.len());
            if kill % 2 == 0 {
                workers[which].kill();
            } else {
                // What it has, it adds up, and cannot say so.
                bench.road.set(Weather::BlackHole);
                sleep(Duration::from_millis(100)).await;
                workers[which].kill();
            }
            appended.look(&bench, place, &mut left).await;
            bench.road.cut().await;
            workers[which] = bench.worker(place).await;
        }
        tally.enough.store(true, Ordering::Relaxed);
    };
    let publishing = async {
        tally.publish(&edge).await;
    };
    let appending = appended.append_all(&bench, &tally.enough);
    let (count, (), ()) = tokio::join!(appending, publishing, working);
    println!(
        "left: {} in part, {} wholly",
        left.in_part.len(),
        left.wholly.len()
    );
    assert_eq!(edge.terminate().await, Some(0), "it reports what it has");
    bench.all_is_settled().await;
    drop(workers);

    let published = tally.sent();
    assert_eq!(tally.acknowledged_before(i64::MAX), published);
    for step in Step::ALL {
        let small = count * 10 * NODES as i64;
        let all = rows(place, step, Group::None).await;
        assert_eq!(total_of(&all, Measure::MessagesIn), small, "{step:?}");
        assert_eq!(all[0].peak_connections, 3 * NODES as i64 / 2, "{step:?}");
        let named = rows(place, step, Group::Namespace).await;
        assert_eq!(total_of(&named, Measure::MessagesIn), small / 2, "{step:?}");

        for group in [Group::None, Group::Namespace] {
            let of_edge = rows_of(place, "dev", step, group).await;
            let (messages, bytes) = (Measure::MessagesIn, Measure::BytesIn);
            let counted = [messages, bytes].map(|measure| total_of(&of_edge, measure));
            assert_eq!(counted, [published, published * BYTES], "{step:?} {group:?}");
        }
    }
    assert_eq!(sum(place, Measure::ApiCalls).await, published);
    for sum in sums(place).await {
        assert!(sum.added.values().all(|added| *added == count), "{sum:?}");
    }
    // Most of the half of the kills that cut a worker off at the right time.
    assert!(left.wholly.len() >= kills / 4, "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_count_everything_once_in_a_file() {
    killed_workers(&Place::file().await, 1, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_count_everything_once_in_a_database() {
    let server = Mongowire::start().await;
    killed_workers(&Place::database(&server).await, 2, 6).await;
}
