//! What apps use: from the counters of the nodes to sums that plans, bills and pages go by.
//!
//! ```text
//! telemetry  counters, cheap on the fan-out path
//! reporter   every so often a record of them into the usage stream, kept until it is there
//! worker     adds records up in the store, by the minute, the hour and the day; each counts once
//! query      reads the sums; csv writes them
//! ```
//!
//! Each node numbers its records and sends one after the other; a worker takes those of a node in that order,
//! one at a time, and the store takes of each node only what follows what it has. So a record that comes
//! again, from whomever, adds nothing. A node that is killed takes what it has counted since its last record.

mod bucket;
mod calendar;
mod csv;
mod fold;
mod query;
mod record;
mod reporter;
mod worker;

pub use bucket::Step;
pub use csv::write_csv;
pub use fold::Folder;
pub use query::{Group, Namespace, QueryError, Row, Window, last_used, month, query};
pub use record::{AppRecord, FORMAT, Record, RecordError};
pub use reporter::Reporter;
pub use worker::Worker;
