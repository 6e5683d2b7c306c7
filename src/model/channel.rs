use std::{borrow::Borrow, fmt, sync::Arc};

use super::AppId;

/// The longest channel name, in bytes of UTF-8.
pub const MAX_CHANNEL_BYTES: usize = 255;

/// The public name of a channel within its app: 1 to [`MAX_CHANNEL_BYTES`] bytes of UTF-8 without
/// control characters. What stands before the first `:` is its namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Why a text is not a channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannel {
    /// The name has no bytes.
    #[error("channel name is empty")]
    Empty,
    /// The name has more than [`MAX_CHANNEL_BYTES`] bytes.
    #[error("channel name is longer than {MAX_CHANNEL_BYTES} bytes")]
    TooLong,
    /// The name holds a control character.
    #[error("channel name holds a control character")]
    Control,
    /// The name is `:rest`, or `namespace:` with nothing behind it.
    #[error("channel name has an empty part beside its first ':'")]
    EmptyPart,
}

impl ChannelName {
    /// Validates `text` as a channel name.
    pub fn new(text: &str) -> Result<Self, InvalidChannel> {
        if text.is_empty() {
            return Err(InvalidChannel::Empty);
        }
        if text.len() > MAX_CHANNEL_BYTES {
            return Err(InvalidChannel::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidChannel::Control);
        }
        match text.split_once(':') {
            Some(("", _) | (_, "")) => Err(InvalidChannel::EmptyPart),
            _ => Ok(Self(text.into())),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace: what stands before the first `:`; empty if the name has none.
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// What stands behind the namespace: the whole name if it has none.
    pub fn rest(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, rest)| rest)
    }
}

// They are equal, ordered and hashed as the text is.
impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A channel of an app: the key of every map that holds channels, so that the same name in two
/// apps never meets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChannelKey {
    /// The tenant.
    pub app: AppId,
    /// The channel's name within the app.
    pub name: ChannelName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_ends_at_the_first_colon() {
        for (name, namespace, rest) in [
            ("chat:room.1", "chat", "room.1"),
            ("chat:a:b", "chat", "a:b"),
            ("plain", "", "plain"),
            ("chat::", "chat", ":"),
        ] {
            let channel = ChannelName::new(name).unwrap();
            assert_eq!((channel.namespace(), channel.rest()), (namespace, rest), "{name}");
        }
    }

    #[test]
    fn what_is_no_channel_name() {
        for (name, why) in [
            ("", InvalidChannel::Empty),
            ("a\nb", InvalidChannel::Control),
            ("a\u{0}", InvalidChannel::Control),
            (":x", InvalidChannel::EmptyPart),
            ("x:", InvalidChannel::EmptyPart),
            (&"é".repeat(128), InvalidChannel::TooLong),
        ] {
            assert_eq!(ChannelName::new(name), Err(why), "{name:?}");
        }
    }
}
