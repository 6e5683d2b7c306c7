use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::model::{Access, History};

mod bad_files;

const HMAC: &str = "0123456789abcdef0123456789abcdef";

fn load(file: &str) -> Result<Config, ConfigErrors> {
    load_with(file, &[])
}

fn load_with(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Config::load(&Sources {
        file: Some((PathBuf::from("s.toml"), file.to_owned())),
        env: env.iter().map(owned).collect(),
        overrides: Vec::new(),
    })
}

fn problems(result: Result<Config, ConfigErrors>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(errors) => errors.problems().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_defaults_alone_are_a_configuration() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8000");
    assert!(config.apps.is_empty());
    let class = &config.log.classes[0];
    assert_eq!(
        (config.log.classes.len(), class.name.as_str(), class.shards),
        (1, "std", 4)
    );
    assert_eq!(
        (class.max_age, class.max_bytes, class.replicas),
        (Duration::from_hours(24), 1 << 30, 1)
    );
    assert_eq!(class.duplicate_window, Duration::from_mins(2));
}

/// Every key of the defaults file is one that is read, and every key that is read has a default: a
/// key without one would leave no configuration, one that is not read is unknown.
#[test]
fn the_defaults_file_has_every_key_and_no_other() {
    let mut wrong = Vec::new();
    let defaults = layers::parse(None, DEFAULTS, &mut wrong);
    let keys_of_defaults = keys(&defaults);
    // The file read as somebody's own: nothing in it is unknown. What must be given is not.
    let own = DEFAULTS
        .replace("id = \"\"", "id = \"shop\"")
        .replace("version = 0", "version = 1")
        .replace("hmac_secret = \"\"", &format!("hmac_secret = \"{HMAC}\""));
    let config = load(&own).unwrap();
    // What is shown has every field; only the names of secret files are not part of it.
    let shown = layers::parse(None, &config.show(), &mut wrong);
    let files = keys_of_defaults
        .iter()
        .filter(|key| key.ends_with("_file") && !key.ends_with("ca_file"))
        .cloned();
    let with_files: BTreeSet<String> = keys(&shown).into_iter().chain(files).collect();
    assert_eq!(keys_of_defaults, with_files);
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn keys(table: &Table) -> BTreeSet<String> {
    fn visit(path: &str, value: &Value, all: &mut BTreeSet<String>) {
        match value {
            Value::Table(table) => table
                .iter()
                .for_each(|(key, node)| visit(&format!("{path}.{key}"), &node.value, all)),
            Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Table(_))) => {
                items.iter().for_each(|item| visit(path, &item.value, all));
            }
            _ => {
                all.insert(path.to_owned());
            }
        }
    }
    let mut all = BTreeSet::new();
    visit("", &Value::Table(table.clone()), &mut all);
    all
}

#[test]
fn what_is_shown_is_read_again() {
    let file = r#"
        node.default_app = "shop"
        nats.servers = ["nats://a:1", "tls://b:2"]
        http.listen = "[::1]:0"
        [[log.classes]]
        name = "short"
        max_age = "90m"
        max_per_channel = 7
        placement_tags = ["ssd", "q\"\\\u0001"]
        [[apps]]
        id = "shop"
        anonymous = true
        [[apps.namespaces]]
        name = "public"
        history = "short"
        recovery = true
        subscribe = "anyone"
        publish = "subscriber"
        read_history = "anyone"
        [[apps.namespaces]]
        subscribe = "nobody"
    "#;
    let config = load(file).unwrap();
    let class = &config.log.classes[0];
    assert_eq!(
        (config.log.classes.len(), class.max_age),
        (1, Duration::from_mins(90))
    );
    assert_eq!(
        (class.max_per_channel, class.shards, class.placement_tags.len()),
        (Some(7), 4, 2)
    );
    let (name, rule) = &config.apps[0].namespaces[0];
    assert_eq!(
        (name.as_str(), rule.publish, rule.max_size),
        ("public", Access::Subscriber, 64 * 1024)
    );
    assert!(matches!(&rule.history, History::Class(class) if class.as_str() == "short"));
    assert_eq!(config.apps[0].namespaces[1].0, "");
    let shown = config.show();
    assert_eq!(load(&shown).unwrap().show(), shown);
}

#[test]
fn the_environment_and_options_lie_over_the_file() {
    let sources = Sources {
        file: Some(("s.toml".into(), "http.listen = \"127.0.0.1:1\"\nedge.ping_interval = \"40s\"\n[[apps]]\nid = \"a\"\nanonymous = true\n".to_owned())),
        env: [
            ("SLIPSTREAM__HTTP__LISTEN", "127.0.0.1:2"),
            ("SLIPSTREAM__HTTP__BACKLOG", "77"),
            ("SLIPSTREAM__NATS__SERVERS", "nats://a:1, nats://b:2"),
            ("SLIPSTREAM__TELEMETRY__JSON", "true"),
            ("SLIPSTREAM__LOG__CLASSES__0__REPLICAS", "3"),
            ("SLIPSTREAM__APPS__1__ID", "b"),
            ("SLIPSTREAM__APPS__1__ANONYMOUS", "true"),
            ("SLIPSTREAM__APPS__0__AUTH__HMAC_SECRET", HMAC),
            ("SLIPSTREAM_NATS_SERVER", "/not/ours"),
            ("PATH", "/bin"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .to_vec(),
        overrides: vec![("http.listen".to_owned(), "127.0.0.1:3".to_owned())],
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.http.listen.port(), config.http.backlog), (3, 77));
    assert_eq!(config.nats.servers, ["nats://a:1", "nats://b:2"]);
    assert!(config.telemetry.json);
    assert_eq!(config.edge.ping_interval, Duration::from_secs(40));
    assert_eq!(
        (
            config.log.classes[0].name.as_str(),
            config.log.classes[0].replicas
        ),
        ("std", 3)
    );
    let ids: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(
        config.apps[0]
            .auth
            .as_ref()
            .unwrap()
            .hmac_secret
            .as_ref()
            .unwrap()
            .expose(),
        HMAC
    );
    assert!(config.apps[1].auth.is_none());
}

#[test]
fn problems_of_the_environment() {
    let file = "[[apps]]\nid = \"a\"\n";
    for (name, text, expected) in [
        (
            "SLIPSTREAM__HTTP__LISTN",
            "x",
            "http.listn (SLIPSTREAM__HTTP__LISTN): unknown key; did you mean 'listen'?",
        ),
        (
            "SLIPSTREAM__HTTP__BACKLOG",
            "many",
            "http.backlog (SLIPSTREAM__HTTP__BACKLOG): must be a whole number",
        ),
        (
            "SLIPSTREAM__APPS__2__ID",
            "c",
            "apps[2].id (SLIPSTREAM__APPS__2__ID): skips an element",
        ),
        (
            "SLIPSTREAM__APPS__ID",
            "c",
            "apps.id (SLIPSTREAM__APPS__ID): goes into a list",
        ),
        (
            "SLIPSTREAM__APPS__0",
            "c",
            "apps[0] (SLIPSTREAM__APPS__0): names no key",
        ),
        (
            "SLIPSTREAM__0__X",
            "c",
            "[0].x (SLIPSTREAM__0__X): has a number where a key is wanted",
        ),
        (
            "SLIPSTREAM__APPS__0__ID__X",
            "c",
            "apps[0].id.x (SLIPSTREAM__APPS__0__ID__X): goes into a value",
        ),
        ("SLIPSTREAM__", "c", "SLIPSTREAM__: unknown key"),
    ] {
        let found = problems(load_with(file, &[(name, text)]));
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn secrets_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let hmac = path("hmac", &format!("{HMAC}\n"));
    let api_keys = path("keys", "one\n\n two \r\n");
    let file =
        format!("[[apps]]\nid = \"a\"\napi_keys_file = {api_keys:?}\nauth.hmac_secret_file = {hmac:?}\n");
    let config = load(&file).unwrap();
    let keys: Vec<&str> = config.apps[0].api_keys.iter().map(|key| key.expose()).collect();
    assert_eq!(keys, ["one", "two"]);
    assert_eq!(
        config.apps[0]
            .auth
            .as_ref()
            .unwrap()
            .hmac_secret
            .as_ref()
            .unwrap()
            .expose(),
        HMAC
    );

    let (empty, big) = (path("empty", "\n"), path("big", &"x".repeat(65 * 1024)));
    for (auth, expected) in [
        (
            format!("hmac_secret_file = {hmac:?}\nhmac_secret = \"{HMAC}\""),
            "stands beside hmac_secret",
        ),
        (
            "hmac_secret_file = \"/nowhere/at/all\"".to_owned(),
            "names a file that cannot be read: ",
        ),
        (
            format!("hmac_secret_file = {empty:?}"),
            "names a file that is empty",
        ),
        (
            format!("hmac_secret_file = {big:?}"),
            "names a file that cannot be read: ",
        ),
        ("hmac_secret_file = 7".to_owned(), "must be the path of a file"),
    ] {
        let found = problems(load(&format!("[[apps]]\nid = \"a\"\n[apps.auth]\n{auth}")));
        let start = format!("apps[0].auth.hmac_secret_file (s.toml:4): {expected}");
        assert!(
            found.len() == 1 && found[0].starts_with(&start),
            "{auth}: {found:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A secret appears neither in what is shown, nor in `Debug`, nor in any problem, wherever it is
    /// given and whatever else is wrong.
    #[test]
    fn a_planted_secret_is_never_shown(random in "[A-Za-z0-9]{40}", broken: bool, quote: bool) {
        let planted = format!("PLANTED{random}");
        let end = if quote { "" } else { "\"" };
        let bad = if broken { "http.listen = 5\nedge.max_channels = \"x\"\n" } else { "" };
        let file = format!(
            "{bad}nats.user = \"u\"\nnats.password = \"{planted}\"\n[[apps]]\nid = \"a\"\n\
             api_keys = [\"{planted}\", \"b{planted}\"]\n[apps.auth]\nhmac_secret = \"{planted}{end}\n"
        );
        let env = [("SLIPSTREAM__APPS__0__AUTH__HMAC_SECRET", planted.as_str()), ("SLIPSTREAM__NATS__PASSWORD", planted.as_str())];
        match load_with(&file, &env) {
            Ok(config) => {
                prop_assert!(!broken && !quote);
                prop_assert!(config.show().contains("[redacted]"));
                prop_assert!(!config.show().contains("PLANTED"));
                let debug = format!("{config:?}");
                prop_assert!(!debug.contains("PLANTED"));
            }
            Err(errors) => {
                prop_assert!(broken || quote);
                let said = format!("{errors} {errors:?}");
                prop_assert!(!said.contains("PLANTED"));
            }
        }
    }
}
