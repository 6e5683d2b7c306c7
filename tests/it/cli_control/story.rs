//! From signing in to going back.

use serde_json::json;

use super::{Server, cells, done, failed};
use crate::support::{
    holds,
    http::request_with,
    people::{PASSWORD, settings},
};

/// An account, a team, an app with versions and keys; tables for people and JSON for programs.
#[tokio::test(flavor = "multi_thread")]
async fn from_signing_in_to_going_back() {
    let server = Server::start().await;
    let ann = server.stranger("ann");
    let nobody = ann.fails(&["account", "show"]);
    assert_eq!(
        nobody,
        (
            1,
            format!("not signed in at {}: slipstream account login", ann.url)
        )
    );
    let wrong = ann.run_with(&["account", "login"], "ann@x.example\nwrong horse battery\n");
    assert_eq!(
        failed(&wrong),
        (
            1,
            "invalid_credentials: wrong e-mail address or password".to_owned()
        )
    );
    let login = ann.run_with(
        &["account", "login", "--email", "ann@x.example"],
        &format!("{PASSWORD}\n"),
    );
    assert_eq!(done(&login), format!("signed in at {}\n", ann.url));

    let account = ann.json(&["account", "show"]);
    assert_eq!(account["email"], "ann@x.example");
    let shown = ann.tells(&["account", "show"]);
    assert_eq!(cells(&shown)[1], ["email", "ann@x.example"]);
    assert_eq!(ann.json(&["account", "rename", "Ann"])["name"], "Ann");

    let team = ann.shop();
    let teams = ann.tells(&["team", "list"]);
    let teams = cells(&teams);
    assert_eq!(teams[0], ["id", "name", "role", "members", "made"]);
    assert_eq!(teams[1][..4], [&team, "Shop", "owner", "1"]);
    assert_eq!(teams[1][4].len(), "2026-11-29 15:04".len());
    assert_eq!(ann.json(&["team", "list"])["items"][0]["id"], team.as_str());
    let apps = ann.tells(&["app", "list", "--team", &team]);
    assert_eq!(cells(&apps)[1][..6], ["shop", "Shop", "-", "-", "-", "1"]);

    // What was used is asked for in the server's own terms; other steps are refused by it.
    let usage = [
        "usage",
        "shop",
        "--from",
        "7d",
        "--step",
        "day",
        "--group",
        "namespace",
    ];
    assert_eq!(ann.json(&usage)["items"], json!([]));
    assert_eq!(ann.tells(&usage), "nothing was used\n");
    let csv = ann.tells(&[&usage[..], &["--csv"]].concat());
    assert!(csv.starts_with("start,"), "{csv}");
    assert_eq!(ann.fails(&["usage", "shop", "--step", "year"]).0, 1);

    // Changed twice; what changed is told, and can be taken back.
    let edit = |set: &[&str]| {
        let set = set.iter().flat_map(|set| ["--set", set]);
        let args: Vec<_> = ["app", "edit", "shop"].into_iter().chain(set).collect();
        ann.run(&args)
    };
    done(&edit(&["name=Store", "settings.limits.publish_rate=5"]));
    done(&edit(&["settings.limits.publish_rate=6"]));
    assert_eq!(done(&edit(&["name=Store"])), "nothing was changed\n");
    let diff = ann.tells(&["app", "diff", "shop", "3"]);
    assert_eq!(cells(&diff)[0], ["path", "old", "new"]);
    assert_eq!(cells(&diff)[1], ["settings.limits.publish_rate", "5", "6"]);
    assert_eq!(ann.tells(&["app", "diff", "shop"]), diff);
    let versions = ann.tells(&["app", "versions", "shop"]);
    let numbers: Vec<_> = cells(&versions).iter().map(|line| line[0].to_owned()).collect();
    assert_eq!(numbers, ["version", "3", "2", "1"]);
    let stale = ann.fails(&["app", "roll-back", "shop", "1", "--if-version", "2"]);
    assert!(stale.0 == 1 && stale.1.starts_with("stale: "), "{stale:?}");
    let back = ann.json(&["app", "roll-back", "shop", "1"]);
    assert_eq!((&back["version"], &back["settings"]), (&json!(4), &settings()));

    // Every reason has a line, and nothing was changed.
    let (code, refused) = failed(&edit(&[
        "settings.namespaces.0.history=nosuch",
        "settings.limits.publish_rate=-1",
    ]));
    assert_eq!(code, 1);
    let lines: Vec<_> = refused.lines().collect();
    assert!(lines.len() >= 3 && lines[0].starts_with("refused: "), "{refused}");
    assert!(lines[1..].iter().all(|line| line.starts_with("  ")), "{refused}");
    assert_eq!(ann.json(&["app", "show", "shop"])["version"], 4);

    assert_eq!(ann.fails(&["app", "delete", "shop"]).0, 64);
    ann.tells(&["app", "delete", "shop", "--yes"]);
    assert_eq!(
        ann.fails(&["app", "show", "shop"]),
        (1, "not_found: no such app".to_owned())
    );
    assert_eq!(ann.fails(&["team", "delete", &team]).0, 64);
    ann.tells(&["team", "delete", &team, "--yes"]);
    assert_eq!(ann.json(&["team", "list"])["items"], json!([]));
    server.node.stop().await;
}

/// What was read before another has changed it is not written over that.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_edit_is_refused() {
    let server = Server::start().await;
    let ann = server.person("ann");
    ann.shop();
    let mut seen = ann.json(&["app", "show", "shop"]);
    ann.tells(&["app", "edit", "shop", "--set", "region=eu"]);
    seen["name"] = "Store".into();
    let file = ann.file("app.json", &seen);
    let stale = ann.fails(&["app", "edit", "shop", "--file", &file]);
    assert!(stale.0 == 1 && stale.1.starts_with("stale: "), "{stale:?}");
    // As it is now it may be written, also from standard input.
    let mut seen = ann.json(&["app", "show", "shop"]);
    seen["name"] = "Store".into();
    let edit = ["app", "edit", "shop", "--file", "-", "--json"];
    let edited = done(&ann.run_with(&edit, &seen.to_string()));
    let edited: serde_json::Value = serde_json::from_str(&edited).unwrap();
    assert_eq!(
        (&edited["name"], &edited["region"]),
        (&json!("Store"), &json!("eu"))
    );
    let narrow = ann.file("narrow.json", &json!({"anonymous": false}));
    let edited = ann.json(&["app", "edit", "shop", "--settings", &narrow]);
    assert_eq!(edited["settings"]["anonymous"], false);
    assert_eq!(ann.fails(&["app", "edit", "shop"]).0, 64);
    server.node.stop().await;
}

/// Keys are shown once, replaced and ended.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_shown_once() {
    let server = Server::start().await;
    let ann = server.person("ann");
    ann.shop();
    let made = ann.tells(&["key", "create", "shop", "backend", "--signs"]);
    let made = cells(&made);
    assert_eq!((made[1][1], made[2][1]), ("backend", "yes"));
    let (id, text) = (made[0][1], made[3][1]);
    let published = async |key: &str| {
        let path = "/v1/channels/x/publications?app=shop";
        let answer = request_with(server.node.addr, "POST", path, key, r#"{"data": 1}"#).await;
        answer.unwrap().status
    };
    holds("the node serves the app", || {
        server.node.app_version("shop") == Some(2)
    })
    .await;
    assert_eq!(published(text).await, 201);
    for args in [&["key", "list", "shop"][..], &["key", "list", "shop", "--json"]] {
        let told = ann.tells(args);
        assert!(told.contains(id) && !told.contains(text), "{told}");
    }
    let rotated = ann.json(&["key", "rotate", "shop", id, "--overlap", "1h"]);
    let new = rotated["id"].as_str().unwrap();
    assert_eq!(rotated["signs"], true);
    let until = |id: &str| {
        let keys = ann.json(&["key", "list", "shop"]);
        let keys = keys["items"].as_array().unwrap().clone();
        let key = keys.iter().find(|key| key["id"] == id).cloned();
        key.map(|key| key["until"].as_i64())
    };
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    assert!(until(id).unwrap().unwrap() > now + 3000);
    ann.tells(&["key", "end", "shop", new, "--at", "2100-01-01T00:00:00Z"]);
    assert_eq!(until(new), Some(Some(4_102_444_800)));
    let keys = ann.tells(&["key", "list", "shop"]);
    assert!(keys.contains("2100-01-01 00:00"), "{keys}");
    ann.tells(&["key", "revoke", "shop", id]);
    assert_eq!(until(id), None);
    server.node.stop().await;
}

/// Plans are the operator's; teams choose among them, and are told what they allow.
#[tokio::test(flavor = "multi_thread")]
async fn plans_are_set_by_the_operator() {
    let server = Server::start().await;
    let operator = server.operator();
    let ann = server.person("ann");
    let set = ["plan", "set", "big", "--quota", "peak_connections=1000"];
    assert_eq!(ann.fails(&set).0, 1);
    operator.tells(
        &[
            &set[..],
            &["--quota", "channels=5", "--selectable", "--about", "Big."],
        ]
        .concat(),
    );
    // What is not named stays.
    let plan = operator.json(&["plan", "set", "big", "--quota", "channels=none"]);
    assert_eq!(
        (&plan["about"], &plan["selectable"], &plan["quotas"]),
        (&json!("Big."), &json!(true), &json!({"peak_connections": 1000}))
    );
    let plans = ann.tells(&["plan", "list"]);
    assert_eq!(cells(&plans)[1][..2], ["big", "yes"]);
    assert!(
        ann.tells(&["plan", "show", "big"])
            .contains("peak_connections  1000")
    );
    ann.shop();
    assert_eq!(ann.tells(&["app", "quotas", "shop"]), "plan  -\nno limits\n");
    ann.tells(&[
        "app",
        "edit",
        "shop",
        "--set",
        "plan=big",
        "--set",
        "settings.limits.max_connections=10",
    ]);
    assert_eq!(
        ann.tells(&["app", "quotas", "shop"]),
        "plan  big\npeak_connections  1000\n"
    );
    let used = operator.fails(&["plan", "delete", "big"]);
    assert!(used.0 == 1 && used.1.starts_with("plan_in_use: "), "{used:?}");
    operator.tells(&["plan", "set", "small"]);
    operator.tells(&["plan", "delete", "small"]);
    server.node.stop().await;
}

/// Members come by invitation, and what they do is written down.
#[tokio::test(flavor = "multi_thread")]
async fn members_and_what_they_have_done() {
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("mail");
    let server = Server::start_with(|builder| {
        builder
            .set("mail.transport", "file")
            .set("mail.from", "Slipstream <noreply@x.example>")
            .set("mail.folder", &letters.display().to_string())
    })
    .await;
    let (ann, bob) = (server.person("ann"), server.person("bob"));
    let team = ann.shop();
    ann.tells(&["team", "invite", &team, "carl@x.example", "--role", "viewer"]);
    let open = ann.json(&["team", "invitations", &team]);
    ann.tells(&[
        "team",
        "withdraw",
        &team,
        open["items"][0]["id"].as_str().unwrap(),
    ]);
    let link = server.invite(&ann, &team, "bob@x.example", &letters).await;
    done(&bob.run_with(&["team", "accept"], &format!("{link}\n")));
    let account = bob.json(&["account", "show"])["id"].as_str().unwrap().to_owned();
    assert_eq!(bob.fails(&["app", "edit", "shop", "--set", "name=x"]).0, 1);
    ann.tells(&["team", "members", "set-role", &team, &account, "developer"]);
    bob.tells(&["app", "edit", "shop", "--set", "name=x"]);
    let members = ann.tells(&["team", "members", "list", &team]);
    assert_eq!(cells(&members)[2][1..4], ["bob", "bob@x.example", "developer"]);

    let create = [
        "account",
        "tokens",
        "create",
        "ci",
        "--scope",
        "apps.read",
        "--expires",
        "1d",
    ];
    let token = bob.json(&[&create[..], &["--team", &team]].concat());
    let program = super::Person {
        token: Some(token["token"].as_str().unwrap().to_owned()),
        ..super::Person::at(server.node.addr)
    };
    program.tells(&["app", "show", "shop"]);
    let scope = program.fails(&["key", "create", "shop", "x"]);
    assert!(
        scope.0 == 1 && scope.1.starts_with("scope_missing: "),
        "{scope:?}"
    );
    let listed = ann.tells(&["team", "tokens", "list", &team]);
    assert!(!listed.contains(token["token"].as_str().unwrap()), "{listed}");
    ann.tells(&["team", "tokens", "revoke", &team, token["id"].as_str().unwrap()]);
    assert_eq!(program.fails(&["app", "show", "shop"]).0, 1);

    let log = ann.tells(&["team", "audit", &team, "--oldest", "--limit", "2"]);
    let log = cells(&log);
    assert_eq!(log[0], ["time", "who", "as", "did", "to", "from", "changed"]);
    assert_eq!(
        (log.len(), log[1][3], log[2][3]),
        (3, "team.create", "app.create")
    );
    let file = folder.path().join("log.ndjson").display().to_string();
    let export = ["team", "audit", &team, "--export", &file];
    ann.tells(&export);
    let lines = std::fs::read_to_string(&file).unwrap();
    let entries: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        entries.iter().any(|entry| entry["action"] == "token.revoke"),
        "{lines}"
    );
    // An older export is not written over.
    assert_eq!(ann.fails(&export).0, 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    let own = bob.json(&["account", "audit", "--from", "1h"]);
    assert!(
        own["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| entry["actor"] == account.as_str())
    );

    ann.tells(&["team", "transfer", &team, &account]);
    ann.tells(&["team", "leave", &team]);
    assert_eq!(ann.fails(&["team", "show", &team]).0, 1);
    assert_eq!(bob.json(&["team", "rename", &team, "Bob's"])["role"], "owner");
    server.node.stop().await;
}

impl Server {
    /// Invites, and reads the letter; what its link holds.
    async fn invite(
        &self,
        who: &super::Person,
        team: &str,
        email: &str,
        letters: &std::path::Path,
    ) -> String {
        who.tells(&["team", "invite", team, email, "--role", "viewer"]);
        crate::support::until("the letter is there", || async {
            let files = std::fs::read_dir(letters).ok()?;
            let letters = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
            // Letters are written with soft line breaks.
            let mut letters = letters.map(|letter| letter.replace("=\r\n", "").replace("=3D", "="));
            let letter = letters.find(|letter| letter.contains(email))?;
            let (_, rest) = letter.split_once("#token=")?;
            rest.split_whitespace().next().map(str::to_owned)
        })
        .await
    }
}
