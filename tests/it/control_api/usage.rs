//! What apps use, as their teams see it.

use serde_json::json;

use super::Deployment;
use crate::support::{
    http::{self, request_with},
    people::Caller,
    until,
};

fn now_ms() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// From a publication on a node without the store to a row of the API, and a key's last use.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_uses_is_told_to_its_team() {
    let deployment = Deployment::start().await;
    let console = deployment.all().set("usage.flush_interval", "1s").start().await;
    let edge = deployment.data().set("usage.flush_interval", "1s").start().await;
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    let (key, text) = ann.key("shop", false).await;
    let unused = ann.key("shop", false).await.0;
    let path = "/v1/channels/x/publications?app=shop";
    for _ in 0..5 {
        until("the edge takes a publication", || async {
            let answer = request_with(edge.addr, "POST", path, &text, r#"{"data": 1}"#).await;
            answer.filter(|answer| answer.status == 201).map(|_| ())
        })
        .await;
    }
    // Somebody else's publications are somebody else's.
    http::publish(edge.addr, "public:x", &json!({"data": 1}))
        .await
        .unwrap();
    let asked = |step: &str, group: &str| {
        let (from, to) = (now_ms() - 3_600_000, now_ms() + 3_600_000);
        format!("/v1/apps/shop/usage?from={from}&to={to}&step={step}&group={group}")
    };
    let total = |rows: &serde_json::Value| -> i64 {
        let rows = rows["items"].as_array().unwrap().iter();
        rows.map(|row| row["counts"]["messages_in"].as_i64().unwrap_or(0))
            .sum()
    };
    let rows = until("the sums have them", || async {
        let rows = ann.get(&asked("minute", "none")).await.expect(200);
        (total(&rows) >= 5).then_some(rows)
    })
    .await;
    assert_eq!(total(&rows), 5);
    assert_eq!(total(&ann.get(&asked("day", "none")).await.expect(200)), 5);
    let grouped = ann.get(&asked("hour", "namespace")).await.expect(200);
    assert_eq!(
        (total(&grouped), &grouped["items"][0]["namespace"]),
        (5, &json!(""))
    );
    let csv = ann.get(&(asked("hour", "none") + "&format=csv")).await;
    assert_eq!(
        (csv.status, csv.header("content-type")),
        (200, Some("text/csv; charset=utf-8"))
    );

    let keys = ann.get("/v1/apps/shop/keys").await.expect(200);
    let of = |id: &str| {
        let mut keys = keys["items"].as_array().unwrap().iter();
        keys.find(|it| it["id"] == id).unwrap()["used_ms"].clone()
    };
    assert!(
        of(&key).as_i64().is_some_and(|used| used > now_ms() - 180_000),
        "{keys}"
    );
    assert_eq!(of(&unused), json!(null));

    for (query, field) in [
        ("from=2&to=1", "from"),
        ("from=0&to=9000000000000&step=minute", "step"),
        ("from=0&to=1&step=second", "step"),
        ("from=0&to=1&group=user", "group"),
        ("from=0&to=1&format=xml", "format"),
    ] {
        let refused = ann.get(&format!("/v1/apps/shop/usage?{query}")).await;
        assert_eq!(refused.error(), (422, "invalid_field"), "{query}");
        assert!(
            refused.body["error"]["message"]
                .as_str()
                .unwrap()
                .starts_with(field),
            "{query}"
        );
    }
    edge.stop().await;
    console.stop().await;
}
