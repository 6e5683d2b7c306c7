use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::presence::{
    member::{Shown, test_member},
    owner::{Owner, Snapshot},
};

const OTHER: NodeId = NodeId::new(2);

fn first() -> Incarnation {
    Incarnation::FIRST
}

fn delta(from: u64, to: u64, put: &[&str], left: &[&str]) -> Delta {
    Delta {
        from,
        to,
        put: put.iter().map(|client| test_member(client, client)).collect(),
        left: left.iter().map(|client| (*client).into()).collect(),
    }
}

fn clients(view: &View) -> BTreeSet<String> {
    view.members().map(|member| member.client.to_string()).collect()
}

fn set(clients: &[&str]) -> BTreeSet<String> {
    clients.iter().map(|client| (*client).to_owned()).collect()
}

/// A view that has heard of `a` at version 5.
fn view() -> View {
    let mut view = View::default();
    let mut seen = Vec::new();
    assert!(view.node_up(OTHER, first(), &mut seen));
    assert!(!view.is_complete());
    let heard = view.on_snapshot(OTHER, first(), 5, &[test_member("a", "a")], &mut seen);
    assert_eq!(heard, Heard::Current);
    assert!(view.is_complete());
    view
}

#[test]
fn a_delta_continues_repeats_or_leaves_a_hole() {
    for (what, heard, there) in [
        (delta(5, 6, &["b"], &["a"]), Heard::Current, &["b"][..]),
        (delta(3, 6, &["b"], &[]), Heard::Current, &["a", "b"]),
        (delta(0, 6, &["b"], &[]), Heard::Current, &["b"]),
        (delta(3, 5, &["b"], &[]), Heard::Ignored, &["a"]),
        (delta(6, 7, &["b"], &[]), Heard::Ask, &["a"]),
    ] {
        let mut view = view();
        assert_eq!(
            view.on_delta(OTHER, first(), &what, &mut Vec::new()),
            heard,
            "{what:?}"
        );
        assert_eq!(clients(&view), set(there), "{what:?}");
        assert_eq!(view.is_complete(), heard != Heard::Ask, "{what:?}");
    }
}

#[test]
fn a_hole_is_closed_by_what_is_as_new_as_what_is_known() {
    let mut view = view();
    let mut seen = Vec::new();
    view.on_delta(OTHER, first(), &delta(6, 7, &["c"], &[]), &mut seen);
    let old = view.on_snapshot(OTHER, first(), 6, &[test_member("b", "b")], &mut seen);
    assert_eq!(old, Heard::Ask);
    assert_eq!(view.missing(), [OTHER]);
    let new = view.on_snapshot(OTHER, first(), 7, &[test_member("c", "c")], &mut seen);
    assert_eq!(new, Heard::Current);
    assert_eq!(
        seen,
        [
            Seen::Joined(test_member("c", "c")),
            Seen::Left(test_member("a", "a"))
        ]
    );
}

#[test]
fn a_digest_finds_what_was_lost_and_nothing_else() {
    for (version, at, ask) in [
        (Some(5), 9, false),
        (Some(4), 9, false),
        (Some(6), 9, true),
        (None, 5, true),
        // Made before what was heard since.
        (None, 4, false),
    ] {
        let mut view = view();
        assert_eq!(
            view.on_digest(OTHER, first(), version, at),
            ask,
            "{version:?} {at}"
        );
        assert_eq!(view.is_complete(), !ask);
    }
}

#[test]
fn what_a_dead_incarnation_says_counts_no_more() {
    let mut view = view();
    let mut seen = Vec::new();
    view.node_down(OTHER, first(), &mut seen);
    assert_eq!(seen, [Seen::Left(test_member("a", "a"))]);
    assert!(view.is_complete(), "nobody is waited for");
    for incarnation in [first(), first().next()] {
        let late = view.on_delta(OTHER, incarnation, &delta(0, 9, &["b"], &[]), &mut seen);
        assert_eq!(late, Heard::Ignored);
    }
    view.node_up(OTHER, first().next(), &mut seen);
    assert_eq!(
        view.on_delta(OTHER, first(), &delta(0, 9, &["b"], &[]), &mut seen),
        Heard::Ignored
    );
    assert_eq!(clients(&view), set(&[]));
}

#[test]
fn tabs_of_a_user_count_once() {
    let mut view = View::default();
    let mut seen = Vec::new();
    view.node_up(OTHER, first(), &mut seen);
    let tabs = [
        test_member("a", "ann"),
        test_member("b", "ann"),
        test_member("c", "cid"),
    ];
    view.on_snapshot(OTHER, first(), 1, &tabs, &mut seen);
    assert_eq!((view.connections(), view.users()), (3, 2));
    view.on_delta(OTHER, first(), &delta(1, 2, &[], &["a"]), &mut seen);
    assert_eq!((view.connections(), view.users()), (2, 2));
    view.on_delta(OTHER, first(), &delta(2, 3, &[], &["b"]), &mut seen);
    assert_eq!((view.connections(), view.users()), (1, 1));
    assert!(view.members().all(|member| &*member.user != "ann"));
}

/// A message on its way.
#[derive(Clone, Debug)]
enum Message {
    Delta(Delta),
    Snapshot(Snapshot),
    Digest { version: Option<u64>, at: u64 },
}

/// A node of the model: what it owns, what it sees, and whether it runs.
struct Node {
    id: NodeId,
    incarnation: Incarnation,
    owner: Owner,
    counter: u64,
    view: View,
    /// What has been seen to happen, summed up.
    shown: BTreeMap<String, Arc<Member>>,
    /// The incarnations of others that it knows to be over.
    dead: BTreeSet<(NodeId, Incarnation)>,
    /// On the way to it, by sender.
    inbox: VecDeque<(NodeId, Incarnation, Message)>,
    asks: BTreeSet<NodeId>,
    /// What it is still to learn of leases: whose, and whether that incarnation begins or is over.
    events: VecDeque<(NodeId, Incarnation, bool)>,
    /// It has died for good: it does nothing, and nobody asks what it sees.
    gone: bool,
}

impl Node {
    /// Learns the next of what has become of leases.
    fn learn(&mut self) {
        let Some((id, incarnation, begins)) = self.events.pop_front() else {
            return;
        };
        let mut seen = Vec::new();
        if begins {
            self.view.node_up(id, incarnation, &mut seen);
            self.asks.insert(id);
            self.see(seen);
        } else {
            self.view.node_down(id, incarnation, &mut seen);
            self.dead.insert((id, incarnation));
            self.see(seen);
            let of_it = format!("{}-", id.number());
            assert!(
                !self.shown.keys().any(|client| client.starts_with(&of_it)),
                "nobody of the dead is shown"
            );
        }
    }

    fn see(&mut self, seen: Vec<Seen>) {
        for seen in seen {
            match seen {
                Seen::Joined(member) => {
                    let before = self.shown.insert(member.client.to_string(), member);
                    assert!(before.is_none(), "a join of who is there");
                }
                Seen::Updated(member) => {
                    let before = self.shown.insert(member.client.to_string(), member);
                    assert!(before.is_some(), "an update of who is not there");
                }
                Seen::Left(member) => {
                    assert!(
                        self.shown.remove(&*member.client).is_some(),
                        "a leave of who is not there"
                    );
                }
            }
        }
        let there: BTreeSet<_> = self.shown.keys().cloned().collect();
        assert_eq!(there, clients(&self.view), "events say what the view has");
        assert_eq!(self.view.connections(), there.len());
        let users: BTreeSet<_> = self.shown.values().map(|member| &member.user).collect();
        assert_eq!(self.view.users(), users.len());
    }

    fn deliver(&mut self, at: usize) {
        let Some((from, incarnation, message)) = self.inbox.remove(at) else {
            return;
        };
        let mut seen = Vec::new();
        let ask = match message {
            Message::Delta(delta) => self.view.on_delta(from, incarnation, &delta, &mut seen) == Heard::Ask,
            Message::Snapshot(snapshot) => {
                let Snapshot { version, members } = snapshot;
                self.view
                    .on_snapshot(from, incarnation, version, &members, &mut seen)
                    == Heard::Ask
            }
            Message::Digest { version, at } => self.view.on_digest(from, incarnation, version, at),
        };
        if ask {
            self.asks.insert(from);
        }
        if self.dead.contains(&(from, incarnation)) {
            assert!(seen.is_empty() && !ask, "the dead say nothing");
        }
        self.see(seen);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize, u8),
    Leave(usize, u8),
    Update(usize, u8, u8),
    /// As much as this is told.
    Flush(usize, usize),
    /// A node may have missed something.
    Doubt(usize),
    Digest(usize),
    /// A question is answered.
    Answer(usize),
    Deliver(usize, usize),
    Repeat(usize, usize),
    Lose(usize, usize),
    /// A node's lease is over, and it begins anew. The others learn of it one by one.
    Lapse(usize),
    /// A node dies for good.
    Die(usize),
    /// A node learns the next of what has become of leases.
    Learn(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..3usize;
    prop_oneof![
        4 => (node.clone(), 0..4u8).prop_map(|(n, c)| Step::Join(n, c)),
        3 => (node.clone(), 0..4u8).prop_map(|(n, c)| Step::Leave(n, c)),
        1 => (node.clone(), 0..4u8, any::<u8>()).prop_map(|(n, c, s)| Step::Update(n, c, s)),
        4 => (node.clone(), prop_oneof![Just(1), Just(120), Just(10_000)]).prop_map(|(n, room)| Step::Flush(n, room)),
        1 => node.clone().prop_map(Step::Doubt),
        1 => node.clone().prop_map(Step::Digest),
        3 => node.clone().prop_map(Step::Answer),
        8 => (node.clone(), 0..4usize).prop_map(|(n, at)| Step::Deliver(n, at)),
        1 => (node.clone(), 0..4usize).prop_map(|(n, at)| Step::Repeat(n, at)),
        2 => (node.clone(), 0..4usize).prop_map(|(n, at)| Step::Lose(n, at)),
        1 => node.clone().prop_map(Step::Lapse),
        1 => Just(Step::Die(2)),
        3 => node.prop_map(Step::Learn),
    ]
}

struct World(Vec<Node>);

impl World {
    fn new() -> Self {
        let mut world = Self(Vec::new());
        for i in 0..3 {
            let mut view = View::default();
            let id = NodeId::new(i);
            view.set_own(id, first());
            for other in (0..3).filter(|other| *other != i) {
                view.node_up(NodeId::new(other), first(), &mut Vec::new());
            }
            let asks = (0..3).filter(|other| *other != i).map(NodeId::new).collect();
            world.0.push(Node {
                id,
                incarnation: first(),
                owner: Owner::default(),
                counter: 0,
                view,
                shown: BTreeMap::new(),
                dead: BTreeSet::new(),
                inbox: VecDeque::new(),
                asks,
                events: VecDeque::new(),
                gone: false,
            });
        }
        world
    }

    fn tell(&mut self, from: usize, message: &Message) {
        let (id, incarnation) = (self.0[from].id, self.0[from].incarnation);
        for (_, node) in self.0.iter_mut().enumerate().filter(|(to, _)| *to != from) {
            node.inbox.push_back((id, incarnation, message.clone()));
        }
    }

    fn own(&mut self, n: usize, change: impl FnOnce(&mut Node, &mut Vec<Seen>)) {
        let mut seen = Vec::new();
        change(&mut self.0[n], &mut seen);
        self.0[n].see(seen);
    }

    fn flush(&mut self, n: usize, room: usize) -> bool {
        let node = &mut self.0[n];
        let delta = node.owner.take_delta(node.counter + 1, room);
        let told = delta.is_some();
        if let Some(delta) = delta {
            node.counter += 1;
            self.tell(n, &Message::Delta(delta));
        }
        told
    }

    fn digest(&mut self, n: usize) {
        let node = &self.0[n];
        let version = (node.owner.version() > 0).then(|| node.owner.version());
        let at = node.counter;
        self.tell(n, &Message::Digest { version, at });
    }

    fn answer(&mut self, n: usize) {
        for other in std::mem::take(&mut self.0[n].asks) {
            let node = &self.0[other.number() as usize];
            if node.gone {
                continue;
            }
            let answer = (
                node.id,
                node.incarnation,
                Message::Snapshot(node.owner.snapshot(node.counter)),
            );
            self.0[n].inbox.push_back(answer);
        }
    }

    fn lease(&mut self, n: usize, incarnation: Incarnation, begins: bool) {
        let id = self.0[n].id;
        for (_, node) in self.0.iter_mut().enumerate().filter(|(to, _)| *to != n) {
            node.events.push_back((id, incarnation, begins));
        }
    }

    fn apply(&mut self, step: Step) {
        let (Step::Join(n, _)
        | Step::Leave(n, _)
        | Step::Update(n, _, _)
        | Step::Flush(n, _)
        | Step::Doubt(n)
        | Step::Digest(n)
        | Step::Answer(n)
        | Step::Deliver(n, _)
        | Step::Repeat(n, _)
        | Step::Lose(n, _)
        | Step::Lapse(n)
        | Step::Die(n)
        | Step::Learn(n)) = step;
        if self.0[n].gone {
            return;
        }
        match step {
            Step::Join(n, client) => self.own(n, |node, seen| {
                let member = test_member(&format!("{n}-{client}"), &format!("u{}", client % 2));
                node.owner.put(member.clone());
                node.view.put_own(node.id, &member, seen);
            }),
            Step::Leave(n, client) => self.own(n, |node, seen| {
                let client = format!("{n}-{client}");
                node.owner.leave(&client);
                node.view.remove_own(node.id, &client, seen);
            }),
            Step::Update(n, client, state) => self.own(n, |node, seen| {
                let known = node.owner.get(&format!("{n}-{client}")).cloned();
                if let Some(member) = known {
                    let member = Arc::new(member.showing(Shown::State(Some(vec![state].into()))));
                    node.owner.put(member.clone());
                    node.view.put_own(node.id, &member, seen);
                }
            }),
            Step::Flush(n, room) => {
                self.flush(n, room);
            }
            Step::Doubt(n) => {
                let node = &mut self.0[n];
                node.view.doubt(node.id);
                node.asks.extend(node.view.missing());
            }
            Step::Digest(n) => self.digest(n),
            Step::Answer(n) => self.answer(n),
            Step::Deliver(n, at) => self.0[n].deliver(at),
            Step::Repeat(n, at) => {
                if let Some(message) = self.0[n].inbox.get(at).cloned() {
                    self.0[n].inbox.push_back(message);
                }
            }
            Step::Lose(n, at) => drop(self.0[n].inbox.remove(at)),
            Step::Lapse(n) => {
                let (id, old) = (self.0[n].id, self.0[n].incarnation);
                self.0[n].incarnation = old.next();
                self.0[n].view.set_own(id, old.next());
                self.lease(n, old, false);
                self.lease(n, old.next(), true);
            }
            Step::Die(n) => {
                let incarnation = self.0[n].incarnation;
                self.0[n].gone = true;
                self.0[n].owner = Owner::default();
                self.lease(n, incarnation, false);
            }
            Step::Learn(n) => self.0[n].learn(),
        }
    }

    /// The network works for as long as it takes: all is told, and what a digest shows to be lost is
    /// asked for.
    fn settle(&mut self) {
        let alive: Vec<_> = (0..3).filter(|n| !self.0[*n].gone).collect();
        for n in alive.iter().copied() {
            while self.flush(n, 100) {}
            while !self.0[n].events.is_empty() {
                self.0[n].learn();
            }
        }
        for _ in 0..6 {
            for n in alive.iter().copied() {
                self.digest(n);
            }
            for n in alive.iter().copied() {
                while !self.0[n].inbox.is_empty() {
                    self.0[n].deliver(0);
                }
                // A question without an answer is asked again.
                let missing = self.0[n].view.missing();
                self.0[n].asks.extend(missing);
                self.answer(n);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn all_views_come_to_the_truth_and_never_show_the_dead(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.settle();
        let truth: BTreeMap<_, _> = world.0.iter()
            .flat_map(|node| node.owner.snapshot(0).members)
            .map(|member| (member.client.to_string(), member))
            .collect();
        for node in world.0.iter().filter(|node| !node.gone) {
            prop_assert!(node.view.is_complete());
            prop_assert_eq!(&node.shown, &truth);
        }
    }
}
