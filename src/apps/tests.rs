use std::time::Duration;

use super::*;
use crate::{
    config::{AuthConfig, Config, Secret, Sources},
    model::{Access, TokenError},
    telemetry::Limit,
};

fn config(file: &str) -> Config {
    let file = Some(("s.toml".into(), file.to_owned()));
    Config::load(&Sources {
        file,
        ..Sources::default()
    })
    .unwrap()
}

fn apps(file: &str) -> Apps {
    let config = config(file);
    Apps::new(config.apps, &config.tenants, Tasks::default()).unwrap()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

const TWO: &str = r#"
    [[apps]]
    id = "a"
    anonymous = true
    api_keys = ["key-of-a"]
    allowed_origins = ["https://a.example"]
    [[apps.namespaces]]
    name = "chat"
    subscribe = "anyone"
    [[apps]]
    id = "b"
    api_keys = ["key-of-b", "another-key-of-b"]
    auth.hmac_secret = "0123456789abcdef0123456789abcdef"
    [[apps.namespaces]]
    name = "chat"
    subscribe = "token"
"#;

#[tokio::test]
async fn each_app_has_its_own() {
    let apps = apps(TWO);
    let (a, b) = (apps.get("a").unwrap(), apps.get("b").unwrap());
    assert!(apps.get("c").is_none() && apps.get("").is_none());
    assert_eq!((a.view.anonymous, b.view.anonymous), (true, false));
    assert_eq!(a.allowed_origins, ["https://a.example"]);
    let subscribe = |app: &App| app.rules.rule(&channel("chat:x")).map(|rule| rule.subscribe);
    assert_eq!(
        (subscribe(&a), subscribe(&b)),
        (Some(Access::Anyone), Some(Access::Token))
    );
    assert!(a.rules.rule(&channel("x")).is_none());
    assert!(a.verifier.is_none());
    let refused = b.verifier.as_ref().unwrap().connect("x.y.z").await;
    assert!(matches!(refused, Err(TokenError::Invalid(_))));
    let key = PresentedKey::new;
    assert!(a.api_keys.accept(&key("key-of-a")) && !a.api_keys.accept(&key("key-of-b")));
    let owner = |text: &str| apps.by_api_key(&key(text)).map(|app| app.id.to_string());
    assert_eq!(owner("key-of-a").as_deref(), Some("a"));
    assert_eq!(owner("another-key-of-b").as_deref(), Some("b"));
    assert_eq!((owner("key"), owner("")), (None, None));
}

fn apply(apps: &Apps, config: AppConfig, credentials: Credentials, version: u64) -> Arc<App> {
    let app = apps.build(config, credentials, version).unwrap();
    apps.apply(vec![(app.id.clone(), Some(app.clone()))]);
    app
}

fn signing(id: &str) -> SigningKey {
    SigningKey {
        id: id.to_owned(),
        secret: Secret::new("0123456789abcdef0123456789abcdef"),
        until: None,
    }
}

#[tokio::test]
async fn an_app_changes_for_who_looks_again() {
    let apps = apps(TWO);
    let (clone, generation) = (apps.clone(), apps.generation());
    let held = apps.get("b").unwrap();
    let mut bad = config(TWO).apps.remove(1);
    bad.auth = Some(AuthConfig {
        public_keys: vec!["x".to_owned()],
        ..AuthConfig::default()
    });
    let error = apps.build(bad, Credentials::default(), 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "app b: public key 0 is not an RSA, P-256, P-384 or Ed25519 public key in PEM"
    );
    assert_eq!((apps.len(), apps.generation()), (2, generation));

    let credentials = Credentials {
        api_keys: ApiKeys::new(&[Secret::new("new")]),
        signing_keys: vec![signing("k1")],
    };
    let key = PresentedKey::new;
    let changed = apply(&apps, config(TWO).apps.remove(1), credentials, 2);
    assert!(clone.generation() != generation && Arc::ptr_eq(&clone.get("b").unwrap(), &changed));
    assert!(clone.by_api_key(&key("new")).is_some() && clone.by_api_key(&key("key-of-b")).is_none());
    assert!(
        held.api_keys.accept(&key("key-of-b")),
        "who holds it sees what was"
    );
    assert!(!changed.has_retired("k1"));

    let credentials = Credentials {
        signing_keys: vec![signing("k2")],
        ..Credentials::default()
    };
    let rotated = apply(&apps, config(TWO).apps.remove(1), credentials, 3);
    assert!(rotated.has_retired("k1") && !rotated.has_retired("k2"));
    let credentials = Credentials {
        signing_keys: vec![signing("k1")],
        ..Credentials::default()
    };
    let back = apply(&apps, config(TWO).apps.remove(1), credentials, 4);
    assert!(!back.has_retired("k1") && back.has_retired("k2"));

    apps.apply(vec![(back.id.clone(), None)]);
    assert!(apps.get("b").is_none() && apps.len() == 1 && apps.by_api_key(&key("new")).is_none());
    assert!(apps.is_fixed(&back.id), "the file still has it");
}

fn ephemeral(bytes: u64) -> Size {
    Size { bytes, kept: None }
}

#[test]
fn rates_go_on_over_a_change_that_is_not_theirs() {
    let file = "[[apps]]\nid = \"a\"\nlimits.publish_rate = 1\nnamespaces = [{ name = \"\", subscribe = \"nobody\" }]";
    let apps = apps(file);
    let (now, x) = (Instant::now(), channel("x"));
    let admit = || {
        apps.get("a")
            .unwrap()
            .admit(&x, None, 1, ephemeral(1), now)
            .is_ok()
    };
    assert!(admit() && !admit());
    let mut config = config(file).apps.remove(0);
    config.allowed_origins = vec!["https://a.example".to_owned()];
    apply(&apps, config.clone(), Credentials::default(), 1);
    assert!(!admit());
    config.limits.publish_rate = 2;
    apply(&apps, config, Credentials::default(), 2);
    assert!(admit() && admit() && !admit());
}

#[tokio::test]
async fn publishing_is_held_to_every_rate() {
    let apps = apps(
        r#"
        [[apps]]
        id = "a"
        anonymous = true
        limits.publish_rate = 10
        limits.publish_burst = 8
        limits.publish_bytes = "1000B"
        [[apps.namespaces]]
        name = "slow"
        rate = 2
        subscribe = "anyone"
        [[apps.namespaces]]
        name = "free"
        subscribe = "anyone"
        [[apps]]
        id = "b"
        anonymous = true
        "#,
    );
    let (a, b) = (apps.get("a").unwrap(), apps.get("b").unwrap());
    let (slow, other, free) = (channel("slow:1"), channel("slow:2"), channel("free:1"));
    let start = Instant::now();
    let after = |limit, ms| {
        Err(Throttled {
            limit,
            retry_after: Duration::from_millis(ms),
        })
    };
    for (app, ms, channel, count, bytes, outcome) in [
        (&a, 0, &slow, 2, 2, Ok(())),
        (&a, 0, &slow, 1, 1, after(Limit::ChannelRate, 500)),
        // Another channel of the namespace has its own rate, and of the app six are left.
        (&a, 0, &other, 2, 2, Ok(())),
        (&a, 0, &free, 5, 5, after(Limit::PublishRate, 100)),
        // What was refused cost nothing.
        (&a, 0, &free, 4, 4, Ok(())),
        (&a, 0, &free, 1, 1, after(Limit::PublishRate, 100)),
        (&b, 0, &free, 1_000_000, 1_000_000, Ok(())),
        (&a, 1000, &free, 1, 1000, Ok(())),
        (&a, 1000, &free, 1, 500, after(Limit::PublishBytes, 500)),
        // More than a second's worth in one piece is delayed, not locked out.
        (&a, 2000, &free, 1, 3000, Ok(())),
        (&a, 3000, &free, 1, 1, after(Limit::PublishBytes, 1001)),
        (&a, 5000, &slow, 2, 2, Ok(())),
    ] {
        let now = start + Duration::from_millis(ms);
        assert_eq!(
            app.admit(channel, None, count, ephemeral(bytes), now).map(drop),
            outcome,
            "{channel} at {ms} ms"
        );
    }
}

#[test]
fn what_may_come_at_once_is_a_second_s_worth_unless_it_is_said() {
    let now = Instant::now();
    let free = channel("free:1");
    for (limits, at_once) in [
        ("limits.publish_rate = 10", 10),
        ("limits.publish_rate = 10\nlimits.publish_burst = 0", 10),
        ("limits.publish_rate = 10\nlimits.publish_burst = 1", 1),
        ("limits.publish_rate = 10\nlimits.publish_burst = 3", 3),
        ("limits.publish_rate = 10\nlimits.publish_burst = 25", 25),
        ("limits.publish_rate = 1", 1),
        ("limits.publish_bytes = \"7B\"", 7),
        (
            "namespaces = [{ name = \"free\", rate = 5, subscribe = \"nobody\" }]",
            5,
        ),
    ] {
        let apps = apps(&format!("[[apps]]\nid = \"a\"\nanonymous = true\n{limits}"));
        let app = apps.get("a").unwrap();
        // One byte each, so that all limits count alike.
        let admitted = (0..100).filter(|_| app.admit(&free, None, 1, ephemeral(1), now).is_ok());
        assert_eq!(admitted.count(), at_once, "{limits}");
    }
}

#[test]
fn channels_beyond_those_told_apart_share_a_rate_and_are_counted_as_such() {
    let apps = apps(
        r#"
        [[apps]]
        id = "a"
        limits.rate_channels = 1
        namespaces = [{ name = "slow", rate = 1, subscribe = "nobody" }]
        "#,
    );
    let (app, now) = (apps.get("a").unwrap(), Instant::now());
    let limited = |name: &str| {
        app.admit(&channel(name), None, 1, ephemeral(1), now)
            .map(drop)
            .map_err(|it| it.limit)
    };
    assert_eq!([limited("slow:1"), limited("slow:2")], [Ok(()), Ok(())]);
    assert_eq!(limited("slow:1"), Err(Limit::ChannelRate));
    assert_eq!(
        [limited("slow:2"), limited("slow:3")],
        [Err(Limit::RateChannels); 2]
    );
}

#[test]
fn each_user_has_a_rate_and_backends_have_none() {
    let apps = apps(
        r#"
        [[apps]]
        id = "a"
        limits.user_publish_rate = 2
        limits.rate_users = 2
        [[apps]]
        id = "b"
        "#,
    );
    let (a, b, now) = (apps.get("a").unwrap(), apps.get("b").unwrap(), Instant::now());
    let free = channel("free:1");
    let admitted = |app: &App, by: Option<&str>| {
        let admitted = (0..10).map(|_| {
            app.admit(&free, by, 1, ephemeral(1), now)
                .map(drop)
                .map_err(|it| it.limit)
        });
        let mut refused = None;
        let count = admitted.filter(|it| it.inspect_err(|limit| refused = Some(*limit)).is_ok());
        (count.count(), refused)
    };
    assert_eq!(admitted(&a, Some("ann")), (2, Some(Limit::UserPublishRate)));
    assert_eq!(admitted(&a, Some("bob")), (2, Some(Limit::UserPublishRate)));
    // Beyond the capacity they share one.
    assert_eq!(admitted(&a, Some("cid")), (2, Some(Limit::RateUsers)));
    assert_eq!(admitted(&a, Some("dan")), (0, Some(Limit::RateUsers)));
    assert_eq!(admitted(&a, None), (10, None));
    assert_eq!(admitted(&b, Some("ann")), (10, None));
}

#[test]
fn debug_shows_no_secret() {
    let apps = apps(TWO);
    let debug = format!("{apps:?} {:?}", apps.get("b").unwrap());
    assert!(!debug.contains("key-of") && !debug.contains("012345"), "{debug}");
}
