//! The document of an account.

use serde::{Deserialize, Serialize};

use super::records::Record;
use crate::store::Collection;

/// An account as it is stored. No `Debug`: it holds hashes.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Account {
    /// In its one form. Unique.
    pub(super) email: String,
    pub(super) name: String,
    /// PHC string.
    pub(super) password: String,
    pub(super) created_ms: i64,
    /// When the address was verified.
    pub(super) verified_ms: Option<i64>,
    /// Grows with every change that ends sessions and links: those of a smaller one are worth nothing.
    pub(super) epoch: u64,
    pub(super) totp: Option<Totp>,
    /// The sealed seed of an enrolment that was not confirmed.
    pub(super) enrolling: Option<String>,
    /// When it is removed if it was not verified.
    pub(super) expires_ms: Option<i64>,
}

/// The second factor.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Totp {
    /// The sealed seed.
    pub(super) seed: String,
    /// The last step of which a code was used.
    pub(super) last: i64,
    pub(super) since_ms: i64,
    /// Hashes of the recovery codes that are left.
    pub(super) recovery: Vec<String>,
}

impl Record for Account {
    const COLLECTION: Collection = Collection::Accounts;
    const NAME: &'static str = "account";
    fn unique(&self) -> Option<String> {
        Some(self.email.clone())
    }
    fn keys(&self) -> Vec<String> {
        Vec::new()
    }
    fn expires_ms(&self) -> Option<i64> {
        self.expires_ms
    }
}
