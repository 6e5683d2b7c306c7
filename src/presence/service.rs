//! The presence of a node: joins, leaves and queries, over pure owners and views.
//!
//! **Locks.** A shard of channels is locked for short steps; within it mailboxes are (events are queued in
//! the order in which they are seen). The lists of what is to be told and asked are leaves.

mod asking;
mod channels;
mod hearing;
mod query;
mod rounds;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant as StdInstant, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::{asking::Asking, channels::Channels, hearing::Partitions, rounds::Lost};
use super::{
    member::{Member, Shown},
    view::Seen,
};
use crate::{
    channel::Mailbox,
    cluster::Nodes,
    config::PresenceConfig,
    limits::{Gcra, Quota},
    log::Log,
    model::{AppId, ChannelKey, ChannelName},
    protocol::json,
    task::Tasks,
    telemetry::{DropReason, Limit, Metrics},
};

pub use query::{MembersPage, Stats};

/// Presence as this node knows it. One per node.
pub struct Presence {
    nodes: Arc<Nodes>,
    log: Arc<dyn Log>,
    config: PresenceConfig,
    encoders: Encoders,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    channels: Channels,
    /// The last version that was given to a delta: one sequence over all channels.
    version: AtomicU64,
    /// Another node has asked this one: there are others.
    asked: AtomicBool,
    /// Channels with something to tell.
    changed: Mutex<Vec<ChannelKey>>,
    wake_flush: tokio::sync::Notify,
    asking: Asking,
    partitions: Partitions,
    lost: Mutex<Lost>,
    started: Instant,
    /// What [`Presence::stamp`] gave last.
    stamped: AtomicU64,
}

/// How events become frames. Presence does not know the dialects.
#[derive(Clone, Copy, Debug)]
pub struct Encoders {
    /// A member has come.
    pub join: fn(&ChannelName, &Member) -> Bytes,
    /// A member has gone.
    pub leave: fn(&ChannelName, &Member) -> Bytes,
    /// A member shows something else.
    pub update: fn(&ChannelName, &Member) -> Bytes,
}

/// Why somebody is not a member, or shows nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// As many members as the channel may have.
    #[error("the channel has as many members as it may have")]
    TooManyMembers,
    /// As many channels as the node may know the members of.
    #[error("the node knows the members of as many channels as it may")]
    TooManyChannels,
    /// What its tokens say of it is too much.
    #[error("the member's info is too large")]
    InfoTooLarge,
    /// Its state is too much.
    #[error("the member's state is too large")]
    StateTooLarge,
    /// It shows another state too often.
    #[error("the member's state changes too often")]
    TooOften,
}

/// A connection that is about to be a member of a channel. Dropped, it gives its place back.
pub struct Admitted {
    presence: Arc<Presence>,
    key: ChannelKey,
    member: Arc<Member>,
}

/// A connection that is a member of a channel. Dropped, the connection counts as lost: it stays for the
/// grace time, in case its user comes back.
pub struct Membership {
    presence: Arc<Presence>,
    key: ChannelKey,
    client: Box<str>,
    rate: Gcra,
    left: bool,
    /// Declared last: a member that leaves hears nothing of it.
    _listening: Option<Listening>,
}

/// A connection that hears of a channel's members. Dropped, it does not any more.
pub struct Listening {
    presence: Arc<Presence>,
    key: ChannelKey,
    slot: usize,
}

impl Presence {
    /// Begins to hear other nodes, and to tell them.
    pub async fn start(
        nodes: Arc<Nodes>,
        log: Arc<dyn Log>,
        config: &PresenceConfig,
        encoders: Encoders,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let presence = Arc::new(Self {
            nodes,
            log,
            config: config.clone(),
            encoders,
            metrics,
            tasks: tasks.clone(),
            channels: Channels::default(),
            version: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            changed: Mutex::default(),
            wake_flush: tokio::sync::Notify::new(),
            asking: Asking::default(),
            partitions: Partitions::default(),
            lost: Mutex::default(),
            started: Instant::now(),
            stamped: AtomicU64::new(0),
        });
        hearing::start(&presence).await;
        asking::start(&presence);
        rounds::start(&presence);
        presence
    }

    /// Keeps a place for a connection that is about to become a member, one of `most` of the channel if the
    /// app's quota says so.
    ///
    /// # Errors
    ///
    /// [`PresenceError`]; the connection cannot become one now.
    pub fn admit(
        self: &Arc<Self>,
        app: &AppId,
        channel: &ChannelName,
        member: Member,
        most: Option<u64>,
    ) -> Result<Admitted, PresenceError> {
        if !self.takes(&member) {
            return Err(self.refused(app, Limit::PresenceInfo, PresenceError::InfoTooLarge));
        }
        let key = key(app, channel);
        let own = self.config.max_members;
        let quota = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let has_room = self.channels.with_new(self, &key, |entry| {
            let has_room = entry.view.connections() + entry.admitted < own.min(quota);
            entry.admitted += usize::from(has_room);
            has_room
        });
        match has_room {
            Ok(true) => Ok(Admitted {
                presence: self.clone(),
                key,
                member: Arc::new(Member {
                    joined_ms: self.stamp(),
                    ..member
                }),
            }),
            Ok(false) => {
                let error = PresenceError::TooManyMembers;
                let limit = if quota < own {
                    Limit::QuotaPresenceMembers
                } else {
                    Limit::PresenceMembers
                };
                Err(self.refused(app, limit, error))
            }
            Err(error) => Err(self.refused(app, Limit::PresenceChannels, error)),
        }
    }

    /// Has a connection that is no member hear of those that are.
    ///
    /// # Errors
    ///
    /// [`PresenceError::TooManyChannels`].
    pub fn listen(
        self: &Arc<Self>,
        app: &AppId,
        channel: &ChannelName,
        mailbox: Arc<Mailbox>,
    ) -> Result<Listening, PresenceError> {
        let key = key(app, channel);
        let slot = self
            .channels
            .with_new(self, &key, |entry| entry.listeners.insert(mailbox));
        match slot {
            Ok(slot) => Ok(Listening {
                presence: self.clone(),
                key,
                slot,
            }),
            Err(error) => Err(self.refused(app, Limit::PresenceChannels, error)),
        }
    }

    /// How many members a client is told of one by one.
    pub fn max_answer_members(&self) -> usize {
        self.config.max_answer_members
    }

    fn refused(&self, app: &AppId, limit: Limit, error: PresenceError) -> PresenceError {
        self.metrics.app(app).limits_hit.of(limit).inc();
        error
    }

    /// Shows listeners what has happened, unless there are too many members for that.
    fn show(&self, key: &ChannelKey, entry: &channels::Entry, seen: &[Seen]) {
        if entry.listeners.is_empty() || entry.view.connections() > self.config.join_leave_max {
            return;
        }
        for seen in seen {
            let frame = match seen {
                Seen::Joined(member) => (self.encoders.join)(&key.name, member),
                Seen::Updated(member) => (self.encoders.update)(&key.name, member),
                Seen::Left(member) => (self.encoders.leave)(&key.name, member),
            };
            for (_, mailbox) in &entry.listeners {
                if !mailbox.spare(&frame) {
                    self.metrics.drops.of(DropReason::PresenceEvent).inc();
                }
            }
        }
    }

    /// The other nodes have to be told of a channel's changes.
    fn tell_later(&self, key: &ChannelKey, entry: &mut channels::Entry) {
        if entry.owner.has_changed() && !entry.telling {
            entry.telling = true;
            self.changed.lock().push(key.clone());
            self.wake_flush.notify_one();
        }
    }

    /// Whether what a member shows is within the bounds, its state not counted.
    fn takes(&self, member: &Member) -> bool {
        let mut shown = [&member.conn_info, &member.chan_info].into_iter().flatten();
        !shown.any(|info| is_too_deep(info)) && member.info_bytes() <= self.config.max_info_bytes
    }

    /// When a member comes: now, or just behind the one before it.
    fn stamp(&self) -> u64 {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let next = |last: u64| now.max(last.saturating_add(1));
        let stamped = &self.stamped;
        let last = stamped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.unwrap_or_else(|last| last))
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn leave(&self, key: &ChannelKey, client: &str) {
        self.channels.with(key, |entry| {
            let mut seen = Vec::new();
            if entry.owner.leave(client).is_some() {
                entry.view.remove_own(self.nodes.me().0, client, &mut seen);
                self.show(key, entry, &seen);
                self.tell_later(key, entry);
            }
        });
    }

    fn lose(&self, key: &ChannelKey, client: &str) {
        if self.config.grace.is_zero() {
            return self.leave(key, client);
        }
        let grace = u64::try_from(self.config.grace.as_millis()).unwrap_or(u64::MAX);
        let until = self.now().saturating_add(grace);
        let lingers = self.channels.with(key, |entry| entry.owner.linger(client, until));
        if lingers == Some(true) {
            self.lost.lock().push(until, key.clone(), client.into());
        }
    }
}

impl Admitted {
    /// Makes the connection a member, and has it hear of others if it `listens`: its own join is the first
    /// that it hears.
    pub fn join(self, listens: Option<Arc<Mailbox>>) -> Membership {
        let presence = &self.presence;
        let member = &self.member;
        let slot = presence.channels.with(&self.key, |entry| {
            let slot = listens.map(|mailbox| entry.listeners.insert(mailbox));
            let me = presence.nodes.me().0;
            let mut seen = Vec::new();
            entry.owner.put(member.clone());
            entry.view.put_own(me, member, &mut seen);
            for ended in entry.owner.end_lingering_of(member) {
                entry.view.remove_own(me, &ended.client, &mut seen);
            }
            presence.show(&self.key, entry, &seen);
            presence.tell_later(&self.key, entry);
            slot
        });
        let rate = u64::from(presence.config.state_rate);
        Membership {
            _listening: slot.flatten().map(|slot| Listening {
                presence: presence.clone(),
                key: self.key.clone(),
                slot,
            }),
            presence: presence.clone(),
            key: self.key.clone(),
            client: member.client.clone(),
            rate: Gcra::new(Quota::new(rate, rate)),
            left: false,
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.presence.channels.with(&self.key, |entry| {
            entry.admitted -= 1;
            entry.touch();
        });
    }
}

impl Membership {
    /// The member shows this from now on; `None` = nothing.
    ///
    /// # Errors
    ///
    /// [`PresenceError::StateTooLarge`], [`PresenceError::TooOften`].
    pub fn update_state(&mut self, state: Option<Bytes>) -> Result<(), PresenceError> {
        let presence = &self.presence;
        let state_bytes = state.as_ref().map_or(0, Bytes::len);
        if state_bytes > presence.config.max_state_bytes
            || state.as_ref().is_some_and(|state| is_too_deep(state))
        {
            let error = PresenceError::StateTooLarge;
            return Err(presence.refused(&self.key.app, Limit::PresenceState, error));
        }
        if self.rate.check(StdInstant::now(), 1).is_err() {
            let error = PresenceError::TooOften;
            return Err(presence.refused(&self.key.app, Limit::PresenceStateRate, error));
        }
        self.show(Shown::State(state));
        Ok(())
    }

    /// The member shows other information of its connection or subscription from now on.
    ///
    /// # Errors
    ///
    /// [`PresenceError::InfoTooLarge`]: it shows what it did.
    pub fn update_info(&mut self, shown: Shown) -> Result<(), PresenceError> {
        let presence = &self.presence;
        let known = presence.channels.with(&self.key, |entry| {
            let known = entry.owner.get(&self.client)?;
            Some(known.showing(shown.clone()))
        });
        let fits = known.flatten().is_none_or(|member| presence.takes(&member));
        if !fits {
            let error = PresenceError::InfoTooLarge;
            return Err(presence.refused(&self.key.app, Limit::PresenceInfo, error));
        }
        self.show(shown);
        Ok(())
    }

    fn show(&self, shown: Shown) {
        let presence = &self.presence;
        presence.channels.with(&self.key, |entry| {
            let Some(member) = entry.owner.get(&self.client).map(|known| known.showing(shown)) else {
                return;
            };
            let (member, mut seen) = (Arc::new(member), Vec::new());
            entry.owner.put(member.clone());
            entry.view.put_own(presence.nodes.me().0, &member, &mut seen);
            presence.show(&self.key, entry, &seen);
            presence.tell_later(&self.key, entry);
        });
    }

    /// The channel.
    pub fn channel(&self) -> &ChannelName {
        &self.key.name
    }

    /// Ends it at once: the connection is not lost, it leaves.
    pub fn leave(mut self) {
        self.left = true;
        // It hears nothing of its own leave.
        self._listening = None;
        self.presence.leave(&self.key, &self.client);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if !self.left {
            self.presence.lose(&self.key, &self.client);
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.presence.channels.with(&self.key, |entry| {
            entry.listeners.try_remove(self.slot);
            entry.touch();
        });
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.metrics.presence_channels.set(0);
    }
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence")
            .field("version", &self.version.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// What one member shows may not make a message unreadable that tells of others: parsers of JSON go no
/// deeper than 128, and it stands in some arrays and objects there.
fn is_too_deep(json: &[u8]) -> bool {
    const MAX_DEPTH: usize = 64;
    json::is_deeper_than(json, MAX_DEPTH)
}

fn key(app: &AppId, channel: &ChannelName) -> ChannelKey {
    ChannelKey {
        app: app.clone(),
        name: channel.clone(),
    }
}
