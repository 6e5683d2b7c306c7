//! More has changed than there is room for in a round, or than is remembered.

use super::*;

/// Nodes with several quotas of the same limit each, and little room.
struct Crowd {
    limit: u64,
    nodes: Vec<Table>,
    /// By node and quota; `None`: the node does not serve the app.
    wishes: Vec<Vec<Option<Wish>>>,
    /// From, to, what.
    under_way: Vec<(usize, usize, Telling)>,
}

fn key_of(quota: usize) -> Key {
    (AppId::new(&format!("app{quota}")).unwrap(), Kind::Channels)
}

impl Crowd {
    /// Nodes that know of nobody.
    fn strangers(count: usize, quotas: usize, limit: u64, room: Room) -> Self {
        let nodes = (0..count).map(|node| {
            let mut table = Table::new(id(node), Incarnation::FIRST);
            table.room = room;
            table
        });
        Self {
            limit,
            nodes: nodes.collect(),
            wishes: vec![vec![Some(Wish::default()); quotas]; count],
            under_way: Vec::new(),
        }
    }

    /// Nodes that know of each other, and have begun.
    fn new(count: usize, quotas: usize, limit: u64, room: Room) -> Self {
        let mut crowd = Self::strangers(count, quotas, limit, room);
        (0..count).for_each(|node| crowd.meet_all(node));
        (0..count).for_each(|node| crowd.round(node));
        crowd
    }

    fn meet_all(&mut self, node: usize) {
        let others: Vec<_> = (0..self.nodes.len())
            .filter(|other| *other != node)
            .map(|other| (id(other), Incarnation::FIRST))
            .collect();
        self.nodes[node].meet(Incarnation::FIRST, &others);
    }

    fn meet_one(&mut self, node: usize, other: usize) {
        let table = &mut self.nodes[node];
        let mut others: Vec<_> = table
            .peers
            .keys()
            .map(|other| (*other, Incarnation::FIRST))
            .collect();
        others.push((id(other), Incarnation::FIRST));
        table.meet(Incarnation::FIRST, &others);
    }

    fn round(&mut self, node: usize) {
        let limit = self.limit;
        let owns = self.wishes[node].iter().enumerate().filter_map(|(quota, wish)| {
            Some(Own {
                key: key_of(quota),
                limit,
                wish: (*wish)?,
            })
        });
        let owns = owns.collect();
        self.nodes[node].decide(owns);
        for telling in self.nodes[node].tell() {
            assert!(telling.entries.len() <= self.nodes[node].room.told);
            let telling = Telling::decode(&telling.encode()).unwrap();
            for to in (0..self.nodes.len()).filter(|to| *to != node) {
                self.under_way.push((node, to, telling.clone()));
            }
        }
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            (0..self.nodes.len()).for_each(|node| self.round(node));
            self.deliver_all();
        }
    }

    fn deliver_all(&mut self) {
        for (from, to, telling) in std::mem::take(&mut self.under_way) {
            self.nodes[to].hear(id(from), telling);
        }
    }

    fn part(&self, node: usize, quota: usize) -> u64 {
        self.nodes[node].part(&key_of(quota)).unwrap_or(0)
    }

    fn parts(&self, quota: usize) -> Vec<u64> {
        (0..self.nodes.len()).map(|node| self.part(node, quota)).collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for quota in 0..self.wishes[0].len() {
            let parts = self.parts(quota);
            let sum: u64 = parts.iter().sum();
            prop_assert!(sum <= self.limit, "quota {quota}: {parts:?} of {}", self.limit);
        }
        Ok(())
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Round(node) => self.round(node),
            Event::Wants(node, quota, wanted) => {
                let part = self.part(node, quota);
                let was = self.wishes[node][quota].map_or(0, |wish| wish.held);
                // Some of it is taken, as far as the node may, or given back.
                let held = (wanted / 2).min(part.max(was));
                if self.wishes[node][quota].is_some() {
                    self.wishes[node][quota] = Some(Wish { held, wanted });
                }
            }
            // One node only, and one that remembers what the others have: whoever takes an app up begins with what
            // would be its part if all were alike, as a node that starts does.
            Event::Serves(quota, serves) if self.nodes[0].room.remembered >= self.wishes[0].len() => {
                let wish = &mut self.wishes[0][quota];
                *wish = serves.then(|| wish.unwrap_or_default());
            }
            Event::Meets(node, other) => self.meet_one(node, other),
            Event::Arrives(at) if !self.under_way.is_empty() => {
                let at = at % self.under_way.len();
                let (from, to, telling) = self.under_way.remove(at);
                self.nodes[to].hear(id(from), telling);
            }
            Event::Lost(at) if !self.under_way.is_empty() => {
                let at = at % self.under_way.len();
                self.under_way.remove(at);
            }
            Event::Arrives(_) | Event::Lost(_) | Event::Serves(..) => {}
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Round(usize),
    Arrives(usize),
    Lost(usize),
    /// Which node wants how much of which quota.
    Wants(usize, usize, u64),
    /// Whether the first node serves an app.
    Serves(usize, bool),
    /// A node hears that another has a lease.
    Meets(usize, usize),
}

fn events(nodes: usize, quotas: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..nodes).prop_map(Event::Round),
        16 => any::<usize>().prop_map(Event::Arrives),
        2 => any::<usize>().prop_map(Event::Lost),
        6 => (0..nodes, 0..quotas, prop_oneof![0_u64..10, 0_u64..3_000])
            .prop_map(|(node, quota, wants)| Event::Wants(node, quota, wants)),
        1 => (0..quotas, any::<bool>()).prop_map(|(quota, serves)| Event::Serves(quota, serves)),
        1 => (0..nodes, 0..nodes).prop_map(|(node, other)| Event::Meets(node, other)),
    ];
    prop::collection::vec(event, 0..400)
}

fn pasts() -> impl Strategy<Value = (usize, usize, Room, Vec<Event>)> {
    (
        2_usize..5,
        1_usize..6,
        1_usize..4,
        prop_oneof![Just(100_usize), 1_usize..4],
    )
        .prop_flat_map(|(nodes, quotas, told, remembered)| {
            let room = Room { told, remembered };
            (Just(nodes), Just(quotas), Just(room), events(nodes, quotas))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is put off, forgotten, lost, late or out of order.
    #[test]
    fn parts_never_exceed_the_quota_whatever_is_put_off(
        (nodes, quotas, room, events) in pasts(),
        limit in 0_u64..2_000,
    ) {
        let mut crowd = Crowd::new(nodes, quotas, limit, room);
        for event in events {
            crowd.on(event);
            crowd.check()?;
        }
    }

    /// Whoever came when, and whatever was lost then: what is put off is told in the end, to all.
    #[test]
    fn what_is_put_off_is_told_in_the_end(
        (nodes, quotas, room, events) in pasts(),
        limit in 100_u64..2_000,
        busy in any::<usize>(),
    ) {
        let room = Room { remembered: 100, ..room };
        let mut crowd = Crowd::strangers(nodes, quotas, limit, room);
        for event in events {
            crowd.on(event);
        }
        (0..nodes).for_each(|node| crowd.meet_all(node));
        let busy = busy % nodes;
        for (node, wishes) in crowd.wishes.iter_mut().enumerate() {
            wishes.fill(Some(wish(0, if node == busy { 2 * limit } else { 0 })));
        }
        crowd.rounds(10 * quotas + 10);
        crowd.check()?;
        for quota in 0..quotas {
            let parts = crowd.parts(quota);
            prop_assert!(parts[busy] >= limit - limit / 8, "quota {quota}: {parts:?} of {limit}");
        }
    }
}

/// No room for more than one entry.
const TIGHT: Room = Room {
    told: 1,
    remembered: 100,
};

#[test]
fn what_nobody_was_told_of_is_not_in_force() {
    let mut crowd = Crowd::new(2, 2, 1_000, TIGHT);
    crowd.wishes[1][1] = Some(wish(0, 5_000));
    crowd.rounds(10);
    assert_eq!(crowd.parts(1), [62, 938]);
    // The second has less at once, and the first has not taken it yet.
    crowd.wishes[1][1] = Some(wish(0, 0));
    crowd.rounds(1);
    assert_eq!(crowd.parts(1), [62, 500]);
    // Now both want all of it, and have no room to say so.
    for round in 0..20 {
        for wishes in &mut crowd.wishes {
            *wishes = vec![Some(wish(0, round)), Some(wish(0, 5_000))];
        }
        crowd.rounds(1);
        assert!(
            crowd.parts(1).iter().sum::<u64>() <= 1_000,
            "{:?}",
            crowd.parts(1)
        );
    }
    assert_eq!(crowd.parts(1), [500, 500]);
}

#[test]
fn nobody_is_kept_waiting_by_those_who_change_in_each_round() {
    let mut crowd = Crowd::new(2, 4, 1_000, TIGHT);
    crowd.wishes[0][3] = Some(wish(0, 5_000));
    for round in 0..40 {
        for quota in 0..3 {
            for node in 0..2 {
                crowd.wishes[node][quota] = Some(wish(0, 100 + round));
            }
        }
        crowd.rounds(1);
    }
    assert_eq!(crowd.parts(3), [938, 62]);
}

#[test]
fn what_a_node_said_before_it_was_told_anything_acknowledges_nothing() {
    let mut crowd = Crowd::strangers(
        3,
        1,
        1_000,
        Room {
            told: 100,
            remembered: 100,
        },
    );
    crowd.wishes[0][0] = Some(wish(0, 5_000));
    crowd.meet_one(0, 1);
    crowd.meet_one(1, 0);
    // The third knows them, and hears what they say to each other when they have nothing new to say.
    crowd.meet_all(2);
    for round in 0..10 {
        if round == 5 {
            crowd.wishes[0][0] = Some(wish(938, 5_000));
        }
        (0..2).for_each(|node| crowd.round(node));
        crowd.under_way.retain(|(_, to, _)| *to != 2);
        crowd.deliver_all();
    }
    (0..2).for_each(|node| crowd.round(node));
    crowd.deliver_all();
    crowd.round(2);
    let early = std::mem::take(&mut crowd.under_way);
    // They know it now, and what they tell it first is lost.
    (0..2).for_each(|node| crowd.meet_all(node));
    (0..2).for_each(|node| crowd.round(node));
    crowd.under_way.retain(|(_, to, _)| *to != 2);
    crowd.under_way.extend(early);
    crowd.deliver_all();
    crowd.wishes[2][0] = Some(wish(0, 5_000));
    crowd.rounds(8);
    assert_eq!(crowd.nodes[2].peers[&id(0)].told[&key_of(0)].claim, 938);
    assert_eq!(crowd.parts(0), [938, 31, 31]);
}

#[test]
fn what_is_not_remembered_is_not_taken_for_free() {
    let room = Room {
        told: 100,
        remembered: 1,
    };
    let mut crowd = Crowd::new(2, 2, 1_000, room);
    for quota in 0..2 {
        crowd.wishes[0][quota] = Some(wish(500, 500));
    }
    crowd.rounds(4);
    for quota in 0..2 {
        crowd.wishes[1][quota] = Some(wish(0, 5_000));
    }
    crowd.rounds(8);
    for quota in 0..2 {
        assert_eq!(crowd.parts(quota), [500, 500]);
    }
    assert_eq!(crowd.nodes[1].peers[&id(0)].told.len(), 1);
}
