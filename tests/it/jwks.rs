//! JWK sets over HTTPS, as a deployment has them: the real binary, and what the system trusts.

use std::path::PathBuf;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use slipstream::task::Tasks;

use crate::support::{client::Client, edge::Edge, nats::NatsServer, tls::Authority, until};

/// What an edge that trusts `ca_file` says to a client whose token is signed with the set's key, as
/// soon as it has said anything.
async fn connects(authority: &Authority, ca_file: PathBuf) -> bool {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": public, "kid": "one"}]});
    let private = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("one".to_owned());
    let token = jsonwebtoken::encode(&header, &json!({"sub": "ann"}), &private).unwrap();

    let tasks = Tasks::default();
    let url = authority.serve(set.to_string(), &tasks).await;
    let nats = NatsServer::start().await;
    let edge = Edge::builder()
        .nats(&[nats.url()])
        .set("apps.0.auth.jwks_url", &url)
        // In the place of the system's own.
        .env("SSL_CERT_FILE", ca_file.to_str().unwrap())
        .spawn()
        .await;
    let client = Client::begin(edge.addr, json!({"token": token}));
    let connected = until("the edge has decided", || async {
        let record = client.record();
        (record.connected || edge.output().contains("jwk set not fetched")).then_some(record.connected)
    })
    .await;
    tasks.stop();
    connected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_is_fetched_from_a_server_that_the_system_trusts_and_from_no_other() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    assert!(connects(&authority, authority.ca_file()).await);
    assert!(!connects(&authority, stranger.ca_file()).await);
}
