use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    config::LimitsConfig,
    limits::{ConductRules, Gcra, Keyed, Quota},
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

impl Throttled {
    /// Whether the rate is one of the app or the channel, which is cured by waiting. A user's own rate is
    /// there to keep the user from the others.
    pub fn can_wait(&self) -> bool {
        matches!(
            self.limit,
            Limit::PublishRate
                | Limit::PublishBytes
                | Limit::ChannelRate
                | Limit::RateChannels
                | Limit::QuotaMessages
        )
    }
}

/// A publication that is late, between two attempts to admit it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Late {
    /// It has waited for the app's rates, as long as it was told to.
    waited: bool,
}

impl Late {
    pub(super) fn has_waited(self) -> bool {
        self.waited
    }

    /// It waits for a rate that is shared by all nodes.
    pub(super) fn will_wait(&mut self) {
        self.waited = true;
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
    schema_work: Gcra,
}

impl Publishing {
    pub(super) fn new(limits: &LimitsConfig, namespaces: &[(String, Rule)], schema_work: u64) -> Self {
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
            schema_work: Gcra::new(Quota::a_second_at_once(schema_work)),
            messages: Gcra::new(messages),
            bytes: Gcra::new(Quota::a_second_at_once(limits.publish_bytes)),
            channels: channels.collect(),
        }
    }

    pub(super) fn admit_schema_work(&mut self, work: u64, now: Instant) -> Result<(), Throttled> {
        self.schema_work
            .check(now, work)
            .map_err(|retry_after| Throttled {
                limit: Limit::SchemaWork,
                retry_after,
            })
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

    /// Admits a publication of `bytes` that has been waiting. Once it has waited for the app's rates it is
    /// admitted, whatever has been meanwhile: who comes all the time must not keep it out for ever.
    pub(super) fn admit_late(
        &mut self,
        channel: &ChannelName,
        bytes: u64,
        late: &mut Late,
        now: Instant,
    ) -> Result<(), Throttled> {
        let refused = |limit| move |retry_after| Throttled { limit, retry_after };
        let mut own = self.channels.get_mut(channel.namespace());
        if let Some(own) = &own {
            own.peek(channel, now, 1)
                .map_err(refused(Limit::ChannelRate))
                .inspect_err(|_| late.waited = false)?;
        }
        if !std::mem::replace(&mut late.waited, true) {
            self.messages.peek(now, 1).map_err(refused(Limit::PublishRate))?;
            self.bytes
                .peek(now, bytes)
                .map_err(refused(Limit::PublishBytes))?;
        }
        self.messages.charge(now, 1);
        self.bytes.charge(now, bytes);
        match &mut own {
            Some(own) => own.check(channel, now, 1).map_err(refused(Limit::ChannelRate)),
            None => Ok(()),
        }
    }

    /// Admits `count` publications by the rate of the user `by` alone.
    pub(super) fn admit_user(&mut self, by: Option<&str>, count: u64, now: Instant) -> Result<(), Throttled> {
        let Some((users, by)) = self.users.as_mut().zip(by) else {
            return Ok(());
        };
        let limit = user_limit(users, by);
        let refused = |retry_after| Throttled { limit, retry_after };
        users.check(by, now, count).map_err(refused)
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
            let limit = user_limit(users, by);
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

/// How each connection of an app may behave.
pub(super) fn conduct(limits: &LimitsConfig) -> ConductRules {
    let (commands, refusals) = (limits.command_rate.into(), limits.max_refusals.into());
    ConductRules::new(commands, limits.command_bytes, refusals)
}

/// What a user meets: the own rate, or the one that those beyond the capacity share.
fn user_limit(users: &Keyed<String>, by: &str) -> Limit {
    match users.shares(by) {
        true => Limit::RateUsers,
        false => Limit::UserPublishRate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_neither_starved_nor_more_than_the_rate() {
        let limits = LimitsConfig {
            publish_rate: 10,
            publish_burst: 1,
            ..LimitsConfig::default()
        };
        let mut publishing = Publishing::new(&limits, &[], 0);
        let (channel, start) = (ChannelName::new("x").unwrap(), Instant::now());
        let (mut live, mut queued) = (0, 0);
        let (mut late, mut next) = (Late::default(), start);
        // Somebody tries every millisecond, for ten seconds.
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            live += u32::from(publishing.admit(&channel, None, 1, 1, now).is_ok());
            if now >= next {
                match publishing.admit_late(&channel, 1, &mut late, now) {
                    Ok(()) => {
                        queued += 1;
                        late = Late::default();
                    }
                    Err(throttled) => next = now + throttled.retry_after,
                }
            }
        }
        assert!(live + queued <= 103, "{live} and {queued} are 10 a second");
        assert!(
            live >= 20 && queued >= 20,
            "{live} and {queued}: each has its share"
        );
    }

    #[test]
    fn a_channels_own_rate_is_waited_for() {
        let limits = LimitsConfig {
            publish_rate: 1_000,
            rate_channels: 8,
            ..LimitsConfig::default()
        };
        let rule = crate::config::Config::load(&crate::config::Sources {
            file: Some(("s.toml".into(), "[[apps]]\nid = \"a\"\nanonymous = true\n[[apps.namespaces]]\nname = \"\"\nrate = 2\nsubscribe = \"anyone\"\n".to_owned())),
            ..crate::config::Sources::default()
        });
        let namespaces = &rule.unwrap().apps[0].namespaces;
        let mut publishing = Publishing::new(&limits, namespaces, 0);
        let (channel, now) = (ChannelName::new("x").unwrap(), Instant::now());
        let mut late = Late::default();
        for _ in 0..2 {
            assert!(publishing.admit_late(&channel, 1, &mut late, now).is_ok());
        }
        for wait in [500, 1] {
            let throttled =
                publishing.admit_late(&channel, 1, &mut late, now + Duration::from_millis(500 - wait));
            assert_eq!(throttled.unwrap_err().limit, Limit::ChannelRate);
        }
        assert!(
            publishing
                .admit_late(&channel, 1, &mut late, now + Duration::from_millis(500))
                .is_ok()
        );
    }

    #[test]
    fn only_rates_that_waiting_cures_are_waited_for() {
        for (limit, can_wait) in [
            (Limit::PublishRate, true),
            (Limit::PublishBytes, true),
            (Limit::ChannelRate, true),
            (Limit::RateChannels, true),
            (Limit::UserPublishRate, false),
            (Limit::RateUsers, false),
            (Limit::Queued, false),
            (Limit::QuotaMonth, false),
            (Limit::QuotaHistoryBytes, false),
        ] {
            let retry_after = Duration::ZERO;
            assert_eq!(Throttled { limit, retry_after }.can_wait(), can_wait, "{limit:?}");
        }
    }
}
