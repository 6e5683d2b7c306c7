//! An app whose settings come as a document, from the control plane: the same keys as in `[[apps]]`, the
//! same defaults, the same checks. Whoever writes it is not the operator: what would let it read files or
//! reach into the operator's network is refused.

use std::{net::IpAddr, sync::LazyLock, time::Duration};

use serde_json::Value as Json;

use super::{
    AppConfig, AuthConfig, Config, ConfigErrors, Problem,
    fields::{Fields, Section},
    layers::{self, Node, Origin, Table, Value},
    load::DEFAULTS,
    validate,
};
use crate::model::{AppId, Overflow};

/// The defaults, read once: there may be many apps. That they are sound a test shows.
static TEMPLATE: LazyLock<Table> = LazyLock::new(|| layers::parse(None, DEFAULTS, &mut Vec::new()));

/// The path of the app while it is checked. Problems are told without it.
const PATH: &str = "app";

/// Keys of `[[apps]]` and `[apps.auth]` that a document cannot set: the app's id and secrets, which the
/// control plane keeps apart, and names of files.
const RESERVED: [&str; 3] = ["id", "api_keys", "api_keys_file"];
const RESERVED_AUTH: [&str; 2] = ["hmac_secret", "hmac_secret_file"];

impl AppConfig {
    /// The app `id` with `settings`, an object, on a node that is configured as `node` is. `signs` says
    /// whether it has keys of its own to verify tokens with.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once; keys are paths in the document.
    pub fn from_document(
        id: &AppId,
        settings: &Json,
        signs: bool,
        node: &Config,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let read = read(id, settings, signs, &mut problems);
        if let Some(app) = &read {
            validate::document(node, app, PATH, signs, &mut problems);
            bounds(node, app, &mut problems);
        }
        for problem in &mut problems {
            if let Some(rest) = problem.key.strip_prefix(PATH) {
                problem.key = rest.trim_start_matches('.').to_owned();
            }
            problem.origin = None;
        }
        ConfigErrors::check(problems)?;
        read.ok_or_else(ConfigErrors::unsound_defaults)
    }
}

fn read(id: &AppId, settings: &Json, signs: bool, problems: &mut Vec<Problem>) -> Option<AppConfig> {
    let Value::List(templates) = &TEMPLATE.get("apps")?.value else {
        return None;
    };
    let Value::Table(template) = &templates.first()?.value else {
        return None;
    };
    let Value::Table(mut given) = node(settings).value else {
        problems.push(problem("", "must be an object of settings"));
        return None;
    };
    refuse(&mut given, PATH, &RESERVED, problems);
    if given.remove("quotas").is_some() {
        let why = "is not a setting: quotas come from the app's plan";
        problems.push(problem(&format!("{PATH}.quotas"), why));
    }
    match given.get_mut("auth").map(|node| &mut node.value) {
        Some(Value::Table(auth)) => refuse(auth, &format!("{PATH}.auth"), &RESERVED_AUTH, problems),
        Some(_) => {}
        None if signs => {
            given.insert("auth".to_owned(), node(&Json::Object(serde_json::Map::new())));
        }
        None => {}
    }
    given.insert("id".to_owned(), node(&Json::String(id.as_str().to_owned())));
    let mut fields = Fields::at(PATH, &given, template, problems);
    let app = AppConfig::read(&mut fields);
    fields.refuse_unknown();
    app
}

fn refuse(table: &mut Table, path: &str, reserved: &[&str], problems: &mut Vec<Problem>) {
    for key in reserved {
        if table.remove(*key).is_some() {
            problems.push(problem(
                &format!("{path}.{key}"),
                "is not a setting: keys and secrets of an app are made and revoked on their own",
            ));
        }
    }
}

/// What an app may take of the memory of every node, and where nodes may be sent to.
fn bounds(node: &Config, app: &AppConfig, problems: &mut Vec<Problem>) {
    let tenants = &node.tenants;
    let public_keys = app.auth.as_ref().map_or(0, |auth| auth.public_keys.len());
    let most = [
        ("namespaces", app.namespaces.len(), tenants.max_namespaces),
        ("allowed_origins", app.allowed_origins.len(), tenants.max_origins),
        ("auth.public_keys", public_keys, tenants.max_public_keys),
        (
            "limits.rate_channels",
            app.limits.rate_channels,
            tenants.max_rate_keys,
        ),
        ("limits.rate_users", app.limits.rate_users, tenants.max_rate_keys),
        (
            "limits.max_queued",
            usize::try_from(app.limits.max_queued).unwrap_or(usize::MAX),
            usize::try_from(tenants.max_queued).unwrap_or(usize::MAX),
        ),
    ];
    for (key, count, most) in most {
        if count > most {
            problems.push(problem(
                &format!("{PATH}.{key}"),
                &format!("must not be more than {most}"),
            ));
        }
    }
    queued(node, app, problems);
    let Some(auth) = &app.auth else { return };
    if let Some(url) = &auth.jwks_url
        && !tenants.private_urls
        && !is_public(url)
    {
        problems.push(problem(
            &format!("{PATH}.auth.jwks_url"),
            "must begin with https:// and name a public host",
        ));
    }
    fetches(auth, problems);
    // Of what the app's owner sets, only the operator knows what a node can bear.
    let own = [
        ("jwks_max_bytes", auth.jwks_max_bytes, 1024 * 1024),
        ("jwks_max_keys", auth.jwks_max_keys, 256),
        ("max_token_bytes", auth.max_token_bytes, 64 * 1024),
    ];
    for (key, value, most) in own {
        if value > most {
            problems.push(problem(
                &format!("{PATH}.auth.{key}"),
                &format!("must not be more than {most} (bytes, or keys)"),
            ));
        }
    }
}

/// What a publication that waits takes beside its payload at most, about: tags, who has sent it, its key.
const QUEUED_BESIDE: u64 = 8 * 1024;

/// What an app may have waiting in the queue that all apps share.
fn queued(node: &Config, app: &AppConfig, problems: &mut Vec<Problem>) {
    let rules = app.namespaces.iter().map(|(_, rule)| rule);
    let queues = rules.filter(|rule| rule.overflow == Overflow::Queue);
    let Some(largest) = queues.map(|rule| rule.max_size as u64).max() else {
        return;
    };
    let most = node.tenants.max_queued_bytes / (largest + QUEUED_BESIDE);
    if !(1..=most).contains(&app.limits.max_queued) {
        problems.push(problem(
            &format!("{PATH}.limits.max_queued"),
            &format!("must be 1 to {most}, where a namespace with a queue takes payloads of {largest} bytes"),
        ));
    }
}

/// Whether a URL cannot name something of the operator's own network by its text alone.
fn is_public(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let plain = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    // The last label of a name is never a number (RFC 1123, section 2.1); of an address it is, however
    // it is written.
    let named = host
        .rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && !last.starts_with(|first: char| first.is_ascii_digit()));
    let local = [
        "localhost",
        "local",
        "internal",
        "svc",
        "lan",
        "corp",
        "home.arpa",
    ]
    .iter()
    .any(|local| host == *local || host.ends_with(&format!(".{local}")));
    plain && named && host.contains('.') && !local && host.parse::<IpAddr>().is_err()
}

/// How often, and how long, nodes fetch a set of keys from where a tenant wants: in seconds.
fn fetches(auth: &AuthConfig, problems: &mut Vec<Problem>) {
    let times = [
        ("jwks_min_refresh", auth.jwks_min_refresh, 5, u64::MAX),
        ("jwks_ttl", auth.jwks_ttl, 30, u64::MAX),
        ("jwks_timeout", auth.jwks_timeout, 0, 30),
    ];
    for (key, time, least, most) in times {
        if time < Duration::from_secs(least) || time.as_secs() > most {
            let bound = if time.as_secs() > most { most } else { least };
            let which = if bound == most { "most" } else { "least" };
            problems.push(problem(
                &format!("{PATH}.auth.{key}"),
                &format!("must be at {which} {bound}s"),
            ));
        }
    }
}

fn problem(key: &str, message: &str) -> Problem {
    Problem {
        key: key.to_owned(),
        origin: None,
        message: message.to_owned(),
    }
}

fn node(json: &Json) -> Node {
    let value = match json {
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None if number.is_f64() => number.as_f64().map_or(Value::Unusable, Value::Float),
            None => Value::Unusable,
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(node).collect()),
        Json::Object(entries) => Value::Table(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), node(value)))
                .collect(),
        ),
        Json::Null => Value::Null,
    };
    Node {
        origin: Origin::Document,
        value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::Sources, model::Access};

    fn app(settings: &Json, signs: bool) -> Result<AppConfig, Vec<(String, String)>> {
        let config = Config::load(&Sources::default()).unwrap();
        let id = AppId::new("a").unwrap();
        AppConfig::from_document(&id, settings, signs, &config).map_err(|errors| {
            let problems = errors.problems().iter();
            problems
                .map(|problem| (problem.key.clone(), problem.message.clone()))
                .collect()
        })
    }

    #[test]
    fn a_document_has_the_keys_and_defaults_of_a_file() {
        let settings = json!({
            "allowed_origins": ["https://a.example"],
            "limits": {"publish_rate": 10},
            "namespaces": [{"name": "chat", "subscribe": "token"}],
        });
        let app = app(&settings, true).unwrap();
        assert_eq!(app.id.as_str(), "a");
        assert_eq!((app.limits.publish_rate, app.limits.rate_channels), (10, 10_000));
        assert_eq!(app.namespaces[0].1.subscribe, Access::Token);
        assert_eq!(app.auth.unwrap().max_token_bytes, 8 * 1024);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let settings = json!({
            "id": "other",
            "api_keys": ["x"],
            "quotas": {"channels": 1_000_000},
            "anonymus": true,
            "auth": {"hmac_secret_file": "/etc/passwd", "jwks_url": "http://169.254.169.254/", "jwks_min_refresh": "1ms", "jwks_timeout": "31s"},
            "limits": {"publish_burst": 5, "rate_channels": 100_000_000, "publish_rate": 0},
            "namespaces": [
                {"name": "a:b"},
                {"name": "c", "history": "nowhere"},
                {"name": "d", "recovery": true, "max_size": 1},
                {"name": "d", "rate": null},
            ],
        });
        let problems = app(&settings, false).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|(key, _)| key.as_str()).collect();
        for key in [
            "id",
            "api_keys",
            "quotas",
            "anonymus",
            "auth.hmac_secret_file",
            "auth.jwks_url",
            "auth.jwks_min_refresh",
            "auth.jwks_timeout",
            "limits.publish_burst",
            "limits.rate_channels",
            "namespaces[0].name",
            "namespaces[1].history",
            "namespaces[2].max_size",
            "namespaces[2].recovery",
            "namespaces[3].name",
            "namespaces[3].rate",
        ] {
            assert!(keys.contains(&key), "{key} is not in {problems:?}");
        }
        assert_eq!(app(&json!([]), false).unwrap_err().len(), 1);
    }

    #[test]
    fn an_app_cannot_fill_the_queue_of_all() {
        let settings = |max_queued: u64, max_size: &str| {
            let namespace =
                json!({"name": "c", "overflow": "queue", "subscribe": "anyone", "max_size": max_size});
            json!({"anonymous": true, "limits": {"max_queued": max_queued}, "namespaces": [namespace]})
        };
        for (max_queued, max_size, fits) in [
            (1_137, "64KiB", true),
            (1_138, "64KiB", false),
            (0, "64KiB", false),
            (9_102, "1KiB", true),
            (100_001, "1B", false),
        ] {
            let problems = app(&settings(max_queued, max_size), false)
                .err()
                .unwrap_or_default();
            let refused = problems.iter().any(|(key, _)| key == "limits.max_queued");
            assert_eq!((problems.is_empty(), refused), (fits, !fits), "{problems:?}");
        }
    }

    #[test]
    fn a_token_needs_a_key() {
        let settings = json!({"namespaces": [{"name": "c", "subscribe": "token"}]});
        assert!(app(&settings, true).is_ok());
        let problems = app(&settings, false).unwrap_err();
        assert!(
            problems.iter().any(|(key, _)| key == "namespaces[0].subscribe"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_url_that_could_be_of_the_operators_network_is_refused() {
        for (url, public) in [
            ("https://keys.example.com/jwks", true),
            ("https://keys.example.com:8443/jwks?x", true),
            ("http://keys.example.com/jwks", false),
            ("https://localhost/", false),
            ("https://a.localhost/", false),
            ("https://metadata.google.internal/", false),
            ("https://intranet/", false),
            ("https://metadata.google.INTERNAL./", false),
            ("https://localhost./", false),
            ("https://nats.default.svc/", false),
            ("https://127.0.0.1/", false),
            ("https://127.1/", false),
            ("https://2130706433/", false),
            ("https://0x7f.0.0.0x1/", false),
            ("https://[::1]/", false),
            ("https://a@b.example/", false),
            ("https:///", false),
        ] {
            assert_eq!(is_public(url), public, "{url}");
        }
    }
}
