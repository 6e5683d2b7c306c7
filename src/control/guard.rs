use parking_lot::Mutex;

use super::{
    context::Origin,
    error::ControlError,
    lockout::{Lockout, Rules},
};
use crate::{config::ControlConfig, limits::Address};

/// Holds off those who guess: by whom they guess for, and by where they are. This node's memory alone.
pub(super) struct Guard {
    accounts: Mutex<Lockout<String>>,
    addresses: Mutex<Lockout<Address>>,
}

/// A try that has begun, and counts as failed until it says otherwise.
pub(super) struct Attempt<'a> {
    guard: &'a Guard,
    account: String,
    address: Option<Address>,
}

impl Guard {
    pub(super) fn new(config: &ControlConfig) -> Self {
        let rules = |free| Rules {
            free,
            first: config.lockout_first,
            max: config.lockout_max,
            forget: config.lockout_forget,
            entries: config.lockout_entries,
        };
        Self {
            accounts: Mutex::new(Lockout::new(rules(config.lockout_account))),
            addresses: Mutex::new(Lockout::new(rules(config.lockout_address))),
        }
    }

    /// A try for `account` (an e-mail address, of an account or not) begins.
    ///
    /// # Errors
    ///
    /// `too_many_attempts`.
    pub(super) fn begin(
        &self,
        account: &str,
        origin: &Origin,
        now_ms: i64,
    ) -> Result<Attempt<'_>, ControlError> {
        let account = account.to_owned();
        let address = origin.ip.map(Address::from);
        // Both at once, always in this order.
        let (mut accounts, mut addresses) = (self.accounts.lock(), self.addresses.lock());
        accounts.check(&account, now_ms).map_err(ControlError::TooMany)?;
        if let Some(address) = &address {
            addresses.check(address, now_ms).map_err(ControlError::TooMany)?;
            addresses.begin(address, now_ms);
        }
        accounts.begin(&account, now_ms);
        drop((accounts, addresses));
        Ok(Attempt {
            guard: self,
            account,
            address,
        })
    }

    /// The account has proven who it is in another way.
    pub(super) fn forgive(&self, account: &str) {
        self.accounts.lock().forgive(&account.to_owned());
    }
}

impl Attempt<'_> {
    /// It was who it said. An address is forgiven this one try only: others may be there.
    pub(super) fn succeeded(self) {
        self.guard.accounts.lock().forgive(&self.account);
        self.not_counted_for_address();
    }

    /// It was no failure, and proved nothing.
    pub(super) fn take_back(self) {
        self.guard.accounts.lock().take_back(&self.account);
        self.not_counted_for_address();
    }

    fn not_counted_for_address(&self) {
        if let Some(address) = &self.address {
            self.guard.addresses.lock().take_back(address);
        }
    }
}
