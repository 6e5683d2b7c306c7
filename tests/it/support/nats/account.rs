use std::path::Path;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// What `nsc` calls unlimited.
const UNLIMITED: [&str; 7] = ["subs", "data", "payload", "imports", "exports", "conn", "leaf"];
const STORED: [&str; 4] = ["mem_storage", "disk_storage", "streams", "consumer"];

/// An operator with an account for its users and one for the system, as `nsc` would make them:
/// nobody gets in without a user's credentials.
pub(crate) struct Operator {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    /// A fresh one.
    pub(crate) fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
        }
    }

    /// Lines of nats-server's configuration.
    pub(crate) fn nats_lines(&self) -> String {
        let operator = jwt(&self.operator, &self.operator, &json!({"type": "operator"}));
        let account = |account: &KeyPair, limited: &[&str]| {
            let mut limits = json!({"wildcards": true});
            for limit in limited {
                limits[limit] = (-1).into();
            }
            let what = json!({"type": "account", "limits": limits});
            format!(
                "{}: {}",
                account.public_key(),
                jwt(&self.operator, account, &what)
            )
        };
        format!(
            "operator: {operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n{}\n}}",
            self.system.public_key(),
            account(&self.system, &UNLIMITED),
            account(&self.account, &[&UNLIMITED[..], &STORED].concat()),
        )
    }

    /// Writes the credentials of a new user of the account; returns the user's seed.
    pub(crate) fn write_credentials(&self, file: &Path) -> String {
        let user = KeyPair::new_user();
        let token = jwt(
            &self.account,
            &user,
            &json!({"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}),
        );
        let seed = user.seed().unwrap();
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(file, credentials).unwrap();
        seed
    }
}

/// What `issuer` says of `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, what: &Value) -> String {
    let mut nats = what.clone();
    nats["version"] = 2.into();
    let claims = json!({
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": "test",
        "jti": subject.public_key(),
        "iat": 1_700_000_000,
        "nats": nats,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let signed = format!("{header}.{}", part(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
