use proptest::prelude::*;

use super::*;

const ME: NodeId = NodeId::new(1);
const DAY: Duration = Duration::from_hours(24);
/// 2026-11-29T00:00:00Z.
const START: i64 = 1_795_910_400_000;

fn later(since: Instant, ms: u64) -> Instant {
    since + Duration::from_millis(ms)
}

/// A node's window at [`START`], of which nothing was stored.
fn window(limit: u64, now: Instant) -> Window {
    let mut window = Window::new(limit);
    window.turn(START, now);
    window.on_nothing();
    window
}

/// So many bytes are published and stored.
fn publish(window: &mut Window, bytes: u64, kept: Duration, now: Instant) -> Result<(), Over> {
    window.peek(bytes, now)?;
    window.hold(bytes);
    window.settle(bytes, Some(kept), now);
    Ok(())
}

#[test]
fn what_is_stored_counts_as_long_as_it_is_kept_and_a_step_at_most() {
    for (kept, step) in [
        (DAY, 3_600_000),
        (Duration::from_secs(2), 83),
        (Duration::from_millis(7), 1),
    ] {
        let kept_ms = i64::try_from(kept.as_millis()).unwrap();
        for ms in [START - 1, START, START + 1, START + 12_345_678, 0, -5] {
            let over = expiry(ms, kept) - (ms + kept_ms);
            assert!((1..=step).contains(&over), "{kept:?} at {ms}: {over}");
        }
    }
    assert_eq!(expiry(i64::MAX, DAY), i64::MAX);
}

#[test]
fn it_is_full_until_the_oldest_goes() {
    let now = Instant::now();
    let mut window = window(100, now);
    assert_eq!(publish(&mut window, 60, DAY, now), Ok(()));
    let minute = later(now, 60_000);
    assert_eq!(publish(&mut window, 40, Duration::from_secs(240), minute), Ok(()));
    let over = publish(&mut window, 1, DAY, minute).unwrap_err();
    assert_eq!(
        (over.limit, over.retry_after),
        (Limit::QuotaHistoryBytes, Duration::from_secs(250)),
        "240 seconds in steps of ten"
    );
    assert!(publish(&mut window, 1, DAY, later(minute, 249_999)).is_err());
    assert_eq!(publish(&mut window, 40, DAY, later(minute, 250_000)), Ok(()));
    assert_eq!(window.used(later(now, 25 * 3_600_000 - 1)), 100);
    assert_eq!(window.used(later(now, 25 * 3_600_000)), 0, "of one step");
    // What is larger than all of it never fits.
    assert_eq!(Window::new(10).peek(11, now).unwrap_err().retry_after, SOON);
}

#[test]
fn what_is_not_stored_after_all_makes_room_at_once() {
    let now = Instant::now();
    let mut window = window(100, now);
    window.hold(70);
    assert!(window.peek(31, now).is_err());
    assert_eq!(window.addition(), None, "nothing is stored yet");
    window.settle(70, None, now);
    assert_eq!((window.used(now), window.peek(100, now)), (0, Ok(())));
}

#[test]
fn before_it_is_known_what_time_it_is_all_counts() {
    let now = Instant::now();
    let mut window = Window::new(100);
    assert_eq!(publish(&mut window, 60, DAY, now), Ok(()));
    assert!(publish(&mut window, 60, DAY, later(now, 1_000)).is_err());
    window.turn(START, now);
    assert_eq!(window.addition(), None, "nobody has looked yet");
    window.on_nothing();
    let addition = window.addition().unwrap();
    assert_eq!(addition.amount.next(), Some(expiry(START, DAY)));
    assert_eq!(window.used(now), 60);
}

#[test]
fn what_is_stored_is_small_and_has_a_form() {
    let now = Instant::now();
    let mut window = window(u64::MAX, now);
    for ms in 0..100_000 {
        let at = later(now, ms * 10);
        publish(&mut window, 3, Duration::from_secs(100), at).unwrap();
        window.used(at);
    }
    let addition = window.addition().unwrap();
    assert!(
        addition.amount.until.len() <= 26,
        "{}",
        addition.amount.until.len()
    );
    let addition = Addition {
        number: 7,
        amount: BTreeMap::from([(START, 5), (START + 9, 6)]).into(),
    };
    let stored = Window::with(None, ME, &addition, 0, |_| true).unwrap();
    let text = serde_json::to_string(&stored).unwrap();
    assert_eq!(
        text,
        r#"{"bytes":{"1795910400000":5,"1795910400009":6},"marks":{"0000000000000001":7}}"#
    );
    let read: Stored = serde_json::from_str(&text).unwrap();
    assert_eq!((read.bytes.sum(), &read), (11, &stored));
    assert_eq!(Window::stays(&stored, START), STAYS + Duration::from_millis(9));
    assert_eq!(Window::stays(&stored, START + 10), STAYS);
    assert_eq!(
        Window::with(Some(&stored), ME, &addition, 0, |_| true),
        None,
        "it is in it"
    );
}

/// All has gone, with the marks; another node is faster to begin anew.
#[test]
fn a_count_that_has_gone_begins_anew_and_loses_nothing() {
    let now = Instant::now();
    let mut window = window(100, now);
    publish(&mut window, 5, KEPT[0], now).unwrap();
    let first = window.addition().unwrap();
    let stored = Window::with(None, ME, &first, START, |_| true).unwrap();
    window.on_stored(&stored, 1, ME);
    let later = later(now, 60_000);
    publish(&mut window, 7, DAY, later).unwrap();
    let second = window.addition().unwrap();
    assert_eq!((second.number, window.used(later)), (2, 7));
    window.on_nothing();
    let theirs = Addition {
        number: 1,
        amount: second.amount.clone(),
    };
    let stored = Window::with(None, NodeId::new(2), &theirs, START, |_| true).unwrap();
    window.on_read(&stored, 9, ME);
    assert_eq!((window.addition(), window.used(later)), (Some(second), 14));
}

/// Something that the log has.
#[derive(Debug)]
struct Item {
    node: NodeId,
    bytes: u64,
    at: i64,
    kept: Duration,
    /// Which of its node's additions it is in.
    number: Option<u64>,
    /// In which version of the count it is.
    landed: Option<u64>,
}

impl Item {
    /// Whether it is kept at this time.
    fn is_there(&self, ms: i64) -> bool {
        self.at + i64::try_from(self.kept.as_millis()).unwrap() > ms
    }
}

struct Node {
    id: NodeId,
    window: Window,
    /// The version of the count that it knows.
    heard: u64,
    /// The last of its additions.
    last: u64,
}

struct World {
    began: Instant,
    ms: u64,
    limit: u64,
    nodes: Vec<Node>,
    next_id: u64,
    store: Option<Stored>,
    revision: u64,
    log: Vec<Item>,
}

const KEPT: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

impl World {
    fn new(limit: u64) -> Self {
        let mut world = Self {
            began: Instant::now(),
            ms: 0,
            limit,
            nodes: Vec::new(),
            next_id: 1,
            store: None,
            revision: 0,
            log: Vec::new(),
        };
        for _ in 0..3 {
            let node = world.node();
            world.nodes.push(node);
        }
        world
    }

    fn now(&self) -> Instant {
        later(self.began, self.ms)
    }

    fn time(&self) -> i64 {
        START + i64::try_from(self.ms).unwrap()
    }

    /// One that starts, and reads.
    fn node(&mut self) -> Node {
        let mut node = Node {
            id: NodeId::new(self.next_id),
            window: Window::new(self.limit),
            heard: 0,
            last: 0,
        };
        self.next_id += 1;
        node.window.turn(self.time(), self.now());
        self.tell(&mut node);
        node
    }

    fn tell(&self, node: &mut Node) {
        match &self.store {
            Some(stored) => node.window.on_read(stored, self.revision, node.id),
            None => node.window.on_nothing(),
        }
        node.heard = self.revision;
    }

    /// `fate`: 0 the write does not arrive, 1 its answer does not, else all is well.
    fn flush(&mut self, which: usize, fate: u8) {
        let mut node = self.nodes.remove(which);
        self.tell(&mut node);
        if let Some(addition) = node.window.addition() {
            let of_node = |item: &&mut Item| item.node == node.id;
            // What came while an earlier one was under way is in the next.
            if addition.number > node.last {
                node.last = addition.number;
                for item in self.log.iter_mut().filter(of_node) {
                    item.number = item.number.or(Some(addition.number));
                }
            }
            let lives = |id| id == node.id || self.nodes.iter().any(|node| node.id == id);
            let (before, time) = (self.store.as_ref(), self.time());
            let stored = Window::with(before, node.id, &addition, time, lives);
            if let (Some(stored), 1..) = (stored, fate) {
                self.revision += 1;
                for item in self.log.iter_mut().filter(of_node) {
                    if item.number == Some(addition.number) {
                        item.landed = Some(self.revision);
                    }
                }
                self.store = Some(stored);
                if fate > 1 {
                    self.tell(&mut node);
                }
            }
        }
        self.nodes.insert(which, node);
    }

    fn publish(&mut self, which: usize, bytes: u64, kept: Duration) {
        let (now, at) = (self.now(), self.time());
        let node = &mut self.nodes[which];
        if publish(&mut node.window, bytes, kept, now).is_ok() {
            self.log.push(Item {
                node: node.id,
                bytes,
                at,
                kept,
                number: None,
                landed: None,
            });
            // So of all there is no more than the quota and what the others have not stored, or taken with them.
            let (seen, _) = self.seen(which, |item| item.is_there(at));
            assert!(seen <= self.limit, "{seen}");
        }
    }

    /// What the node can know of, and what it cannot, of all of these.
    fn seen(&self, which: usize, is_there: impl Fn(&Item) -> bool) -> (u64, u64) {
        let node = &self.nodes[which];
        let is_seen =
            |item: &Item| item.node == node.id || item.landed.is_some_and(|landed| landed <= node.heard);
        let sum = |seen: bool| {
            let all = self
                .log
                .iter()
                .filter(|item| is_there(item) && is_seen(item) == seen);
            all.map(|item| item.bytes).sum()
        };
        (sum(true), sum(false))
    }
}

proptest! {
    /// Three nodes publish, store what they have counted and do not always learn what became of it; they are
    /// stopped and killed, and others come; time passes. Each knows exactly what is kept, but for what others
    /// have not stored, or have taken with them; and there is never more than the quota and that.
    #[test]
    fn whatever_is_lost_all_know_what_is_kept(
        steps in prop::collection::vec((0_usize..3, 0_u8..12, 1_u64..400, 0_u8..4), 0..150),
    ) {
        let mut world = World::new(1_000);
        for (which, act, size, fate) in steps {
            match act {
                0..=4 => world.publish(which, size, KEPT[usize::from(act % 2)]),
                5..=7 => world.flush(which, fate),
                8 => {
                    let mut node = world.nodes.remove(which);
                    world.tell(&mut node);
                    world.nodes.insert(which, node);
                }
                9 => world.ms += size * 50,
                10 => {
                    // Stopped in order: nothing is lost.
                    world.flush(which, 2);
                    world.flush(which, 2);
                    world.nodes[which] = world.node();
                }
                _ => world.nodes[which] = world.node(),
            }
            let (now, time) = (world.now(), world.time());
            for which in 0..3 {
                let (known, _) = world.seen(which, |item| expiry(item.at, item.kept) > time);
                prop_assert_eq!(world.nodes[which].window.used(now), known);
                let (seen, _) = world.seen(which, |item| item.is_there(time));
                prop_assert!(seen <= known);
            }
        }
    }
}
