//! What every implementation of the log must do: one list of checks, run over all of them.
//!
//! The checks leave their channels behind (of apps with an id of their own for each run), so they
//! can run over a server that has been used. They assume a class that trims nothing while they run:
//! max_age of an hour and more, no limit per channel; and an overflow stream of at most 1 MiB.

mod names;
mod nodes;
mod publishing;
mod reading;
mod suite;
mod work;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::LocalBoxFuture};
use slipstream::{
    log::{
        Log, StreamName,
        memory::{ClassSpec, MemoryLog},
    },
    model::ClassName,
};
use suite::Suite;

use crate::support::nats::fresh_log;

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Check = for<'a> fn(&'a Suite) -> LocalBoxFuture<'a, ()>;

/// The list of checks: the name of each is the name of its function.
macro_rules! checks {
    ($($module:ident::$check:ident),* $(,)?) => {
        [$((stringify!($check), (|suite| suite_future($module::$check(suite))) as Check)),*]
    };
}

fn suite_future<'a>(check: impl Future<Output = ()> + 'a) -> LocalBoxFuture<'a, ()> {
    check.boxed_local()
}

/// Runs all checks over `log`, in shards of `class`, and panics with the names of those that failed.
pub(crate) async fn conformance(log: Arc<dyn Log>, class: ClassName) {
    let checks = checks![
        publishing::shards_are_numbered,
        publishing::sequences_ascend_over_channels,
        publishing::l2_a_publication_costs_what_is_charged,
        publishing::copies_carry_the_record_exactly,
        publishing::copies_go_to_every_subscription,
        publishing::prev_is_the_last_stored_of_the_channel,
        publishing::l14_a_repeat_is_answered_with_the_first,
        publishing::l14_synchronous_publishes_keep_their_order,
        publishing::l15_removal_leaves_a_tombstone,
        publishing::l16_ephemeral_channels_store_nothing,
        reading::an_empty_channel_has_no_messages,
        reading::a_read_starts_at_its_sequence,
        reading::a_page_ends_by_messages,
        reading::a_page_ends_by_bytes,
        reading::the_leader_reads_the_next,
        reading::the_leader_knows_the_last_id,
        reading::times_are_those_of_the_messages,
        reading::last_of_a_thousand_channels,
        reading::l12_a_sweep_sees_everything_in_order,
        reading::info_is_of_the_shard,
        names::no_two_channels_meet,
        names::removal_spares_all_other_channels,
        nodes::l4_the_epoch_changes_by_compare_and_set,
        nodes::l2_a_namespace_is_claimed_for_good,
        nodes::l4_anchors_ascend,
        nodes::a_tell_reaches_all_listeners,
        nodes::an_ask_collects_answers,
        nodes::a_bucket_is_written_by_compare_and_set,
        nodes::a_watch_tells_what_is_there_and_what_changes,
        work::what_is_appended_is_delivered_until_it_is_settled,
        work::what_nobody_settles_comes_again_to_whoever_pulls,
        work::with_one_open_nothing_overtakes_what_comes_again,
        work::an_append_with_the_same_id_is_stored_once,
        work::no_key_reaches_another_apps_messages,
        work::events_stay_when_they_are_settled,
        work::what_waits_is_counted_with_its_oldest,
        work::what_waits_is_counted_by_key,
        work::consumers_of_a_work_queue_do_not_overlap,
        work::a_full_work_queue_refuses_and_keeps_what_it_has,
    ];
    let suite = Suite::new(log, class);
    let mut failed = Vec::new();
    for (name, check) in checks {
        let outcome = AssertUnwindSafe(tokio::time::timeout(PATIENCE, check(&suite))).catch_unwind();
        if !matches!(outcome.await, Ok(Ok(()))) {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

fn class_name() -> ClassName {
    ClassName::new("hour").unwrap()
}

#[tokio::test]
async fn the_log_in_memory_conforms() {
    let log = MemoryLog::new(vec![ClassSpec::new(class_name(), 4)]);
    log.faults().limit_stream(StreamName::Overflow, Some(1 << 20));
    conformance(Arc::new(log), class_name()).await;
}

#[tokio::test]
async fn the_log_in_memory_conforms_with_one_shard_and_replicas() {
    let class = ClassSpec {
        replicas: 3,
        ..ClassSpec::new(class_name(), 1)
    };
    let other = ClassSpec::new(ClassName::new("other").unwrap(), 2);
    let log = MemoryLog::new(vec![other, class]);
    log.faults().limit_stream(StreamName::Overflow, Some(1 << 20));
    conformance(Arc::new(log), class_name()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_on_nats_conforms() {
    let (_server, log) = fresh_log().await;
    conformance(log.log.clone(), ClassName::new("std").unwrap()).await;
}
