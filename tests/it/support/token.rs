//! Tokens, good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::edge::TOKEN_SECRET;

/// A token of the app `dev` with these claims.
pub(crate) fn token(claims: &Value) -> String {
    signed(claims, Algorithm::HS256, TOKEN_SECRET)
}

/// A token signed with this secret.
pub(crate) fn signed(claims: &Value, algorithm: Algorithm, secret: &[u8]) -> String {
    let header = Header::new(algorithm);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// A token whose header names this algorithm, over the signature of HS256.
pub(crate) fn labelled(claims: &Value, algorithm: &str) -> String {
    let honest = token(claims);
    let (_, rest) = honest.split_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "typ": "JWT"}).to_string());
    format!("{header}.{rest}")
}

/// A token without a signature.
pub(crate) fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none"})), part(claims))
}

/// Seconds since 1970, so much later.
pub(crate) fn in_seconds(later: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    now.cast_signed() + later
}
