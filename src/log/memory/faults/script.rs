//! How faults are kept until they act: scripts of what happens next, and gates for what waits.

use tokio::sync::oneshot;

use super::{NodeIndex, Request, Target};
use crate::{
    log::{PublishError, ReadError},
    model::ChannelKey,
};

/// The most answers that wait at once; one more, and the oldest is lost.
const MAX_WAITING: usize = 10_000;

/// What happens to a live copy.
#[derive(Clone, Debug)]
pub(in crate::log::memory) enum CopyFault {
    Drop,
    Repeat,
    Hold,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub(in crate::log::memory) enum RequestFault {
    Fail(Request, ReadError),
    Hold(Request),
}

impl RequestFault {
    pub(in crate::log::memory) fn request(&self) -> Request {
        match self {
            Self::Fail(request, _) | Self::Hold(request) => *request,
        }
    }
}

/// What happens to a publish.
#[derive(Clone, Debug)]
pub(in crate::log::memory) enum PublishFault {
    /// Nothing is stored.
    Refuse(PublishError),
    /// Stored and sent out; no acknowledgement.
    LoseAck,
    /// Stored; neither sent out nor acknowledged.
    Crash,
    /// Stored and sent out; the acknowledgement waits.
    Hold,
}

/// Faults to come, oldest first.
pub(in crate::log::memory) struct Script<F>(Vec<Entry<F>>);

struct Entry<F> {
    target: Target,
    fault: F,
    /// How often it still acts; `u32::MAX` = until it is cancelled.
    left: u32,
}

impl<F> Default for Script<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F: Clone> Script<F> {
    pub(in crate::log::memory) fn add(&mut self, target: Target, fault: F, count: u32) {
        if count > 0 {
            let left = count;
            self.0.push(Entry { target, fault, left });
        }
    }

    /// The fault that acts now, if one does.
    pub(in crate::log::memory) fn next(
        &mut self,
        node: NodeIndex,
        key: Option<&ChannelKey>,
        applies: impl Fn(&F) -> bool,
    ) -> Option<F> {
        let hit = |entry: &Entry<F>| entry.target.hits(node, key) && applies(&entry.fault);
        let at = self.0.iter().position(hit)?;
        let entry = &mut self.0[at];
        let fault = entry.fault.clone();
        if entry.left != u32::MAX {
            entry.left -= 1;
        }
        if entry.left == 0 {
            self.0.remove(at);
        }
        Some(fault)
    }

    pub(in crate::log::memory) fn cancel(&mut self, which: impl Fn(&F) -> bool) {
        self.0.retain(|entry| !which(&entry.fault));
    }
}

/// What an answer passes on its way.
pub(in crate::log::memory) struct Gate(State);

enum State {
    Open,
    Lost,
    Closed(oneshot::Receiver<()>),
}

impl Gate {
    pub(in crate::log::memory) fn open() -> Self {
        Self(State::Open)
    }

    pub(in crate::log::memory) fn lost() -> Self {
        Self(State::Lost)
    }

    /// Waits until the gate opens; `None` if it never will.
    pub(in crate::log::memory) async fn opened(self) -> Option<()> {
        match self.0 {
            State::Open => Some(()),
            State::Lost => None,
            State::Closed(opened) => opened.await.ok(),
        }
    }
}

/// The closed gates.
#[derive(Default)]
pub(in crate::log::memory) struct Gates(Vec<(NodeIndex, oneshot::Sender<()>)>);

impl Gates {
    pub(in crate::log::memory) fn close(&mut self, node: NodeIndex) -> Gate {
        self.0.retain(|(_, gate)| !gate.is_closed());
        if self.0.len() == MAX_WAITING {
            self.0.remove(0);
        }
        let (gate, opened) = oneshot::channel();
        self.0.push((node, gate));
        Gate(State::Closed(opened))
    }

    pub(in crate::log::memory) fn open_all(&mut self) {
        for (_, gate) in self.0.drain(..) {
            // Nobody waits any more if this fails.
            let _ = gate.send(());
        }
    }

    /// Loses what waits for a node.
    pub(in crate::log::memory) fn lose(&mut self, node: NodeIndex) {
        self.0.retain(|(waiting, _)| *waiting != node);
    }
}
