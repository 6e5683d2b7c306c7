use bytes::Bytes;

use super::{Generation, NEVER};
use crate::{
    model::{ChannelName, Position},
    protocol::ErrorCode,
};

/// The subscriptions of one connection: a vector sorted by channel, since most connections have one
/// to a dozen and a map's spare room would cost an idle connection more than all else here.
#[derive(Debug)]
pub(super) struct Subscriptions {
    sorted: Vec<Subscription>,
    next_expiry: u64,
    last_generation: u32,
}

/// One subscription. There is one for each channel of each connection: keep it small.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: ChannelName,
    pub(super) state: State,
    /// When it must have been refreshed, grace included; [`NEVER`] if it need not be.
    pub(super) until: u64,
    pub(super) generation: Generation,
    /// Made by the server, not asked for.
    pub(super) server_side: bool,
    /// Vouched for by a token: its own, or the connection's.
    pub(super) by_token: bool,
    /// `info` of its token: raw JSON.
    pub(super) info: Option<Box<Bytes>>,
}

#[derive(Debug)]
pub(super) enum State {
    /// Its token is being verified.
    Verifying(Box<PendingSubscribe>),
    /// The owner has been told to join.
    Joining { id: u32 },
    /// Joined, and the client has been told so.
    Active,
}

/// What a subscribe asked for, while its token is verified.
#[derive(Debug)]
pub(super) struct PendingSubscribe {
    pub(super) id: u32,
    pub(super) recover: Option<Position>,
    pub(super) reject_unrecovered: bool,
    /// It wants to be told of joins and leaves.
    pub(super) join_leave: bool,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            sorted: Vec::new(),
            next_expiry: NEVER,
            last_generation: 0,
        }
    }
}

impl Subscriptions {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.sorted.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.sorted.iter_mut()
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = Subscription> {
        self.sorted.into_iter()
    }

    /// The subscription to `channel`.
    pub(super) fn find(&self, channel: &str) -> Option<&Subscription> {
        self.search(channel).ok().map(|at| &self.sorted[at])
    }

    /// The subscription to `channel`, if it is still that of `generation`.
    pub(super) fn get(&mut self, channel: &str, generation: Generation) -> Option<&mut Subscription> {
        let at = self.search(channel).ok()?;
        Some(&mut self.sorted[at]).filter(|subscription| subscription.generation == generation)
    }

    /// Adds a subscription, without expiry. `Err` if there is one to this channel, or too many.
    pub(super) fn add(
        &mut self,
        channel: ChannelName,
        state: State,
        max: usize,
    ) -> Result<&mut Subscription, ErrorCode> {
        let Err(at) = self.search(channel.as_str()) else {
            return Err(ErrorCode::AlreadySubscribed);
        };
        if self.sorted.len() >= max {
            return Err(ErrorCode::LimitExceeded);
        }
        self.last_generation = self.last_generation.wrapping_add(1);
        let subscription = Subscription {
            channel,
            state,
            until: NEVER,
            generation: Generation(self.last_generation),
            server_side: false,
            by_token: false,
            info: None,
        };
        if self.sorted.is_empty() {
            self.sorted.reserve_exact(1);
        }
        self.sorted.insert(at, subscription);
        Ok(&mut self.sorted[at])
    }

    pub(super) fn remove(&mut self, channel: &str) -> Option<Subscription> {
        let at = self.search(channel).ok()?;
        let removed = self.sorted.remove(at);
        if self.sorted.is_empty() {
            self.sorted = Vec::new();
        }
        if removed.until == self.next_expiry {
            self.next_expiry = self.sorted.iter().map(|left| left.until).min().unwrap_or(NEVER);
        }
        Some(removed)
    }

    /// Sets when the subscription at hand must have been refreshed.
    pub(super) fn set_expiry(&mut self, channel: &str, until: u64) {
        if let Ok(at) = self.search(channel) {
            self.sorted[at].until = until;
            self.next_expiry = self.sorted.iter().map(|each| each.until).min().unwrap_or(NEVER);
        }
    }

    /// When the first of them expires; [`NEVER`] if none does.
    pub(super) fn next_expiry(&self) -> u64 {
        self.next_expiry
    }

    /// One that has expired.
    pub(super) fn expired(&self, now: u64) -> Option<(ChannelName, Generation)> {
        if now < self.next_expiry {
            return None;
        }
        let expired = self
            .sorted
            .iter()
            .find(|subscription| subscription.until <= now)?;
        Some((expired.channel.clone(), expired.generation))
    }

    fn search(&self, channel: &str) -> Result<usize, usize> {
        self.sorted
            .binary_search_by(|each| each.channel.as_str().cmp(channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 3: at most 6 KiB for an idle connection, of which this is a small part.
    #[test]
    fn a_subscription_is_small() {
        assert!(size_of::<Subscription>() <= 64, "{}", size_of::<Subscription>());
    }
}
