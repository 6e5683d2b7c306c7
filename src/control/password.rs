//! Passwords: what is accepted as one, how it is hashed, and where that work is done.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash,
};
use aws_lc_rs::rand;
use tokio::sync::Semaphore;

use super::error::ControlError;
use crate::{
    config::{ControlConfig, Secret},
    task::Tasks,
};

/// What a new password has to be.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// So many characters at least.
    pub min: usize,
    /// So many bytes at most.
    pub max: usize,
}

impl Policy {
    /// Accepts a new password of the account with this address.
    ///
    /// # Errors
    ///
    /// `weak_password`.
    pub fn check(&self, password: &Secret, email: &str) -> Result<(), ControlError> {
        let text = password.expose();
        let why = if text.chars().count() < self.min {
            "is too short"
        } else if text.len() > self.max {
            "is too long"
        } else if text.trim().eq_ignore_ascii_case(email) || text.trim().to_lowercase() == email {
            "is the e-mail address"
        } else if text.chars().all(|c| text.starts_with(c)) {
            "is one character over and over"
        } else {
            return Ok(());
        };
        Err(ControlError::WeakPassword(why))
    }
}

/// What hashing costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// KiB of memory.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    fn hasher(self) -> Result<Argon2<'static>, ControlError> {
        let params = Params::new(self.memory, self.passes, self.lanes, None);
        let params = params.map_err(|_| ControlError::NotConfigured("control.password_memory"))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }

    /// The PHC string of `password` with a new salt.
    ///
    /// # Errors
    ///
    /// `not_configured` if argon2 cannot work like this, `internal` if there is no memory or randomness.
    pub fn hash(self, password: &Secret) -> Result<String, ControlError> {
        let mut salt = [0_u8; 16];
        rand::fill(&mut salt).map_err(|_| ControlError::Internal)?;
        let hash = self
            .hasher()?
            .hash_password_with_salt(password.expose().as_bytes(), &salt);
        hash.map(|hash: PasswordHash| hash.to_string())
            .map_err(|_| ControlError::Internal)
    }

    /// Whether `phc` was made by another algorithm, or costs less than this in anything.
    pub fn is_more_than(self, phc: &str) -> bool {
        let Ok(hash) = PasswordHash::new(phc) else {
            return true;
        };
        let Ok(params) = Params::try_from(&hash) else {
            return true;
        };
        hash.algorithm.as_str() != "argon2id"
            || params.m_cost() < self.memory
            || params.t_cost() < self.passes
            || params.p_cost() < self.lanes
    }
}

/// Whether `password` is the one that `phc` is of. The comparison takes the same time wherever they differ.
pub fn verify(password: &Secret, phc: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else {
        return false;
    };
    // The parameters are those of the hash.
    Argon2::default()
        .verify_password(password.expose().as_bytes(), &hash)
        .is_ok()
}

/// Hashes passwords: a few at once, on threads of their own, and a bounded number waiting.
pub struct Passwords {
    policy: Policy,
    cost: Cost,
    /// Of nobody's password: verified where there is no account, so that the time does not tell.
    dummy: String,
    /// All that are here.
    places: Arc<Semaphore>,
    /// Those at work.
    threads: Arc<Semaphore>,
    tasks: Tasks,
}

impl Passwords {
    /// Works as `config` says.
    ///
    /// # Errors
    ///
    /// If argon2 cannot.
    pub fn new(config: &ControlConfig, tasks: Tasks) -> Result<Self, ControlError> {
        let cost = Cost {
            memory: u32::try_from(config.password_memory / 1024).unwrap_or(u32::MAX),
            passes: config.password_passes,
            lanes: config.password_lanes,
        };
        let places = config.password_threads.saturating_add(config.password_waiting);
        Ok(Self {
            policy: Policy {
                min: config.password_min,
                max: config.password_max,
            },
            cost,
            dummy: cost.hash(&Secret::new(super::hash::secret()))?,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            threads: Arc::new(Semaphore::new(config.password_threads)),
            tasks,
        })
    }

    /// Hashes a new password of the account with this address.
    ///
    /// # Errors
    ///
    /// `weak_password`, `busy`.
    pub async fn hash(&self, password: &Secret, email: &str) -> Result<String, ControlError> {
        self.policy.check(password, email)?;
        let (cost, password) = (self.cost, password.clone());
        self.work(move || cost.hash(&password)).await?
    }

    /// Whether `password` is the one that `phc` is of. Without `phc` it is not, and takes as long.
    ///
    /// # Errors
    ///
    /// `busy`.
    pub async fn verify(&self, password: &Secret, phc: Option<&str>) -> Result<bool, ControlError> {
        // Not hashed at all: the work grows with the length, and no password is so long.
        let possible = password.expose().len() <= self.policy.max;
        let password = if possible {
            password.clone()
        } else {
            Secret::default()
        };
        let known = phc.is_some() && possible;
        let phc = phc.unwrap_or(&self.dummy).to_owned();
        let same = self.work(move || verify(&password, &phc)).await?;
        Ok(same && known)
    }

    /// Whether `phc` should be made anew, at the present cost.
    pub fn is_outdated(&self, phc: &str) -> bool {
        self.cost.is_more_than(phc)
    }

    /// Does `work` on a thread of its own. If the caller goes away the work goes on and keeps its place.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ControlError> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| ControlError::Busy)?;
        let thread = self.threads.clone().acquire_owned().await;
        let thread = thread.map_err(|_| ControlError::Busy)?;
        let work = move || {
            let _both = (place, thread);
            work()
        };
        self.tasks.blocking(work).await.ok_or(ControlError::Internal)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Sources};

    const CHEAP: Cost = Cost {
        memory: 8,
        passes: 1,
        lanes: 1,
    };

    fn passwords(threads: usize, waiting: usize) -> Passwords {
        let mut config = Config::load(&Sources::default()).unwrap().control;
        (config.password_memory, config.password_passes) = (8 * 1024, 1);
        (config.password_threads, config.password_waiting) = (threads, waiting);
        Passwords::new(&config, Tasks::default()).unwrap()
    }

    #[test]
    fn what_is_a_password() {
        let policy = Policy { min: 4, max: 12 };
        for (password, expected) in [
            ("abcd", None),
            ("äöüß", None),
            ("abc", Some("is too short")),
            ("abcdefghijklm", Some("is too long")),
            ("a@b.example", Some("is the e-mail address")),
            (" A@b.Example", Some("is the e-mail address")),
            ("aaaaaa", Some("is one character over and over")),
        ] {
            let found = policy.check(&Secret::new(password), "a@b.example");
            assert_eq!(
                found.err(),
                expected.map(ControlError::WeakPassword),
                "{password}"
            );
        }
    }

    #[test]
    fn hashes_are_phc_strings_with_salts() {
        let password = Secret::new("correct horse");
        let (one, two) = (CHEAP.hash(&password).unwrap(), CHEAP.hash(&password).unwrap());
        assert!(one.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{one}");
        assert_ne!(one, two);
        assert!(verify(&password, &one) && verify(&password, &two));
        assert!(!verify(&Secret::new("correct hors"), &one));
        assert!(!verify(&password, "no hash"));
        assert!(!verify(&password, "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ"));
    }

    #[test]
    fn a_hash_is_outdated_when_the_cost_has_grown() {
        let phc = CHEAP.hash(&Secret::new("correct horse")).unwrap();
        for (memory, passes, lanes, outdated) in [
            (8, 1, 1, false),
            (16, 1, 1, true),
            (8, 2, 1, true),
            (16, 1, 2, true),
        ] {
            let cost = Cost {
                memory,
                passes,
                lanes,
            };
            assert_eq!(cost.is_more_than(&phc), outdated, "{cost:?}");
        }
        assert!(CHEAP.is_more_than("$2b$10$bcrypt"));
        assert!(CHEAP.is_more_than(&phc.replace("argon2id", "argon2i")));
    }

    #[tokio::test]
    async fn without_an_account_nothing_is_right() {
        let passwords = passwords(2, 8);
        let password = Secret::new("correct horse");
        let phc = passwords.hash(&password, "a@b.example").await.unwrap();
        assert_eq!(passwords.verify(&password, Some(&phc)).await, Ok(true));
        assert_eq!(passwords.verify(&password, None).await, Ok(false));
        let long = Secret::new("x".repeat(5000));
        assert_eq!(passwords.verify(&long, Some(&phc)).await, Ok(false));
        assert!(!passwords.is_outdated(&phc));
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let passwords = Arc::new(passwords(1, 1));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let slow = passwords.work(move || held.recv_timeout(Duration::from_secs(10)));
        let waits = passwords.work(|| ());
        let refused = async {
            // The two others are polled first.
            tokio::task::yield_now().await;
            assert_eq!(passwords.work(|| ()).await, Err(ControlError::Busy));
            release.send(()).unwrap();
        };
        let (slow, waits, ()) = tokio::join!(slow, waits, refused);
        assert!(slow.unwrap().is_ok() && waits.is_ok());
        assert_eq!(passwords.work(|| 5).await, Ok(5));
    }
}
