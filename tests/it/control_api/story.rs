//! What people do, from the first account to the last app.

use serde_json::{Value, json};

use super::Deployment;
use crate::{
    doors::{Entered, enter, token},
    support::{
        edge::Edge,
        holds,
        http::request_with,
        people::{Caller, settings},
        until,
    },
};

async fn publish(edge: &Edge, app: &str, key: &str) -> u16 {
    let path = format!("/v1/channels/x/publications?app={app}");
    let answer = request_with(edge.addr, "POST", &path, key, r#"{"data": 1}"#).await;
    answer.unwrap().status
}

async fn publishes(edge: &Edge, app: &str, key: &str, status: u16) {
    let what = format!("publishing to {app} is answered {status}");
    until(&what, || async {
        (publish(edge, app, key).await == status).then_some(())
    })
    .await;
}

/// From an account to an app that another node serves, and to the end of it.
#[tokio::test(flavor = "multi_thread")]
async fn from_the_first_account_to_the_last_app() {
    let deployment = Deployment::start().await;
    let console = deployment.all().start().await;
    let edge = deployment.data().start().await;
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    let app = ann.app(&team, "shop").await;
    assert_eq!(
        (app["version"].as_u64(), app["published"].as_bool()),
        (Some(1), Some(true))
    );
    let (key, text) = ann.key("shop", true).await;
    publishes(&edge, "shop", &text, 201).await;

    // A key is shown once, and nowhere else.
    for path in [
        "/v1/apps/shop",
        "/v1/apps/shop/keys",
        "/v1/apps/shop/versions",
        "/v1/account/audit",
    ] {
        let told = ann.get(path).await.expect(200).to_string();
        assert!(!told.contains(&text), "{path}");
    }
    let keys = ann.get("/v1/apps/shop/keys").await.expect(200);
    assert_eq!(keys["items"][0]["id"], key);
    assert_eq!(keys["items"][0]["signs"], true);

    // Its tokens are verified by the node, until the key has been rotated away.
    let claims = json!({"sub": "u", "app": "shop"});
    let genuine = token(&claims, &text);
    let path = "/apps/shop/connection/websocket";
    let mut guest = enter(edge.addr, path, None, Some(&genuine)).await.guest();
    let rotate = format!("/v1/apps/shop/keys/{key}/rotate");
    let rotated = ann
        .call("POST", &rotate, &json!({"overlap_seconds": 600}))
        .await
        .expect(201);
    let new = rotated["key"].as_str().unwrap();
    publishes(&edge, "shop", new, 201).await;
    assert_eq!(publish(&edge, "shop", &text).await, 201);
    let gone = ann
        .call("DELETE", &format!("/v1/apps/shop/keys/{key}"), &Value::Null)
        .await;
    assert_eq!(gone.status, 204);
    publishes(&edge, "shop", &text, 401).await;
    assert_eq!(publish(&edge, "shop", new).await, 201);
    // Who came with the key that was revoked is closed.
    assert_eq!(guest.closed().await, 3500);
    assert!(matches!(
        enter(edge.addr, path, None, Some(&genuine)).await,
        Entered::Closed(_)
    ));

    // Deleted: served nowhere, and its id is never given again.
    let mut guest = enter(edge.addr, path, None, None).await.guest();
    assert_eq!(
        ann.call("DELETE", "/v1/apps/shop", &Value::Null).await.status,
        204
    );
    assert_eq!(guest.closed().await, 3503);
    assert_eq!(ann.get("/v1/apps/shop").await.status, 404);
    let again = json!({"id": "shop", "name": "Shop"});
    let again = ann.call("POST", &format!("/v1/teams/{team}/apps"), &again).await;
    assert_eq!(again.error(), (409, "app_exists"));

    let log = ann
        .get(&format!("/v1/teams/{team}/audit?order=oldest"))
        .await
        .expect(200);
    let actions = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap());
    assert_eq!(
        actions.collect::<Vec<_>>(),
        [
            "team.create",
            "app.create",
            "key.create",
            "key.rotate",
            "key.revoke",
            "app.delete"
        ]
    );
    edge.stop().await;
    console.stop().await;
}

/// Versions: who sees an old one does not write over a new one, and what was can be again.
#[tokio::test(flavor = "multi_thread")]
async fn changes_have_versions_that_can_be_gone_back_to() {
    let deployment = Deployment::start().await;
    let console = deployment.all().start().await;
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    let change = |settings: Value| json!({"settings": settings});
    let mut narrow = settings();
    narrow["namespaces"][0]["max_size"] = "1KiB".into();
    let changed = ann
        .call_with(
            "PATCH",
            "/v1/apps/shop",
            &[("If-Match", "\"1\"")],
            &change(narrow.clone()),
        )
        .await;
    assert_eq!(changed.header("etag"), Some("\"2\""));
    assert_eq!(changed.expect(200)["version"], 2);
    let stale = ann
        .call_with(
            "PATCH",
            "/v1/apps/shop",
            &[("If-Match", "\"1\"")],
            &change(settings()),
        )
        .await;
    assert_eq!(stale.error(), (412, "stale"));
    // Nobody knows a version that is not there yet.
    let early = ann
        .call_with(
            "PATCH",
            "/v1/apps/shop",
            &[("If-Match", "\"3\"")],
            &change(settings()),
        )
        .await;
    assert_eq!(early.error(), (412, "stale"));
    // Everything that is wrong is told, and nothing is changed.
    let wrong = json!({"flags": ["push"], "settings": {"limits": {"publish_rate": -1}, "namespaces": [{"name": "a", "history": "nosuch"}]}});
    let refused = ann.call("PATCH", "/v1/apps/shop", &wrong).await;
    assert_eq!(refused.error(), (422, "refused"));
    let reasons = refused.body["error"]["reasons"].as_array().unwrap();
    assert!(reasons.len() >= 2, "{reasons:?}");
    let now = ann.get("/v1/apps/shop").await;
    assert_eq!(now.header("etag"), Some("\"2\""));

    let versions = ann.get("/v1/apps/shop/versions?limit=1").await.expect(200);
    assert_eq!(versions["items"][0]["version"], 2);
    let path = &versions["items"][0]["changes"][0]["path"];
    assert_eq!(path, "settings.namespaces[].max_size");
    let next = versions["next"].as_str().unwrap();
    let older = ann
        .get(&format!("/v1/apps/shop/versions?limit=1&cursor={next}"))
        .await
        .expect(200);
    assert_eq!(
        (&older["items"][0]["version"], older.get("next")),
        (&json!(1), None)
    );
    let back = ann
        .call("POST", "/v1/apps/shop/versions/1/roll-back", &Value::Null)
        .await
        .expect(200);
    assert_eq!((&back["version"], &back["settings"]), (&json!(3), &settings()));
    assert_eq!(
        ann.get("/v1/apps/shop/versions/2").await.expect(200)["settings"],
        narrow
    );
    console.stop().await;
}

/// Plans are the operator's; owners choose among those that he offers.
#[tokio::test(flavor = "multi_thread")]
async fn plans_bind_apps() {
    let deployment = Deployment::start().await;
    let console = deployment.all().set("control.default_plan", "free").start().await;
    let operator = Caller::operator(console.addr);
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    let apps = format!("/v1/teams/{team}/apps");
    let free = json!({"quotas": {"peak_connections": 100, "messages_per_second": 10}});
    assert_eq!(
        ann.call("PUT", "/v1/plans/free", &free).await.error(),
        (403, "operator_only")
    );
    operator.call("PUT", "/v1/plans/free", &free).await.expect(201);
    let big = json!({"selectable": true, "about": "For shops.", "quotas": {"peak_connections": 1000}});
    operator.call("PUT", "/v1/plans/big", &big).await.expect(201);
    operator
        .call("PUT", "/v1/plans/secret", &json!({}))
        .await
        .expect(201);
    let seen = ann.get("/v1/plans").await.expect(200);
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
    assert_eq!(ann.get("/v1/plans/secret").await.status, 404);

    // Not within the plan that everybody has.
    let mut large = settings();
    large["limits"] = json!({"max_connections": 500, "publish_rate": 5});
    let refused = ann
        .call(
            "POST",
            &apps,
            &json!({"id": "shop", "name": "Shop", "settings": large}),
        )
        .await;
    assert_eq!(refused.error(), (422, "refused"));
    assert_eq!(
        refused.body["error"]["reasons"][0]["path"],
        "limits.max_connections"
    );
    let made = json!({"id": "shop", "name": "Shop", "plan": "big", "settings": large});
    let made = ann.call("POST", &apps, &made).await.expect(201);
    assert_eq!(made["plan"], "big");
    let quotas = ann.get("/v1/apps/shop/quotas").await.expect(200);
    assert_eq!(
        quotas,
        json!({"plan": "big", "quotas": {"peak_connections": 1000}})
    );
    for plan in [json!("secret"), json!("nosuch"), json!(null)] {
        let chosen = ann.call("PATCH", "/v1/apps/shop", &json!({"plan": plan})).await;
        assert_eq!(chosen.error(), (404, "not_found"), "{plan}");
    }
    assert_eq!(
        operator
            .call("DELETE", "/v1/plans/big", &Value::Null)
            .await
            .error(),
        (409, "plan_in_use")
    );
    assert_eq!(
        operator
            .call("DELETE", "/v1/plans/secret", &Value::Null)
            .await
            .status,
        204
    );

    // A changed plan is a new version of the app, which the nodes are told of.
    let stale = operator
        .call_with("PUT", "/v1/plans/big", &[("If-Match", "\"7\"")], &big)
        .await;
    assert_eq!(stale.error(), (412, "stale"));
    let bigger = json!({"selectable": true, "quotas": {"peak_connections": 2000}});
    operator
        .call_with("PUT", "/v1/plans/big", &[("If-Match", "\"1\"")], &bigger)
        .await
        .expect(200);
    holds("the node serves the app by the new plan", || {
        console.app_version("shop") == Some(2)
    })
    .await;
    console.stop().await;
}

/// What is made from schemas, such as code, needs a token that reads nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_read_with_a_permission_of_their_own() {
    let deployment = Deployment::start().await;
    let console = deployment.all().start().await;
    let ann = Caller::person(console.addr, "ann").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    assert_eq!(
        ann.get("/v1/apps/shop/schemas").await.expect(200),
        json!({"items": []})
    );
    let price = json!({"properties": {"price": {"type": "number"}}});
    let mut settings = settings();
    settings["namespaces"][0]["schemas"] =
        json!([{"version": 1, "schema": price}, {"version": 2, "schema": "true"}]);
    ann.call("PATCH", "/v1/apps/shop", &json!({"settings": settings}))
        .await
        .expect(200);

    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 + 600_000;
    let token = json!({"name": "t", "scopes": ["schemas.read"], "expires_ms": soon});
    let token = ann.call("POST", "/v1/account/tokens", &token).await.expect(201);
    let program = Caller::with(console.addr, token["token"].as_str().unwrap());
    let schemas = program.get("/v1/apps/shop/schemas").await.expect(200);
    let versions = json!([{"version": 1, "schema": price}, {"version": 2, "schema": true}]);
    assert_eq!(
        schemas["items"],
        json!([{"namespace": settings["namespaces"][0]["name"], "versions": versions}])
    );
    assert_eq!(program.get("/v1/apps/shop").await.error(), (403, "scope_missing"));
    console.stop().await;
}

/// Members come by invitation, and do what their role allows.
#[tokio::test(flavor = "multi_thread")]
async fn members_do_what_their_role_allows() {
    let deployment = Deployment::start().await;
    let letters = deployment.folder.path().join("mail");
    let console = deployment
        .all()
        .set("mail.transport", "file")
        .set("mail.from", "Slipstream <noreply@x.example>")
        .set("mail.folder", &letters.display().to_string())
        .start()
        .await;
    let ann = Caller::person(console.addr, "ann").await;
    let bob = Caller::person(console.addr, "bob").await;
    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    let invite = json!({"email": "bob@x.example", "role": "viewer"});
    ann.call("POST", &format!("/v1/teams/{team}/invitations"), &invite)
        .await
        .expect(201);
    let link = until("the letter is there", || async {
        let mut files = std::fs::read_dir(&letters).ok()?;
        let letter = std::fs::read_to_string(files.next()?.ok()?.path()).ok()?;
        // Letters are written with soft line breaks.
        let letter = letter.replace("=\r\n", "").replace("=3D", "=");
        let (_, rest) = letter.split_once("#token=")?;
        rest.split_whitespace().next().map(str::to_owned)
    })
    .await;
    assert_eq!(bob.get("/v1/apps/shop").await.status, 404);
    bob.call("POST", "/v1/invitations/accept", &json!({"token": link}))
        .await
        .expect(200);
    assert_eq!(bob.get("/v1/apps/shop").await.expect(200)["name"], "shop");
    let rename = json!({"name": "Store"});
    assert_eq!(
        bob.call("PATCH", "/v1/apps/shop", &rename).await.error(),
        (403, "forbidden")
    );
    let account = bob.get("/v1/account").await.expect(200)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let member = format!("/v1/teams/{team}/members/{account}");
    assert_eq!(
        ann.call("PATCH", &member, &json!({"role": "developer"}))
            .await
            .status,
        204
    );
    bob.call("PATCH", "/v1/apps/shop", &rename).await.expect(200);
    // Limits take more than settings do.
    let mut limited = settings();
    limited["limits"] = json!({"publish_rate": 5});
    let limits = bob
        .call("PATCH", "/v1/apps/shop", &json!({"settings": limited}))
        .await;
    assert_eq!(limits.error(), (403, "forbidden"));
    // A token does what its scopes say, where its owner may.
    let scopes = json!({"name": "ci", "scopes": ["apps.read"], "expires_ms": u64::MAX >> 12, "team": team});
    let refused = bob.call("POST", "/v1/account/tokens", &scopes).await;
    assert_eq!(refused.error(), (400, "invalid_input"));
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 + 60_000;
    let scopes = json!({"name": "ci", "scopes": ["apps.read"], "expires_ms": soon, "team": team});
    let token = bob.call("POST", "/v1/account/tokens", &scopes).await.expect(201);
    let program = Caller::with(console.addr, token["token"].as_str().unwrap());
    program.get("/v1/apps/shop").await.expect(200);
    assert_eq!(
        program.call("PATCH", "/v1/apps/shop", &rename).await.error(),
        (403, "scope_missing")
    );
    assert_eq!(
        program.get("/v1/account/sessions").await.error(),
        (403, "session_required")
    );
    assert_eq!(ann.call("DELETE", &member, &Value::Null).await.status, 204);
    assert_eq!(program.get("/v1/apps/shop").await.status, 404);
    let export = ann.get(&format!("/v1/teams/{team}/audit/export")).await;
    assert_eq!(export.status, 200);
    console.stop().await;
}

/// One account, and one address, may not ask without end.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_waits() {
    let deployment = Deployment::start().await;
    let console = deployment.all().set("control.account_rate", "3").start().await;
    let ann = Caller::person(console.addr, "ann").await;
    let bob = Caller::person(console.addr, "bob").await;
    let mut refused = 0;
    for _ in 0..10 {
        let answer = ann.get("/v1/account").await;
        if answer.status == 429 {
            assert_eq!(answer.error().1, "too_many_requests");
            assert!(answer.header("retry-after").is_some());
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(bob.get("/v1/account").await.status, 200);
    assert!(console.metric("slipstream_control_limited_total") >= f64::from(refused));
    console.stop().await;
}
