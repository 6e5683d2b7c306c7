//! The node's connections to NATS by async-nats, and how they are kept.
//!
//! `control` carries the registry, what nodes tell each other and what JetStream is told to do, `read`
//! the catch-up reads (L10). They are apart so that a burst of one kind does not stand in the way of
//! another, and because async-nats bounds the buffers of all subscriptions of a connection alike. Live
//! copies and publications have connections of another kind: [`super::link`].

use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::Notify;

use super::{error::StartError, events::Events};
use crate::{config::NatsConfig, log::LogEvent, task::Tasks};

/// A server that is silent for three of these is given up: a dead link is found within 9 s.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest pause between two attempts to connect again.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// Messages of catch-up answers that may wait to be sorted. The bytes asked for at once are bounded
/// by the readers; a message lost here is noticed, and its page is asked for again.
const READ_CAPACITY: usize = 65_536;

/// The two connections. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) control: Client,
    pub(super) read: Client,
}

impl Connections {
    /// Connects; fails if a server cannot be reached now.
    pub(super) async fn open(nats: &NatsConfig, events: &Events, tasks: &Tasks) -> Result<Self, StartError> {
        let servers = servers(nats)?;
        let open =
            async |role: &'static str, subscriptions: usize, commands: usize, hears: Option<Events>| {
                let options = options(nats, role).await?;
                let lame_duck = Arc::new(Notify::new());
                let client = options
                    .subscription_capacity(subscriptions.max(1))
                    .client_capacity(commands.max(1))
                    .event_callback(on_event(role, hears, lame_duck.clone()))
                    .connect(servers.as_slice())
                    .await
                    .map_err(|error| StartError::connect(nats, &error))?;
                tasks.spawn(leave_lame_ducks(client.clone(), lame_duck));
                Ok::<_, StartError>(client)
            };
        Ok(Self {
            control: open(
                "control",
                nats.subscription_capacity,
                nats.command_capacity,
                Some(events.clone()),
            )
            .await?,
            read: open("read", READ_CAPACITY, nats.command_capacity, None).await?,
        })
    }

    /// All of them.
    pub(super) fn all(&self) -> [&Client; 2] {
        [&self.control, &self.read]
    }
}

pub(super) fn servers(nats: &NatsConfig) -> Result<Vec<ServerAddr>, StartError> {
    nats.servers
        .iter()
        .map(|url| url.parse())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| StartError::connect(nats, &error))
}

async fn options(nats: &NatsConfig, role: &str) -> Result<ConnectOptions, StartError> {
    let mut options = ConnectOptions::new()
        .name(format!("slipstream {role}"))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(nats.request_timeout))
        .reconnect_delay_callback(reconnect_delay)
        // Subjects come from our own encoding, which leaves nothing to check.
        .skip_subject_validation(true);
    if let Some(user) = &nats.user {
        let password = nats.password.as_ref().map_or("", |secret| secret.expose());
        options = options.user_and_password(user.clone(), password.to_owned());
    }
    if let Some(token) = &nats.token {
        options = options.token(token.expose().to_owned());
    }
    if let Some(path) = &nats.credentials {
        options = options
            .credentials_file(path)
            .await
            .map_err(|error| StartError::Credentials {
                path: path.clone(),
                why: error.to_string(),
            })?;
    }
    if let Some(path) = &nats.ca_file {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    Ok(options)
}

/// At once, then from 10 ms doubling to a second. A third more or less, by the attempt's number and
/// the process, so that the nodes of a deployment do not come in step.
pub(super) fn reconnect_delay(attempts: usize) -> Duration {
    let Some(doublings) = attempts.checked_sub(2) else {
        return Duration::ZERO;
    };
    let delay = Duration::from_millis(10 << doublings.min(7)).min(MAX_RECONNECT_DELAY);
    let spread = (attempts as u32).wrapping_mul(7).wrapping_add(std::process::id()) % 100;
    delay * (67 + spread * 2 / 3) / 100
}

fn on_event(
    role: &'static str,
    hears: Option<Events>,
    lame_duck: Arc<Notify>,
) -> impl Fn(Event) -> Ready<()> + Send + Sync {
    move |event| {
        match &event {
            Event::Connected => tracing::info!(connection = role, "connected to NATS"),
            Event::Disconnected => tracing::warn!(connection = role, "the connection to NATS was lost"),
            _ => {}
        }
        if event == Event::LameDuckMode {
            lame_duck.notify_one();
        }
        let event = match event {
            Event::Connected => Some(LogEvent::Connected),
            Event::Disconnected | Event::Closed => Some(LogEvent::Disconnected),
            Event::SlowConsumer(_) => Some(LogEvent::SlowConsumer),
            _ => None,
        };
        if let (Some(events), Some(event)) = (&hears, event) {
            events.send(event);
        }
        ready(())
    }
}

/// A server in lame duck mode has already given up JetStream, and closes its clients only minutes
/// later: they go themselves.
async fn leave_lame_ducks(client: Client, lame_duck: Arc<Notify>) {
    loop {
        lame_duck.notified().await;
        tracing::info!("the NATS server is shutting down; connecting to another one");
        if client.force_reconnect().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_to_connect_again_are_spread_and_bounded() {
        assert_eq!(reconnect_delay(0), Duration::ZERO);
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        for attempts in 2..100 {
            let delay = reconnect_delay(attempts);
            assert!(
                delay >= Duration::from_millis(6) && delay < MAX_RECONNECT_DELAY * 4 / 3,
                "{delay:?}"
            );
        }
        assert!(reconnect_delay(usize::MAX) > MAX_RECONNECT_DELAY / 2);
    }
}
