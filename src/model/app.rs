use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The id of an app (a tenant): 1 to 32 of `a-z 0-9 - _`, starting with a letter or digit.
///
/// The alphabet is a subset of what a NATS subject token and a KV key may hold, so an id is never
/// escaped anywhere and no two ids can meet by escaping.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppId(Arc<str>);

/// Why a text is not an app id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an app id is 1 to 32 of a-z, 0-9, '-' and '_', and starts with a letter or digit")]
pub struct InvalidAppId;

impl AppId {
    /// The id that no app may have: that of connections which have not named their app yet.
    pub const UNNAMED: &str = "unnamed";

    /// [`AppId::UNNAMED`] as an id.
    pub fn unnamed() -> Self {
        Self(Self::UNNAMED.into())
    }

    /// Validates `text` as an app id.
    pub fn new(text: &str) -> Result<Self, InvalidAppId> {
        let bytes = text.as_bytes();
        let valid = matches!(bytes.len(), 1..=32)
            && bytes[0].is_ascii_alphanumeric()
            && bytes
                .iter()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAppId)
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AppId {
    type Error = InvalidAppId;
    fn try_from(text: String) -> Result<Self, InvalidAppId> {
        Self::new(&text)
    }
}

impl From<AppId> for String {
    fn from(id: AppId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl Borrow<str> for AppId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_id_is_a_short_plain_token() {
        for good in ["dev", "a", "0", "a-b_c", &"x".repeat(32)] {
            assert!(AppId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a.b", "a b", "a*", "ü", &"x".repeat(33)] {
            assert_eq!(AppId::new(bad), Err(InvalidAppId), "{bad}");
        }
    }
}
