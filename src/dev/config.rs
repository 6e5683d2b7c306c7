use std::{net::SocketAddr, time::Duration};

use super::NatsServer;
use crate::{
    config::{AppConfig, AuthConfig, ClassConfig, Config, LimitsConfig, Secret},
    model::{Access, AppId, ClassName, History, Rule},
};

/// The id of the app that `slipstream dev` serves.
pub const APP: &str = "dev";

/// The class of its durable namespaces.
const CLASS: &str = "std";

/// The secrets of the app.
#[derive(Clone, Debug)]
pub struct DevKeys {
    /// For REST and the server API.
    pub api_key: Secret,
    /// For tokens of connections and subscriptions (HS256).
    pub token_secret: Secret,
}

/// Turns what the file and the environment say into the configuration of `slipstream dev`: its own
/// listener and nats-server always, its app and retention class unless they are defined there.
pub(super) fn config(mut base: Config, listen: SocketAddr, nats: &NatsServer, keys: &DevKeys) -> Config {
    base.http.listen = listen;
    base.http.expose_operations = true;
    base.nats.servers = vec![nats.url().to_owned()];
    base.nats.token = Some(nats.token().clone());
    (base.nats.user, base.nats.password) = (None, None);
    (base.nats.credentials, base.nats.ca_file) = (None, None);
    add_app(&mut base, keys);
    base
}

#[expect(
    clippy::expect_used,
    reason = "two constants, which the test of this module passes through"
)]
fn add_app(base: &mut Config, keys: &DevKeys) {
    let id = AppId::new(APP).expect("an app id");
    let class = ClassName::new(CLASS).expect("a class name");
    if !base.log.classes.iter().any(|known| known.name == class) {
        base.log.classes.push(std_class(class.clone()));
    }
    if !base.apps.iter().any(|known| known.id == id) {
        base.apps.push(dev_app(id.clone(), class, keys));
    }
    base.node.default_app.get_or_insert(id);
}

fn std_class(name: ClassName) -> ClassConfig {
    ClassConfig {
        name,
        shards: 4,
        max_age: Duration::from_secs(24 * 60 * 60),
        max_bytes: 1 << 30,
        max_per_channel: None,
        duplicate_window: Duration::from_secs(120),
        replicas: 1,
        placement_tags: Vec::new(),
    }
}

fn dev_app(id: AppId, class: ClassName, keys: &DevKeys) -> AppConfig {
    let open = |history| Rule {
        recovery: history != History::None,
        read_history: if history == History::None {
            Access::Nobody
        } else {
            Access::Anyone
        },
        history,
        subscribe: Access::Anyone,
        publish: Access::Anyone,
        max_size: 64 * 1024,
        rate: 0,
    };
    let durable = open(History::Class(class));
    let chat = Rule {
        subscribe: Access::Token,
        publish: Access::Subscriber,
        read_history: Access::Subscriber,
        ..durable.clone()
    };
    AppConfig {
        id,
        api_keys: vec![keys.api_key.clone()],
        allowed_origins: Vec::new(),
        anonymous: true,
        auth: Some(AuthConfig {
            hmac_secret: Some(keys.token_secret.clone()),
            ..AuthConfig::default()
        }),
        limits: LimitsConfig::default(),
        namespaces: vec![
            ("public".to_owned(), durable),
            ("chat".to_owned(), chat),
            ("live".to_owned(), open(History::None)),
        ],
    }
}
