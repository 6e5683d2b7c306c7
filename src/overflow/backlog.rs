//! Which channels have publications that wait, as far as a node knows. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::model::{AppId, ChannelName, NodeId, Offset};

/// A channel; `None` = all of the app, where there are too many to tell apart, or which they are is not known.
pub(super) type Place = Option<ChannelName>;

/// As many publications of the app wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

/// What has become of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It waits at this place.
    At(Offset),
    /// It does not wait, or did so before already.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Backlogs {
    apps: HashMap<AppId, Backlog>,
    /// Places of all apps.
    places: usize,
    max_places: usize,
    /// How long after the last word of a place the stream can be believed to have nothing of it.
    settle: Duration,
}

#[derive(Debug, Default)]
struct Backlog {
    places: HashMap<Place, Wait>,
    /// What waits, as the stream said last, and what this node has appended since.
    messages: u64,
}

#[derive(Debug)]
struct Wait {
    /// Appends of this node that are not acknowledged.
    in_flight: u32,
    /// The last append of this node that is.
    last: Offset,
    /// Up to where the place is published. An append may be published before this node knows that it waits.
    published: Offset,
    /// Something that this node has appended waits, or may.
    own: bool,
    /// When this node's last append began or ended.
    appended: Instant,
    /// Nodes of which something waits, by what they said, and when they said so last.
    others: Vec<(NodeId, Instant)>,
    /// Since when it is not known whether something waits: only the stream can tell.
    doubt: Option<Instant>,
    /// Appended to by this node since the others were told last.
    untold: bool,
}

impl Wait {
    fn new(now: Instant) -> Self {
        Self {
            in_flight: 0,
            last: 0,
            published: 0,
            own: false,
            appended: now,
            others: Vec::new(),
            doubt: None,
            untold: false,
        }
    }

    /// True if all that this node has appended is published, and was not before.
    fn finish(&mut self) -> bool {
        let done = self.own && self.in_flight == 0 && self.doubt.is_none() && self.last <= self.published;
        if done {
            self.own = false;
            self.untold = false;
        }
        done
    }

    fn is_over(&self) -> bool {
        self.in_flight == 0 && !self.own && self.others.is_empty() && self.doubt.is_none()
    }
}

impl Backlogs {
    pub(super) fn new(max_places: usize, settle: Duration) -> Self {
        Self {
            apps: HashMap::new(),
            places: 0,
            max_places,
            settle,
        }
    }

    /// Whether a publication to `channel` must wait behind others.
    pub(super) fn has(&self, app: &AppId, channel: &ChannelName) -> bool {
        let Some(backlog) = self.apps.get(app) else {
            return false;
        };
        backlog.places.contains_key(&None) || backlog.places.contains_key(&Some(channel.clone()))
    }

    /// How many places are known.
    pub(super) fn len(&self) -> usize {
        self.places
    }

    /// Apps with something that waits.
    pub(super) fn apps(&self) -> Vec<AppId> {
        self.apps.keys().cloned().collect()
    }

    /// Whether anything of the app waits.
    pub(super) fn has_app(&self, app: &AppId) -> bool {
        self.apps.contains_key(app)
    }

    /// This node appends. True if the others should hear of it at once.
    pub(super) fn begin(
        &mut self,
        app: &AppId,
        channel: &ChannelName,
        max_messages: u64,
        now: Instant,
    ) -> Result<bool, Crowded> {
        let messages = self.apps.get(app).map_or(0, |backlog| backlog.messages);
        if messages >= max_messages {
            return Err(Crowded);
        }
        let wait = self.enter(app, channel, now);
        let is_new = !wait.own;
        wait.own = true;
        wait.in_flight += 1;
        wait.appended = now;
        wait.untold = true;
        if let Some(backlog) = self.apps.get_mut(app) {
            backlog.messages += 1;
        }
        Ok(is_new)
    }

    /// What has become of the append that began. True if the others should hear at once that nothing of this
    /// node waits any more.
    pub(super) fn end(
        &mut self,
        app: &AppId,
        channel: &ChannelName,
        appended: Appended,
        now: Instant,
    ) -> bool {
        for place in [Some(channel.clone()), None] {
            let Some(backlog) = self.apps.get_mut(app) else {
                return false;
            };
            let Some(wait) = backlog.places.get_mut(&place).filter(|wait| wait.in_flight > 0) else {
                continue;
            };
            wait.in_flight -= 1;
            wait.appended = now;
            match appended {
                Appended::At(seq) => wait.last = wait.last.max(seq),
                Appended::Unknown => wait.doubt = Some(now),
                Appended::Refused => backlog.messages = backlog.messages.saturating_sub(1),
            }
            let is_done = wait.finish();
            self.leave_if_over(app, &place);
            return is_done && place.is_some();
        }
        false
    }

    /// Another node has appended, or may have.
    pub(super) fn heard(&mut self, app: &AppId, channel: &ChannelName, from: NodeId, now: Instant) {
        let known = self
            .apps
            .get(app)
            .is_some_and(|it| it.places.contains_key(&Some(channel.clone())));
        if !known && self.places >= self.max_places {
            // A place of many channels cannot tell of which of them a node speaks later.
            return self.suspect(app, now);
        }
        let wait = self.enter(app, channel, now);
        match wait.others.iter_mut().find(|(node, _)| *node == from) {
            Some((_, heard)) => *heard = now,
            None => wait.others.push((from, now)),
        }
    }

    /// Something of the app waits, and nobody knows of which channels.
    pub(super) fn suspect(&mut self, app: &AppId, now: Instant) {
        self.place(app, None, now).doubt = Some(now);
    }

    /// All that another node has appended to the channel is published.
    pub(super) fn idle(&mut self, app: &AppId, channel: &ChannelName, from: NodeId) {
        let place = Some(channel.clone());
        let wait = self
            .apps
            .get_mut(app)
            .and_then(|backlog| backlog.places.get_mut(&place));
        if let Some(wait) = wait {
            wait.others.retain(|(node, _)| *node != from);
            self.leave_if_over(app, &place);
        }
    }

    /// What was appended to the channel up to this place is published. True if the others should hear at once
    /// that nothing of this node waits any more.
    pub(super) fn drained(&mut self, app: &AppId, channel: &ChannelName, seq: Offset) -> bool {
        let Some(backlog) = self.apps.get_mut(app) else {
            return false;
        };
        backlog.messages = backlog.messages.saturating_sub(1);
        let mut is_idle = false;
        // What is queued for an app is published in its order, so `None` goes by the same numbers.
        for place in [Some(channel.clone()), None] {
            let wait = self
                .apps
                .get_mut(app)
                .and_then(|backlog| backlog.places.get_mut(&place));
            if let Some(wait) = wait {
                wait.published = wait.published.max(seq);
                is_idle |= wait.finish() && place.is_some();
                self.leave_if_over(app, &place);
            }
        }
        is_idle
    }

    /// How many publications of an app the stream has.
    pub(super) fn counted(&mut self, app: &AppId, messages: u64) {
        if let Some(backlog) = self.apps.get_mut(app) {
            backlog.messages = messages;
        }
    }

    /// Places of an app about which the stream can be asked, at most `most`.
    pub(super) fn settled(&self, app: &AppId, now: Instant, most: usize) -> Vec<Place> {
        let places = self.apps.get(app).into_iter().flat_map(|backlog| &backlog.places);
        let settled = places.filter(|(_, wait)| self.is_settled(wait, now));
        settled.map(|(place, _)| place.clone()).take(most).collect()
    }

    /// The stream has nothing of a place, asked at `asked`: so what was said of it long enough before is over.
    pub(super) fn empty(&mut self, app: &AppId, place: &Place, asked: Instant) {
        let settle = self.settle;
        let wait = self
            .apps
            .get_mut(app)
            .and_then(|backlog| backlog.places.get_mut(place));
        let Some(wait) = wait else {
            return;
        };
        let is_old = |at: Instant| asked.saturating_duration_since(at) >= settle;
        wait.others.retain(|(_, heard)| !is_old(*heard));
        wait.doubt = wait.doubt.filter(|since| !is_old(*since));
        if is_old(wait.appended) {
            wait.published = wait.published.max(wait.last);
        }
        // The others find out as this node did, if they still have it.
        wait.finish();
        self.leave_if_over(app, place);
    }

    /// What the others should be told again.
    pub(super) fn untold(&mut self) -> Vec<(AppId, ChannelName)> {
        let mut untold = Vec::new();
        for (app, backlog) in &mut self.apps {
            for (place, wait) in &mut backlog.places {
                if let Some(channel) = place
                    && std::mem::take(&mut wait.untold)
                {
                    untold.push((app.clone(), channel.clone()));
                }
            }
        }
        untold
    }

    fn is_settled(&self, wait: &Wait, at: Instant) -> bool {
        let is_old = |said: Instant| at.saturating_duration_since(said) >= self.settle;
        wait.others.iter().any(|(_, heard)| is_old(*heard))
            || wait.doubt.is_some_and(is_old)
            || (wait.own && wait.in_flight == 0 && is_old(wait.appended))
    }

    /// The place of a channel, which is that of all if there are too many.
    fn enter(&mut self, app: &AppId, channel: &ChannelName, now: Instant) -> &mut Wait {
        let known = self
            .apps
            .get(app)
            .is_some_and(|backlog| backlog.places.contains_key(&Some(channel.clone())));
        let place = (known || self.places < self.max_places).then(|| channel.clone());
        self.place(app, place, now)
    }

    fn place(&mut self, app: &AppId, place: Place, now: Instant) -> &mut Wait {
        let backlog = self.apps.entry(app.clone()).or_default();
        let places = &mut self.places;
        backlog.places.entry(place).or_insert_with(|| {
            *places += 1;
            Wait::new(now)
        })
    }

    fn leave_if_over(&mut self, app: &AppId, place: &Place) {
        let Some(backlog) = self.apps.get_mut(app) else {
            return;
        };
        if !backlog.places.get(place).is_some_and(Wait::is_over) {
            return;
        }
        if backlog.places.remove(place).is_some() {
            self.places -= 1;
        }
        if backlog.places.is_empty() {
            self.apps.remove(app);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(1);

    fn app() -> AppId {
        AppId::new("a").unwrap()
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::new(name).unwrap()
    }

    #[test]
    fn a_channel_waits_until_all_that_this_node_has_queued_is_published() {
        let (mut backlogs, now) = (Backlogs::new(10, SETTLE), Instant::now());
        let x = channel("x");
        assert!(!backlogs.has(&app(), &x));
        assert_eq!(backlogs.begin(&app(), &x, 9, now), Ok(true));
        // Before it is acknowledged, too: what comes now must come after it.
        assert!(backlogs.has(&app(), &x) && !backlogs.has(&app(), &channel("y")));
        assert_eq!(backlogs.begin(&app(), &x, 9, now), Ok(false));
        backlogs.end(&app(), &x, Appended::At(5), now);
        backlogs.drained(&app(), &x, 5);
        assert!(backlogs.has(&app(), &x), "one is still being appended");
        backlogs.end(&app(), &x, Appended::At(7), now);
        backlogs.drained(&app(), &x, 6);
        assert!(backlogs.has(&app(), &x));
        backlogs.drained(&app(), &x, 7);
        assert!(!backlogs.has(&app(), &x));
        assert_eq!((backlogs.len(), backlogs.apps().len()), (0, 0));
    }

    #[test]
    fn what_others_have_queued_is_over_when_the_stream_says_so_and_is_settled() {
        let (mut backlogs, now) = (Backlogs::new(10, SETTLE), Instant::now());
        let x = channel("x");
        backlogs.heard(&app(), &x, NodeId::new(1), now);
        backlogs.drained(&app(), &x, u64::MAX);
        assert!(backlogs.has(&app(), &x));
        assert!(backlogs.settled(&app(), now, 9).is_empty());
        backlogs.empty(&app(), &Some(x.clone()), now);
        assert!(backlogs.has(&app(), &x), "a replica may not have it yet");
        let later = now + SETTLE;
        assert_eq!(backlogs.settled(&app(), later, 9), [Some(x.clone())]);
        // Heard of again while the stream was asked.
        backlogs.heard(&app(), &x, NodeId::new(1), later + SETTLE / 2);
        backlogs.empty(&app(), &Some(x.clone()), later);
        assert!(backlogs.has(&app(), &x));
        backlogs.empty(&app(), &Some(x.clone()), later + 2 * SETTLE);
        assert!(!backlogs.has(&app(), &x));
    }

    #[test]
    fn a_channel_that_two_nodes_publish_to_without_a_pause_leaves_when_nothing_waits() {
        let (mut backlogs, now) = (Backlogs::new(10, SETTLE), Instant::now());
        let x = channel("x");
        assert_eq!(backlogs.begin(&app(), &x, 9, now), Ok(true));
        backlogs.heard(&app(), &x, NodeId::new(1), now);
        assert!(!backlogs.end(&app(), &x, Appended::At(1), now));
        // The other has appended 2, which this node need not know.
        assert!(backlogs.drained(&app(), &x, 1), "the others must hear of it");
        assert!(backlogs.untold().is_empty(), "nothing of this node waits");
        assert!(backlogs.has(&app(), &x), "something of the other node waits");
        assert_eq!(
            backlogs.begin(&app(), &x, 9, now),
            Ok(true),
            "they must hear again"
        );
        // Published before its acknowledgement was here.
        assert!(!backlogs.drained(&app(), &x, 3));
        backlogs.idle(&app(), &x, NodeId::new(1));
        assert!(backlogs.has(&app(), &x));
        assert!(backlogs.end(&app(), &x, Appended::At(3), now));
        assert!(!backlogs.has(&app(), &x));
    }

    #[test]
    fn a_lost_notice_is_made_up_for_while_this_node_goes_on() {
        let (mut backlogs, now) = (Backlogs::new(10, SETTLE), Instant::now());
        let x = channel("x");
        backlogs.heard(&app(), &x, NodeId::new(1), now);
        backlogs.heard(&app(), &x, NodeId::new(2), now + SETTLE);
        let later = now + SETTLE;
        backlogs.begin(&app(), &x, 9, later).unwrap();
        backlogs.end(&app(), &x, Appended::At(4), later);
        assert_eq!(backlogs.settled(&app(), later, 9), [Some(x.clone())]);
        backlogs.empty(&app(), &Some(x.clone()), later);
        assert!(backlogs.drained(&app(), &x, 4));
        assert!(backlogs.has(&app(), &x), "the second node has just spoken");
        backlogs.idle(&app(), &x, NodeId::new(2));
        assert!(!backlogs.has(&app(), &x));
    }

    #[test]
    fn what_was_not_queued_leaves_nothing_and_what_may_be_stays() {
        let (mut backlogs, now) = (Backlogs::new(10, SETTLE), Instant::now());
        let x = channel("x");
        assert_eq!(backlogs.begin(&app(), &x, 9, now), Ok(true));
        backlogs.end(&app(), &x, Appended::Refused, now);
        assert!(!backlogs.has(&app(), &x));
        assert_eq!(backlogs.begin(&app(), &x, 9, now), Ok(true));
        backlogs.end(&app(), &x, Appended::Unknown, now);
        assert!(!backlogs.drained(&app(), &x, 9), "it may still come");
        assert!(backlogs.has(&app(), &x));
        backlogs.empty(&app(), &Some(x.clone()), now + SETTLE);
        assert!(!backlogs.has(&app(), &x));
    }

    #[test]
    fn an_app_has_so_many_and_no_more() {
        let (mut backlogs, now) = (Backlogs::new(10, SETTLE), Instant::now());
        let x = channel("x");
        assert!(backlogs.begin(&app(), &x, 2, now).is_ok() && backlogs.begin(&app(), &x, 2, now).is_ok());
        assert_eq!(backlogs.begin(&app(), &x, 2, now), Err(Crowded));
        let other = AppId::new("b").unwrap();
        assert!(backlogs.begin(&other, &x, 2, now).is_ok());
        backlogs.counted(&app(), 0);
        assert!(backlogs.begin(&app(), &x, 2, now).is_ok());
    }

    #[test]
    fn beyond_so_many_channels_all_of_the_app_wait() {
        let (mut backlogs, now) = (Backlogs::new(2, SETTLE), Instant::now());
        for name in ["x", "y", "z"] {
            backlogs.begin(&app(), &channel(name), 9, now).unwrap();
        }
        assert_eq!(backlogs.len(), 3);
        assert!(backlogs.has(&app(), &channel("any")));
        let other = AppId::new("b").unwrap();
        assert!(!backlogs.has(&other, &channel("any")));
        for (name, seq) in [("x", 1), ("y", 2), ("z", 3)] {
            backlogs.end(&app(), &channel(name), Appended::At(seq), now);
        }
        backlogs.drained(&app(), &channel("y"), 2);
        assert!(backlogs.has(&app(), &channel("any")));
        backlogs.drained(&app(), &channel("z"), 3);
        assert!(!backlogs.has(&app(), &channel("any")) && backlogs.has(&app(), &channel("x")));
    }

    #[test]
    fn the_others_are_told_again_while_it_goes_on() {
        let (mut backlogs, now) = (Backlogs::new(10, SETTLE), Instant::now());
        let x = channel("x");
        backlogs.begin(&app(), &x, 9, now).unwrap();
        assert_eq!(backlogs.untold(), [(app(), x.clone())]);
        assert!(backlogs.untold().is_empty());
        backlogs.begin(&app(), &x, 9, now).unwrap();
        assert_eq!(backlogs.untold().len(), 1);
    }
}
