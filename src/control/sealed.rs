//! Secrets that must be read again (seeds of second factors, secrets of apps), as they lie in the database:
//! sealed with a key that does not.
//!
//! A sealed secret is text: `v1.<id of the key>.<base64url of nonce, ciphertext and tag>`, AES-256-GCM with a
//! random nonce. What it is and whose is authenticated with it, so that one cannot be put in another's place.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};

use crate::config::Secret;

const VERSION: &str = "v1";
/// The most that is sealed, bytes.
const MAX_SECRET: usize = 64 * 1024;

/// What a sealed secret is, and whose: it opens only where both are the same.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What it is, like `totp`.
    pub kind: &'a str,
    /// Whose it is: an id.
    pub owner: &'a str,
}

impl Context<'_> {
    /// With lengths in front, so that no two contexts have the same bytes.
    fn bytes(self, key: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in ["slipstream sealed", VERSION, key, self.kind, self.owner] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// Why a secret was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no key at all.
    #[error("no key to seal with is configured (control.kek)")]
    NoKey,
    /// It is too large, or there is no randomness.
    #[error("cannot be sealed")]
    Impossible,
    /// Not a sealed secret.
    #[error("not a sealed secret")]
    Malformed,
    /// The key that it was sealed with is not among ours.
    #[error("sealed with a key that is not configured")]
    UnknownKey,
    /// It was changed, or is of something or somebody else.
    #[error("was changed, or is not what and whose it should be")]
    Refused,
}

/// A key of the configuration that cannot be used, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("control.kek[{0}] is not id:key with 32 bytes in base64 or hex")]
pub struct BadKey(pub usize);

/// The keys: the first seals, all open.
pub struct Keyring(Vec<(String, LessSafeKey)>);

impl Keyring {
    /// Reads `id:key` with 32 bytes in base64 or hex, each.
    ///
    /// # Errors
    ///
    /// Which one is none.
    pub fn new(keys: &[Secret]) -> Result<Self, BadKey> {
        let mut ring = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let (id, key) = key.expose().split_once(':').ok_or(BadKey(index))?;
            let plain = id
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            let bytes = key_bytes(key).filter(|_| plain && !id.is_empty());
            let key = bytes.and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok());
            ring.push((id.to_owned(), LessSafeKey::new(key.ok_or(BadKey(index))?)));
        }
        Ok(Self(ring))
    }

    /// Whether there is no key, so that nothing can be sealed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Seals `secret`.
    ///
    /// # Errors
    ///
    /// [`SealError::NoKey`] or [`SealError::Impossible`].
    pub fn seal(&self, context: Context<'_>, secret: &[u8]) -> Result<String, SealError> {
        let (id, key) = self.0.first().ok_or(SealError::NoKey)?;
        if secret.len() > MAX_SECRET {
            return Err(SealError::Impossible);
        }
        let mut nonce = [0_u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::Impossible)?;
        let mut sealed = secret.to_vec();
        let aad = Aad::from(context.bytes(id));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| SealError::Impossible)?;
        let bytes = [&nonce[..], &sealed].concat();
        Ok(format!("{VERSION}.{id}.{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens what was sealed in the same context.
    ///
    /// # Errors
    ///
    /// See [`SealError`].
    pub fn open(&self, context: Context<'_>, sealed: &str) -> Result<Vec<u8>, SealError> {
        let (id, text) = parts(sealed)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Malformed)?;
        let (nonce, sealed) = bytes
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(SealError::Malformed)?;
        if self.is_empty() {
            return Err(SealError::NoKey);
        }
        let (_, key) = self
            .0
            .iter()
            .find(|(known, _)| known == id)
            .ok_or(SealError::UnknownKey)?;
        let mut bytes = sealed.to_vec();
        let aad = Aad::from(context.bytes(id));
        let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut bytes);
        Ok(opened.map_err(|_| SealError::Refused)?.to_vec())
    }

    /// Whether it should be sealed anew, because it was with a key that is not the first any more.
    pub fn is_outdated(&self, sealed: &str) -> bool {
        let first = self.0.first().map(|(id, _)| id.as_str());
        parts(sealed).is_ok_and(|(id, _)| Some(id) != first)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.0.iter().map(|(id, _)| id);
        f.debug_tuple("Keyring").field(&ids.collect::<Vec<_>>()).finish()
    }
}

/// The id of the key and the rest.
fn parts(sealed: &str) -> Result<(&str, &str), SealError> {
    let rest = sealed
        .strip_prefix(VERSION)
        .and_then(|rest| rest.strip_prefix('.'));
    rest.and_then(|rest| rest.split_once('.'))
        .ok_or(SealError::Malformed)
}

fn key_bytes(text: &str) -> Option<[u8; 32]> {
    let bytes = if text.len() == 64 {
        let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        (0..64).step_by(2).map(pair).collect::<Option<Vec<u8>>>()?
    } else {
        [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
            .iter()
            .find_map(|engine| engine.decode(text).ok())?
    };
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(ids: &[&str]) -> Keyring {
        let key = |id: &&str| Secret::new(format!("{id}:{}", STANDARD.encode([id.len() as u8; 32])));
        Keyring::new(&ids.iter().map(key).collect::<Vec<_>>()).unwrap()
    }

    const OF_ANN: Context<'static> = Context {
        kind: "totp",
        owner: "ann",
    };

    #[test]
    fn keys_are_read_or_refused() {
        for (text, good) in [
            (format!("a:{}", "0f".repeat(32)), true),
            (format!("a1:{}", STANDARD.encode([7; 32])), true),
            (format!("a1:{}", URL_SAFE_NO_PAD.encode([255; 32])), true),
            (format!("a1:{}", STANDARD.encode([7; 31])), false),
            (format!(":{}", "0f".repeat(32)), false),
            (format!("A:{}", "0f".repeat(32)), false),
            (format!("a.b:{}", "0f".repeat(32)), false),
            ("0f".repeat(32), false),
            (format!("a:{}", "0g".repeat(32)), false),
            (format!("a:{}", "ä".repeat(32)), false),
        ] {
            assert_eq!(
                Keyring::new(&[Secret::new(text.as_str())]).is_ok(),
                good,
                "{text}"
            );
        }
        let debug = format!("{:?}", ring(&["a", "bb"]));
        assert_eq!(debug, r#"Keyring(["a", "bb"])"#);
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let (old, both, new) = (ring(&["a"]), ring(&["bb", "a"]), ring(&["bb"]));
        let sealed = old.seal(OF_ANN, b"seed").unwrap();
        assert!(sealed.starts_with("v1.a."));
        assert_eq!(both.open(OF_ANN, &sealed).unwrap(), b"seed");
        assert!(both.is_outdated(&sealed) && !old.is_outdated(&sealed));
        assert_eq!(new.open(OF_ANN, &sealed), Err(SealError::UnknownKey));
        let again = both.seal(OF_ANN, b"seed").unwrap();
        assert_eq!(new.open(OF_ANN, &again).unwrap(), b"seed");
        // The same id with another key.
        let other = Keyring::new(&[Secret::new(format!("a:{}", "0f".repeat(32)))]).unwrap();
        assert_eq!(other.open(OF_ANN, &sealed), Err(SealError::Refused));
        // The id of the key is authenticated too.
        let renamed = sealed.replacen("v1.a.", "v1.bb.", 1);
        assert_eq!(both.open(OF_ANN, &renamed), Err(SealError::Refused));
        let none = Keyring::new(&[]).unwrap();
        assert_eq!(none.seal(OF_ANN, b"x"), Err(SealError::NoKey));
        assert_eq!(none.open(OF_ANN, &sealed), Err(SealError::NoKey));
        assert_eq!(
            old.seal(OF_ANN, &vec![0; MAX_SECRET + 1]),
            Err(SealError::Impossible)
        );
    }

    #[test]
    fn parts_of_a_context_do_not_run_into_each_other() {
        let ring = ring(&["a"]);
        let context = |kind, owner| Context { kind, owner };
        let sealed = ring.seal(context("ab", "c"), b"x").unwrap();
        for (kind, owner) in [("a", "bc"), ("abc", ""), ("ab", "d"), ("c", "ab")] {
            let opened = ring.open(context(kind, owner), &sealed);
            assert_eq!(opened, Err(SealError::Refused), "{kind} {owner}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_what_was_changed_does_not(
            secret in prop::collection::vec(any::<u8>(), 0..200),
            kind in ".{0,8}", owner in ".{0,8}", at: prop::sample::Index, bit in 0_u8..8,
        ) {
            let ring = ring(&["a"]);
            let context = Context { kind: &kind, owner: &owner };
            let sealed = ring.seal(context, &secret).unwrap();
            prop_assert_eq!(ring.open(context, &sealed).unwrap(), secret.clone());
            prop_assert_ne!(ring.seal(context, &secret).unwrap(), sealed.clone());
            let (head, text) = sealed.rsplit_once('.').unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let changed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert_eq!(ring.open(context, &changed), Err(SealError::Refused));
        }

        #[test]
        fn any_text_is_refused(text in ".{0,60}") {
            prop_assert!(ring(&["a"]).open(OF_ANN, &text).is_err());
            let framed = format!("v1.a.{text}");
            prop_assert!(ring(&["a"]).open(OF_ANN, &framed).is_err());
        }
    }
}
