use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_burst_then_the_rate() {
    let start = Instant::now();
    let mut limit = Gcra::new(Quota::new(10, 3));
    for _ in 0..3 {
        assert_eq!(limit.check(start, 1), Ok(()));
    }
    assert_eq!(limit.check(start, 1), Err(ms(100)));
    assert_eq!(limit.check(start + ms(99), 1), Err(ms(1)));
    assert_eq!(limit.check(start + ms(100), 1), Ok(()));
    assert_eq!(limit.check(start + ms(100), 2), Err(ms(200)));
    assert_eq!(limit.check(start + ms(400), 3), Ok(()));
}

#[test]
fn all_of_a_burst_may_come_at_once_also_if_the_rate_does_not_divide_a_second() {
    let now = Instant::now();
    for burst in 1..400 {
        for rate in [3, 7, burst, 999, u64::MAX] {
            let mut limit = Gcra::new(Quota::new(rate, burst));
            let admitted = (0..burst).all(|_| limit.check(now, 1).is_ok());
            assert!(admitted, "{burst} at {rate} a second");
        }
    }
}

#[test]
fn a_rate_of_zero_is_unlimited_and_nothing_costs_nothing() {
    let now = Instant::now();
    let mut unlimited = Gcra::new(Quota::new(0, 0));
    assert_eq!(unlimited.check(now, u64::MAX), Ok(()));
    assert_eq!(unlimited.check(now, u64::MAX), Ok(()));
    let mut limit = Gcra::new(Quota::new(1, 1));
    assert_eq!(limit.check(now, 1), Ok(()));
    assert_eq!(limit.check(now, 0), Ok(()));
    assert_eq!(limit.check(now, 1), Err(ms(1000)));
}

#[test]
fn what_exceeds_the_burst_is_admitted_and_paid_off() {
    let now = Instant::now();
    let mut limit = Gcra::new(Quota::new(100, 100));
    assert_eq!(limit.check(now, 500), Ok(()));
    assert_eq!(limit.check(now, 1), Err(ms(4010)));
    assert_eq!(limit.check(now + ms(5000), 500), Ok(()));
}

#[test]
fn numbers_at_the_edge_do_not_overflow() {
    let now = Instant::now();
    for (rate, burst) in [(1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), (1, 1)] {
        let mut limit = Gcra::new(Quota::new(rate, burst));
        for _ in 0..4 {
            let _ = limit.check(now, u64::MAX);
        }
    }
}

#[test]
fn keys_do_not_share_a_limit() {
    let now = Instant::now();
    let mut limits = Keyed::new(Quota::new(1, 1), 10);
    assert_eq!(limits.check(&"a", now, 1), Ok(()));
    assert!(limits.check(&"a", now, 1).is_err());
    assert_eq!(limits.check(&"b", now, 1), Ok(()));
}

#[test]
fn busy_keys_beyond_the_capacity_share_one_limit() {
    let now = Instant::now();
    let mut limits = Keyed::new(Quota::new(1, 1), 3);
    for key in 0..3 {
        assert_eq!(limits.check(&key, now, 1), Ok(()));
    }
    assert_eq!(limits.check(&7, now, 1), Ok(()));
    assert_eq!(limits.check(&8, now, 1), Err(ms(1000)));
    assert_eq!(limits.check(&0, now, 1), Err(ms(1000)));
    assert_eq!(limits.len(), 3);
    // All are idle a second later, are forgotten and make room.
    assert_eq!(limits.check(&9, now + ms(1000), 1), Ok(()));
    assert_eq!(limits.len(), 1);
}

#[test]
fn idle_keys_are_forgotten_long_before_the_capacity() {
    let start = Instant::now();
    let mut limits = Keyed::new(Quota::new(100, 1), usize::MAX);
    for key in 0..100_000_u64 {
        assert_eq!(limits.check(&key, start + ms(key), 1), Ok(()));
        assert!(limits.len() <= 2_000, "{} after {key}", limits.len());
    }
}

/// Arrivals: how long after the one before, and how many units.
fn arrivals() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0..400_u64, 0..8_u64), 1..80)
}

#[test]
fn another_rate_gives_no_new_burst_and_takes_what_is_too_much() {
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let quota = |rate| Quota::a_second_at_once(rate);
    let mut gcra = Gcra::new(quota(10));
    assert_eq!(gcra.room(start), (10, Duration::ZERO));
    gcra.check(start, 4).unwrap();
    assert_eq!(gcra.room(start), (6, Duration::from_millis(400)));
    gcra.retune(quota(100), start);
    assert_eq!(gcra.room(start).0, 6, "as many as before");
    assert_eq!(gcra.room(start + second / 2).0, 56, "and more at the new rate");
    gcra.retune(quota(2), start);
    assert_eq!(
        gcra.room(start),
        (2, Duration::ZERO),
        "no more than the new rate allows"
    );
    gcra.retune(quota(100), start);
    assert_eq!(gcra.room(start).0, 2);
    // What is owed stays owed.
    let mut owing = Gcra::new(quota(10));
    owing.check(start, 30).unwrap();
    owing.retune(quota(20), start);
    assert_eq!(owing.room(start + second).0, 0);
    assert_eq!(owing.room(start + 2 * second).0, 20);
    owing.retune(quota(0), start);
    assert_eq!(owing.room(start).0, u64::MAX);
}

proptest! {
    /// In no window more than the burst and the rate is admitted (while no item exceeds the burst).
    #[test]
    fn never_more_than_burst_and_rate(rate in 1..200_u64, burst in 8..50_u64, arrivals in arrivals()) {
        let mut limit = Gcra::new(Quota::new(rate, burst));
        let start = Instant::now();
        let mut at = 0;
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (gap, units) in arrivals {
            at += gap;
            if limit.check(start + ms(at), units).is_ok() {
                admitted.push((at, units));
            }
        }
        for (i, (from, _)) in admitted.iter().enumerate() {
            for (j, (to, _)) in admitted.iter().enumerate().skip(i) {
                let units: u64 = admitted[i..=j].iter().map(|(_, units)| units).sum();
                prop_assert!(units * 1000 <= burst * 1000 + (to - from) * rate, "{} in {}..{}", units, from, to);
            }
        }
    }

    /// A wait that is told is enough, and a nanosecond less is not.
    #[test]
    fn the_wait_is_exact(rate in 1..2000_u64, burst in 0..50_u64, arrivals in arrivals()) {
        let mut limit = Gcra::new(Quota::new(rate, burst));
        let mut now = Instant::now();
        for (gap, units) in arrivals {
            now += ms(gap);
            let peeked = limit.peek(now, units);
            let checked = limit.check(now, units);
            prop_assert_eq!(peeked, checked);
            if let Err(wait) = checked {
                prop_assert!(limit.peek(now + wait, units).is_ok());
                prop_assert!(limit.peek(now + wait - Duration::from_nanos(1), units).is_err());
            }
        }
    }

    /// With room for all keys, each has exactly the limit it would have alone: forgetting idle keys
    /// is invisible.
    #[test]
    fn a_key_is_limited_as_if_alone(events in prop::collection::vec((0..3000_u64, 0..5_usize, 1..4_u64), 1..100)) {
        let quota = Quota::new(2, 3);
        let mut keyed = Keyed::new(quota, 5);
        keyed.sweep_at = 0;
        let mut alone: Vec<Gcra> = (0..5).map(|_| Gcra::new(Quota::new(2, 3))).collect();
        let mut now = Instant::now();
        for (gap, key, units) in events {
            now += ms(gap);
            prop_assert_eq!(keyed.peek(&key, now, units), alone[key].peek(now, units));
            prop_assert_eq!(keyed.check(&key, now, units), alone[key].check(now, units));
            keyed.sweep_at = 0;
        }
    }
}
