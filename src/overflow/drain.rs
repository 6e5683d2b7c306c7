//! Publishes what waits, one message of an app after the other.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::{
    LAST_PART, Notice, Overflow, Queued, TOPIC,
    turns::{Next, Turn, Turns},
};
use crate::{
    apps::{App, Late},
    channel::{PublishFailure, may_be_stored},
    log::{ConsumeOptions, Consumer, ReadError, WorkMessage},
    model::{AppId, ChannelName},
    quota::Reservation,
    telemetry::QueueOutcome,
};

/// After a failure of the log.
const PAUSE: Duration = Duration::from_millis(200);
/// The consumer of an app is forgotten when nobody has asked it for so long.
const FORGET: Duration = Duration::from_secs(3_600);
/// The longest that a message is put off at once.
const LONGEST: Duration = Duration::from_secs(60);

/// A message that is delivered and not settled, between two attempts to publish it.
pub(super) struct Held {
    message: WorkMessage,
    /// Since when it is known whether it has waited for the rates.
    late: Late,
    /// Its room in the history, once the rates have admitted it.
    room: Option<Reservation>,
    /// An attempt may have stored it.
    stored: bool,
    /// Another node may have stored it and not said so.
    maybe_stored: bool,
    /// It may be given to somebody else soon after: it is not published any more.
    until: Instant,
}

/// What an attempt to publish came to.
enum Done {
    /// It is in the log.
    Published,
    /// It never will be.
    Never(&'static str),
    /// It has waited for too long.
    Expired,
    /// Not now: after so long.
    Wait(Duration),
}

/// What has become of a message.
enum Settled {
    /// It is out of the queue.
    Done,
    /// It is to be tried again after so long, by whoever has it.
    Wait(Held, Duration),
    /// It was given back, and comes again after so long.
    Later(Duration),
}

/// How a turn ends.
enum End {
    /// Nothing waits, as far as is known.
    Nothing,
    /// Others wait, and it had its share.
    Share,
    /// Until after so long it would be of no use.
    Rest(Duration, Option<Held>),
}

impl Overflow {
    /// Publishes for an app until nothing waits, as soon as it is its turn.
    pub(super) fn drain(self: &Arc<Self>, id: &AppId) {
        if self.apps.get(id.as_str()).is_some() {
            self.ask_for_turn(id);
        }
    }

    /// Whether what was queued then, ms since 1970, has waited for too long.
    pub(super) fn is_expired(&self, time_ms: i64) -> bool {
        let age = u64::try_from(self.log.now_ms() - time_ms).unwrap_or(0);
        Duration::from_millis(age) > self.config.max_age
    }

    /// The app runs as soon as it is its turn; of one that is deleted what is too old is taken out.
    pub(super) fn ask_for_turn(self: &Arc<Self>, id: &AppId) {
        let (runs, is_crowded) = self.turns(|turns| (turns.ask(id), turns.is_crowded()));
        if runs {
            self.run((id.clone(), None));
        } else if is_crowded {
            self.crowded.notify_one();
        }
    }

    fn run(self: &Arc<Self>, (app, kept): Next<Held>) {
        let draining = Draining {
            overflow: self.clone(),
            app,
            left: false,
        };
        self.tasks.spawn(draining.run(kept));
    }

    fn turns<T>(&self, act: impl FnOnce(&mut Turns<Held>) -> T) -> T {
        let mut turns = self.turns.lock();
        let result = act(&mut turns);
        let waiting = i64::try_from(turns.waiting()).unwrap_or(i64::MAX);
        self.metrics.queue_apps_waiting.set(waiting);
        result
    }
}

/// An app that this node publishes for, or that rests. Dropping it lets another task do that.
struct Draining {
    overflow: Arc<Overflow>,
    app: AppId,
    /// It has given up its place among [`Turns`].
    left: bool,
}

impl Drop for Draining {
    fn drop(&mut self) {
        if !self.left {
            let next = self.overflow.turns(|turns| turns.leave(&self.app));
            self.start(next);
        }
    }
}

impl Draining {
    async fn run(mut self, mut kept: Option<Held>) {
        loop {
            match self.turn(kept.take()).await {
                End::Nothing => {
                    if self.leave() {
                        return;
                    }
                }
                End::Share => {
                    self.left = true;
                    let next = self.overflow.turns(|turns| turns.again(&self.app, None));
                    return self.start(next);
                }
                End::Rest(after, held) => {
                    let next = self.overflow.turns(|turns| turns.rest(&self.app));
                    self.start(next);
                    sleep(after).await;
                    match self.overflow.turns(|turns| turns.rested(&self.app, held)) {
                        Some(held) => kept = held,
                        None => {
                            self.left = true;
                            return self.overflow.crowded.notify_one();
                        }
                    }
                }
            }
        }
    }

    fn start(&self, next: Option<Next<Held>>) {
        if let Some(next) = next {
            self.overflow.run(next);
        }
    }

    /// Leaves if nothing waits. Whoever queues something meanwhile finds that it is still there, or is gone.
    fn leave(&mut self) -> bool {
        let (is_over, next) = self.overflow.turns(|turns| match self.has_backlog() {
            true => (false, None),
            false => (true, turns.leave(&self.app)),
        });
        self.left = is_over;
        self.start(next);
        is_over
    }

    fn has_backlog(&self) -> bool {
        let overflow = &self.overflow;
        overflow.apps.get(self.app.as_str()).is_some()
            && overflow.with(|backlogs| backlogs.has_app(&self.app))
    }

    /// Publishes until others are to have their turn, or nothing is left.
    async fn turn(&self, mut held: Option<Held>) -> End {
        let overflow = &self.overflow;
        let (began, mut turn) = (Instant::now(), Turn::default());
        let mut expired = Expired::new(&self.app);
        let mut consumer = None;
        loop {
            let app = overflow.apps.get(self.app.as_str());
            if let Some(message) = held.take() {
                match self.settle(app.as_deref(), message, &mut expired).await {
                    Settled::Done => turn.settled(),
                    // Nobody publishes what is left.
                    Settled::Later(_) if app.is_none() => return End::Nothing,
                    Settled::Later(after) => return End::Rest(after, None),
                    Settled::Wait(message, after) => {
                        let again = Instant::now() + after;
                        if !self.stays_until(again).await {
                            let rest = again.saturating_duration_since(Instant::now());
                            return End::Rest(rest, Some(message));
                        }
                        held = Some(message);
                        continue;
                    }
                }
            }
            let is_crowded = overflow.turns.lock().is_crowded();
            if is_crowded && turn.is_over(began.elapsed()) {
                return End::Share;
            }
            match self.pull(&mut consumer, is_crowded).await {
                Ok(Some(message)) => held = Some(message),
                Ok(None) if !self.has_backlog() => return End::Nothing,
                Ok(None) if expired.count > 0 => expired.tell(),
                // Another node has its first message, or has put it off.
                Ok(None) if is_crowded => return End::Rest(overflow.config.check_interval, None),
                Ok(None) => {}
                Err(error) => {
                    debug!(app = %self.app, %error, "what waits cannot be read now");
                    if app.is_none() {
                        return End::Nothing;
                    }
                    if !self.stays_until(Instant::now() + PAUSE).await {
                        return End::Rest(PAUSE, None);
                    }
                }
            }
        }
    }

    /// Waits in its turn. False as soon as others wait for theirs.
    async fn stays_until(&self, until: Instant) -> bool {
        loop {
            let crowded = self.overflow.crowded.notified();
            tokio::pin!(crowded);
            // From here on nobody comes unnoticed.
            crowded.as_mut().enable();
            if self.overflow.turns.lock().is_crowded() {
                return false;
            }
            if timeout_at(until, crowded).await.is_err() {
                return true;
            }
        }
    }

    /// The next message, which is waited for if nobody waits for this app.
    async fn pull(
        &self,
        consumer: &mut Option<Box<dyn Consumer>>,
        is_crowded: bool,
    ) -> Result<Option<Held>, ReadError> {
        let config = &self.overflow.config;
        let is_first = consumer.is_none();
        let consumer = match consumer {
            Some(consumer) => consumer,
            None => {
                let options = ConsumeOptions {
                    durable: self.app.as_str().to_owned(),
                    prefix: vec![self.app.as_str().to_owned()],
                    // What follows is not even delivered before this one is settled: that makes the order.
                    max_ack_pending: 1,
                    ack_wait: config.ack_wait,
                    forget_after: Some(FORGET),
                };
                consumer.insert(self.overflow.stream.consume(options).await?)
            }
        };
        let wait = if is_crowded {
            Duration::ZERO
        } else {
            config.check_interval
        };
        let message = consumer.pull(1, wait).await?.pop();
        Ok(message.map(|message| Held {
            // The first of a turn may be what another node has left; if that was long ago, the consumer is gone
            // that has counted.
            maybe_stored: is_first || message.delivered > 1,
            message,
            late: Late::default(),
            room: None,
            stored: false,
            // Half the time after which the message is given to somebody else.
            until: Instant::now() + config.ack_wait / 2,
        }))
    }

    async fn settle(&self, app: Option<&App>, mut held: Held, expired: &mut Expired) -> Settled {
        let overflow = &self.overflow;
        let count = |outcome| overflow.metrics.queue.of(outcome).inc();
        let channel = match held.message.key.as_slice() {
            [_, channel, last] if last == LAST_PART => ChannelName::new(channel).ok(),
            _ => None,
        };
        let done = match (&channel, app) {
            // Once it is admitted it may have been stored.
            _ if held.room.is_none() && overflow.is_expired(held.message.time_ms) => Done::Expired,
            (None, _) => Done::Never("its key is not one of the queue"),
            // It may come again, if this node has been told late; or it will be too old.
            (Some(_), None) => Done::Wait(LONGEST),
            (Some(channel), Some(app)) => self.publish(app, channel, &mut held).await,
        };
        if !matches!(done, Done::Expired) {
            expired.tell();
        }
        let message = &held.message;
        let settled = match done {
            Done::Published => {
                count(QueueOutcome::Published);
                message.ack().await
            }
            Done::Never(why) => {
                warn!(app = %self.app, seq = message.seq, why, "a publication that waited was dropped");
                count(QueueOutcome::Dropped);
                message.term().await
            }
            Done::Expired => {
                count(QueueOutcome::Expired);
                expired.count += 1;
                message.term().await
            }
            Done::Wait(after) if app.is_some() && Instant::now() + after <= held.until => {
                return Settled::Wait(held, after);
            }
            Done::Wait(after) => {
                let after = after.min(LONGEST);
                count(QueueOutcome::Deferred);
                // If that fails it comes again all the same.
                let _ = message.nak(after).await;
                return Settled::Later(after);
            }
        };
        if let (Ok(()), Some(channel)) = (settled, channel) {
            overflow.with(|backlogs| overflow.drained(backlogs, &self.app, &channel, message.seq));
            let notice = Notice::drained(&self.app, &channel, message.seq);
            overflow.log.tell(TOPIC, notice.encode());
        }
        Settled::Done
    }

    /// Publishes if the rates admit it.
    async fn publish(&self, app: &App, channel: &ChannelName, held: &mut Held) -> Done {
        let hub = &self.overflow.hub;
        let Some(Queued { record, key }) = Queued::decode(&held.message.data) else {
            return Done::Never("it is not in a form that is known here");
        };
        let Some(rule) = app.rules.rule(channel) else {
            return Done::Never("its namespace does not exist any more");
        };
        if record.data.len() > rule.max_size {
            return Done::Never("it is larger than its namespace allows now");
        }
        let Some(route) = hub.route(&app.id, channel, &rule.history) else {
            return Done::Never("its retention class does not exist");
        };
        if Instant::now() > held.until {
            // It may be somebody else's by now: no rate is charged for it.
            return Done::Wait(PAUSE);
        }
        if held.maybe_stored {
            // One before it with the same key is another publication, unless NATS knew it as a repeat when this was
            // queued: clocks of two leaders may differ by less than that.
            let clocks = i64::try_from(self.overflow.config.ack_wait.as_millis()).unwrap_or(i64::MAX);
            let since_ms = held.message.time_ms.saturating_sub(clocks);
            match hub.is_last(&route, &key, since_ms).await {
                Ok(false) => held.maybe_stored = false,
                // By a node that died before it could say so. All else that is published to the channel waits
                // behind it.
                Ok(true) => return Done::Published,
                Err(_) => return Done::Wait(PAUSE),
            }
        }
        let room = match &mut held.room {
            Some(room) => room,
            None => {
                let size = hub.size(&route, &record, Some(&key));
                match app.admit_late(channel, size, &mut held.late) {
                    Ok(room) => held.room.insert(room),
                    Err(throttled) => return Done::Wait(throttled.retry_after),
                }
            }
        };
        let stored = &mut held.stored;
        let done = store(held.until, || async {
            let outcome = hub.publish(&route, &record, Some(&key))?.await;
            // By this attempt, or by one before it.
            *stored |= may_be_stored(&outcome);
            outcome
        });
        let done = done.await;
        room.set_stored(held.stored);
        done
    }
}

/// What was too old of an app, told together: there may be very many.
struct Expired {
    app: AppId,
    count: u64,
}

impl Expired {
    fn new(app: &AppId) -> Self {
        Self {
            app: app.clone(),
            count: 0,
        }
    }

    fn tell(&mut self) {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            warn!(app = %self.app, count, "publications waited for longer than queue.max_age and were dropped");
        }
    }
}

impl Drop for Expired {
    fn drop(&mut self) {
        self.tell();
    }
}

/// With its key a repeat is stored once, so an unknown outcome is tried again. Never after `until`: the message
/// may be somebody else's then, and those behind it published.
async fn store<T, F>(until: Instant, attempt: impl FnOnce() -> F) -> Done
where
    F: Future<Output = Result<T, PublishFailure>>,
{
    if Instant::now() > until {
        return Done::Wait(PAUSE);
    }
    match attempt().await {
        Ok(_) => Done::Published,
        Err(PublishFailure::Refused(_)) => Done::Never("the log refused it"),
        Err(_) => Done::Wait(PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_be_given_to_another_node_is_not_published_any_more() {
        let until = Instant::now() + PAUSE;
        let unknown = || async { Err::<(), _>(PublishFailure::Unknown) };
        assert!(matches!(store(until, unknown).await, Done::Wait(_)));
        tokio::time::advance(PAUSE).await;
        let stored = || async { Ok::<_, PublishFailure>(()) };
        assert!(matches!(store(until, stored).await, Done::Published));
        // The node stood still between the delivery and the attempt, or others had their turn.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(store(until, stored).await, Done::Wait(_)));
    }
}
