//! Commands to users, on this node and all others.

use std::{fmt, sync::Arc};

use tokio::sync::Semaphore;

use super::{
    deliver::order,
    index::Index,
    wire::{Action, Answer, Request},
};
use crate::{
    cluster::Nodes,
    config::UsersConfig,
    log::{Log, NodeMessage, hear},
    model::NodeId,
    task::Tasks,
    telemetry::{Limit, Metrics, UserCommand},
};

/// What nodes listen on.
const TOPIC: &str = "users";

/// See the module's documentation.
pub struct Users {
    index: Arc<Index>,
    nodes: Arc<Nodes>,
    log: Arc<dyn Log>,
    max_waiting: usize,
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

/// What a command came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To how many connections it was done, on the nodes that answered.
    pub connections: u64,
    /// The nodes that did not answer: it was done there or not.
    pub missing: Vec<NodeId>,
}

/// As many commands are under way as may be; nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many commands to users at once")]
pub struct Crowded;

impl Users {
    /// Does what other nodes ask from now on.
    pub fn start(
        log: Arc<dyn Log>,
        nodes: Arc<Nodes>,
        index: Arc<Index>,
        config: &UsersConfig,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let users = Arc::new(Self {
            index,
            nodes,
            log,
            turns: Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS)),
            max_waiting: config.max_waiting,
            metrics,
        });
        tasks.spawn(users.clone().listen());
        users
    }

    /// The connections of this node.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Does it to the user's connections on all nodes. When this resolves, every connection that was
    /// there before has been told, on the nodes that are not missing.
    ///
    /// # Errors
    ///
    /// [`Crowded`].
    pub async fn command(&self, request: Request) -> Result<Outcome, Crowded> {
        let _turn = self.turns.try_acquire().map_err(|_| Crowded)?;
        self.metrics.user_commands.of(kind(&request.action)).inc();
        let mut connections = self.do_here(&request) as u64;
        let wait = self.nodes.ask_timeout();
        let answers = self.nodes.ask_all(TOPIC, request.encode(), wait).await;
        let mut missing = answers.missing;
        for (node, data) in answers.answers {
            match Answer::decode(&data) {
                Some(answer) => connections += u64::from(answer.connections),
                None => {
                    self.metrics.user_messages_unreadable.inc();
                    missing.push(node);
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        self.metrics.user_commands_unanswered.inc_by(missing.len() as u64);
        Ok(Outcome { connections, missing })
    }

    /// Tells the connections of this node that are meant; how many these are.
    fn do_here(&self, request: &Request) -> usize {
        let mut local = self.index.local(&request.app, &request.user);
        local.retain(|connection| request.means(&connection.client));
        if let Some(order) = order(&request.action) {
            local.retain(|connection| {
                let taken = connection.mailbox.order(order.clone(), self.max_waiting);
                if !taken && !connection.mailbox.closing() {
                    let app = self.metrics.app(&request.app);
                    app.limits_hit.of(Limit::UserWaiting).inc();
                }
                taken
            });
        }
        local.len()
    }

    async fn listen(self: Arc<Self>) {
        hear(&*self.log, TOPIC, |message| self.on_message(message)).await;
    }

    fn on_message(&self, message: &NodeMessage) {
        if message.from == self.log.node() {
            return;
        }
        let Some(request) = Request::decode(&message.data) else {
            // Not answered: that node counts this one among those that did not do it.
            self.metrics.user_messages_unreadable.inc();
            return;
        };
        let done = Answer::new(self.do_here(&request));
        if let Some(reply) = &message.reply {
            self.log.answer(reply, done.encode());
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

fn kind(action: &Action) -> UserCommand {
    match action {
        Action::Disconnect { .. } => UserCommand::Disconnect,
        Action::Unsubscribe { .. } => UserCommand::Unsubscribe,
        Action::Subscribe(_) => UserCommand::Subscribe,
        Action::Refresh { .. } => UserCommand::Refresh,
        Action::Message { .. } => UserCommand::Message,
        Action::Online => UserCommand::Online,
    }
}
