//! Letters to people: what they say, and how they leave.
//!
//! Letters wait in memory, and are lost when the node ends: whoever waits for one asks again.

use std::{fmt, sync::Arc};

use tokio::sync::mpsc;

use super::error::ControlError;
use crate::{
    config::{MailConfig, MailTransport, Secret},
    store::BoxFuture,
    task::Tasks,
    telemetry::Metrics,
};

mod file;
mod queue;
mod smtp;
mod text;

pub use file::FileMailer;
pub use smtp::{SmtpError, SmtpMailer};
pub(super) use text::{Letters, Purpose};

/// A letter.
#[derive(Clone)]
pub struct Letter {
    /// The address that it goes to.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// Its text. It may hold a link that is as good as a password.
    pub text: Secret,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// Why a letter did not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// It may later.
    #[error("{0}")]
    Temporary(String),
    /// It never will.
    #[error("{0}")]
    Permanent(String),
}

/// How letters leave.
pub trait Mailer: Send + Sync + 'static {
    /// Hands a letter over.
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), MailError>>;
}

/// The queue in front of a [`Mailer`].
#[derive(Clone)]
pub struct Mail(Option<mpsc::Sender<Letter>>);

/// A place in the queue.
pub(super) struct Place(mpsc::OwnedPermit<Letter>);

impl Place {
    /// Puts the letter there.
    pub(super) fn send(self, letter: Letter) {
        self.0.send(letter);
    }
}

impl Mail {
    /// Sends with what `config` names.
    ///
    /// # Errors
    ///
    /// If it cannot be used.
    pub fn start(config: &MailConfig, metrics: Arc<Metrics>, tasks: &Tasks) -> Result<Self, SmtpError> {
        let mailer: Arc<dyn Mailer> = match config.transport {
            MailTransport::None => return Ok(Self(None)),
            MailTransport::File => {
                let folder = config.folder.clone().unwrap_or_default();
                Arc::new(FileMailer::new(folder, &config.from, tasks.clone()))
            }
            MailTransport::Smtp => Arc::new(SmtpMailer::new(config)?),
        };
        Ok(Self::with(mailer, config, metrics, tasks))
    }

    /// Sends with `mailer`: one letter after the other, those that failed again later.
    pub fn with(mailer: Arc<dyn Mailer>, config: &MailConfig, metrics: Arc<Metrics>, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(config.queue);
        let queue = queue::Queue::new(mailer, config, metrics, receiver);
        tasks.spawn(queue.run());
        Self(Some(sender))
    }

    /// A place for a letter: taken before it is known whether there will be one, so that who asks cannot
    /// tell from the answer.
    ///
    /// # Errors
    ///
    /// `busy`, or `not_configured`.
    pub(super) fn place(&self) -> Result<Place, ControlError> {
        let sender = self
            .0
            .clone()
            .ok_or(ControlError::NotConfigured("mail.transport"))?;
        sender
            .try_reserve_owned()
            .map(Place)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ControlError::Busy,
                mpsc::error::TrySendError::Closed(_) => ControlError::Unavailable,
            })
    }
}
