//! Whose turn it is to be published for, where more apps have a backlog than are published for at once. Pure.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::AppId;

/// So many messages are a turn, if others wait for theirs.
const MESSAGES: u32 = 64;
/// So long is a turn, if others wait for theirs.
const LONGEST: Duration = Duration::from_secs(1);

/// An app whose turn begins, and what it has kept from its last one.
pub(super) type Next<K> = (AppId, Option<K>);

/// The apps that a node publishes for, each once at most: those that run, those that wait in a line, and those
/// that rest until it is of use to run again. `K` is what an app keeps between two turns.
#[derive(Debug)]
pub(super) struct Turns<K> {
    /// How many may run.
    most: usize,
    running: usize,
    apps: HashMap<AppId, Stage>,
    line: VecDeque<Next<K>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    InLine,
    Resting,
}

impl<K> Turns<K> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            running: 0,
            apps: HashMap::new(),
            line: VecDeque::new(),
        }
    }

    /// An app has something to publish. True if it runs from now on; otherwise it is in the line, rests or runs.
    pub(super) fn ask(&mut self, app: &AppId) -> bool {
        if self.apps.contains_key(app) {
            return false;
        }
        self.enter(app, None).is_some()
    }

    /// Whether apps wait for those that run.
    pub(super) fn is_crowded(&self) -> bool {
        !self.line.is_empty()
    }

    /// How many apps wait for those that run.
    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// An app's turn is over and it has more: it goes behind all others. Who runs now.
    pub(super) fn again(&mut self, app: &AppId, kept: Option<K>) -> Option<Next<K>> {
        if self.apps.get(app) != Some(&Stage::Running) {
            return None;
        }
        self.running -= 1;
        self.apps.insert(app.clone(), Stage::InLine);
        self.line.push_back((app.clone(), kept));
        self.next()
    }

    /// An app's turn is over, and for a while it is of no use to run. Who runs now.
    pub(super) fn rest(&mut self, app: &AppId) -> Option<Next<K>> {
        if self.apps.get(app) != Some(&Stage::Running) {
            return None;
        }
        self.running -= 1;
        self.apps.insert(app.clone(), Stage::Resting);
        self.next()
    }

    /// An app that has rested runs, and gets back what it has kept; or it is in the line.
    pub(super) fn rested(&mut self, app: &AppId, kept: Option<K>) -> Option<Option<K>> {
        if self.apps.get(app) != Some(&Stage::Resting) {
            return None;
        }
        self.enter(app, kept).map(|(_, kept)| kept)
    }

    /// An app that runs or rests does not any more. Who runs now.
    pub(super) fn leave(&mut self, app: &AppId) -> Option<Next<K>> {
        match self.apps.get(app)? {
            // Nobody leaves the line but by a turn.
            Stage::InLine => return None,
            Stage::Running => self.running -= 1,
            Stage::Resting => {}
        }
        self.apps.remove(app);
        self.next()
    }

    /// The app runs, or is in the line.
    fn enter(&mut self, app: &AppId, kept: Option<K>) -> Option<Next<K>> {
        if self.running < self.most && self.line.is_empty() {
            self.running += 1;
            self.apps.insert(app.clone(), Stage::Running);
            return Some((app.clone(), kept));
        }
        self.apps.insert(app.clone(), Stage::InLine);
        self.line.push_back((app.clone(), kept));
        None
    }

    fn next(&mut self) -> Option<Next<K>> {
        if self.running >= self.most {
            return None;
        }
        let next = self.line.pop_front()?;
        self.running += 1;
        self.apps.insert(next.0.clone(), Stage::Running);
        Some(next)
    }
}

/// What an app has had of its turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    messages: u32,
}

impl Turn {
    /// A message is settled.
    pub(super) fn settled(&mut self) {
        self.messages += 1;
    }

    /// Whether the turn, which began so long ago, ends where others wait for theirs.
    pub(super) fn is_over(&self, elapsed: Duration) -> bool {
        self.messages >= MESSAGES || elapsed >= LONGEST
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn app(n: usize) -> AppId {
        AppId::new(&format!("app-{n}")).unwrap()
    }

    #[test]
    fn those_that_wait_run_in_the_order_in_which_they_came() {
        let mut turns = Turns::new(2);
        let asked: Vec<_> = (0..5).map(|n| turns.ask(&app(n))).collect();
        assert_eq!(asked, [true, true, false, false, false]);
        assert!(!turns.ask(&app(4)), "once");
        assert_eq!((turns.waiting(), turns.is_crowded()), (3, true));
        assert_eq!(turns.again(&app(0), Some("kept")), Some((app(2), None)));
        assert_eq!(turns.leave(&app(1)), Some((app(3), None)));
        assert_eq!(turns.leave(&app(2)), Some((app(4), None)));
        assert_eq!(turns.leave(&app(3)), Some((app(0), Some("kept"))));
        assert_eq!((turns.leave(&app(4)), turns.waiting()), (None, 0));
        assert!(turns.ask(&app(1)), "it may come again");
    }

    #[test]
    fn who_rests_holds_up_nobody_and_comes_behind_those_that_wait() {
        let mut turns = Turns::new(1);
        assert!(turns.ask(&app(0)) && !turns.ask(&app(1)));
        assert_eq!(turns.rest(&app(0)), Some((app(1), None)));
        assert!(!turns.ask(&app(0)) && !turns.is_crowded(), "it has nothing to do");
        assert_eq!(turns.rested(&app(0), Some(7)), None);
        assert!(turns.is_crowded());
        assert_eq!(turns.leave(&app(1)), Some((app(0), Some(7))));
        assert_eq!(turns.rest(&app(0)), None);
        assert_eq!(turns.rested(&app(0), Some(8)), Some(Some(8)), "nobody else runs");
        assert_eq!(turns.rest(&app(0)), None);
        assert_eq!(turns.leave(&app(0)), None);
        assert!(turns.ask(&app(1)), "who leaves a rest has held no place");
    }

    #[test]
    fn an_app_that_is_alone_goes_on() {
        let mut turns = Turns::new(1);
        assert!(turns.ask(&app(0)));
        assert_eq!(turns.again(&app(0), Some(1)), Some((app(0), Some(1))));
    }

    #[test]
    fn a_turn_is_so_many_messages_or_so_long() {
        let mut turn = Turn::default();
        assert!(!turn.is_over(LONGEST - Duration::from_millis(1)));
        assert!(turn.is_over(LONGEST));
        for _ in 0..MESSAGES {
            assert!(!turn.is_over(Duration::ZERO));
            turn.settled();
        }
        assert!(turn.is_over(Duration::ZERO));
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Ask,
        Again,
        Rest,
        Rested,
        Leave,
    }

    fn act() -> impl Strategy<Value = (Act, usize)> {
        let acts = [Act::Ask, Act::Again, Act::Rest, Act::Rested, Act::Leave];
        (prop::sample::select(acts.to_vec()), 0..6_usize)
    }

    proptest! {
        /// Whatever happens: no more run than may, nobody waits while one could run, who waits is overtaken by
        /// nobody that came later, and what is kept comes back to whom it belongs.
        #[test]
        fn nobody_is_passed_over(most in 1..4_usize, acts in prop::collection::vec(act(), 0..200)) {
            let mut turns = Turns::new(most);
            let mut running = HashSet::new();
            let mut line: VecDeque<usize> = VecDeque::new();
            let mut resting = HashSet::new();
            for (act, n) in acts {
                let next = match act {
                    Act::Ask => {
                        let known = running.contains(&n) || resting.contains(&n) || line.contains(&n);
                        if turns.ask(&app(n)) {
                            prop_assert!(!known && running.insert(n));
                        } else if !known {
                            line.push_back(n);
                        }
                        None
                    }
                    Act::Again => {
                        let next = turns.again(&app(n), Some(n));
                        if running.remove(&n) {
                            line.push_back(n);
                        }
                        next
                    }
                    Act::Rest => {
                        let next = turns.rest(&app(n));
                        if running.remove(&n) {
                            resting.insert(n);
                        }
                        next
                    }
                    Act::Rested => {
                        let back = turns.rested(&app(n), Some(n));
                        if resting.remove(&n) {
                            match back {
                                Some(kept) => {
                                    prop_assert_eq!(kept, Some(n));
                                    running.insert(n);
                                }
                                None => line.push_back(n),
                            }
                        } else {
                            prop_assert_eq!(back, None);
                        }
                        None
                    }
                    Act::Leave => {
                        let next = turns.leave(&app(n));
                        let _ = running.remove(&n) || resting.remove(&n);
                        next
                    }
                };
                if let Some((id, kept)) = next {
                    let first = line.pop_front().unwrap();
                    prop_assert_eq!(&id, &app(first));
                    prop_assert!(kept.is_none_or(|kept| kept == first));
                    running.insert(first);
                }
                prop_assert!(running.len() <= most);
                prop_assert!(line.is_empty() || running.len() == most);
                prop_assert_eq!(turns.waiting(), line.len());
            }
        }
    }
}
