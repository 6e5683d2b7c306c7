//! Quotas: what an app may have on all nodes together, enforced while it happens.
//!
//! A node admits by its part of each quota without asking anybody; the parts are moved to where clients are.
//! docs/operations.md says how exact that is.
//!
//! ```text
//! kind     the quotas that nodes share
//! fair     who should have how much: decisions, pure
//! share    one node's part, and when a larger one may take effect: pure
//! table    all parts of a node, and what others have told: pure
//! wire     what nodes tell each other
//! meter    what one app has of its quotas here: asked for each publication
//! meters   the meters of all apps
//! month    a month's count: pure
//! months   the counts of months in a bucket
//! alarm    when to warn: pure
//! events   warnings as events of the deployment
//! service  the rounds
//! ```

mod alarm;
mod events;
mod fair;
mod kind;
mod meter;
mod meters;
mod month;
mod months;
mod service;
mod share;
mod table;
mod wire;

pub use events::to_stream;
pub use kind::Kind;
pub use meter::{Allowance, Meter, Over, Place, tighter};
pub use meters::Meters;
pub use service::{OnWarning, Sharing, Warning};
