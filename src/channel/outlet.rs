//! Where a subscription's publications go: its connection's mailbox.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::ChannelName;

use super::{
    cursor,
    mailbox::{Mailbox, Notice, Offer, Pace},
};

/// One subscription's way to its connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outlet {
    mailbox: Arc<Mailbox>,
    channel: ChannelName,
    /// The connection's own name for the subscription, given back in notices.
    tag: u32,
}

impl Outlet {
    /// The outlet of the subscription that the connection calls `tag`.
    pub fn new(mailbox: Arc<Mailbox>, channel: ChannelName, tag: u32) -> Self {
        Self {
            mailbox,
            channel,
            tag,
        }
    }

    /// The connection's mailbox.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Tells the connection that the subscription has ended, since something is missing for it.
    pub fn end(&self) {
        self.mailbox.notify(Notice::Insufficient {
            channel: self.channel.clone(),
            tag: self.tag,
        });
    }
}

impl cursor::Outlet for Outlet {
    fn offer(&self, frames: &[Bytes], bytes: usize, pace: Pace) -> Offer {
        self.mailbox.offer(frames, bytes, pace)
    }

    fn space(&self) -> usize {
        self.mailbox.space()
    }
}
