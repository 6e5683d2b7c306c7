//! Asks all nodes what they have of an app, and answers others.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    merge::{ChannelsPage, NodesPage, Told, merge},
    wire::{self, About, Channels, Question, Tally},
};
use crate::{
    channel::Hub,
    cluster::{Answers, Nodes},
    limits::Places,
    log::{Log, NodeMessage, hear},
    model::{AppId, NodeId},
    task::Tasks,
    telemetry::Metrics,
    users::Index,
};

/// What nodes listen on.
const TOPIC: &str = "survey";
/// Names in one answer, in bytes: far below what NATS takes by default, however they are escaped.
const ANSWER_BYTES: usize = 128 * 1024;
/// The most channels in one answer: no page has more.
const MAX_CHANNELS: usize = 10_000;

/// See the module's documentation.
pub struct Survey {
    hub: Arc<Hub>,
    index: Arc<Index>,
    nodes: Arc<Nodes>,
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    /// Turns taken, of all apps and of each.
    turns: Mutex<(usize, Places<AppId>)>,
    most: usize,
    most_of_app: usize,
}

/// A place among the questions that are under way, for one app.
#[derive(Debug)]
pub struct Turn<'a> {
    survey: &'a Survey,
    app: AppId,
}

/// As many questions are under way as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many questions for channels and nodes at once")]
pub struct Crowded;

impl Survey {
    /// Answers other nodes from now on. At most `most` questions of its own are under way, and
    /// `most_of_app` of one app.
    pub fn start(
        log: Arc<dyn Log>,
        nodes: Arc<Nodes>,
        (hub, index): (Arc<Hub>, Arc<Index>),
        (most, most_of_app): (usize, usize),
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let survey = Arc::new(Self {
            hub,
            index,
            nodes,
            log,
            metrics,
            turns: Mutex::default(),
            most,
            most_of_app,
        });
        tasks.spawn(survey.clone().listen());
        survey
    }

    /// A turn to ask about an app, once or page by page.
    ///
    /// # Errors
    ///
    /// [`Crowded`].
    pub fn turn(&self, app: &AppId) -> Result<Turn<'_>, Crowded> {
        let mut turns = self.turns.lock();
        if turns.0 >= self.most
            || !turns
                .1
                .take(app.clone(), u32::try_from(self.most_of_app).unwrap_or(u32::MAX))
        {
            return Err(Crowded);
        }
        turns.0 += 1;
        Ok(Turn {
            survey: self,
            app: app.clone(),
        })
    }
}

impl Turn<'_> {
    /// The channels behind `after` that begin with `prefix` and have subscribers: at most `limit`, or fewer
    /// though there are more ([`ChannelsPage::next`]).
    pub async fn channels(&self, prefix: &str, after: Option<&str>, limit: usize) -> ChannelsPage {
        let limit = limit.min(MAX_CHANNELS);
        let survey = self.survey;
        let question = Question {
            app: self.app.clone(),
            about: About::Channels {
                prefix: prefix.to_owned(),
                after: after.map(ToOwned::to_owned),
                limit,
            },
        };
        let (here, answers) = survey.ask(question).await;
        let mut missing = answers.missing;
        let mut told = Vec::new();
        for (node, data) in std::iter::once((survey.log.node(), here)).chain(answers.answers) {
            let channels = wire::decode::<Channels>(&data);
            let more = channels.as_ref().is_some_and(|channels| channels.more);
            match channels.and_then(Channels::named) {
                Some(channels) => told.push(Told { channels, more }),
                None => missing.push(survey.unreadable(node)),
            }
        }
        missing.sort_unstable();
        merge(told, limit, missing)
    }

    /// All nodes, and what each has of the app.
    pub async fn nodes(&self) -> NodesPage {
        let survey = self.survey;
        let question = Question {
            app: self.app.clone(),
            about: About::Tally,
        };
        // Those that are asked: who comes meanwhile has not been.
        let nodes = survey.nodes.live();
        let (here, answers) = survey.ask(question).await;
        let mut tallies = HashMap::new();
        for (node, data) in std::iter::once((survey.log.node(), here)).chain(answers.answers) {
            match wire::decode::<Tally>(&data) {
                Some(tally) => {
                    tallies.insert(node, tally);
                }
                None => {
                    survey.unreadable(node);
                }
            }
        }
        let nodes = nodes.into_iter();
        NodesPage {
            nodes: nodes
                .map(|node| {
                    let tally = tallies.get(&node.id).copied();
                    (node, tally)
                })
                .collect(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.survey.turns.lock();
        turns.0 -= 1;
        turns.1.give_back(&self.app);
    }
}

impl Survey {
    /// What this node and the others say.
    async fn ask(&self, question: Question) -> (Bytes, Answers) {
        let here = self.answer(&question);
        let wait = self.nodes.ask_timeout();
        let answers = self.nodes.ask_all(TOPIC, wire::encode(&question), wait).await;
        self.metrics
            .survey_unanswered
            .inc_by(answers.missing.len() as u64);
        (here, answers)
    }

    fn unreadable(&self, node: NodeId) -> NodeId {
        self.metrics.survey_unanswered.inc();
        node
    }

    fn answer(&self, Question { app, about }: &Question) -> Bytes {
        match about {
            About::Channels { prefix, after, limit } => {
                let limit = (*limit).min(MAX_CHANNELS);
                let listing = self
                    .hub
                    .subscribed(app, prefix, after.as_deref(), limit, ANSWER_BYTES);
                let channels = listing.channels.into_iter();
                wire::encode(&Channels {
                    channels: channels
                        .map(|(name, count)| (name.to_string(), count as u64))
                        .collect(),
                    more: listing.more,
                })
            }
            About::Tally => {
                let app_metrics = self.metrics.app(app);
                let count = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
                wire::encode(&Tally {
                    connections: count(app_metrics.connections.get()),
                    users: self.index.users_of(app) as u64,
                    subscriptions: count(app_metrics.subscriptions.get()),
                    channels: count(app_metrics.tails.get()),
                })
            }
        }
    }

    async fn listen(self: Arc<Self>) {
        hear(&*self.log, TOPIC, |message| self.on_message(message)).await;
    }

    fn on_message(&self, message: &NodeMessage) {
        if message.from == self.log.node() {
            return;
        }
        // What cannot be read is not answered: that node counts this one among those that did not.
        if let (Some(question), Some(reply)) = (wire::decode::<Question>(&message.data), &message.reply) {
            self.log.answer(reply, self.answer(&question));
        }
    }
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").finish_non_exhaustive()
    }
}
