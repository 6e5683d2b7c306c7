//! A client as an SDK is one: it knows its position, adopts what replies say, resumes when it is told
//! that something is missing, and here also checks every frame against what was really stored.

use std::{sync::Arc, task::Waker, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use slipstream::{
    channel::{Mailbox, MailboxLimits, Notice, Outlet, Resume, SubscribeError, Subscription},
    log::Route,
    model::{ChannelName, Epoch, Offset, Position},
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    reality::{Realities, Reality, Thing},
    script::Claim,
};
use crate::hubs::Node;

const LIMITS: MailboxLimits = MailboxLimits {
    soft: 600,
    hard: 1 << 20,
};

/// A frame as it comes out of the mailbox.
#[derive(Deserialize)]
#[serde(untagged)]
enum Frame {
    Reply {
        tag: u32,
        recovered: bool,
        offset: Offset,
        epoch: String,
        missed: Vec<Published>,
    },
    Push {
        channel: String,
        #[serde(rename = "pub")]
        published: Published,
    },
}

#[derive(Deserialize)]
struct Published {
    offset: Offset,
    data: (u64, String),
}

/// What a client is to one channel.
#[derive(Default)]
pub(crate) struct Place {
    /// Up to where it has everything, and in which epoch.
    pub(crate) position: Option<(Offset, String)>,
    state: State,
    /// It wants to be subscribed.
    pub(crate) wants: bool,
    /// The last subscribe ended without an answer: it tries again, but not at once.
    retry_at: Option<Instant>,
}

#[derive(Default)]
enum State {
    #[default]
    Away,
    Asking(Asking),
    /// The reply is in the mailbox or has been read.
    Live {
        _subscription: Subscription,
        tag: u32,
    },
}

struct Asking {
    outcome: oneshot::Receiver<(Result<Subscription, SubscribeError>, Duration)>,
    claim: Claim,
    claimed: Option<(Offset, String)>,
    tag: u32,
}

/// Counts of what clients were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) recovered: u64,
    pub(crate) unrecovered: u64,
    pub(crate) insufficient: u64,
    pub(crate) timed_out: u64,
    pub(crate) fresh: u64,
    pub(crate) delivered: u64,
}

pub(crate) struct Client {
    pub(crate) places: Vec<Place>,
    pub(crate) slow: bool,
    /// The node it is connected to, by the world's count.
    pub(crate) node: Option<usize>,
    mailbox: Arc<Mailbox>,
    /// Requests whose reply has not been read: by tag.
    claims: Vec<Claimed>,
    next_tag: u32,
    pub(crate) told: Told,
}

/// A request whose reply has not been read.
struct Claimed {
    tag: u32,
    channel: usize,
    claim: Claim,
    position: Option<(Offset, String)>,
}

fn mailbox() -> Arc<Mailbox> {
    let mailbox = Mailbox::held(LIMITS, None);
    mailbox.open(Bytes::new());
    Arc::new(mailbox)
}

impl Client {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            places: (0..channels).map(|_| Place::default()).collect(),
            slow: false,
            node: None,
            mailbox: mailbox(),
            claims: Vec::new(),
            next_tag: 1,
            told: Told::default(),
        }
    }

    pub(crate) fn is_away(&self, channel: usize) -> bool {
        matches!(self.places[channel].state, State::Away)
    }

    pub(crate) fn is_live(&self, channel: usize) -> bool {
        matches!(self.places[channel].state, State::Live { .. })
    }

    pub(crate) fn may_retry(&self, channel: usize) -> bool {
        self.places[channel]
            .retry_at
            .is_none_or(|at| Instant::now() >= at)
    }

    /// The connection breaks: what has not been read is lost.
    pub(crate) fn hang_up(&mut self) {
        self.mailbox.end();
        self.mailbox = mailbox();
        self.claims.clear();
        self.node = None;
        for place in &mut self.places {
            place.state = State::Away;
            place.retry_at = None;
        }
    }

    /// Unsubscribes, if it is subscribed.
    pub(crate) fn leave(&mut self, channel: usize) {
        if self.is_live(channel) {
            self.places[channel].state = State::Away;
            self.places[channel].wants = false;
        }
    }

    pub(crate) fn subscribe(
        &mut self,
        node: &Node,
        route: &Route,
        channel: usize,
        claim: Claim,
        last_seq: Offset,
    ) {
        let place = &mut self.places[channel];
        place.wants = true;
        place.retry_at = None;
        let own = place.position.clone();
        let claimed = match claim {
            Claim::Own => own,
            Claim::Fresh => None,
            Claim::FromZero => Some((0, String::new())),
            Claim::Future => own.map(|(_, epoch)| (last_seq + 1_000, epoch)),
            Claim::NoEpoch => own.map(|(offset, _)| (offset.max(1), String::new())),
        };
        let tag = self.next_tag;
        self.next_tag += 1;
        self.claims.push(Claimed {
            tag,
            channel,
            claim,
            position: claimed.clone(),
        });
        let resume = Resume {
            position: claimed.as_ref().map(|(offset, epoch)| Position {
                offset: *offset,
                epoch: Epoch::new(epoch),
            }),
            reject_unrecovered: false,
        };
        let name: ChannelName = route.key().name.clone();
        let outlet = Outlet::new(self.mailbox.clone(), name, tag);
        let (mailbox, hub, route) = (self.mailbox.clone(), node.hub.clone(), route.clone());
        let (sender, outcome) = oneshot::channel();
        node.tasks.spawn(async move {
            let began = Instant::now();
            let result = hub
                .subscribe(&route, resume, outlet, |subscribed| {
                    let position = subscribed.position.as_ref().unwrap();
                    let missed: Vec<_> = subscribed
                        .missed
                        .iter()
                        .map(|entry| String::from_utf8(entry.body().to_vec()).unwrap())
                        .collect();
                    let reply = format!(
                        r#"{{"tag":{tag},"recovered":{},"offset":{},"epoch":"{}","missed":[{}]}}"#,
                        subscribed.recovered,
                        position.offset,
                        position.epoch,
                        missed.join(",")
                    );
                    mailbox.send(Bytes::from(reply));
                })
                .await;
            let _ = sender.send((result, began.elapsed()));
        });
        place.state = State::Asking(Asking {
            outcome,
            claim,
            claimed,
            tag,
        });
    }

    /// Takes note of subscribes that have ended.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for (channel, place) in self.places.iter_mut().enumerate() {
            let State::Asking(asking) = &mut place.state else {
                continue;
            };
            let (result, took) = match asking.outcome.try_recv() {
                Ok(outcome) => outcome,
                Err(oneshot::error::TryRecvError::Empty) => continue,
                // The node has gone.
                Err(oneshot::error::TryRecvError::Closed) => {
                    place.state = State::Away;
                    continue;
                }
            };
            if took > Duration::from_millis(3_050) {
                return Err(format!("a subscribe of channel {channel} took {took:?}"));
            }
            let tag = asking.tag;
            place.state = match result {
                Ok(subscription) => State::Live {
                    _subscription: subscription,
                    tag,
                },
                Err(SubscribeError::TimedOut) => {
                    self.told.timed_out += 1;
                    self.claims.retain(|claimed| claimed.tag != tag);
                    place.retry_at = Some(Instant::now() + Duration::from_millis(500));
                    State::Away
                }
                Err(error) => {
                    return Err(format!(
                        "{:?} {:?} was refused: {error}",
                        asking.claim, asking.claimed
                    ));
                }
            };
        }
        Ok(())
    }

    /// Reads everything there is.
    pub(crate) fn read(&mut self, truth: &Realities) -> Result<(), String> {
        loop {
            let taken = self.mailbox.take(Waker::noop());
            if taken.frames.is_empty() && taken.notices.is_empty() {
                return Ok(());
            }
            let bytes = taken.frames.iter().map(Bytes::len).sum();
            for frame in taken.frames.iter().filter(|frame| !frame.is_empty()) {
                self.on_frame(frame, truth)?;
            }
            self.mailbox.written(bytes);
            for notice in taken.notices {
                if let Notice::Insufficient { tag, channel } = notice {
                    self.on_insufficient(tag, &channel, truth)?;
                }
            }
            if taken.close.is_some() {
                return Err("the mailbox was closed".into());
            }
        }
    }

    fn on_insufficient(&mut self, tag: u32, name: &ChannelName, truth: &Realities) -> Result<(), String> {
        // The subscribe may have ended in the step before: its outcome is there by now.
        self.settle()?;
        for (channel, place) in self.places.iter_mut().enumerate() {
            if matches!(&place.state, State::Live { tag: of, .. } if *of == tag) {
                place.state = State::Away;
                self.told.insufficient += 1;
                if !truth.of(channel).lossy {
                    return Err(format!("2500 on {name} although nothing is gone"));
                }
            }
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: &[u8], truth: &Realities) -> Result<(), String> {
        let text = String::from_utf8_lossy(frame).into_owned();
        match serde_json::from_slice(frame).map_err(|error| format!("{error}: {text}"))? {
            Frame::Push { channel, published } => {
                let channel: usize = channel[1..].parse().unwrap();
                self.told.delivered += 1;
                self.on_publication(channel, &published, truth.of(channel))
            }
            Frame::Reply {
                tag,
                recovered,
                offset,
                epoch,
                missed,
            } => {
                let at = self.claims.iter().position(|claimed| claimed.tag == tag);
                let Some(at) = at else {
                    return Err(format!("a reply to a request that has failed: {text}"));
                };
                let Claimed {
                    channel,
                    claim,
                    position: claimed,
                    ..
                } = self.claims.remove(at);
                let reality = truth.of(channel);
                self.on_reply(
                    channel, claim, claimed, recovered, offset, &epoch, &missed, reality,
                )
                .map_err(|error| format!("{error}, in {text}"))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one reply")]
    fn on_reply(
        &mut self,
        channel: usize,
        claim: Claim,
        claimed: Option<(Offset, String)>,
        recovered: bool,
        offset: Offset,
        epoch: &str,
        missed: &[Published],
        reality: &Reality,
    ) -> Result<(), String> {
        let dead = reality.is_dead(epoch);
        if !recovered {
            if !missed.is_empty() {
                return Err("publications without recovery".into());
            }
            match &claimed {
                None => self.told.fresh += 1,
                Some(_) => self.told.unrecovered += 1,
            }
            let honest = matches!(claim, Claim::Own | Claim::FromZero);
            if let Some(claimed) = claimed.filter(|_| honest && !reality.lossy) {
                return Err(format!("{claimed:?} was not recovered although nothing is gone"));
            }
            if offset > reality.last && !dead {
                return Err(format!("offset {offset} does not exist"));
            }
            self.places[channel].position = Some((offset, epoch.to_owned()));
            return Ok(());
        }
        self.told.recovered += 1;
        let Some((from, of)) = claimed else {
            return Err("recovered without a position".into());
        };
        if matches!(claim, Claim::Future | Claim::NoEpoch) && !dead && from > reality.last {
            return Err(format!("{claim:?} {from} was recovered"));
        }
        if claim == Claim::NoEpoch || (of != epoch && !(from == 0 && of.is_empty())) {
            return Err(format!("a position of epoch {of:?} was recovered"));
        }
        if offset < from {
            return Err("the reply is below the client's position".into());
        }
        self.places[channel].position = Some((from, epoch.to_owned()));
        for published in missed {
            self.on_publication(channel, published, reality)?;
        }
        if dead {
            self.places[channel].position = Some((offset, epoch.to_owned()));
            return Ok(());
        }
        let position = self.position(channel);
        if offset < position {
            return Err("the reply is below its last publication".into());
        }
        if let Some((skipped, _)) = reality
            .next(channel, position)
            .filter(|(next, _)| *next <= offset)
        {
            return Err(format!("recovered to {offset}, but {skipped} was left out"));
        }
        if offset > reality.last {
            return Err(format!("offset {offset} does not exist"));
        }
        self.places[channel].position = Some((offset, epoch.to_owned()));
        Ok(())
    }

    fn position(&self, channel: usize) -> Offset {
        self.places[channel]
            .position
            .as_ref()
            .map_or(0, |(offset, _)| *offset)
    }

    fn on_publication(
        &mut self,
        channel: usize,
        published: &Published,
        reality: &Reality,
    ) -> Result<(), String> {
        let Some((position, epoch)) = self.places[channel].position.clone() else {
            return Err("a publication before any reply".into());
        };
        let got = published.offset;
        if !reality.is_dead(&epoch) {
            match reality.next(channel, position) {
                Some((next, Thing::Publication { id, .. })) if next == got && *id == published.data.0 => {}
                next => {
                    return Err(format!(
                        "after {position} came {got} (id {}) on channel {channel}, expected {next:?}",
                        published.data.0
                    ));
                }
            }
        }
        self.places[channel].position = Some((got, epoch));
        Ok(())
    }

    /// What is wrong when everything should be well again; `None` if nothing is.
    pub(crate) fn complaint(&self, channel: usize, reality: &Reality) -> Option<String> {
        let place = &self.places[channel];
        if !place.wants {
            return None;
        }
        if !self.is_live(channel) {
            return Some(format!("not subscribed to channel {channel}"));
        }
        let Some((position, epoch)) = &place.position else {
            return Some(format!("no position on channel {channel}"));
        };
        if reality.is_dead(epoch) {
            return Some(format!("still in the dead epoch {epoch} on channel {channel}"));
        }
        let next = reality.next(channel, *position)?;
        Some(format!(
            "has not got {next:?} on channel {channel}, stands at {position}"
        ))
    }
}

impl Told {
    pub(crate) fn add(&mut self, other: &Self) {
        self.recovered += other.recovered;
        self.unrecovered += other.unrecovered;
        self.insufficient += other.insufficient;
        self.timed_out += other.timed_out;
        self.fresh += other.fresh;
        self.delivered += other.delivered;
    }
}
