//! A node's connections where the servers ask for TLS or credentials: those of async-nats and the
//! link's alike.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use slipstream::{
    config::{NatsConfig, Secret},
    log::{Log, nats::StartError},
};

use super::{next, publish, route, subscribe, text};
use crate::support::nats::{NatsServer, TestLog, log_config, nats_config};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/tls")
        .join(name)
}

/// A publication goes round, so every connection works.
async fn works(nats: &NatsConfig) {
    let log = TestLog::start_with(nats, &log_config()).await.unwrap();
    assert!(log.connected());
    let route = route(&log, "std", "chat:x");
    let mut copies = subscribe(&log, &route).await;
    publish(&log, &route, "hello").await;
    assert_eq!(text(&next(&mut copies).await.stored.body), "hello");
}

async fn refused(nats: &NatsConfig) {
    let Err(error) = TestLog::start_with(nats, &log_config()).await else {
        panic!("the node has started");
    };
    assert!(matches!(error, StartError::Connect { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_a_token_on_every_connection() {
    let server = NatsServer::start_with(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}\nauthorization {{ token: open-sesame }}",
        golden("server.pem"),
        golden("server.key"),
    ))
    .await;
    let nats = NatsConfig {
        token: Some(Secret::new("open-sesame")),
        ca_file: Some(golden("ca.pem")),
        ..nats_config(&[server.url()])
    };
    works(&nats).await;
    refused(&NatsConfig {
        token: Some(Secret::new("open")),
        ..nats.clone()
    })
    .await;
    // Not who has signed the server's certificate.
    refused(&NatsConfig {
        ca_file: Some(golden("server.pem")),
        ..nats
    })
    .await;
}

/// A JWT as nats-server reads it, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &str, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = [
        encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"})),
        encode(&json!({
            "jti": "x", "iat": 1, "iss": issuer.public_key(), "sub": subject, "name": "x", "nats": claims,
        })),
    ]
    .join(".");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(body.as_bytes()).unwrap());
    format!("{body}.{signature}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file_signs_every_connection_in() {
    let (operator, account, system) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let [operator_id, account_id, system_id] = [&operator, &account, &system].map(KeyPair::public_key);
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let no_stream = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1,
    });
    let of_account = |id: &str, limits: Value| {
        jwt(
            &operator,
            id,
            &json!({"limits": limits, "type": "account", "version": 2}),
        )
    };
    let server = NatsServer::start_with(&format!(
        "operator: {}\nsystem_account: {system_id}\nresolver: MEMORY\n\
         resolver_preload: {{ {account_id}: {}, {system_id}: {} }}",
        jwt(
            &operator,
            &operator_id,
            &json!({"type": "operator", "version": 2, "system_account": system_id}),
        ),
        of_account(&account_id, limits),
        of_account(&system_id, no_stream),
    ))
    .await;

    let folder = tempfile::tempdir().unwrap();
    let credentials = |name: &str, seed: &KeyPair| {
        let claims = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
        let path = folder.path().join(name);
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(&account, &user.public_key(), &claims),
            seed.seed().unwrap()
        );
        std::fs::write(&path, text).unwrap();
        NatsConfig {
            credentials: Some(path),
            ..nats_config(&[server.url()])
        }
    };
    works(&credentials("user.creds", &user)).await;
    refused(&credentials("stranger.creds", &stranger)).await;
}
