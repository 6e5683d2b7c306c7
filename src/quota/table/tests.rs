mod room;

use proptest::prelude::*;

use super::*;

fn key() -> Key {
    (AppId::new("a").unwrap(), Kind::Messages)
}

fn id(node: usize) -> NodeId {
    NodeId::new(node as u64 + 1)
}

fn wish(held: u64, wanted: u64) -> Wish {
    Wish { held, wanted }
}

/// Nodes with what is on its way between them.
struct World {
    limit: u64,
    nodes: Vec<Table>,
    wishes: Vec<Wish>,
    /// From, to, what.
    under_way: Vec<(usize, usize, Telling)>,
}

impl World {
    /// Nodes that know of each other, and have begun.
    fn new(count: usize, limit: u64) -> Self {
        let nodes = (0..count).map(|node| Table::new(id(node), Incarnation::FIRST));
        let mut world = Self {
            limit,
            nodes: nodes.collect(),
            wishes: vec![Wish::default(); count],
            under_way: Vec::new(),
        };
        for node in 0..count {
            world.meet(node, count);
        }
        for node in 0..count {
            world.round(node);
        }
        world
    }

    fn meet(&mut self, node: usize, count: usize) {
        let others: Vec<_> = (0..count)
            .filter(|other| *other != node)
            .map(|other| (id(other), Incarnation::FIRST))
            .collect();
        self.nodes[node].meet(Incarnation::FIRST, &others);
    }

    fn round(&mut self, node: usize) {
        let own = Own {
            key: key(),
            limit: self.limit,
            wish: self.wishes[node],
        };
        self.nodes[node].decide(vec![own]);
        for telling in self.nodes[node].tell() {
            // As it would be read.
            let telling = Telling::decode(&telling.encode()).unwrap();
            for to in (0..self.nodes.len()).filter(|to| *to != node) {
                self.under_way.push((node, to, telling.clone()));
            }
        }
    }

    fn deliver_all(&mut self) {
        for (from, to, telling) in std::mem::take(&mut self.under_way) {
            self.nodes[to].hear(id(from), telling);
        }
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            for node in 0..self.nodes.len() {
                self.round(node);
            }
            self.deliver_all();
        }
    }

    fn part(&self, node: usize) -> u64 {
        self.nodes[node].part(&key()).unwrap_or(0)
    }

    fn parts(&self) -> Vec<u64> {
        (0..self.nodes.len()).map(|node| self.part(node)).collect()
    }
}

#[test]
fn a_node_alone_has_everything_at_once() {
    let mut world = World::new(1, 1_000);
    assert_eq!(world.parts(), [1_000]);
    world.limit = 5_000;
    world.round(0);
    assert_eq!(world.parts(), [5_000]);
    world.limit = 10;
    world.round(0);
    assert_eq!(world.parts(), [10]);
    assert!(world.under_way.is_empty());
}

#[test]
fn parts_go_to_where_they_are_wanted_and_back() {
    let mut world = World::new(3, 2_400);
    world.rounds(2);
    assert_eq!(world.parts(), [800; 3]);
    world.wishes[0] = wish(0, 10_000);
    world.rounds(4);
    assert_eq!(
        world.parts(),
        [2_200, 100, 100],
        "all but the floors of the others"
    );
    assert_eq!(world.nodes[1].used(&key()), Some(10_000));
    world.wishes = vec![wish(0, 0), wish(0, 10_000), wish(0, 10_000)];
    world.rounds(4);
    assert_eq!(world.parts(), [100, 1_150, 1_150]);
}

#[test]
fn what_all_know_is_not_told_again() {
    let mut world = World::new(2, 2_400);
    world.rounds(4);
    world.round(0);
    let (_, _, told) = world.under_way.pop().unwrap();
    assert!(told.entries.is_empty() && told.heard[&id(1)] > 0, "{told:?}");
}

#[test]
fn a_node_that_comes_has_a_part_at_once_and_one_that_goes_leaves_its_own() {
    let mut world = World::new(2, 1_000);
    world.wishes = vec![wish(0, 1_000); 2];
    world.rounds(4);
    assert_eq!(world.parts(), [500; 2]);

    // The third begins with a third, too much by that until the others know of it.
    world.nodes.push(Table::new(id(2), Incarnation::FIRST));
    world.wishes.push(wish(0, 1_000));
    world.meet(2, 3);
    world.round(2);
    assert_eq!(world.part(2), 333);
    (0..2).for_each(|node| world.meet(node, 3));
    (0..2).for_each(|node| world.round(node));
    assert!(world.parts().iter().sum::<u64>() <= 1_000, "{:?}", world.parts());
    world.deliver_all();
    world.rounds(4);
    assert_eq!(world.parts(), [334, 333, 333]);

    // It says nothing any more: what it has stays its own, and nobody is given more.
    world.wishes[0] = wish(0, 5_000);
    world.wishes[1] = wish(0, 0);
    for _ in 0..6 {
        (0..2).for_each(|node| world.round(node));
        world.under_way.retain(|(from, to, _)| *from != 2 && *to != 2);
        world.deliver_all();
    }
    assert_eq!((world.part(0), world.part(2)), (334, 333));
    // Its lease has ended.
    world.nodes.pop();
    world.wishes.pop();
    world.under_way.clear();
    (0..2).for_each(|node| world.meet(node, 2));
    world.rounds(4);
    assert_eq!(world.parts(), [938, 62]);
}

#[test]
fn a_node_that_was_thought_to_be_gone_begins_anew() {
    let mut world = World::new(2, 1_000);
    world.wishes[0] = wish(0, 1_000);
    world.rounds(4);
    assert_eq!(world.part(0), 938);
    let second = Incarnation::FIRST.next();
    // The other has everything meanwhile, and says so.
    world.nodes[1].meet(Incarnation::FIRST, &[]);
    world.wishes[1] = wish(0, 1_000);
    world.round(1);
    assert_eq!(world.part(1), 1_000);
    world.nodes[1].meet(Incarnation::FIRST, &[(id(0), second)]);
    world.round(1);
    assert_eq!(world.part(1), 500, "half is the other's");
    world.deliver_all();
    world.nodes[0].meet(second, &[(id(1), Incarnation::FIRST)]);
    assert!(world.part(0) <= 500, "{:?}", world.parts());
    world.rounds(4);
    assert_eq!(world.parts(), [500, 500]);
}

#[test]
fn what_an_earlier_life_says_does_not_count() {
    let mut world = World::new(2, 1_000);
    world.under_way.clear();
    world.wishes[1] = wish(0, 1_000);
    world.round(1);
    let (_, _, telling) = world.under_way.pop().unwrap();
    world.nodes[0].meet(Incarnation::FIRST, &[(id(1), Incarnation::FIRST.next())]);
    world.nodes[0].hear(id(1), telling.clone());
    assert_eq!(world.nodes[0].peers[&id(1)].heard, 0);
    // Nor does what a stranger says.
    world.nodes[0].hear(id(9), telling);
    assert_eq!(world.nodes[0].peers.len(), 1);
}

#[test]
fn a_round_counts_when_all_of_it_has_come() {
    let mut one = Table::new(id(0), Incarnation::FIRST);
    let mut two = Table::new(id(1), Incarnation::FIRST);
    one.meet(Incarnation::FIRST, &[(id(1), Incarnation::FIRST)]);
    two.meet(Incarnation::FIRST, &[(id(0), Incarnation::FIRST)]);
    let own = |n: usize| Own {
        key: (AppId::new(&format!("app{n}")).unwrap(), Kind::Channels),
        limit: 10,
        wish: wish(1, 1),
    };
    one.decide((0..1_200).map(own).collect());
    let tellings = one.tell();
    assert_eq!(tellings.len(), 3);
    let heard = |two: &Table| (two.peers[&id(0)].heard, two.peers[&id(0)].told.len());
    for telling in tellings.iter().skip(1).cloned() {
        two.hear(id(0), telling);
    }
    assert_eq!(heard(&two), (0, 0));
    two.hear(id(0), tellings[0].clone());
    assert_eq!(heard(&two), (1, 1_200));
    // Apps without quotas any more are forgotten, here and there.
    for _ in 0..3 {
        two.decide(Vec::new());
        for telling in two.tell() {
            one.hear(id(1), telling);
        }
        one.decide(vec![own(0)]);
        for telling in one.tell() {
            two.hear(id(0), telling);
        }
    }
    assert_eq!((one.lines.len(), heard(&two).1), (1, 1));
}

#[derive(Clone, Debug)]
enum Event {
    /// A node has a round.
    Round(usize),
    /// One of the messages under way arrives.
    Arrives(usize),
    /// One is lost.
    Lost(usize),
    Wants(usize, u64),
}

fn events(nodes: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..nodes).prop_map(Event::Round),
        12 => any::<usize>().prop_map(Event::Arrives),
        2 => any::<usize>().prop_map(Event::Lost),
        2 => (0..nodes, prop_oneof![0_u64..10, 0_u64..3_000]).prop_map(|(node, wants)| Event::Wants(node, wants)),
    ];
    prop::collection::vec(event, 0..400)
}

proptest! {
    /// Whatever is lost, late or out of order: the parts in force are never more than the quota together.
    #[test]
    fn parts_never_exceed_the_quota(
        (nodes, events) in (1_usize..6).prop_flat_map(|nodes| (Just(nodes), events(nodes))),
        limit in 0_u64..2_000,
    ) {
        let mut world = World::new(nodes, limit);
        for event in events {
            match event {
                Event::Round(node) => world.round(node),
                Event::Wants(node, wants) => world.wishes[node] = wish(0, wants),
                Event::Arrives(at) if !world.under_way.is_empty() => {
                    let at = at % world.under_way.len();
                    let (from, to, telling) = world.under_way.remove(at);
                    world.nodes[to].hear(id(from), telling);
                }
                Event::Lost(at) if !world.under_way.is_empty() => {
                    let at = at % world.under_way.len();
                    world.under_way.remove(at);
                }
                Event::Arrives(_) | Event::Lost(_) => {}
            }
            prop_assert!(world.parts().iter().sum::<u64>() <= limit, "{:?} of {limit}", world.parts());
        }
    }

    /// Places are taken while there are some, and given back: never more than the quota are held.
    #[test]
    fn places_never_exceed_the_quota(
        (nodes, events) in (1_usize..5).prop_flat_map(|nodes| (Just(nodes), events(nodes))),
        limit in 0_u64..12,
    ) {
        let mut world = World::new(nodes, limit);
        for event in events {
            match event {
                Event::Round(node) => {
                    world.round(node);
                    world.wishes[node].wanted = world.wishes[node].held;
                }
                // Connections come, or some go.
                Event::Wants(node, wants) => {
                    let held = wants % 15;
                    let most = world.part(node);
                    let wish = &mut world.wishes[node];
                    *wish = Wish { held: if held < wish.held { held } else { held.min(most).max(wish.held) }, wanted: held.max(wish.held) };
                }
                Event::Arrives(at) if !world.under_way.is_empty() => {
                    let at = at % world.under_way.len();
                    let (from, to, telling) = world.under_way.remove(at);
                    world.nodes[to].hear(id(from), telling);
                }
                Event::Lost(at) if !world.under_way.is_empty() => {
                    let at = at % world.under_way.len();
                    world.under_way.remove(at);
                }
                Event::Arrives(_) | Event::Lost(_) => {}
            }
            let held: u64 = world.wishes.iter().map(|wish| wish.held).sum();
            prop_assert!(held <= limit, "{:?} of {limit}", world.wishes);
        }
    }

    /// After any past, a few rounds in which nothing is lost bring the parts to where they are wanted.
    #[test]
    fn a_busy_node_has_nearly_everything_after_six_rounds(
        (nodes, events) in (1_usize..6).prop_flat_map(|nodes| (Just(nodes), events(nodes))),
        limit in 100_u64..2_000,
        busy in any::<usize>(),
    ) {
        let mut world = World::new(nodes, limit);
        for event in events {
            match event {
                Event::Round(node) => world.round(node),
                Event::Wants(node, wants) => world.wishes[node] = wish(0, wants),
                Event::Arrives(at) if !world.under_way.is_empty() => {
                    let at = at % world.under_way.len();
                    let (from, to, telling) = world.under_way.remove(at);
                    world.nodes[to].hear(id(from), telling);
                }
                Event::Arrives(_) | Event::Lost(_) => {}
            }
        }
        let busy = busy % nodes;
        world.wishes = vec![Wish::default(); nodes];
        world.wishes[busy] = wish(0, 2 * limit);
        world.under_way.clear();
        world.rounds(6);
        prop_assert!(world.part(busy) >= limit - limit / 8, "{:?} of {limit}", world.parts());
    }
}
