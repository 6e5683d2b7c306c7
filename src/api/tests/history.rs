use serde_json::{Value, json};

use super::support::{A, APPS, Node, publications};
use crate::log::{
    ReadError,
    memory::{Request, Target},
};

/// Publishes 0.. in batches and answers the offsets.
async fn fill(node: &Node, channel: &str, count: usize) -> Vec<u64> {
    let items: Vec<_> = (0..count).map(|n| format!(r#"{{"data":{n}}}"#)).collect();
    let mut offsets = Vec::new();
    for chunk in items.chunks(500) {
        let body = format!(r#"{{"publications":[{}]}}"#, chunk.join(","));
        let reply = node.post(A, channel, &body).await;
        let answer = reply.ok(200);
        offsets.extend(
            answer
                .array("results")
                .iter()
                .map(|it| it["offset"].as_u64().unwrap()),
        );
    }
    offsets
}

fn numbers(publications: &[Value]) -> Vec<u64> {
    publications
        .iter()
        .map(|it| it["data"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_thousand_publications_page_by_page_both_ways() {
    let node = Node::start().await;
    // Others share the shards, so that offsets have holes.
    fill(&node, "chat:other", 10).await;
    let offsets = fill(&node, "chat:x", 1000).await;
    for (query, expected) in [
        ("limit=70".to_owned(), (0..1000).collect::<Vec<u64>>()),
        ("limit=70&reverse=true".to_owned(), (0..1000).rev().collect()),
        ("limit=333".to_owned(), (0..1000).collect()),
        (format!("limit=50&since={}", offsets[499]), (500..1000).collect()),
        (
            format!("limit=50&reverse=true&since={}", offsets[500]),
            (0..500).rev().collect(),
        ),
        (format!("since={}", offsets[999]), vec![]),
    ] {
        let (mut got, mut pages, mut next) = (Vec::new(), 0, query.clone());
        loop {
            let page = node.get(A, "chat:x", &next).await;
            let page = page.ok(200);
            assert_eq!(page.0["gap"], false, "{query}");
            got.extend(numbers(page.array("publications")));
            pages += 1;
            let Some(cursor) = page.0["next"].as_str() else {
                break;
            };
            let limit = query.split('&').find(|part| part.starts_with("limit")).unwrap();
            next = format!("cursor={cursor}&{limit}");
        }
        assert_eq!(got, expected, "{query}");
        assert!(pages <= 15, "{query}: {pages} pages");
    }
}

#[tokio::test]
async fn a_page_ends_by_bytes_and_goes_on() {
    let node = Node::start().await;
    let large = "x".repeat(1000);
    for round in 0..10 {
        let items: Vec<_> = (0..60)
            .map(|n| format!(r#"{{"data":"{round}.{n}.{large}"}}"#))
            .collect();
        let body = format!(r#"{{"publications":[{}]}}"#, items.join(","));
        let reply = node.post(A, "chat:x", &body).await;
        assert!(reply.status == 200 || reply.status == 413, "{}", reply.status);
        let half = format!(r#"{{"publications":[{}]}}"#, items[..30].join(","));
        node.post(A, "chat:x", &half).await.ok(200);
    }
    let (mut count, mut pages, mut query) = (0, 0, "limit=1000".to_owned());
    loop {
        let page = node.get(A, "chat:x", &query).await;
        assert!(page.bytes.len() < 400 * 1024, "bounded by catchup.page_bytes");
        let page = page.ok(200);
        count += page.array("publications").len();
        pages += 1;
        let Some(cursor) = page.0["next"].as_str() else {
            break;
        };
        query = format!("limit=1000&cursor={cursor}");
    }
    assert!(count >= 300 && pages > 1, "{count} {pages}");
}

#[tokio::test]
async fn what_is_no_longer_retained_is_told() {
    let node = Node::start().await;
    let offsets = fill(&node, "chat:x", 10).await;
    let shard = node.shard("chat:x");
    let epoch = {
        let page = node.get(A, "chat:x", "limit=0").await;
        let page = page.ok(200);
        assert!(page.array("publications").is_empty());
        page.text("epoch").to_owned()
    };
    node.faults.trim(shard, offsets[5]);
    let since = |at: usize| format!("since={}&epoch={epoch}", offsets[at]);
    for (query, gap, first) in [
        (since(0), true, Some(5)),
        (since(3), true, Some(5)),
        // The one asked for has gone, but nothing after it.
        (since(4), false, Some(5)),
        (since(5), false, Some(6)),
        (since(9), false, None),
        ("since=0".to_owned(), true, Some(5)),
        // Who asks for what there is has no gap.
        (String::new(), false, Some(5)),
        (format!("from=1&{}", since(0)), true, Some(5)),
    ] {
        let page = node.get(A, "chat:x", &query).await;
        let page = page.ok(200);
        assert_eq!(page.0["gap"], gap, "{query}");
        let publications = page.array("publications");
        assert_eq!(
            publications.first().map(|it| it["data"].as_u64().unwrap()),
            first,
            "{query}"
        );
        let retained = page.0.get("first_retained");
        assert_eq!(retained, gap.then(|| json!(offsets[5])).as_ref(), "{query}");
    }
    // Everything has gone.
    node.faults.trim(shard, offsets[9] + 1);
    let page = node.get(A, "chat:x", &since(3)).await;
    let page = page.ok(200);
    assert_eq!(
        (&page.0["gap"], &page.0["first_retained"]),
        (&json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn retention_passing_between_two_pages_is_told() {
    let node = Node::start().await;
    let offsets = fill(&node, "chat:x", 20).await;
    let page = node.get(A, "chat:x", "limit=5").await;
    let cursor = page.ok(200).text("next").to_owned();
    node.faults.trim(node.shard("chat:x"), offsets[10]);
    let page = node.get(A, "chat:x", &format!("cursor={cursor}")).await;
    let page = page.ok(200);
    assert_eq!(page.0["gap"], true);
    assert_eq!(page.number("first_retained"), offsets[10]);
}

#[tokio::test]
async fn l4_another_epoch_is_a_conflict() {
    let node = Node::start().await;
    fill(&node, "chat:x", 10).await;
    let page = node.get(A, "chat:x", "limit=2").await;
    let cursor = page.ok(200).text("next").to_owned();
    let conflict = (409, "other_epoch".to_owned());
    assert_eq!(
        node.get(A, "chat:x", "since=1&epoch=other").await.error(),
        conflict
    );
    node.faults.recreate(node.shard("chat:x"));
    assert_eq!(
        node.get(A, "chat:x", &format!("cursor={cursor}")).await.error(),
        conflict
    );
    assert!(node.payloads(A, "chat:x").await.is_empty());
}

#[tokio::test]
async fn times_bound_a_page() {
    let node = Node::start().await;
    let start = node.faults.now_ms();
    for n in 0..6 {
        node.post(A, "chat:x", &format!(r#"{{"data":{n}}}"#))
            .await
            .ok(201);
        node.faults.advance(1000);
    }
    let at = |seconds: i64| start + seconds * 1000;
    for (query, expected) in [
        (format!("from={}", at(2)), vec![2, 3, 4, 5]),
        (format!("to={}", at(2)), vec![0, 1]),
        (format!("from={}&to={}", at(1), at(4)), vec![1, 2, 3]),
        (format!("from={}&to={}&reverse=true", at(1), at(4)), vec![3, 2, 1]),
        (
            format!("from={}&to={}&reverse=true&limit=2", at(1), at(4)),
            vec![3, 2],
        ),
        (format!("from={}", at(60)), vec![]),
    ] {
        let page = node.get(A, "chat:x", &query).await;
        assert_eq!(numbers(page.ok(200).array("publications")), expected, "{query}");
    }
    // The cursor holds the times.
    let page = node
        .get(A, "chat:x", &format!("from={}&to={}&limit=2", at(1), at(4)))
        .await;
    let cursor = page.ok(200).text("next").to_owned();
    let page = node.get(A, "chat:x", &format!("cursor={cursor}")).await;
    let page = page.ok(200);
    assert_eq!(numbers(page.array("publications")), [3]);
    assert_eq!(page.0.get("next"), None);
}

/// Issue 3, "Bad input": every parameter has a bound and an error.
#[tokio::test]
async fn bad_queries_are_told_apart() {
    let node = Node::start().await;
    fill(&node, "chat:x", 3).await;
    let page = node.get(A, "chat:x", "limit=1").await;
    let cursor = page.ok(200).text("next").to_owned();
    let long = "e".repeat(65);
    for (query, status, code) in [
        ("limit=1001", 422, "invalid_field"),
        ("limit=-1", 400, "bad_request"),
        ("limit=x", 400, "bad_request"),
        ("limit=", 400, "bad_request"),
        ("limit=1&limit=1", 400, "bad_request"),
        ("limit=99999999999999999999", 400, "bad_request"),
        ("since=9007199254740992", 422, "invalid_field"),
        ("since=1.5", 400, "bad_request"),
        ("since=0&reverse=true", 422, "invalid_field"),
        ("epoch=e", 422, "invalid_field"),
        ("since=1&epoch=", 422, "invalid_field"),
        (&format!("since=1&epoch={long}"), 422, "invalid_field"),
        ("from=9007199254740992", 422, "invalid_field"),
        ("from=-1", 400, "bad_request"),
        ("from=5&to=5", 422, "invalid_field"),
        ("from=yesterday", 400, "bad_request"),
        ("reverse=yes", 400, "bad_request"),
        ("order=asc", 400, "bad_request"),
        ("cursor=", 422, "invalid_field"),
        ("cursor=abc", 422, "invalid_field"),
        (&format!("cursor={cursor}&since=1"), 422, "invalid_field"),
        (&format!("cursor={cursor}&reverse=false"), 422, "invalid_field"),
        (&format!("cursor={cursor}&limit=0"), 422, "invalid_field"),
    ] {
        let reply = node.get(A, "chat:x", query).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{query}");
    }
    let last = node.get(A, "chat:x", "since=9007199254740991").await;
    assert!(last.ok(200).array("publications").is_empty());
}

#[tokio::test]
async fn l15_history_is_removed_and_the_epoch_stays() {
    let node = Node::start().await;
    let offsets = fill(&node, "chat:x", 5).await;
    fill(&node, "chat:y", 2).await;
    let before = node.get(A, "chat:x", "").await.ok(200).text("epoch").to_owned();
    let removed = node.call("DELETE", &publications("chat:x"), A, "").await;
    let removed = removed.ok(200).number("offset");
    assert!(removed > offsets[4]);
    let page = node
        .get(A, "chat:x", &format!("since={}&epoch={before}", offsets[2]))
        .await;
    let page = page.ok(200);
    assert!(page.array("publications").is_empty());
    assert_eq!(
        (page.text("epoch"), &page.0["gap"]),
        (before.as_str(), &json!(true))
    );
    let next = node.post(A, "chat:x", r#"{"data":9}"#).await;
    assert!(next.ok(201).number("offset") > removed);
    assert_eq!(node.payloads(A, "chat:x").await, [json!(9)]);
    assert_eq!(
        node.payloads(A, "chat:y").await.len(),
        2,
        "another channel keeps its own"
    );
    // Removing what is empty is no error.
    node.call("DELETE", &publications("chat:never"), A, "")
        .await
        .ok(200);
}

#[tokio::test]
async fn an_ephemeral_channel_has_no_history() {
    let node = Node::start().await;
    for method in ["GET", "DELETE"] {
        let reply = node.call(method, &publications("live:x"), A, "").await;
        assert_eq!(reply.error(), (404, "no_history".to_owned()), "{method}");
    }
}

#[tokio::test]
async fn no_answer_of_the_log_is_503_for_a_read_and_504_for_a_removal() {
    let node = Node::with(&format!("[channel]\nsubscribe_timeout = \"400ms\"\n{APPS}")).await;
    fill(&node, "chat:x", 3).await;
    node.faults.lose_acks(Target::all(), 1);
    let reply = node.call("DELETE", &publications("chat:x"), A, "").await;
    assert_eq!(reply.error(), (504, "outcome_unknown".to_owned()));
    node.faults.disconnect(0);
    let reply = node.call("DELETE", &publications("chat:x"), A, "").await;
    assert_eq!(reply.error(), (503, "unavailable".to_owned()));
    node.faults.reconnect(0);
    node.faults
        .fail(Target::all(), Request::Info, ReadError::NoAnswer, u32::MAX);
    let reply = node.get(A, "chat:x", "").await;
    assert_eq!(reply.error(), (503, "unavailable".to_owned()));
}
