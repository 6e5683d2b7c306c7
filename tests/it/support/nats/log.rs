use std::{ops::Deref, sync::Arc, time::Duration};

use slipstream::{
    config::{ClassConfig, LogConfig, NatsConfig, StreamConfig, StreamsConfig},
    log::nats::{NatsLog, StartError},
    model::{AppId, ClassName, History},
    task::Tasks,
};

use super::{NatsServer, within};

/// A NATS log as one node has it. Dropping it ends its tasks, as if the node were gone.
pub(crate) struct TestLog {
    /// The log.
    pub(crate) log: Arc<NatsLog>,
    /// Its tasks.
    pub(crate) tasks: Tasks,
}

impl TestLog {
    /// Starts with [`nats_config`] and [`log_config`] on the servers at `urls`.
    pub(crate) async fn start(urls: &[String]) -> Self {
        Self::start_with(&nats_config(urls), &log_config()).await.unwrap()
    }

    /// Starts with these settings and no namespaces.
    pub(crate) async fn start_with(nats: &NatsConfig, log: &LogConfig) -> Result<Self, StartError> {
        Self::start_with_namespaces(nats, log, &[]).await
    }

    /// Starts with these settings and namespaces.
    pub(crate) async fn start_with_namespaces(
        nats: &NatsConfig,
        log: &LogConfig,
        namespaces: &[(AppId, String, History)],
    ) -> Result<Self, StartError> {
        let tasks = Tasks::default();
        match within(NatsLog::start(nats, log, None, namespaces, &tasks)).await {
            Ok(log) => Ok(Self { log, tasks }),
            Err(error) => {
                tasks.stop();
                Err(error)
            }
        }
    }
}

impl Deref for TestLog {
    type Target = NatsLog;
    fn deref(&self) -> &NatsLog {
        &self.log
    }
}

impl Drop for TestLog {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A server of its own and a log on it, with [`log_config`]'s classes.
pub(crate) async fn fresh_log() -> (NatsServer, TestLog) {
    let server = NatsServer::start().await;
    let log = TestLog::start(&[server.url()]).await;
    (server, log)
}

/// Settings for tests: short timeouts.
pub(crate) fn nats_config(urls: &[String]) -> NatsConfig {
    NatsConfig {
        servers: urls.to_vec(),
        user: None,
        password: None,
        token: None,
        credentials: None,
        ca_file: None,
        connect_timeout: Duration::from_secs(3),
        ping_interval: Duration::from_secs(3),
        max_reconnect_delay: Duration::from_secs(1),
        start_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(2),
        request_timeout_max: Duration::from_secs(5),
        subscription_capacity: 512,
        watch_capacity: 131_072,
        answer_bytes: 4 << 20,
        command_capacity: 2_048,
    }
}

/// Two classes: `std` with two shards, and `few` with one that keeps three messages per channel.
pub(crate) fn log_config() -> LogConfig {
    let few = ClassConfig {
        max_per_channel: Some(3),
        shards: 1,
        ..class("few")
    };
    LogConfig {
        prefix: "slip".to_owned(),
        classes: vec![class("std"), few],
        max_in_flight: 1_024,
        ack_timeout: Duration::from_secs(5),
        mark_interval: Duration::from_secs(1),
        clock_margin: Duration::from_secs(1),
        streams: StreamsConfig {
            usage: stream(),
            overflow: StreamConfig {
                max_bytes: 512 << 10,
                ..stream()
            },
            events: stream(),
        },
    }
}

/// A stream of the deployment's own: R1, an hour.
fn stream() -> StreamConfig {
    StreamConfig {
        max_age: Duration::from_secs(3_600),
        max_bytes: 64 << 20,
        duplicate_window: Duration::from_secs(60),
        replicas: 1,
    }
}

/// A class with two shards, R1, an hour.
pub(crate) fn class(name: &str) -> ClassConfig {
    ClassConfig {
        name: ClassName::new(name).unwrap(),
        shards: 2,
        max_age: Duration::from_secs(3_600),
        max_bytes: 64 << 20,
        max_per_channel: None,
        duplicate_window: Duration::from_secs(60),
        replicas: 1,
        placement_tags: Vec::new(),
    }
}
