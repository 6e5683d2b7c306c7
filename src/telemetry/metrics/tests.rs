use std::collections::BTreeSet;

use super::*;
use crate::telemetry::Label;
use crate::telemetry::{Limit, Measure, PublishOutcome, RecoveryOutcome};

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

fn app(id: &str) -> AppId {
    AppId::new(id).unwrap()
}

#[test]
fn every_metric_is_in_the_operations_guide_and_nothing_else_is() {
    let metrics = Metrics::new();
    let exported: BTreeSet<&str> = metrics.described().iter().map(|metric| metric.name).collect();
    let documented: BTreeSet<&str> = OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix("| `slipstream_"))
        .filter_map(|rest| rest.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let exported: BTreeSet<&str> = exported
        .into_iter()
        .map(|name| {
            name.strip_prefix("slipstream_")
                .expect("names start with the product's")
        })
        .collect();
    assert_eq!(exported, documented);
}

#[test]
fn every_label_value_is_in_the_operations_guide() {
    fn check<L: Label>() {
        for value in L::ALL {
            let value = format!("`{}`", value.as_str());
            assert!(
                OPERATIONS.contains(&value),
                "label {}: {value} is not explained",
                L::NAME
            );
        }
    }
    check::<PublishOutcome>();
    check::<RecoveryOutcome>();
    check::<CatchupKind>();
    check::<CatchupSource>();
    check::<GapOutcome>();
    check::<CheckOutcome>();
    check::<DropReason>();
    check::<Limit>();
    check::<RingEviction>();
    check::<RefusedHandshake>();
    check::<RefusedBody>();
    check::<AuthFailure>();
    check::<StatusClass>();
}

#[test]
fn the_text_has_a_value_for_each_app_and_label() {
    let metrics = Metrics::new();
    metrics
        .app(&app("a"))
        .publishes
        .of(PublishOutcome::Stored)
        .inc_by(3);
    metrics.app(&app("b")).connections.inc();
    metrics.connection_closed(&app("a"), Some(3001));
    metrics.connection_closed(&app("a"), None);
    metrics.shard("S-std-0").last_sequence.set(7);
    metrics.gaps.of(GapOutcome::Closed).inc();

    let text = metrics.encode();
    for line in [
        r#"slipstream_publishes_total{app="a",outcome="stored"} 3"#,
        r#"slipstream_publishes_total{app="b",outcome="stored"} 0"#,
        r#"slipstream_connections{app="b"} 1"#,
        r#"slipstream_connections_closed_total{app="a",code="3001"} 1"#,
        r#"slipstream_connections_closed_total{app="a",code="none"} 1"#,
        r#"slipstream_shard_last_sequence{shard="S-std-0"} 7"#,
        r#"slipstream_gaps_total{outcome="closed"} 1"#,
        r#"slipstream_gaps_total{outcome="open"} 0"#,
        "# EOF",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
}

#[test]
fn an_app_has_one_set_of_metrics() {
    let metrics = Metrics::new();
    assert!(Arc::ptr_eq(&metrics.app(&app("a")), &metrics.app(&app("a"))));
    assert!(!Arc::ptr_eq(&metrics.app(&app("a")), &metrics.app(&app("b"))));
    assert!(Arc::ptr_eq(&metrics.shard("s"), &metrics.shard("s")));
}

#[test]
fn what_is_held_is_counted_while_it_lives() {
    let gauge = Gauge::default();
    let held = Held::new(&gauge);
    assert_eq!(gauge.get(), 1);
    drop(held);
    assert_eq!(gauge.get(), 0);
}

#[test]
fn an_app_that_is_gone_is_forgotten_when_nobody_holds_it_and_its_usage_was_taken() {
    let metrics = Metrics::new();
    let (gone, stays) = (app("gone"), app("stays"));
    let held = metrics.app(&gone);
    metrics.app(&stays).connections_opened.inc();
    held.publishes.of(PublishOutcome::Limited).inc();
    held.usage.add(Measure::MessagesIn, 1);
    let is_exported = || metrics.encode().contains("gone");
    let forget = || metrics.forget(|id| *id == stays);
    forget();
    assert!(is_exported(), "somebody holds it");
    drop(held);
    forget();
    assert!(is_exported(), "what it has used would be lost");
    assert!(metrics.app(&gone).usage.take().is_some());
    forget();
    assert!(!is_exported());
    assert!(metrics.encode().contains("stays") && metrics.apps().len() == 1);
    assert_eq!(metrics.app(&gone).publishes.of(PublishOutcome::Limited).get(), 0);
}
