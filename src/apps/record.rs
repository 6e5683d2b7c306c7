//! An app as the control plane gives it to the nodes: the value of a key of a bucket, under the app's id.
//! `docs/log-format.md` has the form.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    auth::{ApiKeys, KeyHash, SigningKey},
    config::{AppConfig, Config, ConfigErrors, Secret},
    model::{AppId, Quotas},
};

/// The version of the form that this program writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// Which version of the app this is; more with each change.
    pub version: u64,
    /// Its settings, as in `[[apps]]` (docs/configuration.md).
    pub settings: Value,
    /// Its keys.
    #[serde(default)]
    pub keys: Vec<KeyRecord>,
    /// What its plan allows; it is not among the settings, which are the app's owner's.
    #[serde(
        default,
        deserialize_with = "Quotas::lenient",
        skip_serializing_if = "Quotas::is_empty"
    )]
    pub quotas: Quotas,
}

/// A key of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// What it is called.
    pub id: String,
    /// The SHA-256 of its text, 64 hexadecimal digits: backends present the text as their API key.
    pub hash: String,
    /// Its text, sealed, if tokens are signed with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Seconds since 1970 until which it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// Opens what was sealed: the text of a key, by its app and id. `None` if it cannot be opened.
pub type Opener = Box<dyn Fn(&AppId, &str, &str) -> Option<Secret> + Send + Sync>;

/// What the text of a key is sealed for.
pub fn key_purpose<'a>(app: &'a AppId, key: &'a str) -> [&'a str; 3] {
    ["app key", app.as_str(), key]
}

/// Why a record is not an app.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON of the form.
    #[error("it cannot be read")]
    Unreadable,
    /// It is of another version of the form.
    #[error("its format is {0}, and this program reads {FORMAT}")]
    Format(u32),
    /// A key's hash is none.
    #[error("the hash of key {0} is none")]
    Hash(String),
    /// A key's secret cannot be opened: this node has not the key it is sealed with.
    #[error(
        "the secret of key {0} cannot be opened: is this node's tenants.sealing_keys the control plane's?"
    )]
    Sealed(String),
    /// The settings cannot be used on this node.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
}

/// What an app needs of its keys.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Keys of backends.
    pub api_keys: ApiKeys,
    /// Secrets that tokens are signed with, beside those of its settings.
    pub signing_keys: Vec<SigningKey>,
}

impl AppRecord {
    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: unreadable, or of another format.
    pub fn parse(json: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_slice(json).map_err(|_| RecordError::Unreadable)?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        serde_json::from_slice(json).map_err(|_| RecordError::Unreadable)
    }

    /// Until when the key of that id is good; `None` if it names no such key. Whatever else of it cannot be
    /// used.
    pub(super) fn until_of(&self, id: &str) -> Option<Option<i64>> {
        let key = self.keys.iter().find(|key| key.id == id);
        key.map(|key| key.until)
    }

    /// The same of the key with that hash.
    pub(super) fn until_of_hash(&self, wanted: &KeyHash) -> Option<Option<i64>> {
        let key = self.keys.iter().find(|key| hash(&key.hash) == Some(*wanted));
        key.map(|key| key.until)
    }

    /// The app that it describes, on a node that is configured as `node` is.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub fn read(
        &self,
        id: &AppId,
        node: &Config,
        open: &Opener,
    ) -> Result<(AppConfig, Credentials), RecordError> {
        let mut hashes = Vec::new();
        let mut signing_keys = Vec::new();
        for key in &self.keys {
            let hash = hash(&key.hash).ok_or_else(|| RecordError::Hash(key.id.clone()))?;
            hashes.push((Some(key.id.as_str().into()), hash, key.until));
            if let Some(sealed) = &key.secret {
                let secret = open(id, &key.id, sealed).ok_or_else(|| RecordError::Sealed(key.id.clone()))?;
                signing_keys.push(SigningKey {
                    id: key.id.clone(),
                    secret,
                    until: key.until,
                });
            }
        }
        let mut app = AppConfig::from_document(id, &self.settings, !signing_keys.is_empty(), node)?;
        app.quotas.clone_from(&self.quotas);
        let credentials = Credentials {
            api_keys: hashes.into_iter().collect(),
            signing_keys,
        };
        Ok((app, credentials))
    }
}

fn hash(hex: &str) -> Option<KeyHash> {
    let mut hash = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{auth::PresentedKey, config::Sources};

    fn read(record: &Value, open: &Opener) -> Result<(AppConfig, Credentials), String> {
        let node = Config::load(&Sources::default()).unwrap();
        let id = AppId::new("a").unwrap();
        let record = AppRecord::parse(record.to_string().as_bytes());
        let read = record.and_then(|record| record.read(&id, &node, open));
        read.map_err(|why| why.to_string())
    }

    #[test]
    fn what_a_record_says() {
        // SHA-256 of "abc" (FIPS 180-4, example).
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let record = json!({
            "format": 1,
            "version": 7,
            "later": "unknown fields are passed over",
            "settings": {"namespaces": [{"name": "", "subscribe": "token"}]},
            "keys": [
                {"id": "k1", "hash": abc, "secret": "sealed"},
                {"id": "k2", "hash": abc.to_uppercase(), "until": 5},
            ],
            "quotas": {"channels": 7, "later": 1},
        });
        let open: Opener = Box::new(|app, key, sealed| {
            assert_eq!((app.as_str(), key, sealed), ("a", "k1", "sealed"));
            Some(Secret::new("opened"))
        });
        let (app, credentials) = read(&record, &open).unwrap();
        assert_eq!(app.namespaces.len(), 1);
        assert_eq!((app.quotas.channels, app.quotas.devices), (Some(7), None));
        assert!(credentials.api_keys.accept(&PresentedKey::new("abc")));
        assert_eq!(credentials.signing_keys.len(), 1);
        assert_eq!(credentials.signing_keys[0].secret.expose(), "opened");

        let closed: Opener = Box::new(|_, _, _| None);
        let with = |key: &str, value: Value| {
            let mut record = record.clone();
            record[key] = value;
            read(&record, &closed).map(|_| ()).unwrap_err()
        };
        assert!(with("version", json!(8)).starts_with("the secret of key k1 cannot be opened"));
        assert_eq!(
            with("format", json!(2)),
            "its format is 2, and this program reads 1"
        );
        assert_eq!(with("format", json!("1")), "it cannot be read");
        let short = json!([{"id": "k", "hash": "ba78"}]);
        assert_eq!(with("keys", short), "the hash of key k is none");
        let no_hex = json!([{"id": "k", "hash": "zz".repeat(32)}]);
        assert_eq!(with("keys", no_hex), "the hash of key k is none");
        let mut unkeyed = record.clone();
        unkeyed["keys"] = json!([]);
        let why = read(&unkeyed, &closed).map(|_| ()).unwrap_err();
        assert!(why.contains("wants a token"), "{why}");
    }
}
