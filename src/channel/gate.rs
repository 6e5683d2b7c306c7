//! A bound on what is asked of the log at once, fair between apps.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::AppId;

/// Grants units (bytes, requests) to whoever waits: apps in turn, so that one that asks for much
/// waits for itself and not for others.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    total: usize,
    max_waiting: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: usize,
    queues: HashMap<AppId, VecDeque<Waiter>>,
    /// Apps with a queue, the next to be served first.
    turns: VecDeque<AppId>,
}

#[derive(Debug)]
struct Waiter {
    units: usize,
    grant: oneshot::Sender<()>,
}

/// Units that were granted; dropping it gives them back.
#[derive(Debug)]
pub struct Grant<'a> {
    gate: &'a Gate,
    units: usize,
}

/// Too many are waiting already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many reads are waiting")]
pub struct Crowded;

impl Gate {
    /// A gate with `total` units, at which `max_waiting` may wait.
    pub fn new(total: usize, max_waiting: usize) -> Self {
        let state = State {
            free: total,
            waiting: 0,
            queues: HashMap::new(),
            turns: VecDeque::new(),
        };
        Self {
            state: Mutex::new(state),
            total,
            max_waiting,
        }
    }

    /// Takes `units` (at most all there are) if nobody waits and they are free.
    pub fn try_enter(&self, units: usize) -> Option<Grant<'_>> {
        let units = units.min(self.total);
        let taken = self.state.lock().take(units);
        // Lazily: a grant that is made and dropped gives back what was never taken.
        taken.then(|| Grant { gate: self, units })
    }

    /// Waits for `units` (at most all there are).
    pub async fn enter(&self, app: &AppId, units: usize) -> Result<Grant<'_>, Crowded> {
        let units = units.min(self.total);
        let granted = {
            let mut state = self.state.lock();
            if state.take(units) {
                return Ok(Grant { gate: self, units });
            }
            if state.waiting >= self.max_waiting {
                return Err(Crowded);
            }
            let (grant, granted) = oneshot::channel();
            if !state.queues.contains_key(app) {
                state.turns.push_back(app.clone());
            }
            state
                .queues
                .entry(app.clone())
                .or_default()
                .push_back(Waiter { units, grant });
            state.waiting += 1;
            granted
        };
        let waiting = Waiting {
            gate: self,
            units,
            granted: Some(granted),
        };
        Ok(waiting.wait().await)
    }

    /// How many wait, and how many units are in use.
    pub fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.waiting, self.total - state.free)
    }

    fn give_back(&self, units: usize) {
        let mut state = self.state.lock();
        state.free += units;
        state.serve();
    }
}

impl State {
    /// Takes units if nobody waits and they are free.
    fn take(&mut self, units: usize) -> bool {
        let free = self.waiting == 0 && self.free >= units;
        if free {
            self.free -= units;
        }
        free
    }

    fn serve(&mut self) {
        while let Some(app) = self.turns.front() {
            let Some(queue) = self.queues.get_mut(app) else {
                self.turns.pop_front();
                continue;
            };
            let Some(next) = queue.front() else {
                self.queues.remove(app);
                self.turns.pop_front();
                continue;
            };
            if next.units > self.free {
                return;
            }
            if let Some(waiter) = queue.pop_front() {
                self.waiting -= 1;
                // One that has given up leaves its units.
                if waiter.grant.send(()).is_ok() {
                    self.free -= waiter.units;
                }
            }
            self.turns.rotate_left(1);
        }
    }
}

/// Gives back what was granted to a waiter that has gone meanwhile.
struct Waiting<'a> {
    gate: &'a Gate,
    units: usize,
    granted: Option<oneshot::Receiver<()>>,
}

impl<'a> Waiting<'a> {
    async fn wait(mut self) -> Grant<'a> {
        if let Some(granted) = &mut self.granted {
            // The gate answers every waiter that is still there, or drops it with itself.
            let _ = granted.await;
        }
        self.granted = None;
        Grant {
            gate: self.gate,
            units: self.units,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(mut granted) = self.granted.take() {
            granted.close();
            if granted.try_recv().is_ok() {
                self.gate.give_back(self.units);
            }
        }
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.gate.give_back(self.units);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use std::pin::pin;

    use super::*;

    fn app(id: &str) -> AppId {
        AppId::new(id).unwrap()
    }

    #[tokio::test]
    async fn apps_take_turns() {
        let gate = Gate::new(1, 10);
        let (noisy, quiet) = (app("noisy"), app("quiet"));
        let first = gate.enter(&noisy, 1).await.unwrap();
        let mut second = pin!(gate.enter(&noisy, 1));
        let mut third = pin!(gate.enter(&noisy, 1));
        let mut other = pin!(gate.enter(&quiet, 1));
        for waiting in [second.as_mut(), third.as_mut(), other.as_mut()] {
            assert!(poll!(waiting).is_pending());
        }
        drop(first);
        let second = second.await.unwrap();
        assert!(poll!(other.as_mut()).is_pending());
        drop(second);
        assert!(poll!(third.as_mut()).is_pending());
        drop(other.await.unwrap());
        drop(third.await.unwrap());
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn who_gives_up_takes_nothing_along() {
        let gate = Gate::new(2, 10);
        let all = gate.enter(&app("a"), 5).await.unwrap();
        {
            let a = app("a");
            let mut gone = pin!(gate.enter(&a, 1));
            assert!(poll!(gone.as_mut()).is_pending());
            drop(all);
        }
        assert_eq!(gate.load(), (0, 0));
        assert!(gate.enter(&app("b"), 2).await.is_ok());
    }

    #[tokio::test]
    async fn trying_takes_only_what_is_free() {
        let gate = Gate::new(2, 1);
        let first = gate.try_enter(2);
        assert!(first.is_some() && gate.try_enter(1).is_none());
        assert_eq!(gate.load(), (0, 2));
        drop(first);
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let gate = Gate::new(1, 1);
        let a = app("a");
        let _all = gate.enter(&a, 1).await.unwrap();
        let mut waiting = pin!(gate.enter(&a, 1));
        assert!(poll!(waiting.as_mut()).is_pending());
        assert_eq!(gate.enter(&app("b"), 1).await.err(), Some(Crowded));
    }
}
