//! Names that an encoding could confuse: no channel ever meets another, by any trick.

use std::collections::HashSet;

use slipstream::{log::Route, model::AppId};

use super::suite::{Suite, body, next_copy, sequences, soon};

/// Wildcards, separators, escapes of every kind, and names that differ only by what an encoding
/// might fold.
const NAMES: [&str; 44] = [
    "a",
    "A",
    "a.b",
    "a..b",
    ".a",
    "a.",
    ".",
    "..",
    "*",
    ">",
    "a.*",
    "a.>",
    "*.b",
    "a*",
    "a>",
    "%",
    "%%",
    "%2A",
    "%2a",
    "a%2Eb",
    "%2E",
    "a b",
    " ",
    "a ",
    " a",
    "a:b",
    "a::b",
    "a:.",
    "a:*",
    "a:>",
    "a:b.c",
    "_",
    "=",
    "~",
    "a=2Eb",
    "a_b",
    "a/b",
    "a\\b",
    "$JS.API.>",
    "ü",
    "u\u{308}",
    "日本.語",
    "𝄞",
    "a\u{a0}b",
];

fn apps(suite: &Suite, check: &str) -> [AppId; 2] {
    // Short names need apps of their own, so that each check finds them empty.
    [&suite.app, &suite.other_app].map(|app| AppId::new(&format!("{app}{check}")).unwrap())
}

fn all(suite: &Suite, apps: &[AppId]) -> Vec<Route> {
    let of_app = |app| NAMES.map(|name| suite.route_of(app, name));
    apps.iter().flat_map(of_app).collect()
}

pub(super) async fn no_two_channels_meet(suite: &Suite) {
    let apps = apps(suite, "n");
    let routes = all(suite, &apps);
    let ephemeral = NAMES.map(|name| suite.ephemeral(name));
    let addresses: HashSet<_> = routes.iter().chain(&ephemeral).map(Route::address).collect();
    assert_eq!(addresses.len(), routes.len() + NAMES.len());

    let mut subscriptions = Vec::new();
    for route in &routes {
        subscriptions.push(suite.subscribe(route).await);
    }
    let mut expected = vec![Vec::new(); routes.len()];
    for round in ["first", "second"] {
        // Only after all have published is a copy expected, so that a stranger's would come first.
        for (at, route) in routes.iter().enumerate() {
            expected[at].push(suite.publish(route, &format!("{round} {at}")).await);
        }
        for (at, copies) in subscriptions.iter_mut().enumerate() {
            let copy = next_copy(&mut **copies).await;
            assert_eq!(
                copy.stored.body,
                body(&format!("{round} {at}")),
                "{:?}",
                routes[at]
            );
        }
    }
    for (route, expected) in routes.iter().zip(&expected) {
        let page = suite.read(route, 0, 2).await;
        assert_eq!(sequences(&page), *expected, "{route:?}");
        let second = soon(suite.log.read_leader(route, expected[0] + 1)).await.unwrap();
        assert_eq!(second.map(|stored| stored.seq), Some(expected[1]), "{route:?}");
        let shard = route.shard().unwrap();
        let last = soon(suite.log.last_of(shard, std::slice::from_ref(route)))
            .await
            .unwrap();
        assert_eq!(last.last, [Some(expected[1])], "{route:?}");
    }
}

pub(super) async fn removal_spares_all_other_channels(suite: &Suite) {
    let apps = apps(suite, "r");
    let routes = all(suite, &apps);
    for route in &routes {
        suite.publish(route, "kept").await;
    }
    let mut removed = HashSet::new();
    for name in ["*", ">", "a.*", "a.>", "a:>", "%2A", ".", "a"] {
        let route = suite.route_of(&apps[0], name);
        soon(suite.log.remove(&route)).await.unwrap();
        removed.insert(route);
    }
    for route in &routes {
        let page = suite.read(route, 0, 1).await;
        let kept = page.messages[0].body == body("kept");
        assert_eq!(kept, !removed.contains(route), "{route:?}: {page:?}");
    }
}
