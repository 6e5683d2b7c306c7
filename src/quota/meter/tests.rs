use proptest::prelude::*;

use super::*;
use crate::quota::month::MonthOf;

fn meter(quotas: &Quotas) -> Arc<Meter> {
    let meter = Arc::new(Meter::default());
    meter.set_quotas(quotas, |_| u64::MAX);
    meter
}

fn publish(meter: &Meter, count: u64, now: Instant) -> Result<(), Over> {
    meter.publish(count, now, || Ok(()))
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
    assert_eq!(meter.publish(1, now, || Err(other)), Err(other));
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
    let late = |waited| meter.publish_late(waited, now, || Ok::<_, Over>(()));
    assert_eq!(late(false).unwrap_err().limit, Limit::QuotaMessages);
    for _ in 0..10 {
        assert_eq!(late(true), Ok(()));
    }
    // Twenty have come, of ten a second of which ten may come at once: two seconds until it has its whole burst.
    assert!(publish(&meter, 1, now + Duration::from_millis(1_000)).is_err());
    assert!(late(true).is_err_and(|over| over.limit == Limit::QuotaMonth));
    assert_eq!(meter.month_allows(1, now).unwrap_err().limit, Limit::QuotaMonth);
}
