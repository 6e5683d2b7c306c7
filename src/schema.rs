//! JSON schemas of payloads. Pure.
//!
//! A schema is read into a form of its own first ([`expand`]): every reference is replaced by what it refers
//! to, and what says nothing about validity is left out. So nothing is fetched, nothing is recursive, and the
//! size of that form bounds the work that a payload can cause. Validation and the comparison of versions
//! see only that form.

mod compat;
mod compiled;
mod expand;

pub use compat::{Incompatible, check};
pub use compiled::{Invalid, Schemas};
pub use expand::{Unusable, expand};
