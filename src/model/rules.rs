use std::{collections::HashMap, sync::Arc};

use super::{ChannelName, Rule};

/// The rules of an app, by namespace. The namespace "" is that of channels without a `:`.
///
/// A channel whose namespace is not here does not exist: the answer is "unknown channel", never a
/// default rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    namespaces: HashMap<String, Arc<Rule>>,
}

impl Rules {
    /// The rule of `channel`'s namespace; `None` if the app has no such namespace.
    pub fn rule(&self, channel: &ChannelName) -> Option<&Arc<Rule>> {
        self.namespaces.get(channel.namespace())
    }

    /// The namespaces with their rules, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Rule>)> {
        self.namespaces.iter().map(|(name, rule)| (name.as_str(), rule))
    }
}

impl FromIterator<(String, Rule)> for Rules {
    fn from_iter<I: IntoIterator<Item = (String, Rule)>>(namespaces: I) -> Self {
        let namespaces = namespaces
            .into_iter()
            .map(|(name, rule)| (name, Arc::new(rule)))
            .collect();
        Self { namespaces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, History};

    #[test]
    fn a_channel_has_the_rule_of_exactly_its_namespace() {
        let rule = |rate| Rule {
            history: History::None,
            recovery: false,
            subscribe: Access::Anyone,
            publish: Access::Anyone,
            read_history: Access::Nobody,
            presence: false,
            read_presence: Access::Nobody,
            join_leave: crate::model::JoinLeave::None,
            user_limited: false,
            max_size: 1,
            rate,
            overflow: crate::model::Overflow::Reject,
            schema_compatibility: crate::model::Compatibility::None,
            schemas: Vec::new(),
        };
        let rules = Rules::from_iter([(String::new(), rule(1)), ("chat".to_owned(), rule(2))]);
        for (channel, rate) in [
            ("plain", Some(1)),
            ("chat:a", Some(2)),
            ("chat:a:b", Some(2)),
            ("Chat:a", None),
            ("chatty:a", None),
        ] {
            let found = rules.rule(&ChannelName::new(channel).unwrap());
            assert_eq!(found.map(|rule| rule.rate), rate, "{channel}");
        }
    }
}
