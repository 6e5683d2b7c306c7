//! JSON schemas of payloads. Pure.
//!
//! A schema is read into a form of its own first ([`expand`]): every reference is replaced by what it refers
//! to, and what says nothing about validity is left out. So nothing is fetched, and
//! nothing is recursive. Validation, the bound of its work ([`Check::work`]) and the comparison of versions see
//! only that form.

mod compat;
mod compiled;
mod cost;
mod expand;
mod unique;

pub use compat::{Incompatible, check};
pub use compiled::{Check, Invalid, Schemas};
pub use expand::{Unusable, expand};
