//! Publishing a lot, acknowledged, with nobody measuring how fast.

use std::{ops::Range, time::Instant};

use super::{
    BenchError,
    args::Over,
    engine::{ConnId, Engine, Event, Setup},
};

/// Handed to each publishing connection at once: the next is ready when one is answered.
const WINDOW_EACH: usize = 16;

/// Publishing connections and the channels they publish to.
pub(crate) struct Bulk {
    engine: Engine,
    events: Vec<Event>,
    publishers: Vec<ConnId>,
    channels: usize,
    patience: std::time::Duration,
}

impl Bulk {
    /// Connects `publishers` of them.
    pub(crate) fn connect(
        setup: Setup,
        channels: Vec<String>,
        publishers: u32,
        over: Over,
    ) -> Result<Self, BenchError> {
        let (count, patience) = (channels.len(), setup.patience);
        let mut engine = Engine::new(setup, channels)?;
        let publishers = (0..publishers).map(|_| engine.publisher(over)).collect();
        let mut events = Vec::new();
        engine.connect_all(&mut events)?;
        Ok(Self {
            engine,
            events,
            publishers,
            channels: count,
            patience,
        })
    }

    /// Publishes these numbers, in order, on every channel, and waits for all acknowledgements.
    pub(crate) fn publish(&mut self, numbers: Range<u32>) -> Result<(), BenchError> {
        let window = WINDOW_EACH * self.publishers.len();
        let total = self.channels * numbers.len();
        let mut next = numbers.flat_map(|seq| (0..self.channels).map(move |channel| (channel, seq)));
        let (mut unanswered, mut done) = (0, 0);
        let mut progress = Instant::now();
        let mut shown = Instant::now();
        while done < total {
            while unanswered < window {
                let Some((channel, seq)) = next.next() else { break };
                let publisher = self.publishers[channel % self.publishers.len()];
                self.engine.publish(publisher, channel as u32, seq);
                unanswered += 1;
            }
            self.engine.turn(progress + self.patience, &mut self.events)?;
            let answered = self
                .events
                .iter()
                .filter(|e| matches!(e, Event::Answered(_)))
                .count();
            unanswered -= answered;
            done += answered;
            if answered > 0 {
                progress = Instant::now();
            } else if progress.elapsed() >= self.patience {
                return Err(BenchError::Stalled(format!(
                    "{done} of {total} publications are acknowledged"
                )));
            }
            if shown.elapsed().as_secs() >= 5 {
                shown = Instant::now();
                eprintln!("bench: {done} of {total} published");
            }
        }
        match (self.engine.tally.faults.refused, &self.engine.tally.first_error) {
            (0, _) => Ok(()),
            (refused, error) => Err(BenchError::Wrong(format!(
                "{refused} publications were refused: {}",
                error.as_deref().unwrap_or_default()
            ))),
        }
    }
}
