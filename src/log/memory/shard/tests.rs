use super::*;
use crate::log::Page;

const LIMITS: Limits = Limits {
    max_age_ms: 1_000,
    max_bytes: u64::MAX,
    max_per_channel: None,
    window_ms: 100,
};

fn shard(replicas: usize) -> Shard {
    Shard::new(LIMITS, "first".into(), replicas)
}

fn append(shard: &mut Shard, address: &str, now_ms: i64) -> (Offset, Offset) {
    match shard.append(address, Body::Tombstone, None, now_ms) {
        Appended::Stored(message) => (message.seq, message.prev),
        Appended::Duplicate(seq) => panic!("duplicate of {seq}"),
    }
}

fn sequences(page: &Page) -> Vec<Offset> {
    page.messages.iter().map(|stored| stored.seq).collect()
}

/// What replica 1 answers about channel "a": its sequences, and how many it has behind the first.
fn replica_1(shard: &mut Shard, now_ms: i64) -> (Vec<Offset>, u64) {
    shard.answer_from(Some(1));
    let store = shard.any(now_ms);
    let pending = store.read("a", 0, 1, u32::MAX).pending;
    (sequences(&store.read("a", 0, 100, u32::MAX)), pending)
}

#[test]
fn l7_prev_is_the_last_still_stored() {
    let mut shard = shard(1);
    assert_eq!(append(&mut shard, "a", 0), (1, 0));
    assert_eq!(append(&mut shard, "b", 0), (2, 0));
    assert_eq!(append(&mut shard, "a", 500), (3, 1));
    assert_eq!(append(&mut shard, "a", 1_000), (4, 3), "1 has gone, 3 has not");
    assert_eq!(append(&mut shard, "a", 3_000), (5, 0), "all have gone");
    shard.trim(6);
    assert_eq!(append(&mut shard, "a", 3_000), (6, 0), "trimmed");
}

#[test]
fn l7_prev_is_right_with_one_message_per_channel() {
    let limits = Limits {
        max_per_channel: Some(1),
        ..LIMITS
    };
    let mut shard = Shard::new(limits, "first".into(), 1);
    append(&mut shard, "a", 0);
    assert_eq!(append(&mut shard, "a", 0), (2, 1));
    assert_eq!(append(&mut shard, "a", 0), (3, 2));
}

#[test]
fn l14_ids_are_of_the_shard_and_of_the_window() {
    let mut shard = shard(1);
    let mut publish = |address, now_ms| match shard.append(address, Body::Tombstone, Some("id"), now_ms) {
        Appended::Stored(message) => (message.seq, false),
        Appended::Duplicate(seq) => (seq, true),
    };
    assert_eq!(publish("a", 0), (1, false));
    assert_eq!(publish("a", 50), (1, true));
    assert_eq!(publish("b", 99), (1, true), "also on another channel");
    assert_eq!(publish("b", 100), (2, false));
}

#[test]
fn l10_a_lagging_replica_answers_from_its_past() {
    let mut shard = shard(2);
    append(&mut shard, "a", 0);
    append(&mut shard, "a", 0);
    shard.hold(1, true);
    append(&mut shard, "a", 0);
    append(&mut shard, "b", 0);
    shard.purge("a", 3);

    assert_eq!(replica_1(&mut shard, 0), (vec![1, 2], 1), "nor does it purge");
    assert_eq!(shard.any(0).last_seq(), 2);
    assert_eq!(shard.any(0).sweep(0, 1, u32::MAX).pending, 1);
    assert_eq!(sequences(&shard.leader(0).read("a", 0, 100, u32::MAX)), [3]);
    assert_eq!(shard.info(0).last_seq, 4);

    shard.catch_up(1, 3);
    assert_eq!(
        replica_1(&mut shard, 0),
        (vec![1, 2, 3], 2),
        "the purge came later"
    );
    append(&mut shard, "a", 0);
    assert_eq!(replica_1(&mut shard, 0).0, [1, 2, 3], "it still lags");
    shard.hold(1, false);
    assert_eq!(replica_1(&mut shard, 0), (vec![3, 5], 1));
}

#[test]
fn l6_replicas_expire_by_their_own_clocks() {
    let mut shard = shard(2);
    append(&mut shard, "a", 0);
    append(&mut shard, "a", 500);
    shard.skew(1, 300);
    assert_eq!(replica_1(&mut shard, 700).0, [2]);
    assert_eq!(sequences(&shard.leader(700).read("a", 0, 100, u32::MAX)), [1, 2]);
    shard.skew(1, -300);
    append(&mut shard, "a", 1_200);
    assert_eq!(replica_1(&mut shard, 1_200).0, [2, 3]);
    assert_eq!(shard.info(1_500).first_seq, 3);
    assert_eq!(
        replica_1(&mut shard, 1_500).0,
        [2, 3],
        "a slow clock keeps it longer"
    );
}

#[test]
fn reads_go_to_each_replica_in_turn() {
    let mut shard = shard(3);
    shard.hold(1, true);
    append(&mut shard, "a", 0);
    let mut answers: Vec<_> = (0..3).map(|_| shard.any(0).last_seq()).collect();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 1]);
}

#[test]
fn l5_a_deposed_leader_answers_from_its_past() {
    let mut shard = shard(2);
    append(&mut shard, "a", 0);
    shard.hold(1, true);
    append(&mut shard, "a", 0);
    shard.depose(Some(1));
    assert_eq!(shard.info(0).last_seq, 1);
    assert!(shard.leader(0).next_of("a", 2).is_none());
    assert_eq!(append(&mut shard, "a", 0), (3, 2), "the true one stores");
    shard.depose(None);
    assert_eq!(shard.info(0).last_seq, 3);
}

#[test]
fn l4_a_stream_comes_back_new_or_older() {
    let mut shard = shard(2);
    append(&mut shard, "a", 0);
    let older = shard.snapshot();
    append(&mut shard, "a", 0);
    append(&mut shard, "b", 0);

    shard.regress(2);
    assert_eq!((shard.info(0).last_seq, &*shard.info(0).created), (2, "first"));
    assert_eq!(replica_1(&mut shard, 0).0, [1, 2]);
    assert_eq!(append(&mut shard, "a", 0), (3, 2));

    shard.trim(4);
    shard.restore(&older);
    assert_eq!((shard.info(0).first_seq, shard.info(0).last_seq), (1, 1));
    assert_eq!(&*shard.info(0).created, "first");
    assert_eq!(replica_1(&mut shard, 0).0, [1]);
    assert_eq!(append(&mut shard, "a", 0), (2, 1));

    shard.recreate("second".into());
    let info = shard.info(0);
    assert_eq!(
        (info.first_seq, info.last_seq, info.bytes, info.first_time_ms),
        (1, 0, 0, 0)
    );
    assert_eq!(info.created, "second");
    assert_eq!(append(&mut shard, "a", 0), (1, 0));
    assert_eq!(replica_1(&mut shard, 0).0, [1]);
}
