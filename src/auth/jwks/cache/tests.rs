use super::*;

const NO_KEY: TokenError = TokenError::Invalid("no key for its algorithm and key id");

/// What a decision comes to: whether a fetch starts, and what the token does.
#[derive(Debug, PartialEq)]
enum Does {
    Use,
    Wait,
    Refuse(TokenError),
}

struct Script {
    cache: Cache,
    start: Instant,
}

impl Script {
    /// Used for 100 s, at most one fetch in 10 s, stale for another 50 s.
    fn new() -> Self {
        let seconds = Duration::from_secs;
        Self {
            cache: Cache::new(seconds(100), seconds(10), seconds(50)),
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn ask(&mut self, at: u64, known: bool, waited: bool) -> (bool, Does) {
        let decision = self.cache.decide(self.at(at), waited, |_| known);
        let does = match decision.step {
            Step::Use(_) => Does::Use,
            Step::Wait => Does::Wait,
            Step::Refuse(why) => Does::Refuse(why),
        };
        (decision.fetch, does)
    }

    fn fetched(&mut self, at: u64, success: bool) {
        let now = self.at(at);
        self.cache.fetched(now, success.then(KeySet::default));
    }
}

#[test]
fn the_first_token_fetches_and_others_wait_for_the_same() {
    let mut script = Script::new();
    assert_eq!(script.ask(0, false, false), (true, Does::Wait));
    assert_eq!(script.ask(1, false, false), (false, Does::Wait));
    script.fetched(2, true);
    assert_eq!(script.ask(2, true, true), (false, Does::Use));
    assert_eq!(script.ask(3, true, false), (false, Does::Use));
}

#[test]
fn without_any_set_tokens_can_come_again() {
    let mut script = Script::new();
    assert_eq!(script.ask(0, false, false), (true, Does::Wait));
    script.fetched(1, false);
    assert_eq!(
        script.ask(1, false, true),
        (false, Does::Refuse(TokenError::Unavailable))
    );
    assert_eq!(
        script.ask(9, false, false),
        (false, Does::Refuse(TokenError::Unavailable))
    );
    assert_eq!(script.ask(10, false, false), (true, Does::Wait));
}

#[test]
fn an_unknown_key_id_forces_at_most_one_fetch_in_the_interval() {
    let mut script = Script::new();
    script.ask(0, false, false);
    script.fetched(0, true);
    let mut fetches = 0;
    for second in 1..=60 {
        let (fetch, does) = script.ask(second, false, false);
        if fetch {
            fetches += 1;
            assert_eq!(does, Does::Wait);
            script.fetched(second, true);
            assert_eq!(script.ask(second, false, true), (false, Does::Refuse(NO_KEY)));
        } else {
            assert_eq!(does, Does::Refuse(NO_KEY), "at {second}");
        }
    }
    assert_eq!(fetches, 6);
}

#[test]
fn a_set_is_refreshed_ahead_of_time_without_waiting() {
    let mut script = Script::new();
    script.ask(0, false, false);
    script.fetched(0, true);
    assert_eq!(script.ask(79, true, false), (false, Does::Use));
    assert_eq!(script.ask(80, true, false), (true, Does::Use));
    assert_eq!(script.ask(81, true, false), (false, Does::Use));
    script.fetched(82, true);
    assert_eq!(script.ask(161, true, false), (false, Does::Use));
}

#[test]
fn after_its_time_a_set_is_fetched_before_it_is_used() {
    let mut script = Script::new();
    script.ask(0, false, false);
    script.fetched(0, true);
    assert_eq!(script.ask(100, true, false), (true, Does::Wait));
    // The withdrawn key is gone.
    script.fetched(101, true);
    assert_eq!(script.ask(101, false, true), (false, Does::Refuse(NO_KEY)));
}

#[test]
fn a_stale_set_serves_while_the_source_is_down_but_not_for_ever() {
    let mut script = Script::new();
    script.ask(0, false, false);
    script.fetched(0, true);
    assert_eq!(script.ask(100, true, false), (true, Does::Wait));
    script.fetched(101, false);
    assert_eq!(script.ask(101, true, true), (false, Does::Use));
    // Known to be down: the next fetch is tried behind the scenes.
    assert_eq!(script.ask(110, true, false), (true, Does::Use));
    script.fetched(111, false);
    assert_eq!(
        script.ask(112, false, false),
        (false, Does::Refuse(TokenError::Unavailable))
    );
    assert_eq!(script.ask(149, true, false), (true, Does::Use));
    script.fetched(149, false);
    assert_eq!(
        script.ask(150, true, false),
        (false, Does::Refuse(TokenError::Unavailable))
    );
    assert_eq!(script.ask(160, true, false), (true, Does::Wait));
    script.fetched(160, true);
    assert_eq!(script.ask(160, true, true), (false, Does::Use));
}
