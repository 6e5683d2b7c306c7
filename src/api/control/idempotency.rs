//! Requests that may be sent again: a POST with an `Idempotency-Key` is done once, and its answer given again to
//! whoever repeats it (the IETF's draft-ietf-httpapi-idempotency-key-header).
//!
//! A document says first that the request has begun, then how it was answered. Answers may hold secrets, so they
//! are sealed. What has certainly done nothing leaves no document: it may be sent again.

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    ControlServices, ControlState, account_of, credential_of,
    error::{Failure, NothingDone},
};
use crate::{
    api::{error::ApiError, extract::collect},
    control::{Actor, Clock, ControlError},
    store::{Collection, Document, Draft, Written},
};

/// The longest key, bytes.
const MAX_KEY: usize = 255;
/// So long a request that has begun may still be going on, ms.
const UNDER_WAY_MS: i64 = 60_000;
/// The headers of an answer that are kept.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];
/// In an answer that is given again.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A request, and its answer once there is one.
#[derive(Serialize, Deserialize)]
struct Record {
    /// What was asked, sealed.
    request: String,
    begun_ms: i64,
    /// Sealed.
    answer: Option<String>,
}

/// An answer.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// The key of a request.
///
/// # Errors
///
/// It is none.
pub(super) fn key_of(request: &Request) -> Result<Option<String>, Failure> {
    let Some(value) = request.headers().get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    let good = (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    match good {
        true => Ok(Some(key.to_owned())),
        false => Err(ApiError::field("Idempotency-Key", "1 to 255 visible ASCII characters").into()),
    }
}

/// Does the request if it is the first with its key, or else answers as it was answered. Once begun it is done
/// to its end, also if the caller goes away.
pub(super) async fn answer_once(
    state: &ControlState,
    actor: &Actor,
    key: &str,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let services = state.services()?;
    if !services.sealing.can_seal() {
        return Err(ControlError::NotConfigured("tenants.sealing_keys").into());
    }
    state.charge(&state.repeatable, actor)?;
    let (parts, body) = request.into_parts();
    let body = collect(body, state.intake()).await?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // Of the same credential: another may not be allowed what this one was.
    let who = [account_of(actor), credential_of(actor), key];
    let id = fingerprint(&who.map(str::as_bytes));
    let asked = fingerprint(&[path.as_bytes(), &body]);
    let record = Record {
        // A body may hold a password, which its plain hash would tell.
        request: seal_text(services, ["request", &id], asked.as_bytes())?,
        begun_ms: Clock::system().now_ms(),
        answer: None,
    };
    let begin = || async {
        let draft = draft(state, &record)?;
        let written = services.store.insert(Collection::Idempotency, &id, draft).await?;
        Ok::<_, Failure>(written == Written::Done)
    };
    if !begin().await? {
        let there = services.store.get(Collection::Idempotency, &id).await?;
        // Removed this very moment: it has done nothing.
        let there = there.ok_or(Failure::InProgress)?;
        let over = there.expires_ms.is_some_and(|until| until <= record.begun_ms);
        if !over {
            return again(services, &id, &asked, record.begun_ms, there);
        }
        let revision = Some(there.revision);
        services
            .store
            .remove(Collection::Idempotency, &id, revision)
            .await?;
        if !begin().await? {
            return Err(Failure::InProgress);
        }
    }
    let (keeping, request) = (state.clone(), Request::from_parts(parts, Body::from(body)));
    let answered = state.detached(async move {
        let response = next.run(request).await;
        keep(&keeping, &id, record, response).await
    });
    answered.await.ok_or(Failure::OutcomeUnknown)?
}

/// Keeps an answer, and gives it.
async fn keep(
    state: &ControlState,
    id: &str,
    mut record: Record,
    response: Response,
) -> Result<Response, Failure> {
    let services = state.services()?;
    if response.extensions().get::<NothingDone>().is_some() {
        if services
            .store
            .remove(Collection::Idempotency, id, None)
            .await
            .is_err()
        {
            tracing::warn!("a request that has done nothing cannot be sent again with its key");
        }
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|_| ControlError::Internal)?;
    let response = Response::from_parts(parts, Body::from(body.clone()));
    if !response.status().is_success() || body.len() > state.max_kept_bytes {
        // What became of it is for the caller to see; it is not done again.
        return Ok(response);
    }
    record.answer = Some(seal(services, id, &response, &body)?);
    let draft = draft(state, &record)?;
    let kept = services
        .store
        .replace(Collection::Idempotency, id, 1, draft)
        .await;
    if !matches!(kept, Ok(Written::Done)) {
        tracing::warn!("an answer is not kept for whoever repeats its request");
    }
    Ok(response)
}

/// Answers a request that there was before.
fn again(
    services: &ControlServices,
    id: &str,
    asked: &str,
    now_ms: i64,
    there: Document,
) -> Result<Response, Failure> {
    let before: Record = serde_json::from_value(there.body).map_err(|_| ControlError::Internal)?;
    let known = services.sealing.open(&["request", id], &before.request);
    if known.map_err(|_| Failure::OutcomeUnknown)? != asked.as_bytes() {
        return Err(Failure::KeyReused);
    }
    let Some(sealed) = before.answer else {
        return Err(match now_ms - before.begun_ms < UNDER_WAY_MS {
            true => Failure::InProgress,
            false => Failure::OutcomeUnknown,
        });
    };
    let opened = services.sealing.open(&purpose(id), &sealed);
    let opened = opened.map_err(|_| Failure::OutcomeUnknown)?;
    let kept: Kept = serde_json::from_slice(&opened).map_err(|_| ControlError::Internal)?;
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.status).map_err(|_| ControlError::Internal)?;
    for (name, value) in kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn seal(services: &ControlServices, id: &str, response: &Response, body: &Bytes) -> Result<String, Failure> {
    let headers = KEPT.iter().filter_map(|name| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    let kept = Kept {
        status: response.status().as_u16(),
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).map_err(|_| ControlError::Internal)?,
    };
    let kept = serde_json::to_vec(&kept).map_err(|_| ControlError::Internal)?;
    seal_text(services, purpose(id), &kept)
}

fn seal_text(services: &ControlServices, purpose: [&str; 2], text: &[u8]) -> Result<String, Failure> {
    let sealed = services.sealing.seal(&purpose, text);
    Ok(sealed.map_err(|_| ControlError::Internal)?)
}

/// What an answer is sealed for.
fn purpose(id: &str) -> [&str; 2] {
    ["answer", id]
}

fn draft(state: &ControlState, record: &Record) -> Result<Draft, Failure> {
    let keep = i64::try_from(state.keep_answers.as_millis()).unwrap_or(i64::MAX);
    Ok(Draft {
        unique: None,
        keys: Vec::new(),
        expires_ms: Some(record.begun_ms.saturating_add(keep)),
        body: serde_json::to_value(record).map_err(|_| ControlError::Internal)?,
    })
}

/// The SHA-256 of the parts, each with its length before it, in hexadecimal.
fn fingerprint(parts: &[&[u8]]) -> String {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    let hash = digest(&SHA256, &all);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
