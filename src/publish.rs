//! The one way into the log: what every door (REST, the server API, the WebSocket edge) has in
//! common when it publishes.
//!
//! A door reads its own wire form and decides who may publish. Everything else is asked here, once:
//! whether the channel exists, the bounds of what is published, the app's and the channel's rates.

use std::{
    borrow::Cow,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::Either;

use crate::{
    apps::{App, Throttled},
    channel::{Hub, PublishFailure, Published, may_be_stored},
    log::{ReadError, Route, Waiting},
    model::{
        AppId, ChannelName, InvalidChannel, Kind, MAX_IDEMPOTENCY_KEY_BYTES, Overflow as Policy, Record,
        Rule, Rules,
    },
    overflow::{NotQueued, Overflow},
    protocol::{ErrorCode, json},
    quota::Reservation,
    schema::Invalid,
    task,
    telemetry::{Limit, Metrics, PublishOutcome},
};

/// The most tags of a publication.
pub const MAX_TAGS: usize = 16;
/// The longest name of a tag, in bytes. None is empty.
pub const MAX_TAG_NAME_BYTES: usize = 64;
/// The longest value of a tag, in bytes.
pub const MAX_TAG_VALUE_BYTES: usize = 256;

/// The tag of publications in a namespace with schemas: the version that they are valid by.
pub const SCHEMA_TAG: &str = "schema_version";
/// Units of a payload's work from which on other tasks are moved out of its way: about half a millisecond.
const LONG_WORK: u64 = 25_000;

/// A channel that exists in an app, with its rule.
#[derive(Clone, Debug)]
pub struct Target {
    /// The channel.
    pub channel: ChannelName,
    /// The rule of its namespace.
    pub rule: Arc<Rule>,
}

/// Why a name leads to no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// It is not the name of a channel.
    #[error(transparent)]
    Invalid(#[from] InvalidChannel),
    /// The app has no such namespace.
    #[error("the app has no such namespace")]
    Unknown,
}

/// Why a publication was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// The channel's name leads to no channel.
    #[error(transparent)]
    NoTarget(#[from] NoTarget),
    /// The idempotency key is empty or longer than [`MAX_IDEMPOTENCY_KEY_BYTES`].
    #[error("an idempotency key has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes")]
    IdempotencyKey,
    /// More or longer tags than [`MAX_TAGS`] and its companions allow.
    #[error(
        "there are at most {MAX_TAGS} tags, with names of 1 to {MAX_TAG_NAME_BYTES} and values of up to {MAX_TAG_VALUE_BYTES} bytes"
    )]
    Tags,
    /// The payload is JSON with more nesting than `http.max_json_depth`.
    #[error("the payload is nested deeper than {max_json_depth}")]
    TooDeep {
        /// `http.max_json_depth`.
        max_json_depth: usize,
    },
    /// The payload is larger than the rule's `max_size`, or the app's quota.
    #[error("the payload is larger than {max_size} bytes")]
    TooLarge {
        /// How large it may be.
        max_size: usize,
        /// Which of the two says so.
        limit: Limit,
    },
    /// The payload is not valid by the namespace's schema, or the version is unknown.
    #[error(transparent)]
    Schema(#[from] Invalid),
    /// A rate is exceeded.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The namespace names a retention class that this deployment does not have.
    #[error("the channel's retention class does not exist")]
    NoClass,
    /// The log did not acknowledge it. Tells whether it may be stored.
    #[error(transparent)]
    Log(#[from] PublishFailure),
}

/// Publishes for all doors of a node. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    hub: Arc<Hub>,
    max_json_depth: usize,
    overflow: Option<Arc<Overflow>>,
    metrics: Arc<Metrics>,
}

/// A publication that is as it should be.
enum Ready<'a> {
    /// It has been admitted.
    Now(Route, Cow<'a, Record>, Reservation),
    /// It is to wait.
    Later(Arc<Overflow>, Cow<'a, Record>),
}

/// How a publication may go on.
enum Admitted {
    /// At once, with this room in the history.
    Now(Reservation),
    /// It is to wait.
    Later(Arc<Overflow>),
}

// === impl Target ===

impl Target {
    /// The channel of that name among an app's rules.
    ///
    /// # Errors
    ///
    /// [`NoTarget`].
    pub fn find(rules: &Rules, name: &str) -> Result<Self, NoTarget> {
        let channel = ChannelName::new(name)?;
        let rule = rules.rule(&channel).ok_or(NoTarget::Unknown)?.clone();
        Ok(Self { channel, rule })
    }
}

// === impl PublishError ===

impl PublishError {
    /// The error as the Centrifuge protocol and its server API know it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoTarget(NoTarget::Unknown) => ErrorCode::UnknownChannel,
            Self::NoTarget(NoTarget::Invalid(_))
            | Self::IdempotencyKey
            | Self::Tags
            | Self::TooDeep { .. }
            | Self::Schema(_) => ErrorCode::BadRequest,
            Self::TooLarge { .. } => ErrorCode::LimitExceeded,
            Self::Throttled(_) => ErrorCode::TooManyRequests,
            Self::NoClass => ErrorCode::NotAvailable,
            // Nothing was sent, so that trying again is safe.
            Self::Log(PublishFailure::Unavailable(_)) => ErrorCode::TooManyRequests,
            Self::Log(PublishFailure::Refused(_) | PublishFailure::Full) => ErrorCode::NotAvailable,
            Self::Log(PublishFailure::Unknown) => ErrorCode::OutcomeUnknown,
        }
    }

    /// What is wrong, where the words of [`PublishError::code`] do not tell.
    pub fn explanation(&self) -> Option<String> {
        match self {
            Self::Schema(invalid) => Some(invalid.to_string()),
            _ => None,
        }
    }

    /// When to try again, where waiting helps and nothing was stored.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled(throttled) => Some(throttled.retry_after),
            Self::Log(PublishFailure::Unavailable(_)) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

// === impl Publisher ===

impl Publisher {
    /// A publisher into the channels of `hub`, of payloads with at most `max_json_depth` arrays and
    /// objects within each other.
    pub fn new(hub: Arc<Hub>, max_json_depth: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            hub,
            max_json_depth,
            overflow: None,
            metrics,
        }
    }

    /// The same, that queues what comes too soon where a rule says so. Without a queue it is refused.
    #[must_use]
    pub fn with_queue(self, overflow: Arc<Overflow>) -> Self {
        Self {
            overflow: Some(overflow),
            ..self
        }
    }

    /// What waits of a channel in the queue.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn waiting(&self, app: &App, channel: &ChannelName) -> Result<Waiting, ReadError> {
        match &self.overflow {
            Some(overflow) => overflow.waiting(&app.id, channel).await,
            None => Ok(Waiting::default()),
        }
    }

    /// Checks and publishes. The publication has its place in the order of all publishes when this
    /// returns; the future tells what became of it. Counts what was refused. Where the namespace has schemas,
    /// it must be valid by the version that is named, or by the latest, and is tagged with that
    /// ([`SCHEMA_TAG`]); elsewhere none may be named.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was sent then. The future's errors are [`PublishError::Log`], or that the
    /// queue is full.
    pub fn publish(
        &self,
        app: &App,
        target: &Target,
        record: &Record,
        idempotency_key: Option<&str>,
        schema_version: Option<u32>,
    ) -> Result<impl Future<Output = Result<Published, PublishError>> + Send + use<>, PublishError> {
        let ready = self.ready(app, target, record, idempotency_key, schema_version);
        match ready.inspect_err(|error| self.refused(app, error))? {
            Ready::Now(route, record, mut room) => {
                let sent = self.hub.publish(&route, &record, idempotency_key)?;
                // Also if nobody asks what became of it.
                room.set_stored(true);
                Ok(Either::Left(async move {
                    let outcome = sent.await;
                    room.set_stored(may_be_stored(&outcome));
                    outcome.map_err(PublishError::Log)
                }))
            }
            Ready::Later(overflow, record) => {
                let sent = overflow.append(app, &target.channel, &record, idempotency_key);
                let sent = sent.map_err(|why| self.not_queued(&app.id, why))?;
                let (this, app) = (self.clone(), app.id.clone());
                // Boxed, as what is rare: every publish would have to be as large.
                Ok(Either::Right(Box::pin(async move {
                    let ack = sent.await.map_err(|why| this.not_queued(&app, why))?;
                    Ok(Published {
                        position: None,
                        duplicate: ack.duplicate,
                        queued: Some(ack.seq),
                    })
                })))
            }
        }
    }

    fn not_queued(&self, app: &AppId, why: NotQueued) -> PublishError {
        let error = match why {
            NotQueued::Full(throttled) => throttled.into(),
            NotQueued::Log(failure) => failure.into(),
        };
        self.count(app, &error);
        error
    }

    /// Counts a publication that a door refused before it came here.
    pub fn refused(&self, app: &App, error: &PublishError) {
        self.count(&app.id, error);
    }

    fn count(&self, app: &AppId, error: &PublishError) {
        let metrics = self.metrics.app(app);
        let (outcome, limit) = match error {
            PublishError::Throttled(throttled) => (PublishOutcome::Limited, Some(throttled.limit)),
            PublishError::TooLarge { limit, .. } => (PublishOutcome::Rejected, Some(*limit)),
            PublishError::TooDeep { .. } => (PublishOutcome::Rejected, Some(Limit::JsonDepth)),
            PublishError::Schema(_) => (PublishOutcome::Invalid, None),
            // Only of the queue: the hub counts its own.
            PublishError::Log(PublishFailure::Unknown) => (PublishOutcome::Unknown, None),
            PublishError::Log(PublishFailure::Unavailable(_)) => (PublishOutcome::Unavailable, None),
            PublishError::Log(_) => (PublishOutcome::Refused, None),
            _ => (PublishOutcome::Rejected, None),
        };
        metrics.publishes.of(outcome).inc();
        if let Some(limit) = limit {
            metrics.limits_hit.of(limit).inc();
        }
    }

    /// Admits what is as it should be, or sees to it that it waits. What is not valid by its schema has cost
    /// the same as if it were: finding that out is work.
    fn ready<'a>(
        &self,
        app: &App,
        target: &Target,
        record: &'a Record,
        idempotency_key: Option<&str>,
        schema_version: Option<u32>,
    ) -> Result<Ready<'a>, PublishError> {
        let schemas = app.schemas(target.channel.namespace());
        let (version, record) = match (schemas, schema_version) {
            (Some(schemas), named) => {
                let version = schemas.version(named)?;
                (version, Cow::Owned(tagged(record, version)))
            }
            (None, Some(version)) => return Err(Invalid::Version { version }.into()),
            (None, None) => (0, Cow::Borrowed(record)),
        };
        let (route, admitted) = self.admit(app, target, &record, idempotency_key, Instant::now())?;
        if let Some(schemas) = schemas {
            if record.kind != Kind::Json {
                return Err(Invalid::NotJson.into());
            }
            let check = schemas.read(&record.data, version)?;
            let (work, most) = (check.work(), app.max_schema_work);
            if work > most {
                return Err(Invalid::Work { version, work, most }.into());
            }
            app.admit_schema_work(work, Instant::now())?;
            match work > LONG_WORK {
                true => task::long(|| check.run())?,
                false => check.run()?,
            }
        }
        Ok(match admitted {
            Admitted::Later(overflow) => Ready::Later(overflow, record),
            Admitted::Now(room) => Ready::Now(route, record, room),
        })
    }

    fn admit(
        &self,
        app: &App,
        target: &Target,
        record: &Record,
        idempotency_key: Option<&str>,
        now: Instant,
    ) -> Result<(Route, Admitted), PublishError> {
        let Target { channel, rule } = target;
        if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES) {
            return Err(PublishError::IdempotencyKey);
        }
        let tag_fits = |(name, value): &(String, String)| {
            matches!(name.len(), 1..=MAX_TAG_NAME_BYTES) && value.len() <= MAX_TAG_VALUE_BYTES
        };
        let own = |(name, _): &&(String, String)| name != SCHEMA_TAG;
        if record.tags.iter().filter(own).count() > MAX_TAGS || !record.tags.iter().all(tag_fits) {
            return Err(PublishError::Tags);
        }
        let quota = app.quotas.message_bytes;
        let max_size = quota.map_or(rule.max_size, |most| {
            rule.max_size.min(usize::try_from(most).unwrap_or(usize::MAX))
        });
        if record.data.len() > max_size {
            return Err(PublishError::TooLarge {
                max_size,
                limit: if max_size < rule.max_size {
                    Limit::QuotaMessageBytes
                } else {
                    Limit::MessageSize
                },
            });
        }
        if record.kind == Kind::Json && json::is_deeper_than(&record.data, self.max_json_depth) {
            return Err(PublishError::TooDeep {
                max_json_depth: self.max_json_depth,
            });
        }
        let route = self
            .hub
            .route(&app.id, channel, &rule.history)
            .ok_or(PublishError::NoClass)?;
        let size = self.hub.size(&route, record, idempotency_key);
        // A client without a user counts as one of its own.
        let by = record.info.as_ref().map(|info| match info.user.as_str() {
            "" => info.client.as_str(),
            user => user,
        });
        let overflow = self.overflow.as_ref();
        let overflow = overflow.filter(|_| rule.overflow == Policy::Queue);
        if let Some(overflow) = overflow.filter(|overflow| overflow.is_waited_for(&app.id, channel)) {
            // Behind what waits already, or it would overtake it.
            app.admit_to_queue(by, size, now)?;
            return Ok((route, Admitted::Later(overflow.clone())));
        }
        match (app.admit(channel, by, 1, size, now), overflow) {
            (Ok(room), _) => Ok((route, Admitted::Now(room))),
            (Err(throttled), Some(overflow)) if throttled.can_wait() => {
                app.admit_to_queue(by, size, now)?;
                Ok((route, Admitted::Later(overflow.clone())))
            }
            (Err(throttled), _) => Err(throttled.into()),
        }
    }
}

/// The record with the tag that says by which version it is valid.
fn tagged(record: &Record, version: u32) -> Record {
    let mut tagged = record.clone();
    tagged.tags.retain(|(name, _)| name != SCHEMA_TAG);
    tagged.tags.push((SCHEMA_TAG.to_owned(), version.to_string()));
    tagged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_code_and_says_whether_to_try_again() {
        let throttled = Throttled {
            limit: Limit::PublishRate,
            retry_after: Duration::from_millis(7),
        };
        for (error, code, retry_ms) in [
            (NoTarget::Unknown.into(), ErrorCode::UnknownChannel, None),
            (
                NoTarget::Invalid(InvalidChannel::Empty).into(),
                ErrorCode::BadRequest,
                None,
            ),
            (PublishError::IdempotencyKey, ErrorCode::BadRequest, None),
            (PublishError::Tags, ErrorCode::BadRequest, None),
            (
                PublishError::TooDeep { max_json_depth: 1 },
                ErrorCode::BadRequest,
                None,
            ),
            (
                PublishError::TooLarge {
                    max_size: 1,
                    limit: Limit::MessageSize,
                },
                ErrorCode::LimitExceeded,
                None,
            ),
            (throttled.into(), ErrorCode::TooManyRequests, Some(7)),
            (PublishError::NoClass, ErrorCode::NotAvailable, None),
            (
                PublishFailure::Unavailable("").into(),
                ErrorCode::TooManyRequests,
                Some(1000),
            ),
            (
                PublishFailure::Refused(String::new()).into(),
                ErrorCode::NotAvailable,
                None,
            ),
            // L14: trying again could store it twice.
            (PublishFailure::Unknown.into(), ErrorCode::OutcomeUnknown, None),
        ] {
            let retry = retry_ms.map(Duration::from_millis);
            assert_eq!((error.code(), error.retry_after()), (code, retry), "{error}");
        }
    }
}
