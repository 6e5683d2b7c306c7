use std::sync::Arc;

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use super::unix_now;
use crate::config::Secret;

/// The keys of an app's backends. Only their hashes are kept: a comparison then takes the same time
/// whatever was presented, its length included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeys(Vec<ApiKey>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ApiKey {
    hash: KeyHash,
    /// What it is called; a key of the configuration is called nothing.
    id: Option<Arc<str>>,
    /// Seconds since 1970 until which it is good; `None` = for good.
    until: Option<i64>,
}

/// The SHA-256 of a key's text.
pub type KeyHash = [u8; 32];

impl ApiKeys {
    /// Accepts these keys.
    pub fn new(keys: &[Secret]) -> Self {
        keys.iter().map(|key| (None, hash(key.expose()), None)).collect()
    }

    /// Those of them that `until` has a time for: until when each is good from now on.
    #[must_use]
    pub fn only(&self, until: impl Fn(&KeyHash) -> Option<Option<i64>>) -> Self {
        let kept = self.0.iter().filter_map(|key| {
            Some(ApiKey {
                until: until(&key.hash)?,
                ..key.clone()
            })
        });
        Self(kept.collect())
    }

    /// The hashes of the keys, also of those that are good no more.
    pub fn hashes(&self) -> impl Iterator<Item = KeyHash> {
        self.0.iter().map(|key| key.hash)
    }

    /// What the key with this hash is called, if it is called anything.
    pub fn id_of(&self, hash: &KeyHash) -> Option<&Arc<str>> {
        let key = self.0.iter().find(|key| key.hash == *hash)?;
        key.id.as_ref()
    }

    /// Whether `presented` is one of the keys. All are compared, so that the time does not tell
    /// which one matched.
    pub fn accept(&self, presented: &PresentedKey) -> bool {
        let good = |key: &ApiKey| {
            verify_slices_are_equal(&key.hash, &presented.0).is_ok()
                & key.until.is_none_or(|until| until > unix_now())
        };
        self.0.iter().fold(false, |found, key| found | good(key))
    }
}

/// A key: what it is called, its hash, and until when it is good, seconds since 1970.
type KeyParts = (Option<Arc<str>>, KeyHash, Option<i64>);

impl FromIterator<KeyParts> for ApiKeys {
    fn from_iter<I: IntoIterator<Item = KeyParts>>(keys: I) -> Self {
        let keys = keys.into_iter();
        let keys = keys.map(|(id, hash, until)| ApiKey { hash, id, until });
        Self(keys.collect())
    }
}

/// A key that a request presents, hashed once for all apps that it may belong to.
#[derive(Clone, Copy, Debug)]
pub struct PresentedKey(KeyHash);

impl PresentedKey {
    /// Of the key's text.
    pub fn new(text: &str) -> Self {
        Self(hash(text))
    }

    /// Its hash.
    pub fn hash(&self) -> KeyHash {
        self.0
    }
}

fn hash(text: &str) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

/// The key that a request presents: in `X-API-Key`, or in `Authorization` with the scheme `apikey` or
/// `Bearer` in any case (RFC 9110, section 11.1). `X-API-Key` wins. `None` if there is none.
pub fn presented_key<'a>(authorization: Option<&'a str>, x_api_key: Option<&'a str>) -> Option<&'a str> {
    let from_authorization = || {
        let (scheme, key) = authorization?.trim().split_once(' ')?;
        let known = ["apikey", "bearer"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known));
        known.then_some(key)
    };
    x_api_key
        .or_else(from_authorization)
        .map(str::trim)
        .filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_or_not() {
        let keys = ApiKeys::new(&[Secret::new("one"), Secret::new("two")]);
        for (presented, accepted) in [
            ("one", true),
            ("two", true),
            ("", false),
            ("on", false),
            ("ONE", false),
        ] {
            assert_eq!(
                keys.accept(&PresentedKey::new(presented)),
                accepted,
                "{presented}"
            );
        }
        assert!(!ApiKeys::new(&[]).accept(&PresentedKey::new("")));
    }

    #[test]
    fn a_key_is_good_until_its_time() {
        let keys: ApiKeys = [
            (
                Some("o".into()),
                PresentedKey::new("old").hash(),
                Some(unix_now() - 1),
            ),
            (None, PresentedKey::new("new").hash(), Some(unix_now() + 60)),
        ]
        .into_iter()
        .collect();
        assert!(!keys.accept(&PresentedKey::new("old")) && keys.accept(&PresentedKey::new("new")));
        let id_of = |text| keys.id_of(&PresentedKey::new(text).hash()).map(|id| &**id);
        assert_eq!((id_of("old"), id_of("new"), id_of("x")), (Some("o"), None, None));
    }

    #[test]
    fn where_a_key_is_presented() {
        for (authorization, x_api_key, key) in [
            (None, Some("k"), Some("k")),
            (Some("apikey k"), None, Some("k")),
            (Some("APIKEY  k "), None, Some("k")),
            (Some("Bearer k"), None, Some("k")),
            (Some("bearer other"), Some("k"), Some("k")),
            (Some("Basic k"), None, None),
            (Some("k"), None, None),
            (Some("apikey "), None, None),
            (None, Some(" "), None),
            (None, None, None),
        ] {
            assert_eq!(
                presented_key(authorization, x_api_key),
                key,
                "{authorization:?} {x_api_key:?}"
            );
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let debug = format!("{:?}", ApiKeys::new(&[Secret::new("planted")]));
        assert!(!debug.contains("planted"), "{debug}");
    }
}
