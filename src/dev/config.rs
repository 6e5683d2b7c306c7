use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};

use super::{DataDir, DataDirError, NatsServer};
use crate::config::{Config, ConfigErrors, MailTransport, Secret, Sources};

/// The id of the app that `slipstream dev` serves.
pub const APP: &str = "dev";

const SETTINGS: &str = include_str!("dev.toml");

/// The secrets of the app.
#[derive(Clone, Debug)]
pub struct DevKeys {
    /// For REST and the server API.
    pub api_key: Secret,
    /// For tokens of connections and subscriptions (HS256).
    pub token_secret: Secret,
}

/// The configuration of `slipstream dev`, except for what only the running nats-server knows. With
/// a file in `sources` that file counts, and the app `dev` is added to it unless it defines its own.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn config(sources: &Sources, keys: &DevKeys) -> Result<Config, ConfigErrors> {
    if sources.file.is_none() {
        return own(sources, keys);
    }
    let mut config = Config::load(sources)?;
    if config.apps.iter().any(|app| app.id.as_str() == APP) {
        return add_key(config, keys);
    }
    let own = own(&Sources::default(), keys)?;
    for class in own.log.classes {
        if config.log.classes.iter().all(|known| known.name != class.name) {
            config.log.classes.push(class);
        }
    }
    config.apps.extend(own.apps);
    config.node.default_app = config.node.default_app.or(own.node.default_app);
    config.validate().map(|()| config)
}

/// The settings of this module with the environment and the options of `sources` above them.
fn own(sources: &Sources, keys: &DevKeys) -> Result<Config, ConfigErrors> {
    let mut sources = sources.clone();
    sources.file = Some((PathBuf::from("dev.toml"), SETTINGS.to_owned()));
    sources.overrides.push((
        "apps.0.auth.hmac_secret".to_owned(),
        keys.token_secret.expose().to_owned(),
    ));
    add_key(Config::load(&sources)?, keys)
}

fn add_key(mut config: Config, keys: &DevKeys) -> Result<Config, ConfigErrors> {
    for app in config.apps.iter_mut().filter(|app| app.id.as_str() == APP) {
        if !app.api_keys.contains(&keys.api_key) {
            app.api_keys.push(keys.api_key.clone());
        }
    }
    config.validate().map(|()| config)
}

/// Gives the control plane what it needs and the configuration does not say: a store, secrets and a place for
/// letters, all in the data folder.
///
/// # Errors
///
/// The folder cannot be used.
pub fn use_control(config: &mut Config, data_dir: &DataDir) -> Result<(), DataDirError> {
    let path = data_dir.path();
    if config.store.url.is_none() {
        let file = path.join("store.db");
        config.store.url = Some(Secret::new(format!("sqlite:{}", file.display())));
    }
    if config.tenants.sealing_keys.is_empty() {
        // 32 bytes are wanted, of which the file's secret has 16 bytes of randomness: enough for one machine.
        let hash = digest(&SHA256, data_dir.secret("sealing-secret")?.expose().as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        config.tenants.sealing_keys = vec![Secret::new(hex)];
    }
    let control = &mut config.control;
    if control.session_secret.is_none() {
        control.session_secret = Some(data_dir.secret("session-secret")?);
    }
    if control.operator_key.is_none() {
        control.operator_key = Some(data_dir.secret("operator-key")?);
    }
    if control.public_url.is_empty() {
        control.public_url = format!("http://{}", config.http.listen);
    }
    if config.mail.transport == MailTransport::None {
        config.mail.transport = MailTransport::File;
        config.mail.folder.get_or_insert_with(|| path.join("mail"));
        if config.mail.from.is_empty() {
            config.mail.from = "Slipstream <dev@localhost>".to_owned();
        }
    }
    Ok(())
}

/// Points `config` at the child nats-server, whatever it said about another one.
pub(super) fn use_nats(config: &mut Config, nats: &NatsServer) {
    config.nats.servers = vec![nats.url().to_owned()];
    config.nats.token = Some(nats.token().clone());
    (config.nats.user, config.nats.password) = (None, None);
    (config.nats.credentials, config.nats.ca_file) = (None, None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, History};

    fn keys() -> DevKeys {
        DevKeys {
            api_key: Secret::new("k0123456789abcdef0123456789abcdef"),
            token_secret: Secret::new("k123456789abcdef0123456789abcdef0"),
        }
    }

    fn sources(file: &str) -> Sources {
        Sources {
            file: Some((PathBuf::from("my.toml"), file.to_owned())),
            ..Sources::default()
        }
    }

    fn ids(config: &Config) -> Vec<&str> {
        config.apps.iter().map(|app| app.id.as_str()).collect()
    }

    #[test]
    fn there_are_three_namespaces_to_play_with() {
        let config = config(&Sources::default(), &keys()).unwrap();
        assert_eq!(ids(&config), [APP]);
        let app = &config.apps[0];
        assert_eq!(config.node.default_app, Some(app.id.clone()));
        assert!(app.anonymous);
        assert_eq!(app.api_keys, [keys().api_key]);
        let found: Vec<_> = app
            .namespaces
            .iter()
            .map(|(name, rule)| (name.as_str(), rule.history != History::None, rule.subscribe))
            .collect();
        let wanted = [
            ("public", true, Access::Anyone),
            ("chat", true, Access::Token),
            ("live", false, Access::Anyone),
        ];
        assert_eq!(found, wanted);
        assert!(config.http.listen.ip().is_loopback());
    }

    #[test]
    fn a_file_counts_and_the_app_is_added_to_it() {
        let file = "[edge]\nmax_channels = 7\n[[log.classes]]\nname = \"mine\"\n[[apps]]\nid = \"shop\"\nanonymous = true\n";
        let config = config(&sources(file), &keys()).unwrap();
        assert_eq!(config.edge.max_channels, 7);
        assert_eq!(ids(&config), ["shop", APP]);
        let classes: Vec<_> = config
            .log
            .classes
            .iter()
            .map(|class| class.name.as_str())
            .collect();
        assert_eq!(classes, ["mine", "std"]);
        assert_eq!(config.node.default_app.map(String::from), Some(APP.to_owned()));
    }

    #[test]
    fn a_file_may_define_the_app_itself() {
        let file = "[[apps]]\nid = \"dev\"\nanonymous = true\n[[apps.namespaces]]\nname = \"mine\"\nsubscribe = \"anyone\"\n";
        let config = config(&sources(file), &keys()).unwrap();
        assert_eq!(ids(&config), [APP]);
        assert_eq!(config.apps[0].namespaces.len(), 1);
        assert_eq!(config.apps[0].api_keys, [keys().api_key]);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told() {
        let error = config(&sources("[edge]\nmax_chanels = 7\n"), &keys()).unwrap_err();
        assert!(error.to_string().contains("max_chanels"), "{error}");
    }
}
