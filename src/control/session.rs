//! Sessions: a short access token, and a refresh token that is replaced each time it is used.

mod family;
mod service;
mod signer;

pub use service::{SessionTokens, SessionView, Sessions};
pub(super) use signer::Signer;
