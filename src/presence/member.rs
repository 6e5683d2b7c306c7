use bytes::Bytes;

/// A connection on a channel, as others see it. Shared by all who know of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    /// The connection.
    pub client: Box<str>,
    /// Its user; empty = anonymous.
    pub user: Box<str>,
    /// When it came, ms since 1970 by its node's clock; no two of a node came at the same time. Given by
    /// [`Presence::admit`](super::Presence::admit).
    pub joined_ms: u64,
    /// Raw JSON of its connection token.
    pub conn_info: Option<Bytes>,
    /// Raw JSON of its subscription token.
    pub chan_info: Option<Bytes>,
    /// Raw JSON that it has set itself.
    pub state: Option<Bytes>,
}

impl Member {
    /// The bytes of what it shows, its names not counted.
    pub fn info_bytes(&self) -> usize {
        [&self.conn_info, &self.chan_info]
            .into_iter()
            .flatten()
            .map(Bytes::len)
            .sum()
    }

    /// About how many bytes it takes in a message.
    pub fn size(&self) -> usize {
        let state = self.state.as_ref().map_or(0, Bytes::len);
        48 + self.client.len() + self.user.len() + self.info_bytes() + state
    }

    /// Whether it came after another, in an order that all nodes share.
    pub fn came_after(&self, other: &Self) -> bool {
        (self.joined_ms, &self.client) > (other.joined_ms, &other.client)
    }

    /// The same member that shows something else.
    pub fn showing(&self, shown: Shown) -> Self {
        let mut member = self.clone();
        match shown {
            Shown::Connection(info) => member.conn_info = info,
            Shown::Subscription(info) => member.chan_info = info,
            Shown::State(state) => member.state = state,
        }
        member
    }
}

/// What a member shows: raw JSON, or nothing.
#[derive(Clone)]
pub enum Shown {
    /// Of its connection.
    Connection(Option<Bytes>),
    /// Of its subscription.
    Subscription(Option<Bytes>),
    /// What it has set itself.
    State(Option<Bytes>),
}

// What users put into tokens and states is not for logs.
impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) fn test_member(client: &str, user: &str) -> std::sync::Arc<Member> {
    std::sync::Arc::new(Member {
        client: client.into(),
        user: user.into(),
        joined_ms: 0,
        conn_info: None,
        chan_info: None,
        state: None,
    })
}
