use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Secret, Sources},
    control::OPERATOR,
    log::memory::{ClassSpec, MemoryLog},
    model::{ClassName, Quotas},
    store,
    task::Tasks,
};

struct Setting {
    apps: Arc<Apps>,
    store: Arc<dyn Store>,
    log: Arc<MemoryLog>,
    _dir: TempDir,
}

async fn setting() -> Setting {
    let dir = TempDir::new().unwrap();
    let url = format!("sqlite:{}", dir.path().join("store").display());
    let file = "[[apps]]\nid = \"fixed\"\n[tenants]\nmax_apps = 2\nmax_deleted_apps = 3\nmax_past_namespaces = 3\nmax_keys = 2\nsealing_keys = [\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"]\n";
    let sources = Sources {
        file: Some(("s.toml".into(), file.to_owned())),
        overrides: vec![("store.url".to_owned(), url)],
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    let store = store::open(&config.store, &Tasks::default()).await.unwrap();
    let class = ClassName::new("std").unwrap();
    let log = Arc::new(MemoryLog::new(vec![ClassSpec::new(class, 1)]));
    let sealing = Arc::new(Sealing::new(&config.tenants.sealing_keys).unwrap());
    let time = AtomicI64::new(1_000);
    let clock = Clock::new(move || time.fetch_add(1, Ordering::Relaxed));
    Setting {
        apps: Arc::new(Apps::new(store.clone(), log.clone(), &config, sealing, clock)),
        store,
        log,
        _dir: dir,
    }
}

fn id(text: &str) -> AppId {
    AppId::new(text).unwrap()
}

fn settings() -> Value {
    json!({"anonymous": true, "namespaces": [{"name": "chat", "history": "std", "subscribe": "anyone"}]})
}

fn new(team: &str) -> NewApp {
    NewApp {
        team: team.to_owned(),
        name: "Shop".to_owned(),
        region: "eu".to_owned(),
        plan: None,
        flags: Vec::new(),
        settings: settings(),
    }
}

impl Setting {
    /// What the nodes are told.
    async fn record(&self, app: &str) -> Option<AppRecord> {
        let entry = self.log.bucket(BucketName::Apps).get(app).await.unwrap();
        entry.value.map(|json| AppRecord::parse(&json).unwrap())
    }

    async fn created(&self, app: &str) -> AppDocument {
        let settled = self.apps.create(&id(app), new("t"), "ann").await.unwrap();
        assert!(settled.published);
        settled.app
    }

    async fn set(&self, app: &str, settings: Value) -> Result<Settled, AppsError> {
        self.apps
            .edit(&id(app), Edit::Settings(settings), None, "bob")
            .await
    }
}

fn paths<T: std::fmt::Debug>(result: Result<T, AppsError>) -> Vec<String> {
    match result.unwrap_err() {
        AppsError::Refused(reasons) => reasons.into_iter().map(|reason| reason.path).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_app_is_made_changed_and_taken_back() {
    let setting = setting().await;
    let made = setting.created("shop").await;
    assert_eq!((made.version, made.author.as_str()), (1, "ann"));
    assert_eq!(setting.record("shop").await.unwrap().settings, settings());

    let mut changed = settings();
    changed["limits"] = json!({"publish_rate": 5});
    let settled = setting.set("shop", changed.clone()).await.unwrap();
    assert_eq!((settled.app.version, settled.app.author.as_str()), (2, "bob"));
    assert_eq!(settled.app.changes[0].path, "settings.limits.publish_rate");
    assert_eq!(setting.record("shop").await.unwrap().version, 2);
    let same = setting.set("shop", changed.clone()).await.unwrap();
    assert_eq!(same.app.version, 2, "nothing has changed");

    // Who has not seen it changes nothing.
    let stale = setting
        .apps
        .edit(&id("shop"), Edit::Flags(vec![]), Some(1), "eve")
        .await;
    assert_eq!(stale, Err(AppsError::Stale(2)));
    let back = setting
        .apps
        .roll_back(&id("shop"), 1, Some(2), "ann")
        .await
        .unwrap();
    assert_eq!((back.app.version, &back.app.settings), (3, &settings()));
    let versions = setting.apps.versions(&id("shop"), None, 10).await.unwrap();
    let all: Vec<_> = versions
        .iter()
        .map(|it| (it.version, it.author.as_str()))
        .collect();
    assert_eq!(all, [(3, "ann"), (2, "bob"), (1, "ann")]);
    let page = setting.apps.versions(&id("shop"), Some(3), 1).await.unwrap();
    assert_eq!((page.len(), page[0].version), (1, 2));
    assert_eq!(
        setting.apps.version(&id("shop"), 2).await.unwrap().settings,
        changed
    );
    for missing in [0, 4] {
        let none = setting.apps.roll_back(&id("shop"), missing, None, "ann").await;
        assert_eq!(none, Err(AppsError::NotFound("version")));
    }
}

#[tokio::test]
async fn a_change_is_refused_with_every_reason() {
    let setting = setting().await;
    setting.created("shop").await;
    let bad = json!({
        "anonymous": 1,
        "limits": {"publish_burst": 5},
        "namespaces": [{"name": "chat", "subscribe": "anyone", "history": "nosuch"}],
    });
    assert_eq!(
        paths(setting.set("shop", bad).await),
        [
            "settings.anonymous",
            "settings.limits.publish_burst",
            "settings.namespaces[0].history"
        ]
    );
    // A namespace that was claimed with a class keeps it, also if it was away meanwhile.
    let mut ephemeral = settings();
    ephemeral["namespaces"][0]["history"] = json!("none");
    assert_eq!(
        paths(setting.set("shop", ephemeral.clone()).await),
        ["settings.namespaces[chat].history"]
    );
    setting.set("shop", json!({"anonymous": true})).await.unwrap();
    assert_eq!(paths(setting.set("shop", ephemeral).await).len(), 1);
    let nameless = Edit::Details {
        name: Some(String::new()),
        region: Some("a\nb".to_owned()),
    };
    let refused = setting.apps.edit(&id("shop"), nameless, None, "ann").await;
    assert_eq!(paths(refused), ["name", "region"]);
    assert_eq!(setting.apps.get(&id("shop")).await.unwrap().version, 2);
    assert_eq!(setting.record("shop").await.unwrap().version, 2);
}

#[tokio::test]
async fn a_plan_bounds_an_app() {
    let setting = setting().await;
    setting.created("shop").await;
    let draft = Draft {
        unique: None,
        keys: Vec::new(),
        expires_ms: None,
        body: json!({"quotas": {"messages_per_second": 10, "devices": 5, "message_bytes": 1048576}}),
    };
    setting
        .store
        .insert(Collection::Plans, "small", draft)
        .await
        .unwrap();
    let plan = |name: &str| Edit::Plan(Some(name.to_owned()));
    assert!(
        setting
            .set("shop", {
                let mut all = settings();
                all["limits"] = json!({"publish_rate": 5});
                all
            })
            .await
            .is_ok()
    );
    let edit = async |edit| setting.apps.edit(&id("shop"), edit, None, "ann").await;
    assert_eq!(edit(plan("nosuch")).await, Err(AppsError::NotFound("plan")));
    assert_eq!(
        paths(edit(Edit::Flags(vec!["push".to_owned()])).await),
        ["flags[0]"]
    );
    edit(plan("small")).await.unwrap();
    edit(Edit::Flags(vec!["push".to_owned()])).await.unwrap();
    assert_eq!(
        paths(edit(Edit::Plan(None)).await),
        ["flags[0]"],
        "it needs the plan"
    );
    let mut fast = settings();
    fast["limits"] = json!({"publish_rate": 11});
    assert_eq!(
        paths(setting.set("shop", fast.clone()).await),
        ["limits.publish_rate"]
    );
    fast["limits"]["publish_rate"] = json!(10);
    setting.set("shop", fast).await.unwrap();
    let quotas = setting.record("shop").await.unwrap().quotas;
    assert_eq!((quotas.messages_per_second, quotas.channels), (Some(10), None));
}

#[tokio::test]
async fn a_key_is_shown_once_and_stored_hashed_and_sealed() {
    let setting = setting().await;
    setting.created("shop").await;
    let signing = setting
        .apps
        .create_key(&id("shop"), "tokens", true, "ann")
        .await
        .unwrap();
    let plain = setting
        .apps
        .create_key(&id("shop"), "rest", false, "ann")
        .await
        .unwrap();
    let text = signing.text.expose();
    assert!(text.starts_with("sls_") && text.len() >= 32 && text != plain.text.expose());
    let stored = setting
        .store
        .get(Collection::Apps, "shop")
        .await
        .unwrap()
        .unwrap();
    for stored in [
        stored.body,
        serde_json::to_value(setting.record("shop").await).unwrap(),
    ] {
        let stored = stored.to_string();
        assert!(
            !stored.contains(text) && !stored.contains(plain.text.expose()),
            "{stored}"
        );
    }
    // A node opens it.
    let record = setting.record("shop").await.unwrap();
    let sealing = setting.apps.sealing.clone();
    let open: crate::apps::Opener = Box::new(move |app, key, sealed| {
        let opened = sealing.open(&key_purpose(app, key), sealed).ok()?;
        String::from_utf8(opened).ok().map(Secret::new)
    });
    let (_, credentials) = record.read(&id("shop"), &setting.apps.node, &open).unwrap();
    assert_eq!(credentials.signing_keys.len(), 1);
    assert_eq!(credentials.signing_keys[0].secret.expose(), text);
    let presented = crate::auth::PresentedKey::new(plain.text.expose());
    assert!(credentials.api_keys.accept(&presented));

    let more = setting.apps.create_key(&id("shop"), "third", false, "ann").await;
    assert_eq!(more.unwrap_err(), AppsError::LimitReached("keys"));
    let shop = id("shop");
    let revoke = |key: &str| {
        setting
            .apps
            .edit(&shop, Edit::RevokeKey(key.to_owned()), None, "ann")
    };
    assert_eq!(revoke("nosuch").await, Err(AppsError::NotFound("key")));
    assert_eq!(revoke(&plain.id).await.unwrap().app.keys.len(), 1);
    let presented_again = setting
        .record("shop")
        .await
        .unwrap()
        .read(&id("shop"), &setting.apps.node, &open);
    assert!(!presented_again.unwrap().1.api_keys.accept(&presented));
}

#[tokio::test]
async fn ids_are_taken_once_and_teams_have_so_many() {
    let setting = setting().await;
    let create = async |app: &str, team: &str| setting.apps.create(&id(app), new(team), "ann").await;
    assert_eq!(create("fixed", "t").await, Err(AppsError::Exists), "of the file");
    create("a", "t").await.unwrap();
    assert_eq!(create("a", "u").await, Err(AppsError::Exists));
    create("b", "t").await.unwrap();
    assert_eq!(create("c", "t").await, Err(AppsError::LimitReached("apps")));
    create("c", "u").await.unwrap();
    let ids = |apps: Vec<(AppId, AppDocument)>| -> Vec<String> {
        apps.into_iter().map(|(id, _)| id.to_string()).collect()
    };
    assert_eq!(ids(setting.apps.list("t", None, 10).await.unwrap()), ["a", "b"]);
    assert_eq!(
        ids(setting.apps.list("t", Some(&id("a")), 10).await.unwrap()),
        ["b"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_once_all_count_or_say_that_they_do_not() {
    let setting = setting().await;
    setting.created("shop").await;
    let mut edits = tokio::task::JoinSet::new();
    for rate in 1..=6 {
        let apps = setting.apps.clone();
        let mut changed = settings();
        changed["limits"] = json!({"publish_rate": rate});
        edits.spawn(async move { apps.edit(&id("shop"), Edit::Settings(changed), None, "x").await });
    }
    let done = edits.join_all().await;
    let mut versions: Vec<_> = done.iter().flatten().map(|settled| settled.app.version).collect();
    versions.sort_unstable();
    let count = u64::try_from(versions.len()).unwrap();
    assert!(
        count > 0 && versions == (2..2 + count).collect::<Vec<_>>(),
        "{versions:?}"
    );
    assert!(
        done.iter()
            .all(|it| it.is_ok() || *it == Err(AppsError::Conflict))
    );
    // Each of them can be gone back to, and the nodes have the last.
    for version in 1..=count {
        setting.apps.version(&id("shop"), version).await.unwrap();
    }
    assert_eq!(setting.record("shop").await.unwrap().version, count + 1);
}

#[tokio::test]
async fn what_apps_leave_behind_is_bounded() {
    let setting = setting().await;
    for app in ["one", "two", "three"] {
        setting.created(app).await;
        // Whoever deletes it, it was hers.
        setting
            .apps
            .edit(&id(app), Edit::Delete, None, "bob")
            .await
            .unwrap();
    }
    let made =
        async |app: &str, author: &str| setting.apps.create(&id(app), new("t"), author).await.map(|_| ());
    let reached = Err(AppsError::LimitReached("apps after those that were deleted"));
    assert_eq!(made("four", "ann").await, reached);
    assert_eq!(made("four", "bob").await, Ok(()));
    assert_eq!(made("five", OPERATOR).await, Ok(()));

    let named = |name: &str| {
        let mut settings = settings();
        settings["namespaces"][0]["name"] = json!(name);
        setting.set("four", settings)
    };
    named("b").await.unwrap();
    named("c").await.unwrap();
    assert_eq!(paths(named("d").await), ["settings.namespaces"]);
    named("chat").await.unwrap();
}

#[tokio::test]
async fn a_deleted_app_is_gone_and_its_id_is_given_to_nobody() {
    let setting = setting().await;
    let old = setting.created("shop").await;
    let shop = id("shop");
    setting.apps.create_key(&shop, "k", true, "ann").await.unwrap();
    let deleted = setting.apps.edit(&shop, Edit::Delete, None, "ann").await.unwrap();
    assert!(deleted.published && setting.record("shop").await.is_none());
    let gone = Err(AppsError::NotFound("app"));
    assert_eq!(setting.apps.get(&shop).await, gone);
    assert_eq!(
        setting.set("shop", settings()).await,
        Err(AppsError::NotFound("app"))
    );
    assert!(setting.apps.versions(&shop, None, 10).await.is_err());
    assert_eq!(setting.apps.list("t", None, 10).await.unwrap(), []);
    // Of another team it would have the history and the versions.
    let again = setting.apps.create(&shop, new("u"), "eve").await;
    assert_eq!(again, Err(AppsError::Exists));
    let kept = setting
        .store
        .get(Collection::Apps, "shop")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.keys, ["deleted:ann"]);
    assert_eq!(
        (&kept.body["keys"], &kept.body["settings"]),
        (&json!([]), &Value::Null)
    );
    let versions = async || {
        let query = Query {
            limit: 10,
            ..Query::default()
        };
        setting
            .store
            .list(Collection::AppVersions, query)
            .await
            .unwrap()
            .len()
    };
    assert_eq!(versions().await, 0);
    // Of one who was just changing it.
    setting.apps.keep_version(&shop, &old).await.unwrap();
    assert_eq!((setting.apps.reconcile().await, versions().await), (Ok(0), 0));
    // One that had read it before publishes it late: nobody else would take it away again.
    setting.apps.publish(&shop, &old).await.unwrap();
    assert!(setting.record("shop").await.is_none());
    // One that has not looked since is noticed too.
    let bucket = setting.log.bucket(BucketName::Apps);
    let revision = bucket.get("shop").await.unwrap().revision;
    let late = serde_json::to_vec(&old.record(Quotas::default())).unwrap();
    bucket.set("shop", late.into(), revision, None).await.unwrap();
    assert_eq!(setting.apps.reconcile().await, Ok(1));
    assert!(setting.record("shop").await.is_none());
    assert_eq!(setting.apps.reconcile().await, Ok(0));
}

#[tokio::test]
async fn a_key_can_be_revoked_whatever_else_is_wrong_by_now() {
    let setting = setting().await;
    setting.created("shop").await;
    let shop = id("shop");
    let key = setting.apps.create_key(&shop, "k", true, "ann").await.unwrap();
    let mut closed = json!({"auth": {}, "namespaces": [{"name": "c", "subscribe": "token"}]});
    setting.set("shop", closed.clone()).await.unwrap();
    // Without its only key it has nothing to verify tokens with, which is what is wanted.
    let revoked = setting
        .apps
        .edit(&shop, Edit::RevokeKey(key.id), None, "ann")
        .await
        .unwrap();
    assert!(revoked.published && setting.record("shop").await.unwrap().keys.is_empty());
    closed["anonymous"] = json!(true);
    assert!(
        !paths(setting.set("shop", closed).await).is_empty(),
        "settings are checked as ever"
    );
}

#[tokio::test]
async fn what_was_stored_and_not_published_is_published_later() {
    let setting = setting().await;
    let app = setting.created("shop").await;
    setting.created("gone").await;
    assert_eq!(setting.apps.reconcile().await, Ok(0));
    // As after a crash between the two.
    let write = async |id: &str, app: &AppDocument| {
        let revision = setting
            .store
            .get(Collection::Apps, id)
            .await
            .unwrap()
            .unwrap()
            .revision;
        let draft = draft(app).unwrap();
        let written = setting.store.replace(Collection::Apps, id, revision, draft).await;
        assert_eq!(written, Ok(Written::Done));
    };
    let mut newer = app.clone();
    newer.version = 5;
    write("shop", &newer).await;
    let mut deleted = app.clone();
    deleted.version += 1;
    deleted.deleted = true;
    write("gone", &deleted).await;
    // One that cannot be read keeps nobody behind it from that.
    let unreadable = Draft {
        unique: None,
        keys: Vec::new(),
        expires_ms: None,
        body: json!({}),
    };
    setting
        .store
        .insert(Collection::Apps, "a", unreadable)
        .await
        .unwrap();
    assert_eq!(setting.apps.reconcile().await, Err(AppsError::Internal));
    assert_eq!(setting.record("shop").await.unwrap().version, 5);
    assert!(setting.record("gone").await.is_none());
    setting.store.remove(Collection::Apps, "a", None).await.unwrap();
    assert_eq!(setting.apps.reconcile().await, Ok(0));

    // As after the store was restored from an older copy: the nodes keep what they have, and the next
    // change is above it.
    write("shop", &app).await;
    assert_eq!(setting.apps.reconcile().await, Ok(0));
    assert_eq!(setting.record("shop").await.unwrap().version, 5);
    let settled = setting.set("shop", app.settings.clone()).await.unwrap();
    assert_eq!(
        (settled.app.version, settled.published),
        (6, true),
        "to be as it is shown"
    );
    let settled = setting.set("shop", json!({"anonymous": true})).await.unwrap();
    assert_eq!((settled.app.version, settled.published), (7, true));
    // And what the store knows nothing of stays.
    let bucket = setting.log.bucket(BucketName::Apps);
    let lost = serde_json::to_vec(&app.record(Quotas::default())).unwrap();
    bucket.set("lost", lost.into(), 0, None).await.unwrap();
    assert_eq!(setting.apps.reconcile().await, Ok(0));
    assert!(setting.record("lost").await.is_some());
}

#[tokio::test]
async fn nothing_is_done_while_nats_is_away() {
    let setting = setting().await;
    setting.created("shop").await;
    setting.log.faults().disconnect(setting.log.node_index());
    assert_eq!(
        setting.set("shop", json!({"anonymous": true})).await,
        Err(AppsError::Unavailable)
    );
    assert_eq!(setting.apps.get(&id("shop")).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_schema_once_registered_stays_what_it_is() {
    let setting = setting().await;
    setting.created("shop").await;
    let with = |mode: &str, schemas: Value| {
        let mut settings = settings();
        settings["namespaces"][0]["schema_compatibility"] = mode.into();
        settings["namespaces"][0]["schemas"] = schemas;
        settings
    };
    let open = json!({"version": 1, "schema": {"type": "object", "properties": {"price": {"type": "number", "minimum": 0.5}}}});
    let wider = json!({"version": 3, "schema": "{\"type\": \"object\"}"});
    let set = async |mode: &str, schemas: Value| match setting.set("shop", with(mode, schemas)).await {
        Ok(_) => Vec::new(),
        refused => paths(refused),
    };
    let at = |rest: &str| vec![format!("settings.namespaces[0].schemas{rest}")];
    // What cannot be used is refused before anybody is told.
    let unusable = json!({"version": 1, "schema": {"pattern": "(a)\\1"}});
    assert_eq!(set("none", json!([unusable])).await, at(""));
    let remote = json!({"version": 1, "schema": {"$ref": "https://a.example/"}});
    assert_eq!(set("none", json!([remote])).await, at("[0].schema"));

    assert!(set("full", json!([open])).await.is_empty());
    let altered = json!({"version": 1, "schema": {"type": "object"}});
    assert_eq!(set("full", json!([altered])).await, at("[0].schema"));
    assert_eq!(set("full", json!([])).await, at(""));
    // All that was valid stays so, but not the other way.
    assert_eq!(set("full", json!([open, wider])).await, at("[1].schema"));
    assert!(set("backward", json!([open, wider])).await.is_empty());
    let narrow = json!({"version": 4, "schema": {"type": "object", "required": ["id"]}});
    assert_eq!(
        set("backward", json!([open, wider, narrow])).await,
        at("[2].schema")
    );
    // A number between is not a later one; an old version may go, the latest may not.
    let between = json!({"version": 2, "schema": {"type": "object"}});
    assert_eq!(
        set("none", json!([open, between, wider])).await,
        at("[1].version")
    );
    assert!(set("backward", json!([wider])).await.is_empty());
    assert_eq!(
        set("backward", json!([open])).await,
        [at("[0].version"), at("")]
            .concat()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    let back = setting.apps.roll_back(&id("shop"), 1, None, "ann").await;
    assert_eq!(paths(back), at(""));
    assert!(set("none", json!([wider, narrow])).await.is_empty());
}
