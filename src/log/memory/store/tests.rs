use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::{Kind, Record};

const LIMITS: Limits = Limits {
    max_age_ms: 1_000,
    max_bytes: u64::MAX,
    max_per_channel: None,
    window_ms: 100,
};

fn message(seq: Offset, time_ms: i64, address: &str, bytes: usize) -> Arc<Message> {
    Arc::new(Message {
        seq,
        time_ms,
        address: address.into(),
        body: Body::Publication(Record {
            kind: Kind::Bytes,
            data: Bytes::from(vec![0; bytes]),
            info: None,
            tags: Vec::new(),
        }),
        dedup_id: None,
        prev: 0,
    })
}

/// One message per address, with sequences from 1, each 10 ms younger than the one before.
fn store(limits: Limits, addresses: &str) -> Store {
    let mut store = Store::new(limits);
    for (seq, address) in (1..).zip(addresses.chars()) {
        let time_ms = seq as i64 * 10;
        store.apply(&Op::Store(message(seq, time_ms, &address.to_string(), 0)));
    }
    store
}

fn kept(store: &Store) -> Vec<Offset> {
    let sweep = store.sweep(0, u32::MAX, u32::MAX);
    sweep.messages.iter().map(|(_, stored)| stored.seq).collect()
}

#[test]
fn what_is_as_old_as_max_age_is_gone() {
    for (now_ms, first, expected) in [
        (0, 1, vec![1, 2, 3]),
        (1_009, 1, vec![1, 2, 3]),
        (1_010, 2, vec![2, 3]),
        (1_029, 3, vec![3]),
        (1_030, 4, vec![]),
    ] {
        let mut store = store(LIMITS, "aba");
        store.expire(now_ms);
        assert_eq!(kept(&store), expected, "at {now_ms}");
        assert_eq!((store.first_seq(), store.last_seq()), (first, 3), "at {now_ms}");
    }
}

#[test]
fn an_empty_store_has_a_floor_above_its_last() {
    let mut store = store(LIMITS, "ab");
    store.apply(&Op::Trim { below: 100 });
    assert_eq!((store.first_seq(), store.last_seq()), (3, 2));
    assert_eq!((store.first_time_ms(), store.bytes()), (0, 0));
    assert_eq!(store.last_of("a"), None);
    let fresh = Store::new(LIMITS);
    assert_eq!((fresh.first_seq(), fresh.last_seq()), (1, 0));
}

#[test]
fn a_channel_keeps_its_newest() {
    for (max, expected) in [
        (None, vec![1, 2, 3, 4, 5]),
        (Some(3), vec![1, 2, 3, 4, 5]),
        (Some(2), vec![2, 3, 4, 5]),
        (Some(1), vec![4, 5]),
    ] {
        let limits = Limits {
            max_per_channel: max,
            ..LIMITS
        };
        assert_eq!(kept(&store(limits, "aabab")), expected, "{max:?}");
    }
}

#[test]
fn bytes_push_out_the_oldest_of_any_channel() {
    let each = message(1, 0, "a", 0).size();
    for (room, expected) in [
        (5, vec![1, 2, 3, 4]),
        (3, vec![2, 3, 4]),
        (1, vec![4]),
        (0, vec![4]),
    ] {
        let limits = Limits {
            max_bytes: room * each,
            ..LIMITS
        };
        assert_eq!(
            kept(&store(limits, "aabb")),
            expected,
            "room for {room}; the newest stays"
        );
    }
}

#[test]
fn a_purge_is_of_one_channel_and_below() {
    let mut store = store(LIMITS, "abab");
    let address = "a".into();
    store.apply(&Op::Purge { address, below: 3 });
    assert_eq!(kept(&store), [2, 3, 4]);
}

#[test]
fn an_id_is_forgotten_after_the_window() {
    let mut store = Store::new(LIMITS);
    let with_id = |seq, time_ms| {
        let plain = message(seq, time_ms, "a", 0);
        let dedup_id = Some("id".into());
        Op::Store(Arc::new(Message {
            dedup_id,
            ..(*plain).clone()
        }))
    };
    store.apply(&with_id(1, 0));
    store.expire(99);
    assert_eq!(store.first_with("id"), Some(1));
    store.expire(100);
    assert_eq!(store.first_with("id"), None);
    store.apply(&with_id(2, 100));
    store.expire(150);
    assert_eq!(
        store.first_with("id"),
        Some(2),
        "the later use has its own window"
    );
    store.regress(1);
    assert_eq!(store.first_with("id"), None, "what was never stored has no id");
}

#[test]
fn a_page_takes_the_message_that_reaches_the_bytes() {
    let mut store = Store::new(LIMITS);
    for seq in 1..=4 {
        store.apply(&Op::Store(message(seq, 0, "a", 100)));
    }
    let each = store.bytes() as u32 / 4;
    for (max_messages, max_bytes, found) in [
        (10, 0, 1),
        (10, 1, 1),
        (10, each, 1),
        (10, each + 1, 2),
        (10, u32::MAX, 4),
        (2, u32::MAX, 2),
        (0, u32::MAX, 1),
    ] {
        let page = store.read("a", 1, max_messages, max_bytes);
        assert_eq!(page.messages.len(), found, "{max_messages}, {max_bytes}");
        assert_eq!(page.pending, 4 - found as u64, "{max_messages}, {max_bytes}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Store { channel: u8, bytes: usize, wait_ms: i64 },
    Purge { channel: u8, back: u64 },
    Trim { back: u64 },
    Regress { back: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4_u8, 0..200_usize, 0..200_i64)
            .prop_map(|(channel, bytes, wait_ms)| Step::Store { channel, bytes, wait_ms }),
        1 => (0..4_u8, 0..5_u64).prop_map(|(channel, back)| Step::Purge { channel, back }),
        1 => (0..10_u64).prop_map(|back| Step::Trim { back }),
        1 => (0..5_u64).prop_map(|back| Step::Regress { back }),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_index_answers_like_a_scan(steps in steps(), per_channel in 1..6_u64, room in 200..2_000_u64) {
        let limits = Limits { max_per_channel: Some(per_channel), max_bytes: room, ..LIMITS };
        let mut store = Store::new(limits);
        let mut now_ms = 0;
        for step in steps {
            let last = store.last_seq();
            match step {
                Step::Store { channel, bytes, wait_ms } => {
                    now_ms += wait_ms;
                    store.expire(now_ms);
                    store.apply(&Op::Store(message(last + 1, now_ms, &channel.to_string(), bytes)));
                }
                Step::Purge { channel, back } => {
                    let address = channel.to_string().into();
                    store.apply(&Op::Purge { address, below: last.saturating_sub(back) });
                }
                Step::Trim { back } => store.apply(&Op::Trim { below: last.saturating_sub(back) }),
                Step::Regress { back } => store.regress(last.saturating_sub(back)),
            }
        }
        let all = store.messages.values().cloned().collect::<Vec<_>>();
        prop_assert_eq!(store.bytes(), all.iter().map(|message| message.size()).sum::<u64>());
        prop_assert!(store.bytes() <= room || all.len() == 1);
        for channel in 0..4_u8 {
            let address = channel.to_string();
            let scan: Vec<_> = all.iter().filter(|message| *message.address == *address).collect();
            prop_assert!(scan.len() as u64 <= per_channel);
            prop_assert_eq!(store.last_of(&address), scan.last().map(|message| message.seq));
            for from in 0..=store.last_seq() + 1 {
                let after: Vec<_> = scan.iter().filter(|message| message.seq >= from).collect();
                let page = store.read(&address, from, 2, u32::MAX);
                let expected: Vec<_> = after.iter().take(2).map(|message| message.stored()).collect();
                prop_assert_eq!(page.pending as usize, after.len() - expected.len());
                prop_assert_eq!(page.messages, expected);
                let next = store.next_of(&address, from).map(|message| message.seq);
                prop_assert_eq!(next, after.first().map(|message| message.seq));
            }
        }
    }
}
