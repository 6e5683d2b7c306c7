//! Keys, and which algorithms each may verify. The kind of a key alone decides that: what a token
//! names as its algorithm only selects among the keys that are for it, so that a public key can never
//! be used as the secret of an HMAC.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AuthError, SigningKey, unix_now};
use crate::config::Secret;

/// What a key can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Hmac,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Family {
    fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Some(Self::Hmac),
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => Some(Self::Rsa),
            Algorithm::ES256 => Some(Self::P256),
            Algorithm::ES384 => Some(Self::P384),
            Algorithm::EdDSA => Some(Self::Ed25519),
            _ => None,
        }
    }
}

/// Whether `algorithm` works with a shared secret.
pub(super) fn is_symmetric(algorithm: Algorithm) -> bool {
    Family::of(algorithm) == Some(Family::Hmac)
}

/// A key to verify with.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Its id, if it comes from a set that names it.
    id: Option<Arc<str>>,
    /// What it is revoked by: its id; the fingerprint of a configured one.
    pub(super) name: Option<Arc<str>>,
    family: Family,
    /// The one algorithm it is for, if its set says so.
    only: Option<Algorithm>,
    /// Seconds since 1970 until which it is good; `None` = for good.
    until: Option<i64>,
    pub(super) key: DecodingKey,
}

/// Keys to choose from.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// The keys of the configuration. They have no ids and so are tried whatever id a token names.
    pub(super) fn local(secret: Option<&Secret>, pems: &[String]) -> Result<Self, AuthError> {
        let hmac = secret.map(|secret| Key {
            id: None,
            name: Some(fingerprint(secret.expose().as_bytes())),
            family: Family::Hmac,
            only: None,
            until: None,
            key: DecodingKey::from_secret(secret.expose().as_bytes()),
        });
        let mut keys = Vec::from_iter(hmac);
        for (index, pem) in pems.iter().enumerate() {
            keys.push(public_key(pem).ok_or(AuthError::PublicKey(index))?);
        }
        Ok(Self(keys))
    }

    /// The usable keys of a JWK set (RFC 7517): keys that are symmetric, not for signatures, or
    /// of an unknown kind are passed over, as section 5 demands. At most `most` are used, which bounds
    /// the work for a token without a key id. `None` if `json` is not a set.
    pub(super) fn fetched(json: &[u8], most: usize) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let set: Set<'_> = serde_json::from_slice(json).ok()?;
        let keys = set
            .keys
            .into_iter()
            .filter_map(|raw| jwk(&serde_json::from_str(raw.get()).ok()?));
        Some(Self(keys.take(most).collect()))
    }

    /// Adds secrets that have ids.
    pub(super) fn add(&mut self, keys: &[SigningKey]) {
        self.0.extend(keys.iter().map(|key| Key {
            id: Some(key.id.as_str().into()),
            name: Some(key.id.as_str().into()),
            family: Family::Hmac,
            only: None,
            until: key.until,
            key: DecodingKey::from_secret(key.secret.expose().as_bytes()),
        }));
    }

    /// The keys that may have made a signature by `algorithm` under the key id `id`.
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let family = Family::of(algorithm);
        self.0.iter().filter(move |key| {
            Some(key.family) == family
                && key.only.is_none_or(|only| only == algorithm)
                && key.until.is_none_or(|until| until > unix_now())
                && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        })
    }

    /// What the keys are called.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().filter_map(|key| key.name.as_ref())
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a configured key is called where it has no id: the first 16 hex digits of the SHA-256 of the
/// secret, or of the public key's DER.
fn fingerprint(key: &[u8]) -> Arc<str> {
    let hash = digest::digest(&digest::SHA256, key);
    let hex = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}"));
    hex.collect::<String>().into()
}

/// DER of a SubjectPublicKeyInfo (RFC 5280, section 4.1) up to the key's own bytes: by kind.
const EC_P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const EC_P384: &[u8] = b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70";
/// Behind the length of the whole, which takes four bytes for every RSA key of a usable size.
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

fn public_key(pem: &str) -> Option<Key> {
    let pem = pem.trim();
    let pkcs1 = pem.starts_with("-----BEGIN RSA PUBLIC KEY-----");
    if !pkcs1 && !pem.starts_with("-----BEGIN PUBLIC KEY-----") {
        return None;
    }
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let der = STANDARD.decode(body).ok()?;
    let (family, key) = if pkcs1 || der.get(4..).is_some_and(|rest| rest.starts_with(RSA)) {
        (Family::Rsa, DecodingKey::from_rsa_pem(pem.as_bytes()))
    } else if der.starts_with(EC_P256) {
        (Family::P256, DecodingKey::from_ec_pem(pem.as_bytes()))
    } else if der.starts_with(EC_P384) {
        (Family::P384, DecodingKey::from_ec_pem(pem.as_bytes()))
    } else if der.starts_with(ED25519) {
        (Family::Ed25519, DecodingKey::from_ed_pem(pem.as_bytes()))
    } else {
        return None;
    };
    Some(Key {
        id: None,
        name: Some(fingerprint(&der)),
        family,
        only: None,
        until: None,
        key: key.ok()?,
    })
}

fn jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common
            .key_operations
            .as_ref()
            .is_none_or(|all| all.contains(&KeyOperations::Verify));
    let family = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Family::Rsa,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Family::P256,
            EllipticCurve::P384 => Family::P384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Family::Ed25519,
        _ => return None,
    };
    let only = match common.key_algorithm {
        Some(algorithm) => Some(algorithm.to_string().parse::<Algorithm>().ok()?),
        None => None,
    };
    let fits = only.is_none_or(|algorithm| Family::of(algorithm) == Some(family));
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let id: Option<Arc<str>> = common.key_id.as_deref().map(Arc::from);
    (for_signatures && fits).then(|| Key {
        name: id.clone(),
        id,
        family,
        only,
        until: None,
        key,
    })
}
