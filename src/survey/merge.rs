//! What nodes have told of an app, put together.

use std::{collections::BTreeMap, sync::Arc};

use super::wire::Tally;
use crate::{
    cluster::NodeInfo,
    model::{ChannelName, NodeId},
};

/// A page of an app's channels that have subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelsPage {
    /// In the order of their names, with the number of their subscribers on the nodes that answered.
    pub channels: Vec<(ChannelName, u64)>,
    /// Where the next page begins: behind this channel. `None` = this is the last page.
    pub next: Option<ChannelName>,
    /// The nodes that did not answer: there may be more.
    pub missing: Vec<NodeId>,
}

/// All nodes, and what each has of an app.
#[derive(Clone, Debug, Default)]
pub struct NodesPage {
    /// The one that was asked first. Without numbers if it did not answer.
    pub nodes: Vec<(Arc<NodeInfo>, Option<Tally>)>,
}

/// What one node has told.
pub(super) struct Told {
    /// In the order of their names.
    pub(super) channels: Vec<(ChannelName, u64)>,
    /// There are more behind the last of these.
    pub(super) more: bool,
}

/// A page of at most `limit` channels. A number is whole only as far as every node has told, so the
/// page ends where the first of them stopped.
pub(super) fn merge(told: Vec<Told>, limit: usize, missing: Vec<NodeId>) -> ChannelsPage {
    let stopped = told.iter().filter(|told| told.more);
    let reach = stopped
        .map(|told| told.channels.last().map(|(name, _)| name.clone()))
        .min();
    let mut all = BTreeMap::<ChannelName, u64>::new();
    for (name, count) in told.into_iter().flat_map(|told| told.channels) {
        let whole = reach
            .as_ref()
            .is_none_or(|reach| reach.as_ref().is_some_and(|reach| name <= *reach));
        if whole {
            *all.entry(name).or_default() += count;
        }
    }
    let more = reach.is_some() || all.len() > limit;
    let channels: Vec<_> = all.into_iter().take(limit).collect();
    ChannelsPage {
        next: channels.last().filter(|_| more).map(|(name, _)| name.clone()),
        channels,
        missing,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> ChannelName {
        ChannelName::new(&format!("c{number:03}")).unwrap()
    }

    /// As a node answers.
    fn tell(has: &BTreeSet<u8>, after: Option<&ChannelName>, limit: usize) -> Told {
        let behind = has
            .iter()
            .map(|number| name(*number))
            .filter(|name| after.is_none_or(|after| name > after));
        let mut channels: Vec<_> = behind.map(|name| (name, 1)).collect();
        let more = channels.len() > limit;
        channels.truncate(limit);
        Told { channels, more }
    }

    proptest! {
        #[test]
        fn page_by_page_every_channel_comes_once_with_all_its_subscribers(
            nodes in proptest::collection::vec(
                (proptest::collection::btree_set(any::<u8>(), 0..40), 1_usize..8), 1..5),
            limit in 1_usize..12,
        ) {
            let mut pages = Vec::new();
            let mut after = None;
            loop {
                // Nodes may tell less than they are asked for.
                let told = nodes.iter().map(|(has, most)| tell(has, after.as_ref(), limit.min(*most)));
                let page = merge(told.collect(), limit, Vec::new());
                prop_assert!(page.channels.len() <= limit);
                pages.extend(page.channels);
                match page.next {
                    Some(next) => {
                        prop_assert!(after.as_ref() < Some(&next), "it goes on");
                        after = Some(next);
                    }
                    None => break,
                }
            }
            let mut expected = BTreeMap::new();
            for number in nodes.iter().flat_map(|(has, _)| has) {
                *expected.entry(name(*number)).or_insert(0) += 1;
            }
            prop_assert_eq!(pages, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_node_that_says_more_and_tells_nothing_ends_the_list() {
        let told = Told {
            channels: Vec::new(),
            more: true,
        };
        let page = merge(vec![told, tell(&BTreeSet::from([1]), None, 5)], 5, Vec::new());
        assert_eq!(page, ChannelsPage::default());
    }
}
