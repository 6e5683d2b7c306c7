use std::{borrow::Borrow, fmt, sync::Arc};

use super::{Compatibility, Overflow, SchemaVersion};

/// The name of a retention class: 1 to 16 of `a-z 0-9`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassName(Arc<str>);

impl ClassName {
    /// Validates `text` as the name of a retention class.
    pub fn new(text: &str) -> Option<Self> {
        let valid = matches!(text.len(), 1..=16)
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        valid.then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ClassName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether and where a namespace's channels keep history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// Ephemeral: core NATS, at most once, no offsets.
    None,
    /// Durable, in the streams of this retention class.
    Class(ClassName),
}

/// Who may do something to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every connection, also an anonymous one.
    Anyone,
    /// A connection with a user.
    Authenticated,
    /// Who holds a subscription token for this channel (or a server-side subscription to it).
    Token,
    /// Who is subscribed to this channel.
    Subscriber,
    /// No connection: backends only.
    Nobody,
}

/// Who hears of joins and leaves of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinLeave {
    /// Nobody.
    None,
    /// Subscribers that ask for it.
    Wanted,
    /// All subscribers.
    All,
}

/// The settings of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether its channels are logs, and of which retention.
    pub history: History,
    /// Whether subscriptions resume from a position. Needs history.
    pub recovery: bool,
    /// Who may subscribe.
    pub subscribe: Access,
    /// Which connections may publish.
    pub publish: Access,
    /// Which connections may read history.
    pub read_history: Access,
    /// Whether subscribers are members that others can see.
    pub presence: bool,
    /// Which connections may see who is a member.
    pub read_presence: Access,
    /// Who hears of joins and leaves. Needs `presence`.
    pub join_leave: JoinLeave,
    /// Whether a name that ends in `#` and users, with commas between them, is for these users alone.
    pub user_limited: bool,
    /// The largest payload, in bytes.
    pub max_size: usize,
    /// Publications a second and channel that are accepted; 0 = as many as the app may.
    pub rate: u32,
    /// What becomes of a publication that comes too soon for a rate.
    pub overflow: Overflow,
    /// What new versions of its schema have to do with those before.
    pub schema_compatibility: Compatibility,
    /// The versions of the schema that payloads are valid by, ascending; none = any payload will do.
    pub schemas: Vec<SchemaVersion>,
}

impl Rule {
    /// The users that a channel is for, if its name limits them.
    pub fn users_of<'a>(&self, channel: &'a str) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        let (_, users) = channel.rsplit_once('#').filter(|_| self.user_limited)?;
        Some(users.split(',').filter(|user| !user.is_empty()))
    }
}
