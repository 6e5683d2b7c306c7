//! Subscribing: joining a tail at a proven place, and the reply in the same step (L8, L9).

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    log::Route,
    model::{Epoch, MAX_OFFSET, Offset, Position},
    telemetry::{CatchupKind, CatchupSource, Measure, RecoveryOutcome},
};

use super::{
    cursor::{Cursor, CursorKey},
    entry::Entry,
    hub::{Body, Durable, Ephemeral, Hub, Interest, Life, TooManyTails},
    outlet::Outlet,
    reader::{Proven, Refused},
    recovery::{floor_holds, is_withheld},
    tail::{Join, Joined},
};

const PAUSE: Duration = Duration::from_millis(20);

/// A subscription. Dropping it ends it; nothing is delivered to its outlet afterwards.
pub struct Subscription {
    interest: Interest,
    key: CursorKey,
}

/// What the subscriber is told. It must be queued in the step that gets it.
#[derive(Debug)]
pub struct Subscribed<'a> {
    /// The cursor's place; `None` on an ephemeral channel.
    pub position: Option<Position>,
    /// Everything after the position the client came with is in `missed`, or follows.
    pub recovered: bool,
    /// The first page of what was missed, ascending.
    pub missed: &'a [Arc<Entry>],
}

/// Why there is no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// No proof in time: error 100, the client keeps its position.
    #[error("no proof in time")]
    TimedOut,
    /// The position cannot be proven, and the client wants to be told so instead of joining (112).
    #[error("the position cannot be recovered")]
    Unrecoverable,
    /// As many tails as the node may have.
    #[error(transparent)]
    TooManyTails(#[from] TooManyTails),
    /// The channel was closed under it; the node is stopping.
    #[error("the channel is closed")]
    Closed,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Resume {
    /// Where it stands; `None` = it starts afresh.
    pub position: Option<Position>,
    /// If the position cannot be proven: fail, do not join.
    pub reject_unrecovered: bool,
}

/// Where a join stands.
enum Wanted {
    /// At the tail's watermark.
    Fresh { outcome: Option<RecoveryOutcome> },
    /// After this offset.
    After(Offset),
}

enum Step {
    Joined(CursorKey, bool),
    Wait,
    Need(Join, Offset, Life),
    /// Whether the client's epoch is an old one is asked of the registry.
    Confirm,
}

impl Hub {
    /// Subscribes `outlet` to a channel. `reply` is called once, in the step that joins, before
    /// anything is delivered.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`]; `reply` has not been called then.
    pub async fn subscribe(
        self: &Arc<Self>,
        route: &Route,
        resume: Resume,
        outlet: Outlet,
        reply: impl FnOnce(Subscribed<'_>) + Send,
    ) -> Result<Subscription, SubscribeError> {
        let interest = self.interest(route)?;
        let asked = resume.position.is_some();
        let joining = self.join(&interest, resume, outlet, reply);
        let joined = timeout(self.config.subscribe_timeout, joining).await;
        let recoveries = &interest.channel().app.recoveries;
        match joined {
            Ok(Ok((key, outcome))) => {
                if let Some(outcome) = outcome {
                    recoveries.of(outcome).inc();
                    interest.channel().usage.add(Measure::Recoveries, 1);
                }
                Ok(Subscription { interest, key })
            }
            Ok(Err(error)) => {
                if error == SubscribeError::Unrecoverable {
                    recoveries.of(RecoveryOutcome::Unproven).inc();
                }
                Err(error)
            }
            Err(_) => {
                if asked {
                    recoveries.of(RecoveryOutcome::TimedOut).inc();
                }
                Err(SubscribeError::TimedOut)
            }
        }
    }

    async fn join(
        self: &Arc<Self>,
        interest: &Interest,
        resume: Resume,
        outlet: Outlet,
        reply: impl FnOnce(Subscribed<'_>) + Send,
    ) -> Result<(CursorKey, Option<RecoveryOutcome>), SubscribeError> {
        let channel = interest.channel();
        let mut reply = Some(reply);
        let mut unproven: Option<RecoveryOutcome> = None;
        let mut confirmed = false;
        // Held from the first read on: what it brings serves those who wait behind it.
        let mut reading = None;
        loop {
            let begun = channel.begun.notified();
            let step = {
                let mut body = channel.body.lock();
                match &mut *body {
                    Body::Closed => return Err(SubscribeError::Closed),
                    Body::Ephemeral(ephemeral) if !ephemeral.begun => Step::Wait,
                    Body::Ephemeral(Ephemeral { cursors, .. }) => {
                        let key = cursors.insert(Cursor {
                            outlet: outlet.clone(),
                            delivered: 0,
                            live: true,
                        });
                        if let Some(reply) = reply.take() {
                            reply(Subscribed {
                                position: None,
                                recovered: false,
                                missed: &[],
                            });
                        }
                        let outcome = resume.position.is_some().then_some(RecoveryOutcome::Unproven);
                        return Ok((key, outcome));
                    }
                    Body::Durable(durable) if !durable.tail.has_begun() => Step::Wait,
                    // It is about to begin anew.
                    Body::Durable(durable) if channel.is_of_old(durable) => Step::Wait,
                    Body::Durable(durable)
                        if !confirmed && names_other_epoch(resume.position.as_ref(), &durable.epoch) =>
                    {
                        Step::Confirm
                    }
                    Body::Durable(durable) => {
                        let wanted = match unproven {
                            Some(outcome) => Wanted::Fresh {
                                outcome: Some(outcome),
                            },
                            None => wanted(resume.position.as_ref(), &durable.epoch),
                        };
                        if let (Wanted::Fresh { outcome: Some(_) }, true) =
                            (&wanted, resume.reject_unrecovered)
                        {
                            return Err(SubscribeError::Unrecoverable);
                        }
                        self.try_join(interest, durable, &wanted, &outlet, &mut reply)
                    }
                }
            };
            let (need, position, life) = match step {
                Step::Joined(key, behind) => {
                    if behind {
                        let kind = CatchupKind::Resume;
                        self.tasks
                            .spawn(super::feeder::feed(self.clone(), channel.clone(), key, kind));
                    }
                    let asked = resume.position.is_some();
                    let outcome = unproven.or_else(|| asked.then_some(RecoveryOutcome::Recovered));
                    return Ok((key, outcome));
                }
                Step::Wait => {
                    begun.await;
                    continue;
                }
                Step::Confirm => {
                    if let Some(keeper) = &channel.keeper {
                        // If this node has not heard of the client's epoch yet, it does now.
                        keeper.confirmed().await;
                    }
                    confirmed = true;
                    continue;
                }
                Step::Need(need, position, life) => (need, position, life),
            };
            let Some(keeper) = &channel.keeper else {
                return Err(SubscribeError::Closed);
            };
            if matches!(need, Join::Ahead) {
                // Reads nothing, and may take long: a client that invents positions must not keep
                // others waiting.
                reading = None;
            } else if reading.is_none() {
                reading = Some(channel.reading.lock().await);
                continue;
            }
            let proven = match need {
                Join::Joined(_) => continue,
                Join::Look => {
                    self.look(channel).await;
                    if !channel.has_looked() {
                        // The log may be in trouble: an answer older than the tail tells nothing.
                        sleep(PAUSE).await;
                    }
                    continue;
                }
                Join::Ahead => {
                    let mut fresh = keeper.fresh().await;
                    if fresh.last_seq < position {
                        // Before the client is told that its position does not exist.
                        keeper.assure().await;
                        fresh = keeper.fresh().await;
                    }
                    if fresh.incarnation != life.incarnation {
                        continue;
                    }
                    // Above the leader's last sequence: never proof. Otherwise this tail is whole
                    // below the position, and the guard skips up to it.
                    (fresh.last_seq >= position).then_some(Proven {
                        source: CatchupSource::Log,
                        messages: Vec::new(),
                        covered_to: position,
                    })
                }
                Join::Floor { covered_to } => {
                    let fresh = keeper.fresh().await;
                    if fresh.incarnation != life.incarnation {
                        continue;
                    }
                    if floor_holds(position, fresh.floor) {
                        Some(Proven {
                            source: CatchupSource::Log,
                            messages: Vec::new(),
                            covered_to,
                        })
                    } else {
                        self.ask_peers_of_quiet(
                            &channel.route,
                            keeper,
                            life.incarnation,
                            position,
                            covered_to,
                        )
                        .await
                    }
                }
                Join::Read { target } => {
                    match self
                        .read_proven(
                            &channel.route,
                            keeper,
                            life.incarnation,
                            position,
                            target,
                            u32::MAX,
                        )
                        .await
                    {
                        Ok(proven) => Some(proven),
                        Err(Refused::Unproven(_)) => {
                            self.ask_peers(&channel.route, keeper, life.incarnation, position)
                                .await
                        }
                        Err(Refused::Crowded) => return Err(SubscribeError::TimedOut),
                        Err(Refused::Epoch) => continue,
                    }
                }
            };
            // What the app may not keep is as if it had gone.
            let since_ms = self.given_since_ms(&channel.route, keeper);
            let proven = proven.filter(|proven| !is_withheld(&proven.messages, since_ms));
            if let Some(proven) = &proven {
                proven.count(&self.metrics);
            }
            let Some(proven) = proven else {
                unproven = Some(RecoveryOutcome::Unproven);
                continue;
            };
            let joined = self.with_tail(channel, life, |durable| {
                let ahead = proven.covered_to > durable.tail.whole_to();
                let joined = if ahead && proven.messages.is_empty() && proven.covered_to == position {
                    durable.tail.join_ahead(position, outlet.clone())
                } else {
                    durable
                        .tail
                        .join_read(position, &proven.messages, proven.covered_to, outlet.clone())
                };
                answer(durable, &joined, true, &mut reply);
                (joined.key, joined.behind)
            });
            if let Some((key, behind)) = joined {
                if behind {
                    let kind = CatchupKind::Resume;
                    self.tasks
                        .spawn(super::feeder::feed(self.clone(), channel.clone(), key, kind));
                }
                return Ok((key, Some(RecoveryOutcome::Recovered)));
            }
        }
    }

    /// Joins if nothing has to be asked first.
    fn try_join(
        &self,
        interest: &Interest,
        durable: &mut Durable,
        wanted: &Wanted,
        outlet: &Outlet,
        reply: &mut Option<impl FnOnce(Subscribed<'_>)>,
    ) -> Step {
        durable.ring_used = Instant::now();
        let channel = interest.channel();
        if let Some(keeper) = &channel.keeper {
            let given_since_ms = self.given_since_ms(&channel.route, keeper);
            let oldest_ms = given_since_ms.unwrap_or_else(|| keeper.oldest_ms());
            durable.tail.ring_mut().evict_older(oldest_ms);
        }
        match *wanted {
            Wanted::Fresh { .. } => {
                let joined = durable.tail.join_fresh(outlet.clone());
                answer(durable, &joined, false, reply);
                Step::Joined(joined.key, false)
            }
            Wanted::After(position) => match durable.tail.join_at(position, || outlet.clone()) {
                Join::Joined(joined) => {
                    answer(durable, &joined, true, reply);
                    let from_ring = joined.entries.len() as u64;
                    self.metrics
                        .catchup_publications
                        .of(CatchupSource::Ring)
                        .inc_by(from_ring);
                    Step::Joined(joined.key, joined.behind)
                }
                Join::Look if !durable.tail.is_whole() => Step::Wait,
                need => Step::Need(need, position, durable.life),
            },
        }
    }
}

/// What a client's position asks of this epoch.
fn wanted(position: Option<&Position>, epoch: &Epoch) -> Wanted {
    match position {
        None => Wanted::Fresh { outcome: None },
        // Nothing at all is known to the client: of whatever epoch.
        Some(position) if position.offset == 0 && position.epoch.is_empty() => Wanted::After(0),
        Some(position) if position.epoch != *epoch => Wanted::Fresh {
            outcome: Some(RecoveryOutcome::OtherEpoch),
        },
        Some(position) if position.offset > MAX_OFFSET => Wanted::Fresh {
            outcome: Some(RecoveryOutcome::Unproven),
        },
        Some(position) => Wanted::After(position.offset),
    }
}

/// Whether a client's position is of an epoch that a tail does not know.
fn names_other_epoch(position: Option<&Position>, epoch: &Epoch) -> bool {
    position.is_some_and(|position| !position.epoch.is_empty() && position.epoch != *epoch)
}

fn answer(
    durable: &Durable,
    joined: &Joined,
    recovered: bool,
    reply: &mut Option<impl FnOnce(Subscribed<'_>)>,
) {
    if let Some(reply) = reply.take() {
        let position = Position {
            offset: joined.offset,
            epoch: durable.epoch.clone(),
        };
        reply(Subscribed {
            position: Some(position),
            recovered,
            missed: &joined.entries,
        });
    }
}

impl Subscription {
    /// The channel's route.
    pub fn route(&self) -> &Route {
        self.interest.channel().route()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let channel = self.interest.channel();
        match &mut *channel.body.lock() {
            Body::Durable(durable) => {
                durable.tail.leave(self.key);
            }
            Body::Ephemeral(Ephemeral { cursors, .. }) => {
                cursors.remove(self.key);
            }
            Body::Closed => {}
        }
    }
}
