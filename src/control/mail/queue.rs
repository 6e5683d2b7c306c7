use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Letter, MailError, Mailer};
use crate::{
    config::MailConfig,
    telemetry::{MailOutcome, Metrics},
};

/// When a letter is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retries {
    tries: u32,
    first: Duration,
    max: Duration,
}

impl Retries {
    /// The pause after so many tries, of which there is at least one. `None`: it is given up.
    fn pause(self, tries: u32) -> Option<Duration> {
        let doublings = tries.saturating_sub(1);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        (tries < self.tries).then(|| self.first.saturating_mul(factor).min(self.max))
    }
}

/// Letters on their way. At most `capacity` are waiting to be tried again; while they are, none is taken from
/// the channel, which then fills up.
pub(super) struct Queue {
    mailer: Arc<dyn Mailer>,
    retries: Retries,
    capacity: usize,
    metrics: Arc<Metrics>,
    receiver: mpsc::Receiver<Letter>,
    /// By when they are due, and a number that no other has; with how often they were tried.
    later: BTreeMap<(Instant, u64), (Letter, u32)>,
    number: u64,
}

impl Queue {
    pub(super) fn new(
        mailer: Arc<dyn Mailer>,
        config: &MailConfig,
        metrics: Arc<Metrics>,
        receiver: mpsc::Receiver<Letter>,
    ) -> Self {
        Self {
            mailer,
            retries: Retries {
                tries: config.tries,
                first: config.retry_first,
                max: config.retry_max,
            },
            capacity: config.queue,
            metrics,
            receiver,
            later: BTreeMap::new(),
            number: 0,
        }
    }

    /// Until all senders are gone and nothing waits.
    pub(super) async fn run(mut self) {
        let mut open = true;
        while open || !self.later.is_empty() {
            let due = self.later.first_key_value().map(|((due, _), _)| *due);
            let takes = open && self.later.len() < self.capacity;
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, (letter, tries))) = self.later.pop_first() {
                        self.send(letter, tries).await;
                    }
                }
                letter = self.receiver.recv(), if takes => match letter {
                    Some(letter) => self.send(letter, 0).await,
                    None => open = false,
                },
            }
            let waiting = self.later.len() + self.receiver.len();
            self.metrics
                .mail_waiting
                .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }

    async fn send(&mut self, letter: Letter, tries: u32) {
        let outcome = match self.mailer.send(&letter).await {
            Ok(()) => MailOutcome::Sent,
            Err(MailError::Permanent(why)) => {
                tracing::warn!(%why, subject = letter.subject, "a letter was refused for good");
                MailOutcome::Refused
            }
            Err(MailError::Temporary(why)) => match self.retries.pause(tries + 1) {
                Some(pause) => {
                    tracing::info!(%why, ?pause, subject = letter.subject, "a letter is tried again later");
                    self.number += 1;
                    let key = (Instant::now() + pause, self.number);
                    self.later.insert(key, (letter, tries + 1));
                    MailOutcome::Delayed
                }
                None => {
                    tracing::warn!(%why, subject = letter.subject, "a letter was tried too often");
                    MailOutcome::GivenUp
                }
            },
        };
        self.metrics.mails.of(outcome).inc();
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::{
        config::{Config, Secret, Sources},
        control::mail::Mail,
        store::BoxFuture,
        task::Tasks,
    };

    #[test]
    fn pauses_double_until_it_is_given_up() {
        let retries = Retries {
            tries: 6,
            first: Duration::from_secs(5),
            max: Duration::from_secs(30),
        };
        let pauses: Vec<_> = (1..=6)
            .map(|tries| retries.pause(tries).map(|it| it.as_secs()))
            .collect();
        assert_eq!(pauses, [Some(5), Some(10), Some(20), Some(30), Some(30), None]);
    }

    /// Fails as often as a letter's subject says, for good with "never".
    #[derive(Default)]
    struct Moody(Mutex<Vec<(String, u64)>>);

    impl Mailer for Moody {
        fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), MailError>> {
            Box::pin(async {
                let mut tried = self.0.lock();
                let now = Instant::now().elapsed().as_secs();
                let before = tried
                    .iter()
                    .filter(|(subject, _)| *subject == letter.subject)
                    .count();
                tried.push((letter.subject.clone(), now));
                match letter.subject.parse::<usize>() {
                    Err(_) => Err(MailError::Permanent("never".into())),
                    Ok(failures) if before < failures => Err(MailError::Temporary("later".into())),
                    Ok(_) => Ok(()),
                }
            })
        }
    }

    fn letter(subject: &str) -> Letter {
        Letter {
            to: "a@b.example".into(),
            subject: subject.into(),
            text: Secret::new("x"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_tried_again_and_holds_up_nobody() {
        let mut config = Config::load(&Sources::default()).unwrap().mail;
        (config.queue, config.tries) = (4, 3);
        let (mailer, metrics, tasks) = (
            Arc::new(Moody::default()),
            Arc::new(Metrics::new()),
            Tasks::default(),
        );
        let mail = Mail::with(mailer.clone(), &config, metrics.clone(), &tasks);
        for subject in ["9", "1", "never", "0"] {
            mail.place().unwrap().send(letter(subject));
        }
        assert_eq!(mail.place().err(), Some(crate::control::ControlError::Busy));
        drop(mail);
        tasks.finished().await;
        let tried: Vec<_> = mailer
            .0
            .lock()
            .iter()
            .map(|(subject, _)| subject.clone())
            .collect();
        assert_eq!(tried, ["9", "1", "never", "0", "9", "1", "9"]);
        let count = |outcome| metrics.mails.of(outcome).get();
        assert_eq!(count(MailOutcome::Sent), 2);
        assert_eq!(count(MailOutcome::Delayed), 3);
        assert_eq!((count(MailOutcome::GivenUp), count(MailOutcome::Refused)), (1, 1));
    }

    #[tokio::test]
    async fn without_a_transport_nothing_can_be_sent() {
        let config = Config::load(&Sources::default()).unwrap().mail;
        let mail = Mail::start(&config, Arc::new(Metrics::new()), &Tasks::default()).unwrap();
        let error = mail.place().err().unwrap();
        assert_eq!(error.code(), "not_configured");
    }
}
