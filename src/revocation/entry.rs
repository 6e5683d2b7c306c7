use std::fmt;

use serde::{Deserialize, Serialize};

use crate::auth::token_id;

/// What tokens are revoked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Their id (`jti`).
    Token,
    /// Their user, if they were issued before a time.
    User,
    /// That they were issued before a time.
    Before,
    /// The key that they are signed with.
    Key,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Token, Self::User, Self::Before, Self::Key];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
            Self::Before => "before",
            Self::Key => "key",
        }
    }
}

/// Which entry of an app: there is one for each kind and value, and one of the kind [`Kind::Before`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// Its kind.
    pub kind: Kind,
    hash: [u8; 16],
}

impl EntryId {
    /// The entry for `value`, of which only a hash is kept.
    pub fn of(kind: Kind, value: &str) -> Self {
        match kind {
            Kind::Before => Self::BEFORE,
            _ => Self::hashed(kind, token_id(value)),
        }
    }

    /// The one entry of its kind.
    pub const BEFORE: Self = Self {
        kind: Kind::Before,
        hash: [0; 16],
    };

    /// The entry for the value with this hash.
    pub(super) fn hashed(kind: Kind, hash: [u8; 16]) -> Self {
        Self { kind, hash }
    }

    /// What [`EntryId`] is written as.
    pub fn parse(text: &str) -> Option<Self> {
        if text == Kind::Before.as_str() {
            return Some(Self::BEFORE);
        }
        let (kind, hex) = text.split_once('-')?;
        let kind = Kind::ALL.into_iter().find(|it| it.as_str() == kind)?;
        let plain = hex.len() == 32 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if kind == Kind::Before || !plain {
            return None;
        }
        let hash = u128::from_str_radix(hex, 16).ok()?.to_be_bytes();
        Some(Self { kind, hash })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Before => f.write_str("before"),
            kind => write!(f, "{}-{:032x}", kind.as_str(), u128::from_be_bytes(self.hash)),
        }
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Tokens of an app that are revoked. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What they are revoked by.
    pub kind: Kind,
    /// The token's id, the user, or the key; empty with [`Kind::Before`].
    #[serde(default)]
    pub value: String,
    /// With [`Kind::User`] and [`Kind::Before`]: only tokens issued before this time.
    #[serde(default)]
    pub before: i64,
    /// When all those tokens have expired by themselves: then this is forgotten.
    pub until: i64,
    /// When they were revoked.
    pub created: i64,
}

impl Entry {
    /// Which it is.
    pub fn id(&self) -> EntryId {
        EntryId::of(self.kind, &self.value)
    }

    /// Whether it still counts.
    pub fn holds(&self, now: i64) -> bool {
        now < self.until
    }

    /// The two in one: no token that either revokes is let in.
    #[must_use]
    pub fn merged(mut self, other: &Self) -> Self {
        self.before = self.before.max(other.before);
        self.until = self.until.max(other.until);
        self.created = self.created.max(other.created);
        self
    }

    /// Whether it revokes more than `other`, an entry with the same id.
    pub fn exceeds(&self, other: &Self) -> bool {
        self.before > other.before || self.until > other.until
    }
}

// Values name users and tokens.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("kind", &self.kind)
            .field("before", &self.before)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for (kind, value) in [
            (Kind::Token, "t1"),
            (Kind::User, ""),
            (Kind::User, "ünder.*>"),
            (Kind::Key, "k"),
            (Kind::Before, ""),
        ] {
            let id = EntryId::of(kind, value);
            assert_eq!(EntryId::parse(&id.to_string()), Some(id));
            assert_eq!(id.kind, kind);
        }
        let hex = "0123456789abcdef0123456789abcdef";
        for bad in [
            "",
            "token",
            "user-",
            "before-0",
            &format!("before-{hex}"),
            &format!("user-{}", hex.to_uppercase()),
            &format!("user-+{}", &hex[1..]),
            &format!("other-{hex}"),
            &format!("user-{hex}0"),
        ] {
            assert_eq!(EntryId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn merging_never_lets_a_token_in_again() {
        let entry = |before, until| Entry {
            kind: Kind::User,
            value: "ann".to_owned(),
            before,
            until,
            created: 0,
        };
        let (early, late) = (entry(5, 100), entry(9, 50));
        for (one, other) in [(&early, &late), (&late, &early)] {
            let merged = one.clone().merged(other);
            assert_eq!((merged.before, merged.until), (9, 100));
            assert!(merged.exceeds(one) && merged.exceeds(other));
            assert!(!one.exceeds(&merged) && !merged.exceeds(&merged));
        }
    }
}
