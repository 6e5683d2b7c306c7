//! Key pairs made afresh for each run of the tests.

use std::{collections::HashMap, sync::OnceLock};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, jwk::Jwk};
use serde_json::{Value, json};

pub(super) struct Pair {
    pub(super) private: EncodingKey,
    pub(super) private_pem: String,
    pub(super) pem: String,
    /// The public key as a JWK without id.
    pub(super) jwk: Value,
}

/// The pair named `rsa`, `p256`, `p384` or `ed25519`; with `other-` before it, another of its kind.
pub(super) fn pair(name: &str) -> &'static Pair {
    static PAIRS: OnceLock<HashMap<&str, Pair>> = OnceLock::new();
    let pairs = PAIRS.get_or_init(|| {
        let ec = |algorithm: &'static EcdsaSigningAlgorithm, name: &str| ecdsa(algorithm, name);
        HashMap::from([
            ("rsa", rsa()),
            ("p256", ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")),
            ("other-p256", ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")),
            ("p384", ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")),
            ("ed25519", ed25519()),
        ])
    });
    &pairs[name]
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    let private = EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap();
    let jwk = Jwk::from_encoding_key(&private, jsonwebtoken::Algorithm::RS256).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk.as_object_mut().unwrap().remove("alg");
    Pair {
        private,
        private_pem,
        pem: pem("PUBLIC KEY", public.as_ref()),
        jwk,
    }
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, curve: &str) -> Pair {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
    let part = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    Pair {
        private: EncodingKey::from_ec_der(private.as_ref()),
        private_pem: pem("PRIVATE KEY", private.as_ref()),
        pem: pem("PUBLIC KEY", public.as_ref()),
        jwk: json!({"kty": "EC", "crv": curve, "x": part(x), "y": part(y)}),
    }
}

fn ed25519() -> Pair {
    let pair = Ed25519KeyPair::generate().unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair {
        private: EncodingKey::from_ed_der(private.as_ref()),
        private_pem: pem("PRIVATE KEY", private.as_ref()),
        pem: pem("PUBLIC KEY", public.as_ref()),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())}),
    }
}
