//! What every implementation of the store must do: one list of checks, run over all of them. Each has a
//! store of its own. Below `files`, `servers`, `moving` and `commands` is what one of them does alone, and
//! what they do together.

mod adding;
mod commands;
mod documents;
mod files;
mod listing;
mod moving;
mod places;
mod races;
mod rules;
mod servers;

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::support::{PATIENCE, mongowire::Mongowire};
use places::Place;

type Check = for<'a> fn(&'a Place) -> LocalBoxFuture<'a, ()>;

/// The list of checks: the name of each is the name of its function.
macro_rules! checks {
    ($($module:ident::$check:ident),* $(,)?) => {
        [$((stringify!($check), (|place| check_future($module::$check(place))) as Check)),*]
    };
}

fn check_future<'a>(check: impl Future<Output = ()> + 'a) -> LocalBoxFuture<'a, ()> {
    check.boxed_local()
}

/// Runs all checks, each in a place that `fresh` makes, and panics with the names of those that failed.
async fn conformance(fresh: impl Fn() -> Place) {
    let checks = checks![
        documents::what_is_inserted_is_there,
        documents::nothing_is_found_by_what_nothing_can_have,
        documents::an_id_is_given_once,
        documents::a_replacement_needs_the_revision,
        documents::a_removal_may_need_the_revision,
        documents::a_unique_value_has_one_document,
        documents::a_unique_value_is_free_again,
        documents::a_put_is_what_was_put,
        documents::sweep_takes_what_has_expired,
        documents::documents_are_counted,
        documents::what_is_written_survives,
        listing::ids_are_in_the_order_of_bytes,
        listing::pages_go_up_and_down,
        listing::a_key_finds_its_documents,
        listing::a_key_goes_with_its_document,
        adding::an_addition_makes_the_document,
        adding::an_addition_counts_once,
        adding::peaks_only_rise,
        adding::a_replacement_keeps_numbers,
        adding::a_number_does_not_leave_its_range,
        adding::additions_at_once_all_count,
        adding::one_addition_many_times_at_once_counts_once,
        races::one_of_many_inserts_wins,
        races::one_of_many_replacements_wins,
        races::one_of_many_unique_values_wins,
        races::counting_by_compare_and_set_loses_nothing,
        rules::what_cannot_be_kept_is_refused,
        rules::json_comes_back_equal,
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        let place = fresh();
        let outcome = AssertUnwindSafe(tokio::time::timeout(PATIENCE, check(&place))).catch_unwind();
        if !matches!(outcome.await, Ok(Ok(()))) {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_a_file_conforms() {
    conformance(Place::file).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_mongodb_conforms() {
    let server = Mongowire::start().await;
    conformance(|| Place::database(&server)).await;
}
