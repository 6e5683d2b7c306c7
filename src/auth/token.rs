//! The outside of a token: JWS compact serialization (RFC 7515, section 7.1) and its signature.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{self, KeySet};
use crate::model::TokenError;

/// A token whose header has been read and nothing believed.
#[derive(Debug)]
pub(super) struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// Claims that one of the keys has signed.
pub(super) struct Verified {
    /// The claims as JSON.
    pub(super) payload: Vec<u8>,
    /// What the key is called, if it is called anything.
    pub(super) key: Option<Arc<str>>,
}

/// Why a signature was not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    /// No key is for the token's algorithm and key id.
    NoKey,
    /// It is not the signature of any key it could be of.
    Forged,
}

impl From<Unverified> for TokenError {
    fn from(why: Unverified) -> Self {
        Self::Invalid(match why {
            Unverified::NoKey => "no key for its algorithm and key id",
            Unverified::Forged => "wrong signature",
        })
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11): none are.
    #[serde(borrow)]
    crit: Option<&'a RawValue>,
}

impl<'a> Token<'a> {
    /// Takes `text` apart.
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        const MALFORMED: TokenError = TokenError::Invalid("not a JWT");
        let (signed, signature) = text.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, payload) = signed.split_once('.').ok_or(MALFORMED)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| MALFORMED)?;
        if header.crit.is_some() {
            return Err(TokenError::Invalid("needs an extension that is not supported"));
        }
        let algorithm = match header.alg.as_str() {
            "HS256" => Algorithm::HS256,
            "HS384" => Algorithm::HS384,
            "HS512" => Algorithm::HS512,
            "RS256" => Algorithm::RS256,
            "RS384" => Algorithm::RS384,
            "RS512" => Algorithm::RS512,
            "ES256" => Algorithm::ES256,
            "ES384" => Algorithm::ES384,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(TokenError::Invalid("algorithm not supported")),
        };
        Ok(Self {
            algorithm,
            key_id: header.kid,
            signed,
            payload,
            signature,
        })
    }

    /// The claims, whoever wrote them.
    pub(super) fn unverified_payload(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.payload).ok()
    }

    /// Whether it claims to be signed with a shared secret.
    pub(super) fn is_symmetric(&self) -> bool {
        key::is_symmetric(self.algorithm)
    }

    /// Whether `keys` has a key that could have signed it.
    pub(super) fn has_key_in(&self, keys: &KeySet) -> bool {
        keys.candidates(self.algorithm, self.key_id.as_deref())
            .next()
            .is_some()
    }

    /// The claims, if one of `keys` has signed them.
    pub(super) fn verify(&self, keys: &KeySet) -> Result<Verified, Unverified> {
        let mut why = Unverified::NoKey;
        for candidate in keys.candidates(self.algorithm, self.key_id.as_deref()) {
            let verified = jsonwebtoken::crypto::verify(
                self.signature,
                self.signed.as_bytes(),
                &candidate.key,
                self.algorithm,
            );
            if verified.is_ok_and(|genuine| genuine) {
                let payload = URL_SAFE_NO_PAD.decode(self.payload);
                return payload.map_err(|_| Unverified::Forged).map(|payload| Verified {
                    payload,
                    key: candidate.name.clone(),
                });
            }
            why = Unverified::Forged;
        }
        Err(why)
    }
}
