//! What needs the store: the control plane, and workers that add up what apps use.
//!
//! The first try is waited for when the node starts, as long as `store.timeout` says for each of its few
//! operations. A store that cannot be reached then is tried again and again: the routes of the control plane answer
//! 503 until it can, and nothing else of the node waits.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Roles, StartError};
use crate::{
    api::{ControlServices, ControlState},
    config::Config,
    control::{self, Clock, Control, TeamApps, apps::Apps},
    log::Log,
    seal::Sealing,
    store::{self, OpenError, Store, StoreError},
    task::Tasks,
    telemetry::Metrics,
    usage::Worker,
};

/// What it is made of.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) roles: Roles,
    pub(super) config: Config,
    pub(super) log: Arc<dyn Log>,
    pub(super) sealing: Arc<Sealing>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
}

impl Stored {
    /// Starts what the roles say: with the store if it answers, or else as soon as it does. What the routes of
    /// the control plane share, if it is one of them.
    ///
    /// # Errors
    ///
    /// What waiting does not cure.
    pub(super) async fn start(self) -> Result<Option<ControlState>, StartError> {
        if !self.roles.control && !self.roles.worker {
            return Ok(None);
        }
        if self.roles.control {
            control::check(&self.config.control)?;
        }
        let state = self
            .roles
            .control
            .then(|| ControlState::new(&self.config, self.metrics.clone(), self.tasks.clone()));
        match store::open(&self.config.store, &self.tasks).await {
            Ok(store) => self.begin(state.as_ref(), &store)?,
            Err(OpenError::Store(StoreError::Unavailable(why))) => {
                tracing::warn!(why, "the store does not answer; what needs it waits");
                self.tasks.spawn(self.clone().keep_trying(state.clone()));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(state)
    }

    async fn keep_trying(self, state: Option<ControlState>) {
        loop {
            tokio::time::sleep(self.config.control.store_retry).await;
            let begun = match store::open(&self.config.store, &self.tasks).await {
                Ok(store) => self.begin(state.as_ref(), &store),
                Err(OpenError::Store(StoreError::Unavailable(_))) => continue,
                Err(error) => Err(error.into()),
            };
            match begun {
                Ok(()) => {
                    tracing::info!("the store answers");
                    return;
                }
                Err(error) => tracing::error!(%error, "what needs the store cannot use it"),
            }
        }
    }

    fn begin(&self, state: Option<&ControlState>, store: &Arc<dyn Store>) -> Result<(), StartError> {
        if let Some(state) = state {
            self.open(state, store)?;
        }
        if self.roles.worker {
            Worker::start(&*self.log, store, &self.config.usage, &self.metrics, &self.tasks);
        }
        Ok(())
    }

    fn open(&self, state: &ControlState, store: &Arc<dyn Store>) -> Result<(), StartError> {
        let control = Control::start(
            &self.config.control,
            &self.config.mail,
            self.sealing.clone(),
            store.clone(),
            Clock::system(),
            self.metrics.clone(),
            &self.tasks,
        )?;
        let apps = Arc::new(Apps::new(
            store.clone(),
            self.log.clone(),
            &self.config,
            self.sealing.clone(),
            Clock::system(),
        ));
        let interval = self.config.control.reconcile_interval;
        self.tasks.spawn(reconcile(Arc::downgrade(&apps), interval));
        state.open(ControlServices {
            apps: Arc::new(TeamApps::new(apps, control.clone(), self.tasks.clone())),
            control,
            store: store.clone(),
            sealing: self.sealing.clone(),
        });
        Ok(())
    }
}

/// Tells the nodes again and again what they were not told.
async fn reconcile(apps: Weak<Apps>, pause: Duration) {
    while let Some(strong) = apps.upgrade() {
        // What is wrong was logged, or is a store or NATS that do not answer.
        let (plans, records) = (strong.renew_plans().await, strong.reconcile().await);
        for error in [plans.err(), records.err()].into_iter().flatten() {
            tracing::debug!(%error, "not all apps are as the store has them");
        }
        drop(strong);
        tokio::time::sleep(pause).await;
    }
}
