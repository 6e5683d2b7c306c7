//! Removal of a channel's history (L15).

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{
    api::{Api, ApiError},
    envelope,
    publish::Publisher,
};
use crate::{log::PublishError, model::Offset};

/// How often the purge behind a stored tombstone is tried. Not a setting: the caller is told that the
/// outcome is unknown, and removing again is safe.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Stores a tombstone, so that tails learn of it in order, then purges what is below it. If the
/// purge fails, the outcome is unknown: removing again is safe.
pub(super) async fn remove(
    publisher: &Publisher,
    api: &Api,
    stream: &str,
    subject: String,
) -> Result<Offset, PublishError> {
    #[derive(Deserialize)]
    struct Purged {}
    // JetStream purges below `seq`, so the tombstone itself stays.
    let tombstone = publisher
        .publish(subject.clone(), envelope::tombstone(), "".into())?
        .await?;
    let request = json!({ "filter": subject, "seq": tombstone.seq });
    for attempt in 1..=ATTEMPTS {
        let purged: Result<Purged, ApiError> = api.call(&format!("STREAM.PURGE.{stream}"), &request).await;
        match purged {
            Ok(Purged {}) => return Ok(tombstone.seq),
            Err(why) => tracing::warn!(stream, %why, attempt, "removed history could not be purged"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(PublishError::Unknown)
}
