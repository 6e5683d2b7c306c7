use serde::{Deserialize, Serialize};

use crate::{
    control::{hash::same, letter::account_key, records::Record},
    store::Collection,
};

/// A session as it is stored: the family of its refresh tokens. No `Debug`: it holds hashes.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::control) struct Session {
    pub(in crate::control) account: String,
    /// The account's epoch when it began.
    pub(in crate::control) epoch: u64,
    /// How often the refresh token was replaced.
    pub(in crate::control) generation: u64,
    /// The hash of the present one. Unique.
    pub(in crate::control) current: String,
    /// The one before, and when it was replaced.
    pub(in crate::control) previous: Option<Previous>,
    pub(in crate::control) created_ms: i64,
    pub(in crate::control) used_ms: i64,
    /// When it ends if it is not used.
    pub(in crate::control) idle_ms: i64,
    /// When it ends however it is used.
    pub(in crate::control) ends_ms: i64,
    pub(in crate::control) ip: String,
    pub(in crate::control) user_agent: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(in crate::control) struct Previous {
    pub(in crate::control) hash: String,
    pub(in crate::control) replaced_ms: i64,
}

/// A refresh token as it was presented.
#[derive(Clone, Copy)]
pub(super) struct Presented<'a> {
    pub(super) hash: &'a str,
    pub(super) generation: u64,
    /// Whether we have made it, for this session.
    pub(super) genuine: bool,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Replace it.
    Rotate,
    /// It was replaced a moment ago: nothing.
    Retry,
    /// It was replaced long ago: end the session.
    Reused,
    /// It is over.
    Expired,
    /// It never was of this session.
    Invalid,
}

impl Session {
    pub(super) fn judge(&self, presented: Presented<'_>, now_ms: i64, grace_ms: i64) -> Verdict {
        if same(presented.hash, &self.current) {
            return match now_ms < self.idle_ms.min(self.ends_ms) {
                true => Verdict::Rotate,
                false => Verdict::Expired,
            };
        }
        match &self.previous {
            Some(previous) if same(presented.hash, &previous.hash) => {
                match now_ms < previous.replaced_ms.saturating_add(grace_ms) {
                    true => Verdict::Retry,
                    false => Verdict::Reused,
                }
            }
            _ if presented.genuine && presented.generation < self.generation => Verdict::Reused,
            _ => Verdict::Invalid,
        }
    }

    /// The refresh token is replaced by one with this hash.
    pub(super) fn rotate(&mut self, hash: String, now_ms: i64, idle_ms: i64) {
        let hash = std::mem::replace(&mut self.current, hash);
        self.previous = Some(Previous {
            hash,
            replaced_ms: now_ms,
        });
        self.generation += 1;
        self.used_ms = now_ms;
        self.idle_ms = now_ms.saturating_add(idle_ms);
    }
}

impl Record for Session {
    const COLLECTION: Collection = Collection::Sessions;
    const NAME: &'static str = "session";
    fn unique(&self) -> Option<String> {
        Some(self.current.clone())
    }
    fn keys(&self) -> Vec<String> {
        vec![account_key(&self.account)]
    }
    fn expires_ms(&self) -> Option<i64> {
        Some(self.idle_ms.min(self.ends_ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> Session {
        Session {
            account: "a".into(),
            epoch: 0,
            generation: 0,
            current: "h0".into(),
            previous: None,
            created_ms: 0,
            used_ms: 0,
            idle_ms: 1000,
            ends_ms: 5000,
            ip: String::new(),
            user_agent: String::new(),
        }
    }

    #[test]
    fn what_becomes_of_each_token() {
        let mut session = session();
        session.rotate("h1".into(), 100, 1000);
        session.rotate("h2".into(), 200, 1000);
        for (hash, generation, genuine, now, verdict) in [
            ("h2", 2, true, 1199, Verdict::Rotate),
            // A signer with another secret does not end sessions.
            ("h2", 2, false, 1199, Verdict::Rotate),
            ("h2", 2, true, 1200, Verdict::Expired),
            ("h1", 1, true, 209, Verdict::Retry),
            ("h1", 1, true, 210, Verdict::Reused),
            ("h1", 1, false, 210, Verdict::Reused),
            ("h0", 0, true, 201, Verdict::Reused),
            ("h0", 0, false, 201, Verdict::Invalid),
            ("x", 1, false, 201, Verdict::Invalid),
            // Genuine, but of a write that was lost.
            ("x", 3, true, 201, Verdict::Invalid),
        ] {
            let presented = Presented {
                hash,
                generation,
                genuine,
            };
            assert_eq!(
                session.judge(presented, now, 10),
                verdict,
                "{hash} {generation} at {now}"
            );
        }
    }

    proptest! {
        /// Use never stretches a session beyond its end, and of all its tokens one alone rotates.
        #[test]
        fn one_token_rotates(gaps in prop::collection::vec(1_i64..900, 1..20), wait in 0_i64..2000) {
            let mut session = session();
            let mut now = 0;
            for (gap, generation) in gaps.iter().zip(1_u64..) {
                now += gap;
                session.rotate(format!("h{generation}"), now, 1000);
            }
            let at = now + wait;
            for generation in 0..=session.generation {
                let hash = format!("h{generation}");
                let presented = Presented { hash: &hash, generation, genuine: true };
                let verdict = session.judge(presented, at, 10);
                let last = generation == session.generation;
                prop_assert_eq!(verdict == Verdict::Rotate, last && wait < 1000 && at < 5000);
                prop_assert_eq!(verdict == Verdict::Reused || verdict == Verdict::Retry, !last);
            }
        }
    }
}
