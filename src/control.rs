//! The control plane: who manages apps, and the apps as they manage them. Needs the store; the data plane
//! needs nothing of this.

pub mod apps;
mod clock;
pub mod plan;

pub use clock::Clock;
