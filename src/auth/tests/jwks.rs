//! JWK sets over real HTTP, on the loopback.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// An endpoint whose answer can be changed.
#[derive(Clone)]
struct Endpoint {
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
    url: String,
    tasks: Tasks,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            answer: Arc::new(Mutex::new((StatusCode::OK, String::new()))),
            asked: Arc::default(),
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
            tasks: Tasks::default(),
        };
        let (answer, asked) = (endpoint.answer.clone(), endpoint.asked.clone());
        let keys = get(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let (status, body) = answer.lock().clone();
            async move { (status, [("location", "/elsewhere")], body).into_response() }
        });
        let router = Router::new()
            .route("/keys", keys.clone())
            .route("/elsewhere", keys);
        endpoint.tasks.spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        endpoint
    }

    fn answers(&self, status: StatusCode, body: impl Into<String>) {
        *self.answer.lock() = (status, body.into());
    }

    /// Answers with a set of these keys and ids.
    fn has(&self, keys: &[(&str, &Value)]) {
        let keys: Vec<Value> = keys
            .iter()
            .map(|(id, key)| {
                let mut key = (*key).clone();
                key["kid"] = json!(id);
                key
            })
            .collect();
        self.answers(StatusCode::OK, json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn verifier(&self, change: impl FnOnce(&mut AuthConfig)) -> Verifier {
        let mut config = AuthConfig {
            jwks_url: Some(self.url.clone()),
            ..config()
        };
        change(&mut config);
        Verifier::new(&config, &HttpClient::default(), &self.tasks).unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn connect(verifier: &Verifier, token: &str) -> Result<String, TokenError> {
    timeout(PATIENCE, verifier.connect(token))
        .await
        .expect("an answer")
        .map(|claims| claims.user)
}

fn ann() -> Result<String, TokenError> {
    Ok("ann".to_owned())
}

#[tokio::test]
async fn a_set_is_fetched_once_for_all_who_wait_and_then_kept() {
    let endpoint = Endpoint::start().await;
    let names = ["rsa", "p256", "p384", "ed25519"];
    let keys: Vec<(&str, &Value)> = names.iter().map(|name| (*name, &pair(name).jwk)).collect();
    endpoint.has(&keys);
    let verifier = endpoint.verifier(|_| ());
    let algorithms = [
        Algorithm::RS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];
    let tokens: Vec<String> = names
        .iter()
        .zip(algorithms)
        .map(|(name, algorithm)| signed(algorithm, Some(name), &pair(name).private))
        .collect();
    let all = futures_util::future::join_all(
        tokens
            .iter()
            .cycle()
            .take(40)
            .map(|token| connect(&verifier, token)),
    );
    assert!(all.await.into_iter().all(|user| user == ann()));
    assert_eq!(endpoint.asked(), 1);
    // From now on the answer is there at the first poll.
    for token in &tokens {
        assert_eq!(super::connect(&verifier, token), ann());
    }
    // A genuine key under another's id is not tried, and the set has just been fetched.
    let misnamed = signed(Algorithm::ES256, Some("rsa"), &pair("p256").private);
    assert!(matches!(
        connect(&verifier, &misnamed).await,
        Err(TokenError::Invalid(_))
    ));
    assert_eq!(endpoint.asked(), 1);
}

#[tokio::test]
async fn keys_rotate() {
    let endpoint = Endpoint::start().await;
    let (old, new) = (pair("p256"), pair("other-p256"));
    let by_old = signed(Algorithm::ES256, Some("old"), &old.private);
    let by_new = signed(Algorithm::ES256, Some("new"), &new.private);
    endpoint.has(&[("old", &old.jwk)]);
    let verifier = endpoint.verifier(|config| config.jwks_min_refresh = Duration::ZERO);
    assert_eq!(connect(&verifier, &by_old).await, ann());
    endpoint.has(&[("new", &new.jwk), ("old", &old.jwk)]);
    assert_eq!(connect(&verifier, &by_new).await, ann());
    assert_eq!(connect(&verifier, &by_old).await, ann());
    assert_eq!(endpoint.asked(), 2);
    // The same id over another key is a forgery.
    let forged = signed(Algorithm::ES256, Some("new"), &old.private);
    assert!(matches!(
        connect(&verifier, &forged).await,
        Err(TokenError::Invalid(_))
    ));
    assert_eq!(endpoint.asked(), 2);
}

#[tokio::test]
async fn unknown_key_ids_cannot_force_fetches() {
    let endpoint = Endpoint::start().await;
    endpoint.has(&[("known", &pair("p256").jwk)]);
    let verifier = endpoint.verifier(|_| ());
    for index in 0..20 {
        let id = format!("unknown-{index}");
        let token = signed(Algorithm::ES256, Some(&id), &pair("p256").private);
        assert!(matches!(
            connect(&verifier, &token).await,
            Err(TokenError::Invalid(_))
        ));
    }
    // Nor can tokens that no fetched key could verify.
    let symmetric = signed(
        Algorithm::HS256,
        None,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    );
    assert!(matches!(
        connect(&verifier, &symmetric).await,
        Err(TokenError::Invalid(_))
    ));
    assert_eq!(endpoint.asked(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_cancel_the_fetch() {
    let endpoint = Endpoint::start().await;
    endpoint.has(&[("k", &pair("p256").jwk)]);
    let verifier = endpoint.verifier(|_| ());
    let token = signed(Algorithm::ES256, Some("k"), &pair("p256").private);
    assert!(verifier.connect(&token).now_or_never().is_none());
    assert_eq!(connect(&verifier, &token).await, ann());
    assert_eq!(endpoint.asked(), 1);
}

#[tokio::test]
async fn while_the_source_is_down_the_old_set_serves() {
    let endpoint = Endpoint::start().await;
    endpoint.has(&[("k", &pair("p256").jwk)]);
    let verifier = endpoint.verifier(|config| {
        config.jwks_ttl = Duration::ZERO;
        config.jwks_min_refresh = Duration::ZERO;
    });
    let token = signed(Algorithm::ES256, Some("k"), &pair("p256").private);
    assert_eq!(connect(&verifier, &token).await, ann());
    endpoint.answers(StatusCode::INTERNAL_SERVER_ERROR, "");
    for _ in 0..5 {
        assert_eq!(connect(&verifier, &token).await, ann());
    }
    let unknown = signed(Algorithm::ES256, Some("new"), &pair("other-p256").private);
    assert_eq!(connect(&verifier, &unknown).await, Err(TokenError::Unavailable));
    endpoint.has(&[("new", &pair("other-p256").jwk)]);
    assert_eq!(connect(&verifier, &unknown).await, ann());
    assert!(matches!(
        connect(&verifier, &token).await,
        Err(TokenError::Invalid(_))
    ));
}

#[tokio::test]
async fn a_source_without_a_usable_set() {
    let p256 = &pair("p256").jwk;
    let token = signed(Algorithm::ES256, Some("k"), &pair("p256").private);
    let key = |change: Value| {
        let mut key = p256.clone();
        key["kid"] = json!("k");
        key.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        json!({ "keys": [{"kty": "future"}, {"kty": "EC", "crv": "P-256"}, 5, key] }).to_string()
    };
    let oct = json!({"keys": [{"kty": "oct", "kid": "k", "k": URL_SAFE_NO_PAD.encode(SECRET)}]}).to_string();
    let invalid = Err(TokenError::Invalid("no key for its algorithm and key id"));
    let by_secret = signed(
        Algorithm::HS256,
        Some("k"),
        &EncodingKey::from_secret(SECRET.as_bytes()),
    );
    let large = format!("{}{}", " ".repeat(256 * 1024), key(json!({})));
    for (name, status, body, token, expected) in [
        (
            "sound, among others that are not",
            StatusCode::OK,
            key(json!({})),
            &token,
            ann(),
        ),
        (
            "for signatures",
            StatusCode::OK,
            key(json!({"use": "sig", "alg": "ES256", "key_ops": ["verify"]})),
            &token,
            ann(),
        ),
        (
            "for encryption",
            StatusCode::OK,
            key(json!({"use": "enc"})),
            &token,
            invalid.clone(),
        ),
        (
            "for another operation",
            StatusCode::OK,
            key(json!({"key_ops": ["encrypt"]})),
            &token,
            invalid.clone(),
        ),
        (
            "for another algorithm",
            StatusCode::OK,
            key(json!({"alg": "ES384"})),
            &token,
            invalid.clone(),
        ),
        ("symmetric", StatusCode::OK, oct, &by_secret, invalid.clone()),
        (
            "empty",
            StatusCode::OK,
            json!({"keys": []}).to_string(),
            &token,
            invalid.clone(),
        ),
        (
            "no set",
            StatusCode::OK,
            "[]".to_owned(),
            &token,
            Err(TokenError::Unavailable),
        ),
        (
            "no JSON",
            StatusCode::OK,
            "<html>".to_owned(),
            &token,
            Err(TokenError::Unavailable),
        ),
        (
            "too large",
            StatusCode::OK,
            large,
            &token,
            Err(TokenError::Unavailable),
        ),
        (
            "not found",
            StatusCode::NOT_FOUND,
            key(json!({})),
            &token,
            Err(TokenError::Unavailable),
        ),
        (
            "redirect",
            StatusCode::FOUND,
            key(json!({})),
            &token,
            Err(TokenError::Unavailable),
        ),
    ] {
        let endpoint = Endpoint::start().await;
        endpoint.answers(status, body);
        let verifier = endpoint.verifier(|_| ());
        assert_eq!(connect(&verifier, token).await, expected, "{name}");
        assert!(endpoint.asked() <= 1, "{name}");
    }
}

#[tokio::test]
async fn a_source_that_hangs_or_is_not_there() {
    let token = signed(Algorithm::ES256, Some("k"), &pair("p256").private);
    // Accepts connections (the kernel does) and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("http://{}/", silent.local_addr().unwrap());
    for url in [hangs, "http://127.0.0.1:1/".to_owned()] {
        let config = AuthConfig {
            jwks_url: Some(url),
            jwks_timeout: Duration::from_millis(50),
            ..config()
        };
        let tasks = Tasks::default();
        let verifier = Verifier::new(&config, &HttpClient::default(), &tasks).unwrap();
        assert_eq!(connect(&verifier, &token).await, Err(TokenError::Unavailable));
        timeout(PATIENCE, tasks.finished())
            .await
            .expect("no task is left");
    }
}

#[tokio::test]
async fn a_node_that_stops_leaves_nobody_waiting() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let tasks = Tasks::default();
    let config = AuthConfig {
        jwks_url: Some(url),
        jwks_timeout: PATIENCE * 2,
        ..config()
    };
    let verifier = Verifier::new(&config, &HttpClient::default(), &tasks).unwrap();
    let token = signed(Algorithm::ES256, Some("k"), &pair("p256").private);
    let waiting = connect(&verifier, &token);
    let stopping = async {
        let _ = timeout(PATIENCE, silent.accept()).await.expect("a fetch");
        tasks.stop();
    };
    let (refused, ()) = tokio::join!(waiting, stopping);
    assert_eq!(refused, Err(TokenError::Unavailable));
}
