//! Secrets at rest: what must be read again (a hash would not do) is stored sealed with a key that only the
//! configuration of the nodes has, so that neither the database nor the broker nor a copy of them tells it.
//!
//! AES-256-GCM with a random nonce (NIST SP 800-38D, section 8.2.2: fine for 2^32 seals of a key). What it is
//! and whose is authenticated with it, so that one secret cannot be put in the place of another.
//!
//! `v1.<key id>.<base64url of nonce and ciphertext>`

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, rand,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use crate::config::Secret;

const VERSION: &str = "v1";
const KEY_BYTES: usize = 32;

/// Seals with the first of its keys, and opens with all of them.
pub struct Sealing(Vec<Key>);

struct Key {
    id: String,
    key: LessSafeKey,
}

/// Why there is no [`Sealing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealing key {0} must be 32 bytes in hexadecimal or base64; `openssl rand -hex 32` makes one")]
pub struct BadKey(usize);

/// Why nothing was sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no key to seal with.
    #[error("there is no sealing key")]
    NoKey,
    /// It was sealed with another key.
    #[error("it was sealed with a key that this node does not have")]
    UnknownKey,
    /// It was not sealed here, or not for this, or has been changed.
    #[error("it is not what was sealed")]
    Forged,
}

impl Sealing {
    /// With these keys, each 32 bytes in hexadecimal or base64. Without any it only fails.
    ///
    /// # Errors
    ///
    /// The first that is none, counted from 0.
    pub fn new(keys: &[Secret]) -> Result<Self, BadKey> {
        let keys = keys.iter().enumerate();
        let keys = keys.map(|(index, text)| Key::parse(text.expose()).ok_or(BadKey(index)));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Whether it can seal.
    pub fn can_seal(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether it should be sealed anew, because it was with a key that is not the first any more.
    pub fn is_outdated(&self, sealed: &str) -> bool {
        let first = self.0.first().map(|key| key.id.as_str());
        sealed.split('.').nth(1) != first
    }

    /// Seals `secret` for `purpose`, which says what it is and whose.
    ///
    /// # Errors
    ///
    /// [`SealError::NoKey`].
    pub fn seal(&self, purpose: &[&str], secret: &[u8]) -> Result<String, SealError> {
        let key = self.0.first().ok_or(SealError::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::NoKey)?;
        let mut sealed = secret.to_vec();
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad(purpose)),
                &mut sealed,
            )
            .map_err(|_| SealError::NoKey)?;
        let sealed = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        Ok(format!("{VERSION}.{}.{sealed}", key.id))
    }

    /// What was sealed for `purpose`.
    ///
    /// # Errors
    ///
    /// [`SealError`].
    pub fn open(&self, purpose: &[&str], sealed: &str) -> Result<Vec<u8>, SealError> {
        let rest = sealed
            .strip_prefix(VERSION)
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or(SealError::Forged)?;
        let (id, text) = rest.split_once('.').ok_or(SealError::Forged)?;
        let key = self
            .0
            .iter()
            .find(|key| key.id == id)
            .ok_or(SealError::UnknownKey)?;
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Forged)?;
        if bytes.len() < NONCE_LEN {
            return Err(SealError::Forged);
        }
        let mut ciphertext = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| SealError::Forged)?;
        let opened = key
            .key
            .open_in_place(nonce, Aad::from(aad(purpose)), &mut ciphertext);
        opened
            .map(|opened| opened.to_vec())
            .map_err(|_| SealError::Forged)
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bytes = if text.len() == 2 * KEY_BYTES {
            hex(text)
        } else {
            STANDARD
                .decode(text)
                .or_else(|_| URL_SAFE_NO_PAD.decode(text))
                .ok()
        };
        let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES)?;
        let mut named = b"slipstream sealing key".to_vec();
        named.extend(&bytes);
        let hash = digest::digest(&digest::SHA256, &named);
        let id = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}"));
        Some(Self {
            id: id.collect(),
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?),
        })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits?;
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::try_from(pair.first()? * 16 + pair.get(1)?).ok())
        .collect()
}

/// Length-prefixed, so that no two purposes are the same bytes.
fn aad(purpose: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in purpose {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const NEW: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

    fn sealing(keys: &[&str]) -> Sealing {
        let keys: Vec<_> = keys.iter().map(|key| Secret::new(*key)).collect();
        Sealing::new(&keys).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_for_the_same_and_with_the_same_key() {
        let (old, both, new) = (sealing(&[OLD]), sealing(&[NEW, OLD]), sealing(&[NEW]));
        let sealed = old.seal(&["key", "a"], b"planted").unwrap();
        assert!(!sealed.contains("planted"));
        assert_eq!(old.open(&["key", "a"], &sealed).unwrap(), b"planted");
        assert_eq!(both.open(&["key", "a"], &sealed).unwrap(), b"planted");
        assert_eq!(new.open(&["key", "a"], &sealed), Err(SealError::UnknownKey));
        for purpose in [&["key", "b"][..], &["keya"], &["key"], &["key", "a", ""]] {
            assert_eq!(old.open(purpose, &sealed), Err(SealError::Forged), "{purpose:?}");
        }
        let newer = both.seal(&["key", "a"], b"planted").unwrap();
        assert!(both.is_outdated(&sealed) && !both.is_outdated(&newer) && !old.is_outdated(&sealed));
        assert_eq!(new.open(&["key", "a"], &newer).unwrap(), b"planted");
        assert_ne!(
            newer,
            both.seal(&["key", "a"], b"planted").unwrap(),
            "a nonce of its own"
        );
        let none = sealing(&[]);
        assert!(!none.can_seal() && none.seal(&["x"], b"") == Err(SealError::NoKey));
    }

    #[test]
    fn what_is_no_key() {
        for bad in [
            "",
            "short",
            &OLD[2..],
            &format!("{OLD}00"),
            &OLD.replace('0', "g"),
            "QUJD",
        ] {
            let keys = [Secret::new(NEW), Secret::new(bad)];
            assert_eq!(Sealing::new(&keys).unwrap_err(), BadKey(1), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let debug = format!("{:?}", sealing(&[OLD]));
        assert!(!debug.contains("0001") && debug.len() < 16, "{debug}");
    }

    proptest! {
        #[test]
        fn anything_else_is_refused(secret in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), flip in 1u8..=255, noise in "\\PC{0,80}") {
            let sealing = sealing(&[OLD]);
            let sealed = sealing.seal(&["x"], &secret).unwrap();
            prop_assert_eq!(sealing.open(&["x"], &sealed).unwrap(), secret);
            let (head, text) = sealed.rsplit_once('.').unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let changed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert_eq!(sealing.open(&["x"], &changed), Err(SealError::Forged));
            prop_assert!(sealing.open(&["x"], &noise).is_err());
            let cut = &sealed[..head.len() + 1 + at.min(text.len())];
            prop_assert_eq!(sealing.open(&["x"], cut), Err(SealError::Forged));
        }
    }
}
