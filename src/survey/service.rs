//! Asks all nodes what they have of an app, and answers others.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::Semaphore, time::sleep};

use super::{
    merge::{ChannelsPage, NodesPage, Told, merge},
    wire::{self, About, Channels, Question, Tally},
};
use crate::{
    channel::Hub,
    cluster::{Answers, Nodes},
    log::{Log, NodeMessage},
    model::{AppId, NodeId},
    task::Tasks,
    telemetry::Metrics,
    users::Index,
};

/// What nodes listen on.
const TOPIC: &str = "survey";
/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_millis(200);
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
    turns: Semaphore,
}

/// As many questions are under way as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many questions for channels and nodes at once")]
pub struct Crowded;

impl Survey {
    /// Answers other nodes from now on. At most `max_in_flight` questions of its own are under way.
    pub fn start(
        log: Arc<dyn Log>,
        nodes: Arc<Nodes>,
        (hub, index): (Arc<Hub>, Arc<Index>),
        max_in_flight: usize,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let survey = Arc::new(Self {
            hub,
            index,
            nodes,
            log,
            metrics,
            turns: Semaphore::new(max_in_flight.min(Semaphore::MAX_PERMITS)),
        });
        tasks.spawn(survey.clone().listen());
        survey
    }

    /// The channels of an app behind `after` that begin with `prefix` and have subscribers: at most
    /// `limit`, or fewer though there are more ([`ChannelsPage::next`]).
    ///
    /// # Errors
    ///
    /// [`Crowded`].
    pub async fn channels(
        &self,
        app: &AppId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ChannelsPage, Crowded> {
        let limit = limit.min(MAX_CHANNELS);
        let (here, answers) = self
            .ask(Question {
                app: app.clone(),
                about: About::Channels {
                    prefix: prefix.to_owned(),
                    after: after.map(ToOwned::to_owned),
                    limit,
                },
            })
            .await?;
        let mut missing = answers.missing;
        let mut told = Vec::new();
        for (node, data) in std::iter::once((self.log.node(), here)).chain(answers.answers) {
            let channels = wire::decode::<Channels>(&data);
            let more = channels.as_ref().is_some_and(|channels| channels.more);
            match channels.and_then(Channels::named) {
                Some(channels) => told.push(Told { channels, more }),
                None => missing.push(self.unreadable(node)),
            }
        }
        missing.sort_unstable();
        Ok(merge(told, limit, missing))
    }

    /// All nodes, and what each has of an app.
    ///
    /// # Errors
    ///
    /// [`Crowded`].
    pub async fn nodes(&self, app: &AppId) -> Result<NodesPage, Crowded> {
        let question = Question {
            app: app.clone(),
            about: About::Tally,
        };
        let (here, answers) = self.ask(question).await?;
        let mut tallies = Vec::new();
        for (node, data) in std::iter::once((self.log.node(), here)).chain(answers.answers) {
            match wire::decode::<Tally>(&data) {
                Some(tally) => tallies.push((node, tally)),
                None => {
                    self.unreadable(node);
                }
            }
        }
        let tally = |id| {
            tallies
                .iter()
                .find(|(node, _)| *node == id)
                .map(|(_, tally)| *tally)
        };
        let nodes = self.nodes.live().into_iter();
        let nodes = nodes.map(|node| (node.clone(), tally(node.id))).collect();
        Ok(NodesPage { nodes })
    }

    /// What this node and the others say.
    async fn ask(&self, question: Question) -> Result<(Bytes, Answers), Crowded> {
        let _turn = self.turns.try_acquire().map_err(|_| Crowded)?;
        let here = self.answer(&question);
        let wait = self.nodes.ask_timeout();
        let answers = self.nodes.ask_all(TOPIC, wire::encode(&question), wait).await;
        self.metrics
            .survey_unanswered
            .inc_by(answers.missing.len() as u64);
        Ok((here, answers))
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
        loop {
            if let Ok(mut messages) = self.log.listen(TOPIC).await {
                while let Some(message) = poll_fn(|cx| messages.poll_next(cx)).await {
                    self.on_message(&message);
                }
            }
            sleep(PAUSE).await;
        }
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
