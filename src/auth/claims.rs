//! The inside of a token: its claims, once the signature is known to be genuine. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use aws_lc_rs::digest;
use base64::{Engine, alphabet, engine};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use crate::model::{AppId, ConnectClaims, SubOptions, SubscribeClaims, TokenError, TokenFacts};

/// What the claims are compared with.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    /// One of `aud`, if set.
    pub(super) audience: Option<String>,
    /// `iss`, if set.
    pub(super) issuer: Option<String>,
    /// `app`, where a token has it.
    pub(super) app: Option<AppId>,
    /// How far clocks may differ, in seconds.
    pub(super) leeway: i64,
}

/// Reads the claims of a connection token. `now` in seconds since 1970.
pub(super) fn connect(payload: &[u8], expected: &Expected, now: i64) -> Result<ConnectClaims, TokenError> {
    let claims = parse(payload)?;
    // A token for one subscription must not open a connection, which may do far more.
    if claims.channel.is_some() {
        return Err(TokenError::Invalid(
            "a subscription token in the place of a connection token",
        ));
    }
    let expires_at = claims.check(expected, now)?;
    let facts = claims.facts();
    let info = json(claims.info, claims.b64info)?;
    let named = claims.subs.unwrap_or_default().into_iter();
    let mut subs = Vec::new();
    for (channel, sub) in named {
        let sub = sub.unwrap_or_default();
        let options = SubOptions {
            info: json(sub.info, sub.b64info)?,
            data: json(sub.data, sub.b64data)?,
        };
        subs.push((channel, options));
    }
    // `channels` is the short form, and counts only where the long one says nothing.
    if subs.is_empty() {
        let channels = claims.channels.unwrap_or_default();
        subs = channels
            .into_iter()
            .map(|channel| (channel, SubOptions::default()))
            .collect();
    }
    Ok(ConnectClaims {
        user: claims.sub.unwrap_or_default(),
        expires_at,
        info,
        subs,
        facts,
    })
}

/// Reads the claims of a subscription token. `now` in seconds since 1970.
pub(super) fn subscribe(
    payload: &[u8],
    expected: &Expected,
    now: i64,
) -> Result<SubscribeClaims, TokenError> {
    let claims = parse(payload)?;
    let Some(channel) = claims.channel.clone() else {
        return Err(TokenError::Invalid("a subscription token without a channel"));
    };
    let expires_at = claims.check(expected, now)?;
    let facts = claims.facts();
    Ok(SubscribeClaims {
        user: claims.sub.unwrap_or_default(),
        channel,
        client: claims.client.filter(|client| !client.is_empty()),
        expires_at,
        info: json(claims.info, claims.b64info)?,
        data: json(claims.data, claims.b64data)?,
        facts,
    })
}

/// What a token is known by: the first half of the SHA-256 of its `jti`.
pub fn token_id(jti: &str) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, jti.as_bytes());
    let mut id = [0; 16];
    id.iter_mut()
        .zip(hash.as_ref())
        .for_each(|(to, from)| *to = *from);
    id
}

/// The app that the claims of either kind of token name.
pub(super) fn app(payload: &[u8]) -> Option<String> {
    parse(payload).ok()?.app
}

/// Everything that either kind of token may say. Other claims are ignored.
#[derive(Deserialize)]
struct Claims<'a> {
    sub: Option<String>,
    exp: Option<Number>,
    iat: Option<Number>,
    jti: Option<String>,
    nbf: Option<Number>,
    expire_at: Option<Number>,
    aud: Option<Audience>,
    iss: Option<String>,
    app: Option<String>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<Cow<'a, str>>,
    channel: Option<String>,
    client: Option<String>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<BTreeMap<String, Option<Sub<'a>>>>,
}

#[derive(Deserialize, Default)]
struct Sub<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

fn parse(payload: &[u8]) -> Result<Claims<'_>, TokenError> {
    serde_json::from_slice(payload).map_err(|_| TokenError::Invalid("claims of an unexpected form"))
}

impl Claims<'_> {
    /// What the token says of itself. The key that verified it is not its own to say.
    fn facts(&self) -> TokenFacts {
        TokenFacts {
            id: self.jti.as_deref().map(token_id),
            issued_at: self.iat.as_ref().map(seconds),
            key: None,
        }
    }

    /// Checks whom the token is for and when. Returns when what it permits ends: never before `now`,
    /// since the leeway counts here too.
    fn check(&self, expected: &Expected, now: i64) -> Result<Option<i64>, TokenError> {
        if let Some(audience) = &expected.audience {
            let named = match &self.aud {
                Some(Audience::One(one)) => one == audience,
                Some(Audience::Several(several)) => several.contains(audience),
                None => false,
            };
            if !named {
                return Err(TokenError::Invalid("for another audience"));
            }
        }
        if expected.issuer.is_some() && self.iss != expected.issuer {
            return Err(TokenError::Invalid("by another issuer"));
        }
        if let (Some(named), Some(app)) = (&self.app, &expected.app)
            && named != app.as_str()
        {
            return Err(TokenError::Invalid("for another app"));
        }
        let ends = |at: i64| at.saturating_add(expected.leeway);
        let exp = self.exp.as_ref().map(seconds).map(ends);
        // 0 says that the connection outlives its token, for ever.
        let expires_at = match self.expire_at.as_ref().map(seconds) {
            Some(0) => None,
            Some(at) => Some(ends(at)),
            None => exp,
        };
        let over = |at: Option<i64>| at.is_some_and(|at| at <= now);
        let early = self
            .nbf
            .as_ref()
            .map(seconds)
            .is_some_and(|from| from > ends(now));
        if over(exp) || over(expires_at) || early {
            return Err(TokenError::Expired);
        }
        Ok(expires_at)
    }
}

/// A NumericDate (RFC 7519, section 2) in whole seconds; it may have a fraction.
fn seconds(number: &Number) -> i64 {
    // A float beyond the range becomes its end.
    number
        .as_i64()
        .unwrap_or_else(|| number.as_f64().unwrap_or(0.0).floor() as i64)
}

/// Base64 as JSON encoders of bytes write it, with or without the padding.
const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

/// The JSON of a claim that has a plain and a base64 form, of which the latter wins. It is embedded
/// in frames that end at line ends, so it must be JSON and must not have any.
fn json(plain: Option<&RawValue>, base64: Option<Cow<'_, str>>) -> Result<Option<Bytes>, TokenError> {
    const NOT_JSON: TokenError = TokenError::Invalid("a base64 claim that does not hold JSON");
    let Some(base64) = base64.filter(|text| !text.is_empty()) else {
        return Ok(plain.map(|raw| on_one_line(raw.get())));
    };
    let decoded = BASE64.decode(base64.as_bytes()).map_err(|_| NOT_JSON)?;
    let raw: &RawValue = serde_json::from_slice(&decoded).map_err(|_| NOT_JSON)?;
    Ok(Some(on_one_line(raw.get())))
}

/// `json` without line ends. Within strings JSON cannot have any, so each is mere white space.
fn on_one_line(json: &str) -> Bytes {
    let space = |byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
    json.trim().bytes().map(space).collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests;
