//! What nodes hear and ask of what waits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{interval, timeout};

use super::{Notice, Overflow, TOPIC};
use crate::{
    log::{NodeMessage, hear},
    model::{AppId, ChannelName, Overflow as Policy},
};

/// Channels of an app that the stream is asked about in one round.
const ASK: usize = 16;
/// Channels that one notice tells of.
const TELL: usize = 256;
/// So many rounds pass until what nobody told of is looked for.
const ROUNDS: u32 = 5;
/// So many, until it is looked for in apps, too, that have no queue any more.
const ALL_ROUNDS: u32 = 60;
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

    pub(super) async fn watch(self: Arc<Self>) {
        let mut rounds = interval(self.config.check_interval);
        let mut round = 0_u32;
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
            let apps = self.with(|backlogs| backlogs.apps());
            for app in apps {
                self.ask(&app).await;
                self.drain(&app);
            }
            round = round.wrapping_add(1);
            if round.is_multiple_of(ROUNDS) {
                self.find_unknown(round.is_multiple_of(ALL_ROUNDS)).await;
            }
        }
    }

    /// Asks the stream what is left of an app.
    async fn ask(&self, app: &AppId) {
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
        let _ = timeout(AT_START, self.find_unknown(false)).await;
    }

    /// Looks for what waits and nobody has told of: a node has just started, or a notice was lost.
    async fn find_unknown(self: &Arc<Self>, all: bool) {
        match self.stream.waiting(&[]).await {
            Ok(waiting) if waiting.messages > 0 => {}
            _ => return,
        }
        let queues =
            |app: &crate::apps::App| app.rules.iter().any(|(_, rule)| rule.overflow == Policy::Queue) || all;
        for app in self.apps.all().iter().filter(|app| queues(app)) {
            if self.with(|backlogs| backlogs.has_app(&app.id)) {
                continue;
            }
            let waiting = self.stream.waiting(&[app.id.as_str()]).await;
            if waiting.is_ok_and(|waiting| waiting.messages > 0) {
                self.with(|backlogs| backlogs.suspect(&app.id, Instant::now()));
                self.drain(&app.id);
            }
        }
    }
}
