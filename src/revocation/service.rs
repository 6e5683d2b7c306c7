//! Keeps what is revoked up to date, and has it done to connections that are open.

use std::{
    collections::HashSet,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::RwLock;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::warn;

use super::{
    entry::{Entry, EntryId, Kind},
    set::Set,
};
use crate::{
    config::RevocationsConfig,
    log::{Bucket, BucketEntry, BucketName, Change, Changes, Log, ReadError},
    model::{AppId, TokenError, TokenFacts},
    task::Tasks,
    telemetry::Metrics,
};

/// How often an entry is written again over a write of another node.
const TRIES: usize = 8;
/// How long an entry that is stored may take to come back to the node that stored it, before the
/// caller is answered without.
const ECHO: Duration = Duration::from_secs(1);
/// How often what holds no more is forgotten.
const PRUNE: Duration = Duration::from_secs(60);

/// Ends the connections of an app whose token is revoked, by what says so of a user and a token; only
/// those of one user, if one is given.
pub type Enforce = Box<dyn Fn(&AppId, Option<&str>, &dyn Fn(&str, &TokenFacts) -> bool) + Send + Sync>;

/// What this node knows to be revoked. One per node.
pub struct Revocations {
    bucket: Arc<dyn Bucket>,
    config: RevocationsConfig,
    /// Written by the watch alone. Held while the locks of the index of users are taken, never the
    /// other way round.
    set: RwLock<Set>,
    enforce: Enforce,
    /// How many changes have been applied, from 1 on once all of the bucket has been read.
    applied: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

/// The bucket could not be read in time: whom to turn away is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is revoked could not be read from NATS in time")]
pub struct NotRead;

/// What is to be revoked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// The token's id, the user, or the key; nothing for [`Kind::Before`].
    pub value: String,
    /// Tokens issued before this time, where that counts; else now.
    pub before: Option<i64>,
    /// When all those tokens have expired; else after `revocations.default_ttl`.
    pub until: Option<i64>,
}

/// Why nothing was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// As many as the app may have.
    #[error("the app has as many revocations as it may")]
    TooMany,
    /// `until` is not after now, or further away than `revocations.max_ttl`.
    #[error("until is over already, or too far away")]
    Until,
    /// NATS did not answer: it may be stored or not. Safe to try again.
    #[error("it could not be stored now")]
    Unavailable,
}

impl Revocations {
    /// Reads what is revoked, and does it from now on.
    ///
    /// # Errors
    ///
    /// [`NotRead`] after `patience`.
    pub async fn start(
        log: &Arc<dyn Log>,
        config: &RevocationsConfig,
        enforce: Enforce,
        patience: Duration,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, NotRead> {
        let revocations = Arc::new(Self {
            bucket: log.bucket(BucketName::Revocations),
            config: config.clone(),
            set: RwLock::default(),
            enforce,
            applied: watch::Sender::new(0),
            metrics,
        });
        let changes = revocations.bucket.watch();
        tasks.spawn(revocations.clone().watch(changes));
        let mut applied = revocations.applied.subscribe();
        match timeout(patience, applied.wait_for(|applied| *applied > 0)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(NotRead),
        }
        Ok(revocations)
    }

    /// Refuses a token of `user` that is revoked.
    ///
    /// # Errors
    ///
    /// [`TokenError::REVOKED`].
    pub fn check(&self, app: &AppId, user: &str, facts: &TokenFacts) -> Result<(), TokenError> {
        if self.set.read().revokes(app, user, facts, now()) {
            return Err(TokenError::REVOKED);
        }
        Ok(())
    }

    /// Revokes, on all nodes; this one does it before it answers. What was revoked before stays so: two
    /// entries for the same are one that revokes what either does.
    ///
    /// # Errors
    ///
    /// [`RevokeError`].
    pub async fn revoke(&self, app: &AppId, kind: Kind, order: Order) -> Result<Arc<Entry>, RevokeError> {
        let entry = self.entry(kind, order, now())?;
        let id = entry.id();
        let key = key(app, id);
        for _ in 0..TRIES {
            let found = self.bucket.get(&key).await.map_err(unavailable)?;
            let now = now();
            let known = read(&found).filter(|known| known.holds(now) && known.id() == id);
            if known.is_none() && self.set.read().count_holding(app, now) >= self.config.max_per_app {
                return Err(RevokeError::TooMany);
            }
            let merged = match &known {
                Some(known) => entry.clone().merged(known),
                None => entry.clone(),
            };
            let value = serde_json::to_vec(&merged).map_err(|_| RevokeError::Unavailable)?;
            let ttl = Duration::from_secs(u64::try_from(merged.until - now).unwrap_or(1).max(1));
            let stored = self.bucket.set(&key, value.into(), found.revision, Some(ttl));
            if stored.await.map_err(unavailable)?.is_some() {
                self.echo(|set| {
                    let known = set.get(app, id, now);
                    known.is_some_and(|known| !merged.exceeds(&known))
                })
                .await;
                return Ok(Arc::new(merged));
            }
        }
        Err(RevokeError::Unavailable)
    }

    /// Takes a revocation back, on all nodes. False if there was none.
    ///
    /// # Errors
    ///
    /// [`RevokeError::Unavailable`].
    pub async fn restore(&self, app: &AppId, id: EntryId) -> Result<bool, RevokeError> {
        let key = key(app, id);
        for _ in 0..TRIES {
            let found = self.bucket.get(&key).await.map_err(unavailable)?;
            if read(&found).is_none_or(|known| !known.holds(now())) {
                return Ok(false);
            }
            let removed = self.bucket.remove(&key, found.revision);
            if removed.await.map_err(unavailable)? {
                self.echo(|set| set.get(app, id, now()).is_none()).await;
                return Ok(true);
            }
        }
        Err(RevokeError::Unavailable)
    }

    /// What of `app` is revoked, in the order of ids, after the one called `after`.
    pub fn list(&self, app: &AppId, after: Option<EntryId>) -> Vec<(EntryId, Arc<Entry>)> {
        self.set.read().list(app, after, now())
    }

    fn entry(&self, kind: Kind, order: Order, now: i64) -> Result<Entry, RevokeError> {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let until = match order.until {
            Some(until) => until,
            None => now.saturating_add(seconds(self.config.default_ttl)),
        };
        if until <= now || until > now.saturating_add(seconds(self.config.max_ttl)) {
            return Err(RevokeError::Until);
        }
        let before = match kind {
            // Times of tokens are whole seconds: what was issued in this one counts as before now.
            Kind::User | Kind::Before => order.before.unwrap_or(now.saturating_add(1)),
            Kind::Token | Kind::Key => 0,
        };
        Ok(Entry {
            kind,
            value: match kind {
                Kind::Before => String::new(),
                _ => order.value,
            },
            before,
            until,
            created: now,
        })
    }

    /// Waits until the watch has brought what this node has stored.
    async fn echo(&self, is_there: impl Fn(&Set) -> bool) {
        let mut applied = self.applied.subscribe();
        let arrived = applied.wait_for(|_| is_there(&self.set.read()));
        // Without it the other nodes may have it all the same: it is stored.
        let _ = timeout(ECHO, arrived).await;
    }

    async fn watch(self: Arc<Self>, mut changes: Box<dyn Changes>) {
        let mut prune = interval(PRUNE);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pass: Option<HashSet<(AppId, EntryId)>> = None;
        loop {
            let change = tokio::select! {
                change = poll_fn(|cx| changes.poll_next(cx)) => change,
                _ = prune.tick() => {
                    self.set.write().prune(now());
                    self.measure();
                    continue;
                }
            };
            let Some(mut change) = change else { return };
            let mut stronger = Vec::new();
            let mut counts = false;
            // All that is there is one step: many entries are one look at the connections.
            loop {
                self.apply(change, &mut pass, &mut stronger);
                // Not before all that there was has been told: a node that starts waits for it.
                counts |= pass.is_none();
                match poll_fn(|cx| Poll::Ready(changes.poll_next(cx))).await {
                    Poll::Ready(Some(next)) => change = next,
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            self.measure();
            self.do_to_connections(&stronger);
            if counts {
                self.applied.send_modify(|applied| *applied += 1);
            }
        }
    }

    fn apply(
        &self,
        change: Change,
        pass: &mut Option<HashSet<(AppId, EntryId)>>,
        stronger: &mut Vec<(AppId, Arc<Entry>)>,
    ) {
        match change {
            Change::Begin => *pass = Some(HashSet::new()),
            Change::Current => {
                let Some(told) = pass.take() else { return };
                let mut set = self.set.write();
                let all = set.ids().map(|(app, id)| (app.clone(), id));
                let gone: Vec<_> = all.filter(|it| !told.contains(it)).collect();
                for (app, id) in gone {
                    set.remove(app.as_str(), id);
                }
            }
            Change::Entry { key, entry } => {
                let Some((app, id)) = parse_key(&key) else {
                    warn!("the bucket of revocations has a key that is none");
                    return;
                };
                match (read(&entry), &entry.value) {
                    (Some(entry), _) if entry.id() == id => {
                        if let Some(told) = pass {
                            told.insert((app.clone(), id));
                        }
                        let entry = Arc::new(entry);
                        if self.set.write().put(&app, &entry) {
                            stronger.push((app, entry));
                        }
                    }
                    (_, None) => {
                        self.set.write().remove(app.as_str(), id);
                    }
                    _ => warn!(%app, "a revocation cannot be read, and is not followed"),
                }
            }
        }
    }

    fn do_to_connections(&self, stronger: &[(AppId, Arc<Entry>)]) {
        let set = self.set.read();
        let now = now();
        let mut looked_at = HashSet::new();
        for (app, entry) in stronger {
            let revoked = |user: &str, facts: &TokenFacts| set.revokes(app, user, facts, now);
            if entry.kind == Kind::User {
                (self.enforce)(app, Some(&entry.value), &revoked);
            } else if looked_at.insert(app) {
                (self.enforce)(app, None, &revoked);
            }
        }
    }

    fn measure(&self) {
        let known = self.set.read().len();
        self.metrics
            .revocations
            .set(i64::try_from(known).unwrap_or(i64::MAX));
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("known", &self.set.read().len())
            .finish_non_exhaustive()
    }
}

/// A key of the bucket. Ids of apps have no dots.
fn key(app: &AppId, id: EntryId) -> String {
    format!("{app}.{id}")
}

fn parse_key(key: &str) -> Option<(AppId, EntryId)> {
    let (app, id) = key.split_once('.')?;
    Some((AppId::new(app).ok()?, EntryId::parse(id)?))
}

fn read(entry: &BucketEntry) -> Option<Entry> {
    serde_json::from_slice(entry.value.as_ref()?).ok()
}

fn unavailable(_: ReadError) -> RevokeError {
    RevokeError::Unavailable
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        config::{Config, Sources},
        log::memory::MemoryLog,
    };

    struct Scripted(mpsc::UnboundedReceiver<Change>);

    impl Changes for Scripted {
        fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
            self.0.poll_recv(cx)
        }
    }

    #[tokio::test]
    async fn nothing_counts_before_all_entries_have_been_told() {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(Vec::new()));
        let revocations = Arc::new(Revocations {
            bucket: log.bucket(BucketName::Revocations),
            config: Config::load(&Sources::default()).unwrap().revocations,
            set: RwLock::default(),
            enforce: Box::new(|_, _, _| {}),
            applied: watch::Sender::new(0),
            metrics: Arc::new(Metrics::new()),
        });
        let (changes, scripted) = mpsc::unbounded_channel();
        let tasks = Tasks::default();
        tasks.spawn(revocations.clone().watch(Box::new(Scripted(scripted))));
        changes.send(Change::Begin).unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*revocations.applied.borrow(), 0, "the entries are still to come");
        changes.send(Change::Current).unwrap();
        let mut applied = revocations.applied.subscribe();
        applied.wait_for(|applied| *applied == 1).await.unwrap();
        tasks.stop();
    }
}
