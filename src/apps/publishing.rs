use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    config::LimitsConfig,
    limits::{Gcra, Keyed, Quota},
    model::{ChannelName, Rule},
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

/// How fast an app may publish on this node.
#[derive(Debug)]
pub(super) struct Publishing {
    messages: Gcra,
    bytes: Gcra,
    /// By namespace, where a namespace has a rate.
    channels: HashMap<String, Keyed<ChannelName>>,
}

impl Publishing {
    pub(super) fn new(limits: &LimitsConfig, namespaces: &[(String, Rule)]) -> Self {
        let limited = namespaces.iter().filter(|(_, rule)| rule.rate > 0);
        let channels = limited.map(|(name, rule)| {
            let quota = a_second_at_once(rule.rate.into());
            (name.clone(), Keyed::new(quota, limits.rate_channels))
        });
        let messages = match (limits.publish_rate, limits.publish_burst) {
            (rate, 0) => a_second_at_once(rate.into()),
            (rate, burst) => Quota::new(rate.into(), burst.into()),
        };
        Self {
            messages: Gcra::new(messages),
            bytes: Gcra::new(a_second_at_once(limits.publish_bytes)),
            channels: channels.collect(),
        }
    }

    pub(super) fn admit(
        &mut self,
        channel: &ChannelName,
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
        self.messages
            .peek(now, count)
            .map_err(refused(Limit::PublishRate))?;
        self.bytes
            .check(now, bytes)
            .map_err(refused(Limit::PublishBytes))?;
        self.messages
            .check(now, count)
            .map_err(refused(Limit::PublishRate))?;
        match &mut own {
            Some(own) => own
                .check(channel, now, count)
                .map_err(refused(Limit::ChannelRate)),
            None => Ok(()),
        }
    }
}

/// `rate` a second, and what comes in a second may come at once: whoever sends in batches is held to
/// the same rate as who does not.
fn a_second_at_once(rate: u64) -> Quota {
    Quota::new(rate, rate)
}
