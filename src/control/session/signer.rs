use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{
    config::Secret,
    control::{error::ControlError, hash},
};

/// The `aud` of access tokens: a token made for something else with the same secret is none.
const AUDIENCE: &str = "slipstream-control";
/// What refresh tokens begin with.
const PREFIX: &str = "slr_";
/// The longest token that is looked at, bytes.
const MAX_TOKEN: usize = 2048;
/// Bytes of the mark that says that a refresh token is ours.
const MARK: usize = 16;

/// Makes and reads tokens of sessions, with keys derived from one secret.
pub(in crate::control) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    refresh: hmac::Key,
    lifetime: i64,
}

/// What an access token says. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The account.
    pub(super) sub: String,
    /// The session.
    pub(super) sid: String,
    pub(super) iat: i64,
    pub(super) exp: i64,
    aud: String,
}

/// A refresh token taken apart: `slr_<session>.<generation>.<secret>.<mark>`.
pub(super) struct Refresh {
    pub(super) session: String,
    pub(super) generation: u64,
    pub(super) hash: String,
    pub(super) genuine: bool,
}

impl Signer {
    pub(in crate::control) fn new(secret: &Secret, lifetime: Duration) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let derive = |purpose: &str| hmac::sign(&secret, purpose.as_bytes());
        let access = derive("slipstream access token 1");
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // Against the injected clock, below.
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_secret(access.as_ref()),
            decoding: DecodingKey::from_secret(access.as_ref()),
            validation,
            refresh: hmac::Key::new(hmac::HMAC_SHA256, derive("slipstream refresh token 1").as_ref()),
            lifetime: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// A new access token, and when it expires, ms since 1970.
    pub(super) fn access(
        &self,
        account: &str,
        session: &str,
        now_ms: i64,
    ) -> Result<(Secret, i64), ControlError> {
        let iat = now_ms.div_euclid(1000);
        let claims = Claims {
            sub: account.to_owned(),
            sid: session.to_owned(),
            iat,
            exp: iat.saturating_add(self.lifetime),
            aud: AUDIENCE.to_owned(),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|_| ControlError::Internal)?;
        Ok((Secret::new(token), claims.exp.saturating_mul(1000)))
    }

    /// What an access token says, if it is one of ours.
    pub(super) fn read(&self, token: &str, now_ms: i64) -> Result<Claims, ControlError> {
        if token.len() > MAX_TOKEN {
            return Err(ControlError::Unauthenticated);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| ControlError::Unauthenticated)?
            .claims;
        match now_ms < claims.exp.saturating_mul(1000) {
            true => Ok(claims),
            false => Err(ControlError::TokenExpired),
        }
    }

    /// A new refresh token, and its hash.
    pub(super) fn refresh(&self, session: &str, generation: u64) -> (Secret, String) {
        let body = format!("{PREFIX}{session}.{generation}.{}", hash::secret());
        let token = format!("{body}.{}", self.mark(&body));
        let hash = hash::hash(&token);
        (Secret::new(token), hash)
    }

    /// Takes a refresh token apart. `None` if it has not the form of one.
    pub(super) fn take_apart(&self, token: &str) -> Option<Refresh> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (body, mark) = token.rsplit_once('.')?;
        let mut parts = body.strip_prefix(PREFIX)?.split('.');
        let (session, generation) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Refresh {
            session,
            generation,
            hash: hash::hash(token),
            genuine: hash::same(mark, &self.mark(body)),
        })
    }

    /// Tells old tokens from made-up ones, which must not end anybody's session.
    fn mark(&self, body: &str) -> String {
        let tag = hmac::sign(&self.refresh, body.as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..MARK])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secret: &str) -> Signer {
        Signer::new(&Secret::new(secret), Duration::from_secs(600))
    }

    #[test]
    fn an_access_token_says_who_until_it_expires() {
        let signer = signer("one");
        let (token, expires) = signer.access("acc", "ses", 5_500).unwrap();
        assert_eq!(expires, 605_000);
        let claims = signer.read(token.expose(), 604_999).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.sid.as_str(), claims.iat),
            ("acc", "ses", 5)
        );
        assert_eq!(
            signer.read(token.expose(), 605_000),
            Err(ControlError::TokenExpired)
        );
        let other = tests::signer("two");
        assert_eq!(
            other.read(token.expose(), 6_000),
            Err(ControlError::Unauthenticated)
        );
        for broken in ["", "a.b.c", &token.expose()[1..], &"x".repeat(5000)] {
            assert_eq!(signer.read(broken, 6_000), Err(ControlError::Unauthenticated));
        }
    }

    #[test]
    fn tokens_of_other_kinds_are_none() {
        let signer = signer("one");
        let claims = |aud: &str| Claims {
            sub: "a".into(),
            sid: "s".into(),
            iat: 0,
            exp: 10_000,
            aud: aud.into(),
        };
        let made =
            |header: Header, aud| jsonwebtoken::encode(&header, &claims(aud), &signer.encoding).unwrap();
        assert!(
            signer
                .read(&made(Header::new(Algorithm::HS256), AUDIENCE), 0)
                .is_ok()
        );
        assert!(
            signer
                .read(&made(Header::new(Algorithm::HS256), "other"), 0)
                .is_err()
        );
        assert!(
            signer
                .read(&made(Header::new(Algorithm::HS384), AUDIENCE), 0)
                .is_err()
        );
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let payload = serde_json::to_string(&claims(AUDIENCE)).unwrap();
        let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(&payload));
        assert!(signer.read(&unsigned, 0).is_err());
    }

    #[test]
    fn a_refresh_token_is_ours_or_not() {
        let signer = signer("one");
        let (token, hash) = signer.refresh("ses_1", 7);
        let parts = signer.take_apart(token.expose()).unwrap();
        assert_eq!(
            (parts.session.as_str(), parts.generation, parts.genuine),
            ("ses_1", 7, true)
        );
        assert_eq!(parts.hash, hash);
        let forged = token.expose().replacen(".7.", ".6.", 1);
        assert!(!signer.take_apart(&forged).unwrap().genuine);
        assert!(!tests::signer("two").take_apart(token.expose()).unwrap().genuine);
        for broken in ["", "slr_", "slr_a.b", "slr_a.b.c.d", "x.1.y.z"] {
            assert!(signer.take_apart(broken).is_none(), "{broken}");
        }
        assert_ne!(signer.refresh("ses_1", 7).1, hash);
    }
}
