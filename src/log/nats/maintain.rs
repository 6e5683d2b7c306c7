//! What an operator does to a deployment, and a node never does by itself: new epochs after a
//! restore (L4), and more room for a class (L2).

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{
    NatsLog,
    api::Api,
    connect::connect,
    error::{Difference, StartError},
    events::Events,
    format::Names,
    inbox::Inbox,
    registry::{Registry, layout::Layout},
    streams,
};
use crate::{
    config::{LogConfig, NatsConfig},
    log::{EpochEntry, Log, ReadError, ShardSpec, StreamName},
    model::Epoch,
    random,
    task::Tasks,
};

/// Between two attempts at a shard; `nats.start_timeout` ends them.
const PAUSE: Duration = Duration::from_millis(500);

/// Gives every shard of the deployment a new epoch, and tells `done` of each: clients that come back
/// with a position from before are told `recovered: false`. Nodes that run learn of it by themselves.
///
/// # Errors
///
/// [`StartError`]; the shards that `done` was told of have their new epoch all the same.
pub async fn new_epochs(
    nats: &NatsConfig,
    log: &LogConfig,
    tasks: &Tasks,
    mut done: impl FnMut(&str, &Epoch),
) -> Result<(), StartError> {
    let patience = nats.start_timeout;
    let log = NatsLog::start(nats, log, None, &[], tasks).await?;
    for spec in log.shards() {
        let token = Epoch::new(&random::name(8));
        // One that has lost its leader has another soon.
        let deadline = Instant::now() + patience;
        while let Err(error) = replace(&log, spec, &token).await {
            if Instant::now() >= deadline {
                return Err(StartError::Request {
                    what: format!("give {} a new epoch", spec.stream),
                    why: error.to_string(),
                });
            }
            sleep(PAUSE).await;
        }
        done(&spec.stream, &token);
    }
    Ok(())
}

async fn replace(log: &Arc<NatsLog>, spec: &ShardSpec, token: &Epoch) -> Result<(), ReadError> {
    let info = log.info(spec.id).await?;
    let revision = log.epoch(spec.id).await?.map_or(0, |(_, revision)| revision);
    let entry = EpochEntry {
        created: info.created,
        token: token.clone(),
        mark_seq: 0,
        mark_time_ms: 0,
    };
    if log.set_epoch(spec.id, &entry, revision).await? {
        Ok(())
    } else {
        Err(ReadError::NotNow("a node wrote its mark".to_owned()))
    }
}

/// Raises `max_bytes` of the deployment's classes and of its own streams to what the configuration says, and tells `done` of
/// each stream. Doing it again finishes what was interrupted; nodes that run go on as they are.
///
/// # Errors
///
/// [`StartError`], also if one of them would get less room, or differs in anything else.
pub async fn resize(
    nats: &NatsConfig,
    log: &LogConfig,
    tasks: &Tasks,
    mut done: impl FnMut(&str, u64),
) -> Result<(), StartError> {
    let names = Names::new(&log.prefix).ok_or(StartError::Prefix)?;
    let client = connect(nats, &Events::new(), tasks).await?;
    let inbox = Inbox::start(client, nats, tasks)
        .await
        .map_err(|error| StartError::connect(nats, &error))?;
    let api = Api::new(Arc::new(inbox));
    let registry = Registry::new(api.clone(), names.bucket());

    let ours = Layout::of(&log.classes);
    registry.check_resize(&ours).await?;
    // The streams first: what the registry says there is room for, there is.
    for class in &log.classes {
        for shard in 0..class.shards {
            let stream = names.stream(class.name.as_str(), shard);
            set_max_bytes(&api, &stream, class.max_bytes).await?;
            done(&stream, class.max_bytes);
        }
    }
    for name in StreamName::ALL {
        let (stream, max_bytes) = (names.work_stream(name), streams::config(log, name).max_bytes);
        set_max_bytes(&api, &stream, max_bytes).await?;
        done(&stream, max_bytes);
    }
    registry.register_resize(&ours).await
}

async fn set_max_bytes(api: &Api, stream: &str, max_bytes: u64) -> Result<(), StartError> {
    #[derive(serde::Deserialize)]
    struct Info {
        config: Map<String, Value>,
    }
    let failed = || StartError::request(format!("resize the stream {stream}"));
    let mut info: Info = api
        .call(&format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .map_err(failed())?;
    let found = info.config.get("max_bytes").and_then(Value::as_u64);
    if found.is_some_and(|found| found > max_bytes) {
        return Err(StartError::StreamDiffers {
            stream: stream.to_owned(),
            differences: vec![Difference {
                field: "max_bytes".to_owned(),
                expected: max_bytes.to_string(),
                found: found.unwrap_or_default().to_string(),
            }],
        });
    }
    let max_bytes = json!(max_bytes);
    if info.config.get("max_bytes") != Some(&max_bytes) {
        info.config.insert("max_bytes".to_owned(), max_bytes);
        let _: Info = api
            .call(&format!("STREAM.UPDATE.{stream}"), &info.config)
            .await
            .map_err(failed())?;
    }
    Ok(())
}
