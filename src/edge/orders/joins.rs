//! The subscriptions of a connection, from the attempt to the end.

use bytes::Bytes;
use futures_util::future::AbortHandle;

use super::presence_error;
use crate::{
    channel::Subscription,
    presence::{Membership, Shown},
    protocol::ErrorCode,
    session::Generation,
    telemetry::AppMetrics,
};

/// The subscriptions of a connection, and those it is about to have.
#[derive(Default)]
pub(in crate::edge) struct Joins {
    /// A handful at most connections: sorted by nothing, searched from the start.
    all: Vec<(Generation, Join)>,
}

enum Join {
    UnderWay(AbortHandle),
    Joined(Box<Attached>),
}

/// What a subscription holds. Dropped, the connection counts as lost to those who see it.
pub(in crate::edge) struct Attached {
    /// Leaves the tail.
    pub(super) _subscription: Subscription,
    pub(super) membership: Option<Membership>,
}

impl Joins {
    /// Has a member show another state.
    pub(in crate::edge) fn update(
        &mut self,
        generation: Generation,
        state: Option<Bytes>,
    ) -> Result<(), ErrorCode> {
        let joined = self.all.iter_mut().find(|(known, _)| *known == generation);
        let membership = match joined {
            Some((_, Join::Joined(attached))) => attached.membership.as_mut(),
            _ => None,
        };
        let membership = membership.ok_or(ErrorCode::PermissionDenied)?;
        membership.update_state(state).map_err(presence_error)
    }

    /// Has members show other information: all of the connection, or the one of a subscription.
    pub(in crate::edge) fn show(&mut self, generation: Option<Generation>, info: Option<&Bytes>) {
        for (known, join) in &mut self.all {
            let (Join::Joined(attached), true) = (join, generation.is_none_or(|only| only == *known)) else {
                continue;
            };
            if let Some(membership) = &mut attached.membership {
                let info = info.cloned();
                let shown = match generation {
                    None => Shown::Connection(info),
                    Some(_) => Shown::Subscription(info),
                };
                // What is too large is counted, and others see what they saw.
                let _ = membership.update_info(shown);
            }
        }
    }

    /// Ends a subscription, or the attempt at one; true if there was either. The connection leaves: it is
    /// not lost.
    pub(in crate::edge) fn leave(&mut self, generation: Generation, metrics: &AppMetrics) -> bool {
        self.end(generation, true, metrics)
    }

    fn end(&mut self, generation: Generation, leaves: bool, metrics: &AppMetrics) -> bool {
        let Some(at) = self.all.iter().position(|(known, _)| *known == generation) else {
            return false;
        };
        match self.all.swap_remove(at).1 {
            Join::UnderWay(handle) => handle.abort(),
            Join::Joined(attached) => {
                metrics.subscriptions.dec();
                if let Some(membership) = attached.membership.filter(|_| leaves) {
                    membership.leave();
                }
            }
        }
        true
    }

    /// Ends all of them. `leaves`: the connection has said goodbye, it is not lost.
    pub(in crate::edge) fn clear(&mut self, leaves: bool, metrics: &AppMetrics) {
        while let Some((generation, _)) = self.all.last() {
            let generation = *generation;
            self.end(generation, leaves, metrics);
        }
    }

    /// A join has come to an end.
    pub(in crate::edge) fn joined(
        &mut self,
        generation: Generation,
        result: Result<Attached, ErrorCode>,
        metrics: &AppMetrics,
    ) -> Result<(), ErrorCode> {
        let known = self.all.iter_mut().find(|(known, _)| *known == generation);
        match (result, known) {
            (Ok(attached), Some((_, join))) => {
                metrics.subscriptions.inc();
                *join = Join::Joined(Box::new(attached));
                Ok(())
            }
            (Ok(attached), None) => {
                metrics.subscriptions.inc();
                self.all.push((generation, Join::Joined(Box::new(attached))));
                Ok(())
            }
            (Err(code), _) => {
                self.all.retain(|(known, _)| *known != generation);
                Err(code)
            }
        }
    }

    pub(super) fn begin(&mut self, generation: Generation) -> futures_util::future::AbortRegistration {
        let (handle, registration) = AbortHandle::new_pair();
        self.all.push((generation, Join::UnderWay(handle)));
        registration
    }
}
