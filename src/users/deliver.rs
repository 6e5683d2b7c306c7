//! How a command reaches a connection.

use super::wire::Action;
use crate::{channel::Mailbox, protocol::DisconnectCode};

/// Hands it to the connection.
pub(super) fn deliver(mailbox: &Mailbox, action: &Action) {
    if let Action::Disconnect { .. } = action {
        mailbox.close(DisconnectCode::ForceReconnect);
    }
}
