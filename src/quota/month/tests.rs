use proptest::prelude::*;

use super::*;

const ME: NodeId = NodeId::new(1);
const OTHER: NodeId = NodeId::new(2);

fn month(text: &str) -> MonthOf {
    MonthOf::try_from(text.to_owned()).unwrap()
}

#[test]
fn a_time_has_its_month_and_how_long_it_lasts() {
    for (ms, text, left) in [
        (0, "1970-01", 31 * DAY_MS),
        (-1, "1969-12", 1),
        // 2024-02-28T00:00:00Z, 2024-03-01, 2023-02-28.
        (1_709_078_400_000, "2024-02", 2 * DAY_MS),
        (1_709_251_200_000, "2024-03", 31 * DAY_MS),
        (1_677_542_400_000, "2023-02", DAY_MS),
        // 2000-02-29, 2026-12-31T23:59:59.999Z.
        (951_782_400_000, "2000-02", DAY_MS),
        (1_798_761_599_999, "2026-12", 1),
        (1_798_761_600_000, "2027-01", 31 * DAY_MS),
    ] {
        let (at, lasts) = MonthOf::at(ms);
        assert_eq!(
            (at.to_string().as_str(), lasts.as_millis()),
            (text, left.unsigned_abs().into()),
            "{ms}"
        );
        assert_eq!(month(text), at);
    }
    for bad in ["2026", "2026-00", "2026-13", "x-1"] {
        assert!(MonthOf::try_from(bad.to_owned()).is_err(), "{bad}");
    }
    assert!(month("2026-12") < month("2027-01"));
}

/// A node's month in `now`, of which nothing was stored.
fn node(now: &str) -> Month {
    let mut node = Month::new(100);
    node.turn(month(now), Instant::now());
    node.on_nothing();
    node
}

/// A quota that went and came back: the node's numbers go on where the store has them.
#[test]
fn a_counter_that_is_made_anew_goes_on_from_its_mark() {
    let mut before = node("2026-11");
    before.charge(5);
    let first = before.addition().unwrap();
    let stored = Stored::with(None, ME, &first, |_| true).unwrap();
    let mut again = Month::new(100);
    again.turn(month("2026-11"), Instant::now());
    again.charge(3);
    assert_eq!(again.addition(), None, "nobody has looked yet");
    again.on_read(&stored, 1, ME);
    let next = again.addition().unwrap();
    assert_eq!((next.number, again.used()), (first.number + 1, 8));
    let stored = Stored::with(Some(&stored), ME, &next, |_| true).unwrap();
    assert_eq!(stored.messages, 8);
}

#[test]
fn an_addition_whose_outcome_is_unknown_counts_once() {
    let mut node = node("2026-11");
    node.charge(5);
    let first = node.addition().unwrap();
    // More comes while it is under way.
    node.charge(2);
    assert_eq!(node.addition(), Some(first));
    let stored = Stored::with(None, ME, &first, |_| true).unwrap();
    assert_eq!(stored.messages, 5);
    // The answer was lost; what is read tells.
    node.on_read(&stored, 1, ME);
    assert_eq!((node.used(), node.is_known()), (7, true));
    assert_eq!(
        Stored::with(Some(&stored), ME, &first, |_| true),
        None,
        "it is in it"
    );
    let second = node.addition().unwrap();
    assert_eq!((second.number, second.messages), (2, 2));
    // Another node was faster.
    let theirs = Addition {
        number: 9,
        messages: 10,
        ..first
    };
    let both = Stored::with(Some(&stored), OTHER, &theirs, |_| true).unwrap();
    node.on_stored(&both, 2, ME);
    // What is told late says nothing new.
    node.on_stored(&stored, 1, ME);
    assert_eq!(node.used(), 17);
    let all = Stored::with(Some(&both), ME, &second, |_| true).unwrap();
    node.on_stored(&all, 3, ME);
    assert_eq!((node.used(), all.messages, node.addition()), (17, 17, None));
}

#[test]
fn a_node_that_was_thought_to_be_gone_does_not_count_twice() {
    let mut node = node("2026-11");
    node.charge(5);
    let first = node.addition().unwrap();
    let stored = Stored::with(None, ME, &first, |_| true).unwrap();
    node.on_stored(&stored, 1, ME);
    node.charge(3);
    let second = node.addition().unwrap();
    // It is stored, the answer is lost, and another lets its mark go.
    let stored = Stored::with(Some(&stored), ME, &second, |_| true).unwrap();
    let theirs = Addition {
        number: 1,
        messages: 1,
        ..first
    };
    let without = Stored::with(Some(&stored), OTHER, &theirs, |node| node != ME).unwrap();
    assert_eq!(without.marks.keys().collect::<Vec<_>>(), [&OTHER]);
    node.on_stored(&without, 3, ME);
    assert_eq!((node.used(), node.addition()), (9, None));
}

#[test]
fn a_new_month_begins_with_nothing() {
    let mut node = node("2026-11");
    node.charge(100);
    assert_eq!(node.peek(1, Instant::now()).unwrap_err().limit, Limit::QuotaMonth);
    let old = node.addition().unwrap();
    let stored = Stored::with(None, ME, &old, |_| true).unwrap();
    node.turn(month("2026-12"), Instant::now());
    assert_eq!(node.used(), 0);
    assert!(node.peek(100, Instant::now()).is_ok());
    node.on_stored(&stored, 1, ME);
    assert_eq!(node.used(), 0, "it is of another month");
    node.charge(1);
    let new = node.addition().unwrap();
    let stored = Stored::with(Some(&stored), ME, &new, |_| true).unwrap();
    assert_eq!((stored.month, stored.messages), (month("2026-12"), 1));
    // A node whose clock is behind.
    assert_eq!(Stored::with(Some(&stored), OTHER, &old, |_| true), None);
    node.give_up(&new);
    assert_eq!((node.used(), node.addition()), (0, None));
}

#[test]
fn it_is_warned_of_a_quota_once_a_month() {
    let mut node = node("2026-11");
    node.charge(90);
    let addition = node.addition().unwrap();
    let mut stored = Stored::with(None, ME, &addition, |_| true).unwrap();
    node.on_stored(&stored, 1, ME);
    assert!(!node.is_warned());
    stored.warned = 100;
    node.on_stored(&stored, 2, ME);
    assert!(node.is_warned());
    node.set_limit(200);
    assert!(!node.is_warned(), "of the new one it was not");
    node.turn(month("2026-12"), Instant::now());
    node.set_limit(100);
    assert!(!node.is_warned());
    let text = serde_json::to_string(&stored).unwrap();
    assert_eq!(
        text,
        r#"{"month":"2026-11","messages":90,"marks":{"0000000000000001":1},"warned":100}"#
    );
    assert_eq!(serde_json::from_str::<Stored>(&text).unwrap(), stored);
}

proptest! {
    /// Two nodes write by turns, and now and then do not learn what became of it: in the end all is
    /// counted, once.
    #[test]
    fn whatever_is_lost_everything_is_counted_once(
        steps in prop::collection::vec((any::<bool>(), 0_u64..20, 0_u8..4), 0..100),
    ) {
        let mut nodes = [(ME, node("2026-11")), (OTHER, node("2026-11"))];
        let mut store: (Option<Stored>, u64) = (None, 0);
        let mut total = 0;
        let write = |(id, node): &mut (NodeId, Month), store: &mut (Option<Stored>, u64), fate: u8| {
            if let Some(stored) = &store.0 {
                node.on_read(stored, store.1, *id);
            }
            let Some(addition) = node.addition() else { return };
            let Some(stored) = Stored::with(store.0.as_ref(), *id, &addition, |_| true) else { return };
            // It does not arrive; or it does, and the answer does not.
            if fate == 0 {
                return;
            }
            *store = (Some(stored), store.1 + 1);
            if let (Some(stored), true) = (&store.0, fate > 1) {
                node.on_stored(stored, store.1, *id);
            }
        };
        for (which, count, fate) in steps {
            let node = &mut nodes[usize::from(which)];
            node.1.charge(count);
            total += count;
            write(node, &mut store, fate);
            prop_assert!(node.1.used() <= total + 20);
        }
        for _ in 0..2 {
            nodes.iter_mut().for_each(|node| write(node, &mut store, 2));
        }
        prop_assert_eq!(store.0.map_or(0, |stored| stored.messages), total);
    }
}
