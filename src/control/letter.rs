//! The document behind the link in a letter.

use serde::{Deserialize, Serialize};

use super::{permission::Role, records::Record};
use crate::store::Collection;

/// A link that can be used once. What is stored is the hash of its secret.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) hash: String,
    pub(super) created_ms: i64,
    pub(super) expires_ms: i64,
    pub(super) what: What,
}

/// What it is good for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// To verify the address of an account whose epoch is still this one.
    Verify { account: String, epoch: u64 },
    /// To set a new password, while the account's epoch and address are still these.
    Reset {
        account: String,
        epoch: u64,
        email: String,
    },
    /// To change the address of an account whose epoch is still this one.
    NewEmail {
        account: String,
        epoch: u64,
        email: String,
    },
    /// To make an account, or to join a team.
    Invitation(Invitation),
}

/// An invitation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Invitation {
    /// The team; `None` = only to sign up.
    pub(super) team: Option<String>,
    pub(super) email: String,
    pub(super) role: Role,
    /// The account that has invited; empty for the operator.
    pub(super) by: String,
    /// Who is accepting it. When that is done it is removed.
    pub(super) used_by: Option<String>,
}

impl Record for Link {
    const COLLECTION: Collection = Collection::Invitations;
    const NAME: &'static str = "invitation";
    fn unique(&self) -> Option<String> {
        Some(self.hash.clone())
    }
    fn keys(&self) -> Vec<String> {
        match &self.what {
            What::Verify { account, .. } | What::Reset { account, .. } | What::NewEmail { account, .. } => {
                vec![account_key(account)]
            }
            What::Invitation(Invitation { team, used_by, .. }) => {
                let team = team.as_deref().map(super::team_key);
                let account = used_by.as_deref().map(account_key);
                team.into_iter().chain(account).collect()
            }
        }
    }
    fn expires_ms(&self) -> Option<i64> {
        Some(self.expires_ms)
    }
}

/// The key of what belongs to an account.
pub(super) fn account_key(account: &str) -> String {
    format!("account:{account}")
}
