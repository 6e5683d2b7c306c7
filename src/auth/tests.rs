use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::config::Secret;

mod jwks;
mod keys;

use keys::{Pair, pair};

const SECRET: &str = "a shared secret of thirty-two by";

fn config() -> AuthConfig {
    AuthConfig {
        jwks_ttl: Duration::from_secs(600),
        jwks_min_refresh: Duration::from_secs(600),
        jwks_max_stale: Duration::from_secs(600),
        jwks_timeout: Duration::from_secs(5),
        jwks_max_bytes: 256 * 1024,
        jwks_max_keys: 64,
        max_token_bytes: 8 * 1024,
        ..AuthConfig::default()
    }
}

fn verifier(config: &AuthConfig) -> Verifier {
    Verifier::new(config, &HttpClient::default(), &Tasks::default()).unwrap()
}

fn hmac() -> Verifier {
    verifier(&AuthConfig {
        hmac_secret: Some(Secret::new(SECRET)),
        ..config()
    })
}

/// A connection token for "ann" that is valid for a minute.
fn signed(algorithm: Algorithm, key_id: Option<&str>, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = key_id.map(str::to_owned);
    jsonwebtoken::encode(&header, &json!({"sub": "ann", "exp": unix_now() + 60}), key).unwrap()
}

/// Local keys need no waiting: the answer is there at the first poll.
fn connect(verifier: &Verifier, token: &str) -> Result<String, TokenError> {
    verifier
        .connect(token)
        .now_or_never()
        .expect("ready at once")
        .map(|claims| claims.user)
}

/// A token put together by hand: header, claims, and a signature over them if there is a key.
fn forged(header: &Value, claims: &Value, key: Option<&[u8]>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = key.map_or(String::new(), |key| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()))
    });
    format!("{signed}.{signature}")
}

#[test]
fn each_kind_of_key_verifies_its_algorithms_and_no_other() {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, RS256, RS384, RS512};
    let all = [HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384, EdDSA];
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let pairs: Vec<(&[Algorithm], &Pair)> = vec![
        (&[RS256, RS384, RS512], pair("rsa")),
        (&[ES256], pair("p256")),
        (&[ES384], pair("p384")),
        (&[EdDSA], pair("ed25519")),
    ];
    let signer = |algorithm: Algorithm| {
        let found = pairs
            .iter()
            .find(|(algorithms, _)| algorithms.contains(&algorithm));
        found.map_or(&secret, |(_, pair)| &pair.private)
    };
    let mut verifiers = vec![(&[HS256, HS384, HS512][..], hmac())];
    for (algorithms, pair) in &pairs {
        verifiers.push((
            algorithms,
            verifier(&AuthConfig {
                public_keys: vec![pair.pem.clone()],
                ..config()
            }),
        ));
    }
    for (own, verifier) in &verifiers {
        for algorithm in all {
            let token = signed(algorithm, Some("any"), signer(algorithm));
            let accepted = connect(verifier, &token) == Ok("ann".to_owned());
            assert_eq!(accepted, own.contains(&algorithm), "{algorithm:?} with {own:?}");
        }
    }
    let everything = verifier(&AuthConfig {
        hmac_secret: Some(Secret::new(SECRET)),
        public_keys: pairs.iter().map(|(_, pair)| pair.pem.clone()).collect(),
        ..config()
    });
    for algorithm in all {
        let token = signed(algorithm, None, signer(algorithm));
        assert_eq!(
            connect(&everything, &token),
            Ok("ann".to_owned()),
            "{algorithm:?}"
        );
    }
}

#[test]
fn forged_and_confused_tokens_are_refused() {
    let claims = json!({"sub": "ann"});
    let jwt = json!({"alg": "HS256", "typ": "JWT"});
    let rsa = pair("rsa");
    let public = verifier(&AuthConfig {
        public_keys: vec![rsa.pem.clone()],
        ..config()
    });
    let der = STANDARD
        .decode(
            rsa.pem
                .lines()
                .filter(|line| !line.starts_with('-'))
                .collect::<String>(),
        )
        .unwrap();
    let good = forged(&jwt, &claims, Some(SECRET.as_bytes()));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let swapped = forged(&jwt, &json!({"sub": "eve"}), None);
    let hmac = hmac();
    assert_eq!(connect(&hmac, &good), Ok("ann".to_owned()));
    let alg = |alg: &str| forged(&json!({ "alg": alg }), &claims, Some(SECRET.as_bytes()));
    for (name, verifier, token) in [
        ("alg none", &hmac, forged(&json!({"alg": "none"}), &claims, None)),
        ("alg none, signed", &hmac, alg("none")),
        ("alg None", &hmac, alg("None")),
        ("alg nOnE, public key", &public, alg("nOnE")),
        (
            "alg missing",
            &hmac,
            forged(&json!({"typ": "JWT"}), &claims, Some(SECRET.as_bytes())),
        ),
        (
            "alg not text",
            &hmac,
            forged(&json!({"alg": 5}), &claims, Some(SECRET.as_bytes())),
        ),
        ("alg hs256", &hmac, alg("hs256")),
        ("alg PS256", &hmac, alg("PS256")),
        ("alg ES512", &hmac, alg("ES512")),
        (
            "public key as HMAC secret, PEM",
            &public,
            forged(&jwt, &claims, Some(rsa.pem.as_bytes())),
        ),
        (
            "public key as HMAC secret, DER",
            &public,
            forged(&jwt, &claims, Some(&der)),
        ),
        ("empty secret", &hmac, forged(&jwt, &claims, Some(b""))),
        ("another secret", &hmac, forged(&jwt, &claims, Some(b"another"))),
        ("HS256 signature named HS512", &hmac, alg("HS512")),
        ("no signature", &hmac, format!("{head}.")),
        ("short signature", &hmac, good[..good.len() - 2].to_owned()),
        ("padded signature", &hmac, format!("{good}=")),
        (
            "claims swapped",
            &hmac,
            format!("{}.{signature}", swapped.rsplit_once('.').unwrap().0),
        ),
        (
            "extension",
            &hmac,
            forged(
                &json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
                &claims,
                Some(SECRET.as_bytes()),
            ),
        ),
        (
            "key in the token",
            &public,
            forged(
                &json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}}),
                &claims,
                Some(&[0]),
            ),
        ),
        ("two parts", &hmac, head.to_owned()),
        ("four parts", &hmac, format!("{good}.x")),
        ("no parts", &hmac, "x".to_owned()),
        ("dots", &hmac, "..".to_owned()),
        ("empty", &hmac, String::new()),
        ("not ASCII", &hmac, "é.ü.ö".to_owned()),
        (
            "too long",
            &hmac,
            forged(
                &jwt,
                &json!({"sub": "a".repeat(config().max_token_bytes)}),
                Some(SECRET.as_bytes()),
            ),
        ),
        (
            "channel in a connection token",
            &hmac,
            forged(&jwt, &json!({"channel": "x"}), Some(SECRET.as_bytes())),
        ),
    ] {
        let refused = connect(verifier, &token);
        assert!(
            matches!(refused, Err(TokenError::Invalid(_))),
            "{name}: {refused:?}"
        );
    }
    // A genuine token whose time has passed is told apart: the client may ask for a new one.
    let expired = forged(&jwt, &json!({"exp": 1}), Some(SECRET.as_bytes()));
    assert_eq!(connect(&hmac, &expired), Err(TokenError::Expired));
    let forged_and_expired = forged(&jwt, &json!({"exp": 1}), Some(b"another"));
    assert!(matches!(
        connect(&hmac, &forged_and_expired),
        Err(TokenError::Invalid(_))
    ));
}

#[test]
fn a_subscription_token_is_verified_too() {
    let jwt = json!({"alg": "HS256"});
    let token = forged(
        &jwt,
        &json!({"sub": "ann", "channel": "news"}),
        Some(SECRET.as_bytes()),
    );
    let hmac = hmac();
    let claims = hmac.subscribe(&token).now_or_never().unwrap().unwrap();
    assert_eq!((claims.user.as_str(), claims.channel.as_str()), ("ann", "news"));
    let connection = forged(&jwt, &json!({"sub": "ann"}), Some(SECRET.as_bytes()));
    assert!(matches!(
        hmac.subscribe(&connection).now_or_never().unwrap(),
        Err(TokenError::Invalid(_))
    ));
}

#[test]
fn unusable_keys_are_refused_at_start() {
    let p256 = pair("p256");
    let body = p256.pem.replace("MFkw", "MFkx");
    for pem in [
        "",
        "x",
        "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
        &body,
        &p256.private_pem,
    ] {
        let config = AuthConfig {
            public_keys: vec![p256.pem.clone(), pem.to_owned()],
            ..config()
        };
        let made = Verifier::new(&config, &HttpClient::default(), &Tasks::default());
        assert!(matches!(made, Err(AuthError::PublicKey(1))), "{pem}");
    }
    let config = AuthConfig {
        jwks_url: Some("https://".to_owned()),
        ..config()
    };
    assert!(matches!(
        Verifier::new(&config, &HttpClient::default(), &Tasks::default()),
        Err(AuthError::Url)
    ));
}

#[test]
fn debug_shows_no_secret() {
    let debug = format!("{:?}", hmac());
    assert!(
        !debug.contains(SECRET) && !debug.contains("97, 32, 115"),
        "{debug}"
    );
}

#[test]
fn the_app_that_a_token_names_is_read_without_a_key() {
    let token = |claims: Value| {
        jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &EncodingKey::from_secret(b"x"),
        )
        .unwrap()
    };
    assert_eq!(named_app(&token(json!({"app": "a"}))).as_deref(), Some("a"));
    for none in [
        token(json!({"sub": "a"})),
        String::new(),
        "a.b.c".to_owned(),
        "..".to_owned(),
    ] {
        assert_eq!(named_app(&none), None, "{none}");
    }
}

#[test]
fn a_token_tells_which_key_has_verified_it() {
    let key = |config: &AuthConfig, token: &str| {
        let claims = verifier(config)
            .connect(token)
            .now_or_never()
            .expect("ready at once");
        claims.unwrap().facts.key
    };
    let secret = AuthConfig {
        hmac_secret: Some(Secret::new(SECRET)),
        ..config()
    };
    // printf '%s' "$SECRET" | sha256sum | cut -c1-16
    let mine = key(
        &secret,
        &signed(
            Algorithm::HS256,
            None,
            &EncodingKey::from_secret(SECRET.as_bytes()),
        ),
    );
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SECRET.as_bytes());
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(mine.as_deref(), Some(&hex[..16]));
    let pair = pair("p256");
    let public = AuthConfig {
        public_keys: vec![pair.pem.clone()],
        ..config()
    };
    // What a token calls its key is not what it is called.
    let theirs = key(&public, &signed(Algorithm::ES256, Some("any"), &pair.private));
    assert_ne!(theirs, mine);
    assert_eq!(theirs.map(|name| name.len()), Some(16));
}
