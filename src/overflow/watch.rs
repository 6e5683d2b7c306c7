//! What nodes hear and ask of what waits.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{interval, sleep, timeout};

use super::{Census, Notice, Overflow, TOPIC};
use crate::{
    apps::App,
    log::{NodeMessage, Waiting, hear},
    model::{AppId, ChannelName, Overflow as Policy},
};

/// Channels of an app that the stream is asked about in one round, where it is asked app by app.
const ASK: usize = 16;
/// Apps, likewise.
const ASK_APPS: usize = 64;
/// So many keys of one answer make the next one come an interval later.
const KEYS: usize = 10_000;
/// The pause behind a round is at least so many times as long as the round was.
const EASE: u32 = 4;
/// Channels that one notice tells of.
const TELL: usize = 256;
/// So many rounds pass until what nobody told of is looked for.
const ROUNDS: usize = 5;
/// A node that starts looks for it no longer than this.
const AT_START: Duration = Duration::from_secs(5);

impl Overflow {
    pub(super) async fn hear(self: Arc<Self>) {
        hear(&*self.log, TOPIC, |message| self.on_notice(message)).await;
    }

    fn on_notice(self: &Arc<Self>, message: &NodeMessage) {
        if message.from == self.log.node() {
            return;
        }
        let Ok(Notice {
            queued,
            drained,
            idle,
        }) = serde_json::from_slice(&message.data)
        else {
            return;
        };
        let now = Instant::now();
        self.with(|backlogs| {
            for (app, channel) in &idle {
                if let Ok(channel) = ChannelName::new(channel) {
                    backlogs.idle(app, &channel, message.from);
                }
            }
            for (app, channel) in &queued {
                if let Ok(channel) = ChannelName::new(channel) {
                    backlogs.heard(app, &channel, message.from, now);
                }
            }
            for (app, channel, seq) in &drained {
                if let Ok(channel) = ChannelName::new(channel) {
                    self.drained(backlogs, app, &channel, *seq);
                }
            }
        });
        for (app, _) in &queued {
            self.drain(app);
        }
    }

    /// Tells the others again of what has been queued meanwhile. Waits for nothing.
    pub(super) async fn tell_again(self: Arc<Self>) {
        let mut rounds = interval(self.config.check_interval);
        loop {
            rounds.tick().await;
            let untold = self.with(super::Backlogs::untold);
            for some in untold.chunks(TELL) {
                let queued = some.iter();
                let notice = Notice {
                    queued: queued
                        .map(|(app, channel)| (app.clone(), channel.as_str().to_owned()))
                        .collect(),
                    ..Notice::default()
                };
                self.log.tell(TOPIC, notice.encode());
            }
        }
    }

    /// Asks the stream what is left, and looks for what nobody has told of.
    pub(super) async fn watch(self: Arc<Self>) {
        // The one before was at the start.
        let mut round = 1_usize;
        loop {
            let began = Instant::now();
            let keys = self.ask(round, round.is_multiple_of(ROUNDS)).await;
            round = round.wrapping_add(1);
            sleep(pause(self.config.check_interval, keys, began.elapsed())).await;
        }
    }

    /// One round: one question about all apps, or a few about some of them if that has too long an answer. How
    /// many keys the stream had. `all`: also of apps of which this node knows nothing.
    async fn ask(self: &Arc<Self>, round: usize, all: bool) -> usize {
        let mut apps = self.with(|backlogs| backlogs.apps());
        if apps.is_empty() {
            let nothing = |waiting: Waiting| waiting.messages == 0;
            if !all || self.stream.waiting(&[]).await.is_ok_and(nothing) {
                return 0;
            }
        }
        let asked = Instant::now();
        let census = match self.stream.counts(&[]).await {
            Ok(counts) => Census::new(counts),
            Err(_) if !self.log.connected() => {
                apps.iter().for_each(|app| self.drain(app));
                return 0;
            }
            // It says nothing of anybody.
            Err(_) => Census::default(),
        };
        if census.is_whole() {
            for app in &apps {
                self.compare(app, &census, asked);
            }
        } else {
            apps.sort();
            for app in some(&apps, round) {
                self.ask_of(&app).await;
            }
        }
        if all {
            let deleted = census.apps().filter(|app| self.apps.get(app.as_str()).is_none());
            for app in deleted.take(ASK_APPS) {
                let oldest = self.stream.waiting(&[app.as_str()]).await;
                let oldest_ms = oldest.ok().and_then(|waiting| waiting.oldest_ms);
                if oldest_ms.is_some_and(|oldest| self.is_expired(oldest)) {
                    self.ask_for_turn(app);
                }
            }
            for app in census.apps() {
                if self.apps.get(app.as_str()).is_some() && !self.with(|backlogs| backlogs.has_app(app)) {
                    self.with(|backlogs| backlogs.suspect(app, Instant::now()));
                    self.drain(app);
                }
            }
        }
        if all && !census.is_whole() {
            self.find_beyond(&census, round).await;
        }
        for app in &apps {
            if self.with(|backlogs| backlogs.has_app(app)) {
                self.drain(app);
            }
        }
        census.keys()
    }

    /// What the stream has of an app by an answer that is whole. The lock is taken again and again: publishers want
    /// it, too.
    fn compare(&self, app: &AppId, census: &Census, asked: Instant) {
        self.with(|backlogs| backlogs.counted(app, census.messages(app).unwrap_or_default()));
        let mut places = self.with(|backlogs| backlogs.settled(app, asked, usize::MAX));
        places.retain(|place| census.is_empty(app, place));
        for some in places.chunks(ASK) {
            self.with(|backlogs| some.iter().for_each(|place| backlogs.empty(app, place, asked)));
        }
    }

    /// Looks for what waits of apps that an answer which is not whole did not name: of some of them in each round, of
    /// as many as there is time for at the start.
    async fn find_beyond(self: &Arc<Self>, census: &Census, round: usize) {
        let named: HashSet<_> = census.apps().collect();
        let queues = |app: &App| app.rules.iter().any(|(_, rule)| rule.overflow == Policy::Queue);
        let apps = self.apps.all();
        let apps = apps.iter().filter(|app| queues(app) && !named.contains(&app.id));
        let mut apps: Vec<_> = apps.map(|app| app.id.clone()).collect();
        apps.retain(|app| !self.with(|backlogs| backlogs.has_app(app)));
        apps.sort();
        let asked = match round {
            0 => apps,
            round => some(&apps, round / ROUNDS),
        };
        for app in &asked {
            let waiting = self.stream.waiting(&[app.as_str()]).await;
            if waiting.is_ok_and(|waiting| waiting.messages > 0) {
                self.with(|backlogs| backlogs.suspect(app, Instant::now()));
                self.drain(app);
            }
        }
    }

    /// Asks the stream what is left of one app.
    async fn ask_of(&self, app: &AppId) {
        let asked = Instant::now();
        let Ok(waiting) = self.stream.waiting(&[app.as_str()]).await else {
            return;
        };
        self.with(|backlogs| backlogs.counted(app, waiting.messages));
        for place in self.with(|backlogs| backlogs.settled(app, asked, ASK)) {
            let is_empty = match &place {
                _ if waiting.messages == 0 => true,
                Some(channel) => {
                    let waiting = self.waiting(app, channel).await;
                    waiting.is_ok_and(|waiting| waiting.messages == 0)
                }
                None => false,
            };
            if is_empty {
                self.with(|backlogs| backlogs.empty(app, &place, asked));
            }
        }
    }

    /// What waits when a node starts, as far as there is an answer in time.
    pub(super) async fn find_at_start(self: &Arc<Self>) {
        let _ = timeout(AT_START, self.ask(0, true)).await;
    }
}

/// As many apps as are asked about one by one in a round, others in each.
fn some(apps: &[AppId], round: usize) -> Vec<AppId> {
    let begin = (round * ASK_APPS) % apps.len().max(1);
    let some = apps.iter().cycle().skip(begin).take(ASK_APPS.min(apps.len()));
    some.cloned().collect()
}

/// Until the next round: the longer, the more this one has cost.
fn pause(interval: Duration, keys: usize, took: Duration) -> Duration {
    let rounds = u32::try_from(1 + keys / KEYS).unwrap_or(u32::MAX);
    interval.saturating_mul(rounds).max(took.saturating_mul(EASE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_asked_the_more_seldom_the_more_it_has() {
        let second = Duration::from_secs(1);
        for (keys, took, expected) in [
            (0, Duration::ZERO, second),
            (KEYS - 1, second / 10, second),
            (KEYS, Duration::ZERO, 2 * second),
            (10 * KEYS, Duration::ZERO, 11 * second),
            (0, second, 4 * second),
            (10 * KEYS, 10 * second, 40 * second),
        ] {
            assert_eq!(pause(second, keys, took), expected, "{keys} {took:?}");
        }
    }
}
