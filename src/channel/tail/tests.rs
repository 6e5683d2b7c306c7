use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::*;
use crate::channel::entry::test_entry;

/// An outlet with room for so many frames, that remembers what it took.
#[derive(Clone, Default)]
struct Inbox(Rc<RefCell<(usize, Vec<Bytes>)>>);

impl Inbox {
    fn with_room(frames: usize) -> Self {
        let inbox = Self::default();
        inbox.0.borrow_mut().0 = frames;
        inbox
    }

    fn got(&self) -> Vec<Offset> {
        let state = self.0.borrow();
        let text = |frame: &Bytes| String::from_utf8_lossy(frame).into_owned();
        state
            .1
            .iter()
            .filter_map(|f| text(f).trim_matches(|c: char| !c.is_ascii_digit()).parse().ok())
            .collect()
    }

    fn make_room(&self, frames: usize) {
        self.0.borrow_mut().0 += frames;
    }
}

impl Outlet for Inbox {
    fn offer(&self, frames: &[Bytes], _bytes: usize, _pace: Pace) -> Offer {
        let mut state = self.0.borrow_mut();
        if state.0 < frames.len() {
            return Offer::Full;
        }
        state.0 -= frames.len();
        state.1.extend(frames.iter().cloned());
        Offer::Taken
    }

    fn space(&self) -> usize {
        // Frames of the tests are of 11 to 14 bytes.
        self.0.borrow().0 * 14
    }
}

const LIMITS: TailLimits = TailLimits {
    ring: RingLimits {
        messages: 4,
        bytes: 1 << 20,
    },
    gap_bytes: 1 << 16,
    page_bytes: 1 << 16,
};

fn tail(last_seq: Offset) -> Tail<Inbox> {
    let mut tail = Tail::new(LIMITS);
    tail.begin(last_seq);
    tail
}

fn publication(offset: Offset) -> Message {
    Message::Publication(test_entry(offset))
}

fn copy(prev: Offset, offset: Offset) -> Arrival {
    Arrival {
        message: publication(offset),
        prev,
    }
}

fn live(tail: &mut Tail<Inbox>) -> Inbox {
    let inbox = Inbox::with_room(1000);
    tail.join_fresh(inbox.clone());
    inbox
}

#[test]
fn l7_copies_continue_repeat_and_leave_gaps() {
    use Need::{Floor, Nothing, Read};
    let read = |from, last| Read {
        from,
        target: Target {
            last: Some(last),
            whole_to: last,
        },
    };
    // (whole to, copies before, the copy, what is needed then, W after it)
    for (start, before, arrival, need, whole_to) in [
        (10, vec![], copy(7, 11), Nothing, 11), // none seen, 0 < prev <= W
        (10, vec![copy(7, 11)], copy(11, 14), Nothing, 14), // prev == L
        (10, vec![copy(7, 11)], copy(7, 11), Nothing, 11), // a repeat
        (10, vec![], copy(5, 9), Nothing, 10),  // stored before W was learnt
        (10, vec![copy(7, 11)], copy(12, 14), read(11, 12), 11), // prev > L
        (10, vec![], copy(12, 14), read(10, 12), 10), // none seen, prev > W
        (
            10,
            vec![],
            copy(0, 14),
            Floor {
                position: 10,
                reach: 14,
            },
            10,
        ),
        (
            10,
            vec![copy(7, 11)],
            copy(0, 14),
            Floor {
                position: 11,
                reach: 14,
            },
            11,
        ),
        (
            10,
            vec![copy(7, 11)],
            copy(3, 14),
            Floor {
                position: 11,
                reach: 14,
            },
            11,
        ),
    ] {
        let mut tail = tail(start);
        tail.on_copies(Pace::Queued, before);
        let case = format!("{arrival:?}");
        tail.on_copies(Pace::Queued, [arrival]);
        assert_eq!((tail.need(), tail.whole_to()), (need, whole_to), "{case}");
    }
}

#[test]
fn a_gap_is_read_while_copies_wait() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(7, 11), copy(13, 14), copy(14, 15)]);
    assert_eq!(inbox.got(), [11]);
    tail.on_read(vec![publication(12), publication(13)], 13);
    assert_eq!((inbox.got(), tail.whole_to()), (vec![11, 12, 13, 14, 15], 15));
    assert!(tail.is_whole());
}

#[test]
fn a_page_that_does_not_reach_is_followed_by_another() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(13, 14)]);
    tail.on_read(vec![publication(12)], 12);
    assert!(matches!(tail.need(), Need::Read { from: 12, .. }));
    tail.on_read(vec![publication(13)], 13);
    assert_eq!(inbox.got(), [12, 13, 14]);
}

#[test]
fn the_floor_closes_a_gap_behind_expired_messages() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(0, 14), copy(14, 15)]);
    assert!(!tail.on_floor(12), "11 may have been there");
    assert!(tail.on_floor(11));
    assert_eq!((inbox.got(), tail.whole_to()), (vec![14, 15], 15));
}

#[test]
fn a_lost_gap_ends_the_cursors_and_starts_anew() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(0, 14), copy(14, 15)]);
    tail.lose(15);
    let effects = tail.take_effects();
    assert_eq!((effects.ended.len(), effects.lost), (1, 1));
    assert_eq!(
        (tail.whole_to(), tail.ring().from(), inbox.got()),
        (15, 14, vec![])
    );
}

#[test]
fn copies_that_find_no_room_while_a_gap_is_read_are_read_again() {
    let mut tail = Tail::new(TailLimits {
        gap_bytes: 300,
        ..LIMITS
    });
    tail.begin(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(12, 14)]);
    tail.on_copies(Pace::Queued, (14..40).map(|offset| copy(offset, offset + 1)));
    tail.on_read(vec![publication(12)], 12);
    let Need::Read { from: 12, target } = tail.need() else {
        panic!("{:?}", tail.need())
    };
    assert_eq!(target.last, Some(40));
    tail.on_read((13..=40).map(publication).collect(), 40);
    assert!(tail.is_whole());
    assert_eq!(inbox.got(), (12..=40).collect::<Vec<_>>());
}

#[test]
fn l7_copies_that_find_no_room_while_the_floor_is_asked_are_read() {
    let mut tail = Tail::new(TailLimits {
        gap_bytes: 300,
        ..LIMITS
    });
    tail.begin(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(0, 14)]);
    tail.on_copies(Pace::Queued, (14..40).map(|offset| copy(offset, offset + 1)));
    assert!(tail.on_floor(11));
    let Need::Read { from: 10, target } = tail.need() else {
        panic!("{:?}", tail.need())
    };
    assert_eq!((target.last, inbox.got()), (Some(40), vec![]));
    tail.on_read((14..=40).map(publication).collect(), 40);
    assert_eq!(inbox.got(), (14..=40).collect::<Vec<_>>());
}

#[test]
fn l7_a_repeat_that_comes_while_a_gap_is_open_stays_a_repeat() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(7, 11), copy(11, 12)]);
    tail.on_check(20, 18, None);
    assert!(matches!(tail.need(), Need::Floor { reach: 20, .. }));
    tail.on_copies(Pace::Queued, [copy(7, 11), copy(12, 22)]);
    assert!(tail.on_floor(13));
    assert_eq!((inbox.got(), tail.whole_to()), (vec![11, 12, 22], 22));
}

#[test]
fn l7_a_copy_behind_a_checked_gap_must_continue_too() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(Pace::Queued, [copy(7, 11)]);
    tail.on_check(20, 18, None);
    tail.on_copies(Pace::Queued, [copy(22, 24)]);
    assert!(tail.on_floor(12));
    assert_eq!(inbox.got(), [11], "22 is missing");
    assert!(matches!(tail.need(), Need::Read { from: 20, .. }));
}

#[test]
fn l11_a_check_finds_the_lost_last_copy_and_moves_a_quiet_tail() {
    let mut quiet = tail(10);
    quiet.on_check(25, 3, Some(8));
    assert_eq!((quiet.whole_to(), quiet.last()), (25, Some(8)));
    quiet.on_check(27, 27, Some(8));
    assert_eq!(
        quiet.whole_to(),
        27,
        "8 is still stored, so nothing behind it has gone"
    );
    quiet.on_check(30, 29, None);
    assert_eq!(
        quiet.need(),
        Need::Floor {
            position: 27,
            reach: 30
        },
        "28 may have expired unseen"
    );

    let mut missed = tail(10);
    missed.on_check(25, 3, Some(20));
    assert_eq!(
        missed.need(),
        Need::Read {
            from: 10,
            target: Target {
                last: Some(20),
                whole_to: 20
            }
        }
    );
    let mut nudged = tail(10);
    nudged.on_nudge(9);
    assert!(nudged.is_whole());
    nudged.on_nudge(11);
    assert!(!nudged.is_whole());
}

#[test]
fn l9_a_fresh_subscriber_gets_the_watermark() {
    let mut tail = tail(10);
    tail.on_copies(Pace::Queued, [copy(7, 11)]);
    let joined = tail.join_fresh(Inbox::default());
    assert_eq!(
        (joined.offset, joined.entries.len(), joined.behind),
        (11, 0, false)
    );
}

#[test]
fn l8c_the_ring_vouches_from_what_it_let_go() {
    let mut tail = tail(10);
    tail.on_copies(Pace::Queued, (11..=16).map(|offset| copy(offset - 1, offset)));
    assert_eq!(tail.ring().from(), 12);
    for (position, expected) in [(12, vec![13, 14, 15, 16]), (15, vec![16]), (16, vec![])] {
        let Join::Joined(joined) = tail.join_at(position, Inbox::default) else {
            panic!("{position}")
        };
        let offsets: Vec<_> = joined.entries.iter().map(|entry| entry.offset).collect();
        assert_eq!((offsets, joined.offset), (expected, 16), "{position}");
    }
    assert!(matches!(tail.join_at(11, Inbox::default), Join::Read { .. }));
    assert!(matches!(tail.join_at(17, Inbox::default), Join::Ahead));
    assert!(tail.vouch(12).is_some() && tail.vouch(11).is_none() && tail.vouch(17).is_none());
}

#[test]
fn a_position_below_a_new_tail_is_looked_up_first() {
    let mut tail = tail(10);
    assert!(matches!(tail.join_at(6, Inbox::default), Join::Look));
    tail.on_check(10, 1, Some(6));
    let Join::Joined(joined) = tail.join_at(6, Inbox::default) else {
        panic!("the last one is stored")
    };
    assert_eq!(joined.offset, 10);

    let mut tail = Tail::<Inbox>::new(LIMITS);
    tail.begin(10);
    tail.on_check(10, 1, Some(5));
    assert!(matches!(
        tail.join_at(6, Inbox::default),
        Join::Floor { covered_to: 10 }
    ));
    assert!(matches!(tail.join_at(3, Inbox::default), Join::Read { .. }));
}

#[test]
fn l8_an_answer_older_than_the_tail_does_not_tell_the_last_message() {
    let mut tail = Tail::<Inbox>::new(LIMITS);
    tail.begin(5);
    tail.on_check(1, 1, Some(1));
    assert!(matches!(tail.join_at(1, Inbox::default), Join::Look));
    tail.on_check(5, 6, None);
    assert!(matches!(tail.join_at(1, Inbox::default), Join::Floor { .. }));
}

#[test]
fn what_was_read_for_one_serves_the_next() {
    let mut tail = tail(10);
    tail.on_check(10, 1, Some(9));
    let page = vec![publication(7), publication(9)];
    let joined = tail.join_read(6, &page, 10, Inbox::default());
    assert_eq!(
        (joined.entries.len(), joined.offset, joined.behind),
        (2, 10, false)
    );
    assert!(matches!(tail.join_at(6, Inbox::default), Join::Joined(_)));
}

#[test]
fn a_long_recovery_is_a_page_and_then_fed() {
    let mut tail = Tail::new(TailLimits {
        page_bytes: 30,
        ..LIMITS
    });
    tail.begin(10);
    tail.on_copies(Pace::Queued, (11..=14).map(|offset| copy(offset - 1, offset)));
    let inbox = Inbox::with_room(100);
    let Join::Joined(joined) = tail.join_at(10, || inbox.clone()) else {
        panic!()
    };
    assert_eq!(
        (joined.entries.len(), joined.offset, joined.behind),
        (2, 12, true)
    );
    tail.on_copies(Pace::Queued, [copy(14, 15)]);
    assert_eq!(inbox.got(), Vec::<Offset>::new(), "not live yet");
    assert!(matches!(tail.feed(joined.key), Feed::Full(_)));
    assert_eq!(tail.feed(joined.key), Feed::Live);
    assert_eq!(inbox.got(), [13, 14, 15]);
}

#[test]
fn a_slow_reader_falls_behind_and_catches_up_from_ring_or_log() {
    let mut tail = tail(10);
    let slow = Inbox::with_room(1);
    let joined = tail.join_fresh(slow.clone());
    tail.on_copies(Pace::Queued, [copy(10, 11)]);
    tail.on_copies(Pace::Queued, [copy(11, 12)]);
    assert_eq!(tail.take_effects().behind, [joined.key]);
    tail.on_copies(Pace::Queued, (13..=20).map(|offset| copy(offset - 1, offset)));
    let Feed::Read { from: 11, .. } = tail.feed(joined.key) else {
        panic!()
    };
    slow.make_room(100);
    let page: Vec<_> = (12..=16).map(publication).collect();
    assert_eq!(tail.on_fed(joined.key, 11, &page, 16), Fed::Taken);
    assert_eq!(tail.feed(joined.key), Feed::Live);
    assert_eq!(slow.got(), (11..=20).collect::<Vec<_>>());
}

#[test]
fn a_page_larger_than_the_room_is_taken_in_parts() {
    let mut tail = tail(10);
    let slow = Inbox::with_room(1);
    let joined = tail.join_fresh(slow.clone());
    tail.on_copies(Pace::Queued, (11..=20).map(|offset| copy(offset - 1, offset)));
    let page: Vec<_> = (11..=16).map(publication).collect();
    assert!(matches!(tail.on_fed(joined.key, 10, &page, 16), Fed::Full(_)));
    assert_eq!(slow.got(), [11]);
    assert!(matches!(tail.feed(joined.key), Feed::Read { from: 11, .. }));
    slow.make_room(100);
    assert!(
        tail.reads_after(joined.key, 12).is_some(),
        "the ring begins later"
    );
    assert_eq!(tail.reads_after(joined.key, 16), None);
    assert_eq!(tail.on_fed(joined.key, 10, &page, 16), Fed::Taken);
    assert_eq!(slow.got(), (11..=16).collect::<Vec<_>>());
    assert_eq!(tail.feed(joined.key), Feed::Live);
    assert_eq!(tail.reads_after(joined.key, 16), None, "it is live");
}

#[test]
fn a_client_ahead_gets_nothing_twice() {
    let mut tail = tail(10);
    let inbox = Inbox::with_room(10);
    let joined = tail.join_ahead(12, inbox.clone());
    assert_eq!(joined.offset, 12);
    tail.on_copies(Pace::Queued, (11..=13).map(|offset| copy(offset - 1, offset)));
    assert_eq!(inbox.got(), [13]);
    let one = tail.take_effects();
    assert_eq!(one.delivered, 1, "what it had is not counted");
    assert!(one.delivered_bytes > 0);
    tail.on_copies(Pace::Queued, (14..=15).map(|offset| copy(offset - 1, offset)));
    let effects = tail.take_effects();
    assert_eq!(
        (effects.delivered, effects.delivered_bytes),
        (2, 2 * one.delivered_bytes)
    );
}

#[test]
fn l15_a_tombstone_empties_the_ring_and_leaves_who_has_everything() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(
        Pace::Queued,
        [
            copy(10, 11),
            Arrival {
                message: Message::Tombstone(12),
                prev: 11,
            },
            copy(12, 13),
        ],
    );
    assert_eq!((inbox.got(), tail.ring().from()), (vec![11, 13], 12));
    assert!(tail.vouch(11).is_none());
}

#[test]
fn l15_what_a_late_replica_still_has_of_removed_history_is_not_kept() {
    let mut tail = tail(10);
    tail.on_check(10, 1, Some(9));
    let page = vec![publication(7), Message::Tombstone(8), publication(9)];
    let joined = tail.join_read(6, &page, 10, Inbox::default());
    assert_eq!((joined.entries.len(), joined.offset), (2, 10));
    assert!(tail.vouch(6).is_none());
}

#[test]
fn l3_malformed_is_passed_over_and_a_newer_version_is_a_gap() {
    let mut tail = tail(10);
    let inbox = live(&mut tail);
    tail.on_copies(
        Pace::Queued,
        [
            Arrival {
                message: Message::Malformed(11),
                prev: 10,
            },
            copy(11, 12),
        ],
    );
    assert_eq!((inbox.got(), tail.take_effects().malformed), (vec![12], 1));
    tail.on_copies(
        Pace::Queued,
        [
            copy(12, 13),
            Arrival {
                message: Message::Opaque(14),
                prev: 13,
            },
            copy(14, 15),
        ],
    );
    assert_eq!(inbox.got(), [12, 13], "what came before it was delivered");
    assert_eq!(tail.take_effects().ended.len(), 1);
    assert_eq!((tail.whole_to(), tail.is_whole()), (15, true));
}

#[test]
fn l4_another_incarnation_ends_everyone() {
    let mut tail = tail(10);
    live(&mut tail);
    tail.reset();
    assert_eq!(tail.take_effects().ended.len(), 1);
    tail.on_copies(Pace::Queued, [copy(0, 1)]);
    assert!(!tail.has_begun());
    assert_eq!(tail.whole_to(), 0);
}
