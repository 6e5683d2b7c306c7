//! Puts the control plane together: the store, what decides over it, and the routes that lead there.
//!
//! A store that cannot be reached when the node starts is tried again and again: the routes answer 503 until then,
//! and nothing else of the node waits.

use std::sync::{Arc, Weak};

use super::StartError;
use crate::{
    api::{ControlServices, ControlState},
    config::Config,
    control::{self, Clock, Control, TeamApps, apps::Apps},
    log::Log,
    seal::Sealing,
    store::{self, OpenError, Store, StoreError},
    task::Tasks,
    telemetry::Metrics,
};

/// What it is made of.
pub(super) struct ControlPlane {
    pub(super) config: Config,
    pub(super) log: Arc<dyn Log>,
    pub(super) sealing: Arc<Sealing>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
}

impl ControlPlane {
    /// Starts it: with the store if it answers, or else as soon as it does.
    ///
    /// # Errors
    ///
    /// What waiting does not cure.
    pub(super) async fn start(self) -> Result<ControlState, StartError> {
        control::check(&self.config.control)?;
        let state = ControlState::new(&self.config, self.metrics.clone(), self.tasks.clone());
        match store::open(&self.config.store, &self.tasks).await {
            Ok(store) => self.open(&state, store)?,
            Err(OpenError::Store(StoreError::Unavailable(why))) => {
                tracing::warn!(
                    why,
                    "the store does not answer; the control plane answers 503 until it does"
                );
                let tasks = self.tasks.clone();
                tasks.spawn(self.keep_trying(state.clone()));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(state)
    }

    async fn keep_trying(self, state: ControlState) {
        loop {
            tokio::time::sleep(self.config.control.store_retry).await;
            let opened = match store::open(&self.config.store, &self.tasks).await {
                Ok(store) => self.open(&state, store),
                Err(OpenError::Store(StoreError::Unavailable(_))) => continue,
                Err(error) => Err(error.into()),
            };
            match opened {
                Ok(()) => {
                    tracing::info!("the store answers; the control plane is there");
                    return;
                }
                Err(error) => tracing::error!(%error, "the control plane cannot use its store"),
            }
        }
    }

    fn open(&self, state: &ControlState, store: Arc<dyn Store>) -> Result<(), StartError> {
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
        self.tasks.spawn(reconcile(
            Arc::downgrade(&apps),
            self.config.control.reconcile_interval,
        ));
        state.open(ControlServices {
            apps: Arc::new(TeamApps::new(apps, control.clone(), self.tasks.clone())),
            control,
            store,
            sealing: self.sealing.clone(),
        });
        Ok(())
    }
}

/// Tells the nodes again and again what they were not told.
async fn reconcile(apps: Weak<Apps>, pause: std::time::Duration) {
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
