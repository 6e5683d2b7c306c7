use super::*;
use crate::presence::member::{Shown, test_member};

fn names(members: &[Arc<Member>]) -> Vec<&str> {
    members.iter().map(|member| &*member.client).collect()
}

#[test]
fn a_delta_says_what_is_once_for_each_connection() {
    let mut owner = Owner::default();
    owner.put(test_member("a", "ann"));
    owner.put(test_member("b", "bob"));
    owner.put(
        test_member("a", "ann")
            .showing(Shown::State(Some("1".into())))
            .into(),
    );
    owner.leave("b");
    let delta = owner.take_delta(7, usize::MAX).unwrap();
    assert_eq!((delta.from, delta.to), (0, 7));
    assert_eq!(names(&delta.put), ["a"]);
    assert_eq!(delta.put[0].state.as_deref(), Some(&b"1"[..]));
    assert_eq!(delta.left, ["b".into()]);
    assert!(
        owner.take_delta(8, usize::MAX).is_none(),
        "nothing has changed since"
    );
    owner.put(test_member("c", "cid"));
    assert_eq!(owner.take_delta(9, usize::MAX).unwrap().from, 7);
}

#[test]
fn what_does_not_fit_follows_and_nothing_is_told_twice() {
    let mut owner = Owner::default();
    for client in ["a", "b", "c", "d"] {
        owner.put(test_member(client, "u"));
    }
    owner.leave("c");
    let room = test_member("a", "u").size() + 1;
    let first = owner.take_delta(5, room).unwrap();
    assert_eq!((first.from, first.to, names(&first.put)), (4, 5, vec!["a", "b"]));
    owner.put(test_member("e", "u"));
    let second = owner.take_delta(6, room).unwrap();
    assert_eq!((second.from, second.to, names(&second.put)), (5, 6, vec!["d"]));
    assert_eq!(second.left, ["c".into()]);
    assert_eq!(names(&owner.take_delta(7, room).unwrap().put), ["e"]);
    assert_eq!(owner.take_delta(8, room), None);
    // Everybody leaves, which takes two: only the second says that there is nobody.
    for client in ["a", "b", "d", "e"] {
        owner.leave(client);
    }
    assert_eq!(owner.take_delta(8, 6).unwrap().from, 7);
    assert_eq!(owner.version(), 8);
    assert_eq!(owner.take_delta(9, 100).unwrap().from, 8);
    assert_eq!(owner.version(), 0);
}

#[test]
fn when_everybody_has_left_the_next_delta_says_all() {
    let mut owner = Owner::default();
    owner.put(test_member("a", "ann"));
    owner.take_delta(1, usize::MAX);
    owner.leave("a");
    assert_eq!(owner.take_delta(2, usize::MAX).unwrap().from, 1);
    owner.put(test_member("b", "bob"));
    assert_eq!(owner.take_delta(3, usize::MAX).unwrap().from, 0);
}

#[test]
fn a_lost_connection_stays_until_its_time_is_over_or_its_user_is_back() {
    let mut owner = Owner::default();
    for (client, user) in [("a", "ann"), ("b", "bob"), ("c", "bob")] {
        owner.put(test_member(client, user));
    }
    assert!(!owner.linger("x", 100));
    owner.linger("a", 100);
    owner.linger("b", 200);
    assert_eq!(owner.snapshot(0).members.len(), 3);
    assert_eq!(owner.end_lingering("a", 99), None);
    assert_eq!(owner.end_lingering("c", 1_000), None, "it is not lost");
    assert_eq!(&*owner.end_lingering("a", 100).unwrap().client, "a");
    assert_eq!(owner.end_lingering("a", 100), None);
    assert_eq!(
        names(&owner.end_lingering_of(&test_member("e", "bob"))),
        ["b"],
        "c is not lost"
    );
    // Back before the time is over: the same connection cannot be, but its entry can.
    owner.linger("c", 300);
    owner.put(test_member("c", "bob"));
    assert_eq!(owner.end_lingering("c", 400), None);
    assert_eq!(owner.end_lingering_of(&test_member("e", "bob")), []);
    // Of anonymous ones nobody knows whose they are.
    owner.put(test_member("d", ""));
    owner.linger("d", 500);
    assert_eq!(owner.end_lingering_of(&test_member("e", "")), []);
    assert!(owner.end_lingering("d", 500).is_some());
    assert!(owner.lost.is_empty());
}

#[test]
fn a_first_delta_that_is_cut_does_not_say_all() {
    let mut owner = Owner::default();
    for client in ["a", "b"] {
        owner.put(test_member(client, "u"));
    }
    let first = owner.take_delta(7, 1).unwrap();
    assert_eq!((first.from, names(&first.put).len()), (6, 1));
    let second = owner.take_delta(8, 1_000).unwrap();
    assert_eq!((second.from, names(&second.put).len()), (7, 1));
    let mut owner = Owner::default();
    owner.put(test_member("a", "u"));
    assert_eq!(owner.take_delta(1, 1_000).unwrap().from, 0);
}

#[test]
fn of_two_lost_connections_only_the_earlier_one_gives_way() {
    let at = |client: &str, joined_ms| {
        Arc::new(Member {
            joined_ms,
            ..(*test_member(client, "bob")).clone()
        })
    };
    // Each is heard of, late, where the other is lost.
    let (early, late) = (at("z", 1), at("a", 2));
    for (holds, hears, ends) in [(&early, &late, true), (&late, &early, false)] {
        let mut owner = Owner::default();
        owner.put(holds.clone());
        owner.linger(&holds.client, 100);
        assert_eq!(owner.end_lingering_of(hears).len() == 1, ends);
        assert_eq!(owner.end_lingering(&holds.client, 100).is_none(), ends);
    }
    // At the same time at two nodes: the names decide, the same everywhere.
    assert_ne!(
        at("a", 1).came_after(&at("b", 1)),
        at("b", 1).came_after(&at("a", 1))
    );
}
