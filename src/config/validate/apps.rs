//! Relations of apps, their keys and their namespaces.

use std::collections::HashMap;

mod schemas;

use super::{Checks, format_size};
use crate::{
    config::{AppConfig, AuthConfig, Config},
    model::{Access, AppId, History, JoinLeave, MAX_CHANNEL_BYTES, Overflow, Rule},
};

/// HS256 needs a key of at least its hash's length (RFC 7518, section 3.2).
const MIN_HMAC_BYTES: usize = 32;

/// A user's own channel must be nobody else's.
fn personal(app: &AppConfig, path: &str, checks: &mut Checks<'_>) {
    let Some(personal) = &app.personal_namespace else {
        return;
    };
    let rule = app.namespaces.iter().find(|(name, _)| name == personal);
    checks.that(
        rule.is_some_and(|(_, rule)| rule.user_limited),
        &[&format!("{path}.personal_namespace")],
        || "must be the name of one of the app's namespaces that has user_limited = true".to_owned(),
    );
}

pub(super) fn relations(config: &Config, checks: &mut Checks<'_>) {
    let named = config.node.default_app.as_ref();
    let exists = named.is_none_or(|id| config.apps.iter().any(|app| app.id == *id));
    checks.that(exists, &["node.default_app", "apps"], || {
        "names no app; it must be the id of one of [[apps]], or empty".to_owned()
    });
    checks.unique(config.apps.iter().map(|app| &app.id), |index| {
        format!("apps[{index}].id")
    });
    let mut keys = HashMap::new();
    for (index, app) in config.apps.iter().enumerate() {
        let path = format!("apps[{index}]");
        let api_keys = format!("{path}.api_keys");
        for api_key in &app.api_keys {
            let text = api_key.expose();
            checks.that(
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()),
                &[&api_keys],
                || "has a key that is empty or holds spaces or other than ASCII".to_owned(),
            );
            let owner = *keys.entry(text).or_insert(index);
            checks.that(owner == index, &[&api_keys], || {
                format!("has a key that apps[{owner}] has too; a key belongs to one app")
            });
        }
        alone(config, app, &path, false, checks);
        schemas::as_written(&config.tenants, app, &path, checks);
    }
    let promised = config
        .apps
        .iter()
        .map(|app| app.limits.ring_bytes)
        .fold(0, u64::saturating_add);
    checks.that(
        promised <= config.channel.rings_bytes as u64,
        &["channel.rings_bytes", "apps"],
        || {
            format!(
                "must not be less than the limits.ring_bytes of all apps together ({})",
                format_size(promised)
            )
        },
    );
}

/// What does not depend on other apps. `signs`: it has keys for tokens beside those of its settings.
pub(super) fn alone(config: &Config, app: &AppConfig, path: &str, signs: bool, checks: &mut Checks<'_>) {
    checks.that(
        app.id.as_str() != AppId::UNNAMED,
        &[&format!("{path}.id")],
        || "is reserved for connections that have not named their app yet; choose another".to_owned(),
    );
    origins(app, path, checks);
    limits(config, app, path, checks);
    if let Some(auth) = &app.auth {
        tokens(auth, &format!("{path}.auth"), signs, checks);
    }
    namespaces(config, app, path, checks);
    personal(app, path, checks);
}

/// The forms that `edge/origin.rs` compares: `*`, `null`, or a host, which may begin with `*.`, with a
/// scheme before it and a port behind it if wanted. No path: browsers send none.
fn origins(app: &AppConfig, path: &str, checks: &mut Checks<'_>) {
    for (index, origin) in app.allowed_origins.iter().enumerate() {
        let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
        let host = host.strip_prefix("*.").unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'*' | b'?' | b'#' | b'@');
        let valid = origin == "*" || !host.is_empty() && host.bytes().all(plain);
        checks.that(valid, &[&format!("{path}.allowed_origins[{index}]")], || {
            "must be an origin without a path, like https://shop.example, http://localhost:3000 or *.shop.example"
                .to_owned()
        });
    }
}

fn limits(config: &Config, app: &AppConfig, path: &str, checks: &mut Checks<'_>) {
    let limits = &app.limits;
    let key = |name: &str| format!("{path}.limits.{name}");
    checks.that(
        limits.publish_burst == 0 || limits.publish_rate > 0,
        &[&key("publish_burst")],
        || "does nothing without limits.publish_rate; set the rate too".to_owned(),
    );
    checks.that(limits.rate_channels > 0, &[&key("rate_channels")], || {
        "must not be 0".to_owned()
    });
    checks.that(limits.rate_users > 0, &[&key("rate_users")], || {
        "must not be 0".to_owned()
    });
    checks.that(
        limits.max_channels <= config.edge.max_channels,
        &[&key("max_channels"), "edge.max_channels"],
        || {
            format!(
                "must not be more than edge.max_channels ({})",
                config.edge.max_channels
            )
        },
    );
    let ring = config.channel.ring_bytes as u64;
    checks.that(
        limits.ring_bytes == 0 || limits.ring_bytes >= ring,
        &[&key("ring_bytes"), "channel.ring_bytes"],
        || {
            format!(
                "must be 0 (unlimited) or hold one ring: channel.ring_bytes ({})",
                format_size(ring)
            )
        },
    );
    checks.that(
        limits.max_connections <= config.edge.max_connections,
        &[&key("max_connections"), "edge.max_connections"],
        || {
            format!(
                "must not be more than edge.max_connections ({})",
                config.edge.max_connections
            )
        },
    );
}

fn tokens(auth: &AuthConfig, path: &str, signs: bool, checks: &mut Checks<'_>) {
    let has_key =
        signs || auth.hmac_secret.is_some() || !auth.public_keys.is_empty() || auth.jwks_url.is_some();
    checks.that(has_key, &[path], || {
        "has no key to verify tokens with; set hmac_secret, public_keys or jwks_url, or remove the section".to_owned()
    });
    let long = auth
        .hmac_secret
        .as_ref()
        .is_none_or(|secret| secret.expose().len() >= MIN_HMAC_BYTES);
    checks.that(long, &[&format!("{path}.hmac_secret")], || {
        format!("must have at least {MIN_HMAC_BYTES} bytes (RFC 7518); `openssl rand -hex 32` makes one")
    });
    for (index, pem) in auth.public_keys.iter().enumerate() {
        let key = format!("{path}.public_keys[{index}]");
        // A private key in a verifier's configuration is a leak waiting to happen: say so first.
        let private = pem.contains("PRIVATE KEY");
        checks.that(!private, &[&key], || {
            "holds a private key; give the public one".to_owned()
        });
        let public =
            private || pem.trim_start().starts_with("-----BEGIN ") && pem.contains("PUBLIC KEY-----");
        checks.that(public, &[&key], || {
            "must be a public key in PEM: -----BEGIN PUBLIC KEY----- and so on".to_owned()
        });
    }
    let bounds = [
        ("jwks_max_bytes", auth.jwks_max_bytes),
        ("jwks_max_keys", auth.jwks_max_keys),
        ("max_token_bytes", auth.max_token_bytes),
    ];
    for (name, bound) in bounds {
        checks.that(bound > 0, &[&format!("{path}.{name}")], || {
            "must not be 0".to_owned()
        });
    }
    let Some(url) = &auth.jwks_url else { return };
    let key = format!("{path}.jwks_url");
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    checks.that(rest.is_some_and(|rest| !rest.is_empty()), &[&key], || {
        "must be a URL that starts with https:// (or http://)".to_owned()
    });
    checks.that(rest.is_none_or(|rest| !rest.contains('@')), &[&key], || {
        "must not hold a user or password: `config show` prints it".to_owned()
    });
    let times = [
        ("jwks_ttl", auth.jwks_ttl),
        ("jwks_min_refresh", auth.jwks_min_refresh),
        ("jwks_timeout", auth.jwks_timeout),
    ];
    for (name, time) in times {
        checks.that(!time.is_zero(), &[&format!("{path}.{name}")], || {
            "must not be 0".to_owned()
        });
    }
}

fn namespaces(config: &Config, app: &AppConfig, path: &str, checks: &mut Checks<'_>) {
    let names = app.namespaces.iter().map(|(name, _)| name);
    checks.unique(names, |index| format!("{path}.namespaces[{index}].name"));
    for (index, (name, rule)) in app.namespaces.iter().enumerate() {
        let path = format!("{path}.namespaces[{index}]");
        let key = format!("{path}.name");
        // A channel needs a colon and at least one byte behind its namespace.
        let valid =
            !name.contains(':') && !name.chars().any(char::is_control) && name.len() + 2 <= MAX_CHANNEL_BYTES;
        checks.that(valid, &[&key], || {
            "must be short and without ':' and control characters: it stands before the ':' of channel names".to_owned()
        });
        rule_alone(config, rule, &path, checks);
        schemas::of_rule(&config.tenants, rule, &path, checks);
        sizes(config, rule, &path, checks);
        let wants_token = |access: Access| matches!(access, Access::Authenticated | Access::Token);
        for (name, access) in accesses(rule) {
            let reachable = app.auth.is_some() || !wants_token(access);
            checks.that(reachable, &[&format!("{path}.{name}"), &auth_key(&path)], || {
                "wants a token, but the app verifies none; add [apps.auth], or choose anyone or nobody"
                    .to_owned()
            });
        }
    }
    let closed = app
        .namespaces
        .iter()
        // Where nobody may subscribe, nobody is a subscriber.
        .all(|(_, rule)| {
            accesses(rule).all(|(_, access)| matches!(access, Access::Nobody | Access::Subscriber))
        });
    checks.that(closed || app.anonymous || app.auth.is_some(), &[path], || {
        "lets nobody connect: set anonymous = true or add [apps.auth]".to_owned()
    });
}

/// The `auth` section of the app that the namespace at `path` belongs to.
fn auth_key(path: &str) -> String {
    let app = path.split('.').next().unwrap_or(path);
    format!("{app}.auth")
}

/// Who may do what, of what can be done at all.
fn accesses(rule: &Rule) -> impl Iterator<Item = (&'static str, Access)> {
    let presence = rule.presence.then_some(("read_presence", rule.read_presence));
    [
        ("subscribe", rule.subscribe),
        ("publish", rule.publish),
        ("read_history", rule.read_history),
    ]
    .into_iter()
    .chain(presence)
}

/// What a rule says must be possible.
fn rule_alone(config: &Config, rule: &Rule, path: &str, checks: &mut Checks<'_>) {
    let key = |name: &str| format!("{path}.{name}");
    let class = config.log.classes.iter();
    let mut class =
        class.filter(|class| matches!(&rule.history, History::Class(name) if *name == class.name));
    if let (Overflow::Queue, Some(class)) = (rule.overflow, class.next()) {
        checks.that(
            config.queue.ack_wait < class.duplicate_window / 2,
            &[&key("overflow"), "queue.ack_wait", "log.classes"],
            || "needs a class whose duplicate_window is more than twice queue.ack_wait".to_owned(),
        );
    }
    let durable = match &rule.history {
        History::None => false,
        History::Class(class) => {
            let known = config.log.classes.iter().any(|known| known.name == *class);
            checks.that(known, &[&key("history"), "log.classes"], || {
                "names no class; it must be \"none\" or the name of one of [[log.classes]]".to_owned()
            });
            true
        }
    };
    checks.that(
        durable || !rule.recovery,
        &[&key("recovery"), &key("history")],
        || "needs history; name a class, or set recovery = false".to_owned(),
    );
    checks.that(
        rule.presence || rule.join_leave == JoinLeave::None,
        &[&key("join_leave"), &key("presence")],
        || "needs presence; set presence = true, or join_leave = \"none\"".to_owned(),
    );
    checks.that(
        durable || rule.read_history == Access::Nobody,
        &[&key("read_history"), &key("history")],
        || "must be nobody where history is none: there is nothing to read".to_owned(),
    );
    checks.that(rule.subscribe != Access::Subscriber, &[&key("subscribe")], || {
        "cannot be subscriber: nobody is before subscribing; choose token or another".to_owned()
    });
    for (name, access) in accesses(rule).skip(1) {
        let possible = access != Access::Subscriber || rule.subscribe != Access::Nobody;
        checks.that(possible, &[&key(name), &key("subscribe")], || {
            "is for subscribers, but subscribe is nobody".to_owned()
        });
    }
}

/// The largest payload must fit through every door and into every buffer on its way.
fn sizes(config: &Config, rule: &Rule, path: &str, checks: &mut Checks<'_>) {
    let key = format!("{path}.max_size");
    let size = rule.max_size as u64;
    checks.that(size > 0, &[&key], || "must not be 0".to_owned());
    let mut fits = |bound: &str, bytes: usize| {
        checks.that(size < bytes as u64, &[&key, bound], || {
            format!(
                "must be less than {bound} ({}), which holds it with what surrounds it",
                format_size(bytes as u64)
            )
        });
    };
    fits("http.max_body_bytes", config.http.max_body_bytes);
    fits("edge.mailbox_max_bytes", config.edge.mailbox_max_bytes);
    if rule.publish != Access::Nobody {
        fits("edge.max_message_bytes", config.edge.max_message_bytes);
    }
    if rule.history != History::None {
        fits("channel.ring_bytes", config.channel.ring_bytes);
        fits("channel.gap_bytes", config.channel.gap_bytes);
    }
}
