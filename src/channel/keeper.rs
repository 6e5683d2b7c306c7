//! Asks the leader of one shard, for everyone on this node who needs to know (L4-L6).
//!
//! Requests are joined only before they are sent (L5): whoever comes while one is under way waits
//! for the next.

mod marks;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use crate::{
    log::{Ack, EpochEntry, Log, LogEvent, ReadError, ShardInfo, ShardSpec},
    model::{Epoch, Offset},
    random,
    telemetry::{Metrics, ShardMetrics},
};

use super::shard::{Fresh, Shard, Verdict, is_another};

/// The keeper of a shard. One per shard and node.
pub struct Keeper {
    log: Arc<dyn Log>,
    spec: ShardSpec,
    metrics: Arc<ShardMetrics>,
    state: Mutex<State>,
    loading: tokio::sync::Mutex<()>,
    waiting: Mutex<Vec<oneshot::Sender<Fresh>>>,
    asked: Notify,
    /// When the anchor was last written to be sure, see [`Keeper::assure`].
    assured: tokio::sync::Mutex<Option<Instant>>,
    /// The incarnation; changes when the epoch does.
    incarnation: watch::Sender<u64>,
}

struct State {
    shard: Shard,
    /// The revision of the registry entry that `shard` knows.
    revision: u64,
    /// The registry may have another epoch than `shard`: it is loaded before anything else.
    stale: bool,
}

/// What had been seen when a publish was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    seen: Offset,
    incarnation: u64,
}

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_millis(500);
const ASSURE_EVERY: Duration = Duration::from_secs(1);
/// The least time between two questions: in a storm many come within it, and share one.
const GATHER: Duration = Duration::from_millis(2);

impl Keeper {
    /// A keeper that knows nothing yet. `margin` is how far clocks may differ.
    pub fn new(log: Arc<dyn Log>, spec: ShardSpec, margin: Duration, metrics: &Metrics) -> Self {
        let shard = Shard::new(millis(spec.max_age), millis(margin));
        let metrics = metrics.shard(&spec.stream);
        metrics.max_bytes.set(gauge(spec.max_bytes));
        metrics.unproven.set(1);
        Self {
            log,
            metrics,
            spec,
            state: Mutex::new(State {
                shard,
                revision: 0,
                stale: false,
            }),
            loading: tokio::sync::Mutex::new(()),
            waiting: Mutex::new(Vec::new()),
            asked: Notify::new(),
            assured: tokio::sync::Mutex::new(None),
            incarnation: watch::Sender::new(0),
        }
    }

    /// The shard.
    pub fn spec(&self) -> &ShardSpec {
        &self.spec
    }

    /// The time stamp before which the shard keeps nothing.
    pub fn oldest_ms(&self) -> i64 {
        self.log.now_ms() - millis(self.spec.max_age)
    }

    /// The time stamp since which no replica lets anything go by age yet (L6).
    pub fn kept_since_ms(&self) -> i64 {
        self.state.lock().shard.kept_since(self.log.now_ms())
    }

    /// An answer of the leader to a question that is asked after this call. Waits as long as there
    /// is none: the caller has a deadline.
    pub async fn fresh(&self) -> Fresh {
        loop {
            let (answer, answered) = oneshot::channel();
            {
                let mut waiting = self.waiting.lock();
                if waiting.len() == waiting.capacity() {
                    // While the log does not answer many come and give up.
                    waiting.retain(|waiter| !waiter.is_closed());
                }
                waiting.push(answer);
            }
            self.asked.notify_one();
            if let Ok(fresh) = answered.await {
                return fresh;
            }
        }
    }

    /// Like [`Keeper::fresh`], and the epoch is the one the registry has then.
    pub async fn confirmed(&self) -> Fresh {
        self.state.lock().stale = true;
        self.fresh().await
    }

    /// Makes sure that answers from now on are not those of a leader that has been deposed and does
    /// not know it: no answer counts that is below the acknowledgement of a write made after this
    /// call. One write serves all who wait, and there is at most one every `ASSURE_EVERY`.
    pub async fn assure(&self) {
        let asked = Instant::now();
        let mut assured = self.assured.lock().await;
        if let Some(at) = *assured {
            if at >= asked {
                return;
            }
            sleep_until(at + ASSURE_EVERY).await;
        }
        let mut pause = RETRY_FIRST;
        let began = loop {
            let began = Instant::now();
            if self.suspect().await.is_ok() {
                break began;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        };
        *assured = Some(began);
    }

    /// The epoch, once it is known.
    pub fn epoch(&self) -> Option<Epoch> {
        self.state.lock().shard.epoch().map(|entry| entry.token.clone())
    }

    /// The epoch, if it is proven that the store has not gone back behind this node's back.
    pub fn proven_epoch(&self) -> Option<Epoch> {
        let state = self.state.lock();
        let known = state
            .shard
            .epoch()
            .filter(|_| state.shard.is_proven() && !state.stale);
        known.map(|entry| entry.token.clone())
    }

    /// The epoch, if it is still that in which something was sent.
    pub fn epoch_since(&self, sent: Sent) -> Option<Epoch> {
        let state = self.state.lock();
        let incarnation = state.shard.incarnation();
        // At first a node sends before it has learnt the epoch.
        let same = incarnation == sent.incarnation || (sent.incarnation == 0 && incarnation == 1);
        state
            .shard
            .epoch()
            .filter(|_| same)
            .map(|entry| entry.token.clone())
    }

    /// Whether positions can be proven on this shard now.
    pub fn is_proven(&self) -> bool {
        self.state.lock().shard.is_proven()
    }

    /// Counts the epochs this node has seen.
    pub fn incarnation(&self) -> u64 {
        *self.incarnation.borrow()
    }

    /// Tells when the incarnation changes.
    pub fn incarnations(&self) -> watch::Receiver<u64> {
        self.incarnation.subscribe()
    }

    /// The highest sequence seen in this epoch.
    pub fn seen(&self) -> Offset {
        self.state.lock().shard.seen()
    }

    /// A copy of this incarnation was seen.
    pub fn saw(&self, seq: Offset, incarnation: u64) {
        self.state.lock().shard.saw(seq, incarnation);
    }

    /// To be called before a publish is sent.
    pub fn sending(&self) -> Sent {
        let state = self.state.lock();
        Sent {
            seen: state.shard.seen(),
            incarnation: state.shard.incarnation(),
        }
    }

    /// An acknowledgement. If it proves that the sequence went back, the epoch is replaced.
    pub fn acknowledged(&self, sent: Sent, ack: &Ack) -> bool {
        if ack.duplicate {
            return false;
        }
        self.state
            .lock()
            .shard
            .on_ack(ack.seq, sent.seen, sent.incarnation)
    }

    /// An acknowledgement has proven that the sequence went back: the epoch is replaced, if nobody
    /// has done so since. Waits until that is done.
    pub async fn went_back(&self, sent: Sent) {
        let mut pause = RETRY_FIRST;
        while self.sending().incarnation == sent.incarnation {
            let replaced = async {
                self.load().await?;
                if self.sending().incarnation == sent.incarnation {
                    self.replace("the sequence went back").await?;
                }
                Ok::<_, ReadError>(())
            };
            let failed = replaced.await.is_err();
            if failed || self.sending().incarnation == sent.incarnation {
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_MOST);
            }
        }
    }

    /// What the log's connection noticed.
    pub fn on_event(&self, event: &LogEvent) {
        match event {
            LogEvent::Connected => self.on_gap_in_events(),
            LogEvent::Epoch(shard, entry) if *shard == self.spec.id => {
                let mut state = self.state.lock();
                match state.shard.epoch() {
                    Some(known) if known.token == entry.token => {
                        if known.mark_seq < entry.mark_seq {
                            state.shard.on_epoch(entry.clone());
                        }
                    }
                    // Events may be late: which epoch is the present one only the registry says.
                    _ => {
                        state.stale = true;
                        drop(state);
                        self.asked.notify_one();
                    }
                }
            }
            _ => {}
        }
    }

    /// The connection was lost and is back, or events were missed: everything may have changed.
    pub fn on_gap_in_events(&self) {
        let mut state = self.state.lock();
        state.shard.on_reconnect();
        self.metrics.unproven.set(1);
        state.stale = true;
        drop(state);
        self.asked.notify_one();
    }

    /// Answers [`Keeper::fresh`] until the node stops.
    pub async fn run(self: Arc<Self>) {
        let mut next = Instant::now();
        loop {
            self.asked.notified().await;
            loop {
                sleep_until(next).await;
                next = Instant::now() + GATHER;
                let waiting: Vec<_> = self
                    .waiting
                    .lock()
                    .drain(..)
                    .filter(|waiter| !waiter.is_closed())
                    .collect();
                if waiting.is_empty() && !self.state.lock().stale {
                    break;
                }
                let fresh = self.ask().await;
                for waiter in waiting {
                    // A waiter that has given up needs no answer.
                    let _ = waiter.send(fresh.clone());
                }
            }
        }
    }

    /// Gives the shard another epoch: its sequences are no longer those that clients know.
    pub async fn replace(&self, why: &'static str) -> Result<(), ReadError> {
        let info = self.log.info(self.spec.id).await?;
        self.replace_for(&info, why).await
    }

    async fn replace_for(&self, info: &ShardInfo, why: &'static str) -> Result<(), ReadError> {
        let revision = self.state.lock().revision;
        let entry = EpochEntry {
            created: info.created.clone(),
            token: Epoch::new(&random::name(8)),
            mark_seq: 0,
            mark_time_ms: 0,
        };
        if self.log.set_epoch(self.spec.id, &entry, revision).await? && revision != 0 {
            self.metrics.epoch_changes.inc();
            warn!(shard = %self.spec.stream, epoch = %entry.token, why, "epoch replaced");
        }
        // Also if another node was faster: its entry is the one that counts.
        self.load().await
    }

    /// Takes over what the registry says. One at a time, so that no answer overtakes a later one: a
    /// lower revision than the known one then means that the registry itself was restored.
    async fn load(&self) -> Result<(), ReadError> {
        let _one_at_a_time = self.loading.lock().await;
        let Some((entry, revision)) = self.log.epoch(self.spec.id).await? else {
            return Ok(());
        };
        let mut state = self.state.lock();
        state.revision = revision;
        if state.shard.on_epoch(entry) {
            let incarnation = state.shard.incarnation();
            drop(state);
            info!(shard = %self.spec.stream, "epoch known");
            self.incarnation.send_replace(incarnation);
        }
        Ok(())
    }

    /// Asks until an answer counts.
    async fn ask(&self) -> Fresh {
        let mut pause = RETRY_FIRST;
        loop {
            match self.ask_once().await {
                Ok(Some(fresh)) => return fresh,
                Ok(None) => {}
                Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
            }
        }
    }

    /// One question; `None` if the answer did not count and has been dealt with.
    async fn ask_once(&self) -> Result<Option<Fresh>, ReadError> {
        if std::mem::take(&mut self.state.lock().stale) {
            self.load()
                .await
                .inspect_err(|_| self.state.lock().stale = true)?;
        }
        let (round, seen_before) = {
            let state = self.state.lock();
            (state.shard.round(), state.shard.seen())
        };
        let is_over = || self.state.lock().shard.round() != round;
        let info = self.log.info(self.spec.id).await?;
        if is_over() {
            return Ok(None);
        }
        let verdict = self.state.lock().shard.on_info(&info, seen_before);
        match verdict {
            Verdict::Counts => {}
            Verdict::LoadEpoch => {
                self.load().await?;
                if self.epoch().is_none() {
                    self.replace_for(&info, "first start").await?;
                }
                return Ok(None);
            }
            Verdict::Replace => {
                // Another node may have done it already.
                self.load().await?;
                if !is_over() {
                    self.replace_for(&info, "the stream was created anew").await?;
                }
                return Ok(None);
            }
            Verdict::CheckMark { seq, time_ms } => {
                let found = self.log.time_at(self.spec.id, seq).await?;
                if is_over() {
                    return Ok(None);
                }
                if is_another(found, time_ms) {
                    self.replace_for(&info, "another message stands at the mark")
                        .await?;
                    return Ok(None);
                }
            }
            Verdict::Suspect => {
                self.metrics.epoch_suspicions.inc();
                self.suspect().await?;
                if is_over() {
                    return Ok(None);
                }
                return Err(ReadError::NotNow("the answer is older than what was seen".into()));
            }
        }
        let floor = self.floor(&info, round).await?;
        let mut state = self.state.lock();
        let Some(entry) = state.shard.epoch().filter(|_| state.shard.round() == round) else {
            return Ok(None);
        };
        let epoch = entry.token.clone();
        state.shard.proven(&info);
        self.measure(&info);
        Ok(Some(Fresh {
            epoch,
            incarnation: state.shard.incarnation(),
            last_seq: info.last_seq,
            floor,
        }))
    }

    /// It may have gone back: an acknowledgement is the judge, since answers and copies overtake each
    /// other (L4).
    async fn suspect(&self) -> Result<(), ReadError> {
        let sent = self.sending();
        let ack = self
            .log
            .write_anchor(self.spec.id)
            .await
            .map_err(|_| ReadError::NoAnswer)?;
        if self.acknowledged(sent, &ack) {
            self.went_back(sent).await;
        }
        Ok(())
    }

    fn measure(&self, info: &ShardInfo) {
        let metrics = &self.metrics;
        metrics.unproven.set(0);
        metrics.last_sequence.set(gauge(info.last_seq));
        metrics.oldest_seconds.set(info.first_time_ms / 1_000);
        metrics.bytes.set(gauge(info.bytes));
    }

    async fn floor(&self, info: &ShardInfo, round: u64) -> Result<Offset, ReadError> {
        let now = self.log.now_ms();
        let since = match self.state.lock().shard.floor(info, now) {
            Ok(floor) => return Ok(floor),
            Err(since) => since,
        };
        let first = self
            .log
            .first_since(self.spec.id, since)
            .await?
            .unwrap_or(info.last_seq + 1);
        let mut state = self.state.lock();
        if state.shard.round() == round {
            state.shard.on_first_since(since, first);
        }
        Ok(first.max(info.first_seq))
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
