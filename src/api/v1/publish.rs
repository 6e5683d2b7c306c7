//! `POST /v1/channels/{channel}/publications`

use axum::{
    body::Body as HttpBody,
    extract::{FromRequestParts, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::OnlyApp;
use crate::{
    api::{
        ApiState,
        error::{ApiError, ErrorAnswer, ErrorBody},
        extract::{ChannelOf, JsonBody, Params, object},
        input::{Few, Tags, record},
        pipeline::{Failure, publish_all},
    },
    apps::App,
    channel::Published,
    model::Record,
    protocol::json::{self, Object, Text, present},
    publish::Target,
};

/// One publication. Exactly one of `data` and `b64data` is given.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Publication)]
pub(in crate::api) struct Item<'a> {
    /// The payload: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// A payload of bytes, as base64 with padding.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    b64data: Option<Text<'a>>,
    /// Free tags: at most 16, names of 1 to 64 bytes, values of up to 256.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    tags: Option<Tags>,
    /// A repeat with the same key within the class's `duplicate_window` stores nothing and is
    /// answered with the first one's offset. 1 to 255 bytes; any number of channels may use it.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    idempotency_key: Option<Text<'a>>,
    /// The version of the namespace's schema that it is valid by; the latest if absent. Only where the
    /// namespace has schemas.
    schema_version: Option<u32>,
}

/// One publication, or a batch: `publications` stands alone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PublishBody)]
pub(in crate::api) struct Body<'a> {
    /// The payload: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// A payload of bytes, as base64 with padding.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    b64data: Option<Text<'a>>,
    /// As in a publication of a batch.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    tags: Option<Tags>,
    /// As in a publication of a batch; or the header `Idempotency-Key`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255)]
    idempotency_key: Option<Text<'a>>,
    /// As in a publication of a batch.
    schema_version: Option<u32>,
    /// A batch: 1 to 1,000 publications, stored in this order but not all or none.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Item>>)]
    publications: Option<Few<Object<Item<'a>>>>,
}

/// Where a publication is stored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `write_published` writes")]
pub(in crate::api) struct PublishAnswer {
    /// Its offset; absent on an ephemeral channel.
    offset: Option<u64>,
    /// The epoch that the offset belongs to; absent on an ephemeral channel.
    epoch: Option<String>,
    /// An earlier publish with the same idempotency key has stored or queued it.
    duplicate: bool,
    /// True: it came too soon for a rate and waits in the queue; it has no offset yet. Absent otherwise.
    queued: Option<bool>,
    /// Of what waits: for `GET /v1/channels/{channel}/queue`.
    id: Option<String>,
}

/// What became of one publication of a batch: either where it is, or `error`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `batch` writes")]
pub(in crate::api) struct BatchResult {
    /// As for a single publication.
    offset: Option<u64>,
    /// As for a single publication.
    epoch: Option<String>,
    /// As for a single publication.
    duplicate: Option<bool>,
    /// As for a single publication.
    queued: Option<bool>,
    /// As for a single publication.
    id: Option<String>,
    /// Why it was not published, or `outcome_unknown`.
    error: Option<ErrorBody>,
}

/// What became of a batch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `batch` writes")]
pub(in crate::api) struct BatchAnswer {
    /// One result for each publication, in their order.
    results: Vec<BatchResult>,
}

/// What became of one publication, or of a batch: for the document.
pub(in crate::api) struct PublishOrBatchAnswer;

impl utoipa::PartialSchema for PublishOrBatchAnswer {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let either = utoipa::openapi::OneOfBuilder::new()
            .item(utoipa::openapi::Ref::from_schema_name("PublishAnswer"))
            .item(utoipa::openapi::Ref::from_schema_name("BatchAnswer"));
        utoipa::openapi::RefOr::T(either.build().into())
    }
}

impl ToSchema for PublishOrBatchAnswer {}

/// The header `Idempotency-Key`: its value as it is.
pub(in crate::api) struct IdempotencyKey(Option<String>);

impl FromRequestParts<ApiState> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            let absent = !parts.headers.contains_key("idempotency-key");
            return absent
                .then_some(Self(None))
                .ok_or(ApiError::BadRequest("the header Idempotency-Key was given twice"));
        };
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| ApiError::BadRequest("the header Idempotency-Key is not UTF-8"))?;
        Ok(Self(Some(text.to_owned())))
    }
}

/// Publishes
///
/// One publication, or a batch. A single one is answered with 201 if it was stored; with 200 if
/// nothing had to be stored (a duplicate, or a channel without history). A batch is always answered
/// with 200 and a result for each publication. What is over a rate is answered with 202 where the namespace has a queue.
#[utoipa::path(
    post,
    path = "/v1/channels/{channel}/publications",
    operation_id = "publish",
    tag = "channels",
    params(
        ("channel" = String, Path, description = "The channel, percent-encoded"),
        ("app" = Option<String>, Query, description = "Must be the key's app; or the header X-App"),
        ("Idempotency-Key" = Option<String>, Header, description = "For a single publication"),
    ),
    request_body = Body,
    responses(
        (status = 201, description = "Stored", body = PublishAnswer),
        (status = 200, description = "A duplicate, sent without being stored, or a batch",
            body = PublishOrBatchAnswer),
        (status = 202, description = "Over a rate; it waits in the queue", body = PublishAnswer),
        (status = 400, description = "Not readable", body = ErrorAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorAnswer),
        (status = 403, description = "The key is of another app", body = ErrorAnswer),
        (status = 404, description = "No such namespace", body = ErrorAnswer),
        (status = 408, description = "The body took too long", body = ErrorAnswer),
        (status = 413, description = "Body or payload too large", body = ErrorAnswer),
        (status = 415, description = "Not JSON by its content type", body = ErrorAnswer),
        (status = 422, description = "A field is not as described, or the payload not valid by the schema", body = ErrorAnswer),
        (status = 429, description = "Over a rate; nothing was sent", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 500, description = "The deployment cannot store it", body = ErrorAnswer),
        (status = 503, description = "The log cannot be reached; nothing was sent", body = ErrorAnswer,
            headers(("Retry-After" = u64, description = "Seconds"))),
        (status = 504, description = "Sent, but not acknowledged: stored or not", body = ErrorAnswer),
    ),
    security(("api_key" = []), ("bearer" = [])),
)]
pub(in crate::api) async fn publish(
    State(state): State<ApiState>,
    ChannelOf { app, target }: ChannelOf,
    Params(_): Params<OnlyApp>,
    IdempotencyKey(header): IdempotencyKey,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let Body {
        data,
        b64data,
        tags,
        idempotency_key,
        schema_version,
        publications,
    } = object(&body)?;
    if let Some(Few(items)) = publications {
        if data.is_some()
            || b64data.is_some()
            || tags.is_some()
            || idempotency_key.is_some()
            || schema_version.is_some()
        {
            return Err(ApiError::field("publications", "stands alone"));
        }
        if header.is_some() {
            let problem = "a batch has an idempotency_key in each publication";
            return Err(ApiError::field("Idempotency-Key", problem));
        }
        if items.is_empty() {
            return Err(ApiError::field("publications", "empty"));
        }
        // Boxed: a single publication need not be as large.
        return Ok(Box::pin(batch(&state, &app, &target, items, &body)).await);
    }
    let field = idempotency_key.as_ref().map(|Text(key)| key.as_ref());
    if field.is_some() && header.is_some() && field != header.as_deref() {
        return Err(ApiError::field("idempotency_key", "differs from the header"));
    }
    let record = record(&body, data, b64data.as_ref(), tags)?;
    let key = field.or(header.as_deref());
    let published = state
        .publisher
        .publish(&app, &target, &record, key, schema_version)?
        .await?;
    let stored = published.position.is_some() && !published.duplicate;
    let mut answer = Vec::with_capacity(96);
    write_published(&published, &mut answer);
    let status = match published.queued {
        Some(_) => StatusCode::ACCEPTED,
        None if stored => StatusCode::CREATED,
        None => StatusCode::OK,
    };
    Ok(json_response(status, answer))
}

/// Publishes in order and writes a result for each.
async fn batch(
    state: &ApiState,
    app: &App,
    target: &Target,
    items: Vec<Object<Item<'_>>>,
    body: &Bytes,
) -> Response {
    let mut answer = Vec::with_capacity(16 + 64 * items.len());
    answer.extend_from_slice(br#"{"results":["#);
    let empty = answer.len();
    let send = |Object(item): Object<Item<'_>>| {
        let schema_version = item.schema_version;
        let (record, key) = item.into_parts(body)?;
        let key = key.as_ref().map(|Text(key)| key.as_ref());
        Ok(state
            .publisher
            .publish(app, target, &record, key, schema_version)?)
    };
    let done = |result: Result<Published, ApiError>| {
        if answer.len() > empty {
            answer.push(b',');
        }
        match result {
            Ok(published) => write_published(&published, &mut answer),
            Err(error) => error.write(&mut answer),
        }
    };
    publish_all(state.max_in_flight, items, send, done).await;
    answer.extend_from_slice(b"]}");
    json_response(StatusCode::OK, answer)
}

impl Failure for ApiError {
    fn not_sent() -> Self {
        Self::Unavailable
    }

    fn is_of_log(&self) -> bool {
        matches!(self, Self::Unavailable | Self::OutcomeUnknown)
    }
}

impl<'a> Item<'a> {
    fn into_parts(self, body: &Bytes) -> Result<(Record, Option<Text<'a>>), ApiError> {
        let record = record(body, self.data, self.b64data.as_ref(), self.tags)?;
        Ok((record, self.idempotency_key))
    }
}

fn write_published(published: &Published, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(place) = published.queued {
        out.extend_from_slice(br#""queued":true,"id":""#);
        json::push_u64(out, place);
        out.extend_from_slice(br#"","#);
    }
    if let Some(position) = &published.position {
        out.extend_from_slice(br#""offset":"#);
        json::push_u64(out, position.offset);
        out.extend_from_slice(br#","epoch":"#);
        json::push_str(out, position.epoch.as_str());
        out.push(b',');
    }
    out.extend_from_slice(if published.duplicate {
        br#""duplicate":true}"#
    } else {
        br#""duplicate":false}"#
    });
}

pub(super) fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, content_type, HttpBody::from(body)).into_response()
}
