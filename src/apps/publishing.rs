use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    config::LimitsConfig,
    limits::{Gcra, Keyed, Quota},
    model::{ChannelName, Rule},
    quota::{Allowance, Over},
    telemetry::{Label, Limit},
};

/// Refused because a rate is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many publications: over the limit {}", limit.as_str())]
pub struct Throttled {
    /// Which rate.
    pub limit: Limit,
    /// When it would be admitted, if nothing else comes.
    pub retry_after: Duration,
}

impl From<Over> for Throttled {
    fn from(over: Over) -> Self {
        Self {
            limit: over.limit,
            retry_after: over.retry_after,
        }
    }
}

/// How fast an app may publish on this node.
#[derive(Debug)]
pub(super) struct Publishing {
    messages: Gcra,
    bytes: Gcra,
    /// By namespace, where a namespace has a rate.
    channels: HashMap<String, Keyed<ChannelName>>,
    users: Option<Keyed<String>>,
}

impl Publishing {
    pub(super) fn new(limits: &LimitsConfig, namespaces: &[(String, Rule)]) -> Self {
        let limited = namespaces.iter().filter(|(_, rule)| rule.rate > 0);
        let channels = limited.map(|(name, rule)| {
            let quota = Quota::a_second_at_once(rule.rate.into());
            (name.clone(), Keyed::new(quota, limits.rate_channels))
        });
        let messages = match (limits.publish_rate, limits.publish_burst) {
            (rate, 0) => Quota::a_second_at_once(rate.into()),
            (rate, burst) => Quota::new(rate.into(), burst.into()),
        };
        let users = (limits.user_publish_rate > 0).then(|| {
            let quota = Quota::a_second_at_once(limits.user_publish_rate.into());
            Keyed::new(quota, limits.rate_users)
        });
        Self {
            users,
            messages: Gcra::new(messages),
            bytes: Gcra::new(Quota::a_second_at_once(limits.publish_bytes)),
            channels: channels.collect(),
        }
    }

    /// What the app's rate allows.
    pub(super) fn allowance(&self, now: Instant) -> Allowance {
        let (remaining, reset) = self.messages.room(now);
        Allowance {
            limit: self.messages.quota().burst(),
            remaining,
            reset,
        }
    }

    pub(super) fn admit(
        &mut self,
        channel: &ChannelName,
        by: Option<&str>,
        count: u64,
        bytes: u64,
        now: Instant,
    ) -> Result<(), Throttled> {
        let refused = |limit| move |retry_after| Throttled { limit, retry_after };
        let mut own = self.channels.get_mut(channel.namespace());
        // All are asked before any is charged.
        if let Some(own) = &own {
            let limit = if own.shares(channel) {
                Limit::RateChannels
            } else {
                Limit::ChannelRate
            };
            own.peek(channel, now, count).map_err(refused(limit))?;
        }
        let mut user = self.users.as_mut().zip(by);
        if let Some((users, by)) = &user {
            let limit = if users.shares(*by) {
                Limit::RateUsers
            } else {
                Limit::UserPublishRate
            };
            users.peek(*by, now, count).map_err(refused(limit))?;
        }
        self.messages
            .peek(now, count)
            .map_err(refused(Limit::PublishRate))?;
        self.bytes
            .check(now, bytes)
            .map_err(refused(Limit::PublishBytes))?;
        self.messages
            .check(now, count)
            .map_err(refused(Limit::PublishRate))?;
        if let Some((users, by)) = &mut user {
            users
                .check(*by, now, count)
                .map_err(refused(Limit::UserPublishRate))?;
        }
        match &mut own {
            Some(own) => own
                .check(channel, now, count)
                .map_err(refused(Limit::ChannelRate)),
            None => Ok(()),
        }
    }
}
