//! What tails of other nodes vouch for (L8), and what nodes tell each other of lost copies (L11).
//!
//! Messages come from other nodes of the same deployment, but are read as if they could be
//! anything: what cannot be understood is ignored.

pub(super) mod asking;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    log::{Route, hear},
    model::{AppId, ChannelKey, ChannelName, ClassName, Epoch, Offset},
    telemetry::CatchupSource,
};

use super::{
    entry::{Entry, Message},
    hub::{Body, Channel, Hub},
    keeper::Keeper,
    reader::Proven,
    recovery::floor_holds,
    tail::Need,
};

const VOUCH: &str = "vouch";
const NUDGE: &str = "nudge";

/// A channel as nodes name it to each other.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    app: String,
    channel: String,
    class: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    place: Place,
    epoch: String,
    position: Offset,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Which of the questions in the message it answers.
    question: u32,
    covered_to: Offset,
    publications: Vec<Vouched>,
}

/// A publication as its tail has it: already in the form that every dialect embeds.
#[derive(Debug, Serialize, Deserialize)]
struct Vouched {
    offset: Offset,
    time_ms: i64,
    body: Box<serde_json::value::RawValue>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Nudge {
    place: Place,
    epoch: String,
    offset: Offset,
}

/// Answers other nodes until the node stops.
pub(super) async fn run(hub: Arc<Hub>) {
    let questions = hear(&*hub.log, VOUCH, |message| {
        let questions = serde_json::from_slice::<Vec<Question>>(&message.data);
        let (Ok(questions), Some(reply)) = (questions, &message.reply) else {
            return;
        };
        for (number, question) in (0..).zip(&questions) {
            if let Some(answer) = hub.vouch(number, question) {
                hub.log.answer(reply, answer);
            }
        }
    });
    let nudges = hear(&*hub.log, NUDGE, |message| {
        if let Ok(nudge) = serde_json::from_slice::<Nudge>(&message.data) {
            hub.on_nudge(&nudge);
        }
    });
    tokio::join!(questions, nudges, asking::run(hub.clone()));
}

impl Place {
    fn of(hub: &Hub, route: &Route) -> Option<Self> {
        let class = hub.keeper(route.shard()?)?.spec().class.to_string();
        let key = route.key();
        Some(Self {
            app: key.app.to_string(),
            channel: key.name.to_string(),
            class,
        })
    }

    fn channel(&self, hub: &Hub) -> Option<Arc<Channel>> {
        let key = ChannelKey {
            app: AppId::new(&self.app).ok()?,
            name: ChannelName::new(&self.channel).ok()?,
        };
        hub.channel_of(&hub.log.route(&key, Some(&ClassName::new(&self.class)?))?)
    }
}

impl Hub {
    /// Asks the other nodes once whether a tail of theirs vouches for `position`, of `incarnation`.
    pub(super) async fn ask_peers(
        &self,
        route: &Route,
        keeper: &Keeper,
        incarnation: u64,
        position: Offset,
    ) -> Option<Proven> {
        self.ask_peers_for(route, keeper, incarnation, position, position)
            .await
    }

    /// The same for a tail that stands at `position` itself, and has to get beyond it. Its own node
    /// hears the question, too, and others may stand there as well: they answer, but with nothing.
    pub(super) async fn ask_peers_beyond(
        &self,
        route: &Route,
        keeper: &Keeper,
        incarnation: u64,
        position: Offset,
    ) -> Option<Proven> {
        self.ask_peers_for(route, keeper, incarnation, position, position + 1)
            .await
    }

    /// Answers that cover less than `at_least` do not count.
    async fn ask_peers_for(
        &self,
        route: &Route,
        keeper: &Keeper,
        incarnation: u64,
        position: Offset,
        at_least: Offset,
    ) -> Option<Proven> {
        let place = Place::of(self, route)?;
        let epoch = keeper.epoch().filter(|_| keeper.incarnation() == incarnation)?;
        let question = Question {
            place,
            epoch: epoch.to_string(),
            position,
        };
        let best = self.asking.ask(question, at_least).await?;
        let mut messages = Vec::with_capacity(best.publications.len());
        let mut last = position;
        for vouched in best.publications {
            if vouched.offset <= last || vouched.offset > best.covered_to {
                return None;
            }
            last = vouched.offset;
            let body = vouched.body.get().as_bytes();
            let entry = (self.encoder.body)(&route.key().name, vouched.offset, vouched.time_ms, body);
            messages.push(Message::Publication(entry));
        }
        keeper.saw(best.covered_to, incarnation);
        Some(Proven {
            source: CatchupSource::Peer,
            messages,
            covered_to: best.covered_to,
        })
    }

    /// The same where nothing is stored after `position`, as this node's tail knows up to `reach`.
    /// The tail that vouches may not have looked so far yet. A floor learnt after its answer proves
    /// the rest: nothing has been taken away there. So the client's place, and what this tail can
    /// vouch for next, is its own watermark.
    pub(super) async fn ask_peers_of_quiet(
        &self,
        route: &Route,
        keeper: &Keeper,
        incarnation: u64,
        position: Offset,
        reach: Offset,
    ) -> Option<Proven> {
        let mut proven = self.ask_peers(route, keeper, incarnation, position).await?;
        if proven.covered_to < reach {
            let fresh = keeper.fresh().await;
            if fresh.incarnation == incarnation && floor_holds(proven.covered_to, fresh.floor) {
                proven.covered_to = reach;
            }
        }
        Some(proven)
    }

    /// Tells all nodes of a message whose live copy may not have been sent (L11).
    pub(super) fn nudge_all(&self, route: &Route, epoch: &Epoch, offset: Offset) {
        let Some(place) = Place::of(self, route) else {
            return;
        };
        let nudge = Nudge {
            place,
            epoch: epoch.to_string(),
            offset,
        };
        if let Ok(data) = serde_json::to_vec(&nudge) {
            self.log.tell(NUDGE, data.into());
        }
    }

    fn on_nudge(self: &Arc<Self>, nudge: &Nudge) {
        let Some(channel) = nudge.place.channel(self) else {
            return;
        };
        let mut body = channel.body.lock();
        let Body::Durable(durable) = &mut *body else {
            return;
        };
        if !durable.tail.has_begun() || durable.epoch.as_str() != nudge.epoch {
            return;
        }
        if let Some(keeper) = &channel.keeper {
            keeper.saw(nudge.offset, durable.life.incarnation);
        }
        durable.tail.on_nudge(nudge.offset);
        let gap = durable.tail.need() != Need::Nothing && !durable.closing_gap;
        durable.closing_gap |= gap;
        drop(body);
        if gap {
            self.tasks.spawn(super::gap::close(self.clone(), channel));
        }
    }

    fn vouch(&self, number: u32, question: &Question) -> Option<Bytes> {
        let channel = question.place.channel(self)?;
        let (entries, covered_to) = {
            let mut body = channel.body.lock();
            let Body::Durable(durable) = &mut *body else {
                return None;
            };
            if durable.epoch.as_str() != question.epoch {
                return None;
            }
            if let Some(keeper) = &channel.keeper {
                durable.tail.ring_mut().evict_older(keeper.oldest_ms());
            }
            durable.tail.vouch(question.position)?
        };
        let publications = entries
            .iter()
            .map(|entry| vouched(entry))
            .collect::<Option<_>>()?;
        serde_json::to_vec(&Answer {
            question: number,
            covered_to,
            publications,
        })
        .ok()
        .map(Bytes::from)
    }
}

fn vouched(entry: &Entry) -> Option<Vouched> {
    let body = serde_json::from_slice(&entry.body()).ok()?;
    Some(Vouched {
        offset: entry.offset,
        time_ms: entry.time_ms,
        body,
    })
}
