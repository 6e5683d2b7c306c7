//! Warnings as events of the deployment: appended to its stream `events`, under the app.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tracing::warn;

use super::service::{OnWarning, Warning};
use crate::{
    log::{Log, PublishError, StreamName, WorkStream},
    task::Tasks,
    telemetry::Label,
};

/// The version of the form of events.
const FORMAT: u32 = 1;
/// Attempts to append one, under one id: it is stored once.
const TRIES: u32 = 5;
/// Before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(500);

/// Appends each warning to the stream of events; tasks of `tasks` see to it.
pub fn to_stream(log: &Arc<dyn Log>, tasks: Tasks) -> OnWarning {
    let stream = log.work_stream(StreamName::Events);
    Box::new(move |warning| tasks.spawn(append(stream.clone(), warning.clone())))
}

async fn append(stream: Arc<dyn WorkStream>, warning: Warning) {
    let Warning {
        app,
        quota,
        used,
        limit,
        at,
    } = &warning;
    let quota = quota.as_str();
    let id = format!("quota.warning/{app}/{quota}/{at}");
    let event = json!({
        "format": FORMAT,
        "type": "quota.warning",
        "app": app.as_str(),
        "quota": quota,
        "used": used,
        "limit": limit,
        "at": at,
    });
    let event = event.to_string().into_bytes();
    let mut pause = PAUSE;
    for attempt in 1..=TRIES {
        let appended = match stream.append(&[app.as_str()], Some(&id), event.clone().into()) {
            Ok(outcome) => outcome.await,
            Err(error) => Err(error),
        };
        match appended {
            Ok(_) => return,
            Err(why @ (PublishError::Refused(_) | PublishError::Full)) => {
                warn!(%app, quota, %why, "the event of a warning was refused");
                return;
            }
            Err(why) if attempt == TRIES => {
                warn!(%app, quota, %why, "the event of a warning could not be stored");
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
}
