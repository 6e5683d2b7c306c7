use std::time::Duration;

use axum::body::Body;
use serde_json::json;

use super::support::{A, APPS, B, Node, SMALL, publications, request};
use crate::{
    log::{PublishError, memory::Target},
    telemetry::{Limit, PublishOutcome, RefusedBody},
};

#[tokio::test]
async fn a_publication_is_stored_and_told_where() {
    let node = Node::start().await;
    let first = node
        .post(A, "chat:x", r#"{"data":{"n":1},"tags":{"z":"1","a":"2"}}"#)
        .await;
    let first = first.ok(201);
    let second = node.post(A, "chat:x", r#"{"data":2}"#).await;
    let second = second.ok(201);
    assert!(second.number("offset") > first.number("offset"));
    assert_eq!(first.text("epoch"), second.text("epoch"));
    assert_eq!(first.0["duplicate"], false);
    let page = node.get(A, "chat:x", "").await;
    let page = page.ok(200);
    let stored = page.array("publications");
    assert_eq!(stored[0]["data"], json!({"n": 1}));
    assert_eq!(stored[0]["tags"], json!({"z": "1", "a": "2"}));
    assert_eq!(stored[0]["offset"], first.number("offset"));
    assert_eq!(stored[1]["offset"], second.number("offset"));
    assert!(page.number("top") >= second.number("offset"));
}

#[tokio::test]
async fn payloads_arrive_as_they_were() {
    let node = Node::start().await;
    for (body, stored) in [
        (r#"{"data":null}"#, json!({"data": null})),
        (r#"{"data":"\n\u0000"}"#, json!({"data": "\n\u{0}"})),
        (r#"{"data":1e400}"#, json!({"data": null})),
        ("{\"data\":\n{\"a\":\r\n1}}\n", json!({"data": {"a": 1}})),
        (r#" {"data":[1,{"b":[]}]} "#, json!({"data": [1, {"b": []}]})),
        (
            r#"{"b64data":"AAEC/w=="}"#,
            json!({"data": null, "b64data": "AAEC/w=="}),
        ),
        (r#"{"b64data":""}"#, json!({"data": null, "b64data": ""})),
    ] {
        let published = node.post(A, "chat:x", body).await;
        let offset = published.ok(201).number("offset");
        let page = node.get(A, "chat:x", &format!("since={}", offset - 1)).await;
        if body.contains("1e400") {
            // Beyond what a test can parse; it is passed on as it is.
            assert!(page.bytes.windows(5).any(|text| text == b"1e400"));
            continue;
        }
        let page = page.ok(200);
        let publication = &page.array("publications")[0];
        assert_eq!(publication["data"], stored["data"], "{body}");
        assert_eq!(publication["b64data"], stored["b64data"], "{body}");
    }
}

#[tokio::test]
async fn l16_an_ephemeral_publication_has_no_offset() {
    let node = Node::start().await;
    let reply = node.post(A, "live:x", r#"{"data":1}"#).await;
    assert_eq!(reply.ok(200).0, json!({"duplicate": false}));
}

#[tokio::test]
async fn l14_a_repeat_with_the_same_key_has_the_first_offset() {
    let node = Node::start().await;
    let keyed = r#"{"data":1,"idempotency_key":"k"}"#;
    let first = node.post(A, "chat:x", keyed).await;
    let offset = first.ok(201).number("offset");
    // Also with another payload, and whether the key stands in the field or in the header.
    let other = node
        .post(A, "chat:x", r#"{"data":2,"idempotency_key":"k"}"#)
        .await;
    let path = publications("chat:x");
    let header = [("Idempotency-Key", "k")];
    let by_header = node
        .send(request("POST", &path, A, &header, r#"{"data":3}"#))
        .await;
    let by_both = node.send(request("POST", &path, A, &header, keyed)).await;
    for reply in [other, by_header, by_both] {
        let repeat = reply.ok(200);
        assert_eq!(
            (repeat.number("offset"), &repeat.0["duplicate"]),
            (offset, &json!(true))
        );
    }
    // Another channel and another app have keys of their own.
    node.post(A, "chat:y", keyed).await.ok(201);
    node.post(B, "chat:x", keyed).await.ok(201);
    assert_eq!(node.payloads(A, "chat:x").await, [json!(1)]);
}

/// Issue 3, "Bad input": every field has a bound and an error.
#[tokio::test]
async fn bad_bodies_are_told_apart_and_store_nothing() {
    let node = Node::start().await;
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(1023));
    let larger = format!(r#"{{"data":"{}"}}"#, "x".repeat(110_000));
    let bytes = format!(r#"{{"b64data":"{}"}}"#, "AAAA".repeat(342));
    let key = |len: usize| format!(r#"{{"data":1,"idempotency_key":"{}"}}"#, "k".repeat(len));
    let tags = |count: usize| {
        let tags: Vec<_> = (0..count).map(|n| format!(r#""t{n}":"""#)).collect();
        format!(r#"{{"data":1,"tags":{{{}}}}}"#, tags.join(","))
    };
    let tag = |name: usize, value: usize| {
        format!(
            r#"{{"data":1,"tags":{{"{}":"{}"}}}}"#,
            "n".repeat(name),
            "v".repeat(value)
        )
    };
    let deep = |depth: usize| format!(r#"{{"data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let many = format!(
        r#"{{"publications":[{}]}}"#,
        vec![r#"{"data":1}"#; 1_001].join(",")
    );
    let table: &[(&str, u16, &str)] = &[
        ("", 400, "invalid_json"),
        ("{", 400, "invalid_json"),
        ("{}{}", 400, "invalid_json"),
        (r#"{"data":nul}"#, 400, "invalid_json"),
        (r#"{"data":01}"#, 400, "invalid_json"),
        ("{\"data\":\"\t\"}", 400, "invalid_json"),
        ("[]", 422, "invalid_body"),
        ("null", 422, "invalid_body"),
        (r#"[1,null,null,null,null]"#, 422, "invalid_body"),
        ("{}", 422, "invalid_field"),
        (r#"{"data":1,"data":2}"#, 422, "invalid_body"),
        (r#"{"data":1,"offset":5}"#, 422, "invalid_body"),
        (r#"{"data":1,"b64data":"AA=="}"#, 422, "invalid_field"),
        (r#"{"b64data":"AA"}"#, 422, "invalid_field"),
        (r#"{"b64data":"A_A="}"#, 422, "invalid_field"),
        (r#"{"b64data":5}"#, 422, "invalid_body"),
        (r#"{"data":1,"idempotency_key":""}"#, 422, "invalid_field"),
        (r#"{"data":1,"idempotency_key":5}"#, 422, "invalid_body"),
        (&key(256), 422, "invalid_field"),
        (r#"{"data":1,"tags":[]}"#, 422, "invalid_body"),
        (r#"{"data":1,"tags":{"a":1}}"#, 422, "invalid_body"),
        (r#"{"data":1,"tags":{"a":"1","a":"2"}}"#, 422, "invalid_body"),
        (&tags(17), 422, "invalid_body"),
        (&tag(0, 1), 422, "invalid_field"),
        (&tag(65, 1), 422, "invalid_field"),
        (&tag(1, 257), 422, "invalid_field"),
        (&large, 413, "payload_too_large"),
        (&bytes, 413, "payload_too_large"),
        (&larger, 413, "body_too_large"),
        (&deep(129), 400, "bad_request"),
        (&deep(500), 400, "bad_request"),
        (r#"{"publications":[]}"#, 422, "invalid_field"),
        (r#"{"publications":{}}"#, 422, "invalid_body"),
        (r#"{"publications":[1]}"#, 422, "invalid_body"),
        (r#"{"publications":[[1,null,null,null]]}"#, 422, "invalid_body"),
        (
            r#"{"publications":[{"data":1,"publications":[]}]}"#,
            422,
            "invalid_body",
        ),
        (r#"{"publications":[{"data":1}],"data":1}"#, 422, "invalid_field"),
        (
            r#"{"publications":[{"data":1}],"idempotency_key":"k"}"#,
            422,
            "invalid_field",
        ),
        (&many, 422, "invalid_body"),
    ];
    for (body, status, code) in table {
        let reply = node.post(A, "chat:x", body).await;
        assert_eq!(reply.error(), (*status, (*code).to_owned()), "{body:.100}");
    }
    assert!(node.payloads(A, "chat:x").await.is_empty());
    // The bounds themselves fit.
    let fits = format!(r#"{{"data":"{}"}}"#, "x".repeat(1022));
    for body in [&fits, &deep(128), &key(255), &tags(16), &tag(64, 256)] {
        node.post(A, "chat:x", body).await.ok(201);
    }
}

#[tokio::test]
async fn bad_heads_are_told_apart() {
    let node = Node::start().await;
    let path = publications("chat:x");
    let good = r#"{"data":1}"#;
    let long = "k".repeat(256);
    for (path, headers, status, code) in [
        (
            path.clone(),
            &[("Content-Type", "text/plain")][..],
            415,
            "unsupported_media_type",
        ),
        (path.clone(), &[("Idempotency-Key", "")], 422, "invalid_field"),
        (path.clone(), &[("Idempotency-Key", &long)], 422, "invalid_field"),
        (
            path.clone(),
            &[("Idempotency-Key", "a"), ("Idempotency-Key", "a")],
            400,
            "bad_request",
        ),
        (format!("{path}?idempotency_key=k"), &[], 400, "bad_request"),
        (format!("{path}?app=a&app=a"), &[], 400, "bad_request"),
        (
            "/v1/channels/%FF/publications".to_owned(),
            &[],
            400,
            "bad_request",
        ),
        (publications("a\nb"), &[], 422, "invalid_field"),
        (publications(":x"), &[], 422, "invalid_field"),
        (publications("chat:"), &[], 422, "invalid_field"),
        (publications(&"é".repeat(128)), &[], 422, "invalid_field"),
        (publications("nope:x"), &[], 404, "unknown_channel"),
        (publications("Chat:x"), &[], 404, "unknown_channel"),
        ("/v1/channels//publications".to_owned(), &[], 422, "invalid_field"),
        (
            "/v1/channels/chat/x/publications".to_owned(),
            &[],
            404,
            "not_found",
        ),
        (format!("{path}/"), &[], 404, "not_found"),
    ] {
        let reply = node.send(request("POST", &path, A, headers, good)).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{path} {headers:?}");
    }
    let reply = node.call("PATCH", &path, A, good).await;
    assert_eq!(reply.error(), (405, "method_not_allowed".to_owned()));
    let both = request(
        "POST",
        &path,
        A,
        &[("Idempotency-Key", "a")],
        r#"{"data":1,"idempotency_key":"b"}"#,
    );
    assert_eq!(node.send(both).await.error().0, 422);
    let batch = request(
        "POST",
        &path,
        A,
        &[("Idempotency-Key", "a")],
        r#"{"publications":[{"data":1}]}"#,
    );
    assert_eq!(node.send(batch).await.error().0, 422);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_long() {
    let node = Node::with(&APPS.replacen("[http]", "[http]\nbody_timeout = \"100ms\"", 1)).await;
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let reply = node
        .send(request("POST", &publications("chat:x"), A, &[], endless))
        .await;
    assert_eq!(reply.error(), (408, "request_timeout".to_owned()));
    let broken = futures_util::stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("gone"))]);
    let broken = Body::from_stream(broken);
    let reply = node
        .send(request("POST", &publications("chat:x"), A, &[], broken))
        .await;
    assert_eq!(reply.error(), (400, "bad_request".to_owned()));
    let large = "x".repeat(110_000);
    assert_eq!(node.post(A, "chat:x", &large).await.status, 413);
    for why in [RefusedBody::TooSlow, RefusedBody::Broken, RefusedBody::TooLarge] {
        assert_eq!(node.metrics.bodies_refused.of(why).get(), 1, "{why:?}");
    }
}

#[tokio::test]
async fn l14_a_batch_is_ordered_and_not_atomic() {
    let node = Node::start().await;
    let large = "x".repeat(2000);
    let body = format!(
        r#"{{"publications":[{{"data":1,"idempotency_key":"k"}},{{"data":"{large}"}},{{"b64data":"?"}},{{}},
           {{"data":2,"idempotency_key":"k"}},{{"data":3}}]}}"#
    );
    let reply = node.post(A, "chat:x", &body).await;
    let answer = reply.ok(200);
    let results = answer.array("results");
    let code = |at: usize| results[at]["error"]["code"].as_str();
    assert_eq!(code(1), Some("payload_too_large"));
    assert_eq!((code(2), code(3)), (Some("invalid_field"), Some("invalid_field")));
    assert_eq!(results[4]["offset"], results[0]["offset"]);
    assert_eq!(results[4]["duplicate"], true);
    assert!(results[5]["offset"].as_u64() > results[0]["offset"].as_u64());
    assert_eq!(node.payloads(A, "chat:x").await, [json!(1), json!(3)]);

    let many: Vec<_> = (0..1000).map(|n| format!(r#"{{"data":{n}}}"#)).collect();
    let reply = node
        .post(
            A,
            "chat:many",
            &format!(r#"{{"publications":[{}]}}"#, many.join(",")),
        )
        .await;
    let answer = reply.ok(200);
    let offsets: Vec<_> = answer
        .array("results")
        .iter()
        .map(|it| it["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets.len(), 1000);
    assert!(offsets.is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn l14_an_unknown_outcome_is_told_and_a_key_makes_it_safe() {
    let node = Node::start().await;
    node.faults.lose_acks(Target::all(), 1);
    let keyed = r#"{"data":1,"idempotency_key":"k"}"#;
    let reply = node.post(A, "chat:x", keyed).await;
    assert_eq!(reply.error(), (504, "outcome_unknown".to_owned()));
    assert_eq!(node.post(A, "chat:x", keyed).await.ok(200).0["duplicate"], true);
    assert_eq!(node.payloads(A, "chat:x").await, [json!(1)]);
    let outcomes = &node.metrics.app(&node.apps.get("a").unwrap().id).publishes;
    assert_eq!(outcomes.of(PublishOutcome::Unknown).get(), 1);
}

#[tokio::test]
async fn l14_a_batch_ends_where_the_log_fails() {
    let node = Node::start().await;
    node.faults.lose_acks(Target::all(), 1);
    let items: Vec<_> = (0..200).map(|n| format!(r#"{{"data":{n}}}"#)).collect();
    let body = format!(r#"{{"publications":[{}]}}"#, items.join(","));
    let reply = node.post(A, "chat:x", &body).await;
    let answer = reply.ok(200);
    let results = answer.array("results");
    assert_eq!(results[0]["error"]["code"], "outcome_unknown");
    let sent = results.iter().filter(|it| it["offset"].is_u64()).count();
    let unsent = results
        .iter()
        .filter(|it| it["error"]["code"] == "unavailable")
        .count();
    assert!(
        sent > 0 && unsent > 100 && sent + unsent == 199,
        "{sent} {unsent}"
    );
    // What was not sent is not stored; what was is, the first included.
    assert_eq!(node.payloads(A, "chat:x").await.len(), sent + 1);
}

#[tokio::test]
async fn what_was_not_sent_may_be_tried_again() {
    let node = Node::start().await;
    let unavailable = PublishError::Unavailable("full");
    node.faults.refuse_publishes(Target::all(), unavailable, 1);
    let reply = node.post(A, "chat:x", r#"{"data":1}"#).await;
    assert_eq!(reply.error(), (503, "unavailable".to_owned()));
    node.faults
        .refuse_publishes(Target::all(), PublishError::Refused("why".into()), 1);
    let reply = node.post(A, "chat:x", r#"{"data":1}"#).await;
    assert_eq!(reply.error(), (500, "refused".to_owned()));
    node.faults.disconnect(0);
    let reply = node.post(A, "chat:x", r#"{"data":1}"#).await;
    assert_eq!(reply.error(), (503, "unavailable".to_owned()));
    node.faults.reconnect(0);
    node.post(A, "chat:x", r#"{"data":1}"#).await.ok(201);
    assert_eq!(node.payloads(A, "chat:x").await, [json!(1)]);
}

#[tokio::test]
async fn rates_hold_by_channel_and_by_app() {
    let node = Node::start().await;
    let throttled = (429, "too_many_requests".to_owned());
    // One a second on each channel of this namespace.
    node.post(A, "slow:x", r#"{"data":1}"#).await.ok(201);
    assert_eq!(node.post(A, "slow:x", r#"{"data":1}"#).await.error(), throttled);
    node.post(A, "slow:y", r#"{"data":1}"#).await.ok(201);
    let metrics = node.metrics.app(&node.apps.get("a").unwrap().id);
    assert_eq!(metrics.limits_hit.of(Limit::ChannelRate).get(), 1);
    assert_eq!(metrics.publishes.of(PublishOutcome::Limited).get(), 1);
    // The app: two at once, whatever the channel; and in a batch each one counts.
    let batch = r#"{"publications":[{"data":1},{"data":2},{"data":3}]}"#;
    let reply = node.post(SMALL, "chat:x", batch).await;
    let answer = reply.ok(200);
    assert_eq!(answer.array("results")[2]["error"]["code"], "too_many_requests");
    assert_eq!(
        node.post(SMALL, "chat:y", r#"{"data":1}"#).await.error(),
        throttled
    );
    // Nobody else is slowed down by it.
    node.post(B, "chat:x", r#"{"data":1}"#).await.ok(201);
}

#[tokio::test]
async fn bytes_hold_by_app() {
    let node = Node::start().await;
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(2000));
    node.post(SMALL, "chat:x", &large).await.ok(201);
    let reply = node.post(SMALL, "chat:x", r#"{"data":1}"#).await;
    assert_eq!(reply.error(), (429, "too_many_requests".to_owned()));
    let seconds: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds));
    let metrics = node.metrics.app(&node.apps.get("small").unwrap().id);
    assert_eq!(metrics.limits_hit.of(Limit::PublishBytes).get(), 1);
}

/// L2: the store has more to keep of a publication than its payload.
#[tokio::test]
async fn l2_bytes_are_charged_as_they_are_stored() {
    let node = Node::with(&APPS.replace("limits.publish_rate = 1\n    limits.publish_burst = 2\n", "")).await;
    let batch = format!(r#"{{"publications":[{}]}}"#, vec![r#"{"data":1}"#; 500].join(","));
    let reply = node.post(SMALL, "chat:x", &batch).await;
    let answer = reply.ok(200);
    let stored = answer.array("results").iter().filter(|it| it["offset"].is_u64());
    // 1 KiB, and what is earned meanwhile, of some 50 bytes each.
    assert!((10..100).contains(&stored.count()));
}

#[tokio::test]
async fn an_acknowledgement_is_waited_for() {
    let node = Node::start().await;
    node.faults.hold_acks(Target::all());
    let publishing = node.post(A, "chat:x", r#"{"data":1}"#);
    tokio::pin!(publishing);
    let early = tokio::time::timeout(Duration::from_millis(20), publishing.as_mut()).await;
    assert!(early.is_err(), "answered before it was stored");
    node.faults.release_answers();
    publishing.await.ok(201);
}

#[tokio::test]
async fn a_payload_is_held_to_its_schema() {
    let node = Node::start().await;
    for (body, version) in [
        (r#"{"data":{"n":1.5}}"#, "2"),
        (r#"{"data":{"n":1},"schema_version":1}"#, "1"),
        (r#"{"data":{},"tags":{"schema_version":"9","a":"b"}}"#, "2"),
    ] {
        let offset = node.post(A, "typed:x", body).await.ok(201).number("offset");
        let page = node.get(A, "typed:x", &format!("since={}", offset - 1)).await;
        let page = page.ok(200);
        assert_eq!(
            page.array("publications")[0]["tags"]["schema_version"],
            version,
            "{body}"
        );
    }
    for (channel, body, code, words) in [
        (
            "typed:x",
            r#"{"data":{"n":"planted"}}"#,
            "invalid_payload",
            "at '/n': type",
        ),
        (
            "typed:x",
            r#"{"data":{"n":0},"schema_version":1}"#,
            "invalid_payload",
            "at '/n': minimum",
        ),
        ("typed:x", r#"{"b64data":"AAEC"}"#, "invalid_payload", "JSON"),
        (
            "typed:x",
            r#"{"data":{},"schema_version":3}"#,
            "invalid_field",
            "schema_version",
        ),
        (
            "chat:x",
            r#"{"data":{},"schema_version":1}"#,
            "invalid_field",
            "schema_version",
        ),
    ] {
        let error = node.post(A, channel, body).await.ok(422);
        assert_eq!(error.0["error"]["code"], code, "{body}");
        let message = error.0["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(words) && !message.contains("planted"),
            "{message}"
        );
    }
    let app = node.metrics.app(&node.apps.get("a").unwrap().id);
    assert_eq!(app.publishes.of(PublishOutcome::Invalid).get(), 5);
    let batch =
        r#"{"publications":[{"data":{"n":2}},{"data":{"n":true}},{"data":{"n":3},"schema_version":1}]}"#;
    let batch = node.post(A, "typed:x", batch).await.ok(200);
    let results = batch.array("results");
    assert!(
        results[0]["offset"].is_u64() && results[2]["offset"].is_u64(),
        "{results:?}"
    );
    assert_eq!(results[1]["error"]["code"], "invalid_payload");
}

#[tokio::test]
async fn what_comes_too_soon_waits() {
    let node = Node::start().await;
    let items: Vec<_> = (0..12)
        .map(|n| json!({"data": n, "idempotency_key": n.to_string()}))
        .collect();
    let batch = json!({ "publications": items }).to_string();
    let answer = node.post(A, "late:x", &batch).await.ok(200);
    let results = answer.array("results");
    let is_late = |result: &&serde_json::Value| result["queued"] == true && result["offset"].is_null();
    assert!(results.iter().filter(is_late).count() >= 6, "{results:?}");
    // A repeat of what waits is known.
    let again = node
        .post(A, "late:x", r#"{"data":11,"idempotency_key":"11"}"#)
        .await
        .ok(202);
    assert_eq!(
        (&again.0["duplicate"], &again.0["id"]),
        (&json!(true), &results[11]["id"])
    );
    let queue = |query: String| {
        let path = format!("/v1/channels/late:x/queue{query}");
        let node = &node;
        async move { node.call("GET", &path, A, "").await }
    };
    let waiting = queue(format!("?id={}", again.text("id"))).await.ok(200);
    assert_eq!(waiting.text("state"), "waiting");
    assert!(waiting.number("waiting") > 0 && waiting.number("oldest") > 0);
    assert_eq!(
        queue("?id=x".to_owned()).await.error(),
        (422, "invalid_field".to_owned())
    );
    tokio::time::timeout(Duration::from_secs(20), async {
        while node.payloads(A, "late:x").await.len() < 12 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let all: Vec<_> = (0..12).map(|n| json!(n)).collect();
    assert_eq!(node.payloads(A, "late:x").await, all);
    node.faults
        .limit_stream(crate::log::StreamName::Overflow, Some(0));
    let full = node
        .post(
            A,
            "late:x",
            &json!({"publications": vec![json!({"data": 0}); 12]}).to_string(),
        )
        .await;
    let results = full.ok(200);
    assert_eq!(results.array("results")[11]["error"]["code"], "too_many_requests");
}
