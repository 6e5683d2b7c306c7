use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cluster::node::{Load, NodeState};

const LEASE: Duration = Duration::from_secs(10);
const GAP: Duration = Duration::from_millis(2_500);

fn info(id: u64, incarnation: u32) -> NodeInfo {
    NodeInfo {
        id: NodeId::new(id),
        incarnation: Incarnation::new(incarnation),
        name: String::new(),
        address: String::new(),
        version: String::new(),
        state: NodeState::Ready,
        started_ms: 0,
        renewed_ms: 0,
        load: Load::default(),
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn overdue(leases: &Leases, now: Duration) -> Vec<(NodeId, u64)> {
    let overdue = leases.overdue(now).into_iter();
    overdue.map(|(info, revision)| (info.id, revision)).collect()
}

fn up(id: u64, incarnation: u32) -> NodeEvent {
    NodeEvent::Up(NodeId::new(id), Incarnation::new(incarnation))
}

fn down(id: u64, incarnation: u32) -> NodeEvent {
    NodeEvent::Down(NodeId::new(id), Incarnation::new(incarnation))
}

#[test]
fn time_passes_only_between_writes_that_are_near_each_other() {
    let start = Instant::now();
    for (writes, passed) in [
        (&[0][..], 0),
        (&[0, 1_000, 2_000], 2_000),
        (&[0, 2_500], 2_500),
        // An outage, and as long after it as before.
        (&[0, 1_000, 61_000, 62_000], 2_000),
        (&[0, 2_501], 0),
        // Writes that were acknowledged in another order.
        (&[0, 1_000, 500], 1_000),
    ] {
        let mut clock = Clock::new(GAP);
        for ms in writes {
            clock.acknowledged(start + Duration::from_millis(*ms));
        }
        assert_eq!(clock.now(), Duration::from_millis(passed), "{writes:?}");
    }
}

#[test]
fn what_is_seen_between_two_writes_has_its_own_time() {
    let start = Instant::now();
    let ms = Duration::from_millis;
    let mut clock = Clock::new(GAP);
    assert!(!clock.runs(start));
    assert_eq!(clock.at(start + ms(400)), ms(0));
    clock.acknowledged(start);
    assert_eq!(clock.at(start + ms(400)), ms(400));
    clock.acknowledged(start + ms(1_000));
    assert_eq!(clock.at(start + ms(1_400)), ms(1_400));
    assert!(clock.runs(start + ms(3_499)));
    // An outage: it stands still, and what is seen in it is not older than it seems.
    assert!(!clock.runs(start + ms(3_500)));
    assert_eq!(clock.at(start + ms(60_000)), ms(3_500));
    clock.acknowledged(start + ms(61_000));
    assert_eq!(clock.now(), ms(1_000));
}

#[test]
fn a_lease_is_overdue_when_no_new_revision_came_for_as_long_as_it_lasts() {
    let mut leases = Leases::new(NodeId::new(1), LEASE);
    let mut events = Vec::new();
    leases.on_entry(info(2, 1), 5, secs(3), &mut events);
    assert_eq!(overdue(&leases, secs(13) - Duration::from_millis(1)), []);
    assert_eq!(leases.next_due(secs(12)), Some(secs(1)));
    assert_eq!(overdue(&leases, secs(13)), [(NodeId::new(2), 5)]);
    assert_eq!(leases.next_due(secs(13)), None);
    // Told again, as after a cut: nothing new.
    leases.on_entry(info(2, 1), 5, secs(14), &mut events);
    assert_eq!(overdue(&leases, secs(14)), [(NodeId::new(2), 5)]);
    leases.on_entry(info(2, 1), 6, secs(14), &mut events);
    assert_eq!(overdue(&leases, secs(23)), []);
    assert_eq!(events, [up(2, 1)]);
    // Another has written that it is gone.
    let gone = NodeInfo {
        state: NodeState::Gone,
        ..info(2, 1)
    };
    leases.on_entry(gone, 7, secs(23), &mut events);
    assert_eq!(events, [up(2, 1), down(2, 1)]);
    assert_eq!(leases.next_due(secs(23)), None);
}

#[test]
fn a_node_is_gone_once_and_comes_back_as_another_incarnation() {
    let mut leases = Leases::new(NodeId::new(1), LEASE);
    let mut events = Vec::new();
    leases.on_entry(info(2, 1), 5, secs(0), &mut events);
    // Of what was removed since nothing is known: an older removal.
    leases.on_removed(NodeId::new(2), 4, &mut events);
    leases.on_removed(NodeId::new(2), 6, &mut events);
    leases.on_removed(NodeId::new(2), 6, &mut events);
    leases.on_entry(info(2, 2), 7, secs(0), &mut events);
    assert!(!leases.is_live(NodeId::new(2), Incarnation::new(1)));
    assert!(leases.is_live(NodeId::new(2), Incarnation::new(2)));
    // The removal was not told, as the next entry had taken its place.
    leases.on_entry(info(2, 3), 9, secs(0), &mut events);
    assert_eq!(events, [up(2, 1), down(2, 1), up(2, 2), down(2, 2), up(2, 3)]);
}

#[test]
fn what_is_not_told_again_after_a_cut_is_gone() {
    let mut leases = Leases::new(NodeId::new(1), LEASE);
    let mut events = Vec::new();
    for id in [1, 2, 3] {
        leases.on_entry(info(id, 1), id, secs(0), &mut events);
    }
    assert_eq!(events, [up(2, 1), up(3, 1)], "the own entry is no other's");
    events.clear();
    leases.on_begin();
    leases.on_entry(info(3, 1), 3, secs(0), &mut events);
    leases.on_current(&mut events);
    assert_eq!(events, [down(2, 1)]);
}

#[test]
fn a_node_begins_anew_only_when_its_lease_was_taken() {
    let mut own = OwnLease::new();
    // Somebody else's key, or what is left of an older entry: it was never held.
    own.on_lost_race(None, 3);
    assert_eq!((own.incarnation, own.revision), (Incarnation::FIRST, 3));
    assert!(own.on_renewed(4));
    assert!(!own.on_renewed(5));
    // The acknowledgement of a renewal was lost.
    own.on_lost_race(Some(Incarnation::FIRST), 6);
    assert_eq!((own.incarnation, own.revision), (Incarnation::FIRST, 6));
    own.on_lost_race(None, 7);
    assert_eq!((own.incarnation.number(), own.revision), (2, 7));
    // Once, however often it fails until the new one is written.
    own.on_lost_race(None, 7);
    assert!(own.on_renewed(8));
    assert_eq!(own.incarnation.number(), 2);
}

/// The bucket with its revisions, and what happens to one node's key.
#[derive(Default)]
struct Key {
    revision: u64,
    held: Option<Incarnation>,
}

#[derive(Clone, Debug)]
enum Step {
    /// The node renews; its acknowledgement may be lost.
    Renew { lost: bool },
    /// An observer hears of what the bucket holds.
    Hear(usize),
    /// Time passes for an observer.
    Wait(usize, u64),
    /// An observer ends what is overdue.
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|lost| Step::Renew { lost }),
        4 => (0..3usize).prop_map(Step::Hear),
        3 => (0..3usize, 1..8u64).prop_map(|(who, seconds)| Step::Wait(who, seconds)),
        3 => (0..3usize).prop_map(Step::End),
    ]
}

proptest! {
    /// However renewals, removals and news of them interleave: an incarnation that was ended is never
    /// written again, a node that renewed what an observer knows is never ended by it, and when all has
    /// been heard all observers see what the bucket has.
    #[test]
    fn an_end_is_one_fact_for_all(steps in prop::collection::vec(step(), 1..60)) {
        let node = NodeId::new(9);
        let mut key = Key::default();
        let mut own = OwnLease::new();
        let mut clocks = [Duration::ZERO; 3];
        let mut observers: Vec<_> = (0..3).map(|i| Leases::new(NodeId::new(i), LEASE)).collect();
        let mut ended: BTreeMap<Incarnation, ()> = BTreeMap::new();
        let hear = |key: &Key, observer: &mut Leases, now: Duration| {
            let mut events = Vec::new();
            match key.held {
                Some(incarnation) => {
                    observer.on_entry(info(9, incarnation.number()), key.revision, now, &mut events);
                }
                None => observer.on_removed(node, key.revision, &mut events),
            }
        };
        for step in steps {
            match step {
                Step::Renew { lost } => {
                    if key.revision != own.revision {
                        own.on_lost_race(key.held, key.revision);
                    }
                    prop_assert!(!ended.contains_key(&own.incarnation));
                    key.revision += 1;
                    key.held = Some(own.incarnation);
                    if lost {
                        own.on_unanswered();
                    } else {
                        own.on_renewed(key.revision);
                    }
                }
                Step::Hear(who) => hear(&key, &mut observers[who], clocks[who]),
                Step::Wait(who, seconds) => clocks[who] += secs(seconds),
                Step::End(who) => {
                    for (id, revision) in overdue(&observers[who], clocks[who]) {
                        if key.revision == revision {
                            ended.extend(key.held.take().map(|incarnation| (incarnation, ())));
                            key.revision += 1;
                            let mut events = Vec::new();
                            observers[who].on_removed(id, revision + 1, &mut events);
                            prop_assert_eq!(events.len(), 1);
                        } else {
                            hear(&key, &mut observers[who], clocks[who]);
                        }
                    }
                }
            }
        }
        for (observer, now) in observers.iter_mut().zip(clocks) {
            hear(&key, observer, now);
            let live: Vec<_> = observer.live().map(|info| info.incarnation).collect();
            prop_assert_eq!(live, key.held.into_iter().collect::<Vec<_>>());
        }
    }
}
