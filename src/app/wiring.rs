//! What one part of a node does to another: given to them when they are started.

use std::sync::Arc;

use crate::{
    apps::{self, Change, OnChange, Opener},
    channel::{Budgets, Hub},
    cluster::Load,
    config::{Config, Secret},
    edge::gateway::Gateway,
    model::TokenFacts,
    protocol::DisconnectCode,
    revocation::Enforce,
    seal::Sealing,
    task::Tasks,
    telemetry::{Metrics, RefusedMessage},
    users::Index,
};

/// Closes connections whose token is worth nothing any more.
pub(super) fn enforce(index: Arc<Index>, metrics: Arc<Metrics>) -> Enforce {
    Box::new(move |app, user, revoked| {
        for mailbox in index.with_token(app, user, revoked) {
            metrics.revoked_connections.inc();
            mailbox.close(DisconnectCode::InvalidToken);
        }
    })
}

/// Opens the secrets of apps.
pub(super) fn open(sealing: Arc<Sealing>) -> Opener {
    Box::new(move |app, key, sealed| {
        let opened = sealing.open(&apps::key_purpose(app, key), sealed).ok()?;
        String::from_utf8(opened).ok().map(Secret::new)
    })
}

/// What open connections, and what is held for apps, feel of a change.
pub(super) fn feel(index: Arc<Index>, budgets: Arc<Budgets>, metrics: Arc<Metrics>) -> OnChange {
    Box::new(move |app, change| match change {
        Change::Served(app) => budgets.set(&app.id, app.limits.ring_bytes),
        Change::Removed => {
            budgets.remove(app);
            for mailbox in index.of_app(app) {
                mailbox.close(DisconnectCode::ForceDisconnect);
            }
        }
        Change::KeysRevoked(keys) => {
            let is_revoked =
                |_: &str, facts: &TokenFacts| facts.key.as_ref().is_some_and(|key| keys.contains(key));
            for mailbox in index.with_token(app, None, is_revoked) {
                metrics.revoked_connections.inc();
                mailbox.close(DisconnectCode::InvalidToken);
            }
        }
    })
}

/// What other nodes are told of this one's load.
pub(super) fn load(
    gateway: &Arc<Gateway>,
    hub: &Arc<Hub>,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
) -> impl Fn() -> Load + Send + Sync + use<> {
    let (gateway, hub) = (Arc::downgrade(gateway), Arc::downgrade(hub));
    move || Load {
        connections: gateway
            .upgrade()
            .map_or(0, |gateway| gateway.connections() as u64),
        users: index.users() as u64,
        subscriptions: metrics.subscriptions(),
        tails: hub.upgrade().map_or(0, |hub| hub.tails() as u64),
    }
}

/// Sets what is measured when `/metrics` is asked for.
pub(super) fn measure(
    gateway: &Arc<Gateway>,
    hub: &Arc<Hub>,
    index: &Arc<Index>,
    tasks: [Tasks; 2],
) -> impl Fn(&Metrics) + Send + Sync + 'static {
    let index = index.clone();
    // They own the metrics.
    let (gateway, hub) = (Arc::downgrade(gateway), Arc::downgrade(hub));
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    move |metrics| {
        let running = tasks.iter().map(Tasks::count).sum();
        metrics.tasks.set(gauge(running));
        metrics.users.set(gauge(index.users()));
        if let Some(gateway) = gateway.upgrade() {
            metrics.mailbox_bytes.set(gauge(gateway.queued_bytes()));
        }
        if let Some(hub) = hub.upgrade() {
            let (waiting, bytes) = hub.catchup_load();
            metrics.catchup_waiting.set(gauge(waiting));
            metrics.catchup_in_flight_bytes.set(gauge(bytes));
            metrics.nats_connected.set(i64::from(hub.log().connected()));
            let refused = hub.log().refused_messages();
            for (why, count) in [
                (RefusedMessage::Malformed, refused.malformed),
                (RefusedMessage::Forged, refused.forged),
                (RefusedMessage::Repeated, refused.repeated),
            ] {
                let counter = metrics.node_messages_refused.of(why);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
    }
}

/// What the node is called: as configured, or as the host.
pub(super) fn node_name(config: &Config) -> String {
    match config.node.name.as_str() {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        name => name.to_owned(),
    }
}
