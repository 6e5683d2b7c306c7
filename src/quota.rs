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
//! ledger   what one node adds to a count that all share: pure
//! month    a month's count: pure
//! window   the bytes that are in the history: pure
//! reservation  room in the history for one publication
//! counts   both counts in buckets, added up by all nodes
//! months   those of months, beside that
//! alarm    when to warn: pure
//! events   warnings as events of the deployment
//! service  the rounds
//! ```

mod alarm;
mod counts;
mod events;
mod fair;
mod kind;
mod ledger;
mod meter;
mod meters;
mod month;
mod months;
mod reservation;
mod service;
mod share;
mod table;
mod window;
mod wire;

pub use events::to_stream;
pub use kind::Kind;
pub use meter::{Allowance, Meter, Over, Place, tighter};
pub use meters::Meters;
pub use reservation::{Reservation, Size};
pub use service::{OnWarning, Sharing, Warning};
