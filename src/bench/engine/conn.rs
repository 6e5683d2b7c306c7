//! One connection of the load generator: kept small, there are tens of thousands.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    sync::Arc,
};

use mio::net::TcpStream;

use crate::bench::{
    args::Over,
    check::Watch,
    frame::{self, opcode},
};

/// A connection by its place in the engine.
pub(crate) type ConnId = usize;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not begun.
    Waiting,
    /// The TCP handshake.
    Tcp,
    /// The WebSocket handshake.
    Upgrade,
    /// The `connect` command is unanswered.
    Connect,
    /// The `subscribe` command is unanswered.
    Subscribe,
    /// As it should be.
    Live,
    /// Over.
    Closed,
}

/// Where a subscription has come to, as far as the server has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    /// Shared: most connections have the same.
    pub(crate) epoch: Arc<str>,
}

/// What a connection is for.
pub(super) enum Role {
    Subscriber {
        channel: u32,
        watch: Watch,
        position: Position,
        /// Whether `position` is sent with the next subscribe.
        recover: bool,
    },
    Publisher(Box<Publisher>),
}

/// A publication on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    pub(super) channel: u32,
    pub(super) seq: u32,
    pub(super) time_us: u64,
}

/// The state of a publishing connection.
pub(super) struct Publisher {
    pub(super) over: Over,
    /// Waits for the connection: bounded by what the workload keeps in flight.
    pub(super) queue: VecDeque<Outgoing>,
    /// When each unanswered publication was handed over; 0 = answered out of order.
    unanswered: VecDeque<u64>,
    /// The command id of the first of `unanswered`.
    first_id: u32,
}

impl Publisher {
    pub(super) fn new(over: Over) -> Self {
        Self {
            over,
            queue: VecDeque::new(),
            unanswered: VecDeque::new(),
            first_id: 0,
        }
    }

    /// Whether the next publication may be sent now: HTTP/1.1 answers one request at a time.
    pub(super) fn may_send(&self) -> bool {
        self.over == Over::Ws || self.unanswered.is_empty()
    }

    /// Notes that the publication with command id `id` is being sent.
    pub(super) fn sent(&mut self, id: u32, time_us: u64) {
        if self.unanswered.is_empty() {
            self.first_id = id;
        }
        self.unanswered.push_back(time_us);
    }

    /// Notes an answer (over HTTP they come in order: `id` is `None`) and says when the publication
    /// was handed over.
    pub(super) fn answered(&mut self, id: Option<u32>) -> Option<u64> {
        let index = match id {
            Some(id) => usize::try_from(id.checked_sub(self.first_id)?).ok()?,
            None => 0,
        };
        let time_us = std::mem::take(self.unanswered.get_mut(index)?);
        while self.unanswered.front() == Some(&0) {
            self.unanswered.pop_front();
            self.first_id += 1;
        }
        (time_us != 0).then_some(time_us)
    }
}

pub(super) struct Conn {
    pub(super) socket: Option<TcpStream>,
    pub(super) stage: Stage,
    /// Whether the server wants its pings answered.
    pub(super) pong: bool,
    /// Index of its server.
    pub(super) target: u16,
    pub(super) next_id: u32,
    pub(super) role: Role,
    /// The start of a frame whose end has not arrived.
    pub(super) partial: Vec<u8>,
    /// The fragments of a message so far.
    pub(super) fragments: Vec<u8>,
    /// What the socket did not take.
    pub(super) outbox: Vec<u8>,
}

impl Conn {
    pub(super) fn new(role: Role, target: u16) -> Self {
        Self {
            socket: None,
            stage: Stage::Waiting,
            pong: false,
            target,
            next_id: 1,
            role,
            partial: Vec::new(),
            fragments: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// Whether it speaks HTTP only.
    pub(super) fn is_rest(&self) -> bool {
        matches!(&self.role, Role::Publisher(publisher) if publisher.over == Over::Rest)
    }

    pub(super) fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Queues a command.
    pub(super) fn command(&mut self, text: &[u8]) {
        frame::write_masked(&mut self.outbox, opcode::TEXT, text);
    }

    /// Writes what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        let mut written = 0;
        let result = loop {
            if written == self.outbox.len() {
                break Ok(());
            }
            match socket.write(&self.outbox[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        if written == self.outbox.len() {
            if matches!(self.role, Role::Publisher(_)) {
                self.outbox.clear();
            } else {
                // A connection that only answers pings keeps no buffer.
                self.outbox = Vec::new();
            }
        } else {
            self.outbox.drain(..written);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_out_of_order_find_their_publication() {
        let mut publisher = Publisher::new(Over::Ws);
        for id in 2..6 {
            publisher.sent(id, u64::from(id) * 10);
        }
        for (id, expected) in [
            (3, Some(30)),
            (3, None),
            (2, Some(20)),
            (5, Some(50)),
            (4, Some(40)),
            (9, None),
        ] {
            assert_eq!(publisher.answered(Some(id)), expected, "{id}");
        }
        publisher.sent(6, 60);
        assert_eq!(publisher.answered(Some(6)), Some(60));
    }

    #[test]
    fn over_http_one_request_is_on_its_way() {
        let mut publisher = Publisher::new(Over::Rest);
        assert!(publisher.may_send());
        publisher.sent(1, 10);
        assert!(!publisher.may_send());
        assert_eq!(publisher.answered(None), Some(10));
        assert!(publisher.may_send());
        assert_eq!(publisher.answered(None), None);
    }
}
