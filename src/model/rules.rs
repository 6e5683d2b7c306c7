use std::collections::HashMap;

use super::{ChannelName, Rule};

/// The rules of an app, by namespace. The namespace "" holds the channels without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(HashMap<String, Rule>);

impl Rules {
    /// The rule of the namespace that `channel` belongs to; `None` if the app has no such namespace.
    pub fn rule(&self, channel: &ChannelName) -> Option<&Rule> {
        self.0.get(channel.namespace())
    }

    /// All namespaces with their rules, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.0.iter().map(|(namespace, rule)| (namespace.as_str(), rule))
    }
}

impl FromIterator<(String, Rule)> for Rules {
    fn from_iter<I: IntoIterator<Item = (String, Rule)>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}
