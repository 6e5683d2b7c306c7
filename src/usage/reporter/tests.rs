use super::*;
use crate::{
    config::{Config, Sources},
    log::{
        ConsumeOptions, Consumer,
        memory::{MemoryLog, Target},
    },
    telemetry::Measure,
};

struct Setting {
    log: MemoryLog,
    metrics: Arc<Metrics>,
    reporter: Arc<Reporter>,
    tasks: Tasks,
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Setting {
    fn new(max_waiting: usize) -> Self {
        let log = MemoryLog::new(Vec::new());
        let metrics = Arc::new(Metrics::new());
        let tasks = Tasks::default();
        let config = UsageConfig {
            // The tests take for themselves.
            flush_interval: Duration::from_secs(60 * 60 * 24 * 365),
            max_waiting,
            ..Config::load(&Sources::default()).unwrap().usage
        };
        Self {
            reporter: Reporter::start(&log, &config, metrics.clone(), &tasks),
            log,
            metrics,
            tasks,
        }
    }

    fn count(&self, calls: u64) {
        let app = self.metrics.app(&AppId::new("a").unwrap());
        app.usage.add(Measure::ApiCalls, calls);
    }

    async fn consumer(&self) -> Box<dyn Consumer> {
        let stream = self.log.work_stream(StreamName::Usage);
        let queue = Record::queue(self.log.node());
        let consuming = stream.consume(ConsumeOptions {
            durable: "test".to_owned(),
            prefix: vec![queue],
            max_ack_pending: 100,
            ack_wait: Duration::from_secs(60),
            forget_after: None,
        });
        consuming.await.unwrap()
    }

    /// The records that have been reported, at least `least` of them.
    async fn records(&self, least: usize) -> Vec<Record> {
        let mut consumer = self.consumer().await;
        let mut records = Vec::new();
        let reading = timeout(Duration::from_secs(30), async {
            while records.len() < least || self.reporter.waiting() > 0 {
                for message in consumer.pull(100, Duration::from_millis(50)).await.unwrap() {
                    records.push(Record::parse(&message.data).unwrap());
                    message.ack().await.unwrap();
                }
            }
        });
        reading.await.expect("they are reported");
        for message in consumer.pull(100, Duration::ZERO).await.unwrap() {
            records.push(Record::parse(&message.data).unwrap());
        }
        records
    }
}

impl Reporter {
    fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

fn calls(record: &Record) -> i64 {
    record.apps.iter().map(|app| app.counts["api_calls"]).sum()
}

#[tokio::test]
async fn records_are_numbered_and_what_is_counted_is_in_one() {
    let setting = Setting::new(10);
    setting.reporter.take(now_ms());
    for number in [1, 2] {
        setting.count(number);
        setting.reporter.take(now_ms());
    }
    let records = setting.records(2).await;
    let numbers: Vec<_> = records
        .iter()
        .map(|record| (record.sequence, calls(record)))
        .collect();
    assert_eq!(numbers, [(1, 1), (2, 2)], "nothing is reported of nothing");
    assert!(records.iter().all(|record| record.node == setting.log.node()));
    assert!(records[0].to_ms <= records[1].from_ms && records[1].from_ms <= records[1].to_ms);
    assert_eq!(setting.metrics.usage_waiting.get(), 0);
}

#[tokio::test]
async fn without_nats_counters_go_on_and_nothing_is_lost() {
    let setting = Setting::new(2);
    setting.log.faults().disconnect(0);
    for number in [1, 2, 4, 8] {
        setting.count(number);
        setting.reporter.take(now_ms());
    }
    assert_eq!(
        (setting.reporter.waiting(), setting.metrics.usage_waiting.get()),
        (2, 2)
    );
    while setting.metrics.usage_reports_failed.get() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    setting.log.faults().reconnect(0);
    let records = setting.records(2).await;
    assert_eq!(records.iter().map(calls).collect::<Vec<_>>(), [1, 2]);
    setting.reporter.close(Duration::from_secs(10)).await;
    let records = setting.records(1).await;
    assert_eq!(
        records.iter().map(calls).collect::<Vec<_>>(),
        [12],
        "the rest in one"
    );
    assert_eq!(setting.metrics.usage_lost.get(), 0);
}

#[tokio::test]
async fn what_may_be_stored_or_not_is_sent_again_and_stored_once() {
    let setting = Setting::new(2);
    setting.log.faults().lose_acks(Target::all(), 1);
    setting.count(1);
    setting.reporter.take(now_ms());
    let records = setting.records(1).await;
    assert_eq!(records.iter().map(calls).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_full_stream_is_waited_for() {
    let setting = Setting::new(2);
    setting.log.faults().limit_stream(StreamName::Usage, Some(10));
    setting.count(1);
    setting.reporter.take(now_ms());
    sleep(Duration::from_millis(100)).await;
    assert_eq!(setting.reporter.waiting(), 1);
    setting.log.faults().limit_stream(StreamName::Usage, None);
    assert_eq!(setting.records(1).await.len(), 1);
}

#[tokio::test]
async fn what_is_refused_or_left_at_the_end_is_counted_as_lost() {
    let setting = Setting::new(2);
    let refused = PublishError::Refused("too large".to_owned());
    setting.log.faults().refuse_publishes(Target::all(), refused, 1);
    setting.count(1);
    setting.reporter.take(now_ms());
    setting.reporter.close(Duration::from_secs(10)).await;
    assert_eq!(setting.metrics.usage_lost.get(), 1);
    setting.log.faults().disconnect(0);
    setting.count(1);
    setting.reporter.close(Duration::from_millis(10)).await;
    assert_eq!(setting.metrics.usage_lost.get(), 2);
}

#[test]
fn records_end_at_full_intervals_of_the_clock() {
    let seconds = Duration::from_secs;
    for (now_ms, interval, left) in [
        (60_000, seconds(10), seconds(10)),
        (60_001, seconds(10), Duration::from_millis(9_999)),
        (119_999, seconds(60), Duration::from_millis(1)),
    ] {
        assert_eq!(until_next(now_ms, interval), left);
    }
}
