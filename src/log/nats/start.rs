//! From a configuration to a log that works, or to an error that says what to do.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::Client;
use serde::Deserialize;
use serde_json::json;

use super::{
    Class, NatsLog, anchor,
    api::{Api, ApiError, Refusal},
    connect::{connect, connect_watches},
    error::StartError,
    events::{self, Events},
    format::Names,
    inbox::Inbox,
    link::{Link, Purpose},
    nodes::Peers,
    publish::Publisher,
    read::Reads,
    registry::{Registry, layout::Layout},
    seal::Seal,
    streams::{self, Definition},
};
use crate::{
    config::{LogConfig, NatsConfig, Secret},
    log::{BucketName, ShardId, ShardSpec, StreamName},
    model::{AppId, History, NodeId},
    random,
    task::Tasks,
};

/// The first version with batched Direct Get.
const OLDEST_SERVER: (i64, i64, i64) = (2, 11, 0);

impl NatsLog {
    /// Connects, verifies or creates the streams and the registry, and starts the log's tasks.
    ///
    /// `secret` is what nodes sign their messages with; `None` = the registry's key. `namespaces` are
    /// those of this node's file, with their class. Nothing that exists is changed:
    /// what differs from the configuration is an error that names each difference.
    pub async fn start(
        nats: &NatsConfig,
        log: &LogConfig,
        secret: Option<&Secret>,
        namespaces: &[(AppId, String, History)],
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StartError> {
        let names = Names::new(&log.prefix).ok_or(StartError::Prefix)?;
        check_classes(log, namespaces)?;
        let events = Events::new();
        let control = connect(nats, &events, tasks).await?;
        let watches = connect_watches(nats, tasks).await?;
        let inbox = Inbox::start(control.clone(), nats, tasks).await;
        let inbox = Arc::new(inbox.map_err(|error| StartError::connect(nats, &error))?);
        let api = Api::new(inbox.clone());

        check_server(&control, &api).await?;
        let registry = Registry::new(api.clone(), names.bucket());
        let layout = agree(&names, log, namespaces, &api, &registry, nats.start_timeout).await?;
        let (shards, classes) = number(&names, &layout)?;
        let key = match secret {
            Some(secret) => secret.expose().as_bytes().to_vec(),
            None => registry.cluster_key().await?,
        };
        let seal = Seal::new(&key, NodeId::new(random::number()));
        let streams: HashMap<_, _> = shards.iter().map(|spec| (spec.stream.clone(), spec.id)).collect();

        let subscribed = |error| StartError::connect(nats, &error);
        let publisher = Publisher::start(nats, log, &names, tasks).await?;
        let work_publisher = Publisher::start(nats, log, &names, tasks).await?;
        events::watch_elections(&control, streams.clone(), events.clone(), tasks)
            .await
            .map_err(subscribed)?;
        registry.watch_epochs(watches.clone(), streams, events.clone(), tasks);
        let link = Link::start(nats, &names, Purpose::Live(events.clone()), tasks).await?;
        let read = Link::start(nats, &names, Purpose::Read, tasks).await?;
        let log = Arc::new(Self {
            link,
            inbox,
            reads: Reads::new(read, nats.answer_bytes),
            request_timeout: nats.request_timeout,
            names,
            shards,
            classes,
            peers: Arc::new(Peers::new(control.clone(), seal)),
            tasks: tasks.clone(),
            control,
            watches,
            api,
            registry,
            publisher: Arc::new(publisher),
            work_publisher: Arc::new(work_publisher),
            events,
        });
        // Now, so that the first check already has its anchors; a failure is made up for later.
        for spec in &log.shards {
            if let Err(why) = anchor::keep(&log, spec).await {
                tracing::warn!(stream = %spec.stream, %why, "the anchor could not be written yet");
            }
        }
        tasks.spawn(anchor::keep_all(log.clone()));
        Ok(log)
    }
}

fn check_classes(log: &LogConfig, namespaces: &[(AppId, String, History)]) -> Result<(), StartError> {
    for (app, namespace, history) in namespaces {
        if let History::Class(class) = history
            && !log.classes.iter().any(|known| known.name == *class)
        {
            return Err(StartError::UnknownClass {
                namespace: format!("{app}/{namespace}"),
                class: class.to_string(),
            });
        }
    }
    Ok(())
}

async fn check_server(client: &Client, api: &Api) -> Result<(), StartError> {
    #[derive(Deserialize)]
    struct Account {}
    let (major, minor, patch) = OLDEST_SERVER;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(StartError::ServerTooOld {
            found: client.server_info().version,
        });
    }
    match api.call::<Account>("INFO", &json!({})).await {
        Ok(Account {}) => Ok(()),
        Err(ApiError::NoResponders) => Err(StartError::JetStreamDisabled),
        Err(ApiError::Refused(refusal))
            if matches!(refusal.err_code, Refusal::NOT_ENABLED | Refusal::NOT_FOR_ACCOUNT) =>
        {
            Err(StartError::JetStreamDisabled)
        }
        // A cluster that elects its leader answers later: creating the streams waits for it.
        Err(_) => Ok(()),
    }
}

/// Agrees with the other nodes: on the layout, the streams and the namespaces, in an order in which
/// nothing is registered that could not be created.
async fn agree(
    names: &Names,
    log: &LogConfig,
    namespaces: &[(AppId, String, History)],
    api: &Api,
    registry: &Registry,
    patience: Duration,
) -> Result<Layout, StartError> {
    let replicas = log.classes.iter().map(|class| class.replicas).max().unwrap_or(1);
    Definition::registry(names, replicas)?
        .ensure(api, patience)
        .await?;
    for bucket in BucketName::ALL {
        Definition::bucket(names, bucket, replicas)?
            .ensure(api, patience)
            .await?;
    }
    let ours = Layout::of(&log.classes);
    registry.check_layout(&ours).await?;
    for class in &log.classes {
        for shard in 0..class.shards {
            Definition::shard(names, class, shard)?
                .ensure(api, patience)
                .await?;
        }
    }
    for stream in StreamName::ALL {
        Definition::work(names, stream, streams::config(log, stream))?
            .ensure(api, patience)
            .await?;
    }
    let layout = registry.register_layout(&ours).await?;
    registry.register_namespaces(namespaces).await?;
    Ok(layout)
}

/// Numbers the shards of all classes in the order of the layout, which is the same on all nodes.
fn number(names: &Names, layout: &Layout) -> Result<(Vec<ShardSpec>, Vec<Class>), StartError> {
    let unreadable = |why: &str| StartError::Request {
        what: "give a layout that can be used".to_owned(),
        why: why.to_owned(),
    };
    let mut shards = Vec::new();
    let mut classes = Vec::new();
    for class in &layout.classes {
        let name = class
            .name()
            .ok_or_else(|| unreadable("a class has an invalid name"))?;
        let first = u16::try_from(shards.len()).map_err(|_| unreadable("more than 65,535 shards"))?;
        for shard in 0..class.shards {
            shards.push(ShardSpec {
                id: ShardId(
                    first
                        .checked_add(shard)
                        .ok_or_else(|| unreadable("more than 65,535 shards"))?,
                ),
                stream: names.stream(name.as_str(), shard),
                class: name.clone(),
                max_age: class.max_age(),
                max_per_channel: class.max_per_channel,
                max_bytes: class.max_bytes,
            });
        }
        classes.push(Class {
            name,
            first,
            shards: class.shards,
        });
    }
    Ok((shards, classes))
}
