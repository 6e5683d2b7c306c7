//! The control plane by its HTTP API, over real stores, with nodes that hear of what it does.

mod isolation;
mod nodes;
mod outage;
mod repeat;
mod secrets;
mod story;
mod usage;

use slipstream::app::Roles;
use tempfile::TempDir;

use crate::support::{
    edge::{Builder, Edge},
    nats::NatsServer,
    people::with_control,
};

/// Nodes with the control role over a store in a file, and nodes without.
struct Deployment {
    nats: NatsServer,
    folder: TempDir,
}

impl Deployment {
    async fn start() -> Self {
        Self {
            nats: NatsServer::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("store.db").display())
    }

    /// A node with all roles.
    fn all(&self) -> Builder {
        with_control(Edge::builder().nats(&[self.nats.url()]), &self.store()).roles(Roles::ALL)
    }

    /// A node that knows no store.
    fn data(&self) -> Builder {
        Edge::builder()
            .nats(&[self.nats.url()])
            .set("tenants.sealing_keys", crate::support::people::SEALING)
    }
}
