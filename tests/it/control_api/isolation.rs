//! Whoever is no member of a team learns nothing of it by any route.

use serde_json::{Value, json};

use super::Deployment;
use crate::support::people::{Caller, operations};

/// A body that the operation would take of a member.
fn body(method: &str, path: &str) -> Value {
    match (method, path) {
        ("GET" | "DELETE", _) => Value::Null,
        (_, "/v1/teams/{team}/transfer") => json!({"to": "acc_x"}),
        (_, "/v1/teams/{team}/members/{account}") => json!({"role": "viewer"}),
        (_, "/v1/teams/{team}/invitations") => json!({"email": "eve@x.example", "role": "viewer"}),
        (_, "/v1/teams/{team}/apps") => json!({"id": "eves", "name": "Eve's"}),
        (_, "/v1/teams/{team}") => json!({"name": "Eve's"}),
        (_, "/v1/apps/{app}") => json!({"name": "Eve's"}),
        (_, "/v1/apps/{app}/keys") => json!({"name": "eve"}),
        (_, "/v1/apps/{app}/keys/{key}/end") => json!({"until": 1}),
        (_, "/v1/apps/{app}/keys/{key}/rotate") => json!({"overlap_seconds": 0}),
        _ => Value::Null,
    }
}

/// Every operation that names a team or an app, by somebody else, by a token for another team, by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_into_another_team() {
    let deployment = Deployment::start().await;
    let console = deployment.all().start().await;
    let ann = Caller::person(console.addr, "ann").await;
    let eve = Caller::person(console.addr, "eve").await;
    let (team, other) = (ann.team("Shop").await, ann.team("Other").await);
    let eves = eve.team("Eve's").await;
    ann.app(&team, "shop").await;
    eve.app(&eves, "mine").await;
    let (key, text) = ann.key("shop", false).await;
    let account = ann.get("/v1/account").await.expect(200)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 + 600_000;
    let scopes: Vec<_> = slipstream::control::PERMISSIONS
        .iter()
        .map(|(it, ..)| it.as_str())
        .collect();
    let token = json!({"name": "t", "scopes": scopes, "expires_ms": soon, "team": other});
    let token = ann.call("POST", "/v1/account/tokens", &token).await.expect(201);
    let elsewhere = Caller::with(console.addr, token["token"].as_str().unwrap());
    let id = token["id"].as_str().unwrap();
    let before = ann.get("/v1/apps/shop").await.expect(200);

    let mut tried = 0;
    for (method, path, _) in operations() {
        let names_app = path.starts_with("/v1/apps/{app}");
        if !names_app && !path.starts_with("/v1/teams/{team}") {
            continue;
        }
        tried += 1;
        let real = path
            .replace("{team}", &team)
            .replace("{app}", "shop")
            .replace("{account}", &account)
            .replace("{key}", &key)
            .replace("{token}", id)
            .replace("{version}", "1")
            .replace("{invitation}", "lnk_x")
            .replace("/usage", "/usage?from=0&to=1");
        let body = body(&method, &path);
        for (who, caller) in [("eve", &eve), ("a token for another team", &elsewhere)] {
            let answer = caller.call(&method, &real, &body).await;
            // To leave a team takes a session, whichever team.
            let expected = match (who, path.as_str()) {
                ("a token for another team", "/v1/teams/{team}/leave" | "/v1/teams/{team}/transfer") => 403,
                _ => 404,
            };
            assert_eq!(answer.status, expected, "{who}: {method} {path}: {}", answer.body);
            assert!(!answer.body.to_string().contains("Shop"), "{method} {path}");
        }
        for nobody in ["", "x", &text, "slp_x", &"0".repeat(300)] {
            let answer = Caller::with(console.addr, nobody)
                .call(&method, &real, &body)
                .await;
            assert_eq!(answer.error(), (401, "unauthenticated"), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
        if names_app {
            // What is not there and what is another's are not told apart.
            let nowhere = eve.call(&method, &real.replace("/shop", "/nosuch"), &body).await;
            let there = eve.call(&method, &real, &body).await;
            assert_eq!(
                (nowhere.status, nowhere.body),
                (there.status, there.body),
                "{method} {path}"
            );
        }
    }
    assert!(tried > 25, "{tried}");
    // Names that are tricks.
    for name in [
        "mine/../shop",
        "mine%2F..%2Fshop",
        "shop%00",
        "SHOP",
        "shop%20",
        "%2e%2e/shop",
        "mine%0a",
        "unnamed",
        "*",
    ] {
        let answer = eve.get(&format!("/v1/apps/{name}")).await;
        assert!(matches!(answer.status, 400 | 404), "{name}: {}", answer.status);
    }
    // A cursor of another's list leads nowhere else.
    let page = eve
        .get(&format!("/v1/teams/{eves}/apps?cursor=a"))
        .await
        .expect(200);
    let ids = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|app| app["id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), [json!("mine")]);
    assert_eq!(ann.get("/v1/apps/shop").await.expect(200), before);
    console.stop().await;
}
