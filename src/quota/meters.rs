use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;

use super::{kind::Kind, meter::Meter};
use crate::model::{AppId, Quotas};

/// The meters of all apps of a node, one for each.
#[derive(Debug)]
pub struct Meters {
    apps: RwLock<HashMap<AppId, (Quotas, Arc<Meter>)>>,
    /// Among how many nodes a quota is shared that nobody has shared yet.
    nodes: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            apps: RwLock::default(),
            nodes: AtomicU64::new(1),
        }
    }
}

impl Meters {
    /// The meter of an app, if it is served.
    pub fn get(&self, app: &AppId) -> Option<Arc<Meter>> {
        self.apps.read().get(app).map(|(_, meter)| meter.clone())
    }

    /// How long an app's history may be kept, if a quota says that.
    pub fn history_kept(&self, app: &AppId) -> Option<Duration> {
        let apps = self.apps.read();
        let (quotas, _) = apps.get(app)?;
        quotas.history_seconds.map(Duration::from_secs)
    }

    /// Holds an app to these quotas from now on: to this node's part of what is new, and beyond it as soon
    /// as the nodes have shared it. `meter` becomes the app's, if it has none.
    pub fn set(&self, app: &AppId, quotas: &Quotas, meter: &Arc<Meter>) {
        let mut apps = self.apps.write();
        let none = || (Quotas::default(), meter.clone());
        let (known, meter) = apps.entry(app.clone()).or_insert_with(none);
        if known != quotas {
            known.clone_from(quotas);
            let nodes = self.nodes.load(Ordering::Relaxed).max(1);
            let first = |kind: Kind| kind.limit(quotas).unwrap_or(0) / nodes;
            meter.set_quotas(quotas, first);
        }
    }

    /// The app is served no more.
    pub fn remove(&self, app: &AppId) {
        self.apps.write().remove(app);
    }

    /// The apps that have quotas.
    pub fn limited(&self) -> Vec<(AppId, Quotas, Arc<Meter>)> {
        let apps = self.apps.read();
        let limited = apps.iter().filter(|(_, (quotas, _))| !quotas.is_empty());
        limited
            .map(|(app, (quotas, meter))| (app.clone(), quotas.clone(), meter.clone()))
            .collect()
    }

    /// Quotas that are new are shared among so many nodes.
    pub fn set_nodes(&self, nodes: usize) {
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
        self.nodes.store(nodes, Ordering::Relaxed);
    }
}
