//! The node's connections to NATS by async-nats, and how they are kept.
//!
//! `control` carries the registry, what nodes tell each other and what JetStream is told to do; `watches` what
//! buckets hold and how it changes. What there is much of has connections of another kind, apart from each other
//! so that a burst of one does not stand in the way of another: [`super::link`].

use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::Notify;

use super::{error::StartError, events::Events};
use crate::{config::NatsConfig, log::LogEvent, task::Tasks};

const CONTROL: &str = "control";
const WATCHES: &str = "watches";

/// Connects `control`; fails if a server cannot be reached now.
pub(super) async fn connect(nats: &NatsConfig, events: &Events, tasks: &Tasks) -> Result<Client, StartError> {
    let capacity = nats.subscription_capacity;
    connect_as(CONTROL, capacity, nats, Some(events.clone()), tasks).await
}

/// Connects `watches`. NATS sends megabytes of a bucket ahead, and what one subscription does not hold of that is
/// dropped: the watch begins anew then, for ever if the reader is slow enough.
pub(super) async fn connect_watches(nats: &NatsConfig, tasks: &Tasks) -> Result<Client, StartError> {
    connect_as(WATCHES, nats.watch_capacity, nats, None, tasks).await
}

async fn connect_as(
    role: &'static str,
    capacity: usize,
    nats: &NatsConfig,
    events: Option<Events>,
    tasks: &Tasks,
) -> Result<Client, StartError> {
    let lame_duck = Arc::new(Notify::new());
    let client = options(nats, role)
        .await?
        .subscription_capacity(capacity.max(1))
        .client_capacity(nats.command_capacity.max(1))
        .event_callback(on_event(role, events, lame_duck.clone()))
        .connect(servers(nats)?.as_slice())
        .await
        .map_err(|error| StartError::connect(nats, &error))?;
    tasks.spawn(leave_lame_ducks(client.clone(), lame_duck));
    Ok(client)
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
        .ping_interval(nats.ping_interval)
        .connection_timeout(nats.connect_timeout)
        .request_timeout(Some(nats.request_timeout))
        .reconnect_delay_callback({
            let most = nats.max_reconnect_delay;
            move |attempts| reconnect_delay(attempts, most)
        })
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

/// At once, then from 10 ms doubling to `most`. A third more or less, by the attempt's number and the
/// process, so that the nodes of a deployment do not come in step.
pub(super) fn reconnect_delay(attempts: usize, most: Duration) -> Duration {
    let Some(doublings) = attempts.checked_sub(2) else {
        return Duration::ZERO;
    };
    let delay = Duration::from_millis(10 << doublings.min(20)).min(most);
    let spread = (attempts as u32).wrapping_mul(7).wrapping_add(std::process::id()) % 100;
    delay * (67 + spread * 2 / 3) / 100
}

fn on_event(
    role: &'static str,
    events: Option<Events>,
    lame_duck: Arc<Notify>,
) -> impl Fn(Event) -> Ready<()> + Send + Sync {
    let tell = move |event| {
        if let Some(events) = &events {
            events.send(event);
        }
    };
    move |event| {
        match event {
            Event::Connected => {
                tracing::info!(connection = role, "connected to NATS");
                tell(LogEvent::Connected);
            }
            Event::Disconnected => {
                tracing::warn!(connection = role, "the connection to NATS was lost");
                tell(LogEvent::Disconnected);
            }
            Event::Closed => tell(LogEvent::Disconnected),
            Event::SlowConsumer(_) => tell(LogEvent::SlowConsumer),
            Event::LameDuckMode => lame_duck.notify_one(),
            _ => {}
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
        for most in [1, 60].map(Duration::from_secs) {
            assert_eq!(reconnect_delay(0, most), Duration::ZERO);
            assert_eq!(reconnect_delay(1, most), Duration::ZERO);
            for attempts in 2..100 {
                let delay = reconnect_delay(attempts, most);
                assert!(
                    delay >= Duration::from_millis(6) && delay < most * 4 / 3,
                    "{delay:?}"
                );
            }
            assert!(reconnect_delay(usize::MAX, most) > most / 2);
        }
    }
}
