use proptest::prelude::*;

use super::*;
use crate::quota::month::MonthOf;

const EPHEMERAL: Size = Size { bytes: 1, kept: None };

fn meter(quotas: &Quotas) -> Arc<Meter> {
    let meter = Arc::new(Meter::default());
    meter.set_quotas(quotas, |_| u64::MAX);
    meter
}

fn publish(meter: &Arc<Meter>, count: u64, now: Instant) -> Result<(), Over> {
    meter.publish(count, EPHEMERAL, now, || Ok(())).map(drop)
}

#[test]
fn a_rate_holds_and_what_something_else_refuses_costs_nothing() {
    let now = Instant::now();
    let meter = meter(&Quotas {
        messages_per_second: Some(3),
        ..Quotas::default()
    });
    let other = Over {
        limit: Limit::PublishBytes,
        retry_after: Duration::ZERO,
    };
    let refused = meter.publish(1, EPHEMERAL, now, || Err(other));
    assert_eq!(refused.map(drop), Err(other));
    let allowance = |remaining, ms| Allowance {
        limit: 3,
        remaining,
        reset: Duration::from_millis(ms),
    };
    assert_eq!(meter.messages_allowed(now), Some(allowance(3, 0)));
    for _ in 0..3 {
        assert_eq!(publish(&meter, 1, now), Ok(()));
    }
    let over = publish(&meter, 1, now).unwrap_err();
    assert_eq!(over.limit, Limit::QuotaMessages);
    assert_eq!(over.retry_after.as_millis(), 333);
    assert_eq!(meter.messages_allowed(now).unwrap().remaining, 0);
    // Another node needs it all, and gives it back.
    assert_eq!(meter.set_part(Kind::Messages, 0, now), 0);
    let later = now + Duration::from_secs(60);
    assert_eq!(
        publish(&meter, 1, later),
        Err(Over {
            limit: Limit::QuotaMessages,
            retry_after: LONGEST_WAIT
        })
    );
    meter.set_part(Kind::Messages, 3_000, later);
    assert!(publish(&meter, 1, later).is_err(), "nothing has come together");
    assert!(publish(&meter, 3, later + Duration::from_secs(1)).is_ok());
    // Five were wanted before, one of them by somebody who was refused otherwise.
    let wish = meter.wish(Kind::Messages, 3_000, Duration::from_secs(10));
    assert!((900..=1_100).contains(&wish.wanted), "{wish:?}");
}

#[test]
fn without_quotas_nothing_is_limited_and_places_are_counted_all_the_same() {
    let now = Instant::now();
    let meter = meter(&Quotas::default());
    assert!((0..1_000).all(|_| publish(&meter, 1_000, now).is_ok() && meter.call(now).is_ok()));
    assert_eq!(
        (meter.messages_allowed(now), meter.calls_allowed(now)),
        (None, None)
    );
    let places: Vec<_> = (0..3).map(|_| meter.take(Kind::Connections).unwrap()).collect();
    meter.set_quotas(
        &Quotas {
            peak_connections: Some(3),
            api_calls_per_second: Some(1),
            ..Quotas::default()
        },
        |_| u64::MAX,
    );
    assert!(meter.take(Kind::Connections).is_none());
    assert_eq!(
        meter.wish(Kind::Connections, 3, Duration::ZERO),
        Wish { held: 3, wanted: 4 }
    );
    assert!(meter.call(now).is_ok() && meter.call(now).is_err());
    drop(places);
    let place = meter.take(Kind::Connections).unwrap();
    // A part that is less than what is held is for those to come.
    assert_eq!(meter.set_part(Kind::Connections, 0, now), 1);
    assert!(meter.take(Kind::Connections).is_none());
    drop(place);
    meter.set_quotas(&Quotas::default(), |_| u64::MAX);
    assert!(meter.take(Kind::Connections).is_some() && meter.is_idle());
}

#[test]
fn what_is_new_is_shared_and_what_is_less_holds_at_once() {
    let now = Instant::now();
    let meter = Arc::new(Meter::default());
    let quotas = |rate| Quotas {
        messages_per_second: Some(rate),
        ..Quotas::default()
    };
    meter.set_quotas(&quotas(9), |_| 3_000);
    assert_eq!(meter.messages_allowed(now).unwrap().limit, 3);
    meter.set_part(Kind::Messages, 9_000, now);
    meter.set_quotas(&quotas(90), |_| 30_000);
    assert_eq!(
        meter.messages_allowed(now).unwrap().limit,
        9,
        "more is for the nodes to share"
    );
    meter.set_quotas(&quotas(6), |_| 2_000);
    assert_eq!(meter.messages_allowed(now).unwrap().limit, 2);
}

#[test]
fn a_month_is_used_up_until_it_ends() {
    let now = Instant::now();
    let meter = meter(&Quotas {
        messages_per_month: Some(2),
        messages_per_second: Some(100),
        ..Quotas::default()
    });
    let (month, _) = MonthOf::at(0);
    let end = Duration::from_secs(1_000);
    meter.month(|known| known.turn(month, now + end));
    assert!(publish(&meter, 1, now).is_ok() && publish(&meter, 1, now).is_ok());
    let over = Over {
        limit: Limit::QuotaMonth,
        retry_after: end,
    };
    assert_eq!(publish(&meter, 1, now), Err(over));
    let allowed = meter.messages_allowed(now).unwrap();
    assert_eq!((allowed.limit, allowed.remaining, allowed.reset), (2, 0, end));
}

#[test]
fn what_is_wanted_falls_slowly() {
    let mut smooth = Smooth::default();
    let followed: Vec<_> = [64, 0, 0, 100].map(|now| smooth.follow(now, 64)).into();
    assert_eq!(followed, [64, 48, 36, 100]);
    // In steps of a sixty-fourth.
    assert_eq!(Smooth::default().follow(1, 6_400), 100);
    let mut ends = Smooth(3);
    assert!((0..5).map(|_| ends.follow(0, 10)).any(|wanted| wanted == 0));
}

proptest! {
    /// However a rate goes from node to node, all of them together admit no more than one limit would.
    #[test]
    fn moving_a_rate_gives_no_new_burst(
        steps in prop::collection::vec((0_u64..400, 0_usize..3, 0_u64..200), 1..200),
        limit in 1_u64..50,
    ) {
        let start = Instant::now();
        let quotas = Quotas { messages_per_second: Some(limit), ..Quotas::default() };
        let meters: Vec<_> = (0..3).map(|_| meter(&quotas)).collect();
        let mut at = 0;
        let mut admitted = 0;
        let set = |owner: usize, now| {
            for (node, meter) in meters.iter().enumerate() {
                meter.set_part(Kind::Messages, if node == owner { limit * 1_000 } else { 0 }, now);
            }
        };
        // All begin with everything; of that only one keeps it.
        set(0, start);
        for (pause, owner, attempts) in steps {
            at += pause;
            let now = start + Duration::from_millis(at);
            set(owner, now);
            for _ in 0..attempts {
                for meter in &meters {
                    admitted += u64::from(publish(meter, 1, now).is_ok());
                }
            }
            // A second's worth at once, one for each node, and the rate.
            prop_assert!(admitted * 1_000 <= limit * (at + 1_000) + 3 * 1_000, "{admitted} in {at} ms");
        }
    }
}

#[test]
fn what_was_late_counts_and_what_comes_next_waits_the_longer() {
    let now = Instant::now();
    let meter = meter(&Quotas {
        messages_per_second: Some(10),
        messages_per_month: Some(20),
        ..Quotas::default()
    });
    let (month, lasts) = MonthOf::at(0);
    meter.month(|of| of.turn(month, now + lasts));
    assert_eq!(publish(&meter, 10, now), Ok(()));
    let late = |waited| {
        let admitted = meter.publish_late(EPHEMERAL, waited, now, || Ok::<_, Over>(()));
        admitted.map(drop)
    };
    assert_eq!(late(false).unwrap_err().limit, Limit::QuotaMessages);
    for _ in 0..10 {
        assert_eq!(late(true), Ok(()));
    }
    // Twenty have come, of ten a second of which ten may come at once: two seconds until it has its whole burst.
    assert!(publish(&meter, 1, now + Duration::from_millis(1_000)).is_err());
    assert!(late(true).is_err_and(|over| over.limit == Limit::QuotaMonth));
    let queued = meter.allows_queued(1, EPHEMERAL, now);
    assert_eq!(queued.unwrap_err().limit, Limit::QuotaMonth);
}

#[test]
fn room_in_the_history_is_taken_by_what_is_stored() {
    let now = Instant::now();
    let meter = meter(&Quotas {
        history_bytes: Some(100),
        ..Quotas::default()
    });
    meter.history(|known| known.turn(0, now));
    let take = |bytes, now| {
        let size = Size {
            bytes,
            kept: Some(Duration::from_secs(240)),
        };
        meter.publish(1, size, now, || Ok::<_, Over>(()))
    };
    let used = |now| meter.history(|known| known.used(now)).unwrap();
    let mut room = take(60, now).unwrap();
    let over = take(60, now).unwrap_err();
    assert_eq!(over.limit, Limit::QuotaHistoryBytes);
    // Sent, and refused.
    room.set_stored(true);
    room.set_stored(false);
    drop(room);
    assert_eq!(used(now), 0);
    let mut room = take(60, now).unwrap();
    room.set_stored(true);
    drop(room);
    assert!(take(60, now).is_err());
    let size = Size {
        bytes: 60,
        kept: Some(Duration::ZERO),
    };
    let queued = meter.allows_queued(1, size, now);
    assert_eq!(queued.unwrap_err().limit, Limit::QuotaHistoryBytes);
    // What is not kept needs no room.
    assert_eq!(publish(&meter, 1, now), Ok(()));
    // Nor does what something else refuses.
    let other = Over {
        limit: Limit::PublishBytes,
        retry_after: Duration::ZERO,
    };
    let refused = meter.publish(1, Size { bytes: 40, ..size }, now, || Err(other));
    assert_eq!((refused.map(drop), used(now)), (Err(other), 60));
    let gone = now + Duration::from_secs(260);
    assert!(take(100, gone).is_ok());
    assert_eq!(used(gone), 0, "it was not sent");
    meter.set_quotas(&Quotas::default(), |_| u64::MAX);
    assert!(take(101, now).is_ok());
}
