//! What apps use, counted exactly: for the reports that plans and bills go by, beside the metrics.
//!
//! Counting is one addition to an atomic number that a channel keeps hold of, for a whole fan-out at a time.
//! Taking the counts leaves zeros, so that each thing is in exactly one report.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Instant, SystemTime},
};

use parking_lot::{Mutex, RwLock};

macro_rules! measures {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// What is counted of an app.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Measure { $($(#[$doc])* $name,)+ }

        impl Measure {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// As it stands in records, in the store and in answers.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

measures! {
    /// Milliseconds for which connections were open, all of them together.
    ConnectionMs = "connection_ms",
    /// Connections opened.
    ConnectionsOpened = "connections_opened",
    /// Publications stored, or sent on ephemeral channels; repeats left out.
    MessagesIn = "messages_in",
    /// Bytes of their payloads.
    BytesIn = "bytes_in",
    /// Publications put into the queues of connections.
    MessagesOut = "messages_out",
    /// Bytes of them, in the form in which they are sent.
    BytesOut = "bytes_out",
    /// Pages of history read.
    HistoryReads = "history_reads",
    /// Resumes that were answered, recovered or not.
    Recoveries = "recoveries",
    /// Requests of backends with a key of the app.
    ApiCalls = "api_calls",
    /// Push notifications sent.
    Pushes = "pushes",
    /// Webhooks sent.
    Webhooks = "webhooks",
}

const MEASURES: usize = Measure::ALL.len();
/// As much of an app's namespaces as names one; a longer name is counted with the others.
const MAX_NAMESPACE_BYTES: usize = 100;
/// Namespaces of an app unless [`Limits`] say otherwise.
const MAX_NAMESPACES: usize = 50;

/// Counters of one namespace, or of what is no namespace's.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; MEASURES]);

/// What meters counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; MEASURES]);

/// How many namespaces of an app are told apart.
#[derive(Debug)]
pub(super) struct Limits(AtomicUsize);

/// What one app uses.
#[derive(Debug)]
pub struct AppUsage {
    own: Tally,
    connections: Mutex<Connections>,
    namespaces: RwLock<HashMap<Arc<str>, Arc<Tally>>>,
    others: Arc<Tally>,
    keys: RwLock<HashMap<Arc<str>, AtomicI64>>,
    limits: Arc<Limits>,
}

/// What an app has used since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// All of it.
    pub counts: Counts,
    /// The most connections open at once.
    pub peak_connections: u64,
    /// What of it is of which namespace: `Some("")` for channels without one, `None` for all that are not told
    /// apart.
    pub namespaces: Vec<(Option<Arc<str>>, Counts)>,
    /// Keys that were used, and when last, ms since 1970 to the minute.
    pub keys: Vec<(Arc<str>, i64)>,
}

/// Connections of an app over time. Pure.
#[derive(Debug)]
struct Connections {
    open: u64,
    peak: u64,
    since: Instant,
    /// Microseconds, all connections together, up to `since`.
    total_us: u128,
}

// === impl Tally ===

impl Tally {
    /// Counts.
    pub fn add(&self, measure: Measure, count: u64) {
        self.0[measure as usize].fetch_add(count, Ordering::Relaxed);
    }

    fn take(&self) -> Counts {
        Counts(std::array::from_fn(|index| {
            self.0[index].swap(0, Ordering::Relaxed)
        }))
    }

    fn is_zero(&self) -> bool {
        self.0.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }
}

impl Counts {
    /// How much of a measure.
    pub fn get(&self, measure: Measure) -> u64 {
        self.0[measure as usize]
    }

    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; MEASURES]
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(count);
        }
    }
}

// === impl AppUsage ===

impl Default for Limits {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_NAMESPACES))
    }
}

impl Limits {
    pub(super) fn set_namespaces(&self, most: usize) {
        self.0.store(most, Ordering::Relaxed);
    }
}

impl AppUsage {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            own: Tally::default(),
            connections: Mutex::new(Connections::new(Instant::now())),
            namespaces: RwLock::default(),
            others: Arc::default(),
            keys: RwLock::default(),
            limits,
        }
    }

    /// Counts what is of no namespace.
    pub fn add(&self, measure: Measure, count: u64) {
        self.own.add(measure, count);
    }

    /// The counters of a namespace (empty: of channels without one). Keep hold of them; what a channel has
    /// is its namespace's for as long as it is held.
    pub fn namespace(&self, name: &str) -> Arc<Tally> {
        if let Some(known) = self.namespaces.read().get(name) {
            return Arc::clone(known);
        }
        let mut namespaces = self.namespaces.write();
        if let Some(known) = namespaces.get(name) {
            return Arc::clone(known);
        }
        let full = namespaces.len() >= self.limits.0.load(Ordering::Relaxed);
        // The store has ids without control characters.
        if full || name.len() > MAX_NAMESPACE_BYTES || name.chars().any(char::is_control) {
            return self.others.clone();
        }
        Arc::clone(namespaces.entry(name.into()).or_default())
    }

    /// A connection was opened.
    pub fn connection_opened(&self) {
        self.connections.lock().opened(Instant::now());
        self.own.add(Measure::ConnectionsOpened, 1);
    }

    /// A connection has ended.
    pub fn connection_closed(&self) {
        self.connections.lock().closed(Instant::now());
    }

    /// A key is used.
    pub fn key_used(&self, key: &Arc<str>) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_ms = since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
        self.key_used_at(key, now_ms);
    }

    fn key_used_at(&self, key: &Arc<str>, now_ms: i64) {
        let minute = now_ms - now_ms.rem_euclid(60_000);
        if let Some(used) = self.keys.read().get(key) {
            used.fetch_max(minute, Ordering::Relaxed);
            return;
        }
        let mut keys = self.keys.write();
        keys.entry(key.clone())
            .or_default()
            .fetch_max(minute, Ordering::Relaxed);
    }

    /// Whether nothing is used, and nothing was since the last time.
    pub fn is_idle(&self) -> bool {
        self.connections.lock().is_idle()
            && self.own.is_zero()
            && self.others.is_zero()
            && self.namespaces.read().is_empty()
            && self.keys.read().is_empty()
    }

    /// What was used since the last time; `None` if that is nothing.
    pub fn take(&self) -> Option<Used> {
        let (connection_ms, peak_connections) = self.connections.lock().take(Instant::now());
        let mut counts = self.own.take();
        counts.0[Measure::ConnectionMs as usize] += connection_ms;
        let mut namespaces = Vec::new();
        let mut idle = false;
        for (name, meters) in &*self.namespaces.read() {
            let of_it = meters.take();
            idle |= of_it.is_zero() && Arc::strong_count(meters) == 1;
            namespaces.push((Some(name.clone()), of_it));
        }
        namespaces.push((None, self.others.take()));
        namespaces.retain(|(_, of_it)| !of_it.is_zero());
        if idle {
            // Nobody can count with them meanwhile: the map is locked, and nobody else holds them.
            let mut all = self.namespaces.write();
            all.retain(|_, meters| Arc::strong_count(meters) > 1 || !meters.is_zero());
        }
        namespaces.iter().for_each(|(_, of_it)| counts.add(of_it));
        let keys = std::mem::take(&mut *self.keys.write());
        let keys: Vec<_> = keys
            .into_iter()
            .map(|(key, minute)| (key, minute.into_inner()))
            .collect();
        let nothing = counts.is_zero() && peak_connections == 0 && keys.is_empty();
        (!nothing).then_some(Used {
            counts,
            peak_connections,
            namespaces,
            keys,
        })
    }
}

// === impl Connections ===

impl Connections {
    fn new(now: Instant) -> Self {
        Self {
            open: 0,
            peak: 0,
            since: now,
            total_us: 0,
        }
    }

    fn is_idle(&self) -> bool {
        // What is less than a millisecond is told by nobody.
        self.open == 0 && self.peak == 0 && self.total_us < 1_000
    }

    fn go_on(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        self.total_us += elapsed.as_micros() * u128::from(self.open);
        self.since = self.since.max(now);
    }

    fn opened(&mut self, now: Instant) {
        self.go_on(now);
        self.open += 1;
        self.peak = self.peak.max(self.open);
    }

    fn closed(&mut self, now: Instant) {
        self.go_on(now);
        self.open = self.open.saturating_sub(1);
    }

    /// Whole milliseconds since the last time, and the peak; what is less than one is kept.
    fn take(&mut self, now: Instant) -> (u64, u64) {
        self.go_on(now);
        let ms = self.total_us / 1_000;
        self.total_us %= 1_000;
        let peak = std::mem::replace(&mut self.peak, self.open);
        (u64::try_from(ms).unwrap_or(u64::MAX), peak)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn usage(namespaces: usize) -> AppUsage {
        let limits = Limits::default();
        limits.set_namespaces(namespaces);
        AppUsage::new(Arc::new(limits))
    }

    #[test]
    fn what_is_taken_is_taken_once_and_the_app_has_all_of_it() {
        let usage = usage(2);
        assert_eq!(usage.take(), None);
        let chat = usage.namespace("chat");
        chat.add(Measure::MessagesIn, 2);
        usage.namespace("").add(Measure::MessagesIn, 3);
        usage.namespace("third").add(Measure::MessagesIn, 5);
        usage.add(Measure::ApiCalls, 7);
        let mut used = usage.take().unwrap();
        used.namespaces.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert_eq!(used.counts.get(Measure::MessagesIn), 10);
        assert_eq!(used.counts.get(Measure::ApiCalls), 7);
        let of = used.namespaces.iter().map(|(name, counts)| {
            let name = name.as_deref();
            (name, counts.get(Measure::MessagesIn))
        });
        assert_eq!(
            of.collect::<Vec<_>>(),
            [(None, 5), (Some(""), 3), (Some("chat"), 2)]
        );
        assert_eq!(usage.take(), None);
        // One that nobody holds makes room for another; one that is held goes on.
        usage.namespace("third").add(Measure::MessagesIn, 1);
        chat.add(Measure::MessagesIn, 1);
        let used = usage.take().unwrap();
        let mut names: Vec<_> = used.namespaces.iter().map(|(name, _)| name.as_deref()).collect();
        names.sort();
        assert_eq!(names, [Some("chat"), Some("third")]);
    }

    #[test]
    fn a_name_that_is_too_long_is_one_of_the_others() {
        let usage = usage(9);
        usage.namespace(&"x".repeat(101)).add(Measure::BytesIn, 1);
        usage.namespace(&"x".repeat(100)).add(Measure::BytesIn, 1);
        let used = usage.take().unwrap();
        let others = used.namespaces.iter().filter(|(name, _)| name.is_none());
        assert_eq!((used.namespaces.len(), others.count()), (2, 1));
    }

    #[test]
    fn connections_are_counted_over_time() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut connections = Connections::new(begin);
        connections.opened(at(10));
        connections.opened(at(20));
        connections.closed(at(50));
        // 10 + 2 * 30 + 50 ms.
        assert_eq!(connections.take(at(100)), (120, 2));
        assert_eq!(
            connections.take(at(1_100)),
            (1_000, 1),
            "the peak is that of the interval"
        );
        connections.closed(at(1_100));
        assert_eq!(connections.take(at(2_000)), (0, 1));
        assert_eq!(connections.take(at(3_000)), (0, 0));
        // Less than a millisecond is kept for the next time.
        connections.opened(at(3_000));
        let half = Duration::from_micros(500);
        assert_eq!(connections.take(at(3_000) + half), (0, 1));
        assert_eq!(connections.take(at(3_001)), (1, 1));
    }

    #[test]
    fn keys_are_told_to_the_minute_and_once() {
        let usage = usage(1);
        let key: Arc<str> = "k".into();
        usage.key_used_at(&key, 60_001);
        usage.key_used_at(&key, 119_999);
        assert_eq!(usage.take().unwrap().keys, [(key.clone(), 60_000)]);
        assert_eq!(usage.take(), None);
        usage.key_used_at(&key, 120_000);
        assert_eq!(usage.take().unwrap().keys, [(key, 120_000)]);
    }
}
