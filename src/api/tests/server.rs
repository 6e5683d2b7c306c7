use serde_json::{Value, json};

use super::support::{A, APPS, Node, SMALL, request};
use crate::{
    log::{PublishError, memory::Target},
    telemetry::Limit,
};

async fn call(node: &Node, method: &str, body: &str) -> Value {
    let reply = node.call("POST", &format!("/api/{method}"), A, body).await;
    reply.ok(200).0
}

fn code(answer: &Value) -> u64 {
    answer["error"]["code"]
        .as_u64()
        .unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn what_is_published_is_in_history() {
    let node = Node::start().await;
    let first = call(
        &node,
        "publish",
        r#"{"channel":"chat:x","data":{"a":1},"tags":{"t":"1"}}"#,
    )
    .await;
    let (offset, epoch) = (&first["result"]["offset"], &first["result"]["epoch"]);
    assert!(offset.is_u64() && epoch.is_string());
    let second = call(&node, "publish", r#"{"channel":"chat:x","b64data":"AAE="}"#).await;
    let history = call(&node, "history", r#"{"channel":"chat:x","limit":-1}"#).await;
    let result = &history["result"];
    let publications = result["publications"].as_array().unwrap();
    assert_eq!(publications[0]["data"], json!({"a": 1}));
    assert_eq!(publications[0]["tags"], json!({"t": "1"}));
    assert_eq!(&publications[0]["offset"], offset);
    assert_eq!(publications[1]["b64data"], "AAE=");
    assert_eq!(&result["epoch"], epoch);
    assert!(result["offset"].as_u64() >= second["result"]["offset"].as_u64());
    // A channel without history has no position.
    let live = call(&node, "publish", r#"{"channel":"live:x","data":1}"#).await;
    assert_eq!(live, json!({"result": {}}));
}

#[tokio::test]
async fn a_repeat_has_the_first_result() {
    let node = Node::start().await;
    let keyed = r#"{"channel":"chat:x","data":1,"idempotency_key":"k"}"#;
    let first = call(&node, "publish", keyed).await;
    assert_eq!(call(&node, "publish", keyed).await, first);
    // Here an empty key is none.
    let unkeyed = r#"{"channel":"chat:x","data":2,"idempotency_key":""}"#;
    assert_ne!(
        call(&node, "publish", unkeyed).await,
        call(&node, "publish", unkeyed).await
    );
    assert_eq!(node.payloads(A, "chat:x").await, [json!(1), json!(2), json!(2)]);
}

/// The table of `reference/centrifuge-protocol.md` section 5, "History semantics".
#[tokio::test]
async fn history_is_as_the_reference_has_it() {
    let node = Node::start().await;
    let mut offsets = Vec::new();
    for n in 0..5 {
        let body = format!(r#"{{"channel":"chat:x","data":{n}}}"#);
        offsets.push(
            call(&node, "publish", &body).await["result"]["offset"]
                .as_u64()
                .unwrap(),
        );
    }
    let top = call(&node, "history", r#"{"channel":"chat:x"}"#).await["result"].clone();
    assert_eq!(top["publications"], json!([]));
    let epoch = top["epoch"].as_str().unwrap();
    for (query, expected) in [
        (String::new(), vec![]),
        (r#","limit":-1"#.to_owned(), vec![0, 1, 2, 3, 4]),
        (r#","limit":2"#.to_owned(), vec![0, 1]),
        (r#","limit":2,"reverse":true"#.to_owned(), vec![4, 3]),
        (
            format!(
                r#","limit":-1,"since":{{"offset":{},"epoch":"{epoch}"}}"#,
                offsets[2]
            ),
            vec![3, 4],
        ),
        (
            format!(r#","limit":-1,"since":{{"offset":{}}}"#, offsets[2]),
            vec![3, 4],
        ),
        (
            format!(r#","limit":-1,"since":{{"offset":{},"epoch":""}}"#, offsets[4]),
            vec![],
        ),
        (
            format!(
                r#","limit":-1,"reverse":true,"since":{{"offset":{}}}"#,
                offsets[2]
            ),
            vec![1, 0],
        ),
        (r#","limit":-1,"since":{}"#.to_owned(), vec![0, 1, 2, 3, 4]),
        (r#","limit":-1,"since":null"#.to_owned(), vec![0, 1, 2, 3, 4]),
    ] {
        let answer = call(&node, "history", &format!(r#"{{"channel":"chat:x"{query}}}"#)).await;
        let result = &answer["result"];
        let data: Vec<_> = result["publications"]
            .as_array()
            .unwrap_or_else(|| panic!("{query}: {answer}"))
            .iter()
            .map(|it| it["data"].as_u64().unwrap())
            .collect();
        assert_eq!(data, expected, "{query}");
        assert_eq!(
            (&result["offset"], &result["epoch"]),
            (&top["offset"], &top["epoch"]),
            "{query}"
        );
    }
    // What is no longer retained is no error: the list starts at what is.
    node.faults.trim(node.shard("chat:x"), offsets[3]);
    let since = format!(
        r#"{{"channel":"chat:x","limit":-1,"since":{{"offset":{}}}}}"#,
        offsets[0]
    );
    let answer = call(&node, "history", &since).await;
    assert_eq!(answer["result"]["publications"][0]["offset"], offsets[3]);
}

#[tokio::test]
async fn all_of_a_long_history_is_in_one_answer() {
    let node = Node::start().await;
    for chunk in 0..3 {
        let items: Vec<_> = (0..600)
            .map(|n| format!(r#"{{"data":{}}}"#, chunk * 600 + n))
            .collect();
        let body = format!(r#"{{"publications":[{}]}}"#, items.join(","));
        node.post(A, "chat:x", &body).await.ok(200);
    }
    for (query, first, last) in [("", 0, 1799), (r#","reverse":true"#, 1799, 0)] {
        let answer = call(
            &node,
            "history",
            &format!(r#"{{"channel":"chat:x","limit":-1{query}}}"#),
        )
        .await;
        let publications = answer["result"]["publications"].as_array().unwrap();
        assert_eq!(publications.len(), 1800);
        assert_eq!(
            (&publications[0]["data"], &publications[1799]["data"]),
            (&json!(first), &json!(last))
        );
    }
}

/// Issue 3, "Bad input": errors stand in the body of a 200, or have a status if the caller asks.
#[tokio::test]
async fn errors_have_numbers_or_statuses() {
    let node = Node::start().await;
    let large = format!(r#"{{"channel":"chat:x","data":"{}"}}"#, "x".repeat(2000));
    let long = format!(
        r#"{{"channel":"chat:x","data":1,"idempotency_key":"{}"}}"#,
        "k".repeat(256)
    );
    let tag = format!(r#"{{"channel":"chat:x","data":1,"tags":{{"":"{}"}}}}"#, "v");
    let deep = "[".repeat(129) + &"]".repeat(129);
    let deep_publish = format!(r#"{{"channel":"chat:x","data":{deep}}}"#);
    for (method, body, code, status) in [
        ("publish", r#"{"channel":"nope:x","data":1}"#, 102, 404),
        ("publish", r#"{"channel":"","data":1}"#, 107, 400),
        ("publish", r#"{"data":1}"#, 107, 400),
        ("publish", r#"{"channel":"a\nb","data":1}"#, 107, 400),
        ("publish", r#"{"channel":"chat:x"}"#, 107, 400),
        (
            "publish",
            r#"{"channel":"chat:x","data":1,"b64data":"AA=="}"#,
            107,
            400,
        ),
        ("publish", r#"{"channel":"chat:x","b64data":"?"}"#, 107, 400),
        ("publish", &long, 107, 400),
        ("publish", &tag, 107, 400),
        ("publish", &large, 106, 413),
        ("publish", &deep_publish, 107, 400),
        (
            "publish",
            r#"{"channel":"chat:x","data":1,"skip_history":true}"#,
            108,
            400,
        ),
        (
            "publish",
            r#"{"channel":"chat:x","data":1,"version":1}"#,
            108,
            400,
        ),
        ("broadcast", r#"{"channels":[],"data":1}"#, 107, 400),
        ("broadcast", r#"{"data":1}"#, 107, 400),
        ("broadcast", r#"{"channels":["chat:x"]}"#, 107, 400),
        ("history", r#"{"channel":"nope:x"}"#, 102, 404),
        ("history", r#"{"channel":"chat:x","limit":-2}"#, 107, 400),
        (
            "history",
            r#"{"channel":"chat:x","limit":1,"reverse":true,"since":{"offset":0}}"#,
            107,
            400,
        ),
        (
            "history",
            r#"{"channel":"chat:x","limit":1,"since":{"offset":1,"epoch":"e"}}"#,
            112,
            416,
        ),
        ("history", r#"{"channel":"live:x","limit":1}"#, 108, 400),
        ("history_remove", r#"{"channel":"live:x"}"#, 108, 400),
        ("history_remove", r#"{"channel":"nope:x"}"#, 102, 404),
        ("batch", r#"{"commands":[]}"#, 107, 400),
        ("batch", "{}", 107, 400),
        ("presence", r#"{"channel":"chat:x"}"#, 108, 400),
        ("rpc", "{}", 108, 400),
        ("subscribe", r#"{"channel":"nope:x"}"#, 102, 404),
        ("subscribe", r#"{"channel":""}"#, 107, 400),
        ("subscribe", r#"{"channel":"chat:x","session":"s"}"#, 108, 400),
        ("subscribe", r#"{"channel":"chat:x","b64data":""}"#, 108, 400),
        ("subscribe", r#"{"channel":"chat:x","b64info":""}"#, 108, 400),
        (
            "subscribe",
            r#"{"channel":"chat:x","override":{"presence":{"value":true}}}"#,
            108,
            400,
        ),
        ("subscribe", r#"{"channel":"chat:x","expire_at":-1}"#, 107, 400),
        ("unsubscribe", "{}", 107, 400),
        ("disconnect", r#"{"disconnect":{"code":2999}}"#, 107, 400),
        ("refresh", r#"{"session":"s"}"#, 108, 400),
        ("presence_stats", r#"{"channel":"chat:x"}"#, 108, 400),
        ("channels", r#"{"pattern":"[ab]*"}"#, 108, 400),
    ] {
        let answer = call(&node, method, body).await;
        assert_eq!(answer["error"]["code"], code, "{method} {body:.100}: {answer}");
        assert!(answer["error"]["message"].is_string() && answer.get("result").is_none());
        let headers = [("X-Centrifugo-Error-Mode", "transport")];
        let path = format!("/api/{method}");
        let reply = node
            .send(request("POST", &path, A, &headers, body.to_owned()))
            .await;
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (status, &json!(code)),
            "{method} {body:.100}"
        );
    }
    assert!(node.payloads(A, "chat:x").await.is_empty());
}

#[tokio::test]
async fn errors_of_the_log_have_their_own_codes() {
    let node = Node::start().await;
    let body = r#"{"channel":"chat:x","data":1}"#;
    let transport = [("X-Centrifugo-Error-Mode", "transport")];
    let refuse = |error: PublishError| node.faults.refuse_publishes(Target::all(), error, 1);
    let faults: [(&dyn Fn(), u64, u16); 3] = [
        (&|| node.faults.lose_acks(Target::all(), 1), 200, 504),
        (&|| refuse(PublishError::Unavailable("")), 111, 503),
        (&|| refuse(PublishError::Refused(String::new())), 108, 400),
    ];
    for (fault, expected, status) in faults {
        fault();
        assert_eq!(code(&call(&node, "publish", body).await), expected);
        fault();
        let reply = node
            .send(request("POST", "/api/publish", A, &transport, body))
            .await;
        assert_eq!(reply.status, status);
    }
    // An app over its rate.
    for expected in [200, 200, 429] {
        let reply = node
            .send(request("POST", "/api/publish", SMALL, &transport, body))
            .await;
        assert_eq!(reply.status, expected);
    }
}

#[tokio::test]
async fn what_is_not_understood_has_a_status() {
    let node = Node::start().await;
    let many = format!(
        r#"{{"channels":[{}],"data":1}}"#,
        vec![r#""chat:x""#; 1001].join(",")
    );
    let larger = format!(r#"{{"channel":"chat:x","data":"{}"}}"#, "x".repeat(110_000));
    for (path, body, status) in [
        ("/api/publish", "", 400),
        ("/api/publish", "{", 400),
        ("/api/publish", "[]", 400),
        ("/api/publish", r#"{"channel":5,"data":1}"#, 400),
        (
            "/api/publish",
            r#"{"channel":"chat:x","data":1,"tags":{"a":1}}"#,
            400,
        ),
        ("/api/publish", r#"{"channel":"chat:x","data":1,"data":2}"#, 400),
        ("/api/publish", larger.as_str(), 413),
        ("/api/broadcast", many.as_str(), 400),
        ("/api/history", r#"{"channel":"chat:x","limit":"1"}"#, 400),
        ("/api/history", r#"{"channel":"chat:x","since":[1]}"#, 400),
        (
            "/api/history",
            r#"{"channel":"chat:x","since":{"offset":9007199254740992}}"#,
            400,
        ),
        ("/api/batch", r#"{"commands":[{"publish":{},"history":{}}]}"#, 400),
        ("/api/batch", r#"{"commands":[{}]}"#, 400),
        ("/api/nope", "{}", 404),
        ("/api/Publish", "{}", 404),
        ("/api/%FF", "{}", 404),
        ("/api/map_publish", "{}", 404),
    ] {
        let reply = node.call("POST", path, A, body).await;
        assert_eq!(reply.status, status, "{path} {body:.80}");
        if status == 400 {
            assert_eq!(reply.bytes, "Bad Request");
        }
    }
    // Unknown fields are ignored, and no content type is asked for.
    let headers = [("Content-Type", "text/plain")];
    let body = r#"{"channel":"chat:x","data":1,"delta":true,"unheard_of":1}"#;
    let reply = node
        .send(request("POST", "/api/publish", A, &headers, body))
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(node.call("GET", "/api/publish", A, "").await.status, 405);
    assert_eq!(node.call("GET", "/api", A, "").await.status, 405);
}

#[tokio::test]
async fn a_broadcast_answers_for_each_channel() {
    let node = Node::start().await;
    let body = r#"{"channels":["chat:a","nope:x","live:x","","chat:b","chat:a"],"data":{"n":1},"idempotency_key":"k"}"#;
    let answer = call(&node, "broadcast", body).await;
    let responses = answer["result"]["responses"].as_array().unwrap();
    assert!(responses[0]["result"]["offset"].is_u64());
    assert_eq!(code(&responses[1]), 102);
    assert_eq!(responses[2], json!({"result": {}}));
    assert_eq!(code(&responses[3]), 107);
    assert!(responses[4]["result"]["offset"].is_u64());
    assert_eq!(responses[5], responses[0], "the key holds for each channel");
    assert_eq!(node.payloads(A, "chat:b").await, [json!({"n": 1})]);
}

#[tokio::test]
async fn a_batch_answers_for_each_command_in_order() {
    let node = Node::start().await;
    for parallel in [false, true] {
        let channel = format!("chat:{parallel}");
        let body = format!(
            r#"{{"parallel":{parallel},"commands":[
                {{"publish":{{"channel":"{channel}","data":1}}}},
                {{"broadcast":{{"channels":["{channel}"],"data":2}}}},
                {{"publish":{{"channel":"nope:x","data":1}}}},
                {{"presence":{{"channel":"{channel}"}}}},
                {{"unheard_of":{{}}}},
                {{"batch":{{"commands":[]}}}},
                {{"publish":{{"channel":5}}}},
                {{"history":{{"channel":"{channel}","limit":-1}}}},
                {{"history_remove":{{"channel":"chat:never"}}}}]}}"#
        );
        let answer = call(&node, "batch", &body).await;
        let replies = answer["replies"].as_array().unwrap();
        assert!(replies[0]["publish"]["offset"].is_u64(), "{answer}");
        assert!(replies[1]["broadcast"]["responses"][0]["result"]["offset"].is_u64());
        let codes: Vec<_> = replies[2..7].iter().map(code).collect();
        assert_eq!(codes, [102, 108, 104, 104, 107]);
        if !parallel {
            let history = replies[7]["history"]["publications"].as_array().unwrap();
            assert_eq!(history.len(), 2, "each command sees what came before it");
        }
        assert_eq!(replies[8], json!({"history_remove": {}}));
        assert_eq!(node.payloads(A, &channel).await.len(), 2);
    }
}

#[tokio::test]
async fn the_older_form_has_a_command_on_each_line() {
    let node = Node::start().await;
    let body = r#"{"id":7,"method":"publish","params":{"channel":"chat:x","data":1}}
{"id":8,"method":"HISTORY","params":{"channel":"chat:x","limit":1}}

{"id":9,"method":7,"params":{"channel":"chat:x"}}
{"method":"publish","params":{"channel":"nope:x","data":1}}
{"id":10,"method":"presence","params":{"channel":"chat:x"}}
{"id":11,"method":"unheard_of"}
{"id":12}
{"id":13,"method":0,"params":{"channel":5}}
{"id":14,"method":99}
"#;
    let reply = node.call("POST", "/api", A, body).await;
    assert_eq!(reply.status, 200);
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["id"], 7);
    assert!(lines[0]["result"]["offset"].is_u64());
    assert_eq!(lines[1]["result"]["publications"][0]["data"], 1);
    assert_eq!(lines[2], json!({"id": 9, "result": {}}));
    assert_eq!(lines[3].get("id"), None);
    let codes: Vec<_> = lines[3..].iter().map(code).collect();
    assert_eq!(codes, [102, 108, 104, 104, 107, 104]);
    // What cannot be read does nothing at all.
    for body in [
        "",
        "\n\n",
        "x",
        "[]",
        "{\"method\":\"publish\"}\nx",
        r#"{"id":-1}"#,
    ] {
        assert_eq!(node.call("POST", "/api", A, body).await.status, 400, "{body}");
    }
    let broken = "{\"method\":\"publish\",\"params\":{\"channel\":\"chat:y\",\"data\":1}}\n{";
    assert_eq!(node.call("POST", "/api", A, broken).await.status, 400);
    assert!(node.payloads(A, "chat:y").await.is_empty());
}

/// Issue 3: what an answer may hold is bounded, in memory too.
#[tokio::test]
async fn an_answer_grows_no_further_than_it_may() {
    let http = "[http]\nmax_answer_bytes = \"1KiB\"\nmax_history_bytes = \"1B\"";
    let http = format!("[catchup]\npage_bytes = \"2KiB\"\n{http}");
    let node = Node::with(&APPS.replacen("[http]", &http, 1)).await;
    let items = vec![r#"{"data":"0123456789"}"#; 600].join(",");
    node.post(A, "chat:x", &format!(r#"{{"publications":[{items}]}}"#))
        .await
        .ok(200);
    let history = r#"{"channel":"chat:x","limit":-1}"#;
    let page = call(&node, "history", history).await;
    let page = page["result"]["publications"].as_array().unwrap().len();
    assert!((1..600).contains(&page), "{page} of 600 are a page");

    let refused = |replies: &[Value]| {
        replies
            .iter()
            .map(|reply| reply.get("error").is_some())
            .collect::<Vec<_>>()
    };
    let command = format!(r#"{{"history":{history}}}"#);
    let batch = format!(r#"{{"commands":[{}]}}"#, vec![command; 3].join(","));
    let answer = call(&node, "batch", &batch).await;
    let replies = answer["replies"].as_array().unwrap();
    assert_eq!(refused(replies), [false, true, true]);
    assert_eq!(code(&replies[1]), 106);
    let line = format!(r#"{{"id":1,"method":"history","params":{history}}}"#);
    let reply = node.call("POST", "/api", A, &vec![line; 3].join("\n")).await;
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    let replies: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(refused(&replies), [false, true, true]);
    let metrics = node.metrics.app(&node.apps.get("a").unwrap().id);
    assert_eq!(metrics.limits_hit.of(Limit::Answer).get(), 4);
}
