//! Plans: what the apps of a team may have at most. Pure.

use serde_json::Value;

use super::apps::Reason;
use crate::{
    config::{AppConfig, Config},
    model::History,
};

pub use crate::model::Quotas;

/// A feature that an app may have only where its plan says how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name in an app's `flags`.
    pub name: &'static str,
    /// The quota that must be bound, above 0.
    pub quota: &'static str,
}

/// All features that are not for everybody.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "push",
        quota: "devices",
    },
    Flag {
        name: "webhooks",
        quota: "webhooks",
    },
];

/// Why an app does not fit its plan: everything, at once. `settings` are what its team has said, `app` is that with
/// what it has not said. What nobody has said is not above anything: nodes hold the app to its quotas.
pub fn check(
    quotas: &Quotas,
    flags: &[String],
    settings: &Value,
    app: &AppConfig,
    node: &Config,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut within = |path: &str, value: u64, quota: &str| {
        if let Some(most) = quotas.of(quota)
            && value > most
        {
            reasons.push(Reason::new(
                path,
                format!("is above the plan's {quota}, which is {most}"),
            ));
        }
    };
    // 0 is no limit of its own: what the plan says counts, on all nodes together.
    let limits = &app.limits;
    let connections = limits.max_connections as u64;
    within("limits.max_connections", connections, "peak_connections");
    within(
        "limits.publish_rate",
        limits.publish_rate.into(),
        "messages_per_second",
    );
    for (name, rule) in &app.namespaces {
        let path = |key: &str| format!("namespaces[{name}].{key}");
        if says(settings, name, "max_size") {
            within(&path("max_size"), rule.max_size as u64, "message_bytes");
        }
        if let History::Class(class) = &rule.history
            && let Some(class) = node.log.classes.iter().find(|known| known.name == *class)
        {
            within(&path("history"), class.max_age.as_secs(), "history_seconds");
        }
    }
    for (index, flag) in flags.iter().enumerate() {
        let path = format!("flags[{index}]");
        match FLAGS.iter().find(|known| known.name == flag) {
            None => reasons.push(Reason::new(&path, "is no feature".to_owned())),
            Some(known) if quotas.of(known.quota).is_none_or(|most| most == 0) => {
                reasons.push(Reason::new(
                    &path,
                    format!("needs a plan that says how many {} there may be", known.quota),
                ));
            }
            Some(_) if flags[..index].contains(flag) => {
                reasons.push(Reason::new(&path, "is there twice".to_owned()));
            }
            Some(_) => {}
        }
    }
    reasons
}

/// Whether the settings of a namespace have a key.
fn says(settings: &Value, namespace: &str, key: &str) -> bool {
    let namespaces = settings.get("namespaces").and_then(Value::as_array);
    let mut namespaces = namespaces.into_iter().flatten();
    namespaces.any(|it| it.get("name").and_then(Value::as_str) == Some(namespace) && it.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::Sources, model::AppId};

    fn paths(quotas: &Quotas, flags: &[&str]) -> Vec<String> {
        let node = Config::load(&Sources::default()).unwrap();
        let settings = json!({
            "anonymous": true,
            "limits": {"max_connections": 100, "publish_rate": 50},
            "namespaces": [
                {"name": "chat", "history": "std", "subscribe": "anyone", "max_size": "8KiB"},
                {"name": "live", "subscribe": "anyone", "max_size": "16KiB"},
            ],
        });
        let app = AppConfig::from_document(&AppId::new("a").unwrap(), &settings, false, &node).unwrap();
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let reasons = check(quotas, &flags, &settings, &app, &node).into_iter();
        reasons.map(|reason| reason.path).collect()
    }

    #[test]
    fn an_app_must_fit_its_plan_in_everything() {
        assert_eq!(paths(&Quotas::default(), &[]), [""; 0]);
        let exact = Quotas {
            peak_connections: Some(100),
            messages_per_second: Some(50),
            message_bytes: Some(16 * 1024),
            ..Quotas::default()
        };
        assert_eq!(paths(&exact, &[]), [""; 0]);
        let small = Quotas {
            peak_connections: Some(99),
            messages_per_second: Some(49),
            message_bytes: Some(10_000),
            history_seconds: Some(1),
            devices: Some(5),
            webhooks: Some(0),
            ..Quotas::default()
        };
        assert_eq!(
            paths(&small, &["push", "webhooks", "nosuch", "push"]),
            [
                "limits.max_connections",
                "limits.publish_rate",
                "namespaces[chat].history",
                "namespaces[live].max_size",
                "flags[1]",
                "flags[2]",
                "flags[3]",
            ]
        );
    }

    #[test]
    fn what_nobody_has_said_is_above_nothing() {
        let node = Config::load(&Sources::default()).unwrap();
        let settings = json!({"anonymous": true, "namespaces": [{"name": "a", "subscribe": "anyone"}]});
        let app = AppConfig::from_document(&AppId::new("a").unwrap(), &settings, false, &node).unwrap();
        let quotas = Quotas {
            peak_connections: Some(5),
            messages_per_second: Some(5),
            message_bytes: Some(5),
            ..Quotas::default()
        };
        assert_eq!(check(&quotas, &[], &settings, &app, &node), []);
    }

    #[test]
    fn each_feature_has_its_quota() {
        assert!(
            FLAGS
                .iter()
                .all(|flag| Quotas::ALL.iter().any(|(name, _)| *name == flag.quota))
        );
    }
}
