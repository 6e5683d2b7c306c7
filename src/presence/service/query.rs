//! Who is there: for clients, and for backends on any node.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{Presence, PresenceError, channels::Entry, key};
use crate::{
    model::{AppId, ChannelKey, ChannelName, NodeId},
    presence::member::Member,
    telemetry::Limit,
};

/// A page of a channel's members.
#[derive(Clone, Debug, Default)]
pub struct MembersPage {
    /// By connection, in the order of their ids.
    pub members: Vec<Arc<Member>>,
    /// How many connections there are in all.
    pub connections: usize,
    /// How many users there are in all.
    pub users: usize,
    /// Where the next page begins: behind this connection. `None` = this is the last page.
    pub next: Option<Box<str>>,
    /// Whether all nodes have been heard. If not, there may be more members.
    pub complete: bool,
    /// The nodes that have not.
    pub missing: Vec<NodeId>,
}

/// How many are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections.
    pub connections: usize,
    /// Users; all anonymous ones are one.
    pub users: usize,
    /// Whether all nodes have been heard.
    pub complete: bool,
    /// The nodes that have not.
    pub missing: Vec<NodeId>,
}

/// Keeps a channel known while its members are waited for.
struct Query<'a> {
    presence: &'a Presence,
    key: ChannelKey,
}

impl Presence {
    /// The members of a channel behind the connection `after`, at most `limit`. A node that knows nothing
    /// of the channel asks the others first, for at most `presence.query_timeout`.
    ///
    /// # Errors
    ///
    /// [`PresenceError::TooManyChannels`].
    pub async fn members(
        self: &Arc<Self>,
        app: &AppId,
        channel: &ChannelName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<MembersPage, PresenceError> {
        let query = self.query(app, channel)?;
        query.complete().await;
        Ok(query.with(|entry, known| {
            let behind = |member: &&Arc<Member>| after.is_none_or(|after| *member.client > *after);
            let mut members: Vec<_> = entry.view.members().filter(behind).cloned().collect();
            // Only the page is put in order.
            let more = members.len() > limit;
            if more && limit > 0 {
                members.select_nth_unstable_by(limit - 1, |a, b| a.client.cmp(&b.client));
            }
            members.truncate(limit);
            members.sort_unstable_by(|a, b| a.client.cmp(&b.client));
            MembersPage {
                next: members.last().filter(|_| more).map(|last| last.client.clone()),
                members,
                connections: entry.view.connections(),
                users: entry.view.users(),
                complete: known && entry.view.is_complete(),
                missing: entry.view.missing(),
            }
        }))
    }

    /// How many members a channel has, in the same way.
    ///
    /// # Errors
    ///
    /// [`PresenceError::TooManyChannels`].
    pub async fn stats(self: &Arc<Self>, app: &AppId, channel: &ChannelName) -> Result<Stats, PresenceError> {
        let query = self.query(app, channel)?;
        query.complete().await;
        Ok(query.with(|entry, known| Stats {
            connections: entry.view.connections(),
            users: entry.view.users(),
            complete: known && entry.view.is_complete(),
            missing: entry.view.missing(),
        }))
    }

    fn query(self: &Arc<Self>, app: &AppId, channel: &ChannelName) -> Result<Query<'_>, PresenceError> {
        let key = key(app, channel);
        let known = self.channels.with_new(self, &key, |entry| entry.queries += 1);
        known.map_err(|error| self.refused(app, Limit::PresenceChannels, error))?;
        Ok(Query { presence: self, key })
    }
}

impl Query<'_> {
    /// Waits until all nodes have been heard, or the time for it is over.
    async fn complete(&self) {
        let until = Instant::now() + self.presence.config.query_timeout;
        loop {
            let heard = self
                .presence
                .channels
                .with(&self.key, |entry| entry.heard.clone());
            let Some(heard) = heard else { return };
            let more = heard.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            let complete = self
                .presence
                .channels
                .with(&self.key, |entry| entry.view.is_complete());
            if complete != Some(false) || timeout_at(until, more).await.is_err() {
                return;
            }
        }
    }

    fn with<T: Default>(&self, read: impl FnOnce(&Entry, bool) -> T) -> T {
        // Without a connection nobody knows what the others hold by now.
        let known = self.presence.nodes.is_current() && self.presence.log.connected();
        let entry = self.presence.channels.with(&self.key, |entry| read(entry, known));
        entry.unwrap_or_default()
    }
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        self.presence.channels.with(&self.key, |entry| {
            entry.queries -= 1;
            entry.touch();
        });
    }
}
