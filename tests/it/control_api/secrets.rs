//! Nothing secret is ever logged, at whatever level.

use serde_json::{Value, json};
use slipstream::app::Roles;

use super::Deployment;
use crate::{
    doors::{enter, token},
    support::{
        http::request_with,
        logs::secret_in,
        people::{Caller, PASSWORD},
        until,
    },
};

const PLANTED: [&str; 5] = [
    "planted-payload-of-a-publication",
    "planted wrong password",
    "planted-wrong-api-key",
    "planted-body-that-is-no-json",
    "planted-idempotency-key",
];

/// The real binary logs everything it can (JSON, `trace`) while people and programs do what they do, right and
/// wrong. What it was told, and what it has made, is in none of it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged_by_a_process_that_logs_everything() {
    let deployment = Deployment::start().await;
    let letters = deployment.folder.path().join("mail");
    let node = deployment
        .all()
        .roles(Roles::ALL)
        .set("telemetry.filter", "trace")
        .set("telemetry.json", "true")
        .set("control.sign_up", "open")
        .set("mail.transport", "file")
        .set("mail.from", "Slipstream <noreply@x.example>")
        .set("mail.folder", &letters.display().to_string())
        .spawn()
        .await;
    let mut made = Vec::new();
    let mut keep = |value: &Value| made.push(value.as_str().unwrap().to_owned());

    let ann = Caller::person(node.addr, "ann").await;
    let nobody = Caller::with(node.addr, "");
    let login = |password: &str| json!({"email": "ann@x.example", "password": password});
    let session = nobody
        .call("POST", "/v1/auth/login", &login(PASSWORD))
        .await
        .expect(200);
    keep(&session["access_token"]);
    keep(&session["refresh_token"]);
    let refresh = json!({"refresh_token": session["refresh_token"]});
    let refreshed = nobody
        .call("POST", "/v1/auth/refresh", &refresh)
        .await
        .expect(200);
    keep(&refreshed["refresh_token"]);
    assert_eq!(
        nobody
            .call("POST", "/v1/auth/login", &login(PLANTED[1]))
            .await
            .status,
        401
    );
    let password = json!({"password": PASSWORD});
    let seed = ann.call("POST", "/v1/account/second-factor", &password);
    keep(&seed.await.expect(200)["seed"]);
    nobody
        .call(
            "POST",
            "/v1/auth/reset/request",
            &json!({"email": "ann@x.example"}),
        )
        .await;
    let link = until("the letter is there", || async {
        let mut files = std::fs::read_dir(&letters).ok()?;
        let letter = std::fs::read_to_string(files.next()?.ok()?.path()).ok()?;
        let letter = letter.replace("=\r\n", "").replace("=3D", "=");
        let (_, rest) = letter.split_once("#token=")?;
        rest.split_whitespace().next().map(str::to_owned)
    })
    .await;
    keep(&json!(link));

    let team = ann.team("Shop").await;
    ann.app(&team, "shop").await;
    let key = json!({"name": "backend", "signs": true});
    let headers = [("Idempotency-Key", PLANTED[4])];
    let key = ann
        .call_with("POST", "/v1/apps/shop/keys", &headers, &key)
        .await
        .expect(201);
    keep(&key["key"]);
    let soon = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap() + 60_000;
    let personal = json!({"name": "ci", "scopes": ["apps.read"], "expires_ms": soon});
    let personal = ann
        .call("POST", "/v1/account/tokens", &personal)
        .await
        .expect(201);
    keep(&personal["token"]);
    Caller::with(node.addr, personal["token"].as_str().unwrap())
        .get("/v1/apps/shop")
        .await
        .expect(200);

    let text = key["key"].as_str().unwrap();
    let path = "/v1/channels/x/publications?app=shop";
    let body = json!({"data": PLANTED[0], "tags": {"a": PLANTED[0]}}).to_string();
    until("the publication is taken", || async {
        let answer = request_with(node.addr, "POST", path, text, &body).await?;
        (answer.status == 201).then_some(())
    })
    .await;
    for (key, body) in [
        (PLANTED[2], body.as_str()),
        (text, PLANTED[3]),
        (text, "{\"data\":"),
    ] {
        let refused = request_with(node.addr, "POST", path, key, body).await.unwrap();
        assert!(matches!(refused.status, 400 | 401), "{refused:?}");
    }
    let genuine = token(&json!({"sub": "u", "app": "shop"}), text);
    let socket = "/apps/shop/connection/websocket";
    let mut guest = enter(node.addr, socket, None, Some(&genuine)).await.guest();
    guest.subscribe(json!({"channel": "x"})).await.unwrap();
    guest
        .command(json!({"publish": {"channel": "x", "data": PLANTED[0]}}))
        .await
        .unwrap();
    guest
        .command(json!({"history": {"channel": "x", "limit": 5}}))
        .await
        .unwrap();
    let forged = token(
        &json!({"sub": "u", "app": "shop"}),
        "another secret of 32 bytes, at least",
    );
    let _ = enter(node.addr, socket, None, Some(&forged)).await;
    made.extend([genuine, forged]);

    let logged = until("the log is there", || async {
        let logged = node.output();
        logged.contains("migrated").then_some(logged)
    })
    .await;
    for line in logged.lines() {
        assert_eq!(secret_in(line), None, "{line}");
        for secret in made.iter().map(String::as_str).chain(PLANTED) {
            assert!(!line.contains(secret), "{secret}: {line}");
        }
    }
}
